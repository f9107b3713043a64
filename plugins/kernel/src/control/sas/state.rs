//! An SA as the kernel is told of it.

use std::time::Duration;

use ipsec::{Direction, Limits, OffloadMode, SaMode, SaSpec};
use offload_host::policy_keys;
use offload_host::xfrm::{PolicyKey, Way};

use crate::control::policies::shown;
use crate::xfrm::{DeviceOffload, KernelLimits, NewState, StateId};

/// What the kernel tells an SA apart by.
pub(super) fn id(spec: &SaSpec) -> StateId {
    let destination = match spec.direction {
        Direction::Inbound | Direction::Forward => spec.outer.local,
        Direction::Outbound => spec.outer.remote,
    };
    StateId { destination, spi: spec.spi, mark: shown(spec.tags.mark) }
}

/// XFRMA_OFFLOAD_DEV of what is on a rung of a link.
pub(super) fn offload(rung: OffloadMode, link: Option<u32>) -> Option<DeviceOffload> {
    let packet = match rung {
        OffloadMode::Packet => true,
        OffloadMode::Crypto => false,
        OffloadMode::No | OffloadMode::Auto => return None,
    };
    link.map(|link| DeviceOffload { link, packet })
}

pub(super) fn new_state(
    spec: &SaSpec,
    id: StateId,
    offload: Option<DeviceOffload>,
    limits: KernelLimits,
) -> NewState<'_> {
    let inbound = spec.direction == Direction::Inbound;
    let view = spec.peer_view.filter(|_| inbound && spec.mode == SaMode::Transport);
    NewState {
        id,
        source: if inbound { spec.outer.remote } else { spec.outer.local },
        direction: spec.direction,
        reqid: spec.reqid,
        mode: spec.mode,
        algorithm: spec.algorithm,
        key: &spec.key,
        esn: spec.esn,
        replay_window: if inbound { spec.replay_window } else { 0 },
        initial_sequence: spec.initial_sequence,
        encapsulation: spec.encapsulation,
        original_source: view.map(|view| view.remote),
        copy: spec.copy,
        tags: spec.tags,
        limits,
        selector: selector(spec, offload),
        offload,
        cpu: None,
        nat_keepalive: None,
    }
}

//= RFC 4301 §5.2: a packet outside of the SA's selectors is discarded
/// The selector of an inbound state that software carries and that has no more than one; drivers look at theirs each in its own way. What the others may
/// bring is for the policies to say, which name their group.
fn selector(spec: &SaSpec, offload: Option<DeviceOffload>) -> Option<PolicyKey> {
    if offload.is_some_and(|offload| offload.packet) || spec.direction != Direction::Inbound {
        return None;
    }
    let [pair] = &*spec.selectors else { return None };
    let mut keys = policy_keys(pair).into_iter().filter(|key| key.way == Way::In);
    keys.next().filter(|_| keys.next().is_none())
}

//= RFC 4303 §3.3.3: the sender ensures that the counter does not cycle
/// An outbound SA that does not begin with the first number has so many less.
pub(super) fn sequence_bounded(mut limits: Limits, spec: &SaSpec) -> Limits {
    if spec.direction == Direction::Outbound && spec.initial_sequence > 0 {
        let last = if spec.esn { u64::MAX } else { u64::from(u32::MAX) };
        let left = last.saturating_sub(spec.initial_sequence);
        limits.hard.packets = Some(limits.hard.packets.map_or(left, |hard| hard.min(left)));
    }
    limits
}

/// What the kernel is given: volumes as they are, and the hard limit of time later than ours.
pub(super) fn kernel_limits(limits: Limits) -> KernelLimits {
    let later = |time: Duration| Duration::from_secs((time + time / 10).as_secs().saturating_add(1));
    KernelLimits {
        soft_bytes: limits.soft.bytes,
        hard_bytes: limits.hard.bytes,
        soft_packets: limits.soft.packets,
        hard_packets: limits.hard.packets,
        soft_time: None,
        hard_time: limits.hard.time.map(later),
    }
}
