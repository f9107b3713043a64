use ipsec::{Mark, Reqid, Spi, UdpEncapsulation};
use offload_host::prefix::Prefix;

use super::*;
use crate::xfrm::{StateId, Template};

fn names(link: u32) -> String {
    format!("eth{link}")
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), length.parse().unwrap())
}

fn a_state() -> State {
    State {
        id: StateId { destination: "192.0.2.2".parse().unwrap(), spi: Spi::new(0xc001).unwrap(), mark: None },
        source: "192.0.2.1".parse().unwrap(),
        reqid: 3,
        if_id: 0,
        mode: Some(SaMode::Tunnel),
        direction: Some(Direction::Inbound),
        offload: None,
        bytes: 0,
        packets: 0,
        sent_sequence: 0,
        received_sequence: 0,
        added: 0,
        last_used: None,
        limits: KernelLimits::default(),
        detail: StateDetail { algorithm: Some(EspAlgorithm::AES_128_GCM), replay_window: 32, ..StateDetail::default() },
    }
}

#[test]
fn a_plain_state() {
    assert_eq!(
        state(&a_state(), &names),
        "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x0000c001 aead rfc4106(gcm(aes)) <key> 128 mode tunnel reqid 3 replay-window 32 flag af-unspec dir in"
    );
}

#[test]
fn everything_that_a_state_can_say() {
    let mut spec = a_state();
    spec.id.mark = Some(Mark::new(7, 0xff));
    spec.if_id = 42;
    spec.mode = Some(SaMode::Transport);
    spec.direction = Some(Direction::Outbound);
    spec.offload = Some(DeviceOffload { link: 4, packet: true });
    spec.limits.hard_packets = Some(9);
    spec.limits.hard_time = Some(Duration::from_secs(60));
    spec.detail = StateDetail {
        algorithm: EspAlgorithm::from_ids(12, Some(256), Some(14)),
        esn: true,
        replay_window: 0,
        encapsulation: Some(UdpEncapsulation { local_port: 4500, remote_port: 61_000 }),
        original_source: Some("10.0.0.9".parse().unwrap()),
        copy: HeaderCopy { df: false, ecn: false, dscp: CopyDscp::No },
        set_mark: Some(Mark::new(9, 0xffff)),
        cpu: None,
        nat_keepalive: None,
        selector: Some(PolicyKey {
            protocol: 1,
            source_port: PortMask { value: 8, mask: u16::MAX },
            ..PolicyKey::between(Way::Out, prefix("192.0.2.1/32"), prefix("192.0.2.0/24"))
        }),
    };
    assert_eq!(
        state(&spec, &names),
        "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x0000c001 enc cbc(aes) <key> auth-trunc hmac(sha512) <key> 256 mode transport reqid 3 replay-window 0 flag noecn flag nopmtudisc flag esn extra-flag dont-encap-dscp sel src 192.0.2.1/32 dst 192.0.2.0/24 proto 1 type 8 mark 0x7 mask 0xff encap espinudp 4500 61000 10.0.0.9 limit time-hard 60 limit packet-hard 9 output-mark 0x9 mask 0xffff if_id 0x2a offload packet dev eth4 dir out"
    );
    spec.offload = Some(DeviceOffload { link: 4, packet: false });
    assert!(state(&spec, &names).ends_with(" offload crypto dev eth4 dir out"));
    (spec.detail.cpu, spec.detail.nat_keepalive) = (Some(1), Some(Duration::from_secs(20)));
    let comment = "# ip cannot write its CPU and its NAT keepalives: ip xfrm state add src ";
    assert!(state(&spec, &names).starts_with(comment));
}

#[test]
fn everything_that_a_policy_can_say() {
    let key = PolicyKey {
        protocol: 6,
        destination_port: PortMask { value: 80, mask: u16::MAX },
        mark: Some(Mark::new(7, u32::MAX)),
        if_id: 42,
        link: 2,
        ..PolicyKey::between(Way::Out, prefix("10.1.0.0/24"), prefix("10.2.0.0/16"))
    };
    let template = Template {
        source: "192.0.2.1".parse().unwrap(),
        destination: "192.0.2.2".parse().unwrap(),
        spi: Spi::new(0xc001),
        reqid: Reqid(3),
        mode: SaMode::Tunnel,
        optional: true,
    };
    let all = Policy {
        key,
        priority: 183_712,
        index: 9,
        verdict: Verdict::Allow,
        template: Some(template),
        device: Some(4),
        per_cpu: false,
    };
    assert_eq!(
        policy(&all, &names),
        "ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/16 proto 6 dport 80 dev eth2 dir out mark 0x7 mask 0xffffffff index 9 priority 183712 if_id 0x2a offload packet dev eth4 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x0000c001 reqid 3 mode tunnel level use"
    );
    let block = Policy {
        key: PolicyKey::between(Way::Forward, prefix("::/0"), prefix("2001:db8::/32")),
        verdict: Verdict::Block,
        template: None,
        device: None,
        ..all
    };
    assert_eq!(
        policy(&block, &names),
        "ip xfrm policy add src ::/0 dst 2001:db8::/32 dir fwd index 9 action block priority 183712"
    );
    let masked = PolicyKey { destination_port: PortMask { value: 0x400, mask: 0xfc00 }, ..key };
    let text = policy(&Policy { key: masked, per_cpu: true, ..all }, &names);
    assert!(text.starts_with("# ip cannot write its masks of ports and its acquires of each CPU: "), "{text}");
    assert!(text.contains("dport 1024/0xfc00"), "{text}");
}
