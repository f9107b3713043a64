//! The user-space datapath alone, with static SAs: no IKE, keys that the test knows, so that a foreign judge can have them, too.

use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ipsec::{
    Answer, Direction, EspAlgorithm, EspEncryption, Event, GuardSpec, KeyMaterial, Limits, NatReader, OffloadBackend,
    OffloadError, OffloadMode, OnStop, Op, OuterAddresses, Path, PolicyAction, PolicyHandle, PolicySpec, Reports,
    Reqid, Request, SaHandle, SaMode, SaSpec, SelectorPair, Shard, Spi, Tag, TrafficSelector, UdpEncapsulation,
};
use lab::topology::{FAMILIES, Family, Lab, Side};
use offload_userspace::{Userspace, UserspaceConfig};

/// What both ends of a static tunnel agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    pub(crate) encryption: EspEncryption,
    pub(crate) outer: Family,
    pub(crate) in_udp: bool,
    pub(crate) esn: bool,
    /// Both directions start after this sequence number.
    pub(crate) initial_sequence: u64,
    pub(crate) replay_window: u32,
}

impl Agreement {
    pub(crate) const fn new(encryption: EspEncryption, outer: Family) -> Self {
        Agreement { encryption, outer, in_udp: false, esn: false, initial_sequence: 0, replay_window: 256 }
    }

    /// The key of the direction that a side sends in: different octets for each.
    pub(crate) fn key(&self, sender: Side) -> Vec<u8> {
        let first = if sender == Side::A { 0x11_u8 } else { 0x71 };
        (0..self.encryption.keymat_octets()).map(|index| first.wrapping_add(index as u8)).collect()
    }
}

/// One gateway's datapath.
pub(crate) struct Datapath {
    backend: Arc<Userspace>,
    done: Mutex<Receiver<(Tag, Result<Answer, OffloadError>)>>,
    inbound: Spi,
    side: Side,
}

struct Forwarded(Mutex<Sender<(Tag, Result<Answer, OffloadError>)>>);

impl Reports for Forwarded {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        if let Ok(sender) = self.0.lock() {
            // The test is over when nobody receives any more.
            let _ = sender.send((tag, outcome));
        }
    }

    fn event(&self, _: Event) {}

    fn ike_datagram(&self, _: Path, _: &[u8]) {}
}

impl Datapath {
    /// Starts a datapath in a side's gateway, with an SPI for the peer to send to.
    pub(crate) fn start(lab: &Lab, side: Side, agreement: &Agreement) -> Result<Self> {
        let (sender, done) = channel();
        let reports: Arc<dyn Reports> = Arc::new(Forwarded(Mutex::new(sender)));
        let gateway = &lab.site(side).gateway;
        let backend = gateway.run(|| Userspace::start(UserspaceConfig::default(), reports))??;
        let local = lab.site(side).outer_address(agreement.outer);
        let socket = gateway.run(|| UdpSocket::bind((local, lab::classify::NAT_PORT)))??;
        ensure!(backend.adopt_nat_sockets(vec![socket.into()])? == NatReader::Backend);
        let device = backend.device_for(local, local).context("a device")?;
        let inbound = backend.reserve_spi(device)?;
        Ok(Datapath { backend, done: Mutex::new(done), inbound, side })
    }

    pub(crate) fn inbound_spi(&self) -> Spi {
        self.inbound
    }

    /// Installs guard, policies and both SAs for both families of LAN traffic.
    pub(crate) fn install(&self, lab: &Lab, agreement: &Agreement, outbound_spi: Spi) -> Result<()> {
        let (here, there) = (lab.site(self.side), lab.site(self.side.other()));
        let selectors: Vec<SelectorPair> = FAMILIES
            .into_iter()
            .map(|family| {
                let lan = |address: IpAddr| TrafficSelector::prefix(address, if address.is_ipv4() { 24 } else { 64 });
                Some(SelectorPair { local: lan(here.host_address(family))?, remote: lan(there.host_address(family))? })
            })
            .collect::<Option<_>>()
            .context("selectors")?;
        let outer =
            OuterAddresses { local: here.outer_address(agreement.outer), remote: there.outer_address(agreement.outer) };
        let name: Arc<str> = "static".into();
        let sa = |number, direction, spi, sender| SaSpec {
            handle: SaHandle::new(Shard(0), number),
            device: self.backend.device_for(outer.local, outer.remote).unwrap_or_default(),
            direction,
            spi,
            mode: SaMode::Tunnel,
            outer,
            peer_view: None,
            encapsulation: agreement.in_udp.then_some(UdpEncapsulation { local_port: 4500, remote_port: 4500 }),
            algorithm: EspAlgorithm { encryption: agreement.encryption, integrity: None },
            key: KeyMaterial::new(&agreement.key(sender), None),
            esn: agreement.esn,
            replay_window: if direction == Direction::Inbound { agreement.replay_window } else { 0 },
            selectors: selectors.clone().into(),
            limits: Limits::default()
                .bounded(EspAlgorithm { encryption: agreement.encryption, integrity: None }, agreement.esn),
            reqid: Reqid(1),
            copy: ipsec::sa::HeaderCopy::default(),
            offload: OffloadMode::No,
            tags: ipsec::Tags::NONE,
            initial_sequence: agreement.initial_sequence,
            name: Arc::clone(&name),
        };
        let outbound = sa(2, Direction::Outbound, outbound_spi, self.side);
        let used = outbound.handle;
        let mut operations: Vec<Op> = selectors
            .iter()
            .map(|pair| Op::InstallGuard(GuardSpec { name: Arc::clone(&name), selectors: *pair }))
            .collect();
        operations.push(Op::InstallSa(Box::new(sa(1, Direction::Inbound, self.inbound, self.side.other()))));
        operations.push(Op::InstallSa(Box::new(outbound)));
        let directions = [Direction::Inbound, Direction::Forward, Direction::Outbound];
        for (number, (pair, direction)) in
            (1_u64..).zip(selectors.iter().flat_map(|pair| directions.map(|direction| (pair, direction))))
        {
            let handle = PolicyHandle::new(Shard(0), number);
            operations.push(Op::InstallPolicy(PolicySpec {
                handle,
                device: self.backend.device_for(outer.local, outer.remote).unwrap_or_default(),
                direction,
                selectors: *pair,
                priority: 1_000,
                action: PolicyAction::Protect { reqid: Reqid(1), sa: None, mode: SaMode::Tunnel, outer },
                offload: OffloadMode::No,
                tags: ipsec::Tags::NONE,
                name: Arc::clone(&name),
            }));
            if direction == Direction::Outbound {
                operations.push(Op::Activate { policy: handle, sa: used });
            }
        }
        self.submit(Request::Apply(operations)).map(drop)
    }

    /// Counters as text, for errors.
    pub(crate) fn drops(&self) -> String {
        let counted = self.backend.drops().filter(|(_, packets)| *packets > 0);
        counted.map(|(reason, packets)| format!("{reason} {packets}")).collect::<Vec<_>>().join(", ")
    }

    fn submit(&self, request: Request) -> Result<Answer> {
        let tag = Tag::new(Shard(0), 1);
        self.backend.submit(tag, request);
        let done = self.done.lock().map_err(|_| anyhow!("poisoned"))?;
        let (answered, outcome) = done.recv_timeout(Duration::from_secs(5)).context("the backend does not answer")?;
        ensure!(answered == tag, "another request was answered");
        Ok(outcome?)
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.backend.shut_down(OnStop::Open);
    }
}

/// Two datapaths with each other's SPIs.
pub(crate) fn pair(lab: &Lab, agreement: &Agreement) -> Result<[Datapath; 2]> {
    let (a, b) = (Datapath::start(lab, Side::A, agreement)?, Datapath::start(lab, Side::B, agreement)?);
    a.install(lab, agreement, b.inbound_spi())?;
    b.install(lab, agreement, a.inbound_spi())?;
    Ok([a, b])
}
