//! Writing pcapng: a section with interfaces that carry bare IP packets, enhanced packets, and statistics at its end
//! (draft-ietf-opsawg-pcapng).
//!
//! Times are in nanoseconds. Numbers are written with their least significant octet first, which the section header says.

use std::io::{self, Write};
use std::time::Duration;

/// Packets that begin with an IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// By which a reader sees the order of octets.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const VERSION: [u16; 2] = [1, 0];
/// Nobody knows how long a section gets when it is begun.
const UNKNOWN_LENGTH: u64 = u64::MAX;
/// Units of time: 10 to the power of minus nine seconds.
const NANOSECONDS: u8 = 9;
/// Longest text in an option.
const LONGEST_TEXT: usize = u16::MAX as usize;

const END: u16 = 0;
const COMMENT: u16 = 1;
mod section {
    pub(super) const OS: u16 = 3;
    pub(super) const APPLICATION: u16 = 4;
}
mod interface {
    pub(super) const NAME: u16 = 2;
    pub(super) const DESCRIPTION: u16 = 3;
    pub(super) const RESOLUTION: u16 = 9;
}
mod packet {
    pub(super) const FLAGS: u16 = 2;
    pub(super) const LOST: u16 = 4;
}
mod statistics {
    pub(super) const START: u16 = 2;
    pub(super) const END: u16 = 3;
    pub(super) const RECEIVED: u16 = 4;
    pub(super) const LOST: u16 = 5;
    pub(super) const DELIVERED: u16 = 8;
}

/// Number of an interface in the order in which they were described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(u32);

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To us.
    Inbound,
    /// From us.
    Outbound,
}

/// A packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Where it was seen.
    pub interface: Interface,
    /// When, since 1970.
    pub time: Duration,
    /// Which way it went.
    pub way: Way,
    /// The IP packet, or the beginning of one that is longer.
    pub octets: &'a [u8],
    /// Its whole length.
    pub length: usize,
    /// Said of it.
    pub comment: Option<&'a str>,
    /// Packets lost on this interface since the packet before.
    pub lost: u64,
}

/// What became of an interface's packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// From when, since 1970.
    pub start: Duration,
    /// Until when.
    pub end: Duration,
    /// Packets seen.
    pub received: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Of those, written.
    pub delivered: u64,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
    interfaces: u32,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a section.
    ///
    /// # Errors
    /// Of the output.
    pub fn new(out: W, application: &str, os: &str) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::new(), interfaces: 0, written: 0 };
        writer.begin(SECTION);
        writer.put(&BYTE_ORDER.to_le_bytes());
        VERSION.iter().for_each(|part| writer.block.extend(part.to_le_bytes()));
        writer.put(&UNKNOWN_LENGTH.to_le_bytes());
        writer.text(section::OS, os);
        writer.text(section::APPLICATION, application);
        writer.end()?;
        Ok(writer)
    }

    /// Describes an interface.
    ///
    /// # Errors
    /// Of the output.
    pub fn interface(&mut self, name: &str, description: &str) -> io::Result<Interface> {
        self.begin(INTERFACE);
        self.put(&LINKTYPE_RAW.to_le_bytes());
        self.put(&[0; 2]);
        // No limit on the length of packets.
        self.put(&[0; 4]);
        self.text(interface::NAME, name);
        self.text(interface::DESCRIPTION, description);
        self.option(interface::RESOLUTION, &[NANOSECONDS]);
        self.end()?;
        self.interfaces += 1;
        Ok(Interface(self.interfaces - 1))
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Of the output.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.begin(PACKET);
        self.put(&packet.interface.0.to_le_bytes());
        self.time(packet.time);
        for length in [packet.octets.len(), packet.length.max(packet.octets.len())] {
            self.put(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.put(packet.octets);
        self.pad();
        if let Some(comment) = packet.comment {
            self.text(COMMENT, comment);
        }
        let flags: u32 = match packet.way {
            Way::Inbound => 1,
            Way::Outbound => 2,
        };
        self.option(packet::FLAGS, &flags.to_le_bytes());
        if packet.lost > 0 {
            self.option(packet::LOST, &packet.lost.to_le_bytes());
        }
        self.end()
    }

    /// Writes what became of an interface's packets.
    ///
    /// # Errors
    /// Of the output.
    pub fn statistics(&mut self, interface: Interface, seen: &Statistics) -> io::Result<()> {
        self.begin(STATISTICS);
        self.put(&interface.0.to_le_bytes());
        self.time(seen.end);
        for (code, time) in [(statistics::START, seen.start), (statistics::END, seen.end)] {
            let [high, low] = halves(time);
            self.option(code, [high.to_le_bytes(), low.to_le_bytes()].as_flattened());
        }
        let counts = [
            (statistics::RECEIVED, seen.received),
            (statistics::LOST, seen.lost),
            (statistics::DELIVERED, seen.delivered),
        ];
        counts.iter().for_each(|(code, count)| self.option(*code, &count.to_le_bytes()));
        self.end()
    }

    /// Octets written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Has everything reach the output.
    ///
    /// # Errors
    /// Of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        // The length, which is known at the end.
        self.put(&[0; 4]);
    }

    /// Ends a block: the end of its options, and its length on both sides.
    fn end(&mut self) -> io::Result<()> {
        self.option(END, &[]);
        let length = u32::try_from(self.block.len() + 4).map_err(io::Error::other)?.to_le_bytes();
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&length);
        }
        self.put(&length);
        self.written += self.block.len() as u64;
        self.out.write_all(&self.block)
    }

    fn put(&mut self, octets: &[u8]) {
        self.block.extend_from_slice(octets);
    }

    /// Blocks, packets and options end at multiples of four octets.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn time(&mut self, time: Duration) {
        halves(time).iter().for_each(|half| self.block.extend(half.to_le_bytes()));
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.put(&code.to_le_bytes());
        self.put(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.put(value);
        self.pad();
    }

    fn text(&mut self, code: u16, text: &str) {
        self.option(code, text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().as_bytes());
    }
}

/// Nanoseconds, the upper half first.
fn halves(time: Duration) -> [u32; 2] {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    [(nanoseconds >> 32) as u32, nanoseconds as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(octets: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(octets[at..at + 4].try_into().unwrap())
    }

    /// Types and bodies of all blocks; the lengths on both sides of each agree.
    fn blocks(mut octets: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !octets.is_empty() {
            let length = word(octets, 4) as usize;
            assert_eq!((length % 4, word(octets, length - 4) as usize), (0, length));
            found.push((word(octets, 0), octets[8..length - 4].to_vec()));
            octets = &octets[length..];
        }
        found
    }

    /// Codes and values of options.
    fn options(mut octets: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let [code, length] = [0, 2].map(|at| u16::from_le_bytes([octets[at], octets[at + 1]]));
            if code == END {
                assert_eq!((length, octets.len()), (0, 4));
                return found;
            }
            let length = usize::from(length);
            found.push((code, octets[4..4 + length].to_vec()));
            octets = &octets[4 + length.next_multiple_of(4)..];
        }
    }

    fn packet(interface: Interface, octets: &[u8]) -> Packet<'_> {
        let time = Duration::new(1_800_000_000, 123_456_789);
        Packet { interface, time, way: Way::Inbound, octets, length: octets.len(), comment: None, lost: 0 }
    }

    #[test]
    fn a_section_says_what_a_reader_needs() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "cygnet 1", "Linux").unwrap();
        assert_eq!(writer.interface("inner", "in clear").unwrap(), Interface(0));
        assert_eq!(writer.interface("outer", "").unwrap(), Interface(1));
        let written = writer.written();
        assert_eq!(written, out.len() as u64);
        let blocks = blocks(&out);
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, INTERFACE, INTERFACE]);
        let head = &blocks[0].1;
        assert_eq!((word(head, 0), &head[4..8], &head[8..16]), (BYTE_ORDER, &[1, 0, 0, 0][..], &[0xff; 8][..]));
        assert_eq!(options(&head[16..]), [(3, b"Linux".to_vec()), (4, b"cygnet 1".to_vec())]);
        let inner = &blocks[1].1;
        assert_eq!((&inner[..4], word(inner, 4)), (&[101, 0, 0, 0][..], 0));
        assert_eq!(options(&inner[8..]), [(2, b"inner".to_vec()), (3, b"in clear".to_vec()), (9, vec![9])]);
    }

    #[test]
    fn a_packet_has_its_time_length_direction_and_comment() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "", "").unwrap();
        let interface = writer.interface("inner", "").unwrap();
        let before = usize::try_from(writer.written()).unwrap();
        let octets = [7; 5];
        writer.packet(&packet(interface, &octets)).unwrap();
        let second =
            Packet { way: Way::Outbound, length: 9, comment: Some("ü, late"), lost: 3, ..packet(interface, &octets) };
        writer.packet(&second).unwrap();
        let blocks = blocks(&out[before..]);
        let [(PACKET, first), (PACKET, second)] = &blocks[..] else { panic!("{blocks:?}") };
        let time = (u64::from(word(first, 4)) << 32) | u64::from(word(first, 8));
        assert_eq!((word(first, 0), time), (0, 1_800_000_000_123_456_789));
        assert_eq!((word(first, 12), word(first, 16), &first[20..28]), (5, 5, &[7, 7, 7, 7, 7, 0, 0, 0][..]));
        assert_eq!(options(&first[28..]), [(2, vec![1, 0, 0, 0])]);
        assert_eq!((word(second, 12), word(second, 16)), (5, 9));
        let expected = [(1, "ü, late".as_bytes().to_vec()), (2, vec![2, 0, 0, 0]), (4, vec![3, 0, 0, 0, 0, 0, 0, 0])];
        assert_eq!(options(&second[28..]), expected);
    }

    #[test]
    fn statistics_have_all_counts() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "", "").unwrap();
        let interface = writer.interface("inner", "").unwrap();
        let before = usize::try_from(writer.written()).unwrap();
        let (start, end) = (Duration::from_nanos(1 << 32), Duration::from_nanos((1 << 32) + 5));
        writer.statistics(interface, &Statistics { start, end, received: 9, lost: 2, delivered: 7 }).unwrap();
        let blocks = blocks(&out[before..]);
        let [(STATISTICS, body)] = &blocks[..] else { panic!("{blocks:?}") };
        assert_eq!((word(body, 0), word(body, 4), word(body, 8)), (0, 1, 5));
        let count = |number: u8| vec![number, 0, 0, 0, 0, 0, 0, 0];
        let times = [(2, vec![1, 0, 0, 0, 0, 0, 0, 0]), (3, vec![1, 0, 0, 0, 5, 0, 0, 0])];
        assert_eq!(options(&body[12..]), [&times[..], &[(4, count(9)), (5, count(2)), (8, count(7))]].concat());
    }

    #[test]
    fn a_text_that_is_too_long_ends_between_characters() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "", "").unwrap();
        let interface = writer.interface("inner", "").unwrap();
        let before = usize::try_from(writer.written()).unwrap();
        let comment = "ü".repeat(40_000);
        writer.packet(&Packet { comment: Some(&comment), ..packet(interface, &[]) }).unwrap();
        let blocks = blocks(&out[before..]);
        let found = options(&blocks[0].1[20..]);
        assert_eq!(found[0].1.len(), 65_534);
        assert!(std::str::from_utf8(&found[0].1).is_ok());
    }
}
