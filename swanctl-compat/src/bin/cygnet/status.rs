//! `cygnet status`.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this connection.
    connection: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Widest name column.
const MAX_WIDTH: usize = 48;

/// Exit code when a child is neither up nor merely waiting for traffic: scripts can tell a broken gateway from a sound one.
const NOT_UP: u8 = 3;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut request = Message::new();
    if let Some(connection) = &arguments.connection {
        request.set("ike", connection.as_str());
    }
    let mut children = Vec::new();
    client.register("cygnet-child")?;
    client.command("cygnet-status", request, |event, message| {
        if event == "cygnet-child" {
            children.push(message.clone());
        }
        Ok(())
    })?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let all: Vec<Json> = children.iter().filter_map(text::cygnet_json).collect();
        writeln!(out, "{}", Json::Array(all))?;
    } else {
        let names = children.iter().filter_map(|child| child.sections().next());
        let width = names.map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(MAX_WIDTH);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        for child in &children {
            write!(out, "{}", text::cygnet_child(child, now, width))?;
        }
        if children.is_empty() {
            writeln!(out, "no children are configured")?;
        }
    }
    out.flush()?;
    Ok(if children.iter().all(is_sound) { 0 } else { NOT_UP })
}

fn is_sound(event: &Message) -> bool {
    let state = event.sections().next().and_then(|(_, child)| child.get_str("state"));
    matches!(state, Some("up" | "trapped" | "shunt"))
}
