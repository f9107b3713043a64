//! State of the double: time, devices, reports, and what the host around it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::ip::{self, Packet};
use super::outbound::{Held, Partial};
use super::sad::Sa;
use super::spi::Spis;
use super::tables::{Books, Policy};
use crate::backend::{Event, Reports, Request};
use crate::capability::{DeviceState, DeviceTable};
use crate::conformance::setup::LOCAL;
use crate::conformance::{Fate, OuterPacket};
use crate::handle::{DeviceId, PolicyHandle, SaHandle, Spi, Tag};
use crate::limits::Volume;
use crate::policy::{GuardSpec, PolicyAction};
use crate::sa::{Direction, OffloadMode};
use crate::selector::{PacketSelectors, SelectorPair};
use crate::time::Instant;

const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

pub(super) struct State {
    reports: Arc<dyn Reports>,
    pub(super) fault: Option<Fault>,
    pub(super) devices: DeviceTable,
    pub(super) now: Instant,
    pub(super) books: Books,
    pub(super) guards: BTreeSet<GuardSpec>,
    pub(super) spis: Spis,
    pub(super) order: u64,
    pub(super) holds: BTreeMap<PolicyHandle, Held>,
    pub(super) partial: Option<Partial>,
    /// Reasons for drops that were told.
    told: BTreeMap<&'static str, u64>,
    /// The device refuses the next SA.
    pub(super) refuse_next: bool,
    pub(super) closed: bool,
    /// Requests put off by mistake.
    pub(super) waiting: Vec<(Tag, Request)>,
    /// What a device that forgets nothing comes back with.
    stale: Option<Books>,
    /// On the outer side.
    pub(super) sent: Vec<OuterPacket>,
    /// On the protected side.
    pub(super) delivered: Vec<Vec<u8>>,
}

impl State {
    pub(super) fn new(reports: Arc<dyn Reports>, mut devices: DeviceTable, fault: Option<Fault>) -> Self {
        if fault == Some(Fault::WorstFirst) {
            devices.devices.iter_mut().for_each(|device| device.rungs.reverse());
        }
        Self {
            reports,
            fault,
            devices,
            now: Instant::new(Duration::from_secs(1_000)),
            books: Books::default(),
            guards: BTreeSet::new(),
            spis: Spis::new(fault),
            order: 0,
            holds: BTreeMap::new(),
            partial: None,
            told: BTreeMap::new(),
            refuse_next: false,
            closed: false,
            stale: None,
            waiting: Vec::new(),
            sent: Vec::new(),
            delivered: Vec::new(),
        }
    }

    pub(super) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(super) fn reserve_spi(&mut self) -> Option<Spi> {
        self.spis.reserve()
    }

    /// Tells what happened, unless the fault is not to.
    pub(super) fn report(&self, event: Event) {
        let times = self.times(&event);
        (0..times).for_each(|_| self.reports.event(event.clone()));
    }

    /// Counts a packet that went no further.
    pub(super) fn drop_packet(&mut self, reason: &'static str) {
        let count = self.told.entry(reason).or_default();
        *count += 1;
        if *count == 1 || self.fault == Some(Fault::TellsEveryDrop) {
            self.report(Event::Drops { reason, packets: 1 });
        }
    }

    pub(super) fn pass_time(&mut self, span: Duration) {
        self.now = self.now + span;
        let now = self.now;
        let events: Vec<Event> = self.books.sas.values_mut().flat_map(|sa| sa.age(now)).collect();
        events.into_iter().for_each(|event| self.report(event));
    }

    pub(super) fn set_device(&mut self, id: DeviceId, state: DeviceState) {
        self.devices.devices.iter_mut().filter(|device| device.id == id).for_each(|device| device.state = state);
    }

    /// A device goes down, and its tables with it.
    pub(super) fn pull(&mut self, id: DeviceId) {
        self.set_device(id, DeviceState::Down);
        self.stale = self.is(Fault::ReturnsStale).then(|| self.books.clone());
        self.books.sas.retain(|_, sa| sa.spec.device != id);
        self.books.policies.retain(|_, policy| policy.spec.device != id);
        self.report(Event::DeviceDown(id));
    }

    /// The device is back, with empty tables.
    pub(super) fn plug(&mut self, id: DeviceId) {
        self.set_device(id, DeviceState::Up);
        if let Some(mut stale) = self.stale.take() {
            stale.sas.values_mut().for_each(Sa::start_over);
            self.books = stale;
        }
        self.report(Event::DeviceUp(id));
    }

    /// The device forgets an SA.
    pub(super) fn lose(&mut self, sa: SaHandle) {
        // Removing cannot fail.
        let _ = self.apply(&[crate::backend::Op::RemoveSa(sa)]);
        self.report(Event::StateLost { sa });
    }

    pub(super) fn pretend_carried(&mut self, sa: SaHandle, volume: Volume) -> bool {
        let Some(sa) = self.books.sas.get_mut(&sa) else { return false };
        sa.packets += volume.packets.unwrap_or(0);
        sa.sequence += volume.packets.unwrap_or(0);
        sa.bytes += volume.bytes.unwrap_or(0);
        true
    }

    /// The entry of a direction that decides about a packet: offloaded ones first, then by priority, then the one touched last. One without an SA
    /// yields to an equal one that has one.
    pub(super) fn decides(&self, direction: Direction, matches: impl Fn(&Policy) -> bool) -> Option<&Policy> {
        let rank = |policy: &&Policy| self.rank(policy);
        let mut all: Vec<&Policy> = self.books.policies.values().collect();
        all.retain(|policy| policy.spec.direction == direction && matches(policy));
        let owner = all.iter().copied().min_by_key(rank)?;
        if !matches!(owner.spec.action, PolicyAction::Protect { .. }) || owner.sa.is_some() {
            return Some(owner);
        }
        let equal = |policy: &&&Policy| {
            policy.spec.priority == owner.spec.priority
                && policy.spec.selectors == owner.spec.selectors
                && policy.sa.is_some()
                && !self.is(Fault::HidesWithReserved)
        };
        all.iter().filter(equal).min_by_key(|policy| rank(policy)).copied().or(Some(owner))
    }

    /// The least one decides.
    fn rank(&self, policy: &Policy) -> (bool, u32, u64) {
        let software = policy.mode.mode != OffloadMode::Packet && !self.is(Fault::MixesRungs);
        let priority = policy.spec.priority;
        let priority = if self.is(Fault::HighestNumberFirst) { u32::MAX - priority } else { priority };
        let order = if self.is(Fault::FirstOwnerStays) { policy.order } else { u64::MAX - policy.order };
        (software, priority, order)
    }

    /// Whether an outbound packet is one of a policy.
    pub(super) fn covers(&self, policy: &Policy, packet: &PacketSelectors) -> bool {
        let pair = &policy.spec.selectors;
        let whatever_ports = policy.spec.action == PolicyAction::Bypass && self.is(Fault::WidensBypass);
        if whatever_ports {
            let SelectorPair { local, remote } = pair;
            return local.addresses.contains(packet.source) && remote.addresses.contains(packet.destination);
        }
        pair.matches_outbound(packet)
    }

    /// What becomes of a packet in clear.
    pub(super) fn host(&self, direction: Direction, octets: &[u8]) -> Option<Fate> {
        let packet = ip::parse(octets)?;
        Some(match direction {
            Direction::Outbound => self.leaving(&packet),
            Direction::Inbound | Direction::Forward => self.arriving(&packet),
        })
    }

    fn leaving(&self, packet: &Packet) -> Fate {
        if self.passes_as_ike(packet, true) {
            return Fate::Clear;
        }
        let decides = self.decides(Direction::Outbound, |policy| self.covers(policy, &packet.selectors));
        match decides.map(|policy| &policy.spec.action) {
            Some(PolicyAction::Protect { .. } | PolicyAction::Trap { .. }) => Fate::Datapath,
            Some(PolicyAction::Discard) => Fate::Blocked,
            Some(PolicyAction::Bypass) => Fate::Clear,
            None if self.is_guarded(|guard| guard.selectors.matches_outbound(&packet.selectors)) => Fate::Blocked,
            None => Fate::Clear,
        }
    }

    pub(super) fn arriving(&self, packet: &Packet) -> Fate {
        if self.passes_as_ike(packet, false) || self.is(Fault::AcceptsClear) {
            return Fate::Clear;
        }
        let matches = |policy: &Policy| policy.spec.selectors.matches_inbound(&packet.selectors);
        match self.decides(Direction::Outbound, matches).map(|policy| &policy.spec.action) {
            Some(PolicyAction::Protect { .. } | PolicyAction::Trap { .. } | PolicyAction::Discard) => Fate::Blocked,
            Some(PolicyAction::Bypass) => Fate::Clear,
            None if self.is_guarded(|guard| guard.selectors.matches_inbound(&packet.selectors)) => Fate::Blocked,
            None => Fate::Clear,
        }
    }

    /// Our own addresses and ports only: a host behind us that speaks IKE is protected like everything else.
    pub(super) fn passes_as_ike(&self, packet: &Packet, outbound: bool) -> bool {
        let own = |address: IpAddr| address == LOCAL || address == LOCAL_V6;
        let ike = ip::ike_end(packet, outbound).is_some_and(|address| own(address) || self.is(Fault::WideBypass));
        ike && !self.is(Fault::NoBypass)
    }
}
