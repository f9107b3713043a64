//! The backend: one tunnel device, its threads, and the control thread that carries out requests in order.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use ike_crypto::ring_provider;
use ipsec::fault::Simulate;
use ipsec::{
    DeviceId, DeviceTable, Event, Instant, NatReader, OffloadBackend, OffloadError, OnStop, Reports, Request, Spi,
    TableFull, Tag, Tap, View,
};

use crate::config::{StartError, UserspaceConfig};
use crate::control::{Control, Identity, LONGEST_USE, Leaving, Outcome};
use crate::drops::Reason;
use crate::io::socket::{Answers, OuterSocket, set_up};
use crate::io::transmit::Wires;
use crate::io::wake::Wake;
use crate::io::{self as datapath_io, receive, transmit};
use crate::surroundings::Machine;
use offload_host::devices::{Devices, LinkChange, LinkWatch};
use offload_host::{Host, HostConfig, Tun, TunConfig};

/// How often the host is asked whether addresses, links or our routes have changed; it costs little while they have not.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often path MTUs are looked at again.
const REFRESH: Duration = Duration::from_secs(10);
/// The same when a packet did not fit.
const STALE: Duration = Duration::from_millis(200);
/// One thread transmits, one receives.
const THREADS: u16 = 2;
/// Pause between attempts to get a lost device back.
const DEVICE_RETRY: Duration = Duration::from_millis(200);
/// The control thread looks around at least this often: its sleep does not count suspended time.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The userspace ESP datapath as a backend.
pub struct Userspace {
    shared_state: Arc<Common>,
    messages: Mutex<Option<Sender<Message>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    links: Mutex<Option<LinkWatch>>,
}

struct Common {
    config: UserspaceConfig,
    control: Control,
    wires: Arc<Wires>,
    reports: Arc<dyn Reports>,
    device_is_lost: Arc<AtomicBool>,
}

/// Takes the outcome of a [`Userspace::simulate`].
pub type Simulated = Box<dyn FnOnce(Result<u32, String>) + Send>;

/// A request that is to be answered when its SAs are in no use any more, at the latest at this instant.
type Parting = (Tag, Leaving, Instant);

enum Message {
    Request(Tag, Request),
    Simulate(Simulate, Simulated),
    /// Something became of a link that poses as a device.
    Link(LinkChange),
    /// The transmitting thread found the device gone.
    DeviceLost,
    Stop(OnStop),
}

impl Userspace {
    /// Opens the device, takes over the host's routing table and guard, and starts the threads.
    ///
    /// # Errors
    /// [`StartError`], one sentence that names the object.
    pub fn start(config: UserspaceConfig, reports: Arc<dyn Reports>) -> Result<Arc<Self>, StartError> {
        check(&config)?;
        if config.threads > THREADS {
            tracing::info!(threads = config.threads, "the datapath uses {THREADS} threads");
        }
        let mut tun = open_device(&config)?;
        let mut host = Host::open(host_config(&config))?;
        host.renew_device(Some(tun.ifindex))?;
        let sockets = raw_sockets(config.mark)?;
        let (sender, messages) = mpsc::channel();
        let answers = Answers::open(config.mark).map_err(|error| StartError::Socket(error.to_string()))?;
        let wires = Arc::new(wires(sockets, answers, tun.queues.pop(), sender.clone())?);
        let waker = Arc::clone(&wires);
        let control = Control::new(
            Identity {
                device: config.device.as_str().into(),
                mtu: config.device_mtu() as usize,
                simulation: config.simulation.clone(),
            },
            Arc::clone(&reports),
            Box::new(Machine::new(host)),
            Arc::new(datapath_io::now),
            &random()?,
            Box::new(move || waker.transmit_wake.wake()),
        );
        let common =
            Arc::new(Common { config, control, wires, reports, device_is_lost: Arc::new(AtomicBool::new(false)) });
        let links = follow_links(&common, &sender)?;
        let threads = start_threads(&common, messages)?;
        Ok(Arc::new(Self {
            shared_state: common,
            messages: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
            links: Mutex::new(links),
        }))
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let drops = &self.shared_state.control.shared().drops;
        Reason::ALL.iter().map(|reason| (reason.name(), drops.get(*reason)))
    }

    /// Has a simulated device go wrong, after all requests made before; `then` is told as by [`Control::simulate`].
    pub fn simulate(&self, order: Simulate, then: Simulated) {
        if let Err(Message::Simulate(_, then)) = self.post(Message::Simulate(order, then)) {
            then(Err("the backend has stopped".into()));
        }
    }

    fn post(&self, message: Message) -> Result<(), Message> {
        match &*self.messages.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => sender.send(message).map_err(|refused| refused.0),
            None => Err(message),
        }
    }
}

impl OffloadBackend for Userspace {
    fn devices(&self) -> Arc<DeviceTable> {
        self.shared_state.control.devices()
    }

    fn device_for(&self, local: IpAddr, remote: IpAddr) -> Option<DeviceId> {
        self.shared_state.control.device_for(local, remote)
    }

    fn reserve_spi(&self, _device: DeviceId) -> Result<Spi, TableFull> {
        self.shared_state.control.reserve_spi()
    }

    fn release_spi(&self, _device: DeviceId, spi: Spi) {
        self.shared_state.control.release_spi(spi);
    }

    fn submit(&self, tag: Tag, request: Request) {
        if self.post(Message::Request(tag, request)).is_err() {
            self.shared_state.reports.done(tag, Err(self.shared_state.unavailable()));
        }
    }

    fn drops(&self) -> Vec<(&'static str, u64)> {
        Userspace::drops(self).collect()
    }

    fn show_packets(&self, tap: Option<Arc<dyn Tap>>) -> Result<View, String> {
        self.shared_state.control.shared().show_packets(tap);
        Ok(View {
            inner: "packets in clear, each before encryption and after decryption".into(),
            outer: "ESP as it is sent and received, IP and UDP headers rebuilt from what the sockets tell of them"
                .into(),
        })
    }

    fn adopt_nat_sockets(&self, sockets: Vec<OwnedFd>) -> io::Result<NatReader> {
        let common = &self.shared_state;
        let mut adopted = Vec::new();
        for socket in sockets {
            let socket = OuterSocket::adopt(socket, common.config.mark).map_err(io::Error::other)?;
            let beside = socket.beside(common.config.mark);
            adopted.push(Arc::new(socket));
            match beside {
                Ok(beside) => adopted.push(Arc::new(beside)),
                Err(error) => tracing::warn!(%error, "IKE and ESP on the NAT-T port share one queue"),
            }
        }
        common.wires.sockets.rcu(|present| {
            let mut all = Vec::clone(present);
            all.extend(adopted.iter().cloned());
            all
        });
        common.wires.receive_wake.wake();
        Ok(NatReader::Backend)
    }

    fn leftovers(&self) -> Vec<String> {
        self.shared_state.control.with_surroundings(|host| host.leftovers())
    }

    fn drop_leftovers(&self) -> Result<(), OffloadError> {
        self.shared_state.control.with_surroundings(|host| host.drop_leftovers())
    }

    fn shut_down(&self, on_stop: OnStop) {
        drop(self.links.lock().unwrap_or_else(PoisonError::into_inner).take());
        let sender = self.messages.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The control thread holds the other end until it has been told to stop.
            let _ = sender.send(Message::Stop(on_stop));
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a datapath thread ended in a panic");
            }
        }
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.shut_down(OnStop::Block);
    }
}

impl Common {
    fn unavailable(&self) -> OffloadError {
        OffloadError::Unavailable(self.config.device.as_str().into())
    }

    /// The control thread: requests in order, and what comes with time.
    fn run(&self, messages: &Receiver<Message>) {
        let mut refreshed = datapath_io::now();
        let mut followed = refreshed;
        let mut leaving = VecDeque::new();
        loop {
            let sleep = leaving.front().map_or(LONGEST_SLEEP, |(_, _, until): &Parting| self.until(*until));
            match messages.recv_timeout(self.sleep().min(sleep)) {
                Ok(Message::Request(tag, request)) => match self.control.carry_out(&request) {
                    Ok(Outcome::Leaving(gone)) => leaving.push_back((tag, gone, self.control.now() + LONGEST_USE)),
                    Ok(Outcome::Answer(answer)) => self.reports.done(tag, Ok(answer)),
                    Err(error) => self.reports.done(tag, Err(error)),
                },
                Ok(Message::Simulate(order, then)) => then(self.control.simulate(&order)),
                Ok(Message::Link(change)) => self.control.link_changed(&change, true),
                Ok(Message::DeviceLost) => self.device_lost(),
                Ok(Message::Stop(on_stop)) => return self.stop(on_stop, messages, leaving),
                Err(RecvTimeoutError::Disconnected) => return self.stop(OnStop::Block, messages, leaving),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.part(&mut leaving, false);
            if self.device_is_lost.load(Relaxed) {
                self.regain_device();
            }
            let now = datapath_io::now();
            let stale = self.wires.path_mtu_stale.load(Relaxed) && now.saturating_since(refreshed) >= STALE;
            if now.saturating_since(followed) >= FOLLOW {
                followed = now;
                self.set_up();
                self.follow();
            }
            if stale || now.saturating_since(refreshed) >= REFRESH {
                refreshed = now;
                self.wires.path_mtu_stale.store(false, Relaxed);
                self.control.refresh_path_mtu();
            }
        }
    }

    /// Answers requests whose SAs are in no use any more; with `all`, every one.
    fn part(&self, leaving: &mut VecDeque<Parting>, all: bool) {
        while let Some((tag, gone, until)) = leaving.pop_front() {
            let now = self.control.now();
            if !all && now < until && !gone.is_over() {
                return leaving.push_front((tag, gone, until));
            }
            self.reports.done(tag, Ok(gone.answer(now)));
        }
    }

    fn until(&self, at: Instant) -> Duration {
        at.saturating_since(self.control.now())
    }

    fn sleep(&self) -> Duration {
        let next = self.control.tick().map(|at| self.until(at));
        let longest = if self.device_is_lost.load(Relaxed) {
            DEVICE_RETRY
        } else if self.wires.path_mtu_stale.load(Relaxed) {
            STALE
        } else {
            LONGEST_SLEEP
        };
        next.map_or(longest, |next| next.min(longest))
    }

    /// What somebody else has taken away is put back; whoever did that may have changed more, so the books are to be compared as well.
    fn follow(&self) {
        match self.control.refresh() {
            Ok(restored) if restored.is_empty() => {}
            Ok(restored) => {
                restored.iter().for_each(|what| tracing::warn!(device = self.config.device, "put back: {what}"));
                self.reports.event(Event::Resync);
            }
            Err(error) => tracing::warn!(%error, "cannot follow the host's addresses and routes"),
        }
    }

    /// A device that somebody set down lost its routes; the refresh after this puts them back.
    fn set_up(&self) {
        match set_up(&self.config.device) {
            Ok(true) => {
                tracing::warn!(device = self.config.device, "somebody set the tunnel device down: it is up again")
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot see whether the tunnel device is up"),
        }
    }

    /// Routes are gone with the device; the guard's blocks hold, its exemption for the device is taken back. SAD and SPD stay as they are: no
    /// packet passes meanwhile, and sequence numbers go on where they were.
    fn device_lost(&self) {
        if self.device_is_lost.swap(true, Relaxed) {
            return;
        }
        self.control.tunnel_lost();
        if let Err(error) = self.control.with_surroundings(|host| host.renew_device(None)) {
            tracing::warn!(%error, "cannot take the lost device out of the guard");
        }
    }

    fn regain_device(&self) {
        let mut tun = match open_device(&self.config) {
            Ok(tun) => tun,
            Err(error) => return tracing::warn!(%error, "cannot get the tunnel device back yet"),
        };
        if let Err(error) = self.control.with_surroundings(|host| host.renew_device(Some(tun.ifindex))) {
            return tracing::warn!(%error, "cannot point routes and guard at the new tunnel device yet");
        }
        self.wires.tun.store(Arc::new(tun.queues.pop()));
        self.wires.transmit_wake.wake();
        self.device_is_lost.store(false, Relaxed);
        self.control.tunnel_back();
    }

    fn stop(&self, on_stop: OnStop, messages: &Receiver<Message>, mut leaving: VecDeque<Parting>) {
        self.control.close();
        self.part(&mut leaving, true);
        // Senders are gone by now except those in the middle of a submit: what they post is answered too.
        while let Ok(message) = messages.recv_timeout(Duration::ZERO) {
            if let Message::Request(tag, _) = message {
                self.reports.done(tag, Err(self.unavailable()));
            }
        }
        self.wires.stop.store(true, Relaxed);
        self.wires.transmit_wake.wake();
        self.wires.receive_wake.wake();
        if let Err(error) = self.control.with_surroundings(|host| host.stop(on_stop)) {
            tracing::error!(%error, "cannot tidy up routes and guard");
        }
        self.wires.tun.store(Arc::new(None));
        self.wires.sockets.store(Arc::new(Vec::new()));
    }
}

fn check(config: &UserspaceConfig) -> Result<(), StartError> {
    // IPv4 needs 68 octets, IPv6 1280; more than 65535 fits no packet.
    if config.mtu != 0 && !(1280..=65_535).contains(&config.mtu) {
        return Err(StartError::Setting {
            setting: "mtu",
            value: config.mtu.to_string(),
            reason: "must be 0 (derived) or from 1280 to 65535",
        });
    }
    Ok(())
}

fn open_device(config: &UserspaceConfig) -> Result<Tun, StartError> {
    let config = TunConfig { device: config.device.clone(), queues: 1, mtu: config.device_mtu(), offloads: true };
    Ok(Tun::open(&config)?)
}

fn host_config(config: &UserspaceConfig) -> HostConfig {
    HostConfig {
        device: config.device.clone(),
        mtu: config.device_mtu(),
        table: config.table,
        rule_priority: config.rule_priority,
        mark: config.mark,
        install_routes: config.install_routes,
        ike_ports: config.ike_ports,
    }
}

fn raw_sockets(mark: u32) -> Result<Vec<Arc<OuterSocket>>, StartError> {
    let mut sockets = Vec::new();
    for v4 in [true, false] {
        let socket = OuterSocket::raw(v4, mark).map_err(|error| StartError::Socket(error.to_string()))?;
        sockets.extend(socket.map(Arc::new));
    }
    Ok(sockets)
}

fn wires(
    sockets: Vec<Arc<OuterSocket>>,
    answers: Answers,
    tun: Option<OwnedFd>,
    lost: Sender<Message>,
) -> Result<Wires, StartError> {
    let wake = || {
        Wake::new().map_err(|error| StartError::System { action: "make an event counter", reason: error.to_string() })
    };
    Ok(Wires {
        sockets: ArcSwap::from_pointee(sockets),
        answers,
        tun: ArcSwap::from_pointee(tun),
        path_mtu_stale: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        transmit_wake: wake()?,
        receive_wake: wake()?,
        device_lost: Box::new(move || {
            // Without a control thread there is nobody to get the device back.
            let _ = lost.send(Message::DeviceLost);
        }),
    })
}

fn random() -> Result<[u8; 128], StartError> {
    let mut octets = [0; 128];
    ring_provider()
        .random
        .fill(&mut octets)
        .map_err(|error| StartError::System { action: "draw random numbers", reason: error.to_string() })?;
    Ok(octets)
}

/// Has the links of the machine pose as NICs, where that is asked for, and follows them.
fn follow_links(common: &Arc<Common>, to: &Sender<Message>) -> Result<Option<LinkWatch>, StartError> {
    if common.config.simulation.as_ref().is_none_or(|simulation| !simulation.each_link) {
        return Ok(None);
    }
    let devices = Devices::open(common.config.mark)?;
    let routes = Arc::clone(&devices);
    common.control.follow_links(Box::new(move |local, remote| match routes.egress(local, remote) {
        Ok(egress) => Some(egress.index),
        Err(reason) => {
            tracing::debug!(%local, %remote, %reason, "no device carries this");
            None
        }
    }));
    for link in devices.links().iter() {
        common.control.link_changed(&LinkChange::Added(link.clone()), false);
    }
    let to = to.clone();
    let told = move |change| {
        // Without a control thread there is nothing to keep up to date.
        let _ = to.send(Message::Link(change));
    };
    let watch = LinkWatch::start(devices, told);
    watch.map(Some).map_err(|error| StartError::System { action: "follow links", reason: error.to_string() })
}

fn start_threads(common: &Arc<Common>, messages: Receiver<Message>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|error| StartError::System { action: "start a thread", reason: error.to_string() })
    };
    let (control, sending, receiving) = (Arc::clone(common), Arc::clone(common), Arc::clone(common));
    Ok(vec![
        spawn("esp-transmit", Box::new(move || transmit::run(sending.control.shared(), &sending.wires)))?,
        spawn("esp-receive", Box::new(move || receive::run(receiving.control.shared(), &receiving.wires)))?,
        spawn("esp-control", Box::new(move || control.run(&messages)))?,
    ])
}
