//! CP payload: addresses and other settings that one side asks for and the other gives (RFC 7296 §3.15).
//!
//! Attributes are kept as type and octets; what they mean is left to the feature that uses them.

use std::borrow::Cow;

use crate::cursor::Cursor;
use crate::error::{EncodeError, Malformed, Place, Problem};
use crate::ids::{ConfigurationAttributeType, ConfigurationType};
use crate::writer::Writer;

/// Attributes read from one CP payload. A request names each type about once, a reply some addresses of each.
pub const MAX_CONFIGURATION_ATTRIBUTES: usize = 256;

const TYPE_MASK: u16 = 0x7fff;

/// A CP payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration<'a> {
    /// Request, reply, set or acknowledgement.
    pub kind: ConfigurationType,
    /// In the order of the payload.
    pub attributes: Vec<ConfigurationAttribute<'a>>,
}

/// One attribute; an empty value in a request asks for any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigurationAttribute<'a> {
    /// 15 bits.
    pub kind: ConfigurationAttributeType,
    /// Octets, in a form that depends on `kind`.
    pub value: Cow<'a, [u8]>,
}

impl<'a> Configuration<'a> {
    /// The same payload with its own octets.
    #[must_use]
    pub fn into_owned(self) -> Configuration<'static> {
        let own = |attribute: ConfigurationAttribute<'a>| ConfigurationAttribute {
            kind: attribute.kind,
            value: Cow::Owned(attribute.value.into_owned()),
        };
        Configuration { kind: self.kind, attributes: self.attributes.into_iter().map(own).collect() }
    }

    pub(crate) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let kind = ConfigurationType(cursor.u8()?);
        cursor.take(3)?;
        cursor.enter(Place::ConfigurationAttribute);
        let mut attributes = Vec::new();
        while !cursor.is_empty() {
            if attributes.len() == MAX_CONFIGURATION_ATTRIBUTES {
                let limit = MAX_CONFIGURATION_ATTRIBUTES;
                return Err(cursor.malformed(Problem::TooMany { what: "configuration attributes", limit }));
            }
            let kind = ConfigurationAttributeType(cursor.u16()? & TYPE_MASK);
            let length = usize::from(cursor.u16()?);
            attributes.push(ConfigurationAttribute { kind, value: cursor.take(length)?.into() });
        }
        Ok(Self { kind, attributes })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let (count, limit) = (self.attributes.len(), MAX_CONFIGURATION_ATTRIBUTES);
        if count > limit {
            return Err(EncodeError::TooMany { what: "configuration attributes", count, limit });
        }
        writer.u8(self.kind.0);
        writer.zeros(3);
        for attribute in &self.attributes {
            if attribute.kind.0 > TYPE_MASK {
                return Err(EncodeError::ConfigurationAttribute(attribute.kind));
            }
            writer.u16(attribute.kind.0);
            // This length counts the value alone.
            let start = writer.len().saturating_add(2);
            let length = writer.length(start, Place::ConfigurationAttribute);
            writer.octets(&attribute.value);
            writer.close(length)?;
        }
        Ok(())
    }
}
