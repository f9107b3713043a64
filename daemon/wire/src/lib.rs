//! The IKEv2 message codec: octets to messages and back.
//!
//! Implements the formats of RFC 7296 §3, the Encrypted Fragment payload of RFC 7383 §2.5 and the numbers of the IANA
//! registries. Which payloads an exchange needs, negotiation, and every key are left to others.
//!
//! Reading: [`Header::parse`] tells to which IKE SA a datagram belongs; [`Message::parse`] reads the payloads outside of any
//! encryption and borrows from the datagram. A message that ends in SK is copied into an [`SkBuffer`], decrypted there in place
//! by a cipher, and its inside is read with [`SkBuffer::payloads`]. Writing goes the other way: [`encode_chain`],
//! [`SkBuffer::seal`] or [`SkBuffer::seal_fragments`], the cipher, [`SkBuffer::into_octets`]; or [`encode`] for a message in clear.
//! What the fragments of a message hold is put together by their receiver into a [`Chain`].
//!
//! ```
//! use ike_wire::ids::{ExchangeType, NotifyType};
//! use ike_wire::{Flags, Header, IkeSpi, Message, MessageId, Notify, Payload, SkBuffer, SkSizes, encode_chain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let aes_gcm = SkSizes { iv: 8, icv: 16, block: 1 };
//! let header = Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::INFORMATIONAL, Flags::default(), MessageId(7));
//! let inside = encode_chain(&[Payload::Notify(Notify::plain(NotifyType::INITIAL_CONTACT))])?;
//! let mut sealed = SkBuffer::seal(&header, &inside, aes_gcm)?;
//! let parts = sealed.parts(); // a cipher encrypts `parts.body` and fills `parts.iv` and `parts.icv`
//! assert_eq!(parts.associated.len(), 32);
//! let datagram = sealed.into_octets();
//!
//! let message = Message::parse(&datagram)?;
//! assert_eq!(message.header.message_id, MessageId(7));
//! let opened = SkBuffer::open(&message, aes_gcm)?; // a cipher checks the ICV and decrypts the body
//! assert!(opened.payloads()?.notify(NotifyType::INITIAL_CONTACT).is_some());
//! # Ok(())
//! # }
//! ```
//!
//! What a peer sends can not make this crate panic, and it never reserves memory for a count that a peer claims: every field is
//! read through one bounds-checked cursor, and the number of payloads, proposals, attributes and selectors is bounded. Numbers
//! that nobody registered, unknown payloads and unknown attributes are values, not errors; errors are broken lengths and rules
//! that make octets unreadable or ambiguous, and say where ([`Malformed`]).
#![forbid(unsafe_code)]

mod cursor;
mod error;
mod header;
pub mod ids;
mod message;
mod payload;
mod sk;
mod writer;

pub use error::{EncodeError, Malformed, ParseError, Place, Problem};
pub use header::{Flags, HEADER_LEN, Header, Version};
pub use ids::{IkeSpi, MessageId};
pub use message::{Chain, MAX_MESSAGE, Message, encode, encode_chain};
pub use payload::{
    AUTHORITY_HASH_LEN, AddressRange, Attribute, AttributeValue, Authentication, Certificate, CertificateRequest,
    Configuration, ConfigurationAttribute, Contents, Delete, Eap, Encrypted, EncryptedFragment, Identification,
    KeyExchange, MAX_ATTRIBUTES, MAX_CONFIGURATION_ATTRIBUTES, MAX_FRAGMENTS, MAX_PAYLOADS, MAX_PROPOSALS, NONCE_LEN,
    Nonce, Notify, OtherSelector, PAYLOAD_HEADER_LEN, Payload, Payloads, Proposal, SecurityAssociation, SelectorRange,
    TrafficSelector, TrafficSelectors, Transform, UnknownPayload, VendorId, parse_chain,
};
pub use sk::{SkBuffer, SkParts, SkSizes, sk_overhead, skf_capacity};
