//! `cygnet history`.

use std::io::{self, Write};

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::past::Part;
use crate::why::UNANSWERED;

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    part: Part,
    /// Show IKE SAs rather than the generations of CHILD SAs.
    #[arg(long)]
    ike_sas: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut request = arguments.part.request();
    request.set_if("ike-sas", arguments.ike_sas);
    let (mut totals, mut rows) = (Vec::new(), Vec::new());
    for event in ["cygnet-total", "cygnet-generation", "cygnet-past-ike"] {
        client.register(event)?;
    }
    let answer = client.command("cygnet-history", request, |event, message| {
        match event {
            "cygnet-total" => totals.push(message.clone()),
            "cygnet-generation" | "cygnet-past-ike" => rows.push(message.clone()),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(error) = answer.get_str("errmsg") {
        eprintln!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        let list = |messages: &[Message]| messages.iter().filter_map(text::cygnet_json).collect::<Vec<Json>>();
        let json = if arguments.ike_sas {
            Json::Array(list(&rows))
        } else {
            serde_json::json!({ "totals": list(&totals), "generations": list(&rows) })
        };
        writeln!(out, "{json}")?;
    } else {
        let row = if arguments.ike_sas { text::cygnet_past_ike } else { text::cygnet_generation };
        for total in &totals {
            write!(out, "{}", text::cygnet_total(total))?;
        }
        for message in &rows {
            write!(out, "{}", row(message))?;
        }
        if rows.is_empty() {
            writeln!(out, "nothing of that is in the history")?;
        }
    }
    out.flush()?;
    Ok(0)
}
