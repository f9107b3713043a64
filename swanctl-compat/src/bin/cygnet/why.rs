//! `cygnet why`.

use std::io::Write;

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};

/// Options of `why`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Source address.
    #[arg(value_name = "SRC")]
    source: String,
    /// Destination address.
    #[arg(value_name = "DST")]
    destination: String,
    /// Protocol by name or number, with the destination port where it has ports: `tcp:443`, `udp:53`, `icmp`, `47`. An echo request unless given.
    #[arg(value_name = "PROTO[:PORT]")]
    upper: Option<String>,
    /// Source port, where selectors look at it.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Length of the packet in octets, its IP header included: does it fit?
    #[arg(long, value_name = "OCTETS")]
    size: Option<u32>,
    /// Link that the packet arrives on, where it is not the one that its source is behind.
    #[arg(long = "in", value_name = "LINK")]
    arrival: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code when a broken step was found.
const BROKEN: u8 = 1;
/// Exit code of a question that cannot be answered.
pub(crate) const UNANSWERED: u8 = 2;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let question = question(arguments);
    let mut steps = Vec::new();
    client.register("cygnet-step")?;
    let answer = client.command("cygnet-why", question.clone(), |event, message| {
        if event == "cygnet-step" {
            steps.push(message.clone());
        }
        Ok(())
    })?;
    if let Some(error) = answer.get_str("errmsg") {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", text::cygnet_why_json(&question, &steps, &answer))?;
    } else {
        for step in &steps {
            write!(out, "{}", text::cygnet_step(step))?;
        }
        write!(out, "{}", text::cygnet_verdict(&answer))?;
    }
    out.flush()?;
    Ok(if answer.is_yes("delivered") { 0 } else { BROKEN })
}

fn question(arguments: &Arguments) -> Message {
    let mut question = Message::new();
    question.set("src", arguments.source.as_str());
    question.set("dst", arguments.destination.as_str());
    if let Some(upper) = &arguments.upper {
        let (protocol, port) =
            upper.split_once(':').map_or((upper.as_str(), None), |(proto, port)| (proto, Some(port)));
        question.set("proto", protocol);
        if let Some(port) = port {
            question.set("port", port);
        }
    }
    for (key, value) in [("source-port", arguments.source_port.map(u32::from)), ("size", arguments.size)] {
        if let Some(value) = value {
            question.set_display(key, value);
        }
    }
    if let Some(arrival) = &arguments.arrival {
        question.set("in", arrival.as_str());
    }
    question
}
