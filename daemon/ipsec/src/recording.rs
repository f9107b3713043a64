//! A backend that records: for scenarios and for tests of everything above the trait.
//!
//! It keeps tables like a real device, answers when told to, and can be made to refuse. It carries no packets.

mod tables;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::algorithm::EspAlgorithm;
use crate::backend::{
    Answer, Applied, Installed, LimitUnit, NatReader, OffloadBackend, OffloadError, OnStop, Op, PolicyStatus, Reports,
    Request, SaStatus, Scope, TableFull,
};
use crate::capability::{
    Capabilities, Device, DeviceState, DeviceTable, LimitUnits, ReplayWindows, Rung, SelectorSupport,
};
use crate::handle::{DeviceId, SaHandle, Spi, Tag};
use crate::limits::Volume;
use crate::policy::{PolicyAction, PolicySpec};
use crate::sa::{Direction, ModeInUse, OffloadMode, SaSpec};

pub use tables::Tables;
use tables::{describe, unavailable};

/// Refuses the next operation that a test picks.
type Pick = Box<dyn Fn(&Op) -> bool + Send>;

struct State {
    tables: Tables,
    next_spi: u32,
    waiting: VecDeque<(Tag, Request)>,
    hold: bool,
    refuse: VecDeque<OffloadError>,
    idle: Option<u64>,
    log: Vec<String>,
    /// Refusals of operations, each used up by the first request with such an operation.
    picks: Vec<(Pick, OffloadError)>,
    /// Rungs that refuse every SA.
    closed: BTreeMap<OffloadMode, OffloadError>,
    /// Rungs that read back as another one.
    lies: BTreeMap<OffloadMode, OffloadMode>,
    /// Packets and octets of each SA, as far as told.
    counters: BTreeMap<SaHandle, (u64, u64)>,
    /// Limits of each SA that were reached.
    expired: BTreeMap<SaHandle, Reached>,
    /// The device that every way leads through.
    way: Option<DeviceId>,
    /// Lists asked for.
    lists: usize,
}

/// Limits of an SA that were reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The soft one.
    pub soft: Option<LimitUnit>,
    /// The hard one: a device carries nothing more.
    pub hard: Option<LimitUnit>,
}

/// The recording double.
pub struct RecordingBackend {
    reports: Arc<dyn Reports>,
    devices: Mutex<Arc<DeviceTable>>,
    state: Mutex<State>,
}

impl RecordingBackend {
    /// A double with one device that can do everything; SPIs count up from `first_spi`.
    pub fn new(reports: Arc<dyn Reports>, first_spi: u32) -> Self {
        let state = State {
            tables: Tables::default(),
            next_spi: first_spi.max(256),
            waiting: VecDeque::new(),
            hold: false,
            refuse: VecDeque::new(),
            idle: None,
            log: Vec::new(),
            picks: Vec::new(),
            closed: BTreeMap::new(),
            lies: BTreeMap::new(),
            counters: BTreeMap::new(),
            expired: BTreeMap::new(),
            way: Some(DeviceId(0)),
            lists: 0,
        };
        let devices = DeviceTable { devices: vec![device("recorder", [(OffloadMode::No, able())])] };
        Self { reports, devices: Mutex::new(Arc::new(devices)), state: Mutex::new(state) }
    }

    /// The same with another device, for example one made by [`device`]. Its tables hold what its rungs say.
    pub fn with_device(reports: Arc<dyn Reports>, first_spi: u32, device: Device) -> Self {
        let devices = Mutex::new(Arc::new(DeviceTable { devices: vec![device] }));
        Self { devices, ..Self::new(reports, first_spi) }
    }

    /// The same, with a device that holds so many SAs.
    pub fn with_sa_table(reports: Arc<dyn Reports>, first_spi: u32, size: u32) -> Self {
        let bounded = Capabilities { sa_table: Some(size), ..able() };
        Self::with_device(reports, first_spi, device("recorder", [(OffloadMode::No, bounded)]))
    }

    /// Changes what the device says of itself.
    pub fn change_device(&mut self, change: impl FnMut(&mut Device)) {
        self.with_devices(|devices| devices.iter_mut().for_each(change));
    }

    fn with_devices<R>(&self, change: impl FnOnce(&mut Vec<Device>) -> R) -> R {
        let mut table = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut Arc::make_mut(&mut table).devices)
    }

    fn table(&self) -> Arc<DeviceTable> {
        Arc::clone(&self.devices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A further device, like the first one. No way leads through it yet.
    pub fn add_device(&self, name: &str) -> DeviceId {
        self.with_devices(|devices| {
            let id = DeviceId(u16::try_from(devices.len()).unwrap_or(u16::MAX));
            let like = devices.first().cloned();
            devices.extend(like.map(|device| Device { id, name: name.into(), state: DeviceState::Up, ..device }));
            id
        })
    }

    /// From now on every way leads through this device, or through none.
    pub fn lead_through(&self, device: Option<DeviceId>) {
        self.lock().way = device;
    }

    /// A device goes down, comes up or is removed. Unless it is up it holds nothing, and nobody is told what it held.
    pub fn set_device(&self, id: DeviceId, to: DeviceState) {
        self.with_devices(|devices| {
            devices.iter_mut().filter(|device| device.id == id).for_each(|device| device.state = to);
        });
        if to != DeviceState::Up {
            let tables = &mut self.lock().tables;
            tables.sas.retain(|_, sa| sa.device != id);
            tables.policies.retain(|_, policy| policy.device != id);
        }
    }

    /// Somebody else changes the tables behind our back.
    pub fn tamper(&self, change: impl FnOnce(&mut Tables)) {
        change(&mut self.lock().tables);
    }

    /// An SA has reached limits, and the reports of it were lost.
    pub fn expire_unheard(&self, sa: SaHandle, soft: Option<LimitUnit>, hard: Option<LimitUnit>) {
        self.lock().expired.insert(sa, Reached { soft, hard });
    }

    /// How often it was asked for a list.
    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    /// From now on every SA on this rung is refused; `None` = no longer.
    pub fn refuse_rung(&self, mode: OffloadMode, error: Option<OffloadError>) {
        let mut state = self.lock();
        match error {
            Some(error) => state.closed.insert(mode, error),
            None => state.closed.remove(&mode),
        };
    }

    /// The next request with an operation that `pick` takes fails there.
    pub fn refuse_next(&self, pick: impl Fn(&Op) -> bool + Send + 'static, error: OffloadError) {
        self.lock().picks.push((Box::new(pick), error));
    }

    /// From now on SAs that are installed on one rung read back as on another.
    pub fn misreport(&self, asked: OffloadMode, shown: OffloadMode) {
        self.lock().lies.insert(asked, shown);
    }

    /// From now on every SA was last used so many seconds ago; `None` = never.
    pub fn pretend_idle(&self, seconds: Option<u64>) {
        self.lock().idle = seconds;
    }

    /// From now on the device says that it cannot move SAs in place.
    pub fn forbid_moves(&mut self) {
        self.change_device(|device| device.rungs.iter_mut().for_each(|rung| rung.capabilities.in_place_move = false));
    }

    /// From now on keeps requests until [`Self::release`].
    pub fn hold(&self) {
        self.lock().hold = true;
    }

    /// Answers everything kept and goes on answering at once.
    pub fn release(&self) {
        self.lock().hold = false;
        while let Some((tag, request)) = self.next_waiting() {
            self.reports.done(tag, self.execute(&request));
        }
    }

    fn next_waiting(&self) -> Option<(Tag, Request)> {
        self.lock().waiting.pop_front()
    }

    /// The next [`Request::Apply`] that installs an SA fails with `error`.
    pub fn refuse_next_install(&self, error: OffloadError) {
        self.lock().refuse.push_back(error);
    }

    /// Takes back what [`Self::refuse_next_install`], [`Self::refuse_next`] and [`Self::refuse_rung`] said and was not yet used.
    pub fn refuse_nothing(&self) {
        let mut state = self.lock();
        state.refuse.clear();
        state.picks.clear();
        state.closed.clear();
    }

    /// The device does not hold this SA any more.
    pub fn lose(&self, sa: SaHandle) {
        // Removing cannot fail.
        let _ = self.lock().tables.apply(&Op::RemoveSa(sa), &self.table());
    }

    /// The device has empty tables.
    pub fn lose_all(&self) {
        let _ = self.lock().tables.apply(&Op::Flush, &self.table());
    }

    /// An SA has carried packets. Gives the limits that it reached with them, of those that it was installed with: each once.
    pub fn count(&self, sa: SaHandle, packets: u64, octets: u64) -> Reached {
        let mut state = self.lock();
        let entry = state.counters.entry(sa).or_default();
        *entry = (entry.0.saturating_add(packets), entry.1.saturating_add(octets));
        let (packets, octets) = *entry;
        let Some(limits) = state.tables.sas.get(&sa).map(|spec| spec.limits) else { return Reached::default() };
        let of = |limits: &Volume| {
            let reached = |limit: Option<u64>, count: u64| limit.is_some_and(|limit| count >= limit);
            let packets = reached(limits.packets, packets).then_some(LimitUnit::Packets);
            packets.or(reached(limits.bytes, octets).then_some(LimitUnit::Bytes))
        };
        let known = state.expired.entry(sa).or_default();
        let before = *known;
        *known = Reached { soft: before.soft.or(of(&limits.soft)), hard: before.hard.or(of(&limits.hard)) };
        Reached {
            soft: known.soft.filter(|_| before.soft.is_none()),
            hard: known.hard.filter(|_| before.hard.is_none()),
        }
    }

    /// Whether an SA is at its hard limit.
    pub fn is_expired(&self, sa: SaHandle) -> bool {
        self.lock().expired.get(&sa).is_some_and(|reached| reached.hard.is_some())
    }

    /// What is installed now.
    pub fn tables(&self) -> Tables {
        self.lock().tables.clone()
    }

    /// Looks at what is installed now without copying it.
    pub fn with_tables<R>(&self, look: impl FnOnce(&Tables) -> R) -> R {
        look(&self.lock().tables)
    }

    /// One line for each operation carried out so far, oldest first.
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, request: &Request) -> Result<Answer, OffloadError> {
        let devices = self.table();
        let mut state = self.lock();
        match request {
            Request::Apply(ops) => state.apply(ops, &devices),
            Request::Query(sa) => state
                .tables
                .sas
                .get(sa)
                .map(|sa| state.status(sa, &devices))
                .map(Answer::Status)
                .ok_or_else(|| OffloadError::Missing("SA".into())),
            Request::List(scope) => {
                state.lists += 1;
                Ok(Answer::Installed(state.installed(*scope, &devices)))
            }
        }
    }
}

impl State {
    fn status(&self, sa: &SaSpec, devices: &DeviceTable) -> SaStatus {
        let reached = self.expired.get(&sa.handle).copied().unwrap_or_default();
        let (packets, bytes) = self.counters.get(&sa.handle).copied().unwrap_or_default();
        SaStatus {
            sa: sa.handle,
            device: sa.device,
            spi: sa.spi,
            bytes,
            packets,
            idle_seconds: self.idle,
            sequence: sa.initial_sequence,
            soft_expired: reached.soft,
            hard_expired: reached.hard,
            mode: self.shown(devices, sa.device, sa.offload),
        }
    }

    fn policy_status(&self, policy: &PolicySpec, devices: &DeviceTable) -> PolicyStatus {
        let sa = match policy.action {
            PolicyAction::Protect { sa, .. } => sa,
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
        };
        // Only packet offload looks policies up in the device, and no device those of what is forwarded.
        let looked_up = if policy.direction == Direction::Forward { OffloadMode::No } else { policy.offload };
        let shown = self.shown(devices, policy.device, looked_up);
        let mode = if shown.mode == OffloadMode::Packet { shown } else { ModeInUse::SOFTWARE };
        PolicyStatus { policy: policy.handle, device: policy.device, sa, mode }
    }

    /// How an entry on this rung is shown.
    fn shown(&self, devices: &DeviceTable, device: DeviceId, asked: OffloadMode) -> ModeInUse {
        let mode = self.lies.get(&asked).copied().unwrap_or(asked);
        let rung = devices.get(device).and_then(|device| device.rung(mode));
        rung.map_or(ModeInUse::SOFTWARE, |rung| rung.mode.clone())
    }

    fn installed(&self, scope: Scope, devices: &DeviceTable) -> Installed {
        let sas = self.tables.sas.iter().filter(|(sa, _)| scope.covers(sa.shard()));
        let policies = self.tables.policies.iter().filter(|(policy, _)| scope.covers(policy.shard()));
        Installed {
            sas: sas.map(|(_, sa)| self.status(sa, devices)).collect(),
            policies: policies.map(|(_, policy)| self.policy_status(policy, devices)).collect(),
        }
    }

    fn apply(&mut self, ops: &[Op], devices: &DeviceTable) -> Result<Answer, OffloadError> {
        let installs = ops.iter().any(|op| matches!(op, Op::InstallSa(_)));
        if let Some(error) = installs.then(|| self.refuse.pop_front()).flatten() {
            self.log.push(format!("refused: {error}"));
            return Err(error);
        }
        if let Some(error) = ops.iter().find_map(|op| unavailable(op, devices)) {
            self.log.push(format!("refused: {error}"));
            return Err(error);
        }
        let before = self.tables.clone();
        let lines = self.log.len();
        let mut applied = Applied::default();
        for op in ops {
            applied.removed.extend(self.removed_by(op, devices));
            let done = self.refusal(op).map_or(Ok(()), Err).and_then(|()| self.tables.apply(op, devices));
            if let Err(error) = done {
                self.tables = before;
                self.log.truncate(lines);
                self.log.push(format!("refused: {error}"));
                return Err(error);
            }
            self.log.push(describe(op));
            if let Op::InstallSa(sa) = op {
                applied.modes.push((sa.handle, self.shown(devices, sa.device, sa.offload)));
            }
        }
        Ok(Answer::Applied(applied))
    }

    /// The last state of an SA that an operation takes out.
    fn removed_by(&self, op: &Op, devices: &DeviceTable) -> Option<SaStatus> {
        let Op::RemoveSa(sa) = op else { return None };
        self.tables.sas.get(sa).map(|sa| self.status(sa, devices))
    }

    /// What a test wants this operation to fail with.
    fn refusal(&mut self, op: &Op) -> Option<OffloadError> {
        if let Some(at) = self.picks.iter().position(|(pick, _)| pick(op)) {
            return Some(self.picks.remove(at).1);
        }
        match op {
            Op::InstallSa(sa) => self.closed.get(&sa.offload).cloned(),
            Op::UpdateSa { .. }
            | Op::RemoveSa(_)
            | Op::InstallPolicy(_)
            | Op::UpdatePolicy(_)
            | Op::RemovePolicy(_)
            | Op::Activate { .. }
            | Op::InstallGuard(_)
            | Op::RemoveGuard(_)
            | Op::Flush => None,
        }
    }
}

/// Everything that a rung can be asked for.
pub fn able() -> Capabilities {
    Capabilities {
        algorithms: [128, 192, 256]
            .into_iter()
            .filter_map(|bits| EspAlgorithm::from_ids(20, Some(bits), None))
            .chain([EspAlgorithm::CHACHA20_POLY1305])
            .chain([128, 256].into_iter().flat_map(|bits| {
                [12, 13, 14].into_iter().filter_map(move |i| EspAlgorithm::from_ids(12, Some(bits), Some(i)))
            }))
            .collect(),
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(32, 1024),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits { time: true, bytes: true, packets: true },
        sa_table: None,
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: true,
        separate_activation: true,
        marks: true,
        interface_ids: true,
    }
}

/// A device for [`RecordingBackend::with_device`] with these rungs, best first.
pub fn device(name: &str, rungs: impl IntoIterator<Item = (OffloadMode, Capabilities)>) -> Device {
    let name: Arc<str> = name.into();
    let rung = |(mode, capabilities)| {
        let device = (mode != OffloadMode::No).then(|| Arc::clone(&name));
        Rung { mode: ModeInUse { mode, device, simulated: false }, capabilities }
    };
    let rungs = rungs.into_iter().map(rung).collect();
    Device { id: DeviceId(0), name: Arc::clone(&name), state: DeviceState::Up, rungs }
}

impl OffloadBackend for RecordingBackend {
    fn devices(&self) -> Arc<DeviceTable> {
        self.table()
    }

    fn device_for(&self, _local: IpAddr, _remote: IpAddr) -> Option<DeviceId> {
        self.lock().way
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        let mut state = self.lock();
        let spi = Spi::new(state.next_spi).ok_or(TableFull)?;
        state.next_spi = state.next_spi.checked_add(1).ok_or(TableFull)?;
        Ok(spi)
    }

    fn release_spi(&self, _device: DeviceId, _spi: Spi) {}

    fn submit(&self, tag: Tag, request: Request) {
        {
            let mut state = self.lock();
            if state.hold {
                state.waiting.push_back((tag, request));
                return;
            }
        }
        self.reports.done(tag, self.execute(&request));
    }

    fn adopt_nat_sockets(&self, _sockets: Vec<OwnedFd>) -> io::Result<NatReader> {
        Ok(NatReader::Daemon)
    }

    fn shut_down(&self, _on_stop: OnStop) {
        self.release();
    }
}
