//! The few fields of a first request that a COOKIE needs, found without reading the rest.

use ike_wire::ids::{ExchangeType, NotifyType, PayloadType};
use ike_wire::{HEADER_LEN, Header, IkeSpi, MAX_PAYLOADS, PAYLOAD_HEADER_LEN};

/// The fields. Whether the rest of the message is well-formed is left to who reads it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sketch<'a> {
    /// Initiator's SPI.
    pub(super) spi: IkeSpi,
    /// Initiator's nonce.
    pub(super) nonce: Option<&'a [u8]>,
    /// COOKIE.
    pub(super) cookie: Option<&'a [u8]>,
}

/// Protocol, SPI length and type in front of a notification's data (RFC 7296 §3.10).
const NOTIFY_HEADER: usize = 4;

impl<'a> Sketch<'a> {
    /// Reads a message with this header; nothing when it is no IKE_SA_INIT request.
    pub(super) fn of(header: &Header, octets: &'a [u8]) -> Option<Self> {
        let request = header.flags.initiator && !header.flags.response && header.message_id.0 == 0;
        let first = request && header.exchange == ExchangeType::IKE_SA_INIT && !header.initiator_spi.is_zero();
        if !first {
            return None;
        }
        let mut sketch = Self { spi: header.initiator_spi, nonce: None, cookie: None };
        let (mut kind, mut rest) = (header.next_payload, octets.get(HEADER_LEN..)?);
        for _ in 0..MAX_PAYLOADS {
            if kind == PayloadType::NO_NEXT_PAYLOAD {
                break;
            }
            let [next, _, high, low] = *rest.first_chunk::<PAYLOAD_HEADER_LEN>()?;
            let (payload, behind) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            sketch.note(kind, payload.get(PAYLOAD_HEADER_LEN..)?);
            (kind, rest) = (PayloadType(next), behind);
        }
        Some(sketch)
    }

    fn note(&mut self, kind: PayloadType, body: &'a [u8]) {
        if kind == PayloadType::NONCE {
            self.nonce = self.nonce.or(Some(body));
        } else if kind == PayloadType::NOTIFY && body.get(1..NOTIFY_HEADER) == Some(&COOKIE_WITHOUT_SPI) {
            self.cookie = self.cookie.or(body.get(NOTIFY_HEADER..));
        }
    }
}

/// SPI length and type.
const COOKIE_WITHOUT_SPI: [u8; 3] = {
    let [high, low] = NotifyType::COOKIE.0.to_be_bytes();
    [0, high, low]
};
