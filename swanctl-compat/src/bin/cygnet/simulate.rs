//! `cygnet simulate`: has a simulated device go wrong, for tests.

use std::io::Write;

use clap::builder::PossibleValuesParser;
use swanctl_compat::request::simulate::FAULTS;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::stdio::{say, stdout};

/// Options of `simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is to go wrong.
    #[arg(value_parser = PossibleValuesParser::new(FAULTS))]
    fault: String,
    /// Name of the device, where there are several.
    #[arg(long)]
    device: Option<String>,
    /// Only SAs with this SPI (hexadecimal).
    #[arg(long)]
    spi: Option<String>,
    /// Only what belongs to this child: CONNECTION/CHILD or CHILD.
    #[arg(long)]
    child: Option<String>,
    /// Only inbound or outbound SAs and policies.
    #[arg(long, value_parser = ["in", "out"])]
    direction: Option<String>,
    /// What is told of entries that vanish.
    #[arg(long, value_parser = ["lost", "resync", "nothing"])]
    tell: Option<String>,
    /// The limit that is reached.
    #[arg(long, value_parser = ["time", "bytes", "packets"])]
    unit: Option<String>,
    /// How many reports or operations.
    #[arg(long)]
    count: Option<String>,
    /// Packets that SAs appear to have carried.
    #[arg(long)]
    packets: Option<String>,
    /// Octets that SAs appear to have carried.
    #[arg(long)]
    bytes: Option<String>,
    /// The step of an install that is refused.
    #[arg(long, value_parser = ["guard", "inbound-policy", "outbound-policy", "inbound-sa", "outbound-sa", "activate", "update-sa"])]
    step: Option<String>,
    /// Only what asks for this offload is refused.
    #[arg(long, value_parser = ["packet", "crypto", "no"])]
    mode: Option<String>,
    /// The error.
    #[arg(long, value_parser = ["unsupported", "full", "unavailable", "system"])]
    error: Option<String>,
    /// How many pass before the first is refused.
    #[arg(long)]
    skip: Option<String>,
}

/// Exit code when nothing is there that the order could be about.
const REFUSED: u8 = 2;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let answer = client.command("cygnet-simulate", arguments.message(), |_, _| Ok(()))?;
    if !answer.is_yes("success") {
        say!("cygnet: {}", answer.get_str("errmsg").unwrap_or("the daemon gave no reason"));
        return Ok(REFUSED);
    }
    let mut out = stdout();
    writeln!(out, "{}: {}", arguments.fault, answer.get_str("matches").unwrap_or("0"))?;
    out.flush()?;
    Ok(0)
}

impl Arguments {
    fn message(&self) -> Message {
        let mut message = Message::new();
        message.set("fault", self.fault.as_str());
        let keys = [
            ("device", &self.device),
            ("spi", &self.spi),
            ("child", &self.child),
            ("direction", &self.direction),
            ("tell", &self.tell),
            ("unit", &self.unit),
            ("count", &self.count),
            ("packets", &self.packets),
            ("bytes", &self.bytes),
            ("step", &self.step),
            ("mode", &self.mode),
            ("error", &self.error),
            ("skip", &self.skip),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                message.set(key, value.as_str());
            }
        }
        message
    }
}
