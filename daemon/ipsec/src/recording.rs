//! A backend that records: for scenarios and for tests of everything above the trait.
//!
//! It keeps tables like a real device, answers when told to, and can be made to refuse. It carries no packets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::algorithm::EspAlgorithm;
use crate::backend::{
    Answer, Installed, NatReader, OffloadBackend, OffloadError, OnStop, Op, PolicyStatus, Reports, Request, SaStatus,
    Scope, TableFull,
};
use crate::capability::{
    Capabilities, Device, DeviceState, DeviceTable, LimitUnits, ReplayWindows, Rung, SelectorSupport,
};
use crate::handle::{DeviceId, PolicyHandle, SaHandle, Spi, Tag};
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::{Direction, ModeInUse, SaMode, SaSpec};
use crate::selector::SelectorPair;

/// What the double holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// SAD.
    pub sas: BTreeMap<SaHandle, SaSpec>,
    /// SPD.
    pub policies: BTreeMap<PolicyHandle, PolicySpec>,
    /// Guards.
    pub guards: BTreeSet<GuardSpec>,
}

struct State {
    tables: Tables,
    next_spi: u32,
    waiting: VecDeque<(Tag, Request)>,
    hold: bool,
    refuse: VecDeque<OffloadError>,
    idle: Option<u64>,
    log: Vec<String>,
    /// Packets and octets of each SA, as far as told.
    counters: BTreeMap<SaHandle, (u64, u64)>,
}

/// The recording double.
pub struct RecordingBackend {
    reports: Arc<dyn Reports>,
    devices: Arc<DeviceTable>,
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
            counters: BTreeMap::new(),
        };
        Self { reports, devices: Arc::new(able_device()), state: Mutex::new(state) }
    }

    /// The same, with a device that holds so many SAs. It counts on its user not to install more.
    pub fn with_sa_table(reports: Arc<dyn Reports>, first_spi: u32, size: u32) -> Self {
        let mut devices = able_device();
        devices
            .devices
            .iter_mut()
            .flat_map(|device| &mut device.rungs)
            .for_each(|rung| rung.capabilities.sa_table = Some(size));
        Self { devices: Arc::new(devices), ..Self::new(reports, first_spi) }
    }

    /// From now on every SA was last used so many seconds ago; `None` = never.
    pub fn pretend_idle(&self, seconds: Option<u64>) {
        self.lock().idle = seconds;
    }

    /// From now on the device says that it cannot move SAs in place.
    pub fn forbid_moves(&mut self) {
        for device in &mut Arc::make_mut(&mut self.devices).devices {
            device.rungs.iter_mut().for_each(|rung| rung.capabilities.in_place_move = false);
        }
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

    /// Takes back what [`Self::refuse_next_install`] said and was not yet used.
    pub fn refuse_nothing(&self) {
        self.lock().refuse.clear();
    }

    /// The device does not hold this SA any more.
    pub fn lose(&self, sa: SaHandle) {
        // Removing cannot fail.
        let _ = self.lock().tables.apply(&Op::RemoveSa(sa));
    }

    /// The device has empty tables.
    pub fn lose_all(&self) {
        let _ = self.lock().tables.apply(&Op::Flush);
    }

    /// An SA has carried packets.
    pub fn count(&self, sa: SaHandle, packets: u64, octets: u64) {
        let mut state = self.lock();
        let entry = state.counters.entry(sa).or_default();
        *entry = (entry.0.saturating_add(packets), entry.1.saturating_add(octets));
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
        let mut state = self.lock();
        match request {
            Request::Apply(ops) => state.apply(ops),
            Request::Query(sa) => state
                .tables
                .sas
                .get(sa)
                .map(|sa| state.status(sa))
                .map(Answer::Status)
                .ok_or_else(|| OffloadError::Missing("SA".into())),
            Request::List(scope) => Ok(Answer::Installed(state.installed(*scope))),
        }
    }
}

impl State {
    fn status(&self, sa: &SaSpec) -> SaStatus {
        status(sa, &self.counters, self.idle)
    }

    fn installed(&self, scope: Scope) -> Installed {
        let sas = self.tables.sas.iter().filter(|(sa, _)| scope.covers(sa.shard()));
        let policies = self.tables.policies.iter().filter(|(policy, _)| scope.covers(policy.shard()));
        Installed {
            sas: sas.map(|(_, sa)| self.status(sa)).collect(),
            policies: policies.map(|(_, policy)| policy_status(policy)).collect(),
        }
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Answer, OffloadError> {
        let installs = ops.iter().any(|op| matches!(op, Op::InstallSa(_)));
        if let Some(error) = installs.then(|| self.refuse.pop_front()).flatten() {
            self.log.push(format!("refused: {error}"));
            return Err(error);
        }
        let before = self.tables.clone();
        let lines = self.log.len();
        let mut modes = Vec::new();
        for op in ops {
            if let Err(error) = self.tables.apply(op) {
                self.tables = before;
                self.log.truncate(lines);
                self.log.push(format!("refused: {error}"));
                return Err(error);
            }
            self.log.push(describe(op));
            if let Op::InstallSa(sa) = op {
                modes.push((sa.handle, ModeInUse::SOFTWARE));
            }
        }
        Ok(Answer::Applied(modes))
    }
}

impl Tables {
    fn apply(&mut self, op: &Op) -> Result<(), OffloadError> {
        match op {
            Op::InstallSa(sa) => {
                let taken =
                    |other: &SaSpec| other.direction == sa.direction && other.spi == sa.spi && other.outer == sa.outer;
                if self.sas.contains_key(&sa.handle) || self.sas.values().any(taken) {
                    return Err(OffloadError::Exists(format!("SA {}", sa.spi)));
                }
                if !sa.key.fits(sa.algorithm) {
                    return Err(OffloadError::Invalid("key length does not fit the algorithm".into()));
                }
                let bound = |pair: &SelectorPair| pair.is_between(sa.outer);
                if sa.mode == SaMode::Transport && !sa.selectors.iter().all(bound) {
                    return Err(OffloadError::Invalid("transport mode between other hosts".into()));
                }
                self.sas.insert(sa.handle, (**sa).clone());
            }
            Op::UpdateSa { sa, outer, encapsulation } => {
                let entry = self.sas.get_mut(sa).ok_or_else(|| OffloadError::Missing("SA".into()))?;
                if entry.mode == SaMode::Transport && entry.outer != *outer {
                    return Err(OffloadError::Invalid("an SA in transport mode is bound to its addresses".into()));
                }
                entry.outer = *outer;
                entry.encapsulation = *encapsulation;
            }
            Op::RemoveSa(sa) => {
                self.sas.remove(sa);
                for policy in self.policies.values_mut() {
                    if let PolicyAction::Protect { sa: active, .. } = &mut policy.action
                        && *active == Some(*sa)
                    {
                        *active = None;
                    }
                }
            }
            Op::InstallPolicy(policy) => {
                if self.policies.insert(policy.handle, policy.clone()).is_some() {
                    return Err(OffloadError::Exists("policy".into()));
                }
            }
            Op::UpdatePolicy(policy) => {
                if self.policies.insert(policy.handle, policy.clone()).is_none() {
                    return Err(OffloadError::Missing("policy".into()));
                }
            }
            Op::RemovePolicy(policy) => {
                self.policies.remove(policy);
            }
            Op::Activate { policy, sa } => self.activate(*policy, *sa)?,
            Op::InstallGuard(guard) => {
                self.guards.insert(guard.clone());
            }
            Op::RemoveGuard(guard) => {
                self.guards.remove(guard);
            }
            Op::Flush => {
                self.sas.clear();
                self.policies.clear();
            }
        }
        Ok(())
    }

    fn activate(&mut self, policy: PolicyHandle, sa: SaHandle) -> Result<(), OffloadError> {
        if self.sas.get(&sa).is_none_or(|entry| entry.direction != Direction::Outbound) {
            return Err(OffloadError::Missing("outbound SA".into()));
        }
        let entry = self.policies.get_mut(&policy).ok_or_else(|| OffloadError::Missing("policy".into()))?;
        match &mut entry.action {
            PolicyAction::Protect { sa: active, .. } => {
                *active = Some(sa);
                Ok(())
            }
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => {
                Err(OffloadError::Invalid("activation of a policy that does not protect".into()))
            }
        }
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::InstallSa(sa) => format!("install {:?} SA {}", sa.direction, sa.spi),
        Op::UpdateSa { sa, outer, .. } => format!("update SA {:x} to {}-{}", sa.raw(), outer.local, outer.remote),
        Op::RemoveSa(sa) => format!("remove SA {:x}", sa.raw()),
        Op::InstallPolicy(policy) => format!("install {:?} policy {}", policy.direction, policy.selectors),
        Op::UpdatePolicy(policy) => format!("update {:?} policy {}", policy.direction, policy.selectors),
        Op::RemovePolicy(policy) => format!("remove policy {:x}", policy.raw()),
        Op::Activate { policy, sa } => format!("activate SA {:x} on policy {:x}", sa.raw(), policy.raw()),
        Op::InstallGuard(guard) => format!("guard {}", guard.selectors),
        Op::RemoveGuard(guard) => format!("unguard {}", guard.selectors),
        Op::Flush => "flush".into(),
    }
}

fn status(sa: &SaSpec, counters: &BTreeMap<SaHandle, (u64, u64)>, idle_seconds: Option<u64>) -> SaStatus {
    let (packets, bytes) = counters.get(&sa.handle).copied().unwrap_or_default();
    SaStatus {
        sa: sa.handle,
        device: sa.device,
        spi: sa.spi,
        bytes,
        packets,
        idle_seconds,
        sequence: sa.initial_sequence,
        soft_expired: None,
        hard_expired: None,
        mode: ModeInUse::SOFTWARE,
    }
}

fn policy_status(policy: &PolicySpec) -> PolicyStatus {
    let sa = match policy.action {
        PolicyAction::Protect { sa, .. } => sa,
        PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
    };
    PolicyStatus { policy: policy.handle, device: policy.device, sa, mode: ModeInUse::SOFTWARE }
}

fn able_device() -> DeviceTable {
    let capabilities = Capabilities {
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
    };
    let device = Device {
        id: DeviceId(0),
        name: "recorder".into(),
        state: DeviceState::Up,
        rungs: vec![Rung { mode: ModeInUse::SOFTWARE, capabilities }],
    };
    DeviceTable { devices: vec![device] }
}

impl OffloadBackend for RecordingBackend {
    fn devices(&self) -> Arc<DeviceTable> {
        Arc::clone(&self.devices)
    }

    fn device_for(&self, _local: IpAddr, _remote: IpAddr) -> Option<DeviceId> {
        Some(DeviceId(0))
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
