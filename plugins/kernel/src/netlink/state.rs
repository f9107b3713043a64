//! States in messages: NEWSA, and what GETSA, DELSA and the events carry.
//!
//! Implements what the kernel asks of XFRMA_SA_DIR: an outbound state has no replay window and only flags of sending, an inbound one only flags
//! of receiving.

use std::net::IpAddr;
use std::time::Duration;

use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{Direction, Mark, SaMode, Spi, UdpEncapsulation};
use netlink_packet_xfrm::{
    Address, EncapTmpl, Id, LifetimeConfig, UDP_ENCAP_ESPINUDP, UserOffloadDev, UserSaId, UserSaInfo,
    XFRM_ENCAP_TMPL_LEN, XFRM_INF, XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL, XFRM_OFFLOAD_INBOUND,
    XFRM_SA_XFLAG_DONT_ENCAP_DSCP, XFRM_STATE_AF_UNSPEC, XFRM_STATE_DECAP_DSCP, XFRM_STATE_ESN, XFRM_STATE_NOECN,
    XFRM_STATE_NOPMTUDISC, XFRM_USER_OFFLOAD_DEV_LEN, XFRM_USER_SA_INFO_LEN, XFRMA_ENCAP, XFRMA_IF_ID, XFRMA_LASTUSED,
    XFRMA_MARK, XFRMA_OFFLOAD_DEV, XFRMA_SA_EXTRA_FLAGS, XFRMA_SET_MARK, XFRMA_SET_MARK_MASK, XfrmAttrs,
};
use offload_host::Family;
use offload_host::netlink::u32_of;
use offload_host::xfrm::{PolicyKey, Way, attribute, mark, padded, unpadded};

use super::attributes::{
    SaDir, XFRM_OFFLOAD_PACKET, XFRMA_NAT_KEEPALIVE_INTERVAL, XFRMA_SA_DIR, XFRMA_SA_PCPU, nat_keepalive_interval,
    other, sa_dir, sa_pcpu,
};
use super::body::Body;
use super::{ESP, algorithm, replay};
use crate::xfrm::{DeviceOffload, KernelLimits, NewState, State, StateDetail, StateId};

impl NewState<'_> {
    /// The state as the kernel shows it before its first packet, if it has taken all that was asked; the time of its birth is 0.
    ///
    /// Kernels that do not know XFRMA_SA_DIR show no direction, and a window where ESN goes out.
    #[must_use]
    pub fn shown(&self) -> State {
        let sending = sends(self.direction);
        let seconds = |time: Option<Duration>| time.map(|time| Duration::from_secs(rounded_up(time).into()));
        State {
            id: self.id,
            source: self.source,
            reqid: self.reqid.0,
            if_id: self.tags.if_id,
            mode: Some(self.mode),
            direction: Some(if sending { Direction::Outbound } else { Direction::Inbound }),
            offload: self.offload,
            bytes: 0,
            packets: 0,
            sent_sequence: if sending { self.initial_sequence } else { 0 },
            received_sequence: if sending { 0 } else { self.initial_sequence },
            added: 0,
            last_used: None,
            limits: KernelLimits {
                soft_time: seconds(self.limits.soft_time),
                hard_time: seconds(self.limits.hard_time),
                ..self.limits
            },
            detail: StateDetail {
                algorithm: Some(self.algorithm),
                esn: self.esn,
                replay_window: if sending { 0 } else { self.replay_window },
                encapsulation: self.encapsulation,
                original_source: self.original_source.filter(|_| self.encapsulation.is_some()),
                copy: shown_copy(self.copy, sending),
                set_mark: self.tags.set_mark,
                cpu: self.cpu,
                nat_keepalive: self.nat_keepalive.map(|time| Duration::from_secs(rounded_up(time).into())),
                selector: self.selector.and_then(|key| shown_selector(key, sending, self.mode)),
            },
        }
    }
}

/// A selector as a state has it. One that lets everything pass that the mode can carry is none.
fn shown_selector(key: PolicyKey, sending: bool, mode: SaMode) -> Option<PolicyKey> {
    let way = if sending { Way::Out } else { Way::In };
    let key = PolicyKey { way, mark: None, if_id: 0, ..key };
    (mode == SaMode::Tunnel || key != PolicyKey::everything(way, key.family())).then_some(key)
}

/// What a state of one direction says of header fields: about the other direction it says what the default says.
fn shown_copy(copy: HeaderCopy, sending: bool) -> HeaderCopy {
    let dscp = match (sending, copies_out(copy.dscp), copies_in(copy.dscp)) {
        (true, true, _) | (false, _, false) => CopyDscp::Out,
        (true, false, _) => CopyDscp::No,
        (false, _, true) => CopyDscp::Yes,
    };
    HeaderCopy { df: copy.df || !sending, ecn: copy.ecn, dscp }
}

/// The body of NEWSA. `directions`: the kernel knows XFRMA_SA_DIR.
pub(super) fn new_state(state: &NewState<'_>, directions: bool) -> Body {
    let window = replay::write(state, directions);
    let mut body = Body::of(&fixed(state, window.window));
    algorithm::write(&mut body, state.algorithm, state.key);
    let direction = directions.then(|| sa_dir(sa_direction(state.direction)));
    let encapsulation = state.encapsulation.map(|ports| encapsulation(state, ports));
    let sending = sends(state.direction);
    let extra = sending && !copies_out(state.copy.dscp);
    let extra = extra.then_some(XfrmAttrs::ExtraFlags(XFRM_SA_XFLAG_DONT_ENCAP_DSCP));
    let set_mark = state.tags.set_mark.map(|mark| [XfrmAttrs::MarkVal(mark.value), XfrmAttrs::MarkMask(mark.mask)]);
    let if_id = (state.tags.if_id != 0).then_some(XfrmAttrs::IfId(state.tags.if_id));
    let offload = state.offload.map(|device| offload(device, state.direction));
    let keepalive = state.nat_keepalive.map(|interval| nat_keepalive_interval(rounded_up(interval)));
    let all = window.attribute.into_iter().chain(state.id.mark.map(mark_attribute)).chain(direction);
    let all = all.chain(encapsulation).chain(extra).chain(set_mark.into_iter().flatten()).chain(if_id);
    all.chain(offload).chain(state.cpu.map(sa_pcpu)).chain(keepalive).for_each(|attribute| body.attribute(&attribute));
    body
}

/// The body of GETSA and DELSA.
pub(super) fn id(id: &StateId) -> Body {
    let family = Family::of(id.destination).number();
    let daddr = address(id.destination);
    let mut body = Body::of(&UserSaId { daddr, spi: id.spi.get(), family, proto: ESP });
    id.mark.map(mark_attribute).iter().for_each(|mark| body.attribute(mark));
    body
}

fn fixed(state: &NewState<'_>, replay_window: u8) -> UserSaInfo {
    let family = Family::of(state.id.destination).number();
    let mut fixed = UserSaInfo {
        id: Id { daddr: address(state.id.destination), spi: state.id.spi.get(), proto: ESP },
        saddr: address(state.source),
        lifetime_cfg: limits(&state.limits),
        reqid: state.reqid.0,
        family,
        mode: match state.mode {
            SaMode::Tunnel => XFRM_MODE_TUNNEL,
            SaMode::Transport => XFRM_MODE_TRANSPORT,
        },
        replay_window,
        flags: flags(state),
        ..UserSaInfo::default()
    };
    // A tunnel carries both families; only a state without a family of its own in the selector takes them.
    match (state.selector, state.mode) {
        (Some(key), _) => fixed.selector = key.selector(),
        (None, SaMode::Tunnel) => fixed.selector.family = 0,
        (None, SaMode::Transport) => fixed.selector.family = family,
    }
    fixed
}

fn flags(state: &NewState<'_>) -> u8 {
    let sending = sends(state.direction);
    let all = [
        (state.esn, XFRM_STATE_ESN),
        (!state.copy.ecn, XFRM_STATE_NOECN),
        (sending && !state.copy.df, XFRM_STATE_NOPMTUDISC),
        (!sending && copies_in(state.copy.dscp), XFRM_STATE_DECAP_DSCP),
        (state.mode == SaMode::Tunnel && state.selector.is_none(), XFRM_STATE_AF_UNSPEC),
    ];
    all.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag)
}

const fn sends(direction: Direction) -> bool {
    match direction {
        Direction::Outbound => true,
        Direction::Inbound | Direction::Forward => false,
    }
}

const fn sa_direction(direction: Direction) -> SaDir {
    if sends(direction) { SaDir::Out } else { SaDir::In }
}

const fn copies_in(dscp: CopyDscp) -> bool {
    matches!(dscp, CopyDscp::In | CopyDscp::Yes)
}

const fn copies_out(dscp: CopyDscp) -> bool {
    matches!(dscp, CopyDscp::Out | CopyDscp::Yes)
}

/// Volumes without a limit are all ones: 0 would be a limit of nothing. Times without a limit are 0.
fn limits(limits: &KernelLimits) -> LifetimeConfig {
    let volume = |limit: Option<u64>| limit.unwrap_or(XFRM_INF);
    let time = |limit: Option<Duration>| limit.map_or(0, |limit| rounded_up(limit).into());
    LifetimeConfig {
        soft_byte_limit: volume(limits.soft_bytes),
        hard_byte_limit: volume(limits.hard_bytes),
        soft_packet_limit: volume(limits.soft_packets),
        hard_packet_limit: volume(limits.hard_packets),
        soft_add_expires_seconds: time(limits.soft_time),
        hard_add_expires_seconds: time(limits.hard_time),
        soft_use_expires_seconds: 0,
        hard_use_expires_seconds: 0,
    }
}

/// Whole seconds, at least one: 0 means none to the kernel.
fn rounded_up(time: Duration) -> u32 {
    let more = u64::from(time.subsec_nanos() != 0);
    u32::try_from(time.as_secs().saturating_add(more)).unwrap_or(u32::MAX).max(1)
}

fn encapsulation(state: &NewState<'_>, ports: UdpEncapsulation) -> XfrmAttrs {
    let (encap_sport, encap_dport) = if sends(state.direction) {
        (ports.local_port, ports.remote_port)
    } else {
        (ports.remote_port, ports.local_port)
    };
    let encap_oa = state.original_source.map(address).unwrap_or_default();
    XfrmAttrs::EncapsulationTemplate(EncapTmpl { encap_type: UDP_ENCAP_ESPINUDP, encap_sport, encap_dport, encap_oa })
}

fn offload(device: DeviceOffload, direction: Direction) -> XfrmAttrs {
    let packet = if device.packet { XFRM_OFFLOAD_PACKET } else { 0 };
    let inbound = if sends(direction) { 0 } else { XFRM_OFFLOAD_INBOUND };
    let ifindex = i32::try_from(device.link).unwrap_or_default();
    XfrmAttrs::OffloadDevice(UserOffloadDev { ifindex, flags: packet | inbound })
}

/// XFRMA_MARK.
pub(super) fn mark_attribute(mark: Mark) -> XfrmAttrs {
    other(XFRMA_MARK, &[mark.value.to_ne_bytes(), mark.mask.to_ne_bytes()].concat())
}

/// An address in the crate's form.
pub(super) fn address(address: IpAddr) -> Address {
    Address { addr: padded(address) }
}

/// The family with this number.
pub(super) fn family(number: u16) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family.number() == number)
}

/// The state in a NEWSA message from the kernel. `None` for larval states, for other protocols than ESP, and for what is cut short.
pub fn read_state(body: &[u8]) -> Option<State> {
    let (fixed, attributes) = body.split_at_checked(XFRM_USER_SA_INFO_LEN)?;
    let fixed = UserSaInfo::parse(fixed).ok()?;
    let sequences = replay::read(attributes)?;
    let direction = direction(attributes);
    let flags = fixed.flags;
    algorithm::any(attributes).then_some(())?;
    let family = family(fixed.family)?;
    let number = |kind| attribute(attributes, kind).and_then(u32_of);
    let window = sequences.window.unwrap_or(fixed.replay_window.into());
    let mode = match fixed.mode {
        XFRM_MODE_TUNNEL => Some(SaMode::Tunnel),
        XFRM_MODE_TRANSPORT => Some(SaMode::Transport),
        _ => None,
    };
    let sending = direction == Some(Direction::Outbound);
    let selector = PolicyKey::read(&fixed.selector, Way::Out.number(), &[]);
    let (encapsulation, original_source) = read_encapsulation(attributes, direction, family).unzip();
    Some(State {
        id: state_id(&fixed, attributes)?,
        source: unpadded(family, fixed.saddr.addr),
        reqid: fixed.reqid,
        if_id: number(XFRMA_IF_ID).unwrap_or(0),
        mode,
        direction,
        offload: read_offload(attributes),
        bytes: fixed.lifetime_cur.bytes,
        packets: fixed.lifetime_cur.packets,
        sent_sequence: sequences.sent,
        received_sequence: sequences.received,
        added: fixed.lifetime_cur.add_time,
        last_used: attribute(attributes, XFRMA_LASTUSED)
            .and_then(|value| value.first_chunk().copied().map(u64::from_ne_bytes))
            .filter(|time| *time != 0),
        limits: read_limits(&fixed.lifetime_cfg),
        detail: StateDetail {
            algorithm: algorithm::read(attributes),
            esn: flags & XFRM_STATE_ESN != 0,
            replay_window: window,
            encapsulation,
            original_source: original_source.flatten(),
            copy: read_copy(flags, number(XFRMA_SA_EXTRA_FLAGS).unwrap_or(0)),
            set_mark: number(XFRMA_SET_MARK)
                .map(|value| Mark { value, mask: number(XFRMA_SET_MARK_MASK).unwrap_or(u32::MAX) }),
            cpu: number(XFRMA_SA_PCPU),
            nat_keepalive: number(XFRMA_NAT_KEEPALIVE_INTERVAL).map(|seconds| Duration::from_secs(seconds.into())),
            selector: selector.and_then(|key| shown_selector(key, sending, mode?)),
        },
    })
}

/// What names the state whose fixed part and attributes these are; `None` when it is not of ESP or has no SPI yet.
pub(super) fn state_id(fixed: &UserSaInfo, attributes: &[u8]) -> Option<StateId> {
    let destination = unpadded(family(fixed.family)?, fixed.id.daddr.addr);
    (fixed.id.proto == ESP).then_some(())?;
    Some(StateId { destination, spi: Spi::new(fixed.id.spi)?, mark: mark(attributes) })
}

/// XFRMA_SA_DIR, or what the offload says.
fn direction(attributes: &[u8]) -> Option<Direction> {
    let said = attribute(attributes, XFRMA_SA_DIR).and_then(<[u8]>::first).copied().and_then(SaDir::from_number);
    let inbound = match said {
        Some(said) => said == SaDir::In,
        None => offload_flags(attributes)?.flags & XFRM_OFFLOAD_INBOUND != 0,
    };
    Some(if inbound { Direction::Inbound } else { Direction::Outbound })
}

fn offload_flags(attributes: &[u8]) -> Option<UserOffloadDev> {
    UserOffloadDev::parse(attribute(attributes, XFRMA_OFFLOAD_DEV)?.get(..XFRM_USER_OFFLOAD_DEV_LEN)?).ok()
}

/// XFRMA_OFFLOAD_DEV.
pub(super) fn read_offload(attributes: &[u8]) -> Option<DeviceOffload> {
    let device = offload_flags(attributes)?;
    let link = u32::try_from(device.ifindex).ok()?;
    Some(DeviceOffload { link, packet: device.flags & XFRM_OFFLOAD_PACKET != 0 })
}

fn read_limits(limits: &LifetimeConfig) -> KernelLimits {
    let volume = |limit| (limit != XFRM_INF).then_some(limit);
    let time = |limit| (limit != 0).then_some(Duration::from_secs(limit));
    KernelLimits {
        soft_bytes: volume(limits.soft_byte_limit),
        hard_bytes: volume(limits.hard_byte_limit),
        soft_packets: volume(limits.soft_packet_limit),
        hard_packets: volume(limits.hard_packet_limit),
        soft_time: time(limits.soft_add_expires_seconds),
        hard_time: time(limits.hard_add_expires_seconds),
    }
}

/// A state has the flags of its own direction only, so the other ones say what the default says.
fn read_copy(flags: u8, extra: u32) -> HeaderCopy {
    let outward = extra & XFRM_SA_XFLAG_DONT_ENCAP_DSCP == 0;
    let dscp = match (outward, flags & XFRM_STATE_DECAP_DSCP != 0) {
        (true, false) => CopyDscp::Out,
        (true, true) => CopyDscp::Yes,
        (false, true) => CopyDscp::In,
        (false, false) => CopyDscp::No,
    };
    HeaderCopy { df: flags & XFRM_STATE_NOPMTUDISC == 0, ecn: flags & XFRM_STATE_NOECN == 0, dscp }
}

fn read_encapsulation(
    attributes: &[u8],
    direction: Option<Direction>,
    family: Family,
) -> Option<(UdpEncapsulation, Option<IpAddr>)> {
    let template = EncapTmpl::parse(attribute(attributes, XFRMA_ENCAP)?.get(..XFRM_ENCAP_TMPL_LEN)?).ok()?;
    (template.encap_type == UDP_ENCAP_ESPINUDP).then_some(())?;
    let (local_port, remote_port) = match direction {
        Some(Direction::Inbound) => (template.encap_dport, template.encap_sport),
        Some(Direction::Outbound | Direction::Forward) | None => (template.encap_sport, template.encap_dport),
    };
    let original = unpadded(family, template.encap_oa.addr);
    Some((UdpEncapsulation { local_port, remote_port }, Some(original).filter(|address| !address.is_unspecified())))
}

#[cfg(test)]
mod tests;
