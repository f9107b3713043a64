//! The backend: one control thread that owns the books and the way to the kernel, and what feeds it.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipsec::spi::KEY_OCTETS;
use ipsec::{
    DeviceId, DeviceTable, NatReader, OffloadBackend, OffloadError, OnStop, Reports, Request, Spi, TableFull, Tag, Tap,
    View,
};
use offload_host::KernelHost;
use offload_host::devices::{Devices, Link, LinkChange, LinkWatch, has_esp_offload};

use crate::config::{KernelConfig, StartError};
use crate::control::{Control, Shared};
use crate::feed::EventWatch;
use crate::machine::Machine;
use crate::netlink::{KernelXfrm, Listener};
use crate::probe;
use crate::surroundings::{Clock, Egress, Parts};
use crate::xfrm::KernelEvent;

/// The control thread looks around at least this often: its sleep does not count suspended time.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// What the whole backend is called where no device is meant.
pub(crate) const NAME: &str = "kernel";

/// The Linux kernel's IPsec as a backend.
pub struct Kernel {
    shared: Arc<Shared>,
    egress: Egress,
    clock: Clock,
    reports: Arc<dyn Reports>,
    messages: Mutex<Option<Sender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What feeds the backend, dropped before it stops.
    feeds: Mutex<Vec<Box<dyn Send>>>,
}

/// What somebody tells the backend.
#[derive(Debug)]
pub enum Told {
    /// The kernel's IPsec.
    Kernel(KernelEvent),
    /// The kernel's links.
    Link(LinkChange),
}

type Work = Box<dyn FnOnce(&mut Control) + Send>;

enum Message {
    Request(Tag, Request),
    Told(Told),
    Work(Work),
    Stop(OnStop),
}

/// Tells a backend what happens around it; for every thread.
#[derive(Clone)]
pub struct Teller(Sender<Message>);

impl Teller {
    /// Queues it behind all that was told and asked before. A backend that has stopped hears nothing.
    pub fn tell(&self, told: Told) {
        // Without a control thread there is nothing to keep up to date.
        let _ = self.0.send(Message::Told(told));
    }
}

/// What this kernel lacks for ESP, in one sentence, found out by trying; nothing where it has it. Nothing of the trial remains.
pub fn lacks() -> Option<String> {
    match KernelXfrm::open() {
        Ok(mut xfrm) => probe::software(&mut xfrm).lacks,
        Err(error) => Some(format!("the kernel's IPsec cannot be asked: {error}")),
    }
}

impl Kernel {
    /// Starts on the kernel, in the network namespace of the calling thread: takes over what an earlier run left, finds out what the kernel and the
    /// devices carry, and listens.
    ///
    /// # Errors
    /// [`StartError`], one sentence that names the object.
    pub fn start(config: KernelConfig, reports: Arc<dyn Reports>) -> Result<Arc<Self>, StartError> {
        // Whoever listens first misses nothing of what is there when it looks.
        let listener = Listener::open()?;
        let devices = Devices::open(config.host.mark)?;
        let routes = Arc::clone(&devices);
        let parts = Parts {
            xfrm: Box::new(KernelXfrm::open()?),
            surroundings: Box::new(Machine::new(KernelHost::open(config.host)?)),
            clock: Clock::system(),
            egress: Arc::new(move |local, remote| egress(&routes, local, remote)),
            esp_feature: Box::new(|link| has_esp_offload(link).unwrap_or(false)),
            random: random()?,
            journal: config.journal,
            statistics: Some("/proc/thread-self/net/xfrm_stat".into()),
            settings: config.hold_packets.then(|| "/proc/sys/net/core".into()),
        };
        let links: Vec<Link> = devices.links().iter().cloned().collect();
        let kernel = Self::start_on(parts, &links, reports)?;
        let feed = |error: io::Error| StartError::System { action: "start a thread", reason: error.to_string() };
        if let Some(teller) = kernel.teller() {
            let told = teller.clone();
            kernel.keep(EventWatch::start(listener, move |event| told.tell(Told::Kernel(event))).map_err(feed)?);
            kernel.keep(LinkWatch::start(devices, move |change| teller.tell(Told::Link(change))).map_err(feed)?);
        }
        Ok(kernel)
    }

    /// Starts on these parts, with these links there.
    ///
    /// # Errors
    /// [`StartError`], one sentence that names the object.
    pub fn start_on(parts: Parts, links: &[Link], reports: Arc<dyn Reports>) -> Result<Arc<Self>, StartError> {
        let (sender, messages) = mpsc::channel();
        let (egress, clock) = (Arc::clone(&parts.egress), parts.clock.clone());
        let mut control = Control::new(parts, links, Arc::clone(&reports))?;
        let shared = Arc::clone(control.shared());
        let answers = Arc::clone(&reports);
        let thread = thread::Builder::new()
            .name("xfrm-control".to_owned())
            .spawn(move || run(&mut control, &messages, &*answers))
            .map_err(|error| StartError::System { action: "start a thread", reason: error.to_string() })?;
        Ok(Arc::new(Self {
            shared,
            egress,
            clock,
            reports,
            messages: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            feeds: Mutex::default(),
        }))
    }

    /// Where to tell what happens; `None` once it has stopped.
    pub fn teller(&self) -> Option<Teller> {
        lock(&self.messages).clone().map(Teller)
    }

    /// Keeps what feeds the backend for as long as it runs.
    pub fn keep(&self, feed: impl Send + 'static) {
        lock(&self.feeds).push(Box::new(feed));
    }

    /// What this kernel lacks for any SA, in one sentence; nothing where it has all that it takes.
    pub fn lacks(&self) -> Option<String> {
        self.shared.lacks()
    }

    /// Runs `work` on the control thread, behind all that was asked before; `None` once it has stopped.
    pub(crate) fn on_control<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Control) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answers) = mpsc::channel();
        let work = Box::new(move |control: &mut Control| {
            // Who asked waits for it.
            let _ = answer.send(work(control));
        });
        self.post(Message::Work(work)).ok()?;
        answers.recv().ok()
    }

    fn post(&self, message: Message) -> Result<(), Message> {
        match &*lock(&self.messages) {
            Some(sender) => sender.send(message).map_err(|refused| refused.0),
            None => Err(message),
        }
    }
}

impl OffloadBackend for Kernel {
    fn devices(&self) -> Arc<DeviceTable> {
        self.shared.devices()
    }

    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId> {
        Some((self.egress)(local, remote).and_then(|link| self.shared.device_of_link(link)).unwrap_or_default())
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        self.shared.reserve_spi((self.clock.boottime)())
    }

    fn release_spi(&self, _device: DeviceId, spi: Spi) {
        self.shared.release_spi(spi, (self.clock.boottime)());
    }

    fn submit(&self, tag: Tag, request: Request) {
        if self.post(Message::Request(tag, request)).is_err() {
            self.reports.done(tag, Err(unavailable()));
        }
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        self.shared.drops()
    }

    fn show_packets(&self, _tap: Option<Arc<dyn Tap>>) -> Result<View, String> {
        Err("the kernel carries the packets and does not hand them to this daemon (`tcpdump -ni any` sees ESP both ways, and without packet \
             offload what came in once more in clear)"
            .into())
    }

    fn adopt_nat_sockets(&self, sockets: Vec<OwnedFd>) -> io::Result<NatReader> {
        let adopted = self.on_control(|control| control.surroundings().adopt_nat_sockets(sockets));
        adopted.unwrap_or_else(|| Err(io::Error::other("the backend has stopped")))?;
        Ok(NatReader::Daemon)
    }

    fn leftovers(&self) -> Vec<String> {
        self.on_control(|control| control.leftovers()).unwrap_or_default()
    }

    fn drop_leftovers(&self) -> Result<(), OffloadError> {
        self.on_control(Control::drop_leftovers).unwrap_or_else(|| Err(unavailable()))
    }

    fn shut_down(&self, on_stop: OnStop) {
        lock(&self.feeds).clear();
        if let Some(sender) = lock(&self.messages).take() {
            // The control thread holds the other end until it has been told to stop.
            let _ = sender.send(Message::Stop(on_stop));
        }
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the control thread of the kernel backend could not be ended");
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.shut_down(OnStop::Block);
    }
}

/// The control thread. Should it panic, whoever has asked is answered all the same, and whoever asks later.
fn run(control: &mut Control, messages: &Receiver<Message>, reports: &dyn Reports) {
    let current = Cell::new(None);
    if catch_unwind(AssertUnwindSafe(|| serve(control, messages, &current))).is_ok() {
        return;
    }
    tracing::error!("the control thread of the kernel backend has panicked: nothing is installed or removed any more");
    if let Some(tag) = current.take() {
        reports.done(tag, Err(unavailable()));
    }
    for message in messages {
        match message {
            Message::Request(tag, _) => reports.done(tag, Err(unavailable())),
            // Whoever waits for the work sees that it was dropped.
            Message::Told(_) | Message::Work(_) => {}
            Message::Stop(_) => return,
        }
    }
}

/// Requests in order, what the kernel tells, and what comes with time.
fn serve(control: &mut Control, messages: &Receiver<Message>, current: &Cell<Option<Tag>>) {
    let mut next = control.tick();
    loop {
        let sleep = next.map_or(LONGEST_SLEEP, |at| at.saturating_since(control.now()).min(LONGEST_SLEEP));
        match messages.recv_timeout(sleep) {
            Ok(Message::Request(tag, request)) => {
                current.set(Some(tag));
                let outcome = control.execute(&request);
                current.set(None);
                control.reports().done(tag, outcome);
            }
            Ok(Message::Told(Told::Kernel(event))) => control.heard(event),
            Ok(Message::Told(Told::Link(change))) => control.link_changed(&change),
            Ok(Message::Work(work)) => work(control),
            Ok(Message::Stop(on_stop)) => return stop(control, on_stop, messages),
            Err(RecvTimeoutError::Disconnected) => return stop(control, OnStop::Block, messages),
            Err(RecvTimeoutError::Timeout) => {}
        }
        next = control.tick();
    }
}

/// Senders are gone by now except those in the middle of a submit: what they post is answered too.
fn stop(control: &mut Control, on_stop: OnStop, messages: &Receiver<Message>) {
    control.stop(on_stop);
    while let Ok(message) = messages.recv_timeout(Duration::ZERO) {
        match message {
            Message::Request(tag, request) => control.reports().done(tag, control.execute(&request)),
            Message::Work(work) => work(control),
            Message::Told(_) | Message::Stop(_) => {}
        }
    }
}

/// The link that holds what goes between two addresses. What leaves through a VLAN or a bond is in software: no device sees its packets as they are
/// when policies look at them.
fn egress(routes: &Devices, local: IpAddr, remote: IpAddr) -> Option<u32> {
    match routes.egress(local, remote) {
        Ok(egress) => (egress.chain.len() == 1).then_some(egress.index),
        Err(reason) => {
            tracing::debug!(%local, %remote, %reason, "no device carries this");
            None
        }
    }
}

fn random() -> Result<[u8; KEY_OCTETS], StartError> {
    let mut octets = [0; KEY_OCTETS];
    let mut rest = octets.as_mut_slice();
    while !rest.is_empty() {
        let drawn = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| StartError::System { action: "draw random numbers", reason: error.to_string() })?;
        rest = rest.get_mut(drawn..).unwrap_or_default();
    }
    Ok(octets)
}

pub(crate) fn unavailable() -> OffloadError {
    OffloadError::Unavailable(NAME.into())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
