//! Mutations of octets: whole datagrams, and payload chains below SK.

use ike_wire::Chain;
use ike_wire::ids::PayloadType;

use super::dice::Dice;

/// Where the length of a message stands in its header.
const LENGTH_AT: usize = 24;
const HEADER: usize = 28;
const PAYLOAD_HEADER: usize = 4;
/// Longer than any limit of the codec, short enough for one datagram.
const LONG: usize = 20_000;
/// Numbers at which length checks go wrong.
const EDGES: [u32; 14] = [0, 1, 3, 4, 7, 8, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, u32::MAX];

/// Changes a whole datagram; `others` are further messages to take pieces from.
pub fn datagram(dice: &mut Dice, message: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..dice.between(1, 3) {
        match dice.below(13) {
            0 | 1 => flip(dice, message, 0),
            2 => number(dice, message, 0),
            3 => truncate(dice, message),
            4 => extend(dice, message),
            5 => flip_below(dice, message, HEADER),
            6 => {
                let from = HEADER.min(message.len().saturating_sub(1));
                number(dice, message, from);
            }
            7 => put(message, LENGTH_AT, &dice.next_u64().to_be_bytes()),
            8 => splice(dice, message, others),
            9 => repeat_piece(dice, message),
            10 => payload_length(dice, message),
            11 => header_field(dice, message),
            // As it is: a replay.
            _ => {}
        }
    }
    // A wrong length is refused at the header already; half of the datagrams shall come further.
    if dice.one_in(2) {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        put(message, LENGTH_AT, &length.to_be_bytes());
    }
}

/// Overwrites octets where there are enough.
fn put(octets: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in octets.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn flip(dice: &mut Dice, octets: &mut [u8], from: usize) {
    let at = from + dice.below(octets.len().saturating_sub(from));
    let bit = 1_u8 << dice.below(8);
    if let Some(octet) = octets.get_mut(at) {
        *octet ^= bit;
    }
}

fn flip_below(dice: &mut Dice, octets: &mut [u8], end: usize) {
    let end = end.min(octets.len());
    if let Some(part) = octets.get_mut(..end) {
        flip(dice, part, 0);
    }
}

fn number(dice: &mut Dice, octets: &mut [u8], from: usize) {
    let at = from + dice.below(octets.len().saturating_sub(from));
    let value = if dice.one_in(4) { dice.next_u64() as u32 } else { dice.pick(&EDGES).unwrap_or(0) };
    let octets_of = value.to_be_bytes();
    let width = dice.pick(&[1_usize, 2, 4]).unwrap_or(1);
    let value = octets_of.get(octets_of.len() - width..).unwrap_or_default();
    put(octets, at, value);
}

fn truncate(dice: &mut Dice, octets: &mut Vec<u8>) {
    let length = dice.below(octets.len());
    octets.truncate(length);
}

fn extend(dice: &mut Dice, octets: &mut Vec<u8>) {
    let count = if dice.one_in(40) { dice.below(LONG) } else { dice.between(1, 64) };
    let more = if dice.one_in(2) { vec![0; count] } else { dice.octets(count) };
    octets.extend(more);
    octets.truncate(60_000);
}

fn splice(dice: &mut Dice, octets: &mut Vec<u8>, others: &[Vec<u8>]) {
    let Some(other) = others.get(dice.below(others.len())) else { return };
    let (keep, from) = (dice.below(octets.len()), dice.below(other.len()));
    octets.truncate(keep);
    octets.extend(other.iter().skip(from));
}

fn repeat_piece(dice: &mut Dice, octets: &mut Vec<u8>) {
    let from = dice.below(octets.len());
    let count = dice.between(1, 64);
    let piece: Vec<u8> = octets.iter().skip(from).take(count).copied().collect();
    let at = dice.below(octets.len());
    octets.splice(at..at, piece);
}

/// A wrong length or type in the generic header of a payload.
fn payload_length(dice: &mut Dice, octets: &mut [u8]) {
    let mut at = HEADER;
    for _ in 0..dice.below(6) {
        let Some(length) = length_field(octets, at).filter(|length| *length >= PAYLOAD_HEADER) else { break };
        at += length;
    }
    match dice.below(3) {
        0 => put(octets, at, &[dice.octet()]),
        _ => {
            let value = dice.pick(&EDGES).unwrap_or(0) as u16;
            put(octets, at + 2, &value.to_be_bytes());
        }
    }
}

fn length_field(octets: &[u8], at: usize) -> Option<usize> {
    let field = octets.get(at + 2..at + 4)?;
    Some(usize::from(u16::from_be_bytes(field.try_into().ok()?)))
}

/// SPIs, next payload, version, exchange type, flags or message ID.
fn header_field(dice: &mut Dice, octets: &mut [u8]) {
    match dice.below(7) {
        0 => put(octets, 0, &dice.next_u64().to_be_bytes()),
        1 => put(octets, 8, &dice.next_u64().to_be_bytes()),
        2 => put(octets, 16, &[dice.octet()]),
        3 => put(octets, 17, &[dice.octet()]),
        4 => put(octets, 18, &[dice.between(30, 48) as u8]),
        5 => put(octets, 19, &[dice.octet()]),
        _ => put(octets, 20, &(dice.below(8) as u32).to_be_bytes()),
    }
}

/// One payload of a chain as octets.
#[derive(Clone, Debug)]
struct Piece {
    kind: u8,
    flags: u8,
    body: Vec<u8>,
}

/// Changes a chain; most of what comes out still has the form of a chain.
#[must_use]
pub fn chain(dice: &mut Dice, chain: &Chain) -> Chain {
    let mut pieces = split(chain);
    for _ in 0..dice.between(1, 3) {
        piece(dice, &mut pieces);
    }
    let mut out = join(&pieces);
    if dice.one_in(8) {
        broken(dice, &mut out);
    }
    out
}

fn split(chain: &Chain) -> Vec<Piece> {
    let (mut kind, mut at, mut pieces) = (chain.first.0, 0, Vec::new());
    while kind != 0 {
        let Some(length) = length_field(&chain.octets, at).filter(|length| *length >= PAYLOAD_HEADER) else { break };
        let (Some(next), Some(flags)) = (chain.octets.get(at), chain.octets.get(at + 1)) else { break };
        let body = chain.octets.get(at + PAYLOAD_HEADER..at + length).unwrap_or_default().to_vec();
        pieces.push(Piece { kind, flags: *flags, body });
        kind = *next;
        at += length;
    }
    pieces
}

fn join(pieces: &[Piece]) -> Chain {
    let mut octets = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let next = pieces.get(index + 1).map_or(0, |next| next.kind);
        let length = u16::try_from(piece.body.len() + PAYLOAD_HEADER).unwrap_or(u16::MAX);
        octets.extend([next, piece.flags]);
        octets.extend(length.to_be_bytes());
        octets.extend(&piece.body);
    }
    octets.truncate(60_000);
    Chain { first: PayloadType(pieces.first().map_or(0, |piece| piece.kind)), octets }
}

fn piece(dice: &mut Dice, pieces: &mut Vec<Piece>) {
    let index = dice.below(pieces.len());
    let other = dice.below(pieces.len());
    let kinds = PayloadType::SA.0..=PayloadType::PS.0;
    match dice.below(14) {
        0 => drop(pieces.get(index).is_some().then(|| pieces.remove(index))),
        1 => {
            if let Some(again) = pieces.get(index).cloned() {
                pieces.insert(other, again);
            }
        }
        2 if !pieces.is_empty() => pieces.swap(index, other),
        3 => pieces.insert(other, stray(dice)),
        4 => {
            let many = if dice.one_in(4) { dice.between(1, 300) } else { 1 };
            let again = stray(dice);
            pieces.extend(std::iter::repeat_n(again, many));
        }
        operation => {
            let Some(piece) = pieces.get_mut(index) else { return };
            match operation {
                5 => piece.kind = dice.between((*kinds.start()).into(), (*kinds.end()).into()) as u8,
                6 => piece.flags ^= if dice.one_in(2) { 0x80 } else { dice.octet() },
                7 => truncate(dice, &mut piece.body),
                8 => extend(dice, &mut piece.body),
                9 => piece.body = dice.octets(piece.body.len()),
                10 | 11 => number(dice, &mut piece.body, 0),
                _ => flip(dice, &mut piece.body, 0),
            }
        }
    }
}

/// A payload that nobody asked for.
fn stray(dice: &mut Dice) -> Piece {
    let kind =
        dice.pick(&[33_u8, 34, 35, 36, 37, 38, 39, 40, 41, 41, 42, 43, 44, 45, 46, 47, 48, 53, 60, 200]).unwrap_or(41);
    let count = dice.below(48);
    let mut body = dice.octets(count);
    // Notifications and deletions get fields that mean something.
    if kind == PayloadType::NOTIFY.0 {
        let value = if dice.one_in(2) { dice.between(1, 48) } else { dice.between(16_384, 16_450) } as u16;
        put(&mut body, 0, &[dice.between(0, 3) as u8, dice.pick(&[0_u8, 0, 4, 8]).unwrap_or(0)]);
        put(&mut body, 2, &value.to_be_bytes());
    } else if kind == PayloadType::DELETE.0 {
        put(&mut body, 0, &[dice.between(1, 3) as u8, dice.pick(&[0_u8, 4, 8]).unwrap_or(4), 0, dice.below(8) as u8]);
    }
    Piece { kind, flags: if dice.one_in(6) { 0x80 } else { 0 }, body }
}

/// Lies of the chain itself.
fn broken(dice: &mut Dice, chain: &mut Chain) {
    match dice.below(5) {
        0 => chain.first = PayloadType(dice.octet()),
        1 => truncate(dice, &mut chain.octets),
        2 => extend(dice, &mut chain.octets),
        3 => number(dice, &mut chain.octets, 0),
        _ => flip(dice, &mut chain.octets, 0),
    }
}

#[cfg(test)]
mod tests {
    use ike_wire::ids::NotifyType;
    use ike_wire::{Nonce, Notify, Payload, encode_chain, parse_chain};

    use super::*;

    fn sample() -> Chain {
        let nonce = Payload::Nonce(Nonce::new(vec![1; 32]));
        let notify = Payload::Notify(Notify::new(NotifyType::COOKIE, vec![2; 8]));
        encode_chain(&[nonce, notify]).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn splitting_and_joining_changes_nothing() {
        let chain = sample();
        let joined = join(&split(&chain));
        assert_eq!((joined.first, joined.octets), (chain.first, chain.octets));
    }

    #[test]
    fn most_chains_still_parse_and_most_differ() {
        let (original, mut dice) = (sample(), Dice::new(5));
        let (mut parsed, mut differ) = (0, 0);
        for _ in 0..1_000 {
            let mutated = chain(&mut dice, &original);
            parsed += usize::from(parse_chain(mutated.first, &mutated.octets, 0).is_ok());
            differ += usize::from(mutated != original);
        }
        assert!(parsed > 300 && parsed < 950, "{parsed} of 1000 parse");
        assert!(differ > 950, "{differ} of 1000 differ");
    }

    #[test]
    fn datagrams_of_any_length_can_be_changed() {
        let mut dice = Dice::new(6);
        for length in [0, 1, 27, 28, 29, 60] {
            for _ in 0..2_000 {
                let mut message = vec![0x2e; length];
                datagram(&mut dice, &mut message, &[vec![1; 40], Vec::new()]);
                assert!(message.len() <= 60_000 + LONG);
            }
        }
    }
}
