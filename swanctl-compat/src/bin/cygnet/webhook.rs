//! `cygnet webhook`.

use std::fs::File;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Octets of a secret: as many as HMAC-SHA256 has use for.
const SECRET: usize = 32;
/// Exit code when a message did not arrive.
const FAILED: u8 = 1;
/// Exit code when a webhook is down, disabled or configured no more.
const TROUBLE: u8 = 3;

/// Options of `webhook`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every webhook: how it is doing, what waits, what was delivered and what failed. Ends with 3 when one is down, disabled or not
    /// configured any more. The same as without a word.
    List,
    /// Send a signed message of type webhook.test at once and say what becomes of it. Ends with 1 when it does not arrive.
    Test {
        /// The webhook.
        name: String,
    },
    /// Show deliveries, the newest event first.
    Deliveries {
        /// Only to this webhook.
        name: Option<String>,
        /// Only those that are waiting, delivered or dead.
        #[arg(long)]
        state: Option<String>,
        /// Only of the event with this ULID.
        #[arg(long, value_name = "ULID")]
        event: Option<String>,
        /// Only of events of this connection.
        #[arg(long, value_name = "CONN")]
        connection: Option<String>,
        /// Go on after this delivery: ULID/NAME.
        #[arg(long, value_name = "ULID/NAME")]
        before: Option<String>,
        /// At most so many; 0 = as many as the daemon gives at once.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Have messages that were given up delivered again, or one whatever has become of it.
    #[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["name", "event", "all"])))]
    Redeliver {
        /// Only to this webhook.
        name: Option<String>,
        /// The event with this ULID, also one that has been delivered.
        #[arg(long, value_name = "ULID")]
        event: Option<String>,
        /// Those of every webhook.
        #[arg(long, conflicts_with_all = ["name", "event"])]
        all: bool,
    },
    /// Send to a disabled webhook again, beginning with what has waited.
    Enable {
        /// The webhook.
        name: String,
    },
    /// Send nothing to a webhook until it is enabled, also over restarts. Messages wait.
    Disable {
        /// The webhook.
        name: String,
    },
    /// Give up every message that waits for a webhook, such as one that is configured no more.
    Drop {
        /// The webhook.
        name: String,
    },
    /// Print a fresh secret, for cygnetd.toml and the receiver. The daemon is not asked.
    Secret,
}

/// What needs no daemon; `None` when it is needed.
pub(crate) fn run_alone(arguments: &Arguments) -> Option<io::Result<u8>> {
    matches!(arguments.action, Some(Action::Secret)).then(|| print_secret(arguments.json))
}

fn print_secret(json: bool) -> io::Result<u8> {
    let mut octets = [0; SECRET];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(octets));
    let mut out = stdout();
    if json {
        writeln!(out, "{}", serde_json::json!({ "secret": secret }))?
    } else {
        writeln!(out, "{secret}")?
    }
    out.flush()?;
    Ok(0)
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let json = arguments.json;
    match arguments.action.as_ref().unwrap_or(&Action::List) {
        Action::List => list(client, json),
        Action::Test { name } => test(client, name, json),
        Action::Deliveries { name, state, event, connection, before, limit } => {
            let keys = [("name", name), ("state", state), ("event", event), ("ike", connection), ("before", before)];
            let mut request = request(&keys);
            request.set_display("limit", limit);
            deliveries(client, request, json)
        }
        Action::Redeliver { name, event, all } => {
            let mut request = request(&[("name", name), ("event", event)]);
            request.set_if("all", *all);
            change(client, "cygnet-webhook-redeliver", request, "due again", json)
        }
        Action::Enable { name } => change(client, "cygnet-webhook-enable", named(name), "enabled", json),
        Action::Disable { name } => change(client, "cygnet-webhook-disable", named(name), "disabled", json),
        Action::Drop { name } => change(client, "cygnet-webhook-drop", named(name), "given up", json),
        Action::Secret => print_secret(json).map_err(ClientError::from),
    }
}

fn named(name: &str) -> Message {
    Message::new().with("name", name)
}

fn request(keys: &[(&str, &Option<String>)]) -> Message {
    let mut request = Message::new();
    for (key, value) in keys {
        if let Some(value) = value {
            request.set(*key, value.as_str());
        }
    }
    request
}

fn list(client: &mut Client, json: bool) -> Result<u8, ClientError> {
    let webhooks = match gather(client, "cygnet-webhooks", "cygnet-webhook", Message::new())? {
        Ok(webhooks) => webhooks,
        Err(code) => return Ok(code),
    };
    print(&webhooks, json, text::cygnet_webhook, "no webhooks are configured")?;
    let trouble = |webhook: &Message| {
        let state = webhook.sections().next().and_then(|(_, webhook)| webhook.get_str("state"));
        matches!(state, Some("down" | "disabled" | "unconfigured"))
    };
    Ok(if webhooks.iter().any(trouble) { TROUBLE } else { 0 })
}

fn deliveries(client: &mut Client, request: Message, json: bool) -> Result<u8, ClientError> {
    match gather(client, "cygnet-webhook-deliveries", "cygnet-delivery", request)? {
        Ok(deliveries) => print(&deliveries, json, text::cygnet_delivery, "there are no such deliveries").map(|()| 0),
        Err(code) => Ok(code),
    }
}

fn gather(
    client: &mut Client,
    command: &str,
    event: &str,
    request: Message,
) -> Result<Result<Vec<Message>, u8>, ClientError> {
    let mut messages = Vec::new();
    client.register(event)?;
    let answer = client.command(command, request, |name, message| {
        if name == event {
            messages.push(message.clone());
        }
        Ok(())
    })?;
    Ok(match answer.get_str("errmsg") {
        Some(error) => {
            say!("cygnet: {error}");
            Err(UNANSWERED)
        }
        None => Ok(messages),
    })
}

fn print(messages: &[Message], json: bool, line: fn(&Message) -> String, none: &str) -> Result<(), ClientError> {
    let mut out = stdout();
    if json {
        let all: Vec<Json> = messages.iter().filter_map(text::cygnet_json).collect();
        writeln!(out, "{}", Json::Array(all))?;
    } else {
        for message in messages {
            write!(out, "{}", line(message))?;
        }
        if messages.is_empty() {
            writeln!(out, "{none}")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn test(client: &mut Client, name: &str, json: bool) -> Result<u8, ClientError> {
    let answer = client.command("cygnet-webhook-test", named(name), |_, _| Ok(()))?;
    if answer.get("id").is_none() {
        say!("cygnet: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
        return Ok(UNANSWERED);
    }
    let mut out = stdout();
    match json {
        true => writeln!(out, "{}", text::json(&answer))?,
        false => write!(out, "{}", text::cygnet_webhook_tried(name, &answer))?,
    }
    out.flush()?;
    Ok(if answer.is_yes("success") { 0 } else { FAILED })
}

/// Orders something that is counted.
fn change(client: &mut Client, command: &str, request: Message, done: &str, json: bool) -> Result<u8, ClientError> {
    let answer = client.command(command, request, |_, _| Ok(()))?;
    if !answer.is_yes("success") {
        say!("cygnet: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
        return Ok(UNANSWERED);
    }
    let matches = answer.get_str("matches").unwrap_or("0");
    let mut out = stdout();
    match json {
        true => writeln!(out, "{}", text::json(&answer))?,
        false => writeln!(out, "{matches} {done}")?,
    }
    out.flush()?;
    Ok(0)
}
