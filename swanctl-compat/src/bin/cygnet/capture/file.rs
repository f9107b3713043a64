//! The file of a capture: two interfaces, and what became of their packets at the end.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use swanctl_compat::capture::{Head, Packet, Side, Totals};
use swanctl_compat::pcapng::{self, Interface, Statistics, Way, Writer};

/// A file that is being written.
pub(super) struct Capture {
    writer: Writer<Box<dyn Write>>,
    inner: Interface,
    outer: Interface,
    written: Totals,
    start: Duration,
}

impl Capture {
    /// Makes the file, for its owner's eyes only: what is in it was encrypted for a reason.
    pub(super) fn create(path: &Path, is_piped: bool, head: &Head) -> io::Result<Self> {
        let out: Box<dyn Write> = if is_piped {
            Box::new(BufWriter::new(io::stdout()))
        } else {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            if file.metadata()?.is_file() {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            Box::new(BufWriter::new(file))
        };
        let mut writer = Writer::new(out, concat!("cygnet ", env!("CARGO_PKG_VERSION")), "Linux")?;
        let inner = writer.interface("inner", &description(head, &head.inner))?;
        let outer = writer.interface("outer", &description(head, &head.outer))?;
        writer.flush()?;
        Ok(Self { writer, inner, outer, written: Totals::default(), start: now() })
    }

    /// Writes a packet; `lost` are those lost on its side since the one before.
    pub(super) fn packet(&mut self, packet: &Packet<'_>, lost: u64) -> io::Result<()> {
        let comment = packet.comment();
        self.writer.packet(&pcapng::Packet {
            interface: if packet.side == Side::Inner { self.inner } else { self.outer },
            time: packet.time,
            way: if packet.inbound { Way::Inbound } else { Way::Outbound },
            octets: packet.octets,
            length: packet.length,
            comment: comment.as_deref(),
            lost,
        })?;
        self.written.count(packet.side);
        Ok(())
    }

    /// Packets written.
    pub(super) fn written(&self) -> Totals {
        self.written
    }

    /// Octets written.
    pub(super) fn octets(&self) -> u64 {
        self.writer.written()
    }

    /// Has a reader see everything.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Writes what became of the packets; `seen` are those that the daemon has sent, where it has said so.
    pub(super) fn finish(&mut self, seen: Option<Totals>, lost: Totals) -> io::Result<()> {
        let (start, end) = (self.start, now());
        for (interface, side) in [(self.inner, Side::Inner), (self.outer, Side::Outer)] {
            let (delivered, lost) = (self.written.of(side), lost.of(side));
            let received = seen.map_or(delivered, |seen| seen.of(side)) + lost;
            self.writer.statistics(interface, &Statistics { start, end, received, lost, delivered })?;
        }
        self.writer.flush()
    }
}

/// Whose packets are seen, how, and in which mode they are carried.
fn description(head: &Head, view: &str) -> String {
    let whose =
        head.child.as_ref().map_or_else(|| head.connection.clone(), |child| format!("{}/{child}", head.connection));
    let modes = if head.modes.is_empty() { String::new() } else { format!(" ({})", head.modes.join("; ")) };
    format!("{whose}: {view}{modes}")
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
