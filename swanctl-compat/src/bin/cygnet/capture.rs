//! `cygnet capture`: packets of a connection, in clear and as ESP, into one pcapng file.

mod file;
mod keys;
mod stop;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use swanctl_compat::capture::{Head, Packet, Side, Totals};
use swanctl_compat::units;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::moment;
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;
use file::Capture;
use keys::Tables;
use stop::Stop;

const HEAD: &str = "cygnet-capture";
const PACKETS: &str = "cygnet-packets";
const KEYS: &str = "cygnet-keys";

/// Options of `capture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Connection.
    #[arg(value_name = "CONN")]
    connection: String,
    /// Only packets of this child; IKE messages are left out then.
    #[arg(long, value_name = "NAME")]
    child: Option<String>,
    /// IKE messages as well, with --child; without, they are there anyway. Alone, where the data path shows no packets (the kernel's).
    #[arg(long)]
    ike: bool,
    /// File to write, which only its owner may read; `-` is the standard output, as for `| tshark -r -`.
    #[arg(long = "write", short = 'w', value_name = "FILE")]
    file: PathBuf,
    /// Directory for Wireshark's tables of keys, `esp_sa` and `ikev2_decryption_table`: those of the SAs captured, also of those that replace
    /// them meanwhile. Only where the daemon may give keys out (debug.export_keys). It tells of that in its log and by an event.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// End after this time, such as 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// End after so many packets, inner and outer ones together.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,
    /// End when the file has this size, such as 10M; the last packet is written whole.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = moment::ago(text).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| "a time is written as 30s, 5m or 1h30m".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let octets = units::bytes(text).filter(|octets| *octets > 0);
    octets.ok_or_else(|| "a size is a number of octets, or of k, M or G of them".to_owned())
}

impl Arguments {
    fn request(&self) -> Message {
        let mut request = Message::new().with("ike", self.connection.as_str());
        if let Some(child) = &self.child {
            request.set("child", child.as_str());
        }
        request.set_if("messages", self.ike);
        request.set_if("keys", self.keys.is_some());
        request
    }

    fn is_piped(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// What limit is reached.
    fn reached(&self, capture: &Capture) -> Option<&'static str> {
        let packets = self.packets.is_some_and(|most| capture.written().inner + capture.written().outer >= most);
        let size = self.size.is_some_and(|most| capture.octets() >= most);
        packets.then_some("packets").or(size.then_some("size"))
    }
}

pub(crate) fn run(client: &mut Client, uri: &str, arguments: &Arguments) -> Result<u8, ClientError> {
    let tables = match arguments.keys.as_deref().map(Tables::open).transpose() {
        Ok(tables) => tables,
        Err(error) => {
            say!("cygnet: {error}");
            return Ok(UNANSWERED);
        }
    };
    for event in [HEAD, PACKETS, KEYS] {
        client.register(event)?;
    }
    let stop = Stop::new(uri);
    stop.on_signals().map_err(ClientError::Io)?;
    let (head, lost) = (Head::default(), Totals::default());
    let mut taking = Taking { arguments, stop: &stop, capture: None, tables, head, lost };
    let began = Instant::now();
    let answer = client.command("cygnet-capture", arguments.request(), |event, message| {
        taking.event(event, message).map_err(ClientError::Io)
    });
    if let Some(error) = answer.as_ref().ok().and_then(|answer| answer.get_str("errmsg")) {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    // Without the last word of the daemon the file still is whole as far as it goes.
    let seen = answer.as_ref().ok().and_then(|answer| Totals::read(answer, "packets"));
    taking.lost = answer.as_ref().ok().and_then(|answer| Totals::read(answer, "lost")).unwrap_or(taking.lost);
    let Taking { capture, tables, head, lost, .. } = taking;
    let Some(mut capture) = capture else { return answer.map(|_| UNANSWERED) };
    if answer.is_err() {
        // Unless it was for another reason that nobody listened to it any more.
        stop.note("daemon");
    }
    let finished = capture.finish(seen, lost);
    let said = summary(arguments, &head, (&capture, tables.as_ref()), lost, stop.reason(), began.elapsed());
    answer?;
    match finished.and(said) {
        Ok(()) => Ok(0),
        // Whoever reads has had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(ClientError::Io(error)),
    }
}

/// Takes events as they come.
struct Taking<'a> {
    arguments: &'a Arguments,
    stop: &'a Stop,
    /// From the first event on.
    capture: Option<Capture>,
    tables: Option<Tables>,
    head: Head,
    lost: Totals,
}

impl Taking<'_> {
    fn event(&mut self, event: &str, message: &Message) -> std::io::Result<()> {
        match event {
            HEAD => self.begin(message),
            PACKETS => self.packets(message),
            KEYS => self.tables.as_mut().map_or(Ok(()), |tables| tables.add(message)),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, message: &Message) -> std::io::Result<()> {
        let Some(head) = Head::read(message) else { return Ok(()) };
        self.capture = Some(Capture::create(&self.arguments.file, self.arguments.is_piped(), &head)?);
        let modes = if head.modes.is_empty() { "no child is up yet".to_owned() } else { head.modes.join("; ") };
        say!("cygnet: capturing packets of {} ({modes}): Ctrl-C ends", head.connection);
        self.stop.is_for(head.id);
        if let Some(duration) = self.arguments.duration {
            self.stop.after(duration);
        }
        self.head = head;
        Ok(())
    }

    fn packets(&mut self, message: &Message) -> std::io::Result<()> {
        let Some(capture) = &mut self.capture else { return Ok(()) };
        let lost = Totals::read(message, "lost").unwrap_or_default();
        let mut newly = [Side::Inner, Side::Outer].map(|side| lost.of(side).saturating_sub(self.lost.of(side)));
        self.lost = lost;
        for packet in message.sections().filter_map(|(_, section)| Packet::read(section)) {
            if self.stop.is_over() {
                return Ok(());
            }
            let [inner, outer] = &mut newly;
            let newly = if packet.side == Side::Inner { inner } else { outer };
            if let Err(error) = capture.packet(&packet, std::mem::take(newly)) {
                return self.refused(error);
            }
            if let Some(limit) = self.arguments.reached(capture) {
                self.stop.end(limit);
            }
        }
        let flushed = self.capture.as_mut().map_or(Ok(()), Capture::flush);
        flushed.or_else(|error| self.refused(error))
    }

    /// Whoever reads from us may have had enough: that is an end like others.
    fn refused(&self, error: std::io::Error) -> std::io::Result<()> {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            self.stop.note("file");
            return Err(error);
        }
        self.stop.end("reader");
        Ok(())
    }
}

fn summary(
    arguments: &Arguments,
    head: &Head,
    (capture, tables): (&Capture, Option<&Tables>),
    lost: Totals,
    ended: &str,
    took: Duration,
) -> std::io::Result<()> {
    let written = capture.written();
    let file = arguments.file.display();
    let text = if arguments.json {
        let side = |side: Side| json!({"packets": written.of(side), "lost": lost.of(side)});
        json!({
            "connection": head.connection, "child": head.child, "modes": head.modes, "file": file.to_string(),
            "inner": side(Side::Inner), "outer": side(Side::Outer), "octets": capture.octets(),
            "seconds": took.as_secs_f64(), "ended": ended, "keys": tables.map(Tables::written),
        })
        .to_string()
    } else {
        let (all, gone) = (written.inner + written.outer, lost.inner + lost.outer);
        let keys = tables.iter().flat_map(|tables| tables.in_words(&arguments.file));
        let counts = format!(
            "{}: {all} packets ({} inner, {} outer), {gone} lost, in {:.1} s; {} octets in {file}; ended by {}",
            head.connection,
            written.inner,
            written.outer,
            took.as_secs_f64(),
            capture.octets(),
            in_words(ended)
        );
        [counts].into_iter().chain(keys).collect::<Vec<_>>().join("\n")
    };
    // The standard output may be the capture.
    if arguments.is_piped() {
        say!("{text}");
        return Ok(());
    }
    writeln!(stdout(), "{text}")
}

fn in_words(ended: &str) -> &str {
    match ended {
        "signal" => "a signal",
        "duration" => "its duration",
        "packets" => "its number of packets",
        "size" => "its size",
        "reader" => "its reader",
        "file" => "its file, which takes no more",
        "daemon" => "the daemon, which has gone",
        _ => "somebody else",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// Whoever cannot write any more hangs up, but it is not the daemon that has gone.
    #[test]
    fn a_full_disk_is_called_by_its_name() {
        let Line { arguments } = Line::parse_from(["capture", "site", "-w", "site.pcapng"]);
        let stop = Stop::new("unix:///nonexistent");
        let (head, lost) = (Head::default(), Totals::default());
        let taking = Taking { arguments: &arguments, stop: &stop, capture: None, tables: None, head, lost };
        assert!(taking.refused(std::io::ErrorKind::StorageFull.into()).is_err());
        stop.note("daemon");
        assert_eq!(in_words(stop.reason()), "its file, which takes no more");
    }

    #[test]
    fn limits_are_written_as_people_do() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("0s").is_err() && duration("5").is_err());
        assert_eq!((size("10M"), size("4096")), (Ok(10 << 20), Ok(4096)));
        assert!(size("0").is_err() && size("much").is_err());
    }
}
