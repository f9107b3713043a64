//! `cygnet guards`.

use std::io::Write;

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};

/// Options of `guards`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Take them down: their traffic flows in clear from now on.
    #[arg(long)]
    drop_unclaimed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code when the daemon could not take them down.
const REFUSED: u8 = 2;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut question = Message::new();
    question.set_if("drop-unclaimed", arguments.drop_unclaimed);
    let answer = client.command("cygnet-guards", question, |_, _| Ok(()))?;
    if !answer.is_yes("success") {
        say!("cygnet: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
        return Ok(REFUSED);
    }
    let unclaimed = answer.list_strs("unclaimed");
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", Json::Array(unclaimed.map(Json::from).collect()))?;
    } else {
        for entry in unclaimed {
            writeln!(out, "{}", text::printable(entry))?;
        }
    }
    out.flush()?;
    Ok(0)
}
