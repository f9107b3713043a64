//! Work that is slow or needs the outside world, so that it never runs inside the core.

use std::fmt;
use std::net::IpAddr;

use ike_crypto::{Cost, CryptoError, KeyExchange, SecureRandom, SharedSecret, StartedKeyExchange};
use ipsec::Shard;

/// Pairs a job with its outcome. The top eight bits hold the shard that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(u64);

impl WorkId {
    pub(crate) const fn new(shard: Shard, count: u64) -> Self {
        Self(((shard.0 as u64) << 56) | (count & ((1 << 56) - 1)))
    }

    /// The shard that waits for the outcome.
    pub const fn shard(self) -> Shard {
        Shard((self.0 >> 56) as u8)
    }
}

/// A job.
#[derive(Debug)]
pub enum Job {
    /// Arithmetic: [`Computation::run`] does it, on a worker.
    Compute(Computation),
    /// Find the addresses of a name; [`Outcome::Resolved`].
    Resolve(String),
    /// Find our source address on the way to `remote`; [`Outcome::Source`].
    SourceFor(IpAddr),
    /// Find out between which of these addresses a route leads; [`Outcome::Routes`].
    Routes {
        /// Ours, the one in use first.
        locals: Vec<IpAddr>,
        /// The peer's, the one in use first.
        remotes: Vec<IpAddr>,
    },
}

/// A job that needs nothing but a processor.
#[derive(Debug)]
pub enum Computation {
    /// Draw a private value and compute the public one; [`Outcome::Started`].
    Start(&'static dyn KeyExchange),
    /// Compute the shared secret with the responder's public value; [`Outcome::Completed`].
    Complete(Box<dyn StartedKeyExchange>, Vec<u8>),
    /// Answer the initiator's public value; [`Outcome::Responded`].
    Respond(&'static dyn KeyExchange, Vec<u8>),
}

impl Computation {
    /// Does it.
    pub fn run(self, rng: &dyn SecureRandom) -> Outcome {
        match self {
            Self::Start(method) => Outcome::Started(method.start(rng)),
            Self::Complete(started, peer) => Outcome::Completed(started.complete(&peer)),
            Self::Respond(method, peer) => Outcome::Responded(method.respond(rng, &peer)),
        }
    }

    /// Whether it may run on the spot or belongs on a worker.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Start(method) | Self::Respond(method, _) => method.cost(),
            Self::Complete(..) => Cost::Expensive,
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// A key exchange was started.
    Started(Result<Box<dyn StartedKeyExchange>, CryptoError>),
    /// The initiator's shared secret.
    Completed(Result<SharedSecret, CryptoError>),
    /// The responder's public value and shared secret.
    Responded(Result<(Vec<u8>, SharedSecret), CryptoError>),
    /// Addresses of a name, most preferred first; or why there are none.
    Resolved(Result<Vec<IpAddr>, String>),
    /// Our address on the way to the peer; or why there is none.
    Source(Result<IpAddr, String>),
    /// Pairs of addresses, ours first, between which a route leads: in the order of the peer's addresses, for each of them first the address
    /// of ours that the system would choose, then the others in order.
    Routes(Vec<(IpAddr, IpAddr)>),
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
