//! Links of the machine that pose as NICs: the route chooses the device, and an SA works where its packets leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ipsec::conformance::{Wire, udp_v4};
use ipsec::{Answer, DeviceId, DeviceState, Event, OffloadMode, Op, Request, Scope};
use offload_host::devices::{Link, LinkChange, LinkKind};
use offload_userspace::NoMachine;
use offload_userspace::nic::{NicLimits, Simulation};

use crate::subject::InProcess;

fn link(index: u32, name: &str, kind_name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        kind_name: kind_name.into(),
        kind: LinkKind::End,
        lower: None,
        lower_elsewhere: false,
        master: None,
        up: true,
        carrier: true,
        mtu: 1500,
    }
}

/// A machine with two NICs and some links that are none; the number is that of the link which the route names.
pub(crate) fn machine() -> (InProcess, Arc<AtomicU32>) {
    let simulation = Simulation { limits: NicLimits::default(), each_link: true };
    let subject = InProcess::posing(Some(simulation), NoMachine::default());
    let route = Arc::new(AtomicU32::new(2));
    let named = Arc::clone(&route);
    let control = &subject.backend.control;
    control.follow_links(Box::new(move |_, _| Some(named.load(Relaxed)).filter(|index| *index != 0)));
    let bond = Link { kind: LinkKind::Bond { active: None, spreads: false }, ..link(9, "bond0", "bond") };
    let links = [
        link(1, "lo", ""),
        link(2, "eth0", ""),
        link(3, "eth1", "veth"),
        link(7, "tun7", "tun"),
        link(8, "cygnet0", ""),
        bond,
    ];
    links.into_iter().for_each(|link| control.link_changed(&LinkChange::Added(link), false));
    (subject, route)
}

fn device(subject: &InProcess) -> Option<DeviceId> {
    let outer = |last| std::net::IpAddr::from([192, 0, 2, last]);
    subject.backend.control.device_for(outer(1), outer(2))
}

/// A tunnel in packet offload on a device.
fn install(subject: &InProcess, device: DeviceId) {
    let (mut ops, _) = subject.tunnel();
    for op in &mut ops {
        if let Op::InstallSa(spec) = op {
            (spec.offload, spec.device) = (OffloadMode::Packet, device);
        } else if let Op::InstallPolicy(spec) = op {
            (spec.offload, spec.device) = (OffloadMode::Packet, device);
        }
    }
    subject.backend.control.execute(&Request::Apply(ops)).unwrap();
}

fn sent(subject: &mut InProcess) -> usize {
    subject.inject_inner(&[udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, 2), 8, false)]);
    subject.captured_outer().len()
}

fn drops(subject: &InProcess) -> Vec<&'static str> {
    let events = subject.log.events().into_iter();
    events.filter_map(|event| if let Event::Drops { reason, .. } = event { Some(reason) } else { None }).collect()
}

#[test]
fn each_ethernet_like_link_is_a_device_and_the_route_chooses() {
    let (subject, route) = machine();
    let table = subject.backend.control.devices();
    let names: Vec<&str> = table.devices.iter().map(|device| &*device.name).collect();
    assert_eq!(names, ["cygnet0", "eth0 (simulated)", "eth1 (simulated)"]);
    assert!(table.devices[0].rung(OffloadMode::Packet).is_none(), "our own is no NIC");
    assert_eq!(table.devices[1].rungs[0].mode.device.as_deref(), Some("eth0"));
    for (link, expected) in [(2, 1), (3, 2), (7, 0), (0, 0)] {
        route.store(link, Relaxed);
        assert_eq!(device(&subject), Some(DeviceId(expected)), "link {link}");
    }
    assert_eq!(subject.log.events(), [], "devices that are there from the start are no news");
}

/// Neither in clear nor over the other device.
#[test]
fn a_packet_whose_route_leaves_by_another_device_is_dropped_and_counted() {
    let (mut subject, route) = machine();
    install(&subject, DeviceId(1));
    assert_eq!(sent(&mut subject), 1);
    route.store(3, Relaxed);
    subject.backend.control.refresh().unwrap();
    assert_eq!((sent(&mut subject), drops(&subject)), (0, vec!["wrong-device"]));
    route.store(2, Relaxed);
    subject.backend.control.refresh().unwrap();
    assert_eq!(sent(&mut subject), 1);
    // An SA that is put where its packets do not leave carries none either.
    route.store(3, Relaxed);
    subject.backend.control.execute(&Request::Apply(vec![Op::Flush])).unwrap();
    install(&subject, DeviceId(1));
    assert_eq!(sent(&mut subject), 0);
}

#[test]
fn a_link_takes_along_what_it_held_and_nothing_else() {
    let (mut subject, route) = machine();
    install(&subject, DeviceId(1));
    let control = &subject.backend.control;
    let down = Link { up: false, ..link(3, "eth1", "veth") };
    control.link_changed(&LinkChange::Down(down), true);
    control.link_changed(&LinkChange::Carrier(link(2, "eth0", "")), true);
    assert_eq!(sent(&mut subject), 1, "eth0 is up");
    let control = &subject.backend.control;
    control.link_changed(&LinkChange::Gone { link: link(2, "eth0", ""), moved: false }, true);
    let Ok(Answer::Installed(left)) = control.execute(&Request::List(Scope::All)) else { panic!("no list") };
    assert!(left.sas.is_empty() && left.policies.is_empty());
    assert_eq!(device(&subject), Some(DeviceId(0)), "the link of the route is no device any more");
    let control = &subject.backend.control;
    control.link_changed(&LinkChange::Up(link(3, "eth1", "veth")), true);
    control.link_changed(&LinkChange::Added(link(12, "eth0", "")), true);
    let before: std::sync::Arc<str> = "eth0".into();
    control.link_changed(&LinkChange::Renamed { link: link(12, "lan5", ""), before }, true);
    route.store(12, Relaxed);
    assert_eq!(device(&subject), Some(DeviceId(3)));
    let told = [
        Event::DeviceDown(DeviceId(2)),
        Event::DeviceGone(DeviceId(1)),
        Event::DeviceUp(DeviceId(2)),
        Event::DeviceUp(DeviceId(3)),
    ];
    assert_eq!(subject.log.events(), told);
    let table = subject.backend.control.devices();
    let seen: Vec<_> = table.devices.iter().map(|device| (&*device.name, device.state)).collect();
    let expected = [
        ("cygnet0", DeviceState::Up),
        ("eth0 (simulated)", DeviceState::Gone),
        ("eth1 (simulated)", DeviceState::Up),
        ("lan5 (simulated)", DeviceState::Up),
    ];
    assert_eq!(seen, expected);
}
