//! SAD entries of the double: counters, limits, sequence numbers, window.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::backend::{Event, LimitUnit, SaStatus};
use crate::capability::LimitUnits;
use crate::limits::{Limits, Volume};
use crate::sa::{Direction, ModeInUse, SaSpec};
use crate::time::Instant;

/// Where the high half of a number is guessed without a window.
const REACH: u64 = 1024;

/// An SAD entry.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    pub(super) spec: SaSpec,
    pub(super) mode: ModeInUse,
    limits: Limits,
    installed: Instant,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Highest number sent or accepted.
    pub(super) sequence: u64,
    /// Numbers accepted inside the window.
    seen: BTreeSet<u64>,
    last_used: Option<Instant>,
    soft: Option<LimitUnit>,
    pub(super) hard: Option<LimitUnit>,
    pub(super) used: bool,
    pub(super) form_told: bool,
    pub(super) remote_told: Option<SocketAddr>,
}

impl Sa {
    pub(super) fn new(spec: SaSpec, mode: ModeInUse, units: LimitUnits, now: Instant) -> Self {
        let limits = if spec.direction == Direction::Outbound {
            spec.limits.bounded(spec.algorithm, spec.esn)
        } else {
            spec.limits
        };
        let limits = Limits { soft: raised(limits.soft, units), hard: raised(limits.hard, units) };
        Self {
            limits,
            mode,
            installed: now,
            packets: 0,
            bytes: 0,
            sequence: spec.initial_sequence,
            seen: BTreeSet::new(),
            last_used: None,
            soft: None,
            hard: None,
            used: false,
            form_told: false,
            remote_told: None,
            spec,
        }
    }

    /// What a mistaken move does.
    pub(super) fn start_over(&mut self) {
        (self.packets, self.bytes, self.sequence) = (0, 0, self.spec.initial_sequence);
        self.seen.clear();
    }

    // RFC 4303 §3.3.3: numbers never repeat under one key
    /// The next number of an outbound SA, while there is one.
    pub(super) fn next_sequence(&mut self) -> Option<u64> {
        let next = self.sequence.checked_add(1).filter(|next| *next <= self.last_sequence())?;
        self.sequence = next;
        Some(next)
    }

    /// The last number there is.
    pub(super) fn last_sequence(&self) -> u64 {
        if self.spec.esn { u64::MAX } else { u64::from(u32::MAX) }
    }

    // RFC 4303 §2.2.1, §A2.2: the lowest number from the window's left edge on that ends in `low`
    /// The whole number of a packet that shows only the lower half.
    pub(super) fn extend(&self, low: u32) -> Option<u64> {
        if !self.spec.esn {
            return Some(u64::from(low));
        }
        let reach = if self.spec.replay_window == 0 { REACH } else { u64::from(self.spec.replay_window) };
        let edge = self.sequence.saturating_sub(reach - 1);
        let number = (edge & !u64::from(u32::MAX)) | u64::from(low);
        if number < edge { number.checked_add(1 << 32) } else { Some(number) }
    }

    /// What takes the upper half for that of the highest number so far: a mistake.
    pub(super) fn extend_badly(&self, low: u32) -> Option<u64> {
        let high = if self.spec.esn { self.sequence & !u64::from(u32::MAX) } else { 0 };
        Some(high | u64::from(low))
    }

    // RFC 4303 §3.4.3: neither old nor known
    /// Whether a number is acceptable.
    pub(super) fn accepts(&self, number: u64) -> bool {
        let window = u64::from(self.spec.replay_window);
        if window == 0 || number > self.sequence {
            return number != 0;
        }
        number > self.spec.initial_sequence && self.sequence - number < window && !self.seen.contains(&number)
    }

    /// Notes the number of an authentic packet; true when it is the highest so far.
    pub(super) fn advance(&mut self, number: u64) -> bool {
        let ahead = number > self.sequence;
        self.sequence = self.sequence.max(number);
        let edge = self.sequence.saturating_sub(u64::from(self.spec.replay_window));
        self.seen.insert(number);
        self.seen = self.seen.split_off(&edge);
        ahead
    }

    /// Counts a packet that was carried, and says what it reached.
    pub(super) fn book(&mut self, octets: usize, now: Instant) -> Vec<Event> {
        self.packets += 1;
        self.bytes += octets as u64;
        self.last_used = Some(now);
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        let Limits { soft, hard } = self.limits;
        let mut events = Vec::new();
        let units = [(LimitUnit::Packets, soft.packets, hard.packets, self.packets)];
        for (unit, soft, hard, value) in
            units.into_iter().chain([(LimitUnit::Bytes, soft.bytes, hard.bytes, self.bytes)])
        {
            events.extend(reached(soft, value).then(|| self.soften(unit)).flatten());
            events.extend(reached(hard, value).then(|| self.expire(unit)).flatten());
        }
        events
    }

    /// What the time since install has reached.
    pub(super) fn age(&mut self, now: Instant) -> Vec<Event> {
        let age = now.saturating_since(self.installed);
        let reached = |limit: Option<std::time::Duration>| limit.is_some_and(|limit| age >= limit);
        let (soft, hard) = (reached(self.limits.soft.time), reached(self.limits.hard.time));
        let soft = soft.then(|| self.soften(LimitUnit::Time)).flatten();
        soft.into_iter().chain(hard.then(|| self.expire(LimitUnit::Time)).flatten()).collect()
    }

    fn soften(&mut self, unit: LimitUnit) -> Option<Event> {
        let first = self.soft.is_none() && self.hard.is_none();
        first.then(|| {
            self.soft = Some(unit);
            Event::SoftExpire { sa: self.spec.handle, unit }
        })
    }

    /// Ends the SA.
    pub(super) fn expire(&mut self, unit: LimitUnit) -> Option<Event> {
        self.hard.is_none().then(|| {
            self.hard = Some(unit);
            Event::HardExpire { sa: self.spec.handle, unit }
        })
    }

    pub(super) fn status(&self, now: Instant) -> SaStatus {
        SaStatus {
            sa: self.spec.handle,
            device: self.spec.device,
            spi: self.spec.spi,
            bytes: self.bytes,
            packets: self.packets,
            idle_seconds: self.last_used.map(|last| now.saturating_since(last).as_secs()),
            sequence: self.sequence,
            soft_expired: self.soft,
            hard_expired: self.hard,
            mode: self.mode.clone(),
        }
    }
}

/// The limits that the rung raises; the others are for whoever watches the counters.
fn raised(volume: Volume, units: LimitUnits) -> Volume {
    Volume {
        time: volume.time.filter(|_| units.time),
        bytes: volume.bytes.filter(|_| units.bytes),
        packets: volume.packets.filter(|_| units.packets),
    }
}
