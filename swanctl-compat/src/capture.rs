//! Captured packets on their way through VICI: the daemon's side writes, the client's side reads.
//!
//! `cygnet-capture` streams one `cygnet-capture` event that says what is seen ([`Head`]), then `cygnet-packets` events with some packets each
//! ([`packets`]), at least one each second even when there are none. Its answer comes when the capture ends ([`Totals`]).

pub mod keys;

use std::time::Duration;

use crate::vici::Message;

/// Octets of packets in one event, as far as they are more than one packet.
pub const EVENT_OCTETS: usize = 128 * 1024;
/// Packets in one event.
pub const EVENT_PACKETS: usize = 512;
/// Most octets of a packet that a VICI value holds.
const LONGEST: usize = 65_535;

/// What a capture sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number, which ends it.
    pub id: u32,
    /// Connection.
    pub connection: String,
    /// Only this child.
    pub child: Option<String>,
    /// The mode really in use of each child that is up, such as `net4: userspace`.
    pub modes: Vec<String>,
    /// What is seen of packets in clear.
    pub inner: String,
    /// What is seen outside.
    pub outer: String,
}

/// Which side of ESP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Side {
    /// In clear.
    #[default]
    Inner,
    /// ESP or IKE.
    Outer,
}

/// One packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was seen, since 1970.
    pub time: Duration,
    /// Which side of ESP.
    pub side: Side,
    /// It came from the peer.
    pub inbound: bool,
    /// The SA, unless it is IKE.
    pub sa: Option<Sa>,
    /// Why it went no further.
    pub dropped: Option<String>,
    /// The IP packet, or the beginning of one that is longer.
    pub octets: &'a [u8],
    /// Its whole length.
    pub length: usize,
}

/// The SA of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sa {
    /// Child.
    pub child: String,
    /// Number of the CHILD SA and rekeys before it, where they are known.
    pub number: Option<(u32, u32)>,
    /// SPI, as hexadecimal digits.
    pub spi: String,
    /// ESP sequence number, where it is known.
    pub sequence: Option<u64>,
}

/// Packets of either side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// In clear.
    pub inner: u64,
    /// ESP and IKE.
    pub outer: u64,
}

impl Head {
    /// The `cygnet-capture` event: `id`, `ike`, `child`, `modes` (a list), `inner`, `outer`.
    #[must_use]
    pub fn message(&self) -> Message {
        let mut m = Message::new();
        m.set_display("id", self.id);
        m.set("ike", self.connection.as_str());
        if let Some(child) = &self.child {
            m.set("child", child.as_str());
        }
        m.list("modes", self.modes.iter().map(String::as_str));
        m.set("inner", self.inner.as_str());
        m.set("outer", self.outer.as_str());
        m
    }

    /// Reads it; nothing without an `id`.
    #[must_use]
    pub fn read(message: &Message) -> Option<Self> {
        let text = |key: &str| message.get_str(key).map(str::to_owned);
        Some(Self {
            id: message.get_str("id")?.parse().ok()?,
            connection: text("ike").unwrap_or_default(),
            child: text("child"),
            modes: message.list_strs("modes").map(str::to_owned).collect(),
            inner: text("inner").unwrap_or_default(),
            outer: text("outer").unwrap_or_default(),
        })
    }
}

impl<'a> Packet<'a> {
    /// One section of a `cygnet-packets` event: `time` (nanoseconds since 1970), `side` (`inner` or `outer`), `direction` (`in` or `out`), for
    /// ESP `child`, `uniqueid`, `generation`, `spi`, `seq`, for IKE `ike=yes`; `drop` (why it went no further), `length` where not all of it is
    /// there, `octets`.
    #[must_use]
    pub fn message(&self) -> Message {
        let mut m = Message::new();
        m.set_display("time", self.time.as_nanos());
        m.set("side", if self.side == Side::Inner { "inner" } else { "outer" });
        m.set("direction", if self.inbound { "in" } else { "out" });
        match &self.sa {
            Some(sa) => {
                m.set("child", sa.child.as_str());
                if let Some((number, generation)) = sa.number {
                    m.set_display("uniqueid", number);
                    m.set_display("generation", generation);
                }
                m.set("spi", sa.spi.as_str());
                if let Some(sequence) = sa.sequence {
                    m.set_display("seq", sequence);
                }
            }
            None => m.set("ike", "yes"),
        }
        if let Some(reason) = &self.dropped {
            m.set("drop", reason.as_str());
        }
        let octets = self.octets.get(..LONGEST).unwrap_or(self.octets);
        if octets.len() < self.length {
            m.set_display("length", self.length);
        }
        m.set("octets", octets);
        m
    }

    /// Reads it; nothing where what every packet has is missing.
    #[must_use]
    pub fn read(message: &'a Message) -> Option<Self> {
        let number = |key: &str| message.get_str(key).and_then(|text| text.parse::<u64>().ok());
        let octets = message.get("octets")?.as_bytes();
        let sa = || {
            let short = |key: &str| number(key).and_then(|number| u32::try_from(number).ok());
            Some(Sa {
                child: message.get_str("child")?.to_owned(),
                number: short("uniqueid").zip(short("generation")),
                spi: message.get_str("spi")?.to_owned(),
                sequence: number("seq"),
            })
        };
        Some(Self {
            time: Duration::from_nanos(number("time")?),
            side: if message.get_str("side")? == "inner" { Side::Inner } else { Side::Outer },
            inbound: message.get_str("direction")? == "in",
            sa: if message.is_yes("ike") { None } else { Some(sa()?) },
            dropped: message.get_str("drop").map(str::to_owned),
            octets,
            length: number("length").and_then(|length| usize::try_from(length).ok()).unwrap_or(octets.len()),
        })
    }

    /// What there is to say of it beyond its octets.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        let sa = self.sa.as_ref().map(|sa| {
            let number = sa.number.map(|(number, generation)| format!("{{{number}}} generation {generation}"));
            let sequence = sa.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
            format!("{}{}, SPI {}{sequence}", sa.child, number.unwrap_or_default(), sa.spi)
        });
        let dropped = self.dropped.as_ref().map(|reason| format!("dropped: {reason}"));
        match (sa, dropped) {
            (None, None) => None,
            (sa, dropped) => Some(sa.into_iter().chain(dropped).collect::<Vec<_>>().join("; ")),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.inner += more.inner;
        self.outer += more.outer;
    }
}

impl Totals {
    /// Appends `PREFIX-inner` and `PREFIX-outer`.
    pub fn set(&self, message: &mut Message, prefix: &str) {
        message.set_display(format!("{prefix}-inner"), self.inner);
        message.set_display(format!("{prefix}-outer"), self.outer);
    }

    /// Reads them; nothing where one is missing.
    #[must_use]
    pub fn read(message: &Message, prefix: &str) -> Option<Self> {
        let of = |side: &str| message.get_str(&format!("{prefix}-{side}"))?.parse().ok();
        Some(Self { inner: of("inner")?, outer: of("outer")? })
    }

    /// Of one side.
    #[must_use]
    pub const fn of(&self, side: Side) -> u64 {
        match side {
            Side::Inner => self.inner,
            Side::Outer => self.outer,
        }
    }

    /// Counts one more.
    pub fn count(&mut self, side: Side) {
        match side {
            Side::Inner => self.inner += 1,
            Side::Outer => self.outer += 1,
        }
    }
}

/// The `cygnet-packets` event: `lost-inner` and `lost-outer` (packets that found the queue full, since the beginning), then the packets,
/// numbered from 1.
#[must_use]
pub fn packets<'a>(lost: Totals, all: impl IntoIterator<Item = Packet<'a>>) -> Message {
    let mut message = Message::new();
    lost.set(&mut message, "lost");
    for (number, packet) in all.into_iter().enumerate() {
        message.section((number + 1).to_string(), packet.message());
    }
    message
}

/// The answer to `cygnet-capture` when it has ended: `success`, `packets-inner`, `packets-outer`, `lost-inner`, `lost-outer`.
#[must_use]
pub fn ended(seen: Totals, lost: Totals) -> Message {
    let mut message = Message::new().with("success", "yes");
    seen.set(&mut message, "packets");
    lost.set(&mut message, "lost");
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let sa = Sa { child: "net".into(), number: Some((7, 2)), spi: "c0ffee01".into(), sequence: Some(1 << 33) };
        let packet = Packet {
            time: Duration::new(1_800_000_000, 123_456_789),
            side: Side::Outer,
            inbound: true,
            sa: Some(sa),
            dropped: Some("replay".into()),
            octets: &[0x45, 0, 0xff],
            length: 3,
        };
        assert_eq!(Packet::read(&packet.message()), Some(packet.clone()));
        let ike = Packet { sa: None, dropped: None, inbound: false, ..packet };
        assert_eq!(Packet::read(&ike.message()), Some(ike));
        let head = Head {
            id: 3,
            connection: "site".into(),
            child: Some("net".into()),
            modes: vec!["net: userspace".into()],
            inner: "all".into(),
            outer: "most".into(),
        };
        assert_eq!(Head::read(&head.message()), Some(head));
        let (seen, lost) = (Totals { inner: 5, outer: 6 }, Totals { inner: 0, outer: 1 });
        let ended = ended(seen, lost);
        assert_eq!((Totals::read(&ended, "packets"), Totals::read(&ended, "lost")), (Some(seen), Some(lost)));
    }

    #[test]
    fn a_packet_longer_than_a_value_is_cut_and_says_so() {
        let octets = vec![1; 65_575];
        let packet = Packet { octets: &octets, length: octets.len(), sa: None, ..Packet::default() };
        let message = packet.message();
        let read = Packet::read(&message).unwrap();
        assert_eq!((read.octets.len(), read.length), (65_535, 65_575));
    }

    #[test]
    fn what_is_no_packet_is_not_read() {
        let whole = Packet { sa: None, ..Packet::default() }.message();
        for key in ["time", "side", "direction", "octets"] {
            let mut less = Message::new();
            whole.elements().iter().filter(|e| e.name() != key).for_each(|e| less.push(e.clone()));
            assert_eq!(Packet::read(&less), None, "{key}");
        }
        assert_eq!(Head::read(&Message::new()), None);
        assert_eq!(Totals::read(&Message::new().with("lost-inner", "1"), "lost"), None);
    }

    #[test]
    fn comments_say_what_octets_do_not() {
        let sa = Sa { child: "net".into(), number: Some((7, 2)), spi: "c0ffee01".into(), sequence: Some(9) };
        let mut packet = Packet { sa: Some(sa), ..Packet::default() };
        assert_eq!(packet.comment().as_deref(), Some("net{7} generation 2, SPI c0ffee01, sequence 9"));
        packet.dropped = Some("too-big".into());
        packet.sa = packet.sa.map(|sa| Sa { number: None, sequence: None, ..sa });
        assert_eq!(packet.comment().as_deref(), Some("net, SPI c0ffee01; dropped: too-big"));
        assert_eq!(Packet::default().comment(), None);
    }
}
