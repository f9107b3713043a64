//! A sound gateway has no doubts, and each doubt is found.

use ipsec::{Device, DeviceId, DeviceState};

use super::*;

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        up: true,
        carrier: true,
        mtu: 1_500,
        forwarding: true,
        reverse_path: 0,
        below: Vec::new(),
    }
}

fn device(state: DeviceState) -> Device {
    Device { id: DeviceId(0), name: "cygnet0".into(), state, rungs: Vec::new() }
}

fn fit() -> ChildFit {
    ChildFit {
        name: "site/net".into(),
        wanted: OffloadMode::Auto,
        device: Ok("eth1".into()),
        fits: vec![OffloadMode::Packet, OffloadMode::No],
        rejected: Vec::new(),
        notes: Vec::new(),
    }
}

fn privileges(others: u32) -> Privileges {
    Privileges { user: "cygnet".into(), needed: vec![("NET_ADMIN", true), ("NET_RAW", true)], others }
}

fn sound() -> Facts {
    Facts {
        devices: DeviceTable { devices: vec![device(DeviceState::Up)] },
        tunnel: Some(("cygnet0".into(), Some(link("cygnet0")))),
        tun_usable: true,
        kernel: None,
        children: vec![fit()],
        refused: Vec::new(),
        ports: [500, 4500].map(|number| Port { number, ours: true, others: Vec::new() }).into(),
        privileges: privileges(0),
        unreachable: Vec::new(),
        links: vec![link("lan0"), link("wan0")],
        reverse_path_drops: 0,
        redirects: Vec::new(),
        forwards: (true, true),
        needs_forwarding: (true, true),
        xfrm: true,
        foreign_policies: Vec::new(),
        unclaimed_guards: Vec::new(),
        table: (220, Vec::new()),
        rules: (220, Vec::new(), Vec::new()),
        install_routes: true,
        paths: vec![Path {
            connection: "site".into(),
            remote: "203.0.113.9".parse().unwrap(),
            mtu: 1_500,
            inner: 1_438,
            inner_v6: true,
        }],
        vici: Some(Socket { path: "/run/charon.vici".into(), mode: 0o140_660, group: 0 }),
        exports_keys: false,
        files: Vec::new(),
        clock: (1_764_000_000, 0),
    }
}

#[test]
fn it_is_said_as_whom_the_daemon_runs_and_with_what() {
    let said = |facts: &Facts| host::privileges(facts)[0].text.clone();
    assert_eq!(said(&sound()), "the daemon runs as user cygnet with NET_ADMIN, NET_RAW and no other capability");
    let more = Facts { privileges: Privileges { user: "root".into(), ..privileges(38) }, ..sound() };
    assert_eq!(said(&more), "the daemon runs as user root with NET_ADMIN, NET_RAW and 38 other capabilities");
    let mut none = sound();
    none.privileges.needed.iter_mut().for_each(|(_, has)| *has = false);
    assert_eq!(said(&none), "the daemon lacks NET_ADMIN and NET_RAW: it runs as user cygnet with no capability");
}

#[test]
fn a_sound_gateway_has_no_doubts() {
    let checks = examine(&sound());
    assert!(checks.iter().all(|check| check.level == Level::Ok && check.fix.is_empty()), "{checks:#?}");
    for area in ["device", "child", "port", "privilege", "host", "route", "guard", "path", "vici", "file", "clock"] {
        assert!(checks.iter().any(|check| check.area == area), "nothing about {area}");
    }
}

/// A change, the area and level of what is found, and a piece of it.
type Case = (fn(&mut Facts), &'static str, Level, &'static str);

const CASES: [Case; 30] = [
    (|f| f.exports_keys = true, "vici", Level::Warning, "keys of all SAs are kept"),
    (|f| f.devices.devices[0].state = DeviceState::Down, "device", Level::Error, "cygnet0 is down"),
    (|f| f.devices.devices[0].state = DeviceState::Gone, "device", Level::Error, "was removed"),
    (|f| f.devices.devices.clear(), "device", Level::Error, "no device"),
    (|f| f.tunnel.as_mut().unwrap().1 = None, "device", Level::Error, "is not there"),
    (
        |f| f.tunnel.as_mut().unwrap().1.as_mut().unwrap().up = false,
        "device",
        Level::Error,
        "tunnel device cygnet0 is down",
    ),
    (|f| f.tun_usable = false, "device", Level::Warning, "/dev/net/tun"),
    (|f| f.children.clear(), "child", Level::Warning, "no child is loaded"),
    (|f| f.children[0].device = Err("no route to 203.0.113.9".into()), "child", Level::Warning, "no route"),
    (
        |f| {
            f.children[0].fits.clear();
            f.children[0].rejected.push("eth1 cannot do ESN".into());
        },
        "child",
        Level::Error,
        "(hw_offload = auto) cannot be carried: eth1 cannot do ESN",
    ),
    (
        |f| {
            f.children[0].fits.remove(0);
            f.children[0].rejected.push("eth1 cannot do ESN".into());
        },
        "child",
        Level::Warning,
        "runs in software on eth1, not better: eth1 cannot do ESN",
    ),
    (|f| f.refused.push(("b/x".into(), "no device".into())), "child", Level::Error, "b/x is refused: no device"),
    (|f| f.ports[0].number = 0, "port", Level::Warning, "off"),
    (|f| f.ports[1].ours = false, "port", Level::Error, "4500 is not held"),
    (|f| f.ports[0].others.push("charon (pid 7)".into()), "port", Level::Error, "also held by charon (pid 7)"),
    (|f| f.privileges.needed[1].1 = false, "privilege", Level::Error, "lacks NET_RAW"),
    (
        |f| f.unreachable = vec![("cannot read /x".into(), "chgrp".into())],
        "privilege",
        Level::Warning,
        "cannot read /x",
    ),
    (|f| f.forwards.0 = false, "host", Level::Warning, "IPv4 is not forwarded"),
    (|f| f.forwards.1 = false, "host", Level::Warning, "IPv6 is not forwarded"),
    (|f| (f.links[0].reverse_path, f.reverse_path_drops) = (1, 9), "host", Level::Warning, "(lan0): 9 packets"),
    (|f| f.redirects.push("wan0".into()), "host", Level::Warning, "redirects on wan0"),
    (|f| f.install_routes = false, "route", Level::Warning, "install_routes"),
    (|f| f.table.1.push("10.9.0.0/16 dev wan0".into()), "route", Level::Error, "10.9.0.0/16 dev wan0"),
    (|f| f.rules.1.push("from all lookup 9".into()), "route", Level::Error, "our priority 220"),
    (|f| f.rules.2.push("from all lookup 9".into()), "route", Level::Warning, "before ours"),
    (|f| f.xfrm = false, "guard", Level::Warning, "no XFRM"),
    (|f| f.foreign_policies.push("dir out".into()), "guard", Level::Warning, "not ours: dir out"),
    (|f| f.unclaimed_guards.push("dir out".into()), "guard", Level::Warning, "no loaded connection claims"),
    (|f| f.paths[0].inner = 1_200, "path", Level::Warning, "1280"),
    (|f| f.vici.as_mut().unwrap().mode = 0o666, "vici", Level::Error, "by everybody (mode 666)"),
];

#[test]
fn each_doubt_is_found_alone_and_says_what_to_do() {
    for (number, (change, area, level, piece)) in CASES.iter().enumerate() {
        let mut facts = sound();
        change(&mut facts);
        let doubts: Vec<Check> = examine(&facts).into_iter().filter(|check| check.level > Level::Ok).collect();
        let [doubt] = doubts.as_slice() else { panic!("case {number}: {doubts:#?}") };
        assert_eq!((doubt.area, doubt.level), (*area, *level), "{doubt:?}");
        assert!(doubt.text.contains(piece) && !doubt.fix.is_empty(), "no '{piece}' in {doubt:?}");
    }
}

/// The kernel is the data path: no tunnel device, and nothing of it is missed.
fn sound_kernel() -> Facts {
    let kernel = KernelFacts {
        settings: vec![("net.core.xfrm_larval_drop".into(), 0)],
        held: vec![("eth0".into(), 2, 4)],
        ..KernelFacts::default()
    };
    Facts { tunnel: None, tun_usable: false, kernel: Some(kernel), ..sound() }
}

const KERNEL_CASES: [Case; 6] = [
    (
        |f| kernel(f).lacks = Some("this kernel has no ESP".into()),
        "device",
        Level::Error,
        "no SA can be installed: this kernel",
    ),
    (|f| kernel(f).idle.push("eth1".into()), "device", Level::Warning, "driver of eth1"),
    (|f| kernel(f).held[0].2 = 0, "device", Level::Error, "none that lets IKE pass"),
    (
        |f| kernel(f).switched_off.push("net.ipv4.conf.wan0.disable_xfrm".into()),
        "host",
        Level::Error,
        "disable_xfrm is 1: what leaves there is not protected",
    ),
    (
        |f| kernel(f).switched_off.push("net.ipv4.conf.wan0.disable_policy".into()),
        "host",
        Level::Error,
        "what arrives there is taken in clear",
    ),
    (|f| f.rules.1.push("from all lookup 9".into()), "route", Level::Error, "our priority 220"),
];

fn kernel(facts: &mut Facts) -> &mut KernelFacts {
    facts.kernel.as_mut().unwrap()
}

#[test]
fn the_kernel_as_data_path_has_doubts_of_its_own() {
    let checks = examine(&sound_kernel());
    assert!(checks.iter().all(|check| check.level == Level::Ok), "{checks:#?}");
    assert!(!checks.iter().any(|check| check.text.contains("tunnel device")), "{checks:#?}");
    for (number, (change, area, level, piece)) in KERNEL_CASES.iter().enumerate() {
        let mut facts = sound_kernel();
        change(&mut facts);
        let doubts: Vec<Check> = examine(&facts).into_iter().filter(|check| check.level > Level::Ok).collect();
        let [doubt] = doubts.as_slice() else { panic!("case {number}: {doubts:#?}") };
        assert_eq!((doubt.area, doubt.level), (*area, *level), "{doubt:?}");
        assert!(doubt.text.contains(piece) && !doubt.fix.is_empty(), "no '{piece}' in {doubt:?}");
    }
    let mut facts = sound_kernel();
    facts.install_routes = false;
    kernel(&mut facts).drops.push(("XfrmInPolBlock".into(), 7));
    let checks = examine(&facts);
    assert!(checks.iter().all(|check| check.level == Level::Ok), "{checks:#?}");
    assert!(checks.iter().any(|check| check.text.contains("XfrmInPolBlock 7")));
}

#[test]
fn devices_say_what_they_carry() {
    use ipsec::{Capabilities, EspAlgorithm, LimitUnits, ModeInUse, ReplayWindows, Rung, SelectorSupport};
    let capabilities = Capabilities {
        algorithms: vec![EspAlgorithm::AES_256_GCM],
        tunnel: true,
        transport: false,
        esn: false,
        replay_windows: ReplayWindows::Only(vec![32, 64]),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: false,
        limits: LimitUnits { time: true, bytes: false, packets: true },
        sa_table: Some(8),
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: false,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    };
    let rung =
        |mode| Rung { mode: ModeInUse { mode, device: None, simulated: false }, capabilities: capabilities.clone() };
    let mut facts = sound();
    facts.devices.devices[0].rungs = [OffloadMode::Packet, OffloadMode::No].map(rung).into();
    let text = examine(&facts).into_iter().find(|check| check.area == "device").unwrap().text;
    assert_eq!(
        text,
        "cygnet0 is up: packet offload of aes256gcm16, tunnel mode only, no ESN, replay windows of 32 64, no ESP in UDP, limits of \
         packets, 8 SAs; software"
    );
}

#[test]
fn files_clock_and_socket() {
    let mut facts = sound();
    facts.files =
        vec![(true, "a.conf:1:1: broken".into(), "mend it".into()), (false, "doubtful".into(), "look".into())];
    facts.clock = (7, 30);
    facts.vici = None;
    let checks = examine(&facts);
    let of = |area: &str| checks.iter().filter(|check| check.area == area).map(|check| check.level).collect::<Vec<_>>();
    assert_eq!(of("file"), [Level::Error, Level::Warning]);
    assert_eq!(of("clock"), [Level::Warning, Level::Ok]);
    assert_eq!(of("vici"), [Level::Warning]);
    facts.links[0].reverse_path = 1;
    assert!(
        examine(&facts)
            .iter()
            .any(|check| check.level == Level::Ok && check.text.contains("(lan0) have dropped nothing"))
    );
    facts.needs_forwarding = (false, false);
    facts.forwards = (false, false);
    assert!(!examine(&facts).iter().any(|check| check.text.contains("forwarded")));
}
