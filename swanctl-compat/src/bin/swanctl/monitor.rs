//! `--log` and `--monitor-sa`: events until interrupted, which is a good end; that the daemon goes away is a failure.

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::options::Invocation;
use crate::output::{Form, end_at_signal, print};

pub(crate) fn log(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    follow(client, invocation, &["log"], text::log)
}

pub(crate) fn monitor_sa(client: &mut Client, invocation: &Invocation) -> Result<u8, ClientError> {
    follow(client, invocation, &["ike-updown", "child-updown"], text::list_sa)
}

fn follow(
    client: &mut Client,
    invocation: &Invocation,
    events: &[&str],
    human: fn(&Message) -> String,
) -> Result<u8, ClientError> {
    let form = Form::of(invocation);
    end_at_signal()?;
    for event in events {
        client.register(event)?;
    }
    loop {
        let (event, message) = client.event()?;
        // The log's raw form has always been called by the bare word.
        let label = if event == "log" { event.clone() } else { format!("{event} event") };
        if form.dump(&label, &message)? {
            continue;
        }
        match form {
            Form::Json => {
                let mut object = serde_json::Map::new();
                object.insert("event".to_owned(), event.into());
                object.insert("data".to_owned(), text::json(&message));
                print(&format!("{}\n", serde_json::Value::Object(object)))?;
            }
            Form::Human | Form::Raw | Form::Pretty => print(&human(&message))?,
        }
    }
}
