//! `--list-certs`.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value as Json;
use swanctl_compat::certificate::{self, Clock, Listing, Style};
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::{Form, print};
use crate::stdio::say;

/// Exit code when some certificates could not be shown.
const NOT_ALL: u8 = 1;

pub(crate) fn list_certs(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    let mut request = Message::new();
    for key in ["type", "flag", "subject"] {
        if let Some(value) = invocation.value(key) {
            request.set(key, value);
        }
    }
    let form = Form::of(invocation);
    let utc = invocation.has("utc");
    let zone = if utc { TimeZone::UTC } else { Zoned::now().time_zone().clone() };
    let clock = Clock { now: Timestamp::now().as_second(), zone, utc };
    let style = Style { short: invocation.has("short"), clock: &clock };
    let as_pem = invocation.has("pem");
    let (mut listing, mut documents, mut code) = (Listing::default(), Vec::new(), 0);
    client.register("list-cert")?;
    let answer = client.command("list-certs", request, |event, message| {
        if event != "list-cert" || form.dump("list-cert event", message)? {
            return Ok(());
        }
        let shown = match form {
            Form::Json => certificate::json(message).map(|document| {
                documents.push(document);
                String::new()
            }),
            Form::Human | Form::Raw | Form::Pretty if as_pem => certificate::pem(message),
            Form::Human | Form::Raw | Form::Pretty => listing.entry(message, style),
        };
        match shown {
            Ok(text) => print(&text),
            Err(error) => {
                say!("{error}");
                code = NOT_ALL;
                Ok(())
            }
        }
    })?;
    form.dump("list-certs reply", &answer)?;
    if form == Form::Json {
        print(&format!("{}\n", Json::Array(documents)))?;
    }
    if let Some(error) = answer.get_str("errmsg") {
        say!("list-certs failed: {error}");
        return Ok(1);
    }
    Ok(code)
}
