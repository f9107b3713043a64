//! First requests: half-open IKE SAs, their limit, COOKIEs, and repeated requests (RFC 7296 §2.1, §2.6).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ike_crypto::sha1;
use ike_wire::Message;
use ipsec::{Instant, Path};

use crate::endpoint::Endpoint;
use crate::exchange::ike_sa_init::{FirstRequest, first_request};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Transmit};

/// Half-open IKE SAs.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    by_request: BTreeMap<Key, u64>,
    requests: BTreeMap<u64, Key>,
    by_address: BTreeMap<IpAddr, usize>,
    /// Since when refusals are counted, and how many were logged since.
    logged: (Instant, u32),
}

/// Initiator's SPI, its address, and a digest of its request: another request under the same SPI is another IKE SA.
type Key = (u64, SocketAddr, [u8; 20]);

impl Firsts {
    fn insert(&mut self, key: Key, spi: u64) {
        *self.by_address.entry(key.1.ip()).or_default() += 1;
        self.by_request.insert(key, spi);
        self.requests.insert(spi, key);
    }

    /// The IKE SA is authenticated or has ended.
    pub(super) fn forget(&mut self, spi: u64) {
        let Some(key) = self.requests.remove(&spi) else { return };
        self.by_request.remove(&key);
        if let Some(count) = self.by_address.get_mut(&key.1.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&key.1.ip());
            }
        }
    }

    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    /// Whether one more refusal may be logged for people: anybody can cause any number of them.
    fn may_log(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.logged.0) >= LOG_WINDOW {
            self.logged = (now, 0);
        }
        self.logged.1 = self.logged.1.saturating_add(1);
        self.logged.1 <= LOGGED
    }
}

/// Half-open IKE SAs of one address at most.
const PER_ADDRESS: usize = 1024;
const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Refusals logged in each window.
const LOGGED: u32 = 10;

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
        if let Some(spi) = self.firsts.by_request.get(&key).copied() {
            return self.repeat_first(spi, path);
        }
        let settings = &context.config.settings;
        let half_open = self.firsts.by_request.len();
        let limit = usize::try_from(settings.half_open_limit).unwrap_or(usize::MAX);
        let crowded = (limit != 0 && half_open >= limit) || self.firsts.of(path.remote.ip()) >= PER_ADDRESS;
        if self.stopping || crowded {
            return tracing::debug!(peer = %path.remote, half_open, "IKE_SA_INIT ignored: too many half-open IKE SAs");
        }
        let threshold = usize::try_from(settings.cookie_threshold).unwrap_or(usize::MAX);
        let cookies = (threshold != 0 && half_open >= threshold).then_some(&mut self.cookies);
        match first_request(context, cookies, path, message) {
            FirstRequest::Stateless(octets, reason) => {
                if let Some(reason) = reason.filter(|_| self.firsts.may_log(context.now)) {
                    tracing::warn!(peer = %path.remote, "IKE_SA_INIT refused: {reason}");
                }
                self.shared.outputs.push_back(Output::Transmit(Transmit { path, octets, dscp: 0 }));
            }
            FirstRequest::Drop(reason) => tracing::debug!(peer = %path.remote, "IKE_SA_INIT ignored: {reason}"),
            FirstRequest::Begin(beginning) => {
                let ike = IkeSa::respond(&mut self.shared.turn(context), path, message, *beginning);
                match ike {
                    Ok(ike) => {
                        let spi = ike.core.spi().0;
                        tracing::debug!(conn = ike.core.connection.name, ike = ike.core.unique_id, peer = %path.remote, "IKE_SA_INIT received");
                        self.firsts.insert(key, spi);
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
