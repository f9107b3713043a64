//! Every operation held against what the rung it goes to claims to carry.

use std::sync::Arc;

use crate::backend::OffloadError;
use crate::capability::{Capabilities, Device, DeviceState, ReplayWindows, Rung};
use crate::limits::Limits;
use crate::policy::{PolicyAction, PolicySpec};
use crate::sa::{Direction, ModeInUse, OffloadMode, OuterAddresses, SaMode, SaSpec};
use crate::selector::{SelectorPair, TrafficSelector};
use crate::tags::Tags;

/// One rung of a device, and how much it holds.
pub struct Holder<'a> {
    /// The device.
    pub device: &'a Device,
    /// The rung.
    pub rung: &'a Rung,
    /// What carries SAs in software, as the subject of a sentence.
    pub software: &'static str,
    /// SAs it holds now.
    pub sas: u32,
    /// Policies it holds now.
    pub policies: u32,
}

impl Holder<'_> {
    /// The mode in which this is really held.
    pub fn mode(&self) -> &ModeInUse {
        &self.rung.mode
    }

    /// Whether a NIC holds it, and not software.
    fn in_device(&self) -> bool {
        self.rung.mode.mode != OffloadMode::No
    }

    /// Whether a NIC looks policies up, which only one with packet offload does.
    fn looks_up(&self) -> bool {
        self.rung.mode.mode == OffloadMode::Packet
    }

    fn capabilities(&self) -> &Capabilities {
        &self.rung.capabilities
    }

    /// Refuses an SA that the rung does not carry, or has no room for.
    pub fn take_sa(&self, spec: &SaSpec) -> Result<(), OffloadError> {
        let can = self.capabilities();
        match (spec.direction, spec.mode) {
            (Direction::Forward, _) => return Err(OffloadError::Invalid("an SA is inbound or outbound".into())),
            (Direction::Inbound | Direction::Outbound, SaMode::Transport) => {
                spec.selectors.iter().try_for_each(|pair| check_hosts(pair, spec.outer))?;
            }
            (Direction::Inbound | Direction::Outbound, SaMode::Tunnel) => {}
        }
        check_outer(spec.outer)?;
        self.check_available()?;
        if !can.algorithms.contains(&spec.algorithm) {
            let has: Vec<String> = can.algorithms.iter().map(|algorithm| algorithm.to_string()).collect();
            let what = format!("an SA with {}", spec.algorithm);
            return Err(self.unsupported(what, format!("{} takes {} only", self.words(), has.join(", "))));
        }
        self.check_mode(spec.mode)?;
        if spec.esn && !can.esn {
            let reason = format!("{} counts 32-bit sequence numbers only", self.words());
            return Err(self.unsupported("an SA with extended sequence numbers".into(), reason));
        }
        if spec.direction == Direction::Inbound && !can.replay_windows.allow(spec.replay_window) {
            let what = format!("a replay window of {}", spec.replay_window);
            return Err(self.unsupported(what, self.windows(&can.replay_windows)));
        }
        if spec.encapsulation.is_some() {
            self.check_encapsulation()?;
        }
        if self.looks_up() && spec.reqid.0 == 0 {
            let reason = format!("{} finds the SAs of a policy by it", self.words());
            return Err(self.unsupported("an SA without reqid".into(), reason));
        }
        self.check_tags(spec.tags)?;
        self.room("SAD", self.sas, can.sa_table)
    }

    /// Refuses a policy that the rung does not carry, or has no room for. What is forwarded is looked up in software always.
    pub fn take_policy(&self, spec: &PolicySpec) -> Result<(), OffloadError> {
        let can = self.capabilities();
        if spec.selectors.local.addresses.is_ipv4() != spec.selectors.remote.addresses.is_ipv4() {
            return Err(OffloadError::Invalid(format!("{} mixes address families", spec.selectors)));
        }
        if let PolicyAction::Protect { mode: SaMode::Transport, outer, .. } = spec.action {
            check_hosts(&spec.selectors, outer)?;
        }
        self.check_tags(spec.tags)?;
        if !self.looks_up() || spec.direction == Direction::Forward {
            return Ok(());
        }
        self.check_available()?;
        match &spec.action {
            PolicyAction::Protect { mode, .. } => self.check_mode(*mode)?,
            PolicyAction::Trap { mode, .. } => {
                self.check_kind("a trap policy")?;
                self.check_mode(*mode)?;
            }
            PolicyAction::Bypass => self.check_kind("a bypass policy")?,
            PolicyAction::Discard => self.check_kind("a discard policy")?,
        }
        self.check_selectors(&spec.selectors)?;
        self.room("SPD", self.policies, can.policy_table)
    }

    /// Refuses to move an SA where the rung holds it in place.
    pub fn move_sa(&self, encapsulated: bool) -> Result<(), OffloadError> {
        self.check_available()?;
        if !self.capabilities().in_place_move {
            let reason = format!("{} keeps an SA as it was installed", self.words());
            return Err(self.unsupported("an SA on another path".into(), reason));
        }
        if encapsulated { self.check_encapsulation() } else { Ok(()) }
    }

    fn check_available(&self) -> Result<(), OffloadError> {
        match self.device.state {
            DeviceState::Up => Ok(()),
            DeviceState::Down | DeviceState::Gone if !self.in_device() => Ok(()),
            DeviceState::Down | DeviceState::Gone => Err(OffloadError::Unavailable(Arc::clone(&self.device.name))),
        }
    }

    fn check_mode(&self, mode: SaMode) -> Result<(), OffloadError> {
        let (can, what) = match mode {
            SaMode::Tunnel => (self.capabilities().tunnel, "tunnel mode"),
            SaMode::Transport => (self.capabilities().transport, "transport mode"),
        };
        if can { Ok(()) } else { Err(self.unsupported(what.into(), format!("{} has none", self.words()))) }
    }

    fn check_encapsulation(&self) -> Result<(), OffloadError> {
        if self.capabilities().udp_encapsulation {
            return Ok(());
        }
        let reason =
            format!("{} takes ESP without UDP only, and there is NAT on the way or `encap = yes`", self.words());
        Err(self.unsupported("ESP in UDP".into(), reason))
    }

    fn check_kind(&self, what: &str) -> Result<(), OffloadError> {
        if self.capabilities().all_policy_kinds {
            return Ok(());
        }
        Err(self.unsupported(what.into(), format!("{} takes protecting policies only", self.words())))
    }

    fn check_selectors(&self, pair: &SelectorPair) -> Result<(), OffloadError> {
        let support = &self.capabilities().selectors;
        let refused = |reason| Err(self.unsupported(format!("a policy for {pair}"), reason));
        let sides = [&pair.local, &pair.remote];
        let any = |wanted: fn(&TrafficSelector) -> bool| sides.iter().any(|side| wanted(side));
        if !support.ranges && any(|side| side.addresses.prefix_length().is_none()) {
            return refused(format!("{} takes prefixes and no address ranges", self.words()));
        }
        if !support.ports && any(TrafficSelector::needs_ports) {
            return refused(format!("{} matches no ports", self.words()));
        }
        let Some(protocols) = &support.protocols else { return Ok(()) };
        if let Some(odd) = sides.iter().map(|side| side.protocol).find(|p| *p != 0 && !protocols.contains(p)) {
            let known: Vec<String> = protocols.iter().map(u8::to_string).collect();
            let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return refused(format!("{} cannot match protocol {odd}; besides any it matches {list}", self.words()));
        }
        Ok(())
    }

    fn check_tags(&self, tags: Tags) -> Result<(), OffloadError> {
        let can = self.capabilities();
        let marks = tags.mark.is_some() || tags.set_mark.is_some();
        if (can.marks || !marks) && (can.interface_ids || tags.if_id == 0) {
            return Ok(());
        }
        let reason = format!("{} knows none: they belong to the kernel's own data path", self.words());
        Err(self.unsupported("packet marks and interface ids".into(), reason))
    }

    /// What a NIC has no room for; software is bounded by memory.
    fn room(&self, table: &'static str, held: u32, size: Option<u32>) -> Result<(), OffloadError> {
        match size.filter(|size| self.in_device() && held >= *size) {
            Some(size) => Err(OffloadError::Full { device: Arc::clone(&self.device.name), table, size }),
            None => Ok(()),
        }
    }

    fn windows(&self, windows: &ReplayWindows) -> String {
        match windows {
            ReplayWindows::Range(least, most) => format!("windows have {least} to {most} packets, or 0 for none"),
            ReplayWindows::Only(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
                format!("{} has windows of {} packets only", self.words(), sizes.join(", "))
            }
        }
    }

    /// What refuses, as the subject of a sentence.
    fn words(&self) -> &'static str {
        match self.rung.mode.mode {
            OffloadMode::Packet => "its packet offload",
            OffloadMode::Crypto => "its crypto offload",
            OffloadMode::No | OffloadMode::Auto => self.software,
        }
    }

    fn unsupported(&self, what: String, reason: String) -> OffloadError {
        OffloadError::Unsupported { device: Arc::clone(&self.device.name), what, reason }
    }
}

/// In transport mode the outer addresses are those of the packets.
fn check_hosts(pair: &SelectorPair, outer: OuterAddresses) -> Result<(), OffloadError> {
    if pair.is_between(outer) {
        Ok(())
    } else {
        let text = format!("transport mode between {} and {} cannot carry {pair}", outer.local, outer.remote);
        Err(OffloadError::Invalid(text))
    }
}

/// Outer addresses are of one family.
///
/// # Errors
/// [`OffloadError::Invalid`] when they are not.
pub fn check_outer(outer: OuterAddresses) -> Result<(), OffloadError> {
    if outer.local.is_ipv4() == outer.remote.is_ipv4() {
        Ok(())
    } else {
        Err(OffloadError::Invalid(format!("outer addresses {} and {} differ in family", outer.local, outer.remote)))
    }
}

//= RFC 4303 §3.3.3: the sender ensures that the counter does not cycle
/// The limits an SA runs with on a rung: outbound sequence numbers never wrap, no key protects more than it may, and units that the rung does not
/// count are left to whoever watches its counters.
pub fn effective_limits(spec: &SaSpec, can: &Capabilities) -> Limits {
    let mut limits = spec.limits;
    if spec.direction == Direction::Outbound {
        limits = limits.bounded(spec.algorithm, spec.esn);
    }
    for volume in [&mut limits.soft, &mut limits.hard] {
        volume.time = volume.time.filter(|_| can.limits.time);
        volume.bytes = volume.bytes.filter(|_| can.limits.bytes);
        volume.packets = volume.packets.filter(|_| can.limits.packets);
    }
    limits
}
