//! What the behaviours have in common: handles, specifications, requests, and the hair-pin that lets a subject talk to itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Fate, Kept, Log, OuterPacket, Subject, Verdict, Wire, ensure};
use crate::algorithm::{EspAlgorithm, KeyMaterial};
use crate::backend::{Answer, Event, Installed, OffloadError, Op, Request, SaStatus, Scope};
use crate::capability::{Capabilities, Device, ReplayWindows, Rung};
use crate::handle::{DeviceId, PolicyHandle, Reqid, SaHandle, Shard, Spi, Tag};
use crate::limits::Limits;
use crate::policy::{GuardSpec, PolicyAction, PolicySpec};
use crate::sa::{Direction, HeaderCopy, OffloadMode, OuterAddresses, SaMode, SaSpec, UdpEncapsulation};
use crate::selector::{SelectorPair, TrafficSelector};

pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub(super) const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The shard that owns everything, unless said otherwise.
pub(super) const SHARD: Shard = Shard(3);
/// Where SAs move to.
pub(super) const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
pub(super) const UDP: UdpEncapsulation = UdpEncapsulation { local_port: 4500, remote_port: 4500 };

/// A subject, the rung it is tested on, and the handles given out for it.
pub(super) struct Bench<'a> {
    subject: &'a mut dyn Subject,
    count: u64,
    /// Device and rung of everything that is installed.
    device: Device,
    mode: OffloadMode,
    capabilities: Capabilities,
}

/// An outbound SA with its policy, and the inbound SA that understands it.
pub(super) struct HairPin {
    pub(super) outbound: SaSpec,
    pub(super) inbound: SaSpec,
    pub(super) policy: PolicySpec,
    /// Inbound and forward policies of the inbound SA, where those decide.
    pub(super) inward: Vec<(Direction, PolicyHandle)>,
}

impl<'a> Bench<'a> {
    /// On the device that carries traffic of the kit's addresses, or else the first one, that has the rung.
    pub(super) fn new(subject: &'a mut dyn Subject, mode: OffloadMode) -> Result<Self, Verdict> {
        let table = subject.backend().devices();
        let routed = subject.backend().device_for(LOCAL, REMOTE).and_then(|device| table.get(device));
        let found = routed.into_iter().chain(&table.devices).find_map(|device| Some((device, device.rung(mode)?)));
        let missing = || Verdict::Broken(format!("no device offers {mode:?}"));
        let (device, rung) = found.ok_or_else(missing)?;
        let (device, capabilities) = (device.clone(), rung.capabilities.clone());
        Ok(Self { subject, count: 0, device, mode, capabilities })
    }

    /// What the rung claims.
    pub(super) fn claims(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Ends the behaviour where the rung does not claim what it is about.
    pub(super) fn needs(&self, what: impl FnOnce(&Capabilities) -> bool) -> Kept {
        if what(&self.capabilities) { Ok(()) } else { Err(Verdict::NotClaimed) }
    }

    /// Ends the behaviour where the subject cannot do what it takes.
    pub(super) fn power(&self, can: bool) -> Kept {
        if can { Ok(()) } else { Err(Verdict::CannotShow) }
    }

    /// What becomes of a packet in clear at the host.
    pub(super) fn host(&mut self, direction: Direction, packet: &[u8]) -> Result<Fate, Verdict> {
        self.subject.host(direction, packet).ok_or(Verdict::CannotShow)
    }

    /// Takes the device away.
    pub(super) fn pull(&mut self) -> Result<DeviceId, Verdict> {
        let device = self.device.id;
        let can = self.subject.pull_device(device);
        self.power(can)?;
        self.settle();
        Ok(device)
    }

    pub(super) fn settle(&mut self) {
        self.subject.settle();
    }

    /// The rung under test.
    pub(super) fn mode(&self) -> OffloadMode {
        self.mode
    }

    /// The device under test.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The algorithm of all SAs: AES-GCM with 256 bits where the rung has it.
    pub(super) fn algorithm(&self) -> EspAlgorithm {
        algorithm_of(&self.capabilities)
    }

    /// The replay window of all inbound SAs: 64 packets, or what the rung has instead.
    pub(super) fn window(&self) -> u32 {
        window_of(&self.capabilities)
    }

    /// The wire, or the verdict that there is none.
    pub(super) fn wire(&mut self) -> Result<&mut dyn Wire, Verdict> {
        self.subject.wire().ok_or(Verdict::CannotShow)
    }

    pub(super) fn log(&self) -> &Log {
        self.subject.log()
    }

    pub(super) fn subject(&mut self) -> &mut dyn Subject {
        self.subject
    }

    pub(super) fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Submits and waits for nothing.
    pub(super) fn submit_only(&mut self, request: Request) -> Tag {
        let tag = Tag::new(SHARD, self.count());
        self.subject.backend().submit(tag, request);
        tag
    }

    /// Submits and returns all outcomes that came.
    pub(super) fn submit(&mut self, request: Request) -> Vec<Result<Answer, OffloadError>> {
        let tag = self.submit_only(request);
        self.subject.settle();
        self.subject.log().outcomes(tag)
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<Result<Answer, OffloadError>, Verdict> {
        // That there is no second outcome is a rule of its own.
        let outcomes = self.submit(request.clone());
        outcomes.into_iter().next().ok_or_else(|| Verdict::Broken(format!("{request:?} was not answered")))
    }

    /// Applies operations that must succeed.
    pub(super) fn apply(&mut self, ops: Vec<Op>) -> Result<Answer, Verdict> {
        self.ask(Request::Apply(ops))?.map_err(|error| Verdict::Broken(format!("a legal request was refused: {error}")))
    }

    pub(super) fn status(&mut self, sa: SaHandle) -> Result<SaStatus, Verdict> {
        match self.ask(Request::Query(sa))? {
            Ok(Answer::Status(status)) => Ok(status),
            other => Err(Verdict::Broken(format!("a query was answered with {other:?}"))),
        }
    }

    /// Everything a list of this scope shows.
    pub(super) fn list(&mut self, scope: Scope) -> Result<Installed, Verdict> {
        match self.ask(Request::List(scope))? {
            Ok(Answer::Installed(all)) => Ok(all),
            other => Err(Verdict::Broken(format!("a list was answered with {other:?}"))),
        }
    }

    pub(super) fn installed(&mut self) -> Result<Vec<SaHandle>, Verdict> {
        Ok(self.list(Scope::All)?.sas.into_iter().map(|status| status.sa).collect())
    }

    pub(super) fn reserve(&mut self) -> Result<Spi, Verdict> {
        self.subject.backend().reserve_spi(self.device.id).map_err(|error| Verdict::Broken(error.to_string()))
    }

    pub(super) fn sa(&mut self, direction: Direction, spi: Spi, selectors: SelectorPair) -> SaSpec {
        let algorithm = self.algorithm();
        SaSpec {
            handle: SaHandle::new(SHARD, self.count()),
            device: self.device.id,
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer: OuterAddresses { local: LOCAL, remote: REMOTE },
            peer_view: None,
            encapsulation: None,
            algorithm,
            key: key(algorithm),
            esn: false,
            replay_window: self.window(),
            selectors: Arc::new([selectors]),
            limits: Limits::default(),
            reqid: Reqid(7),
            copy: HeaderCopy::default(),
            offload: self.mode,
            tags: crate::tags::Tags::NONE,
            initial_sequence: 0,
            name: "conformance/child".into(),
        }
    }

    pub(super) fn policy(&mut self, selectors: SelectorPair, priority: u32, action: PolicyAction) -> PolicySpec {
        PolicySpec {
            handle: PolicyHandle::new(SHARD, self.count()),
            device: self.device.id,
            direction: Direction::Outbound,
            selectors,
            priority,
            action,
            offload: self.mode,
            tags: crate::tags::Tags::NONE,
            name: "conformance/child".into(),
        }
    }

    /// Specifications of a hair-pin; nothing is installed yet.
    pub(super) fn hair_pin(&mut self, selectors: SelectorPair) -> Result<HairPin, Verdict> {
        let spi = self.reserve()?;
        let turned = SelectorPair { local: selectors.remote, remote: selectors.local };
        Ok(HairPin {
            outbound: self.sa(Direction::Outbound, spi, selectors),
            inbound: self.sa(Direction::Inbound, spi, turned),
            policy: self.policy(selectors, 1000, protect()),
            inward: self.inward(),
        })
    }

    /// Names for the inbound and forward policies of an SA, where those decide.
    pub(super) fn inward(&mut self) -> Vec<(Direction, PolicyHandle)> {
        if !self.subject.is_the_host() {
            return Vec::new();
        }
        [Direction::Inbound, Direction::Forward].map(|way| (way, PolicyHandle::new(SHARD, self.count()))).into()
    }

    /// A hair-pin of the usual networks with everything installed and active.
    pub(super) fn connected(&mut self) -> Result<HairPin, Verdict> {
        let pin = self.hair_pin(networks())?;
        self.apply(pin.everything())?;
        Ok(pin)
    }

    /// What leaves on the outer side when these packets come from the protected one.
    pub(super) fn send(&mut self, packets: &[Vec<u8>]) -> Result<Vec<OuterPacket>, Verdict> {
        let out = self.send_any(packets)?;
        ensure(out.iter().all(|packet| packet.esp().is_some()), || "a packet left in clear".into())?;
        Ok(out)
    }

    /// The same, whether protected or not.
    pub(super) fn send_any(&mut self, packets: &[Vec<u8>]) -> Result<Vec<OuterPacket>, Verdict> {
        self.wire()?.inject_inner(packets);
        self.subject.settle();
        Ok(self.wire()?.captured_outer())
    }

    /// What is protected of these packets, of which no policy may take some. Such a packet leaves in clear where the datapath is the host's.
    pub(super) fn send_strange(&mut self, packets: &[Vec<u8>]) -> Result<Vec<OuterPacket>, Verdict> {
        if !self.subject.is_the_host() {
            return self.send(packets);
        }
        let mut out = self.send_any(packets)?;
        out.retain(|packet| packet.esp().is_some());
        Ok(out)
    }

    /// What is delivered to the protected side when these packets come from the outer one.
    pub(super) fn receive(&mut self, packets: &[OuterPacket]) -> Result<Vec<Vec<u8>>, Verdict> {
        let turned: Vec<OuterPacket> = packets.iter().map(turn).collect();
        // Answers to what was sent before do not belong here.
        self.wire()?.captured_inner();
        self.wire()?.inject_outer(&turned);
        self.subject.settle();
        Ok(self.wire()?.captured_inner())
    }

    /// Events of one kind so far.
    pub(super) fn told(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.log().events().iter().filter(|event| wanted(event)).count()
    }

    /// Events so far about drops for one reason.
    pub(super) fn told_drops(&self, wanted: &str) -> usize {
        self.told(|event| matches!(event, Event::Drops { reason, .. } if *reason == wanted))
    }

    pub(super) fn pass_time(&mut self, span: std::time::Duration) -> Kept {
        self.wire()?.pass_time(span);
        self.subject.settle();
        Ok(())
    }
}

fn algorithm_of(rung: &Capabilities) -> EspAlgorithm {
    let best = EspAlgorithm::AES_256_GCM;
    let known = &rung.algorithms;
    if known.contains(&best) { best } else { known.first().copied().unwrap_or(best) }
}

fn window_of(rung: &Capabilities) -> u32 {
    match &rung.replay_windows {
        ReplayWindows::Range(least, most) => 64.clamp(*least, *most),
        ReplayWindows::Only(windows) if windows.contains(&64) => 64,
        ReplayWindows::Only(windows) => windows.iter().copied().filter(|window| *window != 0).min().unwrap_or(0),
    }
}

/// Makes an SA one of another rung.
pub(super) fn put_on(rung: &Rung, sa: &mut SaSpec) {
    let algorithm = algorithm_of(&rung.capabilities);
    (sa.offload, sa.replay_window) = (rung.mode.mode, window_of(&rung.capabilities));
    (sa.algorithm, sa.key) = (algorithm, key(algorithm));
}

/// Keys of the length an algorithm needs.
pub(super) fn key(algorithm: EspAlgorithm) -> KeyMaterial {
    let integrity = algorithm.integrity.map(|integrity| vec![0xa5; integrity.keymat_octets()]);
    KeyMaterial::new(&vec![0x5a; algorithm.encryption.keymat_octets()], integrity.as_deref())
}

/// Keys one octet short of that.
pub(super) fn key_too_short(algorithm: EspAlgorithm) -> KeyMaterial {
    KeyMaterial::new(&vec![0x5a; algorithm.encryption.keymat_octets() - 1], None)
}

impl HairPin {
    pub(super) fn everything(&self) -> Vec<Op> {
        let mut ops = self.surroundings();
        ops.extend([
            Op::InstallSa(Box::new(self.inbound.clone())),
            Op::InstallSa(Box::new(self.outbound.clone())),
            Op::InstallPolicy(self.policy.clone()),
            self.activate(),
        ]);
        ops
    }

    /// What the core installs before an SA where it matters: the guard, inbound and forward policies.
    pub(super) fn surroundings(&self) -> Vec<Op> {
        if self.inward.is_empty() {
            return Vec::new();
        }
        let guard = GuardSpec { name: "conformance/pin".into(), selectors: self.policy.selectors };
        let inward = self.inbound.selectors.iter().flat_map(|selectors| self.inward_of(*selectors));
        [Op::InstallGuard(guard)].into_iter().chain(inward).collect()
    }

    /// Inbound and forward policies that protect these.
    pub(super) fn inward_of(&self, selectors: SelectorPair) -> impl Iterator<Item = Op> {
        let SaSpec { reqid, mode, outer, .. } = self.inbound;
        let action = PolicyAction::Protect { reqid, sa: None, mode, outer };
        let spec = move |(direction, handle): &(Direction, PolicyHandle)| {
            let action = action.clone();
            Op::InstallPolicy(PolicySpec {
                handle: *handle,
                direction: *direction,
                selectors,
                action,
                ..self.policy.clone()
            })
        };
        self.inward.iter().map(spec)
    }

    /// Takes the inbound SA out, with the policies that let its packets in.
    pub(super) fn remove_inbound(&self) -> Vec<Op> {
        let policies = self.inward.iter().map(|(_, handle)| Op::RemovePolicy(*handle));
        policies.chain([Op::RemoveSa(self.inbound.handle)]).collect()
    }

    pub(super) fn activate(&self) -> Op {
        Op::Activate { policy: self.policy.handle, sa: self.outbound.handle }
    }
}

/// A packet as its receiver sees it when sender and receiver have each other's addresses.
pub(super) fn turn(packet: &OuterPacket) -> OuterPacket {
    let pairs = [(LOCAL, REMOTE), (IpAddr::V6(LOCAL_V6), IpAddr::V6(REMOTE_V6))];
    let other = |ip| {
        let of = |(one, two): &(IpAddr, IpAddr)| [(*one, *two), (*two, *one)].into_iter().find(|(from, _)| *from == ip);
        pairs.iter().find_map(of).map_or(ip, |(_, to)| to)
    };
    let swap = |address: std::net::SocketAddr| std::net::SocketAddr::new(other(address.ip()), address.port());
    OuterPacket { source: swap(packet.source), destination: swap(packet.destination), content: packet.content.clone() }
}

pub(super) fn protect() -> PolicyAction {
    PolicyAction::Protect {
        reqid: Reqid(7),
        sa: None,
        mode: SaMode::Tunnel,
        outer: OuterAddresses { local: LOCAL, remote: REMOTE },
    }
}

/// 10.1.0.0/16 === 10.2.0.0/16.
pub(super) fn networks() -> SelectorPair {
    SelectorPair { local: network(1), remote: network(2) }
}

/// 10.n.0.0/16.
pub(super) fn network(n: u8) -> TrafficSelector {
    let address = IpAddr::V4(Ipv4Addr::new(10, n, 0, 0));
    TrafficSelector::prefix(address, 16).unwrap_or(TrafficSelector::all(crate::selector::AddressRange::host(address)))
}
