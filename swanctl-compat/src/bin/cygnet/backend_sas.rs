//! `cygnet backend-sas`.

use std::io::Write;

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::stdout;

/// Options of `backend-sas`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code when an SA belongs to no CHILD SA.
const ORPHAN: u8 = 3;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut sas = Vec::new();
    client.register("cygnet-backend-sa")?;
    client.command("cygnet-backend-sas", Message::new(), |event, message| {
        if event == "cygnet-backend-sa" {
            sas.push(message.clone());
        }
        Ok(())
    })?;
    let mut out = stdout();
    if arguments.json {
        let all: Vec<Json> = sas.iter().filter_map(text::cygnet_json).collect();
        writeln!(out, "{}", Json::Array(all))?;
    } else {
        for sa in &sas {
            write!(out, "{}", text::cygnet_backend_sa(sa))?;
        }
        if sas.is_empty() {
            writeln!(out, "the data path holds no SA")?;
        }
    }
    out.flush()?;
    Ok(if sas.iter().any(is_orphan) { ORPHAN } else { 0 })
}

fn is_orphan(event: &Message) -> bool {
    event.sections().next().is_some_and(|(_, sa)| sa.is_yes("orphan"))
}
