//! One gateway: the backend in a namespace, a queue of its reports, and specifications with little to say.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{
    Answer, DeviceId, Direction, EspAlgorithm, Event, GuardSpec, KeyMaterial, Limits, OffloadBackend, OffloadError,
    OffloadMode, OnStop, Op, OuterAddresses, Path, PolicyAction, PolicyHandle, PolicySpec, Reports, Reqid, Request,
    SaHandle, SaMode, SaSpec, SaStatus, SelectorPair, Shard, Spi, Tag, TrafficSelector, UdpEncapsulation,
};
use offload_userspace::{Userspace, UserspaceConfig};

use super::lab::{Lab, eventually};

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) done: Mutex<Vec<(Tag, Result<Answer, OffloadError>)>>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) ike: Mutex<Vec<(Path, Vec<u8>)>>,
}

impl Reports for Queue {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.done.lock().unwrap().push((tag, outcome));
    }

    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        self.ike.lock().unwrap().push((path, octets.to_vec()));
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Gateway {
    pub(crate) backend: Arc<Userspace>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) outer: OuterAddresses,
}

/// One pair of protected networks, seen from `a`.
pub(crate) const V4: (&str, &str) = ("10.1.0.0/24", "10.2.0.0/24");
pub(crate) const V6: (&str, &str) = ("fd01::/64", "fd02::/64");

/// The properties of a pair of SAs that tests vary.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) algorithm: EspAlgorithm,
    pub(crate) udp: bool,
    pub(crate) esn: bool,
    pub(crate) limits: Limits,
    pub(crate) copy_df: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { algorithm: EspAlgorithm::AES_256_GCM, udp: false, esn: false, limits: Limits::default(), copy_df: true }
    }
}

impl Gateway {
    pub(crate) fn start(lab: &Lab, role: &str, config: UserspaceConfig) -> Self {
        let queue = Arc::new(Queue::default());
        let peer = if role == "ga" { "gb" } else { "ga" };
        let outer = OuterAddresses { local: lab.outer(role), remote: lab.outer(peer) };
        let reports: Arc<dyn Reports> = Arc::<Queue>::clone(&queue);
        let backend = lab.inside(role, move || {
            let backend = Userspace::start(config, reports).unwrap();
            let any: IpAddr = if outer.local.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
            backend.adopt_nat_sockets(vec![UdpSocket::bind((any, 4500)).unwrap().into()]).unwrap();
            backend
        });
        Self { backend, queue, outer }
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Answer, OffloadError> {
        let tag = Tag::new(Shard(0), next());
        self.backend.submit(tag, request);
        let mut answer = None;
        eventually("an answer", || {
            answer =
                self.queue.done.lock().unwrap().iter().find(|(done, _)| *done == tag).map(|(_, answer)| answer.clone());
            answer.is_some()
        });
        answer.unwrap()
    }

    pub(crate) fn apply(&self, ops: Vec<Op>) {
        self.ask(Request::Apply(ops)).unwrap();
    }

    pub(crate) fn status(&self, sa: SaHandle) -> SaStatus {
        let answer = self.ask(Request::Query(sa)).unwrap();
        let Answer::Status(status) = answer else { panic!("{answer:?}") };
        status
    }

    pub(crate) fn saw(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.queue.events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }

    pub(crate) fn reserve(&self) -> Spi {
        self.backend.reserve_spi(DeviceId(0)).unwrap()
    }

    pub(crate) fn sa(&self, direction: Direction, spi: Spi, key: u8, pair: SelectorPair, style: &Style) -> SaSpec {
        let octets = [key; 64];
        SaSpec {
            handle: SaHandle::new(Shard(0), next()),
            device: DeviceId(0),
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer: self.outer,
            peer_view: None,
            encapsulation: style.udp.then_some(UdpEncapsulation { local_port: 4500, remote_port: 4500 }),
            algorithm: style.algorithm,
            key: KeyMaterial::new(
                &octets[..style.algorithm.encryption.keymat_octets()],
                style.algorithm.integrity.map(|integrity| &octets[..integrity.keymat_octets()]),
            ),
            esn: style.esn,
            replay_window: 64,
            selectors: Arc::new([pair]),
            limits: style.limits,
            reqid: Reqid(1),
            copy: HeaderCopy { df: style.copy_df, ecn: true, dscp: CopyDscp::Out },
            offload: OffloadMode::No,
            tags: ipsec::Tags::NONE,
            initial_sequence: 0,
            name: "net/child".into(),
        }
    }

    pub(crate) fn policy(
        &self,
        direction: Direction,
        pair: SelectorPair,
        priority: u32,
        action: PolicyAction,
    ) -> PolicySpec {
        PolicySpec {
            handle: PolicyHandle::new(Shard(0), next()),
            device: DeviceId(0),
            direction,
            selectors: pair,
            priority,
            action,
            offload: OffloadMode::No,
            tags: ipsec::Tags::NONE,
            name: "net/child".into(),
        }
    }

    pub(crate) fn protect(&self) -> PolicyAction {
        PolicyAction::Protect { reqid: Reqid(1), sa: None, mode: SaMode::Tunnel, outer: self.outer }
    }

    /// The order the contract wants: guard, in policy and inbound SA, outbound SA, outbound policy, activation.
    pub(crate) fn install(&self, pair: SelectorPair, inbound: SaSpec, outbound: SaSpec) -> (SaHandle, SaHandle) {
        let handles = (inbound.handle, outbound.handle);
        let policy = self.policy(Direction::Outbound, pair, 1000, self.protect());
        let activate = Op::Activate { policy: policy.handle, sa: outbound.handle };
        self.apply(vec![
            Op::InstallGuard(guard(pair)),
            Op::InstallPolicy(self.policy(Direction::Inbound, pair, 1000, self.protect())),
            Op::InstallSa(Box::new(inbound)),
            Op::InstallSa(Box::new(outbound)),
            Op::InstallPolicy(policy),
            activate,
        ]);
        handles
    }

    /// Drop counters that are not zero, for messages.
    pub(crate) fn drops(&self) -> String {
        let counted = self.backend.drops().filter(|(_, count)| *count > 0);
        counted.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn stop(&self) {
        self.backend.shut_down(OnStop::Open);
    }
}

pub(crate) fn guard(pair: SelectorPair) -> GuardSpec {
    GuardSpec { name: "net/child".into(), selectors: pair }
}

pub(crate) fn pair(local: &str, remote: &str) -> SelectorPair {
    let ts = |text: &str| {
        let (address, length) = text.split_once('/').unwrap();
        TrafficSelector::prefix(address.parse().unwrap(), length.parse().unwrap()).unwrap()
    };
    SelectorPair { local: ts(local), remote: ts(remote) }
}

/// A pair of SAs with traffic in both directions between two gateways; returns each one's (inbound, outbound).
pub(crate) fn connect(
    a: &Gateway,
    b: &Gateway,
    networks: (&str, &str),
    style: &Style,
) -> ((SaHandle, SaHandle), (SaHandle, SaHandle)) {
    let (spi_a, spi_b) = (a.reserve(), b.reserve());
    let (seen_by_a, seen_by_b) = (pair(networks.0, networks.1), pair(networks.1, networks.0));
    let at_b = b.install(
        seen_by_b,
        b.sa(Direction::Inbound, spi_b, 1, seen_by_b, style),
        b.sa(Direction::Outbound, spi_a, 2, seen_by_b, style),
    );
    let at_a = a.install(
        seen_by_a,
        a.sa(Direction::Inbound, spi_a, 2, seen_by_a, style),
        a.sa(Direction::Outbound, spi_b, 1, seen_by_a, style),
    );
    (at_a, at_b)
}
