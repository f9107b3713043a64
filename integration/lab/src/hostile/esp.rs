//! ESP packets of the attacker (RFC 4303): authentic ones with a mutated inside, and ones whose outside is wrong.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ike_crypto::EspKey;
use ike_wire::ids::EncryptionId;

use super::dice::Dice;
use super::keys::provider;
use super::peer::Child;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Packets kept for replays.
const KEPT: usize = 64;
/// The last sequence number that an SA without extended numbers may use, with room to spare.
const LAST: u32 = 0xffff_0000;

/// What was done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// Authentic; what it carries is mutated.
    Inner,
    /// Authentic; padding, pad length or next header lie.
    Trailer,
    /// ICV, ciphertext or IV are changed.
    Forged,
    /// The SPI is another one, or one that is reserved.
    Spi,
    /// Sent before, or with an old or far number.
    Replay,
    /// Too short, cut, or lengthened.
    Length,
    /// Octets that are no ESP at all.
    Noise,
}

impl Damage {
    /// All, in the order of the report.
    pub const ALL: [Damage; 7] =
        [Damage::Inner, Damage::Trailer, Damage::Forged, Damage::Spi, Damage::Replay, Damage::Length, Damage::Noise];

    /// Whether the daemon decrypts it.
    #[must_use]
    pub fn is_authentic(self) -> bool {
        matches!(self, Damage::Inner | Damage::Trailer)
    }
}

/// One outbound SA of the attacker.
pub struct Sender {
    spi: u32,
    key: Box<dyn EspKey>,
    sequence: u32,
    source: Ipv4Addr,
    target: Ipv4Addr,
    kept: Vec<Vec<u8>>,
}

impl Sender {
    /// Sends on a CHILD SA from an address behind the attacker to one behind the daemon.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn new(child: &Child, source: Ipv4Addr, target: Ipv4Addr) -> Result<Self> {
        let cipher = provider().esp_cipher(EncryptionId::AES_GCM_16, Some(128), None).context("no AES-GCM")?;
        let key = cipher.key(&child.outbound, &[])?;
        Ok(Sender { spi: child.theirs, key, sequence: 0, source, target, kept: Vec::new() })
    }

    /// Whether sequence numbers are left.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.sequence < LAST
    }

    /// A packet as it should be: an ICMP echo request.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn good(&mut self) -> Result<Vec<u8>> {
        let inner = ipv4(self.source, self.target, ICMP, &echo());
        self.seal(&inner, 4, None)
    }

    /// The next mutated packet.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn mutated(&mut self, dice: &mut Dice) -> Result<(Damage, Vec<u8>)> {
        let damage = match dice.below(20) {
            0..=8 => Damage::Inner,
            9..=10 => Damage::Trailer,
            11..=13 => Damage::Forged,
            14 => Damage::Spi,
            15..=16 => Damage::Replay,
            17..=18 => Damage::Length,
            _ => Damage::Noise,
        };
        let packet = match damage {
            Damage::Inner => {
                let inner = self.inner(dice);
                self.seal(&inner, next_header(&inner), None)?
            }
            Damage::Trailer => self.odd_trailer(dice)?,
            Damage::Forged => {
                let mut packet = self.good()?;
                // Behind SPI and sequence number.
                for _ in 0..dice.between(1, 3) {
                    let at = 8 + dice.below(packet.len().saturating_sub(8));
                    flip(&mut packet, at, dice);
                }
                packet
            }
            Damage::Spi => {
                let mut packet = self.good()?;
                let spi = if dice.one_in(3) { dice.below(256) as u32 } else { self.spi ^ (1 << dice.below(32)) };
                write(&mut packet, 0, &spi.to_be_bytes());
                packet
            }
            Damage::Replay => self.replay(dice)?,
            Damage::Length => {
                let mut packet = self.good()?;
                if dice.one_in(2) {
                    packet.truncate(dice.below(packet.len()));
                } else {
                    let more = dice.between(1, 1_300);
                    packet.extend(dice.octets(more));
                }
                packet
            }
            Damage::Noise => {
                let longest = if dice.one_in(20) { 1_400 } else { 24 };
                let length = dice.below(longest);
                let mut packet = dice.octets(length);
                if dice.one_in(4) {
                    write(&mut packet, 0, &self.spi.to_be_bytes());
                }
                packet
            }
        };
        if self.kept.len() < KEPT {
            self.kept.push(packet.clone());
        } else if let Some(old) = self.kept.get_mut(dice.below(KEPT)) {
            old.clone_from(&packet);
        }
        Ok((damage, packet))
    }

    /// An inner packet with something wrong.
    fn inner(&self, dice: &mut Dice) -> Vec<u8> {
        let mut inner = match dice.below(6) {
            0 => ipv4(self.source, self.target, ICMP, &echo()),
            1 => {
                let length = dice.below(64);
                ipv4(self.source, self.target, TCP, &dice.octets(20 + length))
            }
            2 => {
                let length = dice.below(1_300);
                ipv4(self.source, self.target, UDP, &dice.octets(8 + length))
            }
            3 => ipv6(dice),
            4 => ipv4(
                Ipv4Addr::from(dice.next_u64() as u32),
                Ipv4Addr::from(dice.next_u64() as u32),
                dice.octet(),
                &[1; 40],
            ),
            _ => {
                let length = dice.below(80);
                dice.octets(length)
            }
        };
        for _ in 0..dice.below(4) {
            match dice.below(6) {
                0 => inner.truncate(dice.below(inner.len())),
                1 => write(&mut inner, 0, &[dice.octet()]),
                2 => write(&mut inner, 2, &(dice.next_u64() as u16).to_be_bytes()),
                // Fragments: offset and flags.
                3 => write(&mut inner, 6, &(dice.next_u64() as u16).to_be_bytes()),
                4 => write(&mut inner, 9, &[dice.octet()]),
                _ => {
                    let at = dice.below(inner.len());
                    flip(&mut inner, at, dice);
                }
            }
        }
        if dice.one_in(2) {
            mend_ipv4(&mut inner);
        }
        inner
    }

    fn odd_trailer(&mut self, dice: &mut Dice) -> Result<Vec<u8>> {
        let inner = if dice.one_in(3) { Vec::new() } else { ipv4(self.source, self.target, ICMP, &echo()) };
        let next = dice.pick(&[0_u8, 4, 6, 17, 41, 50, 59, 97, 255]).unwrap_or(59);
        let length = dice.below(260);
        let mut trailer = match dice.below(3) {
            0 => vec![0; length],
            1 => dice.octets(length),
            _ => (1..=u8::MAX).cycle().take(length).collect(),
        };
        trailer.push(if dice.one_in(3) { dice.octet() } else { length.min(255) as u8 });
        self.seal(&inner, next, Some(trailer))
    }

    fn replay(&mut self, dice: &mut Dice) -> Result<Vec<u8>> {
        match dice.below(4) {
            0 => {
                // Ahead, but not so far that the numbers run out.
                self.sequence = self.sequence.saturating_add(dice.between(1, 3_000) as u32);
                self.good()
            }
            1 => {
                // An authentic packet with an old number: the key is the attacker's, so it may well use a number twice.
                let now = self.sequence;
                self.sequence = now.saturating_sub(dice.between(1, 5_000) as u32);
                let packet = self.good();
                self.sequence = now;
                packet
            }
            _ => match self.kept.get(dice.below(self.kept.len())) {
                Some(packet) => Ok(packet.clone()),
                None => self.good(),
            },
        }
    }

    /// Seals an inner packet; without a trailer of its own it gets the right one.
    fn seal(&mut self, inner: &[u8], next_header: u8, trailer: Option<Vec<u8>>) -> Result<Vec<u8>> {
        self.sequence = self.sequence.saturating_add(1);
        let mut body = inner.to_vec();
        match trailer {
            Some(trailer) => body.extend(trailer),
            None => {
                let padding = 3 - (body.len() + 1) % 4;
                body.extend((1..=3).take(padding));
                body.push(padding as u8);
            }
        }
        body.push(next_header);
        let head = [self.spi.to_be_bytes(), self.sequence.to_be_bytes()].concat();
        let (mut iv, mut icv) = (vec![0; self.key.iv_len()], vec![0; self.key.icv_len()]);
        self.key.seal_in_place(self.sequence.into(), &head, &mut iv, &mut body, &mut icv)?;
        Ok([head, iv, body, icv].concat())
    }
}

fn next_header(inner: &[u8]) -> u8 {
    if inner.first().is_some_and(|first| first >> 4 == 6) { 41 } else { 4 }
}

fn write(octets: &mut [u8], at: usize, value: &[u8]) {
    octets.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
}

fn flip(octets: &mut [u8], at: usize, dice: &mut Dice) {
    if let Some(octet) = octets.get_mut(at) {
        *octet ^= 1 << dice.below(8);
    }
}

fn echo() -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0x43, 0x47, 0, 1];
    message.extend(b"hostile!");
    let sum = crate::frame::checksum(0, &message);
    write(&mut message, 2, &sum.to_be_bytes());
    message
}

fn ipv4(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(payload);
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    write(&mut packet, 2, &length.to_be_bytes());
    mend_ipv4(&mut packet);
    packet
}

/// A right header checksum, whatever the header says.
fn mend_ipv4(packet: &mut [u8]) {
    write(packet, 10, &[0, 0]);
    let sum = crate::frame::checksum(0, packet.get(..20).unwrap_or(packet));
    write(packet, 10, &sum.to_be_bytes());
}

fn ipv6(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(200);
    let mut packet =
        vec![0x60, 0, 0, 0, 0, length as u8, dice.pick(&[0_u8, 6, 17, 43, 44, 58, 59, 60]).unwrap_or(58), 64];
    packet.extend(dice.octets(32));
    packet.extend(dice.octets(length));
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Sender {
        let child = Child { ours: 1, theirs: 0x1234_5678, outbound: vec![7; 20] };
        let target = Ipv4Addr::new(10, 1, 0, 10);
        Sender::new(&child, Ipv4Addr::new(10, 66, 0, 1), target).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_good_packet_opens_to_an_echo_request() {
        let mut packet = sender().good().unwrap_or_else(|error| panic!("{error}"));
        let key = sender().key;
        let (head, rest) = packet.split_at_mut(8);
        let (iv, body) = rest.split_at_mut(8);
        let plain = key.open_in_place(iv, head, body).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(plain.get(..2), Some(&[0x45, 0][..]));
        assert_eq!((plain.len() % 4, plain.last()), (0, Some(&4)));
    }

    #[test]
    fn every_kind_of_damage_comes_up_and_numbers_last() {
        let (mut sender, mut dice) = (sender(), Dice::new(3));
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            let (damage, _) = sender.mutated(&mut dice).unwrap_or_else(|error| panic!("{error}"));
            *seen.entry(damage).or_insert(0) += 1;
        }
        assert!(Damage::ALL.iter().all(|damage| seen.get(damage).is_some_and(|count| *count > 500)), "{seen:?}");
        assert!(sender.is_fresh() && sender.sequence < 20_000 * 100);
    }
}
