//! Security policy and association entries, traffic selectors, lifetimes, and the contract with offload backends.
//!
//! The words are those of RFC 4301: an [`SaSpec`] is an SAD entry, a [`PolicySpec`] an SPD entry. A backend (the kernel's XFRM, or the userspace
//! ESP datapath) implements [`OffloadBackend`]: requests go in, [`Reports`] are pushed out. Nothing here opens a socket, reads a clock or
//! starts a thread.
//!
//! Reading order: [`selector`], [`sa`], [`policy`], [`backend`], [`preflight`].
#![forbid(unsafe_code)]

pub mod algorithm;
pub mod backend;
pub mod capability;
pub mod carry;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod fault;
pub mod handle;
pub mod limits;
pub mod policy;
pub mod preflight;
pub mod recording;
pub mod sa;
pub mod selector;
pub mod spi;
pub mod tags;
pub mod tap;
pub mod time;

pub use algorithm::{EspAlgorithm, EspEncryption, EspIntegrity, KeyMaterial};
pub use backend::{
    Answer, Applied, Event, Installed, LimitUnit, NatReader, OffloadBackend, OffloadError, OnStop, Op, Path,
    PolicyStatus, Reports, Request, SaStatus, Scope, TableFull,
};
pub use capability::{
    Capabilities, Device, DeviceState, DeviceTable, LimitUnits, ReplayWindows, Rung, SelectorSupport,
};
pub use handle::{DeviceId, PolicyHandle, Reqid, SaHandle, Shard, Spi, Tag};
pub use limits::{Bounds, Lifetime, LifetimeConfig, Limits, Volume};
pub use policy::{GuardSpec, PolicyAction, PolicySpec};
pub use sa::{Direction, ModeInUse, OffloadMode, OuterAddresses, SaMode, SaSpec, UdpEncapsulation};
pub use selector::{AddressRange, PacketSelectors, PortRange, SelectorPair, TrafficSelector};
pub use tags::{Mark, Tags};
pub use tap::{Shown, Side, Tap, View};
pub use time::Instant;
