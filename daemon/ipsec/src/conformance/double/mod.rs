//! A backend in memory that carries packets and keeps every rule, or breaks one on purpose.
//!
//! It is what the kit is tested with: every behaviour passes on it, and each [`Fault`] makes exactly those fail that it breaks. Its ESP is a toy
//! (`esp.rs`): the right header, sequence numbers, padding and next header, the payload in clear, and a keyed checksum in place of an ICV. Time
//! is virtual. Nothing is lent from the backends that do real work, so that kit and backend cannot be wrong in the same way.
//!
//! Its surroundings are a host in miniature: addresses of its own, a guard, and the bypass for IKE.

mod datapath;
mod esp;
mod fault;
mod inbound;
mod ip;
mod outbound;
mod sad;
mod shapes;
mod spi;
mod tables;
mod wrong;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Fate, Log, OuterPacket, Subject, Wire};
use crate::backend::{Answer, NatReader, OffloadBackend, OffloadError, OnStop, Op, Reports, Request, TableFull};
use crate::capability::DeviceTable;
use crate::handle::{DeviceId, Spi, Tag};
use crate::limits::Volume;
use crate::sa::{Direction, SaSpec};

pub use fault::Fault;
pub use shapes::{able, modest};

/// The double with everything around it.
pub struct Double {
    log: Arc<Log>,
    backend: Backend,
}

/// The double behind the trait.
struct Backend {
    reports: Arc<dyn Reports>,
    state: Mutex<datapath::State>,
}

impl Double {
    /// A double with these devices that keeps every rule, or with a fault all but what the fault breaks.
    pub fn new(devices: DeviceTable, fault: Option<Fault>) -> Self {
        let log = Arc::new(Log::default());
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let state = datapath::State::new(Arc::clone(&reports), devices, fault);
        Self { log, backend: Backend { reports, state: Mutex::new(state) } }
    }

    fn lock(&self) -> MutexGuard<'_, datapath::State> {
        self.backend.lock()
    }
}

impl Backend {
    fn lock(&self) -> MutexGuard<'_, datapath::State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, tag: Tag, request: Request) {
        let (outcome, fault) = {
            let mut state = self.lock();
            let outcome = state.execute(&request);
            (state.misreport(&request, outcome), state.fault)
        };
        let dead = matches!(outcome, Err(OffloadError::Unavailable(_)));
        if !(fault == Some(Fault::SilentAfterDeath) && dead) {
            self.reports.done(tag, outcome.clone());
        }
        if fault == Some(Fault::DoubleDone) {
            self.reports.done(tag, outcome);
        }
    }
}

impl OffloadBackend for Backend {
    fn devices(&self) -> Arc<DeviceTable> {
        Arc::new(self.lock().devices.clone())
    }

    fn device_for(&self, _local: IpAddr, _remote: IpAddr) -> Option<DeviceId> {
        self.lock().devices.devices.first().map(|device| device.id)
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        self.lock().reserve_spi().ok_or(TableFull)
    }

    fn release_spi(&self, _device: DeviceId, spi: Spi) {
        self.lock().spis.release(spi);
    }

    fn submit(&self, tag: Tag, request: Request) {
        if self.lock().puts_off(tag, &request) {
            return;
        }
        self.carry_out(tag, request);
    }

    fn adopt_nat_sockets(&self, _sockets: Vec<OwnedFd>) -> io::Result<NatReader> {
        Ok(NatReader::Daemon)
    }

    fn shut_down(&self, on_stop: OnStop) {
        self.lock().shut_down(on_stop);
    }
}

impl Subject for Double {
    fn backend(&self) -> &dyn OffloadBackend {
        &self.backend
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().for_each(|(tag, request)| self.backend.carry_out(tag, request));
        self.lock().settle();
    }

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        Some(self)
    }

    fn host(&mut self, direction: Direction, packet: &[u8]) -> Option<Fate> {
        self.lock().host(direction, packet)
    }

    fn pull_device(&mut self, device: DeviceId) -> bool {
        self.lock().pull(device);
        true
    }

    fn plug_device(&mut self, device: DeviceId) -> bool {
        self.lock().plug(device);
        true
    }

    fn refuse_install(&mut self) -> bool {
        self.lock().refuse_next = true;
        true
    }

    fn lose_state(&mut self, sa: &SaSpec) -> bool {
        self.lock().lose(sa.handle);
        true
    }

    fn pretend_carried(&mut self, sa: &SaSpec, volume: Volume) -> bool {
        self.lock().pretend_carried(sa.handle, volume)
    }
}

impl Wire for Double {
    fn inject_inner(&mut self, packets: &[Vec<u8>]) {
        let mut state = self.lock();
        packets.iter().for_each(|packet| state.take_inner(packet));
    }

    fn inject_outer(&mut self, packets: &[OuterPacket]) {
        let mut state = self.lock();
        packets.iter().for_each(|packet| state.take_outer(packet));
    }

    fn captured_outer(&mut self) -> Vec<OuterPacket> {
        std::mem::take(&mut self.lock().sent)
    }

    fn captured_inner(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().delivered)
    }

    fn pass_time(&mut self, span: Duration) {
        self.lock().pass_time(span);
    }
}

impl datapath::State {
    fn execute(&mut self, request: &Request) -> Result<Answer, OffloadError> {
        if self.closed {
            return Err(OffloadError::Unavailable("nic0".into()));
        }
        match request {
            Request::Apply(ops) => self.apply(ops).map(Answer::Applied),
            Request::Query(sa) => {
                let entry =
                    self.books.sas.get(sa).ok_or_else(|| OffloadError::Missing(format!("SA {:x}", sa.raw())))?;
                Ok(Answer::Status(entry.status(self.now)))
            }
            Request::List(scope) => Ok(Answer::Installed(self.installed(*scope))),
        }
    }

    fn shut_down(&mut self, on_stop: OnStop) {
        // Removing cannot fail.
        let _ = self.apply(&[Op::Flush]);
        self.closed = true;
        self.waiting.clear();
        let open = match on_stop {
            OnStop::Open => self.fault != Some(Fault::KeepsGuard),
            OnStop::Block => self.fault == Some(Fault::ForgetsGuard),
        };
        if open {
            self.guards.clear();
        }
    }
}
