//! A kernel's IPsec in memory, with the semantics that matter and the traps that were found in the real one.
//!
//! Policies in a device are looked up first and a hit ends the search; a policy finds only states where it is itself; what finds none asks for one, once
//! for each larval state, and its packets wait with the policy until that is replaced. States and policies of a device go with its link without a
//! word. All states are in one list of the hash table, so that what software holds hides what is in devices wherever it can. A soft limit is told once, a hard one deletes. A driver takes what its script says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipsec::{Direction, EspAlgorithm, PacketSelectors, SaMode, SelectorPair};
use offload_host::KernelError;
use offload_host::xfrm::{PolicyKey, Verdict, Way};

use super::packet::{matches, octets, readdressed, selectors};
use crate::xfrm::{
    DeviceOffload, KernelEvent, NewState, Policy, State, StateDetail, StateId, Template, Xfrm, XfrmError,
};

/// Packets that wait with one policy.
const QUEUE: usize = 100;
/// How long a larval state is waited for.
const LARVAL: Duration = Duration::from_secs(30);

/// What a driver does.
#[derive(Clone, Debug, Default)]
pub(super) struct Driver {
    pub(super) packet: bool,
    pub(super) crypto: bool,
    /// Empty = all.
    pub(super) algorithms: Vec<EspAlgorithm>,
    pub(super) no_esn: bool,
    /// Empty = all.
    pub(super) windows: Vec<u32>,
    pub(super) states: Option<usize>,
    pub(super) policies: Option<usize>,
}

/// A state with what is behind it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) state: State,
    direction: Direction,
    selector: Option<PolicyKey>,
    expires: Option<Duration>,
    dying: bool,
    window: u32,
    seen: BTreeSet<u64>,
    /// Waits for one to come in its place.
    larval: bool,
}

/// What becomes of a packet that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Clear,
    Esp(StateId, u64),
    Dropped,
    Waits,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) states: BTreeMap<StateId, Held>,
    /// The list in which states are found for policies.
    list: Vec<StateId>,
    pub(super) policies: BTreeMap<PolicyKey, Policy>,
    waiting: BTreeMap<PolicyKey, Vec<Vec<u8>>>,
    larvals: Vec<(IpAddr, IpAddr, u32, Duration)>,
    pub(super) events: VecDeque<KernelEvent>,
    pub(super) drivers: BTreeMap<u32, Driver>,
    /// It takes no notice of XFRMA_OFFLOAD_DEV.
    pub(super) ignoring: bool,
    /// The same for the next policy only.
    pub(super) ignoring_once: bool,
    /// It has no ESP.
    pub(super) no_esp: bool,
    /// After how many changes the next one fails, once.
    pub(super) fails_after: Option<u32>,
    /// States to come that are refused.
    pub(super) refuse: u32,
    pub(super) now: Duration,
    indexes: u32,
    /// What guards stand for.
    pub(super) guards: Vec<SelectorPair>,
    /// Packets that got a state while they waited, in order.
    pub(super) released: Vec<(Vec<u8>, Sent)>,
    /// How often single states were read.
    pub(super) reads: u32,
    /// Keys that were without a policy for a moment after having had one.
    pub(super) gaps: Vec<PolicyKey>,
}

/// The kernel, for whoever holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<World>>);

impl Memory {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Whether no policy and no state is left.
    pub(super) fn is_empty(&self) -> bool {
        let world = self.world();
        world.policies.is_empty() && world.states.is_empty()
    }

    /// Numbers of states and policies.
    pub(super) fn counts(&self) -> (usize, usize) {
        let world = self.world();
        (world.states.len(), world.policies.len())
    }
}

fn refused(errno: i32, text: &str) -> XfrmError {
    XfrmError::Refused(KernelError { errno, text: (!text.is_empty()).then(|| text.to_owned()) })
}

impl Xfrm for Memory {
    fn add_state(&mut self, new: &NewState<'_>) -> Result<(), XfrmError> {
        self.world().add(new)
    }

    fn delete_state(&mut self, id: &StateId) -> Result<bool, XfrmError> {
        let mut world = self.world();
        let there = world.states.remove(id).is_some();
        if there {
            world.events.push_back(KernelEvent::StateDeleted(*id));
        }
        Ok(there)
    }

    fn state(&mut self, id: &StateId) -> Result<Option<State>, XfrmError> {
        let mut world = self.world();
        world.reads += 1;
        Ok(world.states.get(id).filter(|held| !held.larval).map(|held| held.state.clone()))
    }

    fn states(&mut self) -> Result<Vec<State>, XfrmError> {
        Ok(self.world().states.values().filter(|held| !held.larval).map(|held| held.state.clone()).collect())
    }

    fn put_policy(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError> {
        self.world().put(policy, replace)
    }

    fn delete_policy(&mut self, key: &PolicyKey, index: u32) -> Result<bool, XfrmError> {
        let mut world = self.world();
        world.fail()?;
        if !world.policies.get(key).is_some_and(|there| index == 0 || there.index == index) {
            return Ok(false);
        }
        world.policies.remove(key);
        world.waiting.remove(key);
        // Those of other groups go on.
        let selector = |key: &PolicyKey| PolicyKey { user: 0, ..*key };
        if !world.policies.keys().any(|other| selector(other) == selector(key)) {
            world.gaps.push(*key);
        }
        world.events.push_back(KernelEvent::PolicyDeleted(*key));
        Ok(true)
    }

    fn policy(&mut self, key: &PolicyKey) -> Result<Option<Policy>, XfrmError> {
        Ok(self.world().policies.get(key).copied())
    }

    fn policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        Ok(self.world().policies.values().copied().collect())
    }
}

impl World {
    fn fail(&mut self) -> Result<(), XfrmError> {
        match self.fails_after {
            Some(0) => {
                self.fails_after = None;
                Err(refused(libc::ENOMEM, ""))
            }
            after => {
                self.fails_after = after.map(|after| after - 1);
                Ok(())
            }
        }
    }

    fn add(&mut self, new: &NewState<'_>) -> Result<(), XfrmError> {
        // All but anchors: what becomes of those is no reason to refuse anything.
        if new.offload.is_some() || new.selector.is_some() || new.direction == Direction::Outbound {
            self.fail()?;
        }
        if self.no_esp {
            return Err(refused(libc::EPROTONOSUPPORT, "Requested type not found"));
        }
        if self.states.contains_key(&new.id) {
            return Err(refused(libc::EEXIST, ""));
        }
        if self.refuse > 0 && new.reqid.0 < 0x4300_0000 {
            self.refuse -= 1;
            return Err(refused(libc::EINVAL, "the driver does not like it"));
        }
        let offload = match new.offload.filter(|_| !self.ignoring) {
            Some(offload) => self.drive(new, offload)?,
            None => None,
        };
        let state = State {
            id: new.id,
            source: new.source,
            reqid: new.reqid.0,
            if_id: new.tags.if_id,
            mode: Some(new.mode),
            direction: Some(new.direction),
            offload,
            bytes: 0,
            packets: 0,
            sent_sequence: if new.direction == Direction::Outbound { new.initial_sequence } else { 0 },
            received_sequence: if new.direction == Direction::Inbound { new.initial_sequence } else { 0 },
            added: self.now.as_secs(),
            last_used: None,
            limits: new.limits,
            detail: StateDetail { algorithm: Some(new.algorithm), esn: new.esn, ..StateDetail::default() },
        };
        let expires = new.limits.hard_time.map(|time| self.now + time);
        let held = Held {
            state,
            direction: new.direction,
            selector: new.selector,
            expires,
            dying: false,
            window: new.replay_window,
            seen: BTreeSet::new(),
            larval: false,
        };
        self.enlist(new.id, offload.is_some_and(|offload| offload.packet));
        self.states.insert(new.id, held);
        self.events.push_back(KernelEvent::StateAdded(new.id));
        Ok(())
    }

    fn in_device(&self, id: &StateId) -> bool {
        self.states.get(id).and_then(|held| held.state.offload).is_some_and(|offload| offload.packet)
    }

    /// What is in a device goes to the head of the list; what is not goes before the first of its kind, or to the head if it is the first.
    fn enlist(&mut self, id: StateId, in_device: bool) {
        self.list.retain(|there| self.states.contains_key(there));
        let first = self.list.iter().position(|there| !self.in_device(there)).filter(|_| !in_device);
        self.list.insert(first.unwrap_or(0), id);
    }

    fn drive(&self, new: &NewState<'_>, offload: DeviceOffload) -> Result<Option<DeviceOffload>, XfrmError> {
        let Some(driver) = self.drivers.get(&offload.link) else {
            return if offload.packet { Err(refused(libc::EINVAL, "")) } else { Ok(None) };
        };
        if !(if offload.packet { driver.packet } else { driver.crypto }) {
            return Err(refused(libc::EINVAL, "Unsupported ipsec offload type"));
        }
        if !driver.algorithms.is_empty() && !driver.algorithms.contains(&new.algorithm) {
            return Err(refused(libc::EINVAL, "Cannot offload this algorithm"));
        }
        if driver.no_esn && new.esn {
            return Err(refused(libc::EINVAL, "Cannot offload ESN xfrm states"));
        }
        let inbound = new.direction == Direction::Inbound;
        if inbound && !driver.windows.is_empty() && !driver.windows.contains(&new.replay_window) {
            return Err(refused(libc::EINVAL, "Unsupported replay window size"));
        }
        let there = self.states.values().filter(|held| held.state.offload == Some(offload)).count();
        if driver.states.is_some_and(|most| there >= most) {
            return Err(refused(libc::ENOSPC, ""));
        }
        Ok(Some(offload))
    }

    fn put(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError> {
        self.fail()?;
        let there = self.policies.get(&policy.key).copied();
        if there.is_some() && !replace {
            return Err(refused(libc::EEXIST, ""));
        }
        let mut policy = *policy;
        if self.ignoring || std::mem::take(&mut self.ignoring_once) {
            policy.device = None;
        }
        if let Some(link) = policy.device {
            let driver = self.drivers.get(&link).filter(|driver| driver.packet);
            let driver = driver.ok_or_else(|| refused(libc::EINVAL, "Policy offload is not supported"))?;
            if policy.template.is_some_and(|template| template.reqid.0 == 0) {
                return Err(refused(libc::EINVAL, "a template needs a reqid"));
            }
            let held = self.policies.values().filter(|other| other.device == Some(link)).count();
            if policy.key.way == Way::Forward || driver.policies.is_some_and(|most| held >= most && there.is_none()) {
                return Err(refused(libc::EINVAL, "policy table is full"));
            }
        }
        if let Some(there) = there {
            policy.index = there.index;
        } else if policy.index == 0 {
            self.indexes += 8;
            policy.index = self.indexes;
        }
        self.policies.insert(policy.key, policy);
        self.events.push_back(KernelEvent::PolicyChanged(policy.key));
        for packet in self.waiting.remove(&policy.key).unwrap_or_default() {
            let sent = self.send(&packet);
            if sent != Sent::Waits {
                self.released.push((packet, sent));
            }
        }
        Ok(())
    }

    /// A link goes down, or is removed.
    pub(super) fn link_down(&mut self, link: u32) {
        self.states.retain(|_, held| held.state.offload.is_none_or(|offload| offload.link != link));
        self.policies.retain(|_, policy| policy.device != Some(link));
    }

    /// Somebody else deletes a state.
    pub(super) fn steal_state(&mut self, id: &StateId) -> bool {
        let there = self.states.remove(id).is_some();
        self.events.push_back(KernelEvent::StateDeleted(*id));
        there
    }

    /// Time passes: hard limits of time and larval states end.
    pub(super) fn pass(&mut self, span: Duration) {
        self.now += span;
        let now = self.now;
        self.larvals.retain(|(.., until)| *until > now);
        let ended: Vec<StateId> = self
            .states
            .iter()
            .filter(|(_, held)| held.expires.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.end(&id);
        }
    }

    fn end(&mut self, id: &StateId) {
        if let Some(held) = self.states.remove(id)
            && !held.larval
        {
            let State { bytes, packets, .. } = held.state;
            self.events.push_back(KernelEvent::Expired { id: *id, hard: true, bytes, packets });
        }
    }

    /// The policy that a packet meets.
    fn policy_for(&self, way: Way, packet: &PacketSelectors) -> Option<Policy> {
        self.policy_of(way, packet, |_| true)
    }

    fn policy_of(&self, way: Way, packet: &PacketSelectors, decides: impl Fn(&Policy) -> bool) -> Option<Policy> {
        let met = self.policies.values().filter(|policy| policy.key.way == way && matches(&policy.key, packet));
        let met = met.filter(|policy| decides(policy));
        met.copied().min_by_key(|policy| (policy.device.is_none(), policy.priority, policy.index))
    }

    /// What becomes of a packet that this host sends or forwards.
    pub(super) fn send(&mut self, packet: &[u8]) -> Sent {
        let Some(selectors) = selectors(packet) else { return Sent::Dropped };
        let Some(policy) = self.policy_for(Way::Out, &selectors) else {
            let guarded = self.guards.iter().any(|pair| pair.matches_outbound(&selectors));
            return if guarded { Sent::Dropped } else { Sent::Clear };
        };
        if policy.verdict == Verdict::Block {
            return Sent::Dropped;
        }
        let Some(template) = policy.template else { return Sent::Clear };
        let (source, destination) = match template.mode {
            SaMode::Tunnel => (template.source, template.destination),
            SaMode::Transport => (selectors.source, selectors.destination),
        };
        let serves = |held: &&Held| {
            let State { id, source: from, reqid, mode, offload, .. } = &held.state;
            let in_device = offload.filter(|offload| offload.packet).map(|offload| offload.link);
            held.direction == Direction::Outbound
                && !held.larval
                && (*from, id.destination, *reqid, *mode)
                    == (source, destination, template.reqid.0, Some(template.mode))
                && template.spi.is_none_or(|spi| spi == id.spi)
                && in_device == policy.device
        };
        let there = |id: &StateId| self.states.get(id);
        // For a policy in a device the search ends with what is in devices.
        let seen = self
            .list
            .iter()
            .filter_map(there)
            .take_while(|held| policy.device.is_none() || held.state.offload.is_some_and(|offload| offload.packet));
        let found = seen.into_iter().find(serves).map(|held| held.state.id);
        match found.and_then(|id| self.carry(&id, octets(packet, template.mode)).map(|number| Sent::Esp(id, number))) {
            Some(sent) => sent,
            None => self.ask(&policy, &template, (source, destination), selectors, packet),
        }
    }

    fn ask(
        &mut self,
        policy: &Policy,
        template: &Template,
        (source, destination): (IpAddr, IpAddr),
        packet: PacketSelectors,
        octets: &[u8],
    ) -> Sent {
        let name = (source, destination, template.reqid.0);
        if !self.larvals.iter().any(|(from, to, reqid, _)| (*from, *to, *reqid) == name) {
            self.larvals.push((source, destination, template.reqid.0, self.now + LARVAL));
            self.events.push_back(KernelEvent::Acquire {
                index: policy.index,
                reqid: template.reqid.0,
                packet,
                sequence: 1,
                device: policy.device,
                cpu: None,
            });
            self.keep_place(template, source);
        }
        let waiting = self.waiting.entry(policy.key).or_default();
        if waiting.len() >= QUEUE {
            return Sent::Dropped;
        }
        waiting.push(octets.to_vec());
        Sent::Waits
    }

    /// A larval state has the SPI of the template, and so keeps that name from others.
    fn keep_place(&mut self, template: &Template, source: IpAddr) {
        let Some(spi) = template.spi else { return };
        let id = StateId { destination: template.destination, spi, mark: None };
        let state = State {
            id,
            source,
            reqid: template.reqid.0,
            if_id: 0,
            mode: Some(template.mode),
            direction: None,
            offload: None,
            bytes: 0,
            packets: 0,
            sent_sequence: 0,
            received_sequence: 0,
            added: 0,
            last_used: None,
            limits: crate::xfrm::KernelLimits::default(),
            detail: StateDetail::default(),
        };
        let expires = Some(self.now + LARVAL);
        let held = Held {
            state,
            direction: Direction::Outbound,
            selector: None,
            expires,
            dying: false,
            window: 0,
            seen: BTreeSet::new(),
            larval: true,
        };
        self.enlist(id, false);
        self.states.entry(id).or_insert(held);
    }

    /// Counts a packet; gives its number, or nothing where a limit has ended the state.
    fn carry(&mut self, id: &StateId, octets: usize) -> Option<u64> {
        self.check_limits(id);
        let now = self.now;
        let held = self.states.get_mut(id)?;
        let last = if held.state.detail.esn { u64::MAX } else { u64::from(u32::MAX) };
        if held.direction == Direction::Outbound {
            held.state.sent_sequence = held.state.sent_sequence.checked_add(1).filter(|number| *number <= last)?;
        }
        held.state.packets += 1;
        held.state.bytes += octets as u64;
        let number = held.state.sent_sequence;
        if held.state.offload.is_none_or(|offload| !offload.packet) {
            held.state.last_used = Some(now.as_secs());
        } else {
            // A device tells of limits when they are reached, software with the next packet.
            self.check_limits(id);
        }
        Some(number)
    }

    pub(super) fn check_limits(&mut self, id: &StateId) {
        let Some(held) = self.states.get_mut(id) else { return };
        let State { bytes, packets, limits, .. } = held.state;
        let over = |limit: Option<u64>, count| limit.is_some_and(|limit| count >= limit);
        if over(limits.hard_bytes, bytes) || over(limits.hard_packets, packets) {
            return self.end(id);
        }
        if !held.dying && (over(limits.soft_bytes, bytes) || over(limits.soft_packets, packets)) {
            held.dying = true;
            self.events.push_back(KernelEvent::Expired { id: *id, hard: false, bytes, packets });
        }
    }

    /// What is delivered of a packet that came in ESP.
    pub(super) fn receive(
        &mut self,
        (from, to): (IpAddr, IpAddr),
        spi: u32,
        number: u64,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        let found = self.states.iter().find(|(id, held)| id.destination == to && id.spi.get() == spi && !held.larval);
        let transport = found.and_then(|(_, held)| held.state.mode) == Some(SaMode::Transport);
        // In transport mode the header is that of the packet that came.
        let packet = if transport { readdressed(packet, from, to) } else { packet.to_vec() };
        self.open(to, spi, number, &packet).then_some(packet)
    }

    fn open(&mut self, to: IpAddr, spi: u32, number: u64, packet: &[u8]) -> bool {
        let found = self.states.iter().find(|(id, held)| {
            id.destination == to && id.spi.get() == spi && held.direction == Direction::Inbound && !held.larval
        });
        let (Some(id), Some(selectors)) = (found.map(|(id, _)| *id), selectors(packet)) else { return false };
        let Some(held) = self.states.get_mut(&id) else { return false };
        let newest = held.state.received_sequence.max(number);
        if held.window > 0 && (number + u64::from(held.window) <= newest || !held.seen.insert(number)) {
            return false;
        }
        held.state.received_sequence = newest;
        let (reqid, source, selector) = (held.state.reqid, held.state.source, held.selector);
        let mode = held.state.mode.unwrap_or(SaMode::Tunnel);
        if self.carry(&id, octets(packet, mode)).is_none() {
            return false;
        }
        let names = |policy: &Policy| {
            policy.template.is_some_and(|template| {
                [0, reqid].contains(&template.reqid.0)
                    && (template.source.is_unspecified() || template.source == source)
            })
        };
        // A device matches selector and group together: what protects by other SAs is passed over.
        let decides = |policy: &Policy| policy.device.is_none() || policy.template.is_none() || names(policy);
        let Some(policy) = self.policy_of(Way::In, &selectors, decides) else { return false };
        policy.verdict == Verdict::Allow && names(&policy) && selector.is_none_or(|key| matches(&key, &selectors))
    }

    /// Whether a packet in clear that comes from outside is delivered.
    pub(super) fn receive_clear(&self, packet: &[u8]) -> bool {
        let Some(selectors) = selectors(packet) else { return false };
        let policy = self.policy_for(Way::In, &selectors);
        match policy {
            Some(policy) => policy.verdict == Verdict::Allow && policy.template.is_none(),
            None => !self.guards.iter().any(|pair| pair.matches_inbound(&selectors)),
        }
    }
}
