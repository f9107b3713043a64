//! The only way in which this crate reads octets: forward, with a bound check per field, knowing where it is.

use crate::error::{Malformed, Place, Problem};

/// A position in received octets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
    place: Place,
}

impl<'a> Cursor<'a> {
    /// Starts at octet `offset` of the datagram, inside `place`.
    pub(crate) fn new(octets: &'a [u8], offset: usize, place: Place) -> Self {
        Self { rest: octets, offset, place }
    }

    /// Names the structure that is read from here on.
    pub(crate) fn enter(&mut self, place: Place) {
        self.place = place;
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.rest.split_first_chunk().ok_or_else(|| self.truncated(N))?;
        self.advance(rest);
        Ok(*field)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (field, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.truncated(count))?;
        self.advance(rest);
        Ok(field)
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.advance(&[]);
        rest
    }

    /// A cursor over the next `count` octets alone, reading `place`; this one continues behind them.
    pub(crate) fn sub(&mut self, count: usize, place: Place) -> Result<Self, Malformed> {
        let offset = self.offset;
        Ok(Self::new(self.take(count)?, offset, place))
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.malformed(Problem::TrailingOctets { count: self.rest.len() }))
    }

    /// An error at the current position.
    pub(crate) fn malformed(&self, problem: Problem) -> Malformed {
        Malformed { place: self.place, offset: self.offset, problem }
    }

    /// Octets that follow `fixed` ones already read, when a length field counted both as `claimed`.
    pub(crate) fn after_fixed(&self, claimed: u16, fixed: usize) -> Result<usize, Malformed> {
        let claimed = usize::from(claimed);
        claimed.checked_sub(fixed).ok_or_else(|| self.malformed(Problem::LengthField { claimed, minimum: fixed }))
    }

    fn truncated(&self, needed: usize) -> Malformed {
        self.malformed(Problem::Truncated { needed, left: self.rest.len() })
    }

    fn advance(&mut self, rest: &'a [u8]) {
        // `rest` is always a tail of `self.rest`, and an offset never exceeds base plus datagram length.
        self.offset = self.offset.saturating_add(self.rest.len().saturating_sub(rest.len()));
        self.rest = rest;
    }
}
