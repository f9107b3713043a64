//! First requests: half-open IKE SAs, their limit, COOKIEs, and repeated requests (RFC 7296 §2.1, §2.6).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ike_crypto::sha1;
use ike_wire::Message;
use ipsec::Path;

use crate::endpoint::Endpoint;
use crate::exchange::ike_sa_init::{FirstRequest, first_request};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Transmit};

/// Half-open IKE SAs by the request that began them.
#[derive(Debug, Default)]
pub(super) struct Firsts(BTreeMap<Key, u64>);

/// Initiator's SPI, its address, and a digest of its request: another request under the same SPI is another IKE SA.
type Key = (u64, SocketAddr, [u8; 20]);

impl Firsts {
    pub(super) fn forget(&mut self, spi: u64) {
        self.0.retain(|_, known| *known != spi);
    }
}

impl Endpoint {
    pub(super) fn on_first_request(&mut self, context: &Context<'_>, path: Path, message: &Message<'_>) {
        let header = &message.header;
        if header.message_id.0 != 0 {
            return tracing::debug!(peer = %path.remote, "IKE_SA_INIT with a message ID other than 0 ignored");
        }
        if message.payloads.repeated().is_some() {
            return tracing::debug!(peer = %path.remote, "IKE_SA_INIT with a payload twice ignored");
        }
        let key = (header.initiator_spi.0, path.remote, sha1(&[message.octets()]));
        if let Some(spi) = self.firsts.0.get(&key).copied() {
            return self.repeat_first(spi, path);
        }
        let settings = &context.config.settings;
        let half_open = self.firsts.0.len();
        let limit = usize::try_from(settings.half_open_limit).unwrap_or(usize::MAX);
        if self.stopping || (limit != 0 && half_open >= limit) {
            return tracing::debug!(peer = %path.remote, half_open, "IKE_SA_INIT ignored: too many half-open IKE SAs");
        }
        let threshold = usize::try_from(settings.cookie_threshold).unwrap_or(usize::MAX);
        let cookies = (threshold != 0 && half_open >= threshold).then_some(&mut self.cookies);
        match first_request(context, cookies, path, message) {
            FirstRequest::Stateless(octets) => {
                self.shared.outputs.push_back(Output::Transmit(Transmit { path, octets, dscp: 0 }));
            }
            FirstRequest::Drop(reason) => tracing::debug!(peer = %path.remote, "IKE_SA_INIT ignored: {reason}"),
            FirstRequest::Begin(beginning) => {
                let ike = IkeSa::respond(&mut self.shared.turn(context), path, message, *beginning);
                match ike {
                    Ok(ike) => {
                        let spi = ike.core.spi().0;
                        tracing::debug!(conn = ike.core.connection.name, ike = ike.core.unique_id, peer = %path.remote, "IKE_SA_INIT received");
                        self.firsts.0.insert(key, spi);
                        self.ikes.insert(ike);
                    }
                    Err(error) => tracing::warn!(peer = %path.remote, "IKE_SA_INIT not answered: {error}"),
                }
            }
        }
    }

    fn repeat_first(&mut self, spi: u64, path: Path) {
        if let Some(IkeSa { phase: Phase::Responding(responding), core }) = self.ikes.get(&spi)
            && !responding.response.is_empty()
        {
            let transmit = Transmit { path, octets: responding.response.clone(), dscp: core.connection.dscp };
            self.shared.outputs.push_back(Output::Transmit(transmit));
        }
    }
}
