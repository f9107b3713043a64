//! SAs: installing and reading back, counters, and limits.
//!
//! Octets and packets are counted by the kernel or the device, which raise the limits on them. Limits of time are raised here, on CLOCK_BOOTTIME; the
//! kernel is given the hard one with a tenth added, as a backstop for SAs that outlive the process. Its clock may step, ours does not. Limits are
//! never changed in place (UPDSA): a device is not told of that.
//!
//! The kernel says nothing about the first packet of an inbound SA, so its counters are read: at first every few milliseconds, then ever more
//! rarely, each time after an eighth of its age. That is some ninety readings in an hour of an SA that is never used, and none after its first
//! packet.

mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipsec::carry::effective_limits;
use ipsec::{
    DeviceId, Direction, Event, Instant, LimitUnit, Limits, ModeInUse, OffloadError, OffloadMode, OuterAddresses,
    Reqid, SaHandle, SaMode, SaSpec, SaStatus, Spi, Volume,
};

use super::apply::{Undo, Work};
use super::{Control, Due};
use crate::refusal::Asked;
use crate::xfrm::{NewState, State, StateId, XfrmError};
use state::{id, kernel_limits, new_state, offload, sequence_bounded};

/// The shortest time between two looks for the first use of an inbound SA.
const EAGER: Duration = Duration::from_millis(10);
/// The same for each SA that is looked at, so that thousands of new ones are not read more often together than ten thousand times in a second: a
/// reading takes some ten microseconds.
const EACH: Duration = Duration::from_micros(100);
/// With more SAs than this a list reads all states of the kernel in one go.
const ONE_BY_ONE: usize = 16;

/// An SA as it is in the kernel.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    pub(super) handle: SaHandle,
    pub(super) id: StateId,
    pub(super) device: DeviceId,
    pub(super) direction: Direction,
    pub(super) reqid: Reqid,
    pub(super) encloses: SaMode,
    pub(super) outer: OuterAddresses,
    pub(super) mode: ModeInUse,
    name: Arc<str>,
    limits: Limits,
    installed: Instant,
    bytes: u64,
    packets: u64,
    sequence: u64,
    initial_sequence: u64,
    /// When the counters last moved, as far as is known.
    last_packet: Option<Instant>,
    /// When they were last read.
    read: Instant,
    soft: Option<LimitUnit>,
    pub(super) hard: Option<LimitUnit>,
    /// The last new source that was told.
    pub(super) mapping: Option<SocketAddr>,
    /// Its packets leave by another device than the one that holds it.
    pub(super) astray: bool,
}

/// All SAs of this process.
#[derive(Debug, Default)]
pub(super) struct Sas {
    sas: BTreeMap<SaHandle, Sa>,
    /// Those that are in the kernel, by what the kernel tells them apart by.
    by_id: BTreeMap<StateId, SaHandle>,
    /// Inbound SAs by their SPI, which no two of them share.
    own_spis: BTreeMap<Spi, SaHandle>,
}

impl Sas {
    pub(super) fn len(&self) -> usize {
        self.sas.len()
    }

    pub(super) fn get(&self, handle: SaHandle) -> Option<&Sa> {
        self.sas.get(&handle)
    }

    pub(super) fn get_mut(&mut self, handle: SaHandle) -> Option<&mut Sa> {
        self.sas.get_mut(&handle)
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = SaHandle> + '_ {
        self.sas.keys().copied()
    }

    /// The SA that the kernel knows by `id`.
    pub(super) fn by_id(&self, id: &StateId) -> Option<SaHandle> {
        self.by_id.get(id).copied()
    }

    /// What is offloaded to a device.
    pub(super) fn in_device(&self, device: DeviceId) -> impl Iterator<Item = SaHandle> + '_ {
        let there = move |sa: &&Sa| sa.device == device && sa.mode.mode != OffloadMode::No;
        self.sas.values().filter(there).map(|sa| sa.handle)
    }

    /// What a device does the whole data path of, outbound.
    pub(super) fn offloaded_outbound(&self) -> Vec<SaHandle> {
        let there = |sa: &&Sa| sa.mode.mode == OffloadMode::Packet && sa.direction == Direction::Outbound;
        self.sas.values().filter(there).map(|sa| sa.handle).collect()
    }

    /// Those that are in the kernel.
    pub(super) fn present(&self) -> impl Iterator<Item = (StateId, SaHandle)> + '_ {
        self.by_id.iter().map(|(id, handle)| (*id, *handle))
    }

    /// Whether an inbound SA has this SPI.
    pub(super) fn has_own_spi(&self, spi: Spi) -> bool {
        self.own_spis.contains_key(&spi)
    }

    pub(super) fn insert(&mut self, sa: Sa) {
        if sa.hard.is_none() {
            self.by_id.insert(sa.id, sa.handle);
        }
        if let Some(spi) = own_spi(&sa) {
            self.own_spis.insert(spi, sa.handle);
        }
        self.sas.insert(sa.handle, sa);
    }

    pub(super) fn remove(&mut self, handle: SaHandle) -> Option<Sa> {
        let sa = self.sas.remove(&handle)?;
        if self.by_id.get(&sa.id) == Some(&handle) {
            self.by_id.remove(&sa.id);
        }
        if self.own_spis.get(&sa.id.spi) == Some(&handle) {
            self.own_spis.remove(&sa.id.spi);
        }
        Some(sa)
    }

    pub(super) fn status(&self, handle: SaHandle, now: Instant) -> Option<SaStatus> {
        Some(self.sas.get(&handle)?.status(now))
    }
}

impl Sa {
    /// Its state as last read.
    fn status(&self, now: Instant) -> SaStatus {
        SaStatus {
            sa: self.handle,
            device: self.device,
            spi: self.id.spi,
            bytes: self.bytes,
            packets: self.packets,
            idle_seconds: self.last_packet.map(|at| now.saturating_since(at).as_secs()),
            sequence: self.sequence,
            soft_expired: self.soft,
            hard_expired: self.hard,
            mode: self.mode.clone(),
        }
    }

    /// Takes counters from the kernel. `wall` is its clock now.
    fn read(&mut self, state: &State, now: Instant, wall: u64) {
        if state.packets != self.packets {
            let since = now.saturating_since(self.read);
            // The kernel's word counts where it can be true: its clock may have stepped.
            let told = state.last_used.and_then(|at| wall.checked_sub(at)).map(Duration::from_secs);
            let ago = told.filter(|ago| *ago <= since + Duration::from_secs(1)).unwrap_or_default();
            self.last_packet = Some(now - ago.min(since));
        }
        self.read = now;
        (self.bytes, self.packets) = (state.bytes, state.packets);
        let told = match self.direction {
            Direction::Outbound => state.sent_sequence,
            Direction::Inbound | Direction::Forward => state.received_sequence,
        };
        // A device that does the whole data path keeps its numbers to itself; each packet has taken one of its own.
        self.sequence = told.max(self.initial_sequence.saturating_add(state.packets));
    }

    fn reached(&self, limit: Volume) -> Option<LimitUnit> {
        let over = |limit: Option<u64>, count| limit.is_some_and(|limit| count >= limit);
        if over(limit.packets, self.packets) {
            Some(LimitUnit::Packets)
        } else if over(limit.bytes, self.bytes) {
            Some(LimitUnit::Bytes)
        } else {
            None
        }
    }

    /// The soft limit that the counters have reached, if it asks for anything.
    fn soft_reached(&self) -> Option<LimitUnit> {
        let asking = |unit, limit: Option<u64>| limit.filter(|_| self.limits.asks(unit));
        let soft = self.limits.soft;
        let packets = asking(LimitUnit::Packets, soft.packets);
        self.reached(Volume { packets, bytes: asking(LimitUnit::Bytes, soft.bytes), time: None })
    }

    fn first_use_pending(&self) -> bool {
        self.direction == Direction::Inbound && self.packets == 0 && self.hard.is_none()
    }
}

impl Control {
    pub(super) fn install_sa(&mut self, spec: &SaSpec, work: &mut Work) -> Result<(), OffloadError> {
        let holder = self.devices.place_sa(spec)?;
        let (mode, can, held) = (holder.mode().clone(), holder.rung.capabilities.clone(), holder.sas);
        let device = Arc::clone(&holder.device.name);
        if !spec.key.fits(spec.algorithm) {
            return Err(OffloadError::Invalid(format!("key length does not fit {}", spec.algorithm)));
        }
        if spec.direction == Direction::Inbound && !self.shared.is_reserved(spec.spi) {
            return Err(OffloadError::Invalid(format!("SPI {} of an inbound SA is not a reserved one", spec.spi)));
        }
        let id = id(spec);
        if self.sas.get(spec.handle).is_some() || self.sas.by_id(&id).is_some() {
            return Err(OffloadError::Exists(format!("{:?} SA {}", spec.direction, spec.spi)));
        }
        self.make_room_for(&id, work)?;
        let limits = sequence_bounded(effective_limits(spec, &can), spec);
        let link = self.devices.link(spec.device).map(|link| link.index);
        let offload = offload(spec.offload, link);
        let asked = Asked {
            device,
            what: format!("an SA with {}", spec.algorithm),
            table: "SAD",
            held,
            rung: spec.offload,
            v4: spec.outer.local.is_ipv4(),
        };
        self.journal.added(id, spec.direction, spec.reqid.0);
        let state = new_state(spec, id, offload, kernel_limits(limits.raised(can.limits)));
        let in_device = spec.offload == OffloadMode::Packet;
        if in_device {
            self.anchor(spec.outer, spec.reqid);
        }
        if let Err(refusal) = self.add_state(&state) {
            self.journal.removed(&id);
            if in_device {
                self.lift_anchor(spec.outer, spec.reqid);
            }
            // Which of the things that are missing the kernel names first says little.
            let lacks = self.shared.lacks().filter(|_| spec.offload == OffloadMode::No);
            return Err(match (lacks, refusal) {
                (Some(lacks), XfrmError::Refused(_)) => asked.unsupported(lacks),
                (_, refusal) => asked.refused(refusal),
            });
        }
        let now = self.now();
        let sa = Sa {
            handle: spec.handle,
            id,
            device: spec.device,
            direction: spec.direction,
            reqid: spec.reqid,
            encloses: spec.mode,
            outer: spec.outer,
            mode: mode.clone(),
            name: Arc::clone(&spec.name),
            limits,
            installed: now,
            bytes: 0,
            packets: 0,
            sequence: spec.initial_sequence,
            initial_sequence: spec.initial_sequence,
            last_packet: None,
            read: now,
            soft: None,
            hard: None,
            mapping: None,
            astray: self.is_astray(spec, link),
        };
        self.devices.count_sa(sa.device, sa.mode.mode, true);
        self.schedule_sa(&sa);
        self.sas.insert(sa);
        work.undo.push(Undo::DropSa(spec.handle));
        work.answer.modes.push((spec.handle, mode));
        Ok(())
    }

    /// Whether what an outbound SA in a device protects leaves by another one.
    fn is_astray(&self, spec: &SaSpec, link: Option<u32>) -> bool {
        let in_device = spec.offload == OffloadMode::Packet && spec.direction == Direction::Outbound;
        in_device && (self.egress)(spec.outer.local, spec.outer.remote) != link
    }

    /// Adds a state and reads back whether it is carried as was asked; what is carried otherwise is taken out.
    fn add_state(&mut self, state: &NewState<'_>) -> Result<(), XfrmError> {
        self.xfrm.add_state(state)?;
        let failure = match self.xfrm.state(&state.id) {
            Ok(Some(found)) if found.offload == state.offload => return Ok(()),
            Ok(Some(_)) => XfrmError::Ignored("the device: it carries the SA otherwise than was asked"),
            Ok(None) => XfrmError::Ignored("the SA: it is not there"),
            Err(error) => error,
        };
        if let Err(error) = self.xfrm.delete_state(&state.id) {
            tracing::error!(spi = %state.id.spi, %error, "cannot take out an SA that was not taken as asked");
        }
        Err(failure)
    }

    fn schedule_sa(&mut self, sa: &Sa) {
        let (now, handle) = (sa.installed, sa.handle);
        if let Some(soft) = sa.limits.soft.time.filter(|_| sa.limits.asks(LimitUnit::Time)) {
            self.schedule(now + soft, Due::Soft(handle));
        }
        if let Some(hard) = sa.limits.hard.time {
            self.schedule(now + hard, Due::Hard(handle));
        }
        if sa.first_use_pending() {
            self.schedule(now + EAGER.max(EACH.saturating_mul(self.fresh)), Due::FirstUse(handle));
        }
    }

    /// Takes an SA out of the books; out of the kernel it goes with the end of the request.
    pub(super) fn remove_sa(&mut self, handle: SaHandle, work: &mut Work) {
        let Some(sa) = self.sas.remove(handle) else { return };
        self.devices.count_sa(sa.device, sa.mode.mode, false);
        for policy in self.policies.users_of(handle) {
            self.set_active(policy, None, work);
        }
        work.removed.push(sa.clone());
        work.undo.push(Undo::RestoreSa(Box::new(sa)));
    }

    /// An SA that the same request has removed before has the name that another one needs: it cannot wait for the end of the request. Should that be
    /// refused, it is lost.
    fn make_room_for(&mut self, id: &StateId, work: &mut Work) -> Result<(), OffloadError> {
        let Some(at) = work.removed.iter().position(|sa| sa.id == *id && sa.hard.is_none()) else { return Ok(()) };
        // No policy may point at it without it: packets would have the kernel keep its place for a state to come.
        self.sync_dirty(work)?;
        let mut sa = work.removed.remove(at);
        let last = self.take_from_kernel(&mut sa);
        work.answer.removed.push(last);
        for undo in &mut work.undo {
            if matches!(undo, Undo::RestoreSa(removed) if removed.handle == sa.handle) {
                *undo = Undo::Lost(sa.handle);
            }
        }
        work.release.extend((sa.direction == Direction::Inbound).then_some(sa.id.spi));
        Ok(())
    }

    /// Reads the counters of an SA of ours for the last time and deletes it.
    pub(super) fn take_from_kernel(&mut self, sa: &mut Sa) -> SaStatus {
        let (now, wall) = (self.now(), (self.clock.wall)());
        match self.xfrm.state(&sa.id) {
            Ok(Some(state)) if sa.hard.is_none() => sa.read(&state, now, wall),
            // What the kernel has ended or lost by itself it has no counters of any more.
            Ok(_) => {}
            Err(error) => tracing::debug!(child = %sa.name, spi = %sa.id.spi, %error, "no last counters of an SA"),
        }
        self.delete_from_kernel(sa);
        sa.status(now)
    }

    /// Deletes an SA of ours; one that is gone is no error.
    pub(super) fn delete_from_kernel(&mut self, sa: &Sa) {
        if sa.hard.is_some() {
            return;
        }
        match self.xfrm.delete_state(&sa.id) {
            Ok(_) => {
                self.journal.removed(&sa.id);
                self.unanchor(sa);
            }
            Err(error) => tracing::error!(child = %sa.name, spi = %sa.id.spi, %error, "cannot delete an SA"),
        }
    }

    /// Reads the counters of an SA.
    ///
    /// # Errors
    /// The kernel's refusal to tell.
    pub(super) fn read_sa(&mut self, handle: SaHandle) -> Result<(), OffloadError> {
        let Some(id) = self.sas.get(handle).filter(|sa| sa.hard.is_none()).map(|sa| sa.id) else { return Ok(()) };
        match self.xfrm.state(&id).map_err(|error| told("read an SA", &error))? {
            Some(state) => self.take_reading(handle, &state),
            None => self.lost(handle),
        }
        Ok(())
    }

    /// Reads the counters of all SAs.
    ///
    /// # Errors
    /// The kernel's refusal to tell.
    pub(crate) fn read_all(&mut self) -> Result<(), OffloadError> {
        let present: Vec<_> = self.sas.present().collect();
        if present.len() <= ONE_BY_ONE {
            return present.into_iter().try_for_each(|(_, handle)| self.read_sa(handle));
        }
        let states = self.xfrm.states().map_err(|error| told("list SAs", &error))?;
        let states: BTreeMap<StateId, State> = states.into_iter().map(|state| (state.id, state)).collect();
        for (id, handle) in present {
            match states.get(&id) {
                Some(state) => self.take_reading(handle, state),
                None => self.lost(handle),
            }
        }
        Ok(())
    }

    /// Takes counters in, with what follows: first use, limits.
    pub(super) fn take_reading(&mut self, handle: SaHandle, state: &State) {
        let (now, wall) = (self.now(), (self.clock.wall)());
        let Some(sa) = self.sas.get_mut(handle) else { return };
        let fresh = sa.first_use_pending();
        sa.read(state, now, wall);
        let used = fresh && sa.packets > 0;
        if used {
            self.reports.event(Event::InboundFirstUse { sa: handle });
        }
        self.hold_to_limits(handle);
    }

    /// Tells limits that the counters of an SA have reached, and ends it at the hard one.
    fn hold_to_limits(&mut self, handle: SaHandle) {
        let Some(sa) = self.sas.get(handle) else { return };
        let hard = sa.reached(sa.limits.hard);
        if let Some(unit) = sa.soft_reached() {
            self.soften(handle, unit);
        }
        if let Some(unit) = hard {
            self.end(handle, unit);
        }
    }

    fn soften(&mut self, handle: SaHandle, unit: LimitUnit) {
        let Some(sa) = self.sas.get_mut(handle) else { return };
        if sa.soft.is_none() && sa.hard.is_none() {
            sa.soft = Some(unit);
            self.reports.event(Event::SoftExpire { sa: handle, unit });
        }
    }

    /// A hard limit is reached: the SA carries nothing any more, whether the kernel has seen that already or not.
    fn end(&mut self, handle: SaHandle, unit: LimitUnit) {
        let Some(sa) = self.sas.get(handle).filter(|sa| sa.hard.is_none()).cloned() else { return };
        self.delete_from_kernel(&sa);
        self.sas.remove(handle);
        self.sas.insert(Sa { hard: Some(unit), ..sa });
        // The policies that use it point nowhere now.
        self.refresh_users(handle);
        self.reports.event(Event::HardExpire { sa: handle, unit });
    }

    /// The kernel has told of a limit.
    pub(super) fn limit_reached(&mut self, handle: SaHandle, hard: bool, bytes: u64, packets: u64) {
        let now = self.now();
        let Some(sa) = self.sas.get_mut(handle).filter(|sa| sa.hard.is_none()) else { return };
        let first = sa.first_use_pending() && packets > 0;
        if packets != sa.packets {
            sa.last_packet = Some(now);
        }
        (sa.bytes, sa.packets, sa.read) = (bytes.max(sa.bytes), packets.max(sa.packets), now);
        if sa.direction == Direction::Outbound {
            // Each packet takes a number.
            sa.sequence = sa.sequence.max(sa.initial_sequence.saturating_add(sa.packets));
        }
        let unit = sa.reached(sa.limits.hard).unwrap_or(LimitUnit::Time);
        let soft = sa.soft_reached();
        if first {
            self.reports.event(Event::InboundFirstUse { sa: handle });
        }
        if let Some(unit) = soft {
            self.soften(handle, unit);
        }
        if hard {
            self.end(handle, unit);
        }
    }

    pub(super) fn time_is_near(&mut self, handle: SaHandle) {
        self.soften(handle, LimitUnit::Time);
    }

    pub(super) fn time_is_up(&mut self, handle: SaHandle) {
        // What it has carried to the end is counted.
        if let Err(error) = self.read_sa(handle) {
            tracing::debug!(%error, "the last counters of an SA are not known");
        }
        self.end(handle, LimitUnit::Time);
    }

    pub(super) fn look_for_first_use(&mut self, handle: SaHandle) {
        if !self.sas.get(handle).is_some_and(Sa::first_use_pending) {
            return;
        }
        if let Err(error) = self.read_sa(handle) {
            tracing::debug!(%error, "whether an SA is in use is not known");
        }
        let now = self.now();
        let Some(sa) = self.sas.get(handle).filter(|sa| sa.first_use_pending()) else { return };
        let age = now.saturating_since(sa.installed);
        let wait = EAGER.max(age / 8).max(EACH.saturating_mul(self.fresh));
        self.schedule(now + wait, Due::FirstUse(handle));
    }

    /// Somebody has taken an SA out of the kernel.
    pub(super) fn lost(&mut self, handle: SaHandle) {
        let Some(sa) = self.sas.remove(handle) else { return };
        tracing::warn!(child = %sa.name, spi = %sa.id.spi, "an SA was removed from the kernel by somebody else");
        self.devices.count_sa(sa.device, sa.mode.mode, false);
        self.journal.removed(&sa.id);
        self.unanchor(&sa);
        if sa.direction == Direction::Inbound {
            self.shared.release_spi(sa.id.spi, self.now());
        }
        self.refresh_users(handle);
        self.reports.event(Event::StateLost { sa: handle });
    }
}

pub(super) fn told(action: &str, error: &XfrmError) -> OffloadError {
    OffloadError::System { action: action.to_owned(), reason: error.to_string() }
}

/// The SPI that an SA of ours is received with.
pub(super) fn own_spi(sa: &Sa) -> Option<Spi> {
    (sa.direction == Direction::Inbound).then_some(sa.id.spi)
}
