//! `cygnet doctor`.

use std::io::Write;

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit codes, those of `cygnetd --check`.
const WARNINGS: u8 = 1;
const ERRORS: u8 = 2;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let (mut devices, mut checks) = (Vec::new(), Vec::new());
    client.register("cygnet-device")?;
    client.register("cygnet-check")?;
    let answer = client.command("cygnet-doctor", Message::new(), |event, message| {
        match event {
            "cygnet-device" => devices.push(message.clone()),
            "cygnet-check" => checks.push(message.clone()),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(error) = answer.get_str("errmsg") {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let count = |key| answer.get_str(key).unwrap_or("0");
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", text::cygnet_doctor_json(&devices, &checks, &answer))?;
    } else {
        writeln!(out, "{}", text::cygnet_devices(&devices))?;
        for check in &checks {
            write!(out, "{}", text::cygnet_check(check))?;
        }
        writeln!(out, "{} errors, {} warnings", count("errors"), count("warnings"))?;
    }
    out.flush()?;
    Ok(match (count("errors"), count("warnings")) {
        ("0", "0") => 0,
        ("0", _) => WARNINGS,
        _ => ERRORS,
    })
}
