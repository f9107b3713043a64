//! The backend on a kernel in memory, with everything around it, as a subject of the conformance kit.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipsec::conformance::{Log, OuterContent, OuterPacket, Subject, Wire};
use ipsec::{
    Answer, DeviceId, Direction, Event, GuardSpec, Installed, Instant, ModeInUse, OffloadBackend, OffloadError, OnStop,
    Op, PolicyHandle, PolicySpec, Reports, Request, SaHandle, SaSpec, Scope, Shard, Tag, Volume,
};
use offload_host::devices::{Link, LinkChange, LinkKind};

use super::memory::{Driver, Memory, Sent};
use crate::kernel::{Kernel, Told};
use crate::surroundings::{Clock, Parts, Surroundings};
use crate::xfrm::{Policy, StateId};

/// Number of the link that does ESP.
pub(super) const LINK: u32 = 7;

/// What was asked of the host, in order; all clones see the same.
#[derive(Clone, Debug)]
pub(super) struct Host(Arc<Mutex<HostBooks>>, Memory);

#[derive(Debug, Default)]
pub(super) struct HostBooks {
    pub(super) guards: Vec<GuardSpec>,
    pub(super) routes: Vec<PolicyHandle>,
    pub(super) bypassed: Vec<u32>,
    /// A policy was in a device before our IKE could pass beside it.
    pub(super) late: bool,
    pub(super) stopped: Option<OnStop>,
    /// A route that is refused, to see a request fail halfway.
    pub(super) refused_route: Option<PolicyHandle>,
    /// A bug.
    pub(super) panics: bool,
}

impl Host {
    pub(super) fn books(&self) -> MutexGuard<'_, HostBooks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surroundings for Host {
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.books().guards.push(guard.clone());
        self.1.world().guards.push(guard.selectors);
        Ok(())
    }

    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        let mut books = self.books();
        let at = books.guards.iter().position(|there| there == guard);
        let gone = at.map(|at| books.guards.remove(at));
        let mut world = self.1.world();
        let at = world.guards.iter().position(|there| gone.as_ref().is_some_and(|gone| gone.selectors == *there));
        at.map(|at| world.guards.remove(at));
        Ok(())
    }

    fn install_route(&mut self, policy: &PolicySpec, _link: Option<u32>) -> Result<(), OffloadError> {
        let mut books = self.books();
        if books.panics {
            drop(books);
            panic!("on request");
        }
        if books.refused_route == Some(policy.handle) {
            return Err(OffloadError::System { action: "install a route".into(), reason: "refused on request".into() });
        }
        books.routes.push(policy.handle);
        Ok(())
    }

    fn remove_route(&mut self, policy: &PolicySpec, _link: Option<u32>) -> Result<(), OffloadError> {
        let mut books = self.books();
        let at = books.routes.iter().position(|there| *there == policy.handle);
        at.map(|at| books.routes.remove(at));
        Ok(())
    }

    fn bypass_ike(&mut self, link: &Link) -> Result<(), OffloadError> {
        let held = self.1.world().policies.values().any(|policy| policy.device == Some(link.index));
        let mut books = self.books();
        books.late |= held;
        books.bypassed.push(link.index);
        Ok(())
    }

    fn device_lost(&mut self, link: u32) {
        self.books().bypassed.retain(|there| *there != link);
    }

    fn adopt_nat_sockets(&mut self, _sockets: Vec<OwnedFd>) -> std::io::Result<()> {
        Ok(())
    }

    fn refresh(&mut self) -> Result<Vec<String>, OffloadError> {
        Ok(Vec::new())
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }

    fn drop_leftovers(&mut self) -> Result<(), OffloadError> {
        Ok(())
    }

    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError> {
        let mut books = self.books();
        books.stopped = Some(on_stop);
        if on_stop == OnStop::Open {
            books.guards.clear();
            self.1.world().guards.clear();
        }
        Ok(())
    }
}

/// The whole.
pub(super) struct InMemory {
    pub(super) kernel: Arc<Kernel>,
    pub(super) memory: Memory,
    pub(super) host: Host,
    log: Arc<Log>,
    clock: Arc<AtomicU64>,
    /// The link by which packets leave; 0 = none.
    pub(super) leaves: Arc<AtomicU32>,
    outer: Vec<OuterPacket>,
    inner: Vec<Vec<u8>>,
}

/// A driver that takes everything.
pub(super) fn able() -> Driver {
    Driver { packet: true, crypto: true, ..Driver::default() }
}

pub(super) fn link(up: bool) -> Link {
    Link {
        index: LINK,
        name: "nic0".into(),
        kind_name: "".into(),
        kind: LinkKind::End,
        lower: None,
        lower_elsewhere: false,
        master: None,
        up,
        carrier: up,
        mtu: 1500,
    }
}

impl InMemory {
    /// On a fresh kernel with one link, whose driver this is.
    pub(super) fn new(driver: Option<Driver>) -> Self {
        let memory = Memory::default();
        memory.world().drivers.extend(driver.map(|driver| (LINK, driver)));
        Self::on(memory, None)
    }

    /// On a kernel that is there already.
    pub(super) fn on(memory: Memory, journal: Option<PathBuf>) -> Self {
        let (host, log) = (Host(Arc::default(), memory.clone()), Arc::new(Log::default()));
        let clock = Arc::new(AtomicU64::new(u64::try_from(memory.world().now.as_millis()).unwrap()));
        let (boottime, wall) = (Arc::clone(&clock), Arc::clone(&clock));
        let leaves = Arc::new(AtomicU32::new(LINK));
        let way = Arc::clone(&leaves);
        let has_driver = memory.world().drivers.contains_key(&LINK);
        let parts = Parts {
            xfrm: Box::new(memory.clone()),
            surroundings: Box::new(host.clone()),
            clock: Clock {
                boottime: Arc::new(move || Instant::new(Duration::from_millis(boottime.load(Relaxed)))),
                wall: Arc::new(move || wall.load(Relaxed) / 1_000),
            },
            egress: Arc::new(move |_, _| Some(way.load(Relaxed)).filter(|way| *way != 0)),
            esp_feature: Box::new(move |_| has_driver),
            random: std::array::from_fn(|at| (at as u8).wrapping_mul(151).rotate_left(3) ^ 0x3c),
            journal,
            statistics: None,
            settings: None,
        };
        let reports: Arc<dyn Reports> = Arc::<Log>::clone(&log);
        let kernel = Kernel::start_on(parts, &[link(true)], reports).unwrap();
        Self { kernel, memory, host, log, clock, leaves, outer: Vec::new(), inner: Vec::new() }
    }

    /// As a crash: nothing is taken back.
    pub(super) fn kill(self) -> Memory {
        let memory = self.memory.clone();
        std::mem::forget(self);
        memory.world().events.clear();
        memory
    }

    /// What becomes of a packet that is sent now.
    pub(super) fn send(&mut self, packet: &[u8]) -> Sent {
        let sent = self.memory.world().send(packet);
        self.settle();
        sent
    }

    /// Carries out operations.
    pub(super) fn apply(&mut self, ops: Vec<Op>) -> Result<Vec<(SaHandle, ModeInUse)>, OffloadError> {
        match self.ask(Request::Apply(ops))? {
            Answer::Applied(applied) => Ok(applied.modes),
            other @ (Answer::Status(_) | Answer::Installed(_)) => panic!("{other:?}"),
        }
    }

    /// Everything that is listed.
    pub(super) fn list(&mut self) -> Installed {
        match self.ask(Request::List(Scope::All)) {
            Ok(Answer::Installed(all)) => all,
            other => panic!("{other:?}"),
        }
    }

    /// The kernel's policies, and everything that is listed.
    pub(super) fn held(&mut self) -> (Vec<Policy>, Installed) {
        let policies = self.memory.world().policies.values().copied().collect();
        (policies, self.list())
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<Answer, OffloadError> {
        static TAGS: AtomicU64 = AtomicU64::new(1);
        let tag = Tag::new(Shard(0), TAGS.fetch_add(1, Relaxed));
        self.kernel.submit(tag, request);
        self.hear();
        let mut outcomes = self.log.outcomes(tag);
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    /// What the kernel has told is heard; nobody reads counters.
    pub(super) fn hear(&mut self) {
        let events: Vec<_> = self.memory.world().events.drain(..).collect();
        if let Some(teller) = self.kernel.teller() {
            events.into_iter().for_each(|event| teller.tell(Told::Kernel(event)));
        }
        self.kernel.on_control(|_| ());
    }

    /// Time passes, and nobody reads counters.
    pub(super) fn wait(&mut self, span: Duration, step: Duration) {
        let mut passed = Duration::ZERO;
        while passed < span {
            passed += step;
            self.clock.fetch_add(u64::try_from(step.as_millis()).unwrap(), Relaxed);
            self.memory.world().pass(step);
            // Once for what has come due, once for what the kernel says to that.
            self.hear();
            self.hear();
        }
    }

    pub(super) fn told(&self, wanted: &Event) -> usize {
        self.log.events().iter().filter(|event| *event == wanted).count()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.log.events()
    }

    fn id(&self, sa: &SaSpec) -> StateId {
        let destination = if sa.direction == Direction::Outbound { sa.outer.remote } else { sa.outer.local };
        StateId { destination, spi: sa.spi, mark: sa.tags.mark }
    }

    fn capture(&mut self, packet: &[u8], sent: &Sent) {
        let world = self.memory.world();
        let content = match sent {
            Sent::Clear => OuterContent::Clear(packet.to_vec()),
            Sent::Esp(id, number) => OuterContent::Esp(seal(id.spi.get(), *number, packet)),
            Sent::Dropped | Sent::Waits => return,
        };
        let Sent::Esp(id, _) = sent else {
            let nowhere = SocketAddr::new([0, 0, 0, 0].into(), 0);
            drop(world);
            return self.outer.push(OuterPacket { source: nowhere, destination: nowhere, content });
        };
        let source = world.states.get(id).map_or([192, 0, 2, 1].into(), |held| held.state.source);
        drop(world);
        let address = |ip: IpAddr| SocketAddr::new(ip, 0);
        self.outer.push(OuterPacket { source: address(source), destination: address(id.destination), content });
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.kernel.shut_down(OnStop::Block);
    }
}

impl Subject for InMemory {
    fn backend(&self) -> &dyn OffloadBackend {
        &*self.kernel
    }

    fn log(&self) -> &Log {
        &self.log
    }

    /// What the kernel tells is heard, and what that leads to.
    fn settle(&mut self) {
        loop {
            let events: Vec<_> = self.memory.world().events.drain(..).collect();
            let teller = self.kernel.teller();
            let none = events.is_empty();
            if let Some(teller) = teller {
                events.into_iter().for_each(|event| teller.tell(Told::Kernel(event)));
            }
            // Whoever asks sees what the counters say.
            self.kernel.on_control(|control| control.read_all());
            let released: Vec<_> = self.memory.world().released.drain(..).collect();
            for (packet, sent) in released {
                self.capture(&packet, &sent);
            }
            if none {
                break;
            }
        }
    }

    fn wire(&mut self) -> Option<&mut dyn Wire> {
        Some(self)
    }

    fn is_the_host(&self) -> bool {
        true
    }

    fn pull_device(&mut self, device: DeviceId) -> bool {
        if device == DeviceId(0) {
            return false;
        }
        self.memory.world().link_down(LINK);
        self.kernel.teller().unwrap().tell(Told::Link(LinkChange::Down(link(false))));
        true
    }

    fn plug_device(&mut self, _device: DeviceId) -> bool {
        self.kernel.teller().unwrap().tell(Told::Link(LinkChange::Up(link(true))));
        true
    }

    fn refuse_install(&mut self) -> bool {
        self.memory.world().refuse = 1;
        true
    }

    fn lose_state(&mut self, sa: &SaSpec) -> bool {
        let id = self.id(sa);
        self.memory.world().steal_state(&id)
    }

    fn pretend_carried(&mut self, sa: &SaSpec, volume: Volume) -> bool {
        let id = self.id(sa);
        let mut world = self.memory.world();
        let Some(held) = world.states.get_mut(&id) else { return false };
        held.state.packets += volume.packets.unwrap_or(0);
        held.state.bytes += volume.bytes.unwrap_or(0);
        true
    }
}

impl Wire for InMemory {
    fn inject_inner(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            let sent = self.memory.world().send(packet);
            self.capture(packet, &sent);
        }
    }

    fn inject_outer(&mut self, packets: &[OuterPacket]) {
        for packet in packets {
            match &packet.content {
                OuterContent::Esp(sealed) => {
                    if let Some((spi, number, inner)) = open(sealed)
                        && let Some(inner) = {
                            let ends = (packet.source.ip(), packet.destination.ip());
                            self.memory.world().receive(ends, spi, number, inner)
                        }
                    {
                        self.inner.push(inner);
                    }
                }
                OuterContent::EspInUdp(_) => {}
                OuterContent::Clear(inner) => {
                    if self.memory.world().receive_clear(inner) {
                        self.inner.push(inner.clone());
                    }
                }
            }
        }
    }

    fn captured_outer(&mut self) -> Vec<OuterPacket> {
        std::mem::take(&mut self.outer)
    }

    fn captured_inner(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.inner)
    }

    fn pass_time(&mut self, span: Duration) {
        // In steps, so that what is due is seen in its time.
        let step = Duration::from_secs(1).min(span);
        let mut passed = Duration::ZERO;
        while passed < span {
            passed += step;
            self.clock.fetch_add(u64::try_from(step.as_millis()).unwrap(), Relaxed);
            self.memory.world().pass(step);
            self.settle();
        }
    }
}

/// SPI, lower half of the number, the whole number, the packet, and a sum over it all in place of an ICV.
fn seal(spi: u32, number: u64, packet: &[u8]) -> Vec<u8> {
    let mut sealed = spi.to_be_bytes().to_vec();
    sealed.extend_from_slice(&(number as u32).to_be_bytes());
    sealed.extend_from_slice(&number.to_be_bytes());
    sealed.extend_from_slice(packet);
    let sum = sum(&sealed);
    sealed.extend_from_slice(&sum.to_be_bytes());
    sealed
}

fn open(sealed: &[u8]) -> Option<(u32, u64, &[u8])> {
    let (body, icv) = sealed.split_at_checked(sealed.len().checked_sub(8)?)?;
    if sum(body).to_be_bytes() != icv {
        return None;
    }
    let spi = u32::from_be_bytes(body.get(..4)?.try_into().ok()?);
    let number = u64::from_be_bytes(body.get(8..16)?.try_into().ok()?);
    Some((spi, number, body.get(16..)?))
}

/// FNV-1a.
fn sum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}
