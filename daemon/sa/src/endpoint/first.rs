//! First requests: half-open IKE SAs and repeated requests (RFC 7296 §2.1, §2.6). Who may begin is decided by [`crate::admission`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ike_crypto::sha1;
use ike_model::Counter;
use ike_wire::Message;
use ike_wire::ids::NotifyType;
use ipsec::{Instant, Path};
use tracing::Level;

use crate::admission::{Admission, Binding, Decision, Gate};
use crate::endpoint::Endpoint;
use crate::exchange::ike_sa_init::{FirstRequest, Stateless, first_request};
use crate::ike_sa::{IkeSa, Phase};
use crate::io::{Context, Output, Transmit};
use crate::say::{At, Said, say};
use crate::tally::{Dropped, Tallied};

/// Half-open IKE SAs of this shard. All shards together have at most [`crate::HALF_OPEN`].
#[derive(Debug, Default)]
pub(super) struct Firsts {
    by_request: BTreeMap<Key, u64>,
    requests: BTreeMap<u64, Key>,
    /// Since when refusals are counted, and how many were logged since.
    logged: (Instant, u32),
}

/// Initiator's SPI, its address, and a digest of its request: another request under the same SPI is another IKE SA.
type Key = (u64, SocketAddr, Digest);
type Digest = [u8; 20];

impl Firsts {
    /// The IKE SA that this very request has begun. Without any under its SPI and address nothing is computed.
    fn begun_by(&self, path: Path, message: &Message<'_>) -> Option<u64> {
        let key = |digest: Digest| (message.header.initiator_spi.0, path.remote, digest);
        self.by_request.range(key([0; 20])..=key([u8::MAX; 20])).next()?;
        self.by_request.get(&key(sha1(&[message.octets()]))).copied()
    }

    /// Our SPI of a half-open IKE SA with this SPI of its initiator.
    pub(super) fn begun_with(&self, initiator: u64) -> Option<u64> {
        let least = (initiator, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), [0; 20]);
        self.by_request.range(least..).next().filter(|(key, _)| key.0 == initiator).map(|(_, spi)| *spi)
    }

    fn insert(&mut self, path: Path, message: &Message<'_>, spi: u64) {
        let key = (message.header.initiator_spi.0, path.remote, sha1(&[message.octets()]));
        self.by_request.insert(key, spi);
        self.requests.insert(spi, key);
    }

    /// The IKE SA is authenticated or has ended.
    pub(super) fn forget(&mut self, admission: &Admission, now: Instant, spi: u64) {
        let Some(key) = self.requests.remove(&spi) else { return };
        self.by_request.remove(&key);
        admission.leave(now, key.1.ip());
    }

    /// Whether one more refusal may be logged for people: anybody can cause any number of them.
    fn may_log(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.logged.0) >= LOG_WINDOW {
            self.logged = (now, 0);
        }
        self.logged.1 < LOGGED
    }
}

const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Refusals logged in each window.
const LOGGED: u32 = 10;

/// No IKE SA is known yet of which this is told.
fn say_received(path: Path, message: &Message<'_>) {
    let (from, to, length) = (At(path.remote), At(path.local), message.octets().len());
    tracing::event!(name: "NET 1", Level::TRACE, "received packet: from {from} to {to} ({length} bytes)");
    tracing::event!(name: "ENC 1", Level::TRACE, "parsed {}", Said::new(&message.header, message.payloads.as_slice()));
}

impl Endpoint {
    pub(super) fn on_first_request(&mut self, context: &Context<'_>, path: Path, message: &Message<'_>) {
        say_received(path, message);
        if message.header.message_id.0 != 0 {
            self.dropped(Dropped::OutOfPlace);
            self.count_stranger(message.octets());
            return tracing::debug!(peer = %path.remote, "IKE_SA_INIT with a message ID other than 0 ignored");
        }
        if message.payloads.repeated().is_some() {
            self.dropped(Dropped::Malformed);
            self.shared.registry.counters.count(Counter::Invalid);
            return tracing::debug!(peer = %path.remote, "IKE_SA_INIT with a payload twice ignored");
        }
        if self.stopping {
            self.dropped(Dropped::Held);
            return tracing::debug!(peer = %path.remote, "IKE_SA_INIT ignored: the daemon stops");
        }
        if let Some(spi) = self.firsts.begun_by(path, message) {
            return self.repeat_first(spi, path);
        }
        let gate = context.gate();
        let Some(proven) = self.admit(&gate, path, message) else { return };
        let explain = self.firsts.may_log(context.now);
        match first_request(context, path, message, explain) {
            FirstRequest::Stateless(Stateless { octets, reason, counts }) => {
                counts.into_iter().for_each(|what| self.shared.registry.counters.count(what));
                self.shared.registry.counters.count(Counter::IkeInitOutResp);
                if let Some(reason) = reason {
                    self.firsts.logged.1 = self.firsts.logged.1.saturating_add(1);
                    tracing::warn!(peer = %path.remote, "IKE_SA_INIT refused: {reason}");
                }
                let (from, to, length) = (At(path.local), At(path.remote), octets.len());
                tracing::event!(name: "NET 1", Level::TRACE, "sending packet: from {from} to {to} ({length} bytes)");
                self.shared.outputs.push_back(Output::Transmit(Transmit { path, octets, dscp: 0 }));
            }
            FirstRequest::Drop(reason) => {
                self.dropped(Dropped::Malformed);
                self.shared.registry.counters.count(Counter::Invalid);
                tracing::debug!(peer = %path.remote, "IKE_SA_INIT ignored: {reason}");
            }
            FirstRequest::Begin(beginning) => {
                self.shared.registry.counters.count(Counter::IkeInitInReq);
                let ike = IkeSa::respond(&mut self.shared.turn(context), path, message, *beginning);
                match ike {
                    Ok(ike) => {
                        let spi = ike.core.spi().0;
                        say!(DEBUG, "IKE 0", ike.core, "{} is initiating an IKE_SA", path.remote.ip());
                        self.admission.enter(&gate, path.remote.ip(), proven);
                        self.firsts.insert(path, message, spi);
                        self.ikes.insert(ike);
                    }
                    Err(error) => tracing::warn!(peer = %path.remote, "IKE_SA_INIT not answered: {error}"),
                }
            }
        }
    }

    /// Whether the request may begin an IKE SA, and whether it shows a valid COOKIE; asks for one if need be.
    //= RFC 7296 §2.6: before the cookie is verified no state is kept and no key exchange begun
    fn admit(&mut self, gate: &Gate<'_>, path: Path, message: &Message<'_>) -> Option<bool> {
        let established = self.shared.registry.established.len();
        let peer = path.remote.ip();
        match self.admission.decide(gate, peer, false, established) {
            Decision::Begin => return Some(false),
            Decision::Refuse(reason) => {
                self.dropped(reason);
                tracing::debug!(%peer, "IKE_SA_INIT ignored: {reason}");
                return None;
            }
            Decision::AskCookie => {}
        }
        let nonce = message.payloads.nonce()?;
        let binding = Binding { nonce: &nonce.data, address: peer, spi: message.header.initiator_spi };
        let shown = message.payloads.notify(NotifyType::COOKIE);
        if !shown.is_some_and(|notify| self.admission.is_valid(gate, binding, &notify.data)) {
            let octets = self.admission.demand(gate, binding)?;
            self.shared.outputs.push_back(Output::Transmit(Transmit { path, octets, dscp: 0 }));
            return None;
        }
        match self.admission.decide(gate, peer, true, established) {
            Decision::Begin => Some(true),
            Decision::AskCookie => None,
            Decision::Refuse(reason) => {
                self.dropped(reason);
                tracing::debug!(%peer, "IKE_SA_INIT ignored: {reason}");
                None
            }
        }
    }

    fn repeat_first(&mut self, spi: u64, path: Path) {
        if let Some(IkeSa { phase: Phase::Responding(responding), core }) = self.ikes.get(&spi)
            && !responding.response.is_empty()
        {
            self.admission.tally().count(Tallied::ResponseRepeated);
            let transmit = Transmit { path, octets: responding.response.clone(), dscp: core.connection.dscp };
            self.shared.outputs.push_back(Output::Transmit(transmit));
        }
    }
}
