//! Keys of SAs for those who may have them: for decrypting messages and packets elsewhere.
//!
//! Nothing is kept for this, and nothing of it can be asked for, without the operator's leave ([`KeyExport`]). What is given out is wiped when it is
//! dropped and never printed.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ike_model::{Encryption, KeyExport};
use ike_wire::IkeSpi;
use ike_wire::ids::IntegrityId;
use ipsec::{Direction, EspAlgorithm, KeyMaterial, Spi, UdpEncapsulation};
use zeroize::Zeroizing;

use crate::children::ChildSa;
use crate::endpoint::Endpoint;
use crate::ike_sa::Phase;
use crate::suite::IkeSuite;

/// Keys of an IKE SA by which its messages are encrypted and authenticated (RFC 7296 §2.14); not SK_d, from which others would follow.
#[derive(Clone)]
pub struct IkeSaKeys {
    /// SPIs of initiator and responder.
    pub spis: (IkeSpi, IkeSpi),
    /// Cipher.
    pub encryption: Encryption,
    /// Integrity, where the cipher is no AEAD.
    pub integrity: Option<IntegrityId>,
    /// SK_ei, with the salt of an AEAD behind it.
    pub sk_ei: Zeroizing<Box<[u8]>>,
    /// SK_er.
    pub sk_er: Zeroizing<Box<[u8]>>,
    /// SK_ai; empty with an AEAD.
    pub sk_ai: Zeroizing<Box<[u8]>>,
    /// SK_ar.
    pub sk_ar: Zeroizing<Box<[u8]>>,
}

/// Keys of an SA of ESP.
#[derive(Clone, Debug)]
pub struct EspSaKeys {
    /// Child.
    pub child: Arc<str>,
    /// Which way it works.
    pub direction: Direction,
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// ESP in UDP.
    pub encapsulation: Option<UdpEncapsulation>,
    /// The receiver's SPI.
    pub spi: Spi,
    /// Algorithms.
    pub algorithm: EspAlgorithm,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// The keys.
    pub key: KeyMaterial,
}

/// All keys of a connection.
#[derive(Clone, Debug, Default)]
pub struct ExportedKeys {
    /// Of IKE SAs: those that stand, those being made, and those that have just ended.
    pub ike: Vec<IkeSaKeys>,
    /// Of SAs of ESP that have not been removed.
    pub esp: Vec<EspSaKeys>,
}

impl IkeSaKeys {
    pub(crate) fn new(spis: (IkeSpi, IkeSpi), suite: IkeSuite, keys: [&[u8]; 4]) -> Self {
        let [sk_ei, sk_er, sk_ai, sk_ar] = keys.map(|key| Zeroizing::new(key.into()));
        Self { spis, encryption: suite.encryption, integrity: suite.integrity, sk_ei, sk_er, sk_ai, sk_ar }
    }
}

impl fmt::Debug for IkeSaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (initiator, responder) = self.spis;
        write!(f, "IkeSaKeys({initiator}_i {responder}_r, [redacted])")
    }
}

impl Endpoint {
    /// Keys of the SAs of a connection, as far as they were kept.
    pub fn export_keys(&self, _leave: KeyExport, connection: &str) -> ExportedKeys {
        let mut all = ExportedKeys::default();
        for ike in self.every_ike() {
            if ike.core.connection.name != connection {
                continue;
            }
            all.ike.extend(ike.core.keys.iter().filter_map(|keys| keys.kept.as_deref().cloned()));
            if let Phase::Authenticated(authenticated) = &ike.phase {
                all.esp.extend(authenticated.children.iter().flat_map(esp_keys));
            }
        }
        all
    }
}

fn esp_keys(child: &ChildSa) -> impl Iterator<Item = EspSaKeys> {
    let ways = [Direction::Inbound, Direction::Outbound];
    ways.into_iter().filter_map(|direction| {
        let keys = child.kept.as_deref()?;
        let (ours, theirs) = (child.outer.local, child.outer.remote);
        let (source, destination, spi, key) = match direction {
            Direction::Outbound => (ours, theirs, child.spi_out, &keys.outbound),
            Direction::Inbound | Direction::Forward => (theirs, ours, child.spi_in, &keys.inbound),
        };
        Some(EspSaKeys {
            child: child.config.name.as_str().into(),
            direction,
            source,
            destination,
            encapsulation: child.encapsulation,
            spi,
            algorithm: child.suite.algorithm,
            esn: child.suite.esn,
            key: key.clone(),
        })
    })
}
