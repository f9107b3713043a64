//! Where a packet was lost when the other end is charon: the captures of both outer links are decrypted with the keys that charon logs, and
//! each missing packet is looked for on both.
//!
//! A packet that reached charon's link intact, or that charon never sent, was lost inside charon; one that charon's link saw leave and ours
//! saw come was lost by us, and so was one that we never sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result};
use ike_crypto::{EspKey, ring_provider};
use ike_wire::ids::EncryptionId;
use lab::capture::{Captured, Frame};
use lab::classify::Class;
use lab::frame::{self, Network, UDP};
use lab::topology::{Family, Lab, Site};
use lab::traffic::stream::{self, Gap};

/// Octets of an AES-128-GCM key with its salt.
const KEY: usize = 20;
/// ESP: SPI and sequence number, then the IV of AES-GCM.
const HEADER: usize = 8;
const IV: usize = 8;

/// A packet of a stream.
type Packet = (String, u64);

/// Where the missing packets were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Inside charon.
    pub(super) inside: u64,
    /// On the path between the gateways.
    pub(super) path: u64,
    /// In our gateway.
    pub(super) ours: u64,
    /// ESP frames that none of the keys opens: with these the rest is not to be trusted.
    pub(super) sealed: u64,
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Losses { inside, path, ours, sealed } = self;
        write!(
            f,
            "inside charon {inside}, on the path {path}, in our gateway {ours}; ESP frames not decrypted {sealed}"
        )
    }
}

/// Looks for missing packets on both links; gateway B is charon's, and this is its log.
pub(super) fn losses(lab: &Lab, captured: &[Captured; 2], log: &str, gaps: &[Gap]) -> Result<Losses> {
    if gaps.is_empty() {
        return Ok(Losses::default());
    }
    let keys = keys(log)?;
    let mut losses = Losses::default();
    let [at_ours, at_charons] = captured.each_ref().map(|side| packets(lab, &keys, &side.frames, &mut losses.sealed));
    let to_charon = [Family::V4, Family::V6].map(|family| stream_prefix(&lab.a, &lab.b, family));
    for gap in gaps {
        let leaves_ours = to_charon.iter().any(|prefix| gap.stream.starts_with(prefix));
        for number in gap.first..gap.first + gap.count {
            let packet = (gap.stream.to_string(), number);
            let (near, far) = (at_ours.contains(&packet), at_charons.contains(&packet));
            let place = match (leaves_ours, near, far) {
                (true, _, true) | (false, _, false) => &mut losses.inside,
                (true, false, false) | (false, true, true) => &mut losses.ours,
                (true, true, false) | (false, false, true) => &mut losses.path,
            };
            *place += 1;
        }
    }
    Ok(losses)
}

fn stream_prefix(from: &Site, to: &Site, family: Family) -> String {
    stream::name(from, to, family, 0).trim_end_matches("0 B").to_owned()
}

/// The packets of streams that a link carried, by what their ESP says.
fn packets(lab: &Lab, keys: &Keys, frames: &[Frame], sealed: &mut u64) -> BTreeSet<Packet> {
    let mut found = BTreeSet::new();
    for frame in frames {
        let (Class::Esp(spi) | Class::UdpEsp(spi)) = frame.class else { continue };
        match inner(keys, spi, frame) {
            Some(inner) => found.extend(packet(lab, &inner)),
            None => *sealed += 1,
        }
    }
    found
}

fn inner(keys: &Keys, spi: u32, frame: &Frame) -> Option<Vec<u8>> {
    let Network::Ip(outer) = frame::parse(&frame.octets) else { return None };
    let esp = if outer.protocol == UDP { outer.payload.get(8..)? } else { outer.payload };
    keys.get(&spi)?.iter().find_map(|key| open(&**key, esp))
}

fn packet(lab: &Lab, inner: &[u8]) -> Option<Packet> {
    // Ethernet in front, so that it is read like a frame.
    let kind: [u8; 2] = if inner.first()? >> 4 == 4 { [0x08, 0] } else { [0x86, 0xdd] };
    let framed = [&[0; 12], kind.as_slice(), inner].concat();
    let Network::Ip(packet) = frame::parse(&framed) else { return None };
    let number = stream::number(packet.payload.get(8..)?)?;
    let family = if packet.source.is_ipv4() { Family::V4 } else { Family::V6 };
    let from_ours = packet.source == lab.a.host_address(family);
    let (from, to) = if from_ours { (&lab.a, &lab.b) } else { (&lab.b, &lab.a) };
    let headers = if packet.source.is_ipv4() { 20 } else { 40 };
    Some((stream::name(from, to, family, packet.payload.len() + headers), number))
}

/// The inner packet, with the padding and trailer of ESP behind it.
fn open(key: &dyn EspKey, esp: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = esp.split_at_checked(HEADER)?;
    let (iv, sealed) = rest.split_at_checked(IV)?;
    let mut sealed = sealed.to_vec();
    key.open_in_place(iv, header, &mut sealed).ok().map(|inner| inner.to_vec())
}

/// Both keys of the exchange that made an SA, by its SPI: the ICV tells which of them is right.
type Keys = BTreeMap<u32, [Box<dyn EspKey>; 2]>;

/// The keys in charon's log. Its threads write between each other's lines, so each thread is followed by itself.
fn keys(log: &str) -> Result<Keys> {
    let cipher = ring_provider().esp_cipher(EncryptionId::AES_GCM_16, Some(128), None).context("no AES-GCM")?;
    let mut threads: BTreeMap<&str, Thread> = BTreeMap::new();
    let mut found = Keys::new();
    for (thread, text) in log.lines().filter_map(entry) {
        let state = threads.entry(thread).or_default();
        if let Some(spi) = state.read(text)
            && let [Some(initiator), Some(responder)] = state.keys()
        {
            // Named again by a thread that has other keys in mind: the first ones stay.
            let keys = [cipher.key(initiator, &[])?, cipher.key(responder, &[])?];
            found.entry(spi).or_insert(keys);
        }
    }
    Ok(found)
}

/// What a thread has written of the keys of the CHILD SA at hand.
#[derive(Default)]
struct Thread {
    /// The initiator's key and the responder's.
    octets: [Vec<u8>; 2],
    /// Whose key the next lines show.
    dumping: Option<usize>,
}

impl Thread {
    /// Takes a line; gives the SPI of an SA that is made with the keys so far.
    fn read(&mut self, text: &str) -> Option<u32> {
        for (at, whose) in ["encryption initiator key", "encryption responder key"].iter().enumerate() {
            if text.starts_with(whose) {
                self.dumping = Some(at);
                if let Some(octets) = self.octets.get_mut(at) {
                    octets.clear();
                }
                return None;
            }
        }
        if let Some(octets) = self.dumping.and_then(|at| self.octets.get_mut(at))
            && let Some(more) = dump(text)
        {
            octets.extend(more);
            return None;
        }
        self.dumping = None;
        let spi = text.trim_start().strip_prefix("SPI 0x")?;
        u32::from_str_radix(spi.get(..8)?, 16).ok()
    }

    fn keys(&self) -> [Option<&[u8]>; 2] {
        self.octets.each_ref().map(|octets| Some(octets.as_slice()).filter(|octets| octets.len() == KEY))
    }
}

/// The octets of a line of a hex dump: `  16: 0A 1B 2C 3D                                      .,=.`
fn dump(text: &str) -> Option<Vec<u8>> {
    let (offset, rest) = text.trim_start().split_once(": ")?;
    offset.parse::<usize>().ok()?;
    let octets =
        rest.split(' ').take(16).map_while(|word| (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok())?);
    Some(octets.collect())
}

/// The thread and the text of a line: `2026-01-31T12:00:00 1769860800.123 07[CHD] text`.
fn entry(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(3, ' ');
    let (thread, text) = fields.nth(2)?.split_once("] ")?;
    Some((thread.split_once('[')?.0, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-31T12:00:00 100.000 07[CHD] encryption initiator key => 20 bytes @ 0x7f
2026-01-31T12:00:00 100.000 07[CHD]    0: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-01-31T12:00:00 100.000 08[CHD] encryption initiator key => 20 bytes @ 0x7f
2026-01-31T12:00:00 100.000 07[CHD]   16: 10 11 12 13                                      ....
2026-01-31T12:00:00 100.000 07[CHD] encryption responder key => 20 bytes @ 0x7f
2026-01-31T12:00:00 100.000 07[CHD]    0: 20 21 22 23 24 25 26 27 28 29 2A 2B 2C 2D 2E 2F  ................
2026-01-31T12:00:00 100.000 07[CHD]   16: 30 31 32 33                                      ....
2026-01-31T12:00:00 100.000 07[CHD]   using AES_GCM_16 for encryption
2026-01-31T12:00:00 100.000 08[CHD]   SPI 0x00000009, src 192.0.2.1 dst 192.0.2.2
2026-01-31T12:00:00 100.000 07[CHD]   SPI 0xc1a2b3c4, src 192.0.2.1 dst 192.0.2.2
2026-01-31T12:00:00 100.000 07[CHD]   SPI 0xd4c3b2a1, src 192.0.2.2 dst 192.0.2.1
2026-01-31T12:00:00 100.000 08[CHD]    0: FF 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-01-31T12:00:00 100.000 08[CHD] encryption initiator key => 20 bytes @ 0x7f
2026-01-31T12:00:00 100.000 08[CHD]    0: FF 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
2026-01-31T12:00:00 100.000 08[CHD]   16: 10 11 12 13                                      ....
2026-01-31T12:00:00 100.000 08[CHD] encryption responder key => 20 bytes @ 0x7f
2026-01-31T12:00:00 100.000 08[CHD]    0: FF 21 22 23 24 25 26 27 28 29 2A 2B 2C 2D 2E 2F  ................
2026-01-31T12:00:00 100.000 08[CHD]   16: 30 31 32 33                                      ....
2026-01-31T12:00:00 100.000 08[CHD]   SPI 0xc1a2b3c4, src 192.0.2.1 dst 192.0.2.2
";

    #[test]
    fn keys_are_read_thread_by_thread() {
        let found = keys(LOG).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0xc1a2_b3c4, 0xd4c3_b2a1]);
        let responder: Vec<u8> = (0x20..0x34).collect();
        let cipher = ring_provider().esp_cipher(EncryptionId::AES_GCM_16, Some(128), None).unwrap();
        let key = cipher.key(&responder, &[]).unwrap();
        let (header, mut iv, mut icv, mut data) = ([7; HEADER], [0; IV], [0; 16], *b"twelve octet");
        key.seal_in_place(1, &header, &mut iv, &mut data, &mut icv).unwrap();
        let esp = [header.as_slice(), &iv, &data, &icv].concat();
        let [initiators, responders] = &found[&0xc1a2_b3c4];
        assert_eq!(open(&**initiators, &esp), None);
        assert_eq!(open(&**responders, &esp).unwrap(), b"twelve octet");
    }
}
