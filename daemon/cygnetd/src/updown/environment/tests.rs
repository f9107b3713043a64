use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ike_model::{Cause, CauseKind, ChildSaSnapshot, IkeSaSnapshot, Updown};
use ipsec::{Mark, ModeInUse, Reqid, Spi};

use super::*;

fn ike(local: &str, remote: &str, remote_id: Identity) -> IkeSaSnapshot {
    let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 4500);
    let local = (address(local), Identity::Fqdn("moon.example.org".into()));
    IkeSaSnapshot::plain("site", 7, local, (address(remote), remote_id))
}

fn child() -> ChildSaSnapshot {
    ChildSaSnapshot {
        reqid: Reqid(77),
        spi_in: Spi::new(0xc000_0001),
        spi_out: Spi::new(0xc000_0002),
        updown: Some(Arc::new(Updown { script: "true".into(), host_access: false })),
        ..ChildSaSnapshot::plain("net", 9)
    }
}

fn told(ike: IkeSaSnapshot, child: ChildSaSnapshot) -> Told {
    Told { ike: Box::new(ike), child: Box::new(child), cause: None }
}

fn sun() -> Identity {
    Identity::Fqdn("sun.example.org".into())
}

fn selector(network: &str, protocol: u8, first: u16, last: u16) -> TrafficSelector {
    let addresses = match network.split_once('-') {
        Some((start, end)) => AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap(),
        None => {
            let (address, length) = network.split_once('/').unwrap();
            AddressRange::prefix(address.parse().unwrap(), length.parse().unwrap()).unwrap()
        }
    };
    TrafficSelector { addresses, protocol, ports: PortRange { start: first, end: last } }
}

fn pair(local: TrafficSelector, remote: TrafficSelector) -> SelectorPair {
    SelectorPair { local, remote }
}

fn nets() -> SelectorPair {
    pair(selector("10.1.0.0/24", 0, 0, 65_535), selector("10.2.0.0/24", 0, 0, 65_535))
}

fn variables(told: &Told, pair: &SelectorPair) -> BTreeMap<String, String> {
    let all = environment(told, pair, "eth0");
    let map: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(map.len(), all.len(), "each once");
    map
}

#[test]
fn a_plain_tunnel_is_told_in_strongswans_variables() {
    let all = variables(&told(ike("192.0.2.1", "192.0.2.2", sun()), child()), &nets());
    let pluto: Vec<String> = all
        .iter()
        .filter(|(name, _)| name.starts_with("PLUTO"))
        .map(|(name, value)| format!("{}={value}", name.trim_start_matches("PLUTO_")))
        .collect();
    let expected = "CONNECTION=net INTERFACE=eth0 ME=192.0.2.1 MY_CLIENT=10.1.0.0/24 MY_ID=moon.example.org MY_PORT=0 MY_PROTOCOL=0 \
                    PEER=192.0.2.2 PEER_CLIENT=10.2.0.0/24 PEER_ID=sun.example.org PEER_PORT=0 PEER_PROTOCOL=0 PROTO=esp REQID=77 \
                    UNIQUEID=7 VERB=up-client VERSION=1.1";
    assert_eq!(pluto.join(" "), expected);
    assert_eq!(all["PATH"], PATH);
    assert_eq!(all["CYGNET_SPI_IN"], "c0000001");
    assert!(!all.contains_key("CYGNET_CAUSE") && !all.contains_key("CYGNET_PEER_ID_HEX"));
}

#[test]
fn what_there_may_be_besides_is_told_when_there_is() {
    let mut child = child();
    child.encap = true;
    child.updown = Some(Arc::new(Updown { script: "true".into(), host_access: true }));
    child.tags.mark_in = Some(Mark::new(5, u32::MAX));
    child.tags.mark_out = Some(Mark::new(42, 0xff));
    child.tags.if_id_in = 7;
    child.offload = ModeInUse { mode: OffloadMode::Packet, device: Some("eth3".into()), simulated: false };
    let mut told = told(ike("192.0.2.1", "192.0.2.2", sun()), child);
    told.cause = Some(Cause::new(CauseKind::PeerUnreachable, "no answer from $(reboot)\n"));
    let all = variables(&told, &nets());
    for (name, value) in [
        ("PLUTO_UDP_ENC", "4500"),
        ("PLUTO_HOST_ACCESS", "1"),
        ("PLUTO_MARK_IN", "5/0xffffffff"),
        ("PLUTO_MARK_OUT", "42/0x000000ff"),
        ("PLUTO_IF_ID_IN", "7"),
        ("PLUTO_VERB", "down-client"),
        ("CYGNET_OFFLOAD", "packet"),
        ("CYGNET_OFFLOAD_DEV", "eth3"),
        ("CYGNET_CAUSE", "peer-unreachable"),
        ("CYGNET_CAUSE_TEXT", "no answer from __reboot__"),
    ] {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!all.contains_key("PLUTO_IF_ID_OUT"));
}

#[test]
fn the_verb_tells_hosts_from_networks_and_the_family() {
    let told = told(ike("192.0.2.1", "192.0.2.2", sun()), child());
    let any = |network| selector(network, 0, 0, 65_535);
    for (local, remote, expected) in [
        ("192.0.2.1/32", "10.2.0.0/24", "up-host"),
        ("10.1.0.1/32", "192.0.2.2/32", "up-client"),
        ("2001:db8::/64", "2001:db8:1::/64", "up-client-v6"),
    ] {
        assert_eq!(verb(&told, &pair(any(local), any(remote))), expected);
    }
    let mut six = told;
    six.ike.local = "[2001:db8::1]:500".parse().unwrap();
    assert_eq!(verb(&six, &pair(any("2001:db8::1/128"), any("2001:db8:1::/64"))), "up-host-v6");
}

/// What charon 5.9.8 was seen to say.
#[test]
fn ports_protocols_and_networks_are_charons() {
    let told = told(ike("192.0.2.1", "192.0.2.2", sun()), child());
    let any = |protocol| selector("10.2.0.0/24", protocol, 0, 65_535);
    for (local, remote, expected) in [
        (selector("10.1.0.0/24", 6, 80, 90), any(0), "10.1.0.0/24 80:90 6 10.2.0.0/24 0 0"),
        (selector("10.1.0.0/24", 6, 65_535, 0), any(0), "10.1.0.0/24 65535:0 6 10.2.0.0/24 0 0"),
        (any(0), selector("10.2.0.0/24", 17, 53, 53), "10.2.0.0/24 0 0 10.2.0.0/24 53 17"),
        (any(0), selector("10.2.0.0/24", 1, 0x800, 0x8ff), "10.2.0.0/24 8 0 10.2.0.0/24 0 1"),
        (selector("10.1.0.0/24", 1, 0x104, 0x104), any(0), "10.1.0.0/24 1 1 10.2.0.0/24 4 0"),
        (any(1), selector("10.2.0.0/24", 1, 11 << 8, 0xbff), "10.2.0.0/24 11 1 10.2.0.0/24 0 1"),
        (any(1), any(0), "10.2.0.0/24 0 1 10.2.0.0/24 0 0"),
        (
            selector("10.1.0.1-10.1.0.9", 0, 0, 65_535),
            selector("10.2.0.0-10.2.0.12", 0, 0, 65_535),
            "10.1.0.0/28 0 0 10.2.0.0/28 0 0",
        ),
        (selector("0.0.0.0/0", 0, 0, 65_535), selector("10.2.0.1/32", 0, 0, 65_535), "0.0.0.0/0 0 0 10.2.0.1/32 0 0"),
    ] {
        let all = variables(&told, &pair(local, remote));
        let names = ["MY_CLIENT", "MY_PORT", "MY_PROTOCOL", "PEER_CLIENT", "PEER_PORT", "PEER_PROTOCOL"];
        let seen: Vec<&str> = names.iter().map(|name| all[&format!("PLUTO_{name}")].as_str()).collect();
        assert_eq!(seen.join(" "), expected);
    }
}

#[test]
fn no_identity_does_harm() {
    for (id, expected) in [
        (
            Identity::Fqdn("x$(reboot)`id`;|&<>\"'\\*?{}[]!~^\n\r\u{1b}[0m".into()),
            "x__reboot__id__________________________0m",
        ),
        (Identity::Rfc822("-j@DROP".into()), "_j@DROP"),
        (Identity::Fqdn("größe".into()), "gr__xc3__xb6__xc3__x9fe"),
        (Identity::KeyId(b"plain key".to_vec()), "plain key"),
        (Identity::KeyId(vec![0x0a, 0x41, 0x20, 0x0d]), "0a:41:20:0d"),
        (Identity::Address("2001:db8::2".parse().unwrap()), "2001:db8::2"),
    ] {
        let all = variables(&told(ike("192.0.2.1", "192.0.2.2", id.clone()), child()), &nets());
        let seen = &all["PLUTO_PEER_ID"];
        assert!(seen.chars().all(|c| c.is_ascii_alphanumeric() || " @.,:=/+-_%#".contains(c)), "{seen}");
        if !matches!(id, Identity::Fqdn(_)) {
            assert_eq!(seen, expected);
        }
        let altered = *seen != identity(&id);
        let full = id.to_wire().map(|(_, octets)| hex(&octets, ""));
        assert_eq!(all.get("CYGNET_PEER_ID_HEX"), full.filter(|_| altered).as_ref(), "{seen}");
    }
}
