//! What a message says, read with [`crate::clear`]: enough to tell which exchanges meet.

use ike_wire::ids::{ExchangeType, NotifyType, ProtocolId};
use ike_wire::{Header, Payload, Payloads};

use crate::clear;

/// What a message says. Whether it is a request or a response is in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// IKE_SA_INIT or IKE_AUTH, with the sender's inbound SPI of the first CHILD SA if there is one in it.
    First {
        /// The SPI.
        spi: Option<u32>,
    },
    /// Asks for a new CHILD SA with these selectors, summed up.
    NewChild {
        /// Tells children apart.
        selectors: u64,
        /// The sender's inbound SPI.
        spi: u32,
    },
    /// Asks to rekey a CHILD SA.
    RekeyChild {
        /// The sender's inbound SPI of the old one.
        old: u32,
        /// The sender's inbound SPI of the new one.
        new: u32,
        /// The first octets of the nonce.
        nonce: u64,
    },
    /// Asks to rekey the IKE SA.
    RekeyIke {
        /// The first octets of the nonce.
        nonce: u64,
    },
    /// A CHILD SA is made.
    Made {
        /// The sender's inbound SPI.
        spi: u32,
        /// The first octets of the nonce.
        nonce: u64,
    },
    /// An IKE SA is made by rekeying.
    MadeIke {
        /// The first octets of the nonce.
        nonce: u64,
    },
    /// An error.
    Refused(NotifyType),
    /// Deletes the IKE SA.
    DeleteIke,
    /// Deletes CHILD SAs, named by the sender's inbound SPIs.
    DeleteChildren(Vec<u32>),
    /// INFORMATIONAL without a Delete payload.
    Informational,
    /// It cannot be read.
    Unreadable,
}

/// What a message says.
pub fn meaning(header: &Header, octets: &[u8]) -> Meaning {
    if header.exchange == ExchangeType::IKE_SA_INIT {
        return Meaning::First { spi: None };
    }
    let Some(opened) = clear::inside(octets) else { return Meaning::Unreadable };
    let Ok(payloads) = opened.payloads() else { return Meaning::Unreadable };
    if header.exchange == ExchangeType::IKE_AUTH {
        let proposal = payloads.sa().and_then(|sa| sa.proposals.first());
        return Meaning::First { spi: proposal.and_then(|proposal| esp_spi(&proposal.spi)) };
    }
    if let Some(error) = payloads.notifies().find(|notify| notify.kind.is_error()) {
        return Meaning::Refused(error.kind);
    }
    if header.exchange == ExchangeType::CREATE_CHILD_SA {
        return create(header.flags.response, &payloads).unwrap_or(Meaning::Unreadable);
    }
    informational(&payloads)
}

fn create(response: bool, payloads: &Payloads<'_>) -> Option<Meaning> {
    let nonce =
        payloads.nonce().and_then(|nonce| nonce.data.first_chunk()).map(|octets| u64::from_be_bytes(*octets))?;
    let proposal = payloads.sa()?.proposals.first()?;
    if proposal.protocol == ProtocolId::IKE {
        return Some(if response { Meaning::MadeIke { nonce } } else { Meaning::RekeyIke { nonce } });
    }
    let spi = esp_spi(&proposal.spi)?;
    if response {
        return Some(Meaning::Made { spi, nonce });
    }
    match payloads.notify(NotifyType::REKEY_SA) {
        Some(notify) => Some(Meaning::RekeyChild { old: notify.spi_u32()?, new: spi, nonce }),
        None => Some(Meaning::NewChild { selectors: selectors(payloads), spi }),
    }
}

fn esp_spi(octets: &[u8]) -> Option<u32> {
    octets.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

fn selectors(payloads: &Payloads<'_>) -> u64 {
    let text = format!("{:?}{:?}", payloads.ts_initiator(), payloads.ts_responder());
    text.bytes().fold(7, |sum: u64, octet| sum.wrapping_mul(31).wrapping_add(u64::from(octet)))
}

fn informational(payloads: &Payloads<'_>) -> Meaning {
    let mut spis = Vec::new();
    for payload in payloads {
        let Payload::Delete(delete) = payload else { continue };
        if delete.protocol == ProtocolId::IKE {
            return Meaning::DeleteIke;
        }
        spis.extend(delete.spis());
    }
    if spis.is_empty() { Meaning::Informational } else { Meaning::DeleteChildren(spis) }
}
