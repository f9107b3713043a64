//! What is written, to the letter.

use std::time::Duration;

use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{
    EspAlgorithm, KeyMaterial, Limits, Mark, OffloadMode, OuterAddresses, PolicyHandle, PortRange, Reqid, SaMode,
    SelectorPair, Shard, Spi, Tags, TrafficSelector, UdpEncapsulation, Volume,
};

use super::*;

const IN: SaHandle = SaHandle::new(Shard(0), 1);
const OUT: SaHandle = SaHandle::new(Shard(0), 2);

fn selector(text: &str, length: u8) -> TrafficSelector {
    TrafficSelector::prefix(text.parse().unwrap(), length).unwrap()
}

fn pair() -> SelectorPair {
    SelectorPair { local: selector("10.1.0.0", 24), remote: selector("10.2.0.0", 16) }
}

fn outer() -> OuterAddresses {
    OuterAddresses { local: "192.0.2.1".parse().unwrap(), remote: "203.0.113.9".parse().unwrap() }
}

fn policy(direction: Direction, action: PolicyAction) -> PolicySpec {
    PolicySpec {
        handle: PolicyHandle::new(Shard(0), 1),
        device: DeviceId(0),
        direction,
        selectors: pair(),
        priority: 183_712,
        action,
        offload: OffloadMode::No,
        tags: Tags::NONE,
        name: "site/net".into(),
    }
}

fn protect(direction: Direction) -> PolicySpec {
    let sa = (direction == Direction::Outbound).then_some(OUT);
    policy(direction, PolicyAction::Protect { reqid: Reqid(3), sa, mode: SaMode::Tunnel, outer: outer() })
}

fn sa(direction: Direction) -> SaSpec {
    let (handle, spi) = if direction == Direction::Inbound { (IN, 0xc1a2_b3c4) } else { (OUT, 0xd4c3_b2a1) };
    SaSpec {
        handle,
        device: DeviceId(0),
        direction,
        spi: Spi::new(spi).unwrap(),
        mode: SaMode::Tunnel,
        outer: outer(),
        peer_view: None,
        encapsulation: None,
        algorithm: EspAlgorithm::AES_128_GCM,
        key: KeyMaterial::new(&[], None),
        esn: true,
        replay_window: 32,
        selectors: Arc::new([pair()]),
        limits: Limits {
            soft: Volume { packets: Some(900), ..Volume::default() },
            hard: Volume { time: Some(Duration::from_secs(4_356)), bytes: None, packets: Some(1_000) },
        },
        reqid: Reqid(3),
        copy: HeaderCopy::default(),
        offload: OffloadMode::No,
        tags: Tags::NONE,
        initial_sequence: 0,
        name: "site/net".into(),
    }
}

fn specs() -> ChildSpecs {
    ChildSpecs {
        connection: "site".into(),
        child: "net".into(),
        origin: Origin::Sa(12),
        guards: Vec::new(),
        policies: [Direction::Inbound, Direction::Forward, Direction::Outbound].map(protect).into(),
        sas: vec![sa(Direction::Inbound), sa(Direction::Outbound)],
    }
}

fn around() -> Surroundings {
    Surroundings {
        backend: "userspace",
        devices: BTreeMap::from([(DeviceId(0), "eth1".into())]),
        ike_ports: [500, 4500],
        guard: vec![Ok("src 10.1.0.0/24 dst 10.2.0.0/16 dir out action block priority 4294902528".into())],
        routing: vec!["-4 route add 10.2.0.0/16 dev cygnet0 table 220".into()],
        ..Surroundings::default()
    }
}

fn text(blocks: &[Block]) -> String {
    let lines = |block: &Block| format!("# {}: {}.\n{}\n", block.of, block.about, block.commands.join("\n"));
    blocks.iter().map(lines).collect()
}

#[test]
fn a_child_sa_in_the_order_of_its_installation() {
    let expected = "\
# site/net: The fail-closed guard: blocks in the kernel that outlive the daemon, and the exemptions beside them.
ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 dir out action block priority 4294902528
# site/net: IKE and our own ESP pass: the daemon's sockets carry policies of their own and marked so that routing leads them past the tunnel device; as policies for all they would be.
ip xfrm policy add src 192.0.2.1/32 dst 203.0.113.9/32 proto 17 sport 500 dir out action allow priority 1
ip xfrm policy add src 203.0.113.9/32 dst 192.0.2.1/32 proto 17 dport 500 dir in action allow priority 1
ip xfrm policy add src 192.0.2.1/32 dst 203.0.113.9/32 proto 17 sport 4500 dir out action allow priority 1
ip xfrm policy add src 203.0.113.9/32 dst 192.0.2.1/32 proto 17 dport 4500 dir in action allow priority 1
ip xfrm policy add src 192.0.2.1/32 dst 203.0.113.9/32 proto 50 dir out action allow priority 1
ip xfrm policy add src 203.0.113.9/32 dst 192.0.2.1/32 proto 50 dir in action allow priority 1
# site/net: What leads the traffic into the tunnel device, where the userspace data path takes it, and what leads around it.
ip -4 route add 10.2.0.0/16 dev cygnet0 table 220
# site/net: Policies for what arrives, for this host (in) and for others behind it (fwd) (CHILD SA 12, held by the userspace data path).
ip xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/24 dir in priority 183712 tmpl src 203.0.113.9 dst 192.0.2.1 proto esp reqid 3 mode tunnel
ip xfrm policy add src 10.2.0.0/16 dst 10.1.0.0/24 dir fwd priority 183712 tmpl src 203.0.113.9 dst 192.0.2.1 proto esp reqid 3 mode tunnel
# site/net: SAs, inbound first: the peer may send as soon as it has our answer (CHILD SA 12, held by the userspace data path).
ip xfrm state add src 203.0.113.9 dst 192.0.2.1 proto esp spi 0xc1a2b3c4 aead rfc4106(gcm(aes)) <key> 128 mode tunnel reqid 3 replay-window 32 flag esn limit time-hard 4356 limit packet-soft 900 limit packet-hard 1000
ip xfrm state add src 192.0.2.1 dst 203.0.113.9 proto esp spi 0xd4c3b2a1 aead rfc4106(gcm(aes)) <key> 128 mode tunnel reqid 3 replay-window 0 flag esn limit time-hard 4356 limit packet-soft 900 limit packet-hard 1000
# site/net: The policy for what leaves comes last, when its SA is ready (CHILD SA 12, held by the userspace data path).
ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 dir out priority 183712 tmpl src 192.0.2.1 dst 203.0.113.9 proto esp spi 0xd4c3b2a1 reqid 3 mode tunnel
";
    let text = text(&blocks(&specs(), &around()));
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn everything_that_an_sa_can_say() {
    let mut spec = sa(Direction::Outbound);
    spec.mode = SaMode::Transport;
    spec.esn = false;
    spec.algorithm = EspAlgorithm::from_ids(12, Some(256), Some(14)).unwrap();
    spec.encapsulation = Some(UdpEncapsulation { local_port: 4500, remote_port: 61_000 });
    spec.copy = HeaderCopy { df: false, ecn: false, dscp: CopyDscp::In };
    spec.tags = Tags { mark: Some(Mark::new(7, 0xff)), set_mark: Some(Mark::new(9, 0xffff)), if_id: 42 };
    spec.limits = Limits::default();
    spec.offload = OffloadMode::Packet;
    assert_eq!(
        state::command(&spec, Origin::Sa(1), &around()),
        "ip xfrm state add src 192.0.2.1 dst 203.0.113.9 proto esp spi 0xd4c3b2a1 enc cbc(aes) <key> auth-trunc hmac(sha512) <key> 256 mode transport reqid 3 replay-window 0 flag noecn flag nopmtudisc extra-flag dont-encap-dscp mark 0x7 mask 0xff encap espinudp 4500 61000 0.0.0.0 output-mark 0x9 mask 0xffff if_id 0x2a offload packet dev eth1 dir out"
    );
    // What was read back counts, not what was wished.
    let mut around = around();
    around.modes.insert(OUT, ModeInUse::SOFTWARE);
    assert!(!state::command(&spec, Origin::Sa(1), &around).contains("offload"));
    let planned = sa(Direction::Inbound);
    assert!(state::command(&planned, Origin::Planned, &around).contains(" spi <spi-in> "));
}

#[test]
fn everything_that_a_policy_can_say() {
    let mut spec = protect(Direction::Outbound);
    spec.offload = OffloadMode::Packet;
    spec.tags = Tags { mark: Some(Mark::new(7, u32::MAX)), set_mark: None, if_id: 42 };
    spec.selectors.remote.protocol = 6;
    spec.selectors.remote.ports = PortRange { start: 80, end: 81 };
    let lines = policy::commands(&spec, None, &around());
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        "ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 proto 6 dport 80 dir out mark 0x7 mask 0xffffffff priority 183712 if_id 0x2a offload packet dev eth1 tmpl src 192.0.2.1 dst 203.0.113.9 proto esp reqid 3 mode tunnel"
    );
    spec.direction = Direction::Forward;
    assert!(!policy::commands(&spec, None, &around())[0].contains("offload"));
    assert!(policy::commands(&spec, None, &around())[0].contains("proto 6 sport 80 dir fwd"));
    spec.selectors.remote.ports = PortRange { start: 1_024, end: 2_048 };
    assert!(policy::commands(&spec, None, &around())[0].starts_with("# fwd "));
}

#[test]
fn shunts_have_neither_template_nor_guard() {
    let mut shunt = specs();
    shunt.origin = Origin::Trap;
    shunt.sas.clear();
    shunt.policies = vec![policy(Direction::Outbound, PolicyAction::Discard)];
    let blocks = blocks(&shunt, &around());
    assert_eq!(blocks.len(), 2, "{blocks:#?}");
    assert_eq!(
        blocks[1].commands,
        ["ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 dir out action block priority 183712"]
    );
    assert!(blocks[1].about.ends_with("(drop shunt, held by the userspace data path)"));
}

#[test]
fn icmp_has_types_and_codes() {
    let mut spec = protect(Direction::Inbound);
    spec.selectors.local.protocol = 1;
    let with = |spec: &mut PolicySpec, start, end| {
        spec.selectors.local.ports = PortRange { start, end };
        policy::commands(spec, None, &around())[0].clone()
    };
    assert!(with(&mut spec, 0x0800, 0x08ff).contains(" proto icmp type 8 dir in"));
    assert!(with(&mut spec, 0x0301, 0x0301).contains(" proto icmp type 3 code 1 dir in"));
    assert!(with(&mut spec, 0x0300, 0x04ff).starts_with("# in "));
}

#[test]
fn what_the_kernel_holds_is_written_as_it_shows_it() {
    let policies =
        specs().policies.iter().map(|policy| (policy.handle, vec!["ip xfrm policy add A".to_owned()])).collect();
    let held = Held { policies, sas: BTreeMap::from([(IN, "ip xfrm state add B".to_owned())]) };
    let around = Surroundings { backend: "kernel", held: Some(held), ..around() };
    let found = text(&blocks(&specs(), &around));
    for line in ["ip xfrm policy add A\n", "ip xfrm state add B\n# the kernel has no SA d4c3b2a1\n"] {
        assert!(found.contains(line), "{found}");
    }
    assert!(!found.contains("userspace"), "{found}");
    let lost = Surroundings { held: Some(Held::default()), ..around.clone() };
    assert!(text(&blocks(&specs(), &lost)).contains("# the kernel has no policy for 10.1.0.0/24"), "{found}");

    let planned = ChildSpecs { origin: Origin::Planned, ..specs() };
    let found = text(&blocks(&planned, &around));
    assert!(found.contains(" spi <spi-in> ") && !found.contains("policy add A"), "{found}");
    assert!(found.contains(" replay-window 32 flag af-unspec flag esn ") && found.contains(" dir in\n"), "{found}");
}
