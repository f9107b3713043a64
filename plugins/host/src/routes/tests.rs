use ipsec::{PortRange, TrafficSelector};

use super::super::prefix::tests::prefix;
use super::*;

fn pair(local: &str, remote: &str) -> SelectorPair {
    let selector = |text| {
        let prefix = prefix(text);
        TrafficSelector::prefix(prefix.address(), prefix.length()).unwrap()
    };
    SelectorPair { local: selector(local), remote: selector(remote) }
}

#[test]
fn a_whole_shunt_is_one_jump_per_pair_of_prefixes() {
    let got = around(&pair("10.1.0.0/16", "10.9.0.0/16")).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].from, got[0].to), (prefix("10.1.0.0/16"), prefix("10.9.0.0/16")));
    assert!(is_whole(&pair("10.1.0.0/16", "10.9.0.0/16")));
}

#[test]
fn ports_become_part_of_the_jump() {
    let mut web = pair("0.0.0.0/0", "10.9.0.0/16");
    web.remote.protocol = 6;
    web.remote.ports = PortRange { start: 80, end: 81 };
    let got = around(&web).unwrap();
    assert_eq!((got[0].protocol, got[0].source_ports, got[0].destination_ports), (6, None, Some((80, 81))));
    assert!(!is_whole(&web));
}

#[test]
fn what_rules_cannot_say_is_refused() {
    let mut shunt = pair("10.1.0.0/16", "10.9.0.0/16");
    shunt.local.protocol = 17;
    shunt.local.ports = PortRange::OPAQUE;
    assert!(around(&shunt).unwrap_err().to_string().contains("not available"));
    shunt.local.protocol = 1;
    shunt.local.ports = PortRange::single(0x0800);
    assert!(around(&shunt).unwrap_err().to_string().contains("TCP, UDP"));
    shunt.local.protocol = 17;
    shunt.local.ports = PortRange { start: 0, end: 7 };
    assert!(around(&shunt).unwrap_err().to_string().contains("port 0"));
}
