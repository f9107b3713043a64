//! Who may begin an IKE SA: limits on half-open IKE SAs, COOKIEs and rates, for all shards together.
//!
//! Implements RFC 7296 §2.6 (COOKIE) and what RFC 8019 §4 advises against floods. An [`Admission`] is shared by the shards of a gateway and by
//! whoever reads its sockets: [`Admission::screen`] answers or drops a first request from its octets alone, with neither state nor key exchange,
//! so that a flood never reaches a shard. The shard asks again before it keeps anything.
//!
//! A peer is an IPv4 address or an IPv6 /64 network ([`Peer`]): whoever holds one address of such a network may take any other.
//!
//! | limit | counted over | beyond it |
//! |---|---|---|
//! | `cookie_threshold` | all half-open IKE SAs | a request without a valid COOKIE is answered with one |
//! | `cookie_threshold_ip` | those of a peer | the same, for that peer |
//! | `init_rate_ip`, no COOKIE shown | IKE SAs begun by a peer | the same, for that peer |
//! | `init_rate_ip`, COOKIE shown | IKE SAs begun by a peer | dropped |
//! | `block_threshold` | half-open IKE SAs of a peer | dropped |
//! | `init_limit_half_open`, or [`HALF_OPEN`] | all half-open IKE SAs | dropped |
//! | `ikesa_limit` | established IKE SAs | dropped |
//! | `error_rate` | error notifications outside of any IKE SA | not sent |
//!
//! How full the tables of devices are is counted here too ([`TableSpace`]), since all shards share them.
//!
//! What a forged source can do to the real peer of that address ends at `cookie_threshold_ip`: from there on only who receives at the address
//! counts for it. Requests that were shown to be from it have a rate of their own, which forged ones do not use up.

mod bucket;
mod cookie;
mod sketch;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ike_crypto::{CryptoProvider, SecureRandom};
use ike_model::{Counter, Counters, IkeSettings};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Flags, Header, IkeSpi, MessageId, Notify, ParseError, Payload, encode};
use ipsec::{Instant, Path};

use crate::counters::of_stranger;
use crate::tally::{Dropped, Tallied, Tally};

pub(crate) use self::bucket::Bucket;
pub(crate) use self::cookie::Binding;
use self::cookie::{Cookies, Secret};
use self::sketch::Sketch;
pub(crate) use self::tables::{Claim, TableSpace};

/// Half-open IKE SAs at most, whatever the settings say.
pub const HALF_OPEN: usize = 16_384;
/// Peers with a rate that is remembered, at most.
const PEERS: usize = 16_384;
/// IKE SAs that a peer may begin at once, in seconds of its rate.
const RATE_SECONDS: u32 = 5;

/// What decisions are made with.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// The driver's clock.
    pub now: Instant,
    /// Source of cookie secrets.
    pub rng: &'a dyn SecureRandom,
    /// Its first PRF makes cookies.
    pub provider: &'a CryptoProvider,
    /// The limits.
    pub settings: &'a IkeSettings,
}

/// What becomes of a first request before any shard has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screened {
    /// A shard is to see it.
    Pass {
        /// It shows a valid COOKIE: its sender receives at its address.
        proven: bool,
    },
    /// It is answered with these octets and forgotten.
    Answer(Vec<u8>),
    /// It is forgotten.
    Drop,
}

/// Whether an IKE SA may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may.
    Begin,
    /// The initiator must show first that it receives at its address.
    AskCookie,
    /// It may not, and this is why.
    Refuse(Dropped),
}

/// Whom limits are counted for: an IPv4 address, or the first 64 bits of an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Admission {
    state: Mutex<State>,
    /// Nothing new may begin.
    held: AtomicBool,
    /// First requests that could not be read, and messages that only looked like one, before any shard saw them.
    unread: [AtomicU64; 2],
    tables: Arc<TableSpace>,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct State {
    half_open: usize,
    peers: BTreeMap<Peer, Account>,
    cookies: Cookies,
    errors: Bucket,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    half_open: usize,
    proven: Bucket,
    unproven: Bucket,
}

impl Account {
    /// Nothing would be lost by forgetting it.
    fn is_idle(&self, now: Instant) -> bool {
        self.half_open == 0 && self.proven.is_full(now) && self.unproven.is_full(now)
    }
}

impl Admission {
    /// Nobody has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing new may begin for now, neither peers' IKE SAs nor ours; those that stand go on, and are rekeyed.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Nothing new may begin for now.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Half-open IKE SAs of all shards.
    pub fn half_open(&self) -> usize {
        self.lock().half_open
    }

    /// What is counted of messages.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// How full the tables of devices are, for all shards.
    pub(crate) fn tables(&self) -> &Arc<TableSpace> {
        &self.tables
    }

    /// Looks at a first request (one whose responder's SPI is zero) before any shard does. Costs at most one PRF; keeps nothing.
    pub fn screen(&self, gate: &Gate<'_>, path: Path, octets: &[u8]) -> Screened {
        let sketch = match Header::parse(octets) {
            Ok(header) => Sketch::of(&header, octets),
            // Whoever speaks another version is to be told so.
            Err(ParseError::MajorVersion(_)) => return Screened::Pass { proven: false },
            Err(ParseError::Malformed(_)) => None,
        };
        let Some(sketch) = sketch else {
            self.count_unread(octets);
            return self.drop(Dropped::Malformed);
        };
        let peer = path.remote.ip();
        match self.decide(gate, peer, false, 0) {
            Decision::Begin => Screened::Pass { proven: false },
            Decision::Refuse(reason) => self.drop(reason),
            Decision::AskCookie => {
                let Some(nonce) = sketch.nonce else {
                    self.count_unread(octets);
                    return self.drop(Dropped::Malformed);
                };
                let binding = Binding { nonce, address: peer, spi: sketch.spi };
                match sketch.cookie {
                    Some(cookie) if self.is_valid(gate, binding, cookie) => match self.decide(gate, peer, true, 0) {
                        Decision::Begin | Decision::AskCookie => Screened::Pass { proven: true },
                        Decision::Refuse(reason) => self.drop(reason),
                    },
                    _ => {
                        self.tally.count(Tallied::Received);
                        self.demand(gate, binding).map_or(Screened::Drop, Screened::Answer)
                    }
                }
            }
        }
    }

    /// What was counted of messages that no shard has seen.
    pub(crate) fn unread(&self) -> Counters {
        let [invalid, invalid_spi] = &self.unread;
        let mut counters = Counters::default();
        counters.add(Counter::Invalid, invalid.load(Ordering::Relaxed));
        counters.add(Counter::InvalidSpi, invalid_spi.load(Ordering::Relaxed));
        counters
    }

    /// Begins again at zero with these.
    pub(crate) fn forget_unread(&self) {
        self.unread.iter().for_each(|number| number.store(0, Ordering::Relaxed));
    }

    fn count_unread(&self, octets: &[u8]) {
        let [invalid, invalid_spi] = &self.unread;
        if let Some(what) = of_stranger(octets) {
            let number = if what == Counter::InvalidSpi { invalid_spi } else { invalid };
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn drop(&self, reason: Dropped) -> Screened {
        // Those that pass are counted by the shard that gets them.
        self.tally.count(Tallied::Received);
        self.tally.count(Tallied::Dropped(reason));
        Screened::Drop
    }

    /// Whether this peer may begin an IKE SA. `proven` = it has shown a valid COOKIE.
    pub(crate) fn decide(&self, gate: &Gate<'_>, peer: IpAddr, proven: bool, established: usize) -> Decision {
        if self.is_held() {
            return Decision::Refuse(Dropped::Held);
        }
        let state = self.lock();
        let settings = gate.settings;
        let reached = |count: usize, limit: u32| limit != 0 && count >= usize::try_from(limit).unwrap_or(usize::MAX);
        if reached(established, settings.ikesa_limit) {
            return Decision::Refuse(Dropped::IkeSaLimit);
        }
        if reached(state.half_open, settings.half_open_limit) || state.half_open >= HALF_OPEN {
            return Decision::Refuse(Dropped::HalfOpen);
        }
        let account = state.peers.get(&peer.into()).copied().unwrap_or_default();
        if reached(account.half_open, settings.block_threshold) {
            return Decision::Refuse(Dropped::HalfOpenPeer);
        }
        let (rate, burst) = init_rate(settings);
        if proven {
            return match account.proven.has(gate.now, rate, burst) {
                true => Decision::Begin,
                false => Decision::Refuse(Dropped::InitRate),
            };
        }
        //= RFC 7296 §2.6: when a responder detects a large number of half-open IKE SAs, it should reply with a COOKIE
        let ask = reached(state.half_open, settings.cookie_threshold)
            || reached(account.half_open, settings.cookie_threshold_ip)
            || !account.unproven.has(gate.now, rate, burst);
        if ask { Decision::AskCookie } else { Decision::Begin }
    }

    /// A half-open IKE SA begins; each is to [`Self::leave`] again. `proven` = the peer has shown a valid COOKIE.
    pub fn enter(&self, gate: &Gate<'_>, peer: IpAddr, proven: bool) {
        let mut state = self.lock();
        state.half_open = state.half_open.saturating_add(1);
        if state.peers.len() >= PEERS {
            state.peers.retain(|_, account| !account.is_idle(gate.now));
        }
        let (rate, burst) = init_rate(gate.settings);
        let account = state.peers.entry(peer.into()).or_default();
        account.half_open = account.half_open.saturating_add(1);
        let bucket = if proven { &mut account.proven } else { &mut account.unproven };
        bucket.take(gate.now, rate, burst);
    }

    /// A half-open IKE SA is authenticated or has ended.
    pub fn leave(&self, now: Instant, peer: IpAddr) {
        let mut state = self.lock();
        state.half_open = state.half_open.saturating_sub(1);
        if let Some(account) = state.peers.get_mut(&peer.into()) {
            account.half_open = account.half_open.saturating_sub(1);
            // The rest are swept out when there are many.
            if account.is_idle(now) {
                state.peers.remove(&peer.into());
            }
        }
    }

    /// Whether a cookie is one of ours for this request.
    pub(crate) fn is_valid(&self, gate: &Gate<'_>, binding: Binding<'_>, cookie: &[u8]) -> bool {
        let secret = self.lock().cookies.named_by(gate.now, cookie);
        secret.is_some_and(|secret| secret.made(binding, cookie))
    }

    /// The answer that asks for a cookie; nothing when there is no randomness or no PRF.
    pub(crate) fn demand(&self, gate: &Gate<'_>, binding: Binding<'_>) -> Option<Vec<u8>> {
        let secret = self.lock().cookies.current(gate)?;
        let notify = Notify::new(NotifyType::COOKIE, Secret::cookie(&secret, binding));
        //= RFC 7296 §2.6: the answer repeats the initiator's SPI, the responder's is zero, nothing else is in it
        let flags = Flags { initiator: false, version: false, response: true };
        let header = Header::new(binding.spi, IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, MessageId(0));
        self.tally.count(Tallied::CookieDemanded);
        encode(&header, &[Payload::Notify(notify)]).ok()
    }

    /// Whether one more error notification may go to somebody without an IKE SA.
    pub(crate) fn may_tell_error(&self, gate: &Gate<'_>) -> bool {
        let rate = gate.settings.error_rate;
        rate != 0 && self.lock().errors.take(gate.now, rate, rate)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn init_rate(settings: &IkeSettings) -> (u32, u32) {
    (settings.init_rate_ip, settings.init_rate_ip.saturating_mul(RATE_SECONDS))
}

#[cfg(test)]
mod tests;
