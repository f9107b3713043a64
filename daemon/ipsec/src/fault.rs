//! Faults that a simulated device can be told to have, so that tests see without hardware what hardware does at its worst.
//!
//! A backend that simulates devices carries them out; real devices are never asked. Each fault works at once and on what is there, except refusals,
//! swallowed and repeated reports, which wait for their occasion until [`Fault::Clear`].

use crate::backend::LimitUnit;
use crate::handle::Spi;
use crate::sa::{Direction, OffloadMode};

/// One order to a simulated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulate {
    /// What is to go wrong.
    pub fault: Fault,
    /// Where.
    pub target: Target,
}

/// Which device, SAs and policies a fault is about; what is not named does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Name of a device, with or without ` (simulated)`.
    pub device: Option<String>,
    /// SPI of an SA.
    pub spi: Option<Spi>,
    /// `CONNECTION/CHILD`, or `CHILD` of any connection.
    pub child: Option<String>,
    /// Inbound or outbound.
    pub direction: Option<Direction>,
}

impl Target {
    /// Whether an entry of this name and direction is meant.
    pub fn names(&self, name: &str, direction: Direction) -> bool {
        let child = |wanted: &String| name == wanted || name.rsplit_once('/').is_some_and(|(_, child)| child == wanted);
        self.child.as_ref().is_none_or(child) && self.direction.is_none_or(|wanted| wanted == direction)
    }
}

/// What is to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Operations to come are refused.
    Refuse(Refuse),
    /// SAs vanish from the device.
    LoseSas(Tell),
    /// Policies vanish from the device.
    LosePolicies(Tell),
    /// Both vanish.
    LoseAll(Tell),
    /// The link goes down: the device forgets its SAs and policies.
    DeviceDown,
    /// The link comes up again; after [`Self::DeviceGone`] a new device of that name appears.
    DeviceUp,
    /// The device is removed.
    DeviceGone,
    /// Reports to come are not made.
    Swallow(Told, u32),
    /// Reports to come are made twice.
    Duplicate(Told, u32),
    /// Counters of SAs stand still in what the device tells; packets and limits go on.
    FreezeCounters,
    /// Counters tell the truth again.
    ThawCounters,
    /// SAs appear as having carried so much more than they have, sequence numbers included; limits are looked at with the next packet.
    Carried {
        /// Packets.
        packets: u64,
        /// Octets.
        bytes: u64,
    },
    /// A soft limit is reached now.
    SoftExpire(LimitUnit),
    /// A hard limit is reached now.
    HardExpire(LimitUnit),
    /// Refusals, swallowed and repeated reports that still wait for their occasion are forgotten.
    Clear,
}

/// Which operations are refused, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// Only this step of an install; any otherwise.
    pub step: Option<Step>,
    /// Only what asks for this offload; any otherwise.
    pub mode: Option<OffloadMode>,
    /// The error.
    pub error: Refusal,
    /// That many of them pass first.
    pub skip: u32,
    /// That many are refused then.
    pub count: u32,
}

/// A step of an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The guard.
    Guard,
    /// An inbound or forward policy.
    InboundPolicy,
    /// An outbound policy, new or changed.
    OutboundPolicy,
    /// An inbound SA.
    InboundSa,
    /// An outbound SA.
    OutboundSa,
    /// Letting traffic take an SA.
    Activate,
    /// Moving an SA.
    UpdateSa,
}

/// With which error an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device cannot carry it.
    Unsupported,
    /// A table is full.
    Full,
    /// The device is not there.
    Unavailable,
    /// The system refused.
    System,
}

/// What is told of entries that vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// [`crate::Event::StateLost`] for each SA; nothing about policies.
    Lost,
    /// One [`crate::Event::Resync`].
    Resync,
    /// Nothing: only who lists sees it.
    Nothing,
}

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// [`crate::Event::SoftExpire`].
    Soft,
    /// [`crate::Event::HardExpire`].
    Hard,
    /// [`crate::Event::Acquire`].
    Acquire,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_meant_by_its_own_or_its_full_name() {
        let target = |child: &str, direction| Target { child: Some(child.into()), direction, ..Target::default() };
        assert!(target("net/a", None).names("net/a", Direction::Inbound));
        assert!(target("a", None).names("net/a", Direction::Inbound));
        assert!(!target("net", None).names("net/a", Direction::Inbound));
        assert!(!target("a", Some(Direction::Outbound)).names("net/a", Direction::Inbound));
        assert!(Target::default().names("net/a", Direction::Forward));
    }
}
