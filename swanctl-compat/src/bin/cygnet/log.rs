//! `cygnet log`.

use std::io::Write;

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::moment::{Clock, ago};
use crate::stdio::{say, stdout};

/// Options of `log`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A connection, or * for everything; without one, what is raised is listed.
    #[arg(requires = "level")]
    connection: Option<String>,
    /// 0 what an operator wants to see, 1 the course of things, 2 to 4 more; or error, warn, info, debug, trace; or off.
    #[arg(allow_hyphen_values = true)]
    level: Option<String>,
    /// Only lines of one part of the daemon: IKE, CHD, CFG, NET, ENC, KNL, MGR, JOB, LIB, DMN ...
    #[arg(long, value_name = "GROUP", requires = "connection")]
    group: Option<String>,
    /// For how long, as 30s, 10m, 2h, 7d at most.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = seconds)]
    time: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code when the daemon does not do it.
const REFUSED: u8 = 2;
const EVENT: &str = "cygnet-raised";

fn seconds(text: &str) -> Result<u64, String> {
    ago(text).ok_or_else(|| "expected a time such as 30s, 10m or 2h".to_owned())
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut request = Message::new();
    if let (Some(connection), Some(level)) = (&arguments.connection, &arguments.level) {
        request.set("connection", connection.as_str());
        request.set("level", level.as_str());
        request.set_display("seconds", arguments.time);
    }
    if let Some(group) = &arguments.group {
        request.set("group", group.as_str());
    }
    let mut raised = Vec::new();
    client.register(EVENT)?;
    let answer = client.command("cygnet-log", request, |event, message| {
        if event == EVENT {
            raised.push(message.clone());
        }
        Ok(())
    })?;
    if !answer.is_yes("success") {
        say!("cygnet: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
        return Ok(REFUSED);
    }
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", Json::Array(raised.iter().map(text::json).collect()))?;
    } else if raised.is_empty() {
        writeln!(out, "nothing is raised: the log is as [log] says")?;
    } else {
        let clock = Clock::new(false);
        let moment = |seconds: u64| clock.show(seconds.saturating_mul(1000));
        let (heading, rows) = text::cygnet_raised(&raised, moment).lines();
        writeln!(out, "{heading}")?;
        for (_, row) in rows {
            writeln!(out, "{row}")?;
        }
    }
    out.flush()?;
    Ok(0)
}
