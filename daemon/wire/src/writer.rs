//! Appends fields to a growing message and fills in lengths once they are known.

use crate::error::{EncodeError, Place, Problem};

/// Octets of a message under construction.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    octets: Vec<u8>,
}

/// Position of a two-octet length field that counts from `start` on.
#[derive(Debug)]
#[must_use]
pub(crate) struct Length {
    start: usize,
    field: usize,
    place: Place,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.octets.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.octets.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.octets.resize(self.octets.len().saturating_add(count), 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    pub(crate) fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// Leaves room for a length field that counts from `start`, an earlier [`Self::len`].
    pub(crate) fn length(&mut self, start: usize, place: Place) -> Length {
        let field = self.len();
        self.u16(0);
        Length { start, field, place }
    }

    /// Fills the field: the structure ends here.
    pub(crate) fn close(&mut self, length: Length) -> Result<(), EncodeError> {
        let octets = self.len().saturating_sub(length.start);
        let value = u16::try_from(octets).map_err(|_| EncodeError::TooLong {
            place: length.place,
            octets,
            limit: usize::from(u16::MAX),
        })?;
        self.patch(length.field, value.to_be_bytes());
        Ok(())
    }

    /// Overwrites octets written earlier.
    pub(crate) fn patch<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        let slot = self.octets.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
        debug_assert!(slot.is_some(), "only positions already written are patched");
        if let Some(slot) = slot {
            *slot = value;
        }
    }
}

/// A count as the octet that carries it.
pub(crate) fn count_u8(what: &'static str, count: usize) -> Result<u8, EncodeError> {
    u8::try_from(count).map_err(|_| EncodeError::TooMany { what, count, limit: usize::from(u8::MAX) })
}

/// The error for a value that the parser would refuse with `problem`.
pub(crate) fn illegal(place: Place) -> impl Fn(Problem) -> EncodeError {
    move |problem| EncodeError::Illegal { place, problem }
}
