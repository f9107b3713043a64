//! `cygnet events`.

use std::collections::HashSet;
use std::io::{self, Write};

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::past::Part;
use crate::why::UNANSWERED;

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    part: Part,
    /// Only events of this name, such as child-sa.rekeyed.
    #[arg(long = "type", value_name = "NAME")]
    event: Option<String>,
    /// Go on with what happens from now on, until interrupted. Without --since, only that.
    #[arg(long, short)]
    follow: bool,
    /// Print each record as a line of JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut out = io::stdout().lock();
    // What happens while the past is read comes in between, and then once more from the past.
    let mut seen = HashSet::new();
    client.register("cygnet-event")?;
    if !arguments.follow || arguments.part.has_since() {
        let mut request = arguments.part.request();
        if let Some(event) = &arguments.event {
            request.set("type", event.as_str());
        }
        let mut past = Vec::new();
        let answer = client.command("cygnet-events", request, |event, message| {
            if event == "cygnet-event" {
                past.push(message.clone());
            }
            Ok(())
        })?;
        if let Some(error) = answer.get_str("errmsg") {
            eprintln!("cygnet: {error}");
            return Ok(UNANSWERED);
        }
        past.sort_by(|a, b| a.get_str("ulid").cmp(&b.get_str("ulid")));
        for message in &past {
            if seen.insert(message.get_str("ulid").map(str::to_owned)) {
                print(&mut out, message, arguments)?;
            }
        }
    }
    out.flush()?;
    if !arguments.follow {
        return Ok(0);
    }
    loop {
        let (event, message) = client.event()?;
        if event == "cygnet-event" && !seen.contains(&message.get_str("ulid").map(str::to_owned)) {
            print(&mut out, &message, arguments)?;
            out.flush()?;
        }
    }
}

fn print(out: &mut impl Write, message: &Message, arguments: &Arguments) -> io::Result<()> {
    let text = message.get_str("record").unwrap_or_default();
    let Ok(record) = serde_json::from_str::<Json>(text) else { return Ok(()) };
    if !is_wanted(&record, arguments) {
        return Ok(());
    }
    if arguments.json { writeln!(out, "{text}") } else { write!(out, "{}", text::cygnet_event_line(&record)) }
}

fn is_wanted(record: &Json, arguments: &Arguments) -> bool {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let of = |key: &str, field: &str| text(record.get(key)?.get(field));
    let connection =
        text(record.get("connection")).or_else(|| of("ike", "connection")).or_else(|| of("new", "connection"));
    let child = text(record.get("child")).or_else(|| of("child", "name")).or_else(|| of("new", "name"));
    let named = arguments.event.as_deref().is_none_or(|event| record.get("type").and_then(Json::as_str) == Some(event));
    named && arguments.part.takes(connection.as_deref(), child.as_deref())
}
