//! What the behaviours have in common: handles, specifications, requests, and the hair-pin that lets a subject talk to itself.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Kept, Log, OuterPacket, Subject, Verdict, Wire, ensure};
use crate::algorithm::{EspAlgorithm, KeyMaterial};
use crate::backend::{Answer, Event, OffloadError, Op, Request, SaStatus, Scope};
use crate::handle::{DeviceId, PolicyHandle, Reqid, SaHandle, Shard, Spi, Tag};
use crate::limits::Limits;
use crate::policy::{PolicyAction, PolicySpec};
use crate::sa::{Direction, HeaderCopy, OffloadMode, OuterAddresses, SaMode, SaSpec, UdpEncapsulation};
use crate::selector::{SelectorPair, TrafficSelector};

const DEVICE: DeviceId = DeviceId(0);
pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub(super) const UDP: UdpEncapsulation = UdpEncapsulation { local_port: 4500, remote_port: 4500 };

/// A subject and the handles given out for it.
pub(super) struct Bench<'a> {
    subject: &'a mut dyn Subject,
    count: u64,
}

/// An outbound SA with its policy, and the inbound SA that understands it.
pub(super) struct HairPin {
    pub(super) outbound: SaSpec,
    pub(super) inbound: SaSpec,
    pub(super) policy: PolicySpec,
}

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a mut dyn Subject) -> Self {
        Self { subject, count: 0 }
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

    /// Submits and returns all outcomes that came.
    pub(super) fn submit(&mut self, request: Request) -> Vec<Result<Answer, OffloadError>> {
        let tag = Tag::new(Shard(3), self.count());
        self.subject.backend().submit(tag, request);
        self.subject.settle();
        self.subject.log().outcomes(tag)
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<Result<Answer, OffloadError>, Verdict> {
        let mut outcomes = self.submit(request.clone());
        ensure(outcomes.len() == 1, || format!("{request:?} was answered {} times", outcomes.len()))?;
        outcomes.pop().ok_or(Verdict::CannotShow)
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

    pub(super) fn installed(&mut self) -> Result<Vec<SaHandle>, Verdict> {
        match self.ask(Request::List(Scope::All))? {
            Ok(Answer::Installed(all)) => Ok(all.sas.into_iter().map(|status| status.sa).collect()),
            other => Err(Verdict::Broken(format!("a list was answered with {other:?}"))),
        }
    }

    pub(super) fn reserve(&mut self) -> Result<Spi, Verdict> {
        self.subject.backend().reserve_spi(DEVICE).map_err(|error| Verdict::Broken(error.to_string()))
    }

    pub(super) fn sa(&mut self, direction: Direction, spi: Spi, selectors: SelectorPair) -> SaSpec {
        SaSpec {
            handle: SaHandle::new(Shard(3), self.count()),
            device: DEVICE,
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer: OuterAddresses { local: LOCAL, remote: REMOTE },
            peer_view: None,
            encapsulation: None,
            algorithm: EspAlgorithm::AES_256_GCM,
            key: KeyMaterial::new(&[0x5a; 36], None),
            esn: false,
            replay_window: 64,
            selectors: Arc::new([selectors]),
            limits: Limits::default(),
            reqid: Reqid(7),
            copy: HeaderCopy::default(),
            offload: OffloadMode::No,
            tags: crate::tags::Tags::NONE,
            initial_sequence: 0,
            name: "conformance/child".into(),
        }
    }

    pub(super) fn policy(&mut self, selectors: SelectorPair, priority: u32, action: PolicyAction) -> PolicySpec {
        PolicySpec {
            handle: PolicyHandle::new(Shard(3), self.count()),
            device: DEVICE,
            direction: Direction::Outbound,
            selectors,
            priority,
            action,
            offload: OffloadMode::No,
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
        })
    }

    /// A hair-pin of the usual networks with everything installed and active.
    pub(super) fn connected(&mut self) -> Result<HairPin, Verdict> {
        let pin = self.hair_pin(networks())?;
        self.apply(pin.everything())?;
        Ok(pin)
    }

    /// What leaves on the outer side when these packets come from the protected one.
    pub(super) fn send(&mut self, packets: &[Vec<u8>]) -> Result<Vec<OuterPacket>, Verdict> {
        self.wire()?.inject_inner(packets);
        self.subject.settle();
        let out = self.wire()?.captured_outer();
        ensure(out.iter().all(|packet| packet.esp().is_some()), || "a packet left in clear".into())?;
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

    pub(super) fn pass_time(&mut self, span: std::time::Duration) -> Kept {
        self.wire()?.pass_time(span);
        self.subject.settle();
        Ok(())
    }
}

impl HairPin {
    pub(super) fn everything(&self) -> Vec<Op> {
        vec![
            Op::InstallSa(Box::new(self.inbound.clone())),
            Op::InstallSa(Box::new(self.outbound.clone())),
            Op::InstallPolicy(self.policy.clone()),
            self.activate(),
        ]
    }

    pub(super) fn activate(&self) -> Op {
        Op::Activate { policy: self.policy.handle, sa: self.outbound.handle }
    }
}

/// A packet as its receiver sees it when sender and receiver have each other's addresses.
pub(super) fn turn(packet: &OuterPacket) -> OuterPacket {
    let swap = |address: std::net::SocketAddr| {
        let ip = if address.ip() == LOCAL {
            REMOTE
        } else if address.ip() == REMOTE {
            LOCAL
        } else {
            address.ip()
        };
        std::net::SocketAddr::new(ip, address.port())
    };
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
