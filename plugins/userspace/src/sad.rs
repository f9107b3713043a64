//! Security association database: entries, their hot state, and the inbound table found by SPI.
//!
//! An [`Sa`] is immutable once published; what every packet changes lives in its [`Hot`] state, apart from the keys and in cache lines of its own.
//! Each hot state has one writing thread (the transmitting one of an outbound SA, the receiving one of an inbound SA), so counters are plain
//! loads and stores of atomics that anyone may read. Limits (RFC 4301 §4.4.2.1): a packet passes while every hard limit is above its counter;
//! the packet that reaches the limit passes and raises the event.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ike_crypto::EspKey;
use ipsec::sa::HeaderCopy;
use ipsec::{
    DeviceId, Direction, Event, Instant, LimitUnit, Limits, ModeInUse, OuterAddresses, Reports, Reqid, SaHandle,
    SaMode, SaSpec, SaStatus, SelectorPair, Spi, UdpEncapsulation,
};

use crate::esp::{self, ReplayWindow};

/// Where an SA sends to and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterPath {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// UDP ports; `None` is native ESP.
    pub encapsulation: Option<UdpEncapsulation>,
}

/// An SAD entry.
pub struct Sa {
    /// The core's name for it.
    pub handle: SaHandle,
    /// Connection and child.
    pub name: Arc<str>,
    /// Which way it works.
    pub direction: Direction,
    /// The receiver's SPI.
    pub spi: Spi,
    /// Group of the child's SAs.
    pub reqid: Reqid,
    /// Outer addresses and form.
    pub path: OuterPath,
    /// What ESP encloses.
    pub encloses: SaMode,
    /// Addresses in the peer's view, in transport mode through NAT.
    pub peer_view: Option<OuterAddresses>,
    /// 64-bit sequence numbers.
    pub esn: bool,
    /// Anti-replay window in packets; 0 is off.
    pub window: u32,
    /// Selectors that a decapsulated packet must match.
    pub selectors: Arc<[SelectorPair]>,
    /// Header field rules.
    pub copy: HeaderCopy,
    /// The device that holds it.
    pub device: DeviceId,
    /// Mode as reported.
    pub mode: ModeInUse,
    /// Cipher and keys.
    pub key: Arc<dyn EspKey>,
    /// What packets change.
    pub hot: Arc<Hot>,
    limits: Limits,
    /// Instant of the hard time limit in milliseconds; `u64::MAX` without one.
    hard_at: u64,
    /// When the SA was installed.
    installed: Instant,
}

/// State of an SA that packets change.
#[repr(align(64))]
#[derive(Debug)]
pub struct Hot {
    sequence: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds of the last packet plus one; 0 before the first.
    last_used: AtomicU64,
    /// Hash of the last remote address reported as a mapping change.
    reported_remote: AtomicU64,
    flags: AtomicU32,
    /// Tunnel mode: the largest inner packet that fits the outer path. Transport mode: what IP header and ESP may have.
    mtu: AtomicU32,
    /// Anti-replay window, inbound.
    pub window: ReplayWindow,
}

/// Things that happen to an SA once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// A soft limit was reached.
    Soft = 1,
    /// A hard limit was reached: nothing passes any more.
    Hard = 2,
    /// The first inbound packet.
    FirstUse = 4,
    /// The peer's ESP form was reported.
    Form = 8,
}

/// Flag of an outbound SA whose packets leave by another device than the one that holds it.
const ASTRAY: u32 = 16;

impl Sa {
    /// An entry from its specification. `mtu` is that of [`Hot::mtu`].
    pub fn new(spec: &SaSpec, key: Box<dyn EspKey>, mode: ModeInUse, mtu: usize, now: Instant) -> Self {
        let path = OuterPath { local: spec.outer.local, remote: spec.outer.remote, encapsulation: spec.encapsulation };
        let hot = Hot {
            sequence: AtomicU64::new(spec.initial_sequence),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_used: AtomicU64::new(0),
            reported_remote: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            mtu: AtomicU32::new(u32::try_from(mtu).unwrap_or(u32::MAX)),
            window: ReplayWindow::new(spec.initial_sequence),
        };
        Self {
            handle: spec.handle,
            name: Arc::clone(&spec.name),
            direction: spec.direction,
            spi: spec.spi,
            reqid: spec.reqid,
            path,
            encloses: spec.mode,
            peer_view: spec.peer_view,
            esn: spec.esn,
            window: spec.replay_window,
            selectors: Arc::clone(&spec.selectors),
            copy: spec.copy,
            device: spec.device,
            mode,
            key: Arc::from(key),
            hot: Arc::new(hot),
            limits: spec.limits,
            hard_at: spec.limits.hard.time.map_or(u64::MAX, |time| millis(now + time)),
            installed: now,
        }
    }

    /// The same SA on another path: key, counters and window are shared with the old entry.
    pub fn moved(&self, path: OuterPath, mtu: usize) -> Self {
        self.hot.mtu.store(u32::try_from(mtu).unwrap_or(u32::MAX), Relaxed);
        self.hot.flags.fetch_and(!(Once::Form as u32), Relaxed);
        self.hot.reported_remote.store(0, Relaxed);
        Self {
            handle: self.handle,
            name: Arc::clone(&self.name),
            direction: self.direction,
            spi: self.spi,
            reqid: self.reqid,
            path,
            encloses: self.encloses,
            peer_view: self.peer_view,
            esn: self.esn,
            window: self.window,
            selectors: Arc::clone(&self.selectors),
            copy: self.copy,
            device: self.device,
            mode: self.mode.clone(),
            key: Arc::clone(&self.key),
            hot: Arc::clone(&self.hot),
            limits: self.limits,
            hard_at: self.hard_at,
            installed: self.installed,
        }
    }

    /// Soft and hard time limit as instants.
    pub fn time_limits(&self) -> (Option<Instant>, Option<Instant>) {
        (
            self.limits.soft.time.map(|time| self.installed + time),
            self.limits.hard.time.map(|time| self.installed + time),
        )
    }

    /// The largest packet that fits, when `header` octets of it stay outside of ESP in transport mode.
    pub fn largest(&self, header: usize) -> usize {
        match self.encloses {
            SaMode::Tunnel => self.hot.mtu(),
            SaMode::Transport => header + esp::payload_room(&*self.key, self.hot.mtu().saturating_sub(header)),
        }
    }

    /// Whether packets may pass at `now`; where not, either [`Once::Hard`] has happened or they leave by another device. Finding the hard time
    /// limit passed ends the SA.
    pub fn passes(&self, now: Instant, reports: &dyn Reports) -> bool {
        if self.hot.flags.load(Relaxed) & (Once::Hard as u32 | ASTRAY) != 0 {
            return false;
        }
        if millis(now) >= self.hard_at {
            self.expire(LimitUnit::Time, reports);
            return false;
        }
        true
    }

    /// Ends the SA; the event is raised by whoever comes first.
    pub fn expire(&self, unit: LimitUnit, reports: &dyn Reports) {
        if self.hot.first_by(Once::Hard, unit) {
            reports.event(Event::HardExpire { sa: self.handle, unit });
        }
    }

    /// Raises the soft limit, once and not after the hard one.
    pub fn soften(&self, unit: LimitUnit, reports: &dyn Reports) {
        if !self.hot.is(Once::Hard) && self.hot.first_by(Once::Soft, unit) {
            reports.event(Event::SoftExpire { sa: self.handle, unit });
        }
    }

    /// Takes the next sequence number, or ends the SA when there is none: numbers never wrap (RFC 4303 §3.3.3).
    pub fn next_sequence(&self, reports: &dyn Reports) -> Option<u64> {
        let last = if self.esn { u64::MAX } else { u64::from(u32::MAX) };
        let current = self.hot.sequence.load(Relaxed);
        if current >= last {
            self.expire(LimitUnit::Packets, reports);
            return None;
        }
        self.hot.sequence.store(current + 1, Relaxed);
        Some(current + 1)
    }

    /// Counts a packet that passed and raises what it reached.
    pub fn book(&self, octets: usize, now: Instant, reports: &dyn Reports) {
        let packets = self.hot.packets.load(Relaxed) + 1;
        let bytes = self.hot.bytes.load(Relaxed) + octets as u64;
        self.hot.packets.store(packets, Relaxed);
        self.hot.bytes.store(bytes, Relaxed);
        self.hot.last_used.store(millis(now) + 1, Relaxed);
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        // Soft first, so that an SA with both at one value reports both.
        if reached(self.limits.soft.packets, packets) {
            self.soften(LimitUnit::Packets, reports);
        }
        if reached(self.limits.soft.bytes, bytes) {
            self.soften(LimitUnit::Bytes, reports);
        }
        if reached(self.limits.hard.packets, packets) {
            self.expire(LimitUnit::Packets, reports);
        }
        if reached(self.limits.hard.bytes, bytes) {
            self.expire(LimitUnit::Bytes, reports);
        }
    }

    /// Adds to what the SA has carried, as if that many packets had passed; a packet that passes at the same moment may undo it.
    pub(crate) fn pretend(&self, packets: u64, bytes: u64) {
        self.hot.packets.fetch_add(packets, Relaxed);
        self.hot.bytes.fetch_add(bytes, Relaxed);
        if self.direction == Direction::Outbound {
            self.hot.sequence.fetch_add(packets, Relaxed);
        }
    }

    /// Counters as the contract reports them.
    pub fn status(&self, now: Instant) -> SaStatus {
        let last_used = self.hot.last_used.load(Relaxed);
        let sequence = match self.direction {
            Direction::Outbound => self.hot.sequence.load(Relaxed),
            Direction::Inbound | Direction::Forward => self.hot.window.top(),
        };
        let (packets, bytes) = (self.hot.packets.load(Relaxed), self.hot.bytes.load(Relaxed));
        SaStatus {
            sa: self.handle,
            device: self.device,
            spi: self.spi,
            bytes,
            packets,
            idle_seconds: last_used.checked_sub(1).map(|last| millis(now).saturating_sub(last) / 1_000),
            sequence,
            soft_expired: self.hot.unit(Once::Soft),
            hard_expired: self.hot.unit(Once::Hard),
            mode: self.mode.clone(),
        }
    }
}

impl Hot {
    /// Whether `what` has happened.
    pub fn is(&self, what: Once) -> bool {
        self.flags.load(Relaxed) & what as u32 != 0
    }

    /// Notes that `what` happens; true the first time.
    pub fn first(&self, what: Once) -> bool {
        !self.is(what) && self.flags.fetch_or(what as u32, Relaxed) & what as u32 == 0
    }

    /// As [`Self::first`], and remembers the limit whose reaching it was.
    pub fn first_by(&self, what: Once, unit: LimitUnit) -> bool {
        let bits = what as u32 | (unit_bits(unit) << unit_shift(what));
        let note = |flags: u32| (flags & what as u32 == 0).then_some(flags | bits);
        self.flags.fetch_update(Relaxed, Relaxed, note).is_ok()
    }

    /// The limit that [`Self::first_by`] was told, if `what` has happened.
    pub fn unit(&self, what: Once) -> Option<LimitUnit> {
        let flags = self.flags.load(Relaxed);
        let bits = (flags >> unit_shift(what)) & UNIT_MASK;
        let unit =
            [LimitUnit::Time, LimitUnit::Bytes, LimitUnit::Packets].into_iter().find(|unit| unit_bits(*unit) == bits);
        unit.filter(|_| flags & what as u32 != 0)
    }

    /// Notes whether packets leave by another device than the SA's; true when that is news.
    pub fn set_astray(&self, astray: bool) -> bool {
        let before = if astray { self.flags.fetch_or(ASTRAY, Relaxed) } else { self.flags.fetch_and(!ASTRAY, Relaxed) };
        (before & ASTRAY != 0) != astray
    }

    /// Notes a changed remote; true when it is not the one noted last.
    pub fn remote_changed(&self, hash: u64) -> bool {
        let changed = self.reported_remote.load(Relaxed) != hash;
        if changed {
            self.reported_remote.store(hash, Relaxed);
        }
        changed
    }

    /// Tunnel mode: the largest inner packet that fits the outer path. Transport mode: what IP header and ESP may have.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Relaxed) as usize
    }

    /// Sets [`Self::mtu`].
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(u32::try_from(mtu).unwrap_or(u32::MAX), Relaxed);
    }
}

const UNIT_MASK: u32 = 3;

const fn unit_bits(unit: LimitUnit) -> u32 {
    match unit {
        LimitUnit::Time => 1,
        LimitUnit::Bytes => 2,
        LimitUnit::Packets => 3,
    }
}

/// Where in the flags the unit of a limit is.
const fn unit_shift(what: Once) -> u32 {
    match what {
        Once::Soft => 8,
        Once::Hard => 10,
        Once::FirstUse | Once::Form => 12,
    }
}

/// Milliseconds of an instant.
pub(crate) fn millis(instant: Instant) -> u64 {
    u64::try_from(instant.since_start().as_millis()).unwrap_or(u64::MAX)
}

const CHUNK: usize = 256;
type Chunk = [Option<Arc<Sa>>; CHUNK];

/// Inbound SAs by SPI slot. Cloning shares all chunks; a change copies one.
#[derive(Clone, Default)]
pub struct InboundTable {
    chunks: Vec<Arc<Chunk>>,
}

impl InboundTable {
    /// The entry in a slot.
    pub fn get(&self, slot: u32) -> Option<&Arc<Sa>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
    }

    /// Puts an entry into a slot, or clears it.
    pub fn set(&mut self, slot: u32, sa: Option<Arc<Sa>>) {
        let slot = slot as usize;
        while self.chunks.len() <= slot / CHUNK {
            self.chunks.push(Arc::new(std::array::from_fn(|_| None)));
        }
        if let Some(chunk) = self.chunks.get_mut(slot / CHUNK)
            && let Some(place) = Arc::make_mut(chunk).get_mut(slot % CHUNK)
        {
            *place = sa;
        }
    }
}
