//! Transport mode between the two gateways themselves, with reverse path filters; and shunts beside it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use ipsec::{
    AddressRange, Direction, OffloadBackend, OnStop, Op, OuterAddresses, PolicyAction, PortRange, Reqid, SaHandle,
    SaMode, SaSpec, SelectorPair, TrafficSelector,
};
use offload_host::{Family, sockets};
use offload_userspace::UserspaceConfig;

use super::gateway::{Gateway, Style, connect, guard, pair};
use super::gateways;
use super::lab::{Capture, LONG, Lab, eventually, turn, uninterrupted};

/// All traffic of the two hosts that a gateway has as outer addresses.
fn hosts(outer: OuterAddresses) -> SelectorPair {
    let host = |address| TrafficSelector::all(AddressRange::host(address));
    SelectorPair { local: host(outer.local), remote: host(outer.remote) }
}

/// Puts up SAs and policies of one end; gives (inbound, outbound).
fn install(gateway: &Gateway, inbound: SaSpec, outbound: SaSpec) -> (SaHandle, SaHandle) {
    let (pair, outer) = (hosts(gateway.outer), gateway.outer);
    let handles = (inbound.handle, outbound.handle);
    let action = || PolicyAction::Protect { reqid: Reqid(1), sa: None, mode: SaMode::Transport, outer };
    let policy = gateway.policy(Direction::Outbound, pair, 1000, action());
    let activate = Op::Activate { policy: policy.handle, sa: outbound.handle };
    gateway.apply(vec![
        Op::InstallGuard(guard(pair)),
        Op::InstallPolicy(gateway.policy(Direction::Inbound, pair, 1000, action())),
        Op::InstallSa(Box::new(inbound)),
        Op::InstallSa(Box::new(outbound)),
        Op::InstallPolicy(policy),
        activate,
    ]);
    handles
}

/// SAs in transport mode both ways; `views` are those that each end has of the other where NAT is between them.
fn link(
    a: &Gateway,
    b: &Gateway,
    style: &Style,
    views: [Option<OuterAddresses>; 2],
) -> ((SaHandle, SaHandle), (SaHandle, SaHandle)) {
    let (spi_a, spi_b) = (a.reserve(), b.reserve());
    let sa = |gateway: &Gateway, direction, spi, key, peer_view| SaSpec {
        mode: SaMode::Transport,
        peer_view,
        ..gateway.sa(direction, spi, key, hosts(gateway.outer), style)
    };
    let at_b =
        install(b, sa(b, Direction::Inbound, spi_b, 1, views[1]), sa(b, Direction::Outbound, spi_a, 2, views[1]));
    let at_a =
        install(a, sa(a, Direction::Inbound, spi_a, 2, views[0]), sa(a, Direction::Outbound, spi_b, 1, views[0]));
    (at_a, at_b)
}

/// Unicast packets on a link that are neither ESP nor ESP in UDP nor neighbour discovery.
fn in_clear(capture: &Capture) -> Vec<Vec<u8>> {
    let is_esp = |protocol: u8, rest: &[u8]| {
        protocol == 50 || protocol == 17 && rest.len() >= 4 && (rest[..2] == [0x11, 0x94] || rest[2..4] == [0x11, 0x94])
    };
    let fine = |packet: &Vec<u8>| match packet.first().map(|octet| octet >> 4) {
        // A later fragment shows its protocol only; the first one is judged.
        Some(4) if packet[6] & 0x1f != 0 || packet[7] != 0 => matches!(packet[9], 17 | 50),
        Some(4) => packet[16] >= 224 || is_esp(packet[9], &packet[20..]),
        Some(6) if packet[24] == 0xff => true,
        Some(6) if packet[6] == 58 => (133..=136).contains(&packet[40]),
        Some(6) if packet[6] == 44 && (packet[42] != 0 || packet[43] & 0xf8 != 0) => matches!(packet[40], 17 | 50),
        Some(6) if packet[6] == 44 => is_esp(packet[40], &packet[48..]),
        Some(6) => is_esp(packet[6], &packet[40..]),
        // Not IP: ARP.
        _ => true,
    };
    capture.packets().into_iter().filter(|packet| !fine(packet)).collect()
}

/// Reverse path filters: 1 is strict, 2 loose.
fn filter(lab: &Lab, mode: u8) {
    for role in ["la", "ga", "gb"] {
        for device in ["all", "default"] {
            lab.exec(role, &["sysctl", "-qw", &format!("net.ipv4.conf.{device}.rp_filter={mode}")]);
        }
    }
}

//= RFC 4303 §3.1.1: two hosts, both families, both forms: everything between them is ESP
//= RFC 3948 §3.2: transport mode, native and in UDP
#[test]
fn two_hosts_talk_in_transport_mode() {
    let _turn = turn();
    for v6 in [false, true] {
        let lab = Lab::new(v6);
        filter(&lab, 2);
        let (a, b) = gateways(&lab);
        let capture = lab.capture("ga", "wan");
        for udp in [false, true] {
            let ((inbound, outbound), _) = link(&a, &b, &Style { udp, ..Style::default() }, [None, None]);
            let (here, there) = (a.outer.local.to_string(), a.outer.remote.to_string());
            let drops = || format!("IPv6 {v6}, UDP {udp}, drops: {} / {}", a.drops(), b.drops());
            assert_eq!(lab.ping("ga", &there, 10, &[]), 10, "{}", drops());
            assert_eq!(lab.ping("gb", &here, 10, &[]), 10, "{}", drops());
            // Payloads are counted: 64 octets of ICMP each.
            let counted = [a.status(inbound), a.status(outbound)].map(|status| (status.packets, status.bytes));
            if !udp {
                assert_eq!(counted, [(20, 20 * 64); 2], "{}", drops());
            }
            // Later rounds also carry what is left of the TCP connections before.
            assert!(counted.iter().all(|(packets, _)| *packets >= 20), "{counted:?}");
            for size in ["1300", "1450", "3000", "20000", "60000"] {
                let options: &[&str] = if v6 { &["-s", size] } else { &["-s", size, "-M", "dont"] };
                assert_eq!(lab.ping("ga", &there, 3, options), 3, "{size} octets, {}", drops());
            }
            if !v6 {
                eventually("what fits is learnt", || {
                    lab.ping("ga", &there, 1, &["-s", "1472", "-M", "want", "-W", "0.3"]) == 1
                });
            }
            assert_eq!(lab.transfer("ga", "gb", &there, 8 << 20), 8 << 20, "{}", drops());
            assert_eq!(lab.transfer("gb", "ga", &here, 8 << 20), 8 << 20, "{}", drops());
            // The TTL is the packet's own, there and back.
            let seen = echo_with_hops(&lab, &there);
            assert_eq!(seen, 77, "{}", drops());
        }
        assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
        // Without the SA, without the policy, without the process: nothing instead of clear text.
        let is_silent = |role: &str, to: IpAddr| {
            !lab.try_exec(role, &["ping", "-n", "-c", "2", "-i", "0.1", "-W", "1", &to.to_string()]).status.success()
        };
        a.apply(vec![Op::Flush]);
        assert!(is_silent("ga", a.outer.remote));
        a.backend.shut_down(OnStop::Block);
        assert!(is_silent("ga", a.outer.remote) && is_silent("gb", a.outer.local));
        assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
    }
}

/// Sends a UDP packet with a TTL of 77 from `ga` to `gb` and gives the one it has there.
fn echo_with_hops(lab: &Lab, there: &str) -> i32 {
    let address: IpAddr = there.parse().unwrap();
    let v4 = address.is_ipv4();
    let any: IpAddr = if v4 { "0.0.0.0" } else { "::" }.parse().unwrap();
    let receiver = lab.inside("gb", || UdpSocket::bind((address, 0)).unwrap());
    let sender = lab.inside("ga", || UdpSocket::bind((any, 0)).unwrap());
    use rustix::net::sockopt;
    if v4 {
        sender.set_ttl(77).unwrap();
    } else {
        sockopt::set_ipv6_unicast_hops(&sender, Some(77)).unwrap();
    }
    hops_of(&receiver, v4, || {
        sender.send_to(b"hops", receiver.local_addr().unwrap()).unwrap();
    })
}

fn hops_of(receiver: &UdpSocket, v4: bool, send: impl FnOnce()) -> i32 {
    use std::os::fd::AsRawFd;
    let (level, option) =
        if v4 { (libc::IPPROTO_IP, libc::IP_RECVTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT) };
    let on: libc::c_int = 1;
    // SAFETY: one int for an int option of an open socket.
    assert_eq!(unsafe { libc::setsockopt(receiver.as_raw_fd(), level, option, (&raw const on).cast(), 4) }, 0);
    receiver.set_read_timeout(Some(LONG)).unwrap();
    send();
    let (mut octets, mut control) = ([0_u8; 64], [0_u64; 16]);
    // SAFETY: all pointers are to locals that outlive the call, with their lengths; the control message is read within the length the kernel set.
    unsafe {
        let mut vector = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let length = libc::recvmsg(receiver.as_raw_fd(), &raw mut header, 0);
        assert_eq!(length, 4, "{}", std::io::Error::last_os_error());
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        assert!(!message.is_null());
        libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned()
    }
}

/// IKE between the very hosts whose traffic is protected: our exempt sockets get through in clear, with the trap alone and with the SAs; nobody
/// else does, not even to the ports of IKE.
#[test]
fn ike_passes_beside_the_policy_of_two_hosts() {
    let _turn = turn();
    for v6 in [false, true] {
        let lab = Lab::new(v6);
        filter(&lab, 2);
        let (a, b) = gateways(&lab);
        let family = if v6 { Family::V6 } else { Family::V4 };
        let ike = |role: &str, address: IpAddr| {
            let socket = lab.inside(role, || UdpSocket::bind((address, 500)).unwrap());
            sockets::set_mark(socket.as_fd(), 0x4347).unwrap();
            sockets::socket_bypass(&socket, family).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket
        };
        let (at_a, at_b) = (ike("ga", a.outer.local), ike("gb", b.outer.local));
        let there_and_back = |what: &str| {
            let mut octets = [0; 16];
            at_a.send_to(b"request", SocketAddr::new(b.outer.local, 500)).unwrap();
            // A packet of the stranger that the trap held may come first.
            let from = loop {
                let (length, from) =
                    uninterrupted(|| at_b.recv_from(&mut octets)).unwrap_or_else(|error| panic!("{what}: {error}"));
                if octets[..length] == *b"request" {
                    break from;
                }
            };
            at_b.send_to(b"request", from).unwrap();
            let length =
                uninterrupted(|| at_a.recv(&mut octets)).unwrap_or_else(|error| panic!("{what}, back: {error}"));
            assert_eq!(&octets[..length], b"request");
        };
        there_and_back("before");
        for gateway in [&a, &b] {
            let pair = hosts(gateway.outer);
            let action = PolicyAction::Trap { reqid: Reqid(1), mode: SaMode::Transport };
            let trap = gateway.policy(Direction::Outbound, pair, 2000, action);
            gateway.apply(vec![Op::InstallGuard(guard(pair)), Op::InstallPolicy(trap)]);
        }
        there_and_back("with traps");
        let capture = lab.capture("ga", "wan");
        assert_eq!(lab.ping("ga", &b.outer.local.to_string(), 1, &["-W", "1"]), 0);
        let stranger = lab.inside("ga", || UdpSocket::bind((a.outer.local, 0)).unwrap());
        stranger.send_to(b"stranger", SocketAddr::new(b.outer.local, 500)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
        link(&a, &b, &Style::default(), [None, None]);
        there_and_back("with SAs");
        in_clear(&capture);
        // What somebody else sends is protected like everything, to whatever port.
        let mut octets = [0; 16];
        let echo = lab.inside("gb", || UdpSocket::bind((b.outer.local, 0)).unwrap());
        echo.set_read_timeout(Some(LONG)).unwrap();
        stranger.send_to(b"stranger", SocketAddr::new(b.outer.local, 500)).unwrap();
        stranger.send_to(b"stranger", echo.local_addr().unwrap()).unwrap();
        let arrived = uninterrupted(|| echo.recv(&mut octets)).map(|length| octets[..length].to_vec());
        assert_eq!(arrived.ok().as_deref(), Some(&b"stranger"[..]));
        assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
        assert_eq!(lab.ping("ga", &b.outer.local.to_string(), 3, &[]), 3, "drops: {} / {}", a.drops(), b.drops());
    }
}

/// With a router between the hosts also strict reverse path filters let everything arrive, with the trap alone and with the SAs.
#[test]
fn strict_reverse_path_filters_let_ike_and_esp_arrive() {
    let _turn = turn();
    let lab = Lab::new(false);
    filter(&lab, 1);
    let mut a = Gateway::start(&lab, "la", UserspaceConfig::default());
    let b = Gateway::start(&lab, "gb", UserspaceConfig::default());
    a.outer = OuterAddresses { local: [10, 1, 0, 2].into(), remote: b.outer.local };
    let b = Gateway { outer: OuterAddresses { local: a.outer.remote, remote: a.outer.local }, ..b };
    let exempt = |role: &str, address: IpAddr| {
        let socket = lab.inside(role, || UdpSocket::bind((address, 500)).unwrap());
        sockets::set_mark(socket.as_fd(), 0x4347).unwrap();
        sockets::socket_bypass(&socket, Family::V4).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    let (at_a, at_b) = (exempt("la", a.outer.local), exempt("gb", b.outer.local));
    for gateway in [&a, &b] {
        let pair = hosts(gateway.outer);
        let action = PolicyAction::Trap { reqid: Reqid(1), mode: SaMode::Transport };
        let trap = gateway.policy(Direction::Outbound, pair, 2000, action);
        gateway.apply(vec![Op::InstallGuard(guard(pair)), Op::InstallPolicy(trap)]);
    }
    for udp in [false, true] {
        let mut octets = [0; 16];
        at_a.send_to(b"ike", SocketAddr::new(b.outer.local, 500)).unwrap();
        let (length, from) = uninterrupted(|| at_b.recv_from(&mut octets)).expect("a request");
        at_b.send_to(&octets[..length], from).unwrap();
        assert_eq!(uninterrupted(|| at_a.recv(&mut octets)).expect("a response"), 3);
        link(&a, &b, &Style { udp, ..Style::default() }, [None, None]);
        let drops = || format!("UDP {udp}, drops: {} / {}", a.drops(), b.drops());
        assert_eq!(lab.ping("la", "192.0.2.2", 5, &[]), 5, "{}", drops());
        assert_eq!(lab.ping("gb", "10.1.0.2", 5, &[]), 5, "{}", drops());
        assert_eq!(lab.transfer("la", "gb", "192.0.2.2", 1 << 20), 1 << 20, "{}", drops());
    }
}

//= RFC 3948 §3.1.2: a client behind NAT: TCP and UDP checksums are right at both ends although the addresses are others
#[test]
fn a_client_behind_nat_talks_in_transport_mode() {
    let _turn = turn();
    let lab = Lab::new(false);
    filter(&lab, 2);
    lab.exec("ga", &["nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; add rule ip nat out oifname wan masquerade"]);
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let (inner, public, server) = (address("10.1.0.2"), address("192.0.2.1"), address("192.0.2.2"));
    let mut a = Gateway::start(&lab, "la", UserspaceConfig::default());
    a.outer = OuterAddresses { local: inner, remote: server };
    let b = Gateway::start(&lab, "gb", UserspaceConfig::default());
    let views = [OuterAddresses { local: public, remote: server }, OuterAddresses { local: server, remote: inner }];
    let style = Style { udp: true, ..Style::default() };
    link(&a, &b, &style, views.map(Some));
    let (near, far) = (lab.capture("la", "lan"), lab.capture("gb", "wan"));
    assert_eq!(lab.ping("la", "192.0.2.2", 5, &[]), 5, "drops: {} / {}", a.drops(), b.drops());
    assert_eq!(lab.ping("gb", "192.0.2.1", 5, &[]), 5, "drops: {} / {}", a.drops(), b.drops());
    assert_eq!(lab.transfer("la", "gb", "192.0.2.2", 4 << 20), 4 << 20, "drops: {} / {}", a.drops(), b.drops());
    // The server sees the address of the translator, and answers to it.
    let listener = lab.inside("gb", || TcpListener::bind("192.0.2.2:0").unwrap());
    let target = listener.local_addr().unwrap();
    let mut client = lab.inside("la", || TcpStream::connect_timeout(&target, LONG).unwrap());
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), public);
    assert_eq!(client.local_addr().unwrap().ip(), inner);
    accepted.write_all(b"from the server").unwrap();
    let mut octets = [0; 15];
    client.read_exact(&mut octets).unwrap();
    assert_eq!(&octets, b"from the server");
    let udp = lab.inside("gb", || UdpSocket::bind("192.0.2.2:0").unwrap());
    udp.set_read_timeout(Some(LONG)).unwrap();
    let sender = lab.inside("la", || UdpSocket::bind("10.1.0.2:0").unwrap());
    sender.send_to(&[7; 5000], udp.local_addr().unwrap()).unwrap();
    let mut octets = [0; 6000];
    assert_eq!(uninterrupted(|| udp.recv(&mut octets)).unwrap(), 5000);
    assert_eq!((in_clear(&near), in_clear(&far)), (Vec::new(), Vec::new()));
}

/// Policies of a pass or drop shunt in every direction.
fn shunt(gateway: &Gateway, selectors: SelectorPair, action: &PolicyAction) {
    let all = [Direction::Inbound, Direction::Forward, Direction::Outbound];
    let policy = |direction| Op::InstallPolicy(gateway.policy(direction, selectors, 500, action.clone()));
    gateway.apply(all.map(policy).to_vec());
}

fn with(pair: SelectorPair, protocol: u8, local: PortRange, remote: PortRange) -> SelectorPair {
    let side = |selector: TrafficSelector, ports| TrafficSelector { protocol, ports, ..selector };
    SelectorPair { local: side(pair.local, local), remote: side(pair.remote, remote) }
}

/// Between two hosts in transport mode one UDP port passes in clear and one TCP port is dropped; all else is protected.
#[test]
fn shunts_beside_transport_mode() {
    let _turn = turn();
    let lab = Lab::new(false);
    filter(&lab, 2);
    let (a, b) = gateways(&lab);
    link(&a, &b, &Style::default(), [None, None]);
    let (clear, closed) = (PortRange::single(9_000), PortRange::single(9_001));
    let open = PortRange::ANY;
    shunt(&a, with(hosts(a.outer), 17, open, clear), &PolicyAction::Bypass);
    shunt(&b, with(hosts(b.outer), 17, clear, open), &PolicyAction::Bypass);
    shunt(&a, with(hosts(a.outer), 6, open, closed), &PolicyAction::Discard);
    let capture = lab.capture("ga", "wan");
    assert_eq!(lab.ping("ga", "192.0.2.2", 3, &[]), 3);
    assert_eq!(lab.transfer("ga", "gb", "192.0.2.2", 1 << 20), 1 << 20);
    assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
    let receiver = lab.inside("gb", || UdpSocket::bind("192.0.2.2:9000").unwrap());
    receiver.set_read_timeout(Some(LONG)).unwrap();
    let sender = lab.inside("ga", || UdpSocket::bind("192.0.2.1:0").unwrap());
    sender.set_read_timeout(Some(LONG)).unwrap();
    sender.send_to(b"clear", "192.0.2.2:9000").unwrap();
    let mut octets = [0; 16];
    let (length, from) = uninterrupted(|| receiver.recv_from(&mut octets)).expect("the pass shunt lets it through");
    receiver.send_to(&octets[..length], from).unwrap();
    assert_eq!(uninterrupted(|| sender.recv(&mut octets)).expect("and back"), 5);
    let passed = in_clear(&capture);
    assert_eq!(passed.len(), 2, "{passed:?}");
    let _listener = lab.inside("gb", || TcpListener::bind("192.0.2.2:9001").unwrap());
    let refused = lab.inside("ga", || {
        TcpStream::connect_timeout(&"192.0.2.2:9001".parse().unwrap(), Duration::from_secs(1)).is_err()
    });
    assert!(refused);
    assert_eq!(in_clear(&capture), Vec::<Vec<u8>>::new());
    assert!(a.drops().contains("discard"), "{}", a.drops());
}

/// Beside a tunnel for everything, one network passes in clear and one host is dropped; the rest goes through the tunnel.
#[test]
fn shunts_beside_a_tunnel_for_everything() {
    let _turn = turn();
    let lab = Lab::new(false);
    lab.exec("lb", &["ip", "addr", "add", "10.2.0.66/24", "dev", "lan"]);
    lab.exec("lb", &["ip", "addr", "add", "10.2.0.77/24", "dev", "lan"]);
    let (a, b) = gateways(&lab);
    let ((_, outbound), _) = connect(&a, &b, ("10.1.0.0/24", "0.0.0.0/0"), &Style::default());
    shunt(&a, pair("10.1.0.0/24", "10.2.0.77/32"), &PolicyAction::Bypass);
    shunt(&b, pair("10.2.0.77/32", "10.1.0.0/24"), &PolicyAction::Bypass);
    shunt(&a, pair("10.1.0.0/24", "10.2.0.66/32"), &PolicyAction::Discard);
    let capture = lab.capture("ga", "wan");
    assert_eq!(lab.ping("la", "10.2.0.2", 5, &[]), 5, "drops: {} / {}", a.drops(), b.drops());
    let tunnelled = a.status(outbound).packets;
    assert!(tunnelled >= 5 && capture.counts().clear == 0);
    assert_eq!(lab.ping("la", "10.2.0.77", 5, &[]), 5, "drops: {} / {}", a.drops(), b.drops());
    assert_eq!((a.status(outbound).packets, capture.counts().clear), (tunnelled, 10));
    assert_eq!(lab.ping("la", "10.2.0.66", 3, &["-W", "1"]), 0);
    assert_eq!((a.status(outbound).packets, capture.counts().clear), (tunnelled, 0));
    assert!(a.drops().contains("discard 3"), "{}", a.drops());
}
