//! The rules every offload backend keeps, each a named behaviour that can be run.
//!
//! A backend's tests wrap it in a [`Subject`] and call [`run`] with the rung to be shown: how offloaded the SAs are that the behaviours install.
//! A behaviour takes algorithm, window and all else from what that rung claims to carry; what it does not claim ends as
//! [`Verdict::NotClaimed`], and that it is refused is a behaviour of its own. Whatever lies below the trait is the subject's business: a device, a
//! namespace, or a datapath that is fed by hand. A subject that carries no packets (the recording double), or whose device cannot be pulled, cannot
//! show the rules about that; those end as [`Verdict::CannotShow`]. A test has to expect both by name, so that nothing is skipped in silence.
//!
//! Traffic is made without any cipher here: a behaviour installs an outbound SA and an inbound one with the same SPI and key, and hands what the
//! first sent to the second.
//!
//! [`double`] is a small backend in memory that keeps every rule, and that can be told to break one: the proof that each behaviour can fail.

mod behaviours;
mod devices;
pub mod double;
mod guard;
mod limits;
mod lists;
mod packets;
mod policies;
mod recorder;
mod requests;
mod rungs;
mod setup;
mod spis;
mod transactions;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Answer, Event, OffloadBackend, OffloadError, Path, Reports};
use crate::handle::{DeviceId, Tag};
use crate::limits::Volume;
use crate::sa::{Direction, SaSpec};

pub use behaviours::{BEHAVIOURS, Behaviour, run};
pub use packets::{destination, udp_v4, udp_v6};
pub use recorder::Recorder;

/// A backend under test with everything around it.
pub trait Subject {
    /// The backend; it reports to [`Self::log`].
    fn backend(&self) -> &dyn OffloadBackend;
    /// What the backend reported.
    fn log(&self) -> &Log;
    /// Returns when everything submitted and injected so far has been dealt with.
    fn settle(&mut self);
    /// Both sides of the datapath, where they can be seen.
    fn wire(&mut self) -> Option<&mut dyn Wire>;
    /// Whether the datapath is the host's own network stack, as with a kernel. There guards, inbound and forward policies decide what may pass
    /// beside the SAs, so hair-pins bring theirs, as the core does; and what no policy matches passes, as on any host.
    fn is_the_host(&self) -> bool {
        false
    }
    /// What becomes of a packet in clear that the host sends or forwards (outbound) or that comes to it from outside (inbound), with guard,
    /// bypasses and policies as they are now. `None` when there is no host around the datapath, or none that knows.
    fn host(&mut self, _direction: Direction, _packet: &[u8]) -> Option<Fate> {
        None
    }
    /// Takes a device away, as when its link goes down. False when the subject cannot, here as in all that follow.
    fn pull_device(&mut self, _device: DeviceId) -> bool {
        false
    }
    /// Puts it back.
    fn plug_device(&mut self, _device: DeviceId) -> bool {
        false
    }
    /// Makes the device refuse the next SA it is given, for no reason the backend could know before.
    fn refuse_install(&mut self) -> bool {
        false
    }
    /// Makes the device forget an SA.
    fn lose_state(&mut self, _sa: &SaSpec) -> bool {
        false
    }
    /// Makes an outbound SA appear as having carried so much more, numbers included; limits are looked at with the next packet.
    fn pretend_carried(&mut self, _sa: &SaSpec, _volume: Volume) -> bool {
        false
    }
}

/// What becomes of a packet in clear at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It travels as it is.
    Clear,
    /// The datapath gets it.
    Datapath,
    /// It goes nowhere.
    Blocked,
}

/// The packets of a subject.
pub trait Wire {
    /// Hands IP packets of the protected side to the datapath, as one batch where it knows batches.
    fn inject_inner(&mut self, packets: &[Vec<u8>]);
    /// Hands packets of the outer side to the datapath.
    fn inject_outer(&mut self, packets: &[OuterPacket]);
    /// What the datapath sent on the outer side since the last call, in order.
    fn captured_outer(&mut self) -> Vec<OuterPacket>;
    /// What the datapath delivered to the protected side since the last call, in order; ICMP errors count.
    fn captured_inner(&mut self) -> Vec<Vec<u8>>;
    /// Lets time pass.
    fn pass_time(&mut self, span: Duration);
}

/// A packet on the outer side; put together again where it was fragmented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterPacket {
    /// Sender; the port is 0 without UDP.
    pub source: SocketAddr,
    /// Receiver; the port is 0 without UDP.
    pub destination: SocketAddr,
    /// What it carries.
    pub content: OuterContent,
}

/// What an outer packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OuterContent {
    /// ESP by itself, SPI first.
    Esp(Vec<u8>),
    /// ESP in UDP, SPI first.
    EspInUdp(Vec<u8>),
    /// An IP packet in clear.
    Clear(Vec<u8>),
}

impl OuterPacket {
    /// The ESP packet, SPI first.
    pub fn esp(&self) -> Option<&[u8]> {
        match &self.content {
            OuterContent::Esp(octets) | OuterContent::EspInUdp(octets) => Some(octets),
            OuterContent::Clear(_) => None,
        }
    }

    /// Lower half of the sequence number of the ESP packet.
    pub fn sequence(&self) -> Option<u32> {
        self.esp()?.get(4..)?.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
    }

    /// SPI of the ESP packet.
    pub fn spi(&self) -> Option<u32> {
        self.esp()?.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
    }
}

/// Everything a backend reported, in order.
#[derive(Debug, Default)]
pub struct Log {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    done: Vec<(Tag, Result<Answer, OffloadError>)>,
    events: Vec<Event>,
}

impl Log {
    /// Outcomes reported for a tag.
    pub fn outcomes(&self, tag: Tag) -> Vec<Result<Answer, OffloadError>> {
        self.lock().done.iter().filter(|(done, _)| *done == tag).map(|(_, outcome)| outcome.clone()).collect()
    }

    /// Events so far.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports for Log {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.lock().done.push((tag, outcome));
    }

    fn event(&self, event: Event) {
        self.lock().events.push(event);
    }

    fn ike_datagram(&self, _path: Path, _octets: &[u8]) {}
}

/// How a behaviour ended other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rule is broken; what was seen.
    Broken(String),
    /// The subject carries no packets, or cannot do what it takes to see the rule.
    CannotShow,
    /// The rung does not claim to carry what the rule is about.
    NotClaimed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => f.write_str(what),
            Self::CannotShow => f.write_str("the subject cannot show it"),
            Self::NotClaimed => f.write_str("the rung does not claim it"),
        }
    }
}

/// What a behaviour returns.
pub type Kept = Result<(), Verdict>;

/// Breaks the rule with a message unless `kept`.
fn ensure(kept: bool, what: impl FnOnce() -> String) -> Kept {
    if kept { Ok(()) } else { Err(Verdict::Broken(what())) }
}

#[cfg(test)]
mod tests;
