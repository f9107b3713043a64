//! What goes into an [`Endpoint`](crate::Endpoint) and what comes out of it.
//!
//! One law: hand in one [`Input`], then take every [`Output`] before the next one. Outputs are in order: an event precedes the datagram or
//! the backend request it tells of.

use std::net::IpAddr;

use ike_crypto::{CryptoProvider, SecureRandom};
use ike_model::{Command, CommandError, CommandId, CommandOutcome, ConfigSnapshot, EventBody};
use ipsec::{
    Answer, DeviceId, DeviceTable, Instant, OffloadBackend, OffloadError, Path, Request, Shard, Spi, TableFull, Tag,
};

use crate::admission::Gate;
use crate::directory::DirectoryMessage;
use crate::work::{Job, Outcome, WorkId};

/// What the core needs from outside while it handles one input.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The driver's clock; never goes back.
    pub now: Instant,
    /// Wall-clock time in seconds since the epoch; shown, never reckoned with.
    pub wall: u64,
    /// Source of nonces, SPIs and jitter.
    pub rng: &'a dyn SecureRandom,
    /// Cryptography that can be negotiated.
    pub provider: &'a CryptoProvider,
    /// Where SPIs of inbound ESP SAs come from.
    pub spis: &'a dyn SpiSource,
    /// Capabilities of the devices as last seen.
    pub devices: &'a DeviceTable,
    /// Configuration in force.
    pub config: &'a ConfigSnapshot,
}

impl<'a> Context<'a> {
    /// What decisions about first requests need of it.
    pub(crate) fn gate(&self) -> Gate<'a> {
        Gate { now: self.now, rng: self.rng, provider: self.provider, settings: &self.config.settings }
    }
}

/// The synchronous part of an [`OffloadBackend`] that the core calls itself.
pub trait SpiSource {
    /// The device that carries traffic between these outer addresses.
    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId>;
    /// Takes a free SPI of `device`.
    ///
    /// # Errors
    /// [`TableFull`] when there is none.
    fn reserve_spi(&self, device: DeviceId) -> Result<Spi, TableFull>;
    /// Gives back an SPI that no SA was installed with.
    fn release_spi(&self, device: DeviceId, spi: Spi);
}

impl<B: OffloadBackend + ?Sized> SpiSource for B {
    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId> {
        OffloadBackend::device_for(self, local, remote)
    }

    fn reserve_spi(&self, device: DeviceId) -> Result<Spi, TableFull> {
        OffloadBackend::reserve_spi(self, device)
    }

    fn release_spi(&self, device: DeviceId, spi: Spi) {
        OffloadBackend::release_spi(self, device, spi);
    }
}

/// Something happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram came. On the NAT-T port the non-ESP marker is removed; keepalives are not handed in.
    Datagram {
        /// From where to where.
        path: Path,
        /// The IKE message.
        octets: &'a [u8],
    },
    /// The instant of [`Endpoint::poll_deadline`](crate::Endpoint::poll_deadline) has come.
    Deadline,
    /// An operator or a client asks. [`command_route`](crate::command_route) says which shards must get it.
    Command(CommandId, Command),
    /// The backend answered a request.
    Report(Tag, Result<Answer, OffloadError>),
    /// The backend tells something.
    Backend(ipsec::Event),
    /// Work is done.
    Work(WorkId, Outcome),
    /// Another shard tells or asks something.
    Directory(DirectoryMessage),
    /// Addresses or routes of this machine have changed. These addresses can be ends of a tunnel: all of them, not only what is new.
    Network(&'a [IpAddr]),
    /// The machine was asleep. Comes before the [`Self::Deadline`] of what has become due meanwhile.
    Resumed {
        /// For how long.
        asleep: std::time::Duration,
    },
}

/// Something is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Send a NAT keepalive (one octet 0xff) from the NAT-T port (RFC 3948 §2.3).
    Keepalive(Path),
    /// Submit a request to the backend.
    Offload(Tag, Request),
    /// Do this and hand in the outcome.
    Work(WorkId, Job),
    /// The outcome of this work is not needed any more; a late one is ignored.
    CancelWork(WorkId),
    /// Tell the event sinks.
    Event(EventBody),
    /// A command is done.
    Reply(CommandId, Result<CommandOutcome, CommandError>),
    /// Hand this to the shards it is for.
    Directory(Recipient, DirectoryMessage),
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where. From the NAT-T port the sender puts the non-ESP marker in front.
    pub path: Path,
    /// The IKE message.
    pub octets: Vec<u8>,
    /// Differentiated services code point of the packet.
    pub dscp: u8,
}

/// Which shards a directory message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One.
    Shard(Shard),
    /// All but the sender.
    Others,
}
