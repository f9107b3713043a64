//! Requests: validation, all-or-nothing changes, publication, SPIs and time limits.
//!
//! Runs off the datapath. A change is made on copies that share everything unchanged, together with what has to be done at the host; when an
//! operation fails, what was done at the host and to the books is undone in reverse and nothing is published. Otherwise the new state is
//! published as a whole, and removals at the host and of SPIs follow.

mod apply;
mod leaving;
mod links;
mod simulate;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use ipsec::{
    Answer, DeviceId, DeviceTable, Direction, GuardSpec, Installed, Instant, LimitUnit, OffloadError, OnStop,
    PolicyHandle, PolicySpec, PolicyStatus, Reports, Request, SaHandle, SaMode, SaStatus, Scope, SelectorPair, Spi,
    TableFull,
};

pub use self::leaving::{LONGEST as LONGEST_USE, Leaving, Outcome};
use crate::drops::DropCounters;
use crate::engine::{Shared, Tables};
use crate::esp;
use crate::nic::{Devices, Faults, Reporter, Simulation};
use crate::sad::{InboundTable, OuterPath, Sa};
use crate::spd::{Action, Policy, Spd};
use ipsec::spi::{Permutation, SpiTable};

/// Smallest replay window other than none.
pub const MIN_WINDOW: u32 = 32;

/// What the datapath needs done outside of itself: guard, routes, addresses, path MTU.
pub trait Surroundings: Send {
    /// Puts up the guard for a selector.
    ///
    /// # Errors
    /// The system's refusal.
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError>;
    /// Takes the guard down.
    ///
    /// # Errors
    /// The system's refusal.
    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError>;
    /// Leads the traffic of an outbound policy into the tunnel device, or a bypass around it.
    ///
    /// # Errors
    /// The system's refusal.
    fn install_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError>;
    /// Undoes [`Self::install_route`].
    ///
    /// # Errors
    /// The system's refusal.
    fn remove_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError>;
    /// Keeps the way between the outer addresses of an outbound SA free.
    ///
    /// # Errors
    /// The system's refusal.
    fn install_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), OffloadError>;
    /// Undoes [`Self::install_outer`].
    ///
    /// # Errors
    /// The system's refusal.
    fn remove_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), OffloadError>;
    /// Our address inside the local selector.
    fn address_inside(&mut self, selectors: &SelectorPair) -> Option<IpAddr>;
    /// An address of ours of each family, where there is one.
    fn addresses(&mut self) -> Vec<IpAddr>;
    /// Path MTU between two outer addresses.
    fn path_mtu(&mut self, local: IpAddr, remote: IpAddr) -> usize;
    /// Follows changes of the host's addresses and links. Gives what somebody else had taken away and stands again, in words.
    ///
    /// # Errors
    /// The system's refusal.
    fn refresh(&mut self) -> Result<Vec<String>, OffloadError>;
    /// What an earlier run left in force and nobody has claimed since, in words.
    fn leftovers(&self) -> Vec<String>;
    /// Takes that back.
    ///
    /// # Errors
    /// The system's refusal.
    fn drop_leftovers(&mut self) -> Result<(), OffloadError>;
    /// Points routes and guard at the tunnel device of this interface index, or at none.
    ///
    /// # Errors
    /// The system's refusal.
    fn renew_device(&mut self, ifindex: Option<u32>) -> Result<(), OffloadError>;
    /// Takes back what must not outlive the process; the guard as `on_stop` says.
    ///
    /// # Errors
    /// The system's refusal.
    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError>;
}

/// What the datapath is told it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the device.
    pub device: Arc<str>,
    /// MTU of the device.
    pub mtu: usize,
    /// The NICs it poses as.
    pub simulation: Option<Simulation>,
}

/// Tells the link that packets between two outer addresses leave by, where there is exactly one.
pub type Egress = Box<dyn Fn(IpAddr, IpAddr) -> Option<u32> + Send + Sync>;

/// A clock: time since the start of the machine, suspended time included.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The books of the backend.
pub struct Control {
    shared: Arc<Shared>,
    identity: Identity,
    clock: Clock,
    spis: Mutex<SpiTable>,
    state: Mutex<State>,
    /// Devices as last seen; changed together with those of the state.
    devices: ArcSwap<DeviceTable>,
    /// Devices by the number of the link they pose as.
    by_index: ArcSwap<BTreeMap<u32, DeviceId>>,
    /// Where links pose as devices.
    egress: OnceLock<Egress>,
    /// Where reports go when they may be told to go astray.
    reporter: Option<Arc<Reporter>>,
    /// Called after each publication, so that sleeping datapath threads look at it.
    wake: Box<dyn Fn() + Send + Sync>,
}

struct State {
    tables: Tables,
    sas: BTreeMap<SaHandle, Arc<Sa>>,
    policies: BTreeMap<PolicyHandle, (PolicySpec, Arc<Policy>)>,
    /// Outbound policies by the SA they use.
    users: BTreeMap<SaHandle, BTreeSet<PolicyHandle>>,
    /// SPIs of outbound SAs with their receivers: no two are equal.
    outbound_spis: BTreeSet<(Spi, IpAddr)>,
    /// Inbound policies that discard.
    inbound_discards: usize,
    deadlines: BinaryHeap<Reverse<(Instant, SaHandle, Limit)>>,
    surroundings: Box<dyn Surroundings>,
    devices: Devices,
    /// What is told to go wrong.
    faults: Faults,
    /// What is told of SAs whose counters stand still.
    frozen: BTreeMap<SaHandle, SaStatus>,
    /// Counts installations and activations of policies.
    order: u64,
    device_up: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    Soft,
    Hard,
}

impl Control {
    /// Empty books. `random` keys SPIs and hash tables.
    pub fn new(
        identity: Identity,
        reports: Arc<dyn Reports>,
        mut surroundings: Box<dyn Surroundings>,
        clock: Clock,
        random: &[u8; 128],
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (keys, seeds) = random.split_at(96);
        let mut round_keys = [0; 96];
        round_keys.copy_from_slice(keys);
        let permutation = Permutation::new(&round_keys);
        let mut hash_seeds = [0; 4];
        for (seed, octets) in hash_seeds.iter_mut().zip(seeds.chunks_exact(8)) {
            *seed = octets.iter().fold(0, |value, octet| (value << 8) | u64::from(*octet));
        }
        let tables = Tables {
            generation: 1,
            inbound: InboundTable::default(),
            outbound: Spd::new(hash_seeds),
            inbound_policies: Spd::new(hash_seeds),
            inbound_discards: false,
            addresses: surroundings.addresses().into(),
        };
        let reporter = identity.simulation.as_ref().map(|_| Arc::new(Reporter::new(Arc::clone(&reports))));
        let shared = Shared {
            tables: Arc::new(ArcSwap::from_pointee(tables.clone())),
            reports: reporter.as_ref().map_or(reports, |reporter| Arc::<Reporter>::clone(reporter) as Arc<dyn Reports>),
            drops: DropCounters::default(),
            device_mtu: identity.mtu,
            permutation: permutation.clone(),
            tap: Arc::default(),
            seeds: hash_seeds,
        };
        let devices = Devices::new(&identity.device, identity.simulation.as_ref());
        let published = ArcSwap::from_pointee(devices.table().clone());
        let state = State {
            devices,
            faults: Faults::default(),
            frozen: BTreeMap::new(),
            tables,
            sas: BTreeMap::new(),
            policies: BTreeMap::new(),
            users: BTreeMap::new(),
            outbound_spis: BTreeSet::new(),
            inbound_discards: 0,
            deadlines: BinaryHeap::new(),
            surroundings,
            order: 0,
            device_up: true,
            closed: false,
        };
        Self {
            shared: Arc::new(shared),
            identity,
            clock,
            spis: Mutex::new(SpiTable::new(permutation)),
            state: Mutex::new(state),
            devices: published,
            by_index: ArcSwap::default(),
            egress: OnceLock::new(),
            reporter,
            wake,
        }
    }

    /// What datapath halves are made from.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The clock.
    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// An unpredictable free SPI.
    ///
    /// # Errors
    /// [`TableFull`].
    pub fn reserve_spi(&self) -> Result<Spi, TableFull> {
        lock(&self.spis).reserve(self.now()).ok_or(TableFull)
    }

    /// Gives back a reserved SPI.
    pub fn release_spi(&self, spi: Spi) {
        lock(&self.spis).release(spi, self.now());
    }

    /// Carries out a request at once, for whoever knows that no packet is under way.
    ///
    /// # Errors
    /// Why nothing of it was done.
    pub fn execute(&self, request: &Request) -> Result<Answer, OffloadError> {
        self.carry_out(request).map(|outcome| match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Leaving(leaving) => leaving.answer(self.now()),
        })
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// Why nothing of it was done.
    pub fn carry_out(&self, request: &Request) -> Result<Outcome, OffloadError> {
        let now = self.now();
        let answer = match request {
            Request::Apply(ops) => match self.apply(ops, now)? {
                leaving if leaving.is_over() => leaving.answer(now),
                leaving => return Ok(Outcome::Leaving(leaving)),
            },
            Request::Query(handle) => {
                let status = self.lock().status_of(*handle, now);
                Answer::Status(status.ok_or_else(|| OffloadError::Missing(format!("SA {:x}", handle.raw())))?)
            }
            Request::List(scope) => Answer::Installed(self.installed(*scope, now)),
        };
        Ok(Outcome::Answer(answer))
    }

    fn installed(&self, scope: Scope, now: Instant) -> Installed {
        let state = self.lock();
        let sas = state.sas.keys().filter(|sa| scope.covers(sa.shard()));
        let policies = state.policies.values().filter(|(spec, _)| scope.covers(spec.handle.shard()));
        Installed {
            sas: sas.filter_map(|sa| state.status_of(*sa, now)).collect(),
            policies: policies.map(|(spec, policy)| state.status_of_policy(spec, policy)).collect(),
        }
    }

    /// Raises the time limits that have come and returns when the next one will.
    pub fn tick(&self) -> Option<Instant> {
        let now = self.now();
        let mut due = Vec::new();
        let next = {
            let mut state = self.lock();
            loop {
                match state.deadlines.peek().copied() {
                    Some(Reverse((at, handle, limit))) if at <= now => {
                        state.deadlines.pop();
                        due.extend(state.sas.get(&handle).map(|sa| (Arc::clone(sa), limit)));
                    }
                    other => break other.map(|Reverse((at, _, _))| at),
                }
            }
        };
        for (sa, limit) in due {
            match limit {
                Limit::Soft => sa.soften(LimitUnit::Time, &*self.shared.reports),
                Limit::Hard => sa.expire(LimitUnit::Time, &*self.shared.reports),
            }
        }
        next
    }

    /// Asks for the path MTU of every outbound SA again.
    pub fn refresh_path_mtu(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut known: BTreeMap<(IpAddr, IpAddr), usize> = BTreeMap::new();
        for sa in state.sas.values().filter(|sa| sa.direction == ipsec::Direction::Outbound) {
            let OuterPath { local, remote, .. } = sa.path;
            let mtu = *known.entry((local, remote)).or_insert_with(|| state.surroundings.path_mtu(local, remote));
            sa.hot.set_mtu(inner_mtu(&sa.path, sa.encloses, &*sa.key, mtu));
        }
    }

    /// Follows changes of the host's addresses and links. Gives what somebody else had taken away and stands again, in words.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn refresh(&self) -> Result<Vec<String>, OffloadError> {
        let mut state = self.lock();
        let restored = state.surroundings.refresh()?;
        let addresses = state.surroundings.addresses();
        if *addresses != *state.tables.addresses {
            state.tables.addresses = addresses.into();
            self.publish(&mut state);
        }
        self.follow_routes(&state);
        Ok(restored)
    }

    /// Devices and what they carry, as last seen.
    pub fn devices(&self) -> Arc<DeviceTable> {
        self.devices.load_full()
    }

    /// Refuses everything from now on.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// SPI and direction of an SA.
    pub fn entry(&self, sa: SaHandle) -> Option<(Spi, Direction)> {
        self.lock().sas.get(&sa).map(|sa| (sa.spi, sa.direction))
    }

    /// Runs `work` with the surroundings.
    pub fn with_surroundings<T>(&self, work: impl FnOnce(&mut dyn Surroundings) -> T) -> T {
        work(&mut *self.lock().surroundings)
    }

    fn publish(&self, state: &mut State) {
        state.tables.generation += 1;
        self.shared.tables.store(Arc::new(state.tables.clone()));
        (self.wake)();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn status_of(&self, handle: SaHandle, now: Instant) -> Option<SaStatus> {
        let status = self.sas.get(&handle)?.status(now);
        Some(leaving::as_told(status, self.frozen.get(&handle)))
    }

    fn status_of_policy(&self, spec: &PolicySpec, policy: &Policy) -> PolicyStatus {
        let sa = match &policy.action {
            Action::Protect(sa) => sa.as_ref().map(|sa| sa.handle),
            Action::Bypass | Action::Discard | Action::Trap => None,
        };
        let mode = self.devices.mode_of_policy(spec.device, spec.offload);
        PolicyStatus { policy: spec.handle, device: spec.device, sa, mode }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Smallest path MTU believed (RFC 791: every host takes 576 octets; RFC 8200 §5).
const fn minimum_path_mtu(v4: bool) -> usize {
    if v4 { 576 } else { 1280 }
}

/// What [`Hot::mtu`](crate::sad::Hot::mtu) is on a path with `path_mtu`.
fn inner_mtu(path: &OuterPath, encloses: SaMode, key: &dyn ike_crypto::EspKey, path_mtu: usize) -> usize {
    let v4 = path.remote.is_ipv4();
    let ip = if v4 { crate::packet::IPV4_HEADER } else { crate::packet::IPV6_HEADER };
    let udp = if path.encapsulation.is_some() { 8 } else { 0 };
    let room = path_mtu.max(minimum_path_mtu(v4)) - udp;
    match encloses {
        SaMode::Tunnel => esp::payload_room(key, room - ip),
        SaMode::Transport => room,
    }
}
