//! What an SA or policy must be like to be carried.

use std::sync::Arc;

use ipsec::{
    Direction, EspEncryption, Limits, ModeInUse, OffloadError, OffloadMode, OuterAddresses, PolicySpec, PolicyStatus,
    SaMode, SaSpec, SelectorPair,
};

use super::Identity;
use crate::esp::MAX_WINDOW;
use crate::spd::{Action, Policy};

/// Smallest replay window other than none.
pub const MIN_WINDOW: u32 = 32;
/// Octets one AES-GCM key may protect: 2^40 blocks.
const GCM_OCTETS: u64 = 1 << 44;

impl Identity {
    /// The mode an SA really runs in, or why the configured one cannot be had.
    pub(super) fn mode(&self, wanted: OffloadMode) -> Result<ModeInUse, OffloadError> {
        let packet = ModeInUse { mode: OffloadMode::Packet, device: Some(Arc::clone(&self.device)), simulated: true };
        match (wanted, self.simulated) {
            (OffloadMode::No, _) | (OffloadMode::Auto, false) => Ok(ModeInUse::SOFTWARE),
            (OffloadMode::Packet | OffloadMode::Auto, true) => Ok(packet),
            (OffloadMode::Packet, false) => {
                Err(self.unsupported("hw_offload = packet", "the userspace backend has no NIC device"))
            }
            (OffloadMode::Crypto, _) => {
                Err(self.unsupported("hw_offload = crypto", "the userspace backend has no NIC device"))
            }
        }
    }

    fn unsupported(&self, what: &str, reason: &str) -> OffloadError {
        OffloadError::Unsupported { device: Arc::clone(&self.device), what: what.into(), reason: reason.into() }
    }

    /// Refuses what the datapath cannot carry.
    pub(super) fn check_sa(&self, spec: &SaSpec) -> Result<(), OffloadError> {
        if spec.device.0 != 0 {
            return Err(OffloadError::Missing(format!("device {}", spec.device.0)));
        }
        match (spec.direction, spec.mode) {
            (Direction::Forward, _) => return Err(OffloadError::Invalid("an SA is inbound or outbound".into())),
            (Direction::Inbound | Direction::Outbound, SaMode::Transport) => {
                spec.selectors.iter().try_for_each(|pair| check_hosts(pair, spec.outer))?;
            }
            (Direction::Inbound | Direction::Outbound, SaMode::Tunnel) => {}
        }
        let window = spec.replay_window;
        if spec.direction == Direction::Inbound && window != 0 && !(MIN_WINDOW..=MAX_WINDOW).contains(&window) {
            let reason = format!("windows have {MIN_WINDOW} to {MAX_WINDOW} packets, or 0 for none");
            return Err(self.unsupported(&format!("replay window of {window}"), &reason));
        }
        self.check_tags(spec.tags)?;
        check_outer(spec.outer)
    }

    fn check_tags(&self, tags: ipsec::Tags) -> Result<(), OffloadError> {
        if tags.is_none() {
            return Ok(());
        }
        Err(self.unsupported("packet marks and interface ids", "they belong to the kernel's own data path"))
    }

    /// State of a policy. Its mode could be had when it was installed.
    pub(super) fn status(&self, spec: &PolicySpec, policy: &Policy) -> Option<PolicyStatus> {
        let sa = match &policy.action {
            Action::Protect(sa) => sa.as_ref().map(|sa| sa.handle),
            Action::Bypass | Action::Discard | Action::Trap => None,
        };
        let mode = self.mode(spec.offload).ok()?;
        Some(PolicyStatus { policy: spec.handle, device: spec.device, sa, mode })
    }

    /// Refuses what no policy can be.
    pub(super) fn check_policy(&self, spec: &PolicySpec) -> Result<(), OffloadError> {
        if spec.device.0 != 0 {
            return Err(OffloadError::Missing(format!("device {}", spec.device.0)));
        }
        if spec.selectors.local.addresses.is_ipv4() != spec.selectors.remote.addresses.is_ipv4() {
            return Err(OffloadError::Invalid(format!("{} mixes address families", spec.selectors)));
        }
        if let ipsec::PolicyAction::Protect { mode: SaMode::Transport, outer, .. } = spec.action {
            check_hosts(&spec.selectors, outer)?;
        }
        self.check_tags(spec.tags)?;
        self.mode(spec.offload).map(|_| ())
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

pub(super) fn check_outer(outer: OuterAddresses) -> Result<(), OffloadError> {
    if outer.local.is_ipv4() == outer.remote.is_ipv4() {
        Ok(())
    } else {
        Err(OffloadError::Invalid(format!("outer addresses {} and {} differ in family", outer.local, outer.remote)))
    }
}

/// The limits an outbound SA runs with: sequence numbers never wrap, and no AES-GCM key protects more than it may.
pub(super) fn effective_limits(spec: &SaSpec) -> Limits {
    if spec.direction != Direction::Outbound {
        return spec.limits;
    }
    let mut limits = spec.limits.bounded_for_sequence(spec.esn);
    if let EspEncryption::AesGcm16(_) = spec.algorithm.encryption {
        let lower = |limit: &mut Option<u64>, bound: u64| *limit = Some(limit.map_or(bound, |value| value.min(bound)));
        lower(&mut limits.soft.bytes, GCM_OCTETS / 4 * 3);
        lower(&mut limits.hard.bytes, GCM_OCTETS);
    }
    limits
}
