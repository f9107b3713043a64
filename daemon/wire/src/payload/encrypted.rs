//! SK and SKF payloads from outside (RFC 7296 §3.14, RFC 7383 §2.5): octets that only the holder of the keys can read.
//!
//! [`SkBuffer`](crate::SkBuffer) divides them into IV, ciphertext and ICV.

use std::borrow::Cow;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::PayloadType;
use crate::writer::{Writer, illegal};

/// Fragments of one message that are accepted. Enough for 64 KiB in fragments of 512 octets.
pub const MAX_FRAGMENTS: u16 = 128;

/// Octets of the two numbers in front of the body of an SKF payload.
pub(crate) const FRAGMENT_NUMBERS_LEN: usize = 4;

/// SK payload. It is the last of its message, and its "next payload" is the type of the first payload inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted<'a> {
    /// Type of the first payload inside.
    pub first: PayloadType,
    /// IV, ciphertext with padding, ICV.
    pub body: Cow<'a, [u8]>,
}

/// SKF payload: one fragment of a message that would have had an SK payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncryptedFragment<'a> {
    /// Type of the first payload inside in fragment 1, zero in the others.
    pub first: PayloadType,
    /// Number of this fragment, from 1.
    pub number: u16,
    /// Number of fragments of the message.
    pub total: u16,
    /// IV, ciphertext with padding, ICV.
    pub body: Cow<'a, [u8]>,
}

impl Encrypted<'_> {
    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Encrypted<'static> {
        Encrypted { first: self.first, body: Cow::Owned(self.body.into_owned()) }
    }
}

impl<'a> EncryptedFragment<'a> {
    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> EncryptedFragment<'static> {
        EncryptedFragment {
            first: self.first,
            number: self.number,
            total: self.total,
            body: Cow::Owned(self.body.into_owned()),
        }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>, first: PayloadType) -> Result<Self, Malformed> {
        let number = cursor.u16()?;
        let total = cursor.u16()?;
        check_fragment(number, total).map_err(|problem| cursor.malformed(problem))?;
        Ok(Self { first, number, total, body: cursor.rest().into() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        write_fragment_numbers(self.number, self.total, writer)?;
        writer.octets(&self.body);
        Ok(())
    }
}

pub(crate) fn write_fragment_numbers(number: u16, total: u16, writer: &mut Writer) -> Result<(), EncodeError> {
    check_fragment(number, total).map_err(illegal(Place::Payload(PayloadType::SKF)))?;
    writer.u16(number);
    writer.u16(total);
    Ok(())
}

//= RFC 7383 §2.6: the fragment number is not zero and not larger than the total
fn check_fragment(number: u16, total: u16) -> Result<(), Problem> {
    if total > MAX_FRAGMENTS {
        return Err(Problem::TooMany { what: "fragments", limit: usize::from(MAX_FRAGMENTS) });
    }
    if (1..=total).contains(&number) { Ok(()) } else { Err(Problem::FragmentNumber { number, total }) }
}
