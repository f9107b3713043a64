use super::*;

fn message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 24;
    message.header.kind = kind;
    message.attributes = attributes;
    message
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_lookup_says_all_that_rules_look_at() {
    let lookup = Lookup {
        destination: address("10.2.0.1"),
        source: Some(address("10.1.0.1")),
        arrival: Some(3),
        mark: 7,
        upper: Some((6, Some((40_000, 443)))),
    };
    let message = lookup.message();
    assert_eq!((message.header.destination_prefix_length, message.header.source_prefix_length), (32, 32));
    for wanted in [
        RouteAttribute::Iif(3),
        RouteAttribute::Mark(7),
        RouteAttribute::IpProto(6),
        RouteAttribute::Sport(40_000),
        RouteAttribute::Dport(443),
    ] {
        assert!(message.attributes.contains(&wanted), "{wanted:?}");
    }
    let plain = Lookup { upper: Some((50, None)), ..Lookup::to(address("2001:db8::1")) }.message();
    assert_eq!((plain.header.destination_prefix_length, plain.attributes.len()), (128, 1));
}

#[test]
fn answers_become_ways() {
    let out = message(
        RouteType::Unicast,
        vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Gateway(address("192.0.2.2").into()),
            RouteAttribute::Table(220),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1300)]),
        ],
    );
    let gateway = Some(address("192.0.2.2"));
    assert_eq!(way(&out), Way::Out { link: 4, gateway, table: 220, source: None, mtu: Some(1300) });
    assert_eq!(way(&message(RouteType::Local, vec![RouteAttribute::Oif(1)])), Way::Local);
    assert_eq!(way(&message(RouteType::BlackHole, Vec::new())), Way::Nowhere(NoWay::Blackhole));
    assert_eq!(way(&message(RouteType::Prohibit, Vec::new())), Way::Nowhere(NoWay::Prohibited));
}

#[test]
fn refusals_become_reasons() {
    let of = |errno| no_way(&KernelError { errno, text: None });
    assert_eq!(of(libc::ENETUNREACH), NoWay::NoRoute);
    assert_eq!(of(libc::EHOSTUNREACH), NoWay::Unreachable);
    assert_eq!(of(libc::EXDEV), NoWay::ReversePath);
    assert!(matches!(of(libc::EPERM), NoWay::Other(_)));
}

#[test]
fn routes_are_written_as_ip_takes_them() {
    let device = devices::Link {
        index: 4,
        name: "cygnet0".into(),
        kind_name: "tun".into(),
        kind: devices::LinkKind::End,
        lower: None,
        lower_elsewhere: false,
        master: None,
        up: true,
        carrier: true,
        mtu: 1438,
    };
    let links = Links::from_iter([device]);
    let mut route = message(
        RouteType::Unicast,
        vec![
            RouteAttribute::Table(220),
            RouteAttribute::Destination(address("10.2.0.0").into()),
            RouteAttribute::PrefSource(address("10.1.0.1").into()),
            RouteAttribute::Oif(4),
        ],
    );
    route.header.protocol = super::super::rules::OURS;
    let read = TableRoute::read(&route, &links);
    assert_eq!(read.text, "-4 route add 10.2.0.0/24 src 10.1.0.1 dev cygnet0 table 220 proto 67");
    assert!(read.ours);
    let refusing = message(RouteType::Unreachable, vec![RouteAttribute::Table(220), RouteAttribute::Oif(1)]);
    let read = TableRoute::read(&refusing, &links);
    assert_eq!((read.text.as_str(), read.ours), ("-4 route add unreachable 0.0.0.0/24 table 220 proto 0", false));
}
