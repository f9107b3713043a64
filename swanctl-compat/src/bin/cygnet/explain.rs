//! `cygnet explain`.

use std::io::Write;

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Options of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Connection.
    #[arg(value_name = "CONN")]
    connection: String,
    /// Only this child.
    #[arg(value_name = "CHILD")]
    child: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut request = Message::new();
    request.set("ike", arguments.connection.as_str());
    if let Some(child) = &arguments.child {
        request.set("child", child.as_str());
    }
    let mut blocks = Vec::new();
    client.register("cygnet-block")?;
    let answer = client.command("cygnet-explain", request, |event, message| {
        if event == "cygnet-block" {
            blocks.push(message.clone());
        }
        Ok(())
    })?;
    if let Some(error) = answer.get_str("errmsg") {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let mut out = stdout();
    if arguments.json {
        let all: Vec<Json> = blocks.iter().filter_map(text::cygnet_json).collect();
        writeln!(out, "{}", Json::Array(all))?;
    } else {
        for block in &blocks {
            write!(out, "{}", text::cygnet_block(block))?;
        }
        if blocks.is_empty() {
            // Whoever runs what is printed runs this as well.
            writeln!(out, "# {}: nothing is installed, nor would be", text::printable(&arguments.connection))?;
        }
    }
    out.flush()?;
    Ok(0)
}
