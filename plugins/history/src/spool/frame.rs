//! One frame: length (4 octets, little endian), CRC-32 of the rest (4 octets), kind (1 octet), payload.

use std::io;

use serde::Serialize;

/// Octets before the payload.
pub(super) const HEADER: usize = 9;
/// Nothing longer is written, and a length beyond it is none.
pub(super) const PAYLOAD_MAX: usize = 16 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run of the daemon begins.
    Boot,
    /// A record of an event.
    Record,
}

impl Kind {
    fn octet(self) -> u8 {
        match self {
            Self::Boot => b'B',
            Self::Record => b'R',
        }
    }

    fn from_octet(octet: u8) -> Option<Self> {
        [Self::Boot, Self::Record].into_iter().find(|kind| kind.octet() == octet)
    }
}

/// One frame, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it holds.
    pub kind: Kind,
    /// JSON.
    pub payload: Vec<u8>,
}

/// Appends one frame whose payload `write` appends; `false` when that fails or the payload is too long. What is appended then is no frame.
pub(super) fn encode(kind: Kind, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let begin = to.len();
    to.extend_from_slice(&[0; HEADER]);
    if !write(to) {
        return false;
    }
    let Some((header, payload)) = to.get_mut(begin..).and_then(<[u8]>::split_first_chunk_mut::<HEADER>) else {
        return false;
    };
    let Some(length) = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX) else { return false };
    let ([l0, l1, l2, l3], kind) = (length.to_le_bytes(), kind.octet());
    let [c0, c1, c2, c3] = checksum(kind, payload).to_le_bytes();
    *header = [l0, l1, l2, l3, c0, c1, c2, c3, kind];
    true
}

/// Appends a value as JSON; `false` when it cannot be told so.
pub(super) fn append_json(value: &impl Serialize, to: &mut Vec<u8>) -> bool {
    serde_json::to_writer(Pieces(to), value).is_ok()
}

/// JSON comes in pieces, most of them a single octet, for which a call is much: what is written here, handshakes wait for.
struct Pieces<'b>(&'b mut Vec<u8>);

impl io::Write for Pieces<'_> {
    #[inline(always)]
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_all(piece).map(|()| piece.len())
    }

    #[inline(always)]
    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        match piece {
            [octet] => self.0.push(*octet),
            _ => self.0.extend_from_slice(piece),
        }
        Ok(())
    }

    #[inline(always)]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What stands at the beginning of some octets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A frame, and how many octets it took.
    Frame(Entry, usize),
    /// More octets are needed than are there.
    Short,
    /// No frame.
    Broken,
}

/// The length of the payload that follows a header.
pub(super) fn payload_length([l0, l1, l2, l3, ..]: [u8; HEADER]) -> usize {
    usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX)
}

pub(super) fn decode(octets: &[u8]) -> Decoded {
    let Some((header, rest)) = octets.split_first_chunk::<HEADER>() else { return Decoded::Short };
    let length = payload_length(*header);
    let [_, _, _, _, c0, c1, c2, c3, kind] = *header;
    let Some(known) = Kind::from_octet(kind).filter(|_| length <= PAYLOAD_MAX) else { return Decoded::Broken };
    let Some(payload) = rest.get(..length) else { return Decoded::Short };
    if checksum(kind, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Decoded::Broken;
    }
    Decoded::Frame(Entry { kind: known, payload: payload.to_vec() }, HEADER + length)
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}
