//! IANA registries of IKEv2 as newtypes: every number is a legal value, the registered ones have a name.
//!
//! RFC 7296 §3 and the "Internet Key Exchange Version 2 (IKEv2) Parameters" registry. A number that nobody registered stays a
//! value, so that a peer that knows more than we do is answered with a negotiation result and not with a parse error. Which
//! of these the daemon can actually do is the concern of the crypto provider and of the exchanges.

mod exchange;
mod identity;
mod notify;
mod transform;

pub use exchange::{ConfigurationAttributeType, ConfigurationType, ExchangeType, PayloadType, ProtocolId, TsType};
pub use identity::{AuthMethod, CertEncoding, HashAlgorithmId, IdType};
pub use notify::NotifyType;
pub use transform::{AttributeType, EncryptionId, EsnId, IntegrityId, KeyExchangeId, PrfId, TransformType};

use std::fmt;

/// Defines one registry: a newtype, one constant per registered number, `name`, `REGISTERED`, and a `Display` that prints
/// the name, or the number in parentheses. `=> "text"` overrides the printed name.
macro_rules! registry {
    (
        $(#[$attribute:meta])*
        $name:ident($number:ty) { $($constant:ident = $value:literal $(=> $text:literal)?,)* }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(
            /// The number as it stands on the wire.
            pub $number,
        );

        impl $name {
            $(
                #[doc = concat!("`", registry!(@text $constant $($text)?), "`, number ", stringify!($value), ".")]
                pub const $constant: Self = Self($value);
            )*

            /// Every registered number with its printed name, in the order of the registry.
            pub const REGISTERED: &'static [(Self, &'static str)] =
                &[$((Self::$constant, registry!(@text $constant $($text)?)),)*];

            /// The printed name, or `None` for a number that is not registered.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(registry!(@text $constant $($text)?)),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => f.pad(&format!("({})", self.0)),
                }
            }
        }

        impl From<$number> for $name {
            fn from(number: $number) -> Self {
                Self(number)
            }
        }
    };
    (@text $constant:ident) => { stringify!($constant) };
    (@text $constant:ident $text:literal) => { $text };
}
use registry;

/// SPI of one side of an IKE SA: 8 octets of the header, as a number in network order. Prints as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct IkeSpi(
    /// The SPI; 0 only as the responder's SPI of the first request.
    pub u64,
);

impl IkeSpi {
    /// The responder's SPI before the responder has chosen one.
    pub const ZERO: Self = Self(0);

    /// Whether no SPI has been chosen.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The octets in the order of the wire.
    #[must_use]
    pub fn to_octets(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads the octets in the order of the wire.
    #[must_use]
    pub fn from_octets(octets: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(octets))
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Message ID of an exchange, equal in the request and its response (RFC 7296 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MessageId(
    /// The number, counted from 0 separately for each direction of an IKE SA.
    pub u32,
);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests;
