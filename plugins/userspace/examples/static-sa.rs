//! A tunnel without IKE: one pair of SAs and their policies from the command line, to try the datapath by hand. Never for real traffic: the keys
//! are made of one octet.
//!
//! ```text
//! static-sa local=192.0.2.1 remote=192.0.2.2 local_ts=10.1.0.0/24 remote_ts=10.2.0.0/24 key_in=1 key_out=2 [udp=yes] [esn=yes]
//! ```
//! It prints the SPI that the peer has to send to, reads the peer's from standard input, and then prints what the backend reports and, once a
//! second, the counters. It ends with standard input; the peer has `key_in` and `key_out` the other way round.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipsec::sa::HeaderCopy;
use ipsec::{
    Answer, DeviceId, Direction, EspAlgorithm, Event, GuardSpec, KeyMaterial, Limits, OffloadBackend, OffloadError,
    OffloadMode, OnStop, Op, OuterAddresses, Path, PolicyAction, PolicyHandle, PolicySpec, Reports, Reqid, Request,
    SaHandle, SaMode, SaSpec, Scope, SelectorPair, Shard, Spi, Tag, TrafficSelector, UdpEncapsulation,
};
use offload_userspace::{Userspace, UserspaceConfig};

type Failure = Box<dyn std::error::Error>;

struct Print;

impl Reports for Print {
    fn done(&self, _tag: Tag, outcome: Result<Answer, OffloadError>) {
        match outcome {
            Ok(Answer::Installed(all)) => {
                for sa in all.sas {
                    println!("{}: {} packets, {} octets, number {}", sa.spi, sa.packets, sa.bytes, sa.sequence);
                }
            }
            Ok(Answer::Applied(_)) => println!("installed"),
            Ok(Answer::Status(status)) => println!("{status:?}"),
            Err(error) => println!("refused: {error}"),
        }
    }

    fn event(&self, event: Event) {
        println!("{event:?}");
    }

    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        println!("{} octets of IKE from {}", octets.len(), path.remote);
    }
}

struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn get(&self, name: &str) -> Result<&str, Failure> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("{name}= is missing").into())
    }

    fn is_set(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "yes")
    }

    fn selector(&self, name: &str) -> Result<TrafficSelector, Failure> {
        let (address, length) = self.get(name)?.split_once('/').ok_or("a selector is ADDRESS/LENGTH")?;
        Ok(TrafficSelector::prefix(address.parse()?, length.parse()?).ok_or("the prefix length is too large")?)
    }
}

fn main() -> Result<(), Failure> {
    let words = std::env::args().skip(1);
    let arguments = Arguments(
        words.filter_map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into()))).collect(),
    );
    let local: IpAddr = arguments.get("local")?.parse()?;
    let outer = OuterAddresses { local, remote: arguments.get("remote")?.parse()? };
    let selectors = SelectorPair { local: arguments.selector("local_ts")?, remote: arguments.selector("remote_ts")? };
    let backend = Userspace::start(UserspaceConfig::default(), Arc::new(Print))?;
    backend.adopt_nat_sockets(vec![UdpSocket::bind((local, 4500))?.into()])?;
    let inbound = backend.reserve_spi(DeviceId(0))?;
    println!("SPI {inbound}; now the peer's:");
    let mut lines = io::stdin().lock().lines();
    let text = lines.next().ok_or("standard input ended")??;
    let outbound = Spi::new(u32::from_str_radix(text.trim(), 16)?).ok_or("SPIs below 256 are reserved")?;
    let ops = tunnel(&arguments, outer, selectors, inbound, outbound)?;
    backend.submit(Tag::new(Shard(0), 1), Request::Apply(ops));
    let watched = Arc::clone(&backend);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            watched.submit(Tag::new(Shard(0), 2), Request::List(Scope::All));
        }
    });
    lines.for_each(drop);
    backend.shut_down(OnStop::Open);
    Ok(())
}

/// Guard, SAs, policy and activation in the order the contract wants.
fn tunnel(
    arguments: &Arguments,
    outer: OuterAddresses,
    selectors: SelectorPair,
    inbound: Spi,
    outbound: Spi,
) -> Result<Vec<Op>, Failure> {
    let ports = UdpEncapsulation { local_port: 4500, remote_port: 4500 };
    let sa = |count, direction, spi, key: u8| SaSpec {
        handle: SaHandle::new(Shard(0), count),
        device: DeviceId(0),
        direction,
        spi,
        mode: SaMode::Tunnel,
        outer,
        peer_view: None,
        encapsulation: arguments.is_set("udp").then_some(ports),
        algorithm: EspAlgorithm::AES_256_GCM,
        key: KeyMaterial::new(&[key; 36], None),
        esn: arguments.is_set("esn"),
        replay_window: 256,
        selectors: [selectors].into(),
        limits: Limits::default(),
        reqid: Reqid(1),
        copy: HeaderCopy::default(),
        offload: OffloadMode::No,
        tags: ipsec::Tags::NONE,
        initial_sequence: 0,
        name: "static/sa".into(),
    };
    let policy = PolicySpec {
        handle: PolicyHandle::new(Shard(0), 1),
        device: DeviceId(0),
        direction: Direction::Outbound,
        selectors,
        priority: 1000,
        action: PolicyAction::Protect { reqid: Reqid(1), sa: None, mode: SaMode::Tunnel, outer },
        offload: OffloadMode::No,
        tags: ipsec::Tags::NONE,
        name: "static/sa".into(),
    };
    let sending = sa(2, Direction::Outbound, outbound, arguments.get("key_out")?.parse()?);
    let activate = Op::Activate { policy: policy.handle, sa: sending.handle };
    Ok(vec![
        Op::InstallGuard(GuardSpec { name: "static/sa".into(), selectors }),
        Op::InstallSa(Box::new(sa(1, Direction::Inbound, inbound, arguments.get("key_in")?.parse()?))),
        Op::InstallSa(Box::new(sending)),
        Op::InstallPolicy(policy),
        activate,
    ])
}
