use ike_model::Identity;

use super::*;

fn parse(name: &str, message: Message) -> Result<Request, String> {
    Request::parse(name, &message).map_err(|error| match error {
        RequestError::Unknown => "unknown command".to_owned(),
        RequestError::Refused(reply) => {
            assert_eq!(reply.get_str("success"), Some("no"));
            reply.get_str("errmsg").unwrap().to_owned()
        }
    })
}

fn m() -> Message {
    Message::new()
}

#[test]
fn commands_without_content() {
    let cases = [
        ("version", Request::Version),
        ("stats", Request::Stats),
        ("reload-settings", Request::ReloadSettings),
        ("get-conns", Request::GetConns),
        ("get-shared", Request::GetShared),
        ("get-keys", Request::GetKeys),
        ("get-authorities", Request::GetAuthorities),
        ("get-pools", Request::GetPools),
        ("clear-creds", Request::ClearCreds),
        ("list-certs", Request::ListNothing),
        ("list-sas", Request::ListSas(SaFilter::default())),
        ("list-conns", Request::ListConns { ike: None }),
        ("list-policies", Request::ListPolicies(PolicyFilter::default())),
        ("cygnet-status", Request::CygnetStatus { ike: None }),
        ("cygnet-backend-sas", Request::CygnetBackendSas),
        ("cygnet-doctor", Request::CygnetDoctor),
        ("cygnet-guards", Request::CygnetGuards { drop: false }),
    ];
    for (name, expected) in cases {
        assert_eq!(parse(name, m()), Ok(expected), "{name}");
    }
    assert_eq!(parse("make-coffee", m()), Err("unknown command".into()));
}

#[test]
fn initiate_and_its_waits() {
    assert_eq!(parse("initiate", m()), Err("missing configuration name".into()));
    let waits = [
        (None, Wait::Forever),
        (Some("0"), Wait::Forever),
        (Some("-1"), Wait::No),
        (Some("-1000"), Wait::No),
        (Some("500"), Wait::AtMost(Duration::from_millis(500))),
    ];
    for (timeout, wait) in waits {
        let mut message = m().with("child", "net").with("ike", "gw");
        if let Some(timeout) = timeout {
            message.set("timeout", timeout);
        }
        let expected = Request::Initiate { child: Some("net".into()), ike: Some("gw".into()), wait, log_level: 1 };
        assert_eq!(parse("initiate", message), Ok(expected));
    }
    assert_eq!(
        parse("initiate", m().with("ike", "gw").with("timeout", "x")),
        Err("invalid number for: timeout".into())
    );
    let quiet = parse("initiate", m().with("ike", "gw").with("loglevel", "-1"));
    assert!(matches!(quiet, Ok(Request::Initiate { child: None, log_level: -1, .. })));
}

#[test]
fn selectors_are_needed() {
    assert_eq!(parse("terminate", m()), Err("missing terminate selector".into()));
    assert_eq!(parse("rekey", m()), Err("missing rekey selector".into()));
    let request = parse("terminate", m().with("child-id", "7").with("ike", "gw").with("force", "yes")).unwrap();
    let selector = Selector { ike: Some("gw".into()), child_id: Some(7), ..Selector::default() };
    assert_eq!(request, Request::Terminate { selector, force: true, wait: Wait::Forever, log_level: 1 });
    assert_eq!(parse("rekey", m().with("ike-id", "x")), Err("invalid number for: ike-id".into()));
}

/// A part of a selection that is empty or unreadable never makes it a wider one.
#[test]
fn selections_are_never_widened() {
    let octets = || Value::from(&[0xff_u8][..]);
    for command in ["terminate", "rekey"] {
        let Ok(request) = parse(command, m().with("ike", "").with("child", "net")) else { panic!("{command}") };
        let (Request::Terminate { selector, .. } | Request::Rekey { selector, .. }) = request else {
            panic!("{command}")
        };
        assert_eq!((selector.ike.as_deref(), selector.child.as_deref()), (Some(""), Some("net")));
    }
    let filter = SaFilter { ike: Some(String::new()), ..SaFilter::default() };
    assert_eq!(parse("list-sas", m().with("ike", "")), Ok(Request::ListSas(filter)));
    assert_eq!(parse("list-conns", m().with("ike", "")), Ok(Request::ListConns { ike: Some(String::new()) }));
    assert_eq!(parse("unload-conn", m().with("name", "")), Ok(Request::UnloadConn { name: String::new() }));
    assert_eq!(
        parse("terminate", m().with("ike-id", "").with("child-id", "0")),
        Err("missing terminate selector".into())
    );
    for command in ["terminate", "initiate", "list-sas", "unload-conn", "get-counters", "cygnet-history"] {
        for key in ["ike", "child-id", "name"] {
            let message = m().with("child", "net").with(key, octets());
            assert_eq!(parse(command, message), Err(format!("'{key}' is not UTF-8 text")), "{command}");
            let mut message = m().with("child", "net");
            message.list(key, ["a"]);
            assert_eq!(parse(command, message), Err(format!("'{key}' is a list")), "{command}");
        }
    }
    let mut secret = m().with("type", "ike").with("data", octets());
    assert!(matches!(parse("load-shared", secret.clone()), Ok(Request::LoadShared(_))));
    secret.list("owners", [Value::from("gw"), octets()]);
    assert_eq!(parse("load-shared", secret), Err("'owners' is not UTF-8 text".into()));
}

#[test]
fn counters_of_one_of_each_or_of_all_together() {
    let get = |message| parse("get-counters", message).unwrap();
    assert_eq!(get(m()), Request::GetCounters(CounterScope::Global));
    assert_eq!(get(m().with("name", "gw")), Request::GetCounters(CounterScope::Connection("gw".into())));
    assert_eq!(get(m().with("name", "gw").with("all", "yes")), Request::GetCounters(CounterScope::Each));
    assert_eq!(get(m().with("all", "no")), Request::GetCounters(CounterScope::Global));
    let reset = parse("reset-counters", m().with("name", ""));
    assert_eq!(reset, Ok(Request::ResetCounters(CounterScope::Connection(String::new()))));
}

#[test]
fn install_needs_a_child() {
    assert_eq!(parse("install", m().with("ike", "gw")), Err("missing configuration name".into()));
    let expected = Request::Uninstall { ike: None, child: "net".into() };
    assert_eq!(parse("uninstall", m().with("child", "net")), Ok(expected));
}

#[test]
fn shared_secrets() {
    let mut message = m().with("id", "ike-a").with("type", "ike").with("data", "planted");
    message.list("owners", ["gw-a", "192.0.2.1"]);
    let Ok(Request::LoadShared(secret)) = parse("load-shared", message) else { panic!("no secret") };
    assert_eq!(secret.owners, [Identity::Fqdn("gw-a".into()), Identity::Address("192.0.2.1".parse().unwrap())]);
    assert_eq!(secret.secret.expose(), b"planted");
    assert!(!format!("{secret:?}").contains("planted"));

    assert_eq!(parse("load-shared", m().with("data", "x")), Err("shared key type missing".into()));
    assert_eq!(
        parse("load-shared", m().with("type", "TLS").with("data", "x")),
        Err("invalid shared key type: TLS".into())
    );
    assert_eq!(parse("load-shared", m().with("type", "IKE")), Err("shared key data missing".into()));
    assert!(matches!(
        parse("load-shared", m().with("type", "EAP").with("data", "x")),
        Ok(Request::IgnoredShared { .. })
    ));
    assert_eq!(parse("unload-shared", m().with("id", "a")), Ok(Request::UnloadShared { id: "a".into() }));
}

#[test]
fn connections() {
    let mut conn = m();
    conn.section("local", m().with("auth", "psk"));
    let mut message = m();
    message.section("gw", conn);
    let Ok(Request::LoadConn { connection, .. }) = parse("load-conn", message) else { panic!("no connection") };
    assert_eq!(connection.name, "gw");
    assert_eq!(parse("unload-conn", m()), Err("unload: missing connection name".into()));
    assert_eq!(parse("unload-conn", m().with("name", "gw")), Ok(Request::UnloadConn { name: "gw".into() }));
    let twice = m().with("name", "a").with("name", "b");
    assert_eq!(parse("unload-conn", twice), Err("'name' is given twice".into()));
}

#[test]
fn policy_kinds_count_by_presence() {
    let filter = parse("list-policies", m().with("trap", "no"));
    assert_eq!(filter, Ok(Request::ListPolicies(PolicyFilter { trap: true, ..PolicyFilter::default() })));
}

#[test]
fn a_connection_to_explain() {
    assert_eq!(parse("cygnet-explain", m()), Err("missing configuration name".into()));
    let expected = Request::CygnetExplain { ike: "site".into(), child: Some("net".into()) };
    assert_eq!(parse("cygnet-explain", m().with("ike", "site").with("child", "net")), Ok(expected));
}

#[test]
fn a_packet_to_walk() {
    let ask = |pairs: &[(&str, &str)]| {
        let mut message = m();
        pairs.iter().for_each(|(key, value)| message.set(*key, *value));
        match parse("cygnet-why", message) {
            Ok(Request::CygnetWhy(question)) => Ok(question),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    let ends = [("src", "10.1.0.10"), ("dst", "10.2.0.10")];
    let with = |more: &[(&str, &str)]| ask(&[&ends[..], more].concat());
    let question = with(&[("size", "1400"), ("in", "lan0")]).unwrap();
    assert_eq!((question.size, question.arrival.as_deref()), (Some(1_400), Some("lan0")));
    let upper = |more: &[(&str, &str)]| with(more).map(|question| (question.packet.protocol, question.packet.ports));
    assert_eq!(upper(&[]), Ok((1, Some((0x0800, 0x0800)))));
    assert_eq!(upper(&[("proto", "TCP"), ("port", "443")]), Ok((6, Some((49_152, 443)))));
    assert_eq!(upper(&[("proto", "udp"), ("port", "53"), ("source-port", "7")]), Ok((17, Some((7, 53)))));
    assert_eq!(upper(&[("proto", "icmp"), ("port", "3")]), Ok((1, Some((0x0300, 0x0300)))));
    assert_eq!(upper(&[("proto", "47")]), Ok((47, None)));
    let v6 = ask(&[("src", "2001:db8::1"), ("dst", "2001:db8::2"), ("proto", "icmp")]).unwrap();
    assert_eq!((v6.packet.protocol, v6.packet.ports), (58, Some((0x8000, 0x8000))));
    for (more, error) in [
        (&[("proto", "tcp")][..], "tcp and udp need a port, for example tcp:443"),
        (&[("proto", "coffee")], "'coffee' is no IP protocol"),
        (&[("proto", "0")], "'0' is no IP protocol"),
        (&[("proto", "tcp"), ("port", "70000")], "port: 70000 is no port"),
        (&[("proto", "icmp"), ("port", "256")], "256 is no ICMP type"),
        (&[("size", "large")], "invalid number for: size"),
    ] {
        assert_eq!(with(more), Err(error.to_owned()), "{more:?}");
    }
    assert_eq!(ask(&[("src", "10.1.0.10")]), Err("missing dst".into()));
    assert_eq!(ask(&[("src", "here"), ("dst", "10.2.0.10")]), Err("src: 'here' is no IP address".into()));
    let mixed = ask(&[("src", "10.1.0.10"), ("dst", "2001:db8::2")]);
    assert_eq!(mixed, Err("source and destination are of different address families".into()));
}

#[test]
fn a_part_of_the_past() {
    let ask = |pairs: &[(&str, &str)]| {
        let mut message = m();
        pairs.iter().for_each(|(key, value)| message.set(*key, *value));
        parse("cygnet-history", message)
    };
    let all = Wanted::default();
    assert_eq!(ask(&[]), Ok(Request::CygnetHistory { wanted: all.clone(), ike_sas: false, rows_only: false }));
    let some = [
        ("child", "net"),
        ("ike", "site"),
        ("since", "1700000000000"),
        ("limit", "5"),
        ("ike-sas", "yes"),
        ("cause", "reload"),
        ("totals", "no"),
    ];
    let wanted = Wanted {
        child: Some("net".into()),
        connection: Some("site".into()),
        since_ms: Some(1_700_000_000_000),
        limit: 5,
        cause: Some("reload".into()),
        ..all.clone()
    };
    assert_eq!(ask(&some), Ok(Request::CygnetHistory { wanted, ike_sas: true, rows_only: true }));
    assert_eq!(ask(&[("until", "noon")]), Err("invalid number for: until".into()));
    let event = Wanted { event: Some("config.loaded".into()), ..all };
    assert_eq!(parse("cygnet-events", m().with("type", "config.loaded")), Ok(Request::CygnetEvents(event)));
}

#[test]
fn webhooks_and_deliveries() {
    use ike_model::history::{DeliveryCursor, DeliveryState, Redelivery, WantedDeliveries};
    assert_eq!(parse("cygnet-webhooks", m()), Ok(Request::CygnetWebhooks));
    for command in ["test", "enable", "disable", "drop"] {
        assert_eq!(parse(&format!("cygnet-webhook-{command}"), m()), Err("missing name of a webhook".into()));
    }
    let ops = || m().with("name", "ops");
    assert_eq!(parse("cygnet-webhook-test", ops()), Ok(Request::CygnetWebhookTest { name: "ops".into() }));
    let enable = |enable| Ok(Request::CygnetWebhookEnable { name: "ops".into(), enable });
    assert_eq!(
        (parse("cygnet-webhook-enable", ops()), parse("cygnet-webhook-disable", ops())),
        (enable(true), enable(false))
    );
    let wanted = WantedDeliveries {
        endpoint: Some("ops".into()),
        state: Some(DeliveryState::Dead),
        before: Some(DeliveryCursor { ulid: "01J".into(), endpoint: "ops".into() }),
        limit: 7,
        ..WantedDeliveries::default()
    };
    let message = ops().with("state", "dead").with("before", "01J/ops").with("limit", "7");
    assert_eq!(parse("cygnet-webhook-deliveries", message), Ok(Request::CygnetDeliveries(wanted)));
    let wrong = parse("cygnet-webhook-deliveries", m().with("state", "lost"));
    assert_eq!(wrong, Err("invalid value for: state, expected one of waiting, delivered, dead".into()));
    assert!(
        parse("cygnet-webhook-deliveries", m().with("before", "x"))
            .unwrap_err()
            .starts_with("invalid value for: before")
    );
    // All that was given up is never sent again by a slip.
    assert_eq!(parse("cygnet-webhook-redeliver", m()), Err("missing name, event or all=yes".into()));
    let all = Redelivery::default();
    assert_eq!(parse("cygnet-webhook-redeliver", m().with("all", "yes")), Ok(Request::CygnetRedeliver(all)));
    let one = Redelivery { endpoint: Some("ops".into()), ulid: Some("01J".into()) };
    assert_eq!(parse("cygnet-webhook-redeliver", ops().with("event", "01J")), Ok(Request::CygnetRedeliver(one)));
}

#[test]
fn redirect_says_what_is_missing_and_narrows_by_peer() {
    let gateway = || m().with("gateway", "gw.example");
    let cases = [
        (m().with("ike", "a"), "missing target gateway"),
        (gateway(), "missing redirect selector"),
        (gateway().with("peer-ip", "gw.example"), "parsing peer-ip failed"),
        (gateway().with("peer-ip", "192.0.2.0/33"), "parsing peer-ip failed"),
    ];
    for (message, refusal) in cases {
        assert_eq!(parse("redirect", message).unwrap_err(), refusal);
    }
    let message = gateway().with("peer-ip", "192.0.2.0/24").with("peer-id", "*.example");
    let Request::Redirect { selector, peer } = parse("redirect", message).unwrap() else { panic!("no redirect") };
    assert_eq!(selector, Selector::default());
    assert_eq!(peer.id, Some(Identity::Fqdn("*.example".into())));
    assert_eq!(peer.ip, Some(crate::address::host("192.0.2.0/24").unwrap()));
}
