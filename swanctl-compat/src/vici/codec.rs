//! Message trees to octets and back.
//!
//! Each element is one type octet, then a name (one octet of length) and a value (two octets of length, most significant first) where the type has
//! them. Reading is strict: sections and lists balance, lists hold items only, names are UTF-8, nothing is left over. It allocates no more than the
//! octets it was given justify, and nesting is bounded.

use thiserror::Error;

use super::message::{Element, Message, Value};

/// How deep sections may nest.
pub const MAX_DEPTH: usize = 64;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// Why octets are not a message; each with the offset where reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The octets end inside an element, or before a section or list ends.
    #[error("message ends too early, at octet {0}")]
    Truncated(usize),
    /// A type octet that VICI does not know.
    #[error("unknown element type at octet {0}")]
    UnknownElement(usize),
    /// An element where it cannot stand: an item outside a list, a section inside one, an end without a start.
    #[error("misplaced element at octet {0}")]
    Misplaced(usize),
    /// A name that is not UTF-8.
    #[error("name at octet {0} is not UTF-8 text")]
    Name(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("sections nest too deep at octet {0}")]
    TooDeep(usize),
}

/// Why a message has no encoding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Names have at most 255 octets.
    #[error("name of {0} octets is too long for VICI")]
    NameTooLong(usize),
    /// Values have at most 65,535 octets.
    #[error("value of `{name}` is too long for VICI ({length} octets)")]
    ValueTooLong {
        /// Whose value.
        name: String,
        /// Its length.
        length: usize,
    },
    /// Packets have at most 512 KiB.
    #[error("packet of {0} octets is too long for VICI")]
    PacketTooLong(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("sections nest too deep")]
    TooDeep,
}

impl Message {
    /// Octets of its encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let element = |element: &Element| match element {
            Element::Section(name, content) => 3 + name.len() + content.encoded_len(),
            Element::List(name, items) => {
                3 + name.len() + items.iter().map(|item| 3 + item.as_bytes().len()).sum::<usize>()
            }
            Element::KeyValue(name, value) => 4 + name.len() + value.as_bytes().len(),
        };
        self.elements().iter().map(element).sum()
    }

    /// Appends the encoding of this message to `out`.
    ///
    /// # Errors
    /// When a name, a value or the nesting exceeds what VICI can carry.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_elements(self, out, 0)
    }

    /// Reads a message that fills `octets` exactly.
    ///
    /// # Errors
    /// Names the first octet that does not fit the format.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader { octets, at: 0 };
        reader.elements(0)
    }
}

fn encode_elements(message: &Message, out: &mut Vec<u8>, depth: usize) -> Result<(), EncodeError> {
    if depth > MAX_DEPTH {
        return Err(EncodeError::TooDeep);
    }
    for element in message.elements() {
        match element {
            Element::Section(name, content) => {
                encode_name(SECTION_START, name, out)?;
                encode_elements(content, out, depth + 1)?;
                out.push(SECTION_END);
            }
            Element::List(name, items) => {
                encode_name(LIST_START, name, out)?;
                for item in items {
                    out.push(LIST_ITEM);
                    encode_value(name, item, out)?;
                }
                out.push(LIST_END);
            }
            Element::KeyValue(name, value) => {
                encode_name(KEY_VALUE, name, out)?;
                encode_value(name, value, out)?;
            }
        }
    }
    Ok(())
}

fn encode_name(kind: u8, name: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let length = u8::try_from(name.len()).map_err(|_| EncodeError::NameTooLong(name.len()))?;
    out.extend([kind, length]);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn encode_value(name: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let octets = value.as_bytes();
    let too_long = |_| EncodeError::ValueTooLong { name: name.to_owned(), length: octets.len() };
    let length = u16::try_from(octets.len()).map_err(too_long)?;
    out.extend(length.to_be_bytes());
    out.extend_from_slice(octets);
    Ok(())
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Elements up to the end of the section (or of the message at depth 0).
    fn elements(&mut self, depth: usize) -> Result<Message, DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep(self.at));
        }
        let mut message = Message::new();
        loop {
            let start = self.at;
            if start == self.octets.len() && depth == 0 {
                return Ok(message);
            }
            match self.octet()? {
                SECTION_START => {
                    let name = self.name()?;
                    let content = self.elements(depth + 1)?;
                    message.section(name, content);
                }
                KEY_VALUE => {
                    let name = self.name()?;
                    message.set(name, self.value()?);
                }
                LIST_START => {
                    let name = self.name()?;
                    let items = self.items()?;
                    message.list(name, items);
                }
                SECTION_END if depth > 0 => return Ok(message),
                SECTION_END | LIST_ITEM | LIST_END => return Err(DecodeError::Misplaced(start)),
                _ => return Err(DecodeError::UnknownElement(start)),
            }
        }
    }

    fn items(&mut self) -> Result<Vec<Value>, DecodeError> {
        let mut items = Vec::new();
        loop {
            let start = self.at;
            match self.octet()? {
                LIST_ITEM => items.push(self.value()?),
                LIST_END => return Ok(items),
                SECTION_START | SECTION_END | KEY_VALUE | LIST_START => return Err(DecodeError::Misplaced(start)),
                _ => return Err(DecodeError::UnknownElement(start)),
            }
        }
    }

    fn octet(&mut self) -> Result<u8, DecodeError> {
        let octet = self.octets.get(self.at).copied().ok_or(DecodeError::Truncated(self.at))?;
        self.at += 1;
        Ok(octet)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let taken = self
            .octets
            .get(self.at..)
            .and_then(|rest| rest.get(..length))
            .ok_or(DecodeError::Truncated(self.octets.len()))?;
        self.at += length;
        Ok(taken)
    }

    fn name(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.octet()?;
        let start = self.at;
        std::str::from_utf8(self.take(length.into())?).map_err(|_| DecodeError::Name(start))
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        let length = u16::from_be_bytes([self.octet()?, self.octet()?]);
        self.take(length.into()).map(Value::from)
    }
}
