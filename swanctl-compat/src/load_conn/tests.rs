use std::time::Duration;

use ike_model::{ChildMode, ConfiguredSelector, Fragmentation, HostSpec, Identity, Unique};
use ipsec::recording::{able, device};
use ipsec::{Capabilities, DeviceTable, Lifetime, OffloadMode};

use super::*;

/// A connection with `auth = psk` and child `net`, edited before it is loaded.
fn with(edit: impl FnOnce(&mut Message, &mut Message)) -> Result<Loaded, Rejected> {
    let (mut conn, mut child) = (Message::new(), Message::new());
    edit(&mut conn, &mut child);
    conn.section("local-1", Message::new().with("auth", "psk").with("id", "gw-a"));
    conn.section("remote-1", Message::new().with("auth", "psk").with("id", "gw-b"));
    let mut children = Message::new();
    children.section("net", child);
    conn.section("children", children);
    parse("c", &conn)
}

fn first_error(edit: impl FnOnce(&mut Message, &mut Message)) -> (String, String) {
    let rejected = with(edit).unwrap_err();
    (rejected.errmsg(), rejected.errors[0].path.clone())
}

#[test]
fn defaults() {
    let Loaded { connection, notes } = with(|_, _| {}).unwrap();
    assert_eq!(notes, []);
    assert_eq!(connection.local_addrs, [HostSpec::Any]);
    assert_eq!((connection.local_port, connection.remote_port), (500, 500));
    assert_eq!(connection.rekey_time, Duration::from_secs(14_400));
    assert_eq!(connection.over_time, Duration::from_secs(1_440));
    assert_eq!(connection.rand_time, Duration::from_secs(1_440));
    assert_eq!(connection.unique, Unique::No);
    assert_eq!(connection.keyingtries, 1);
    assert_eq!(connection.local[0].id, Identity::Fqdn("gw-a".into()));
    let child = &connection.children[0];
    assert_eq!(child.name, "net");
    assert_eq!(child.mode, ChildMode::Tunnel);
    assert_eq!(child.lifetime.time, Lifetime { soft: 3_600, hard: 3_960, jitter: 360 });
    assert_eq!(child.lifetime.packets, Lifetime::default());
    assert!(matches!(child.local_ts[..], [ConfiguredSelector::Dynamic { protocol: 0, .. }]));
    assert_eq!(child.hw_offload, OffloadMode::No);
    assert!(child.policies && child.copy.df && child.copy.ecn);
}

#[test]
fn values_arrive() {
    let loaded = with(|conn, child| {
        conn.list("local_addrs", ["192.0.2.1", "2001:db8::/64"]);
        conn.list("remote_addrs", ["gw.example.org"]);
        conn.set("version", "2");
        conn.set("dscp", "101110");
        conn.set("encap", "YES");
        conn.set("fragmentation", "accept");
        conn.set("dpd_delay", "30s");
        conn.set("unique", "Replace");
        conn.list("proposals", ["aes256gcm16-prfsha384-ecp384", "aes128-sha256-x25519"]);
        child.list("local_ts", ["10.1.0.0/16[tcp]", "dynamic"]);
        child.set("life_packets", "1100");
        child.set("rekey_bytes", "1m");
        child.set("mode", "transport");
        child.set("start_action", "trap|start");
        child.set("hw_offload", "yes");
        child.set("reqid", "7");
        child.set("copy_dscp", "no");
    });
    let connection = loaded.unwrap().connection;
    assert_eq!(connection.local_addrs.len(), 2);
    assert_eq!(connection.remote_addrs, [HostSpec::Name("gw.example.org".into())]);
    assert_eq!((connection.dscp, connection.encap, connection.fragmentation), (46, true, Fragmentation::Accept));
    assert_eq!(connection.dpd_delay, Duration::from_secs(30));
    assert_eq!(connection.unique, Unique::Replace);
    assert_eq!(connection.proposals.len(), 2);
    let child = &connection.children[0];
    assert_eq!(child.local_ts.len(), 2);
    assert_eq!(child.lifetime.packets, Lifetime { soft: 1_000, hard: 1_100, jitter: 100 });
    assert_eq!(child.lifetime.bytes.soft, 1 << 20);
    assert_eq!(child.mode, ChildMode::Transport);
    assert!(child.start_action.trap && child.start_action.start);
    assert_eq!(child.hw_offload, OffloadMode::Crypto);
    assert_eq!(child.reqid, Some(7));
}

#[test]
fn reauthentication_alone_turns_rekeying_off() {
    let connection = with(|conn, _| conn.set("reauth_time", "10h")).unwrap().connection;
    assert_eq!(connection.rekey_time, Duration::ZERO);
    assert_eq!(connection.over_time, Duration::from_secs(3_600));
    let connection = with(|conn, _| conn.set("rekey_time", "10s")).unwrap().connection;
    assert_eq!((connection.over_time, connection.rand_time), (Duration::from_secs(1), Duration::from_secs(1)));
    let both = |conn: &mut Message, _: &mut Message| {
        conn.set("rekey_time", "100");
        conn.set("over_time", "90");
    };
    assert_eq!(with(both).unwrap().connection.rand_time, Duration::from_secs(50));
}

/// The daemon's words, which clients of charon know.
/// As charon has it; since it is likely not meant, it is told.
#[test]
fn no_reauthentication_alone_turns_rekeying_off_as_well() {
    let loaded = with(|conn, _| conn.set("reauth_time", "0s")).unwrap();
    assert_eq!((loaded.connection.rekey_time, loaded.connection.reauth_time), (Duration::ZERO, Duration::ZERO));
    let told: Vec<(&str, bool)> = loaded.notes.iter().map(|note| (note.path.as_str(), note.is_error())).collect();
    assert_eq!(told, [("connections.c.reauth_time", false)]);
    let both = with(|conn, _| {
        conn.set("reauth_time", "0");
        conn.set("rekey_time", "4h");
    });
    assert!(both.unwrap().notes.is_empty());
}

#[test]
fn error_texts() {
    type Edit = fn(&mut Message, &mut Message);
    let cases: [(Edit, &str, &str); 22] = [
        (|c, _| c.set("bogus", "1"), "unknown option: bogus, config discarded", "connections.c.bogus"),
        (|_, n| n.set("bogus", "1"), "unknown option: bogus, config discarded", "connections.c.children.net.bogus"),
        (
            |c, _| c.set("rekey_time", "1h30m"),
            "invalid value for: rekey_time, config discarded",
            "connections.c.rekey_time",
        ),
        (|c, _| c.set("version", "x2"), "invalid value for: version, config discarded", "connections.c.version"),
        (
            |c, _| c.list("proposals", ["default", "aes256gcm16-ecp384"]),
            "invalid value for: proposals, config discarded",
            "connections.c.proposals[1]",
        ),
        (
            |c, _| c.list("proposals", ["aes128-aes128gcm16-sha256-ecp384"]),
            "invalid value for: proposals, config discarded",
            "connections.c.proposals[0]",
        ),
        (
            |_, n| n.set("rekey_bytes", "5t"),
            "invalid value for: rekey_bytes, config discarded",
            "connections.c.children.net.rekey_bytes",
        ),
        (
            |_, n| n.set("hw_offload", "full"),
            "invalid value for: hw_offload, config discarded",
            "connections.c.children.net.hw_offload",
        ),
        (|c, _| c.section("foo", Message::new()), "invalid section: foo", "connections.c.foo"),
        (
            |c, _| c.section("Local", Message::new().with("auth", "ed25519")),
            "invalid value for: auth, config discarded",
            "connections.c.Local.auth",
        ),
        // A list given as a value and the other way round are other options.
        (
            |c, _| c.set("local_addrs", "%any"),
            "unknown option: local_addrs, config discarded",
            "connections.c.local_addrs",
        ),
        (|c, _| c.list("version", ["2"]), "unknown option: version, config discarded", "connections.c.version"),
        (
            |_, n| n.list("remote_ts", ["10.0.0.0/8", "10.0.0.0/40"]),
            "invalid value for: remote_ts, config discarded",
            "connections.c.children.net.remote_ts[1]",
        ),
        (
            |c, _| c.set("keyingtries", "-1"),
            "invalid value for: keyingtries, config discarded",
            "connections.c.keyingtries",
        ),
        (
            |c, _| c.set("local_port", "65536"),
            "invalid value for: local_port, config discarded",
            "connections.c.local_port",
        ),
        (
            |_, n| n.set("start_action", "go"),
            "invalid value for: start_action, config discarded",
            "connections.c.children.net.start_action",
        ),
        (
            |c, _| c.set("version", "1"),
            "unsupported: version: only IKEv2 is supported; set version = 2 here and IKEv2 at the peer, config discarded",
            "connections.c.version",
        ),
        (
            |_, n| n.set("ipcomp", "true"),
            "unsupported: ipcomp: IPComp is not supported; leave it out, and the peer sends uncompressed as well, config discarded",
            "connections.c.children.net.ipcomp",
        ),
        (
            |_, n| n.list("ah_proposals", ["sha256"]),
            "unsupported: ah_proposals: AH is not supported; use esp_proposals, which authenticate as well, config discarded",
            "connections.c.children.net.ah_proposals[0]",
        ),
        (
            |c, _| c.section("local-0", Message::new().with("auth", "pubkey")),
            "unsupported: auth: only authentication by pre-shared key is supported, config discarded",
            "connections.c.local-0.auth",
        ),
        (
            |c, _| c.section("local-2", Message::new().with("auth", "psk").with("round", "2")),
            "unsupported: local-2: a second round of authentication (RFC 4739) is not supported, config discarded",
            "connections.c.local-2",
        ),
        (
            |c, _| c.list("proposals", ["aes128-sha256-modp1024"]),
            "unsupported: proposals: `modp1024` is not supported, config discarded",
            "connections.c.proposals[0]",
        ),
    ];
    for (edit, text, path) in cases {
        assert_eq!(first_error(edit), (text.to_owned(), path.to_owned()));
    }
}

#[test]
fn the_default_method_is_refused() {
    let rejected = parse("c", &Message::new()).unwrap_err();
    assert_eq!(
        rejected.errmsg(),
        "unsupported: auth: `auth` is not set, and its default `pubkey` is not supported, config discarded"
    );
}

#[test]
fn sections_and_methods_in_either_case() {
    let mut children = Message::new();
    children.section("net", Message::new().with("start_action", ""));
    let mut content = Message::new();
    content.section("LOCAL", Message::new().with("auth", "PSK"));
    content.section("Children", children);
    let connection = parse("c", &content).unwrap().connection;
    assert_eq!(connection.children[0].name, "net");
}

#[test]
fn harmless_values_of_refused_keys_pass() {
    let loaded = with(|conn, child| {
        conn.set("version", "0");
        conn.set("ppk_required", "no");
        conn.set("childless", "allow");
        child.set("ipcomp", "disabled");
        child.set("mark_in", "0/0");
        child.set("if_id_in", "0");
        child.set("tfc_padding", "0");
        child.set("per_cpu_sas", "no");
    });
    assert_eq!(loaded.unwrap().notes, []);
}

#[test]
fn what_has_no_effect_is_told() {
    let notes = with(|conn, child| {
        conn.set("aggressive", "yes");
        conn.set("pull", "no");
        conn.set("mobike", "no");
        conn.list("proposals", ["aes128-3des-sha256-modp2048"]);
        child.set("life_time", "10");
        child.set("rekey_time", "100");
    })
    .unwrap()
    .notes;
    let texts: Vec<String> = notes.iter().map(Finding::errmsg).collect();
    assert_eq!(
        texts,
        [
            "aggressive has no effect: it concerns IKEv1 only",
            "proposals: 3des is left out, being not supported or of no use here; the rest is offered",
            "life_time: the hard limit 10 comes before the soft limit 100: the SA ends without a rekey",
        ]
    );
}

#[test]
fn the_reply_carries_the_path() {
    let reply = with(|conn, _| conn.list("proposals", ["aes256gcm16-prfsha384-ecp38"])).unwrap_err().reply();
    assert_eq!(reply.get_str("success"), Some("no"));
    assert_eq!(reply.get_str("errmsg"), Some("invalid value for: proposals, config discarded"));
    assert_eq!(reply.get_str("errpath"), Some("connections.c.proposals[0]"));
    assert_eq!(reply.get_str("errhelp"), Some("`ecp38` is no algorithm; did you mean `ecp384`?"));
}

#[test]
fn all_errors_are_found() {
    let rejected = with(|conn, child| {
        conn.set("rekeytime", "1h");
        child.set("life_time", "x");
        child.list("local_ts", ["a", "b"]);
    })
    .unwrap_err();
    assert_eq!(rejected.errors.len(), 4);
    assert_eq!(rejected.errors[0].help.as_deref(), Some("did you mean `rekey_time`?"));
}

/// `cygnet0` with these rungs.
fn devices(rungs: &[(OffloadMode, Capabilities)]) -> offload::Devices {
    let device = device("cygnet0", rungs.iter().cloned());
    offload::Devices { table: DeviceTable { devices: vec![device] }.into(), replay_window: 32, may_appear: false }
}

/// What packet offload of a NIC carries.
fn nic() -> Capabilities {
    Capabilities {
        algorithms: vec![ipsec::EspAlgorithm::AES_256_GCM],
        transport: false,
        esn: false,
        replay_windows: ipsec::ReplayWindows::Only(vec![32, 64]),
        selectors: ipsec::SelectorSupport { ranges: false, ports: false, protocols: Some(vec![6]) },
        udp_encapsulation: false,
        limits: ipsec::LimitUnits { time: false, bytes: false, packets: true },
        all_policy_kinds: false,
        marks: false,
        interface_ids: false,
        ..able()
    }
}

#[test]
fn offload_that_no_device_has_is_refused() {
    let devices = devices(&[(OffloadMode::Packet, able()), (OffloadMode::No, able())]);
    let check = |mode: &str| {
        let connection = with(|_, child| child.set("hw_offload", mode)).unwrap().connection;
        offload::check(&connection, &devices).map_err(|rejected| (rejected.errmsg(), rejected.errors[0].path.clone()))
    };
    for allowed in ["no", "auto", "packet"] {
        assert_eq!(check(allowed), Ok(Vec::new()), "{allowed}");
    }
    let text = "unsupported: hw_offload: device cygnet0 has no crypto offload, only packet offload or software: set `hw_offload` to one \
                of these, config discarded";
    assert_eq!(check("crypto"), Err((text.to_owned(), "connections.c.children.net.hw_offload".to_owned())));
}

/// One way in which a key can ask for what packet offload does not carry.
struct Wish {
    at: &'static str,
    keys: &'static [(&'static str, &'static str)],
    /// Path below the connection.
    path: &'static str,
    text: &'static str,
}

/// With `packet` each is an error at its key; with `auto` it is a note that says what comes of it.
#[test]
fn what_packet_offload_cannot_carry_is_found_at_its_key() {
    let child = |keys, path, text| Wish { at: "child", keys, path, text };
    let cases = [
        child(&[("replay_window", "128")], "children.net.replay_window", "replay windows of 32 or 64 packets, not 128"),
        child(&[("esp_proposals", "chacha20poly1305")], "children.net.esp_proposals", "not chacha20poly1305"),
        child(&[("esp_proposals", "aes128gcm16")], "children.net.esp_proposals", "keys of 256 bits, not 128"),
        child(&[("esp_proposals", "aes256gcm16-esn")], "children.net.esp_proposals", "extended sequence numbers"),
        child(&[("mode", "transport")], "children.net.mode", "tunnel mode only"),
        child(&[("remote_ts", "10.0.0.0/8,10.9.0.1-10.9.0.7")], "children.net.remote_ts[1]", "prefixes only"),
        child(&[("local_ts", "10.1.0.0/16[tcp/80]")], "children.net.local_ts[0]", "ports"),
        child(&[("remote_ts", "10.2.0.0/16[udp]")], "children.net.remote_ts[0]", "protocol 6 alone"),
        child(&[("mark_out", "7")], "children.net.mark_out", "packet marks"),
        child(&[("start_action", "trap")], "children.net.start_action", "no trap policies"),
        Wish { at: "conn", keys: &[("encap", "yes")], path: "encap", text: "no ESP in UDP" },
        Wish { at: "conn", keys: &[("if_id_in", "7")], path: "if_id_in", text: "no interface ids" },
    ];
    let devices = devices(&[(OffloadMode::Packet, nic()), (OffloadMode::No, able())]);
    for Wish { at, keys, path, text } in cases {
        let wanted = |mode: &'static str| {
            let change = |conn: &mut Message, child: &mut Message| {
                let section = if at == "conn" { conn } else { &mut *child };
                for (key, value) in keys {
                    match *key {
                        "esp_proposals" | "local_ts" | "remote_ts" => section.list(*key, value.split(',')),
                        _ => section.set(*key, *value),
                    }
                }
                child.set("hw_offload", mode);
            };
            with(change).unwrap().connection
        };
        let rejected = offload::check(&wanted("packet"), &devices).unwrap_err();
        assert_eq!(rejected.errors.len(), 1, "{path}: {:?}", rejected.errors);
        assert_eq!(rejected.errors[0].path, format!("connections.c.{path}"));
        let reason = &rejected.errors[0].reason;
        assert!(reason.starts_with("device cygnet0 with packet offload ") && reason.contains(text), "{reason}");
        let notes = offload::check(&wanted("auto"), &devices).unwrap();
        if path.ends_with("start_action") {
            assert_eq!(notes, [], "the trap alone is in software");
            continue;
        }
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!((note.path.as_str(), note.is_error()), ("connections.c.children.net.hw_offload", false));
        assert!(
            note.reason.starts_with("`auto` will be software: device cygnet0 ") && note.reason.contains(text),
            "{note:?}"
        );
        assert_eq!(offload::check(&wanted("no"), &devices), Ok(Vec::new()));
    }
}

/// The route decides which device it will be: one that carries it is enough.
#[test]
fn any_device_will_do() {
    let tunnel = device("cygnet0", [(OffloadMode::No, able())]);
    let nic = ipsec::Device {
        state: ipsec::DeviceState::Down,
        ..device("eth0", [(OffloadMode::Packet, nic()), (OffloadMode::No, able())])
    };
    let table = |all: &[&ipsec::Device]| offload::Devices {
        table: DeviceTable { devices: all.iter().copied().cloned().collect() }.into(),
        replay_window: 32,
        may_appear: false,
    };
    let packet = |proposal: &'static str| {
        with(move |_, child| {
            child.set("hw_offload", "packet");
            child.list("esp_proposals", [proposal]);
        })
        .unwrap()
        .connection
    };
    let both = table(&[&tunnel, &nic]);
    assert_eq!(offload::check(&packet("aes256gcm16"), &both), Ok(Vec::new()), "what is down may come up");
    let rejected = offload::check(&packet("chacha20poly1305"), &both).unwrap_err();
    assert_eq!(rejected.errors.len(), 1);
    assert!(offload::check(&packet("aes256gcm16"), &table(&[&tunnel])).is_err());
    let gone = ipsec::Device { state: ipsec::DeviceState::Gone, ..nic.clone() };
    assert!(offload::check(&packet("aes256gcm16"), &table(&[&tunnel, &gone])).is_err());
}

/// Limits that the device does not raise are no error: they are watched from its counters, which is told where one was asked for.
#[test]
fn limits_to_be_emulated_are_noted() {
    let devices = devices(&[(OffloadMode::Packet, nic()), (OffloadMode::No, able())]);
    let with_limit = |key: &'static str| {
        let connection = with(move |_, child| {
            child.set("hw_offload", "packet");
            child.set(key, "1000000");
        });
        offload::check(&connection.unwrap().connection, &devices).unwrap()
    };
    let [note] = &*with_limit("life_bytes") else { panic!("no note") };
    assert_eq!(note.path, "connections.c.children.net.life_bytes");
    assert!(note.reason.contains("raises no byte limits"), "{note:?}");
    assert_eq!(with_limit("life_packets"), []);
    assert_eq!(with_limit("life_time"), [], "the daemon keeps time itself");
}

/// Nothing is ignored: what the device cannot carry is refused with the key and the device.
#[test]
fn marks_and_interface_ids_that_no_device_has_are_refused() {
    let with_key = |at: &str, key: &'static str, value: &'static str| {
        let at = at.to_owned();
        with(move |conn, child| if at == "conn" { conn.set(key, value) } else { child.set(key, value) })
            .unwrap()
            .connection
    };
    let can = devices(&[(OffloadMode::No, able())]);
    let cannot = devices(&[(OffloadMode::No, Capabilities { marks: false, interface_ids: false, ..able() })]);
    let cases = [
        ("child", "mark_in", "42/0xff", "packet marks"),
        ("child", "mark_out", "%unique", "packet marks"),
        ("child", "set_mark_in", "0x10/0xf0", "packet marks"),
        ("child", "set_mark_out", "%same", "packet marks"),
        ("child", "if_id_in", "%unique-dir", "interface ids"),
        ("child", "if_id_out", "7", "interface ids"),
        ("conn", "if_id_in", "7", "interface ids"),
        ("conn", "if_id_out", "%unique", "interface ids"),
    ];
    for (at, key, value, what) in cases {
        let connection = with_key(at, key, value);
        assert_eq!(offload::check(&connection, &can), Ok(Vec::new()), "{key}");
        let refusal = offload::check(&connection, &cannot).unwrap_err();
        let text = refusal.errmsg();
        assert!(text.starts_with(&format!("unsupported: {key}: device cygnet0 ")) && text.contains(what), "{text}");
        let path =
            if at == "conn" { format!("connections.c.{key}") } else { format!("connections.c.children.net.{key}") };
        assert_eq!(refusal.errors[0].path, path);
    }
    for (key, value) in [("mark_in", "0/0"), ("set_mark_in", "0"), ("if_id_in", "0"), ("mark_in_sa", "yes")] {
        assert_eq!(
            offload::check(&with_key("child", key, value), &cannot),
            Ok(Vec::new()),
            "{key} = {value} asks for nothing"
        );
    }
    let refused = first_error(|_, child| child.set("label", "system_u:object_r:ipsec_t:s0"));
    assert!(refused.0.contains("unsupported: label: security labels are not negotiated"), "{}", refused.0);
}

#[test]
fn tags_arrive() {
    use ike_model::{MarkConfig, TagValue};
    let connection = with(|conn, child| {
        conn.set("if_id_out", "9");
        conn.set("childless", "Force");
        child.set("mark_in", "0x1ff/0xff");
        child.set("mark_out", "%unique");
        child.set("mark_in_sa", "yes");
        child.set("set_mark_out", "%same/0xf");
        child.set("if_id_in", "%unique-dir");
    })
    .unwrap()
    .connection;
    let tags = connection.children[0].tags;
    assert_eq!(tags.mark_in, Some(MarkConfig { value: TagValue::Fixed(0xff), mask: 0xff }));
    assert_eq!(tags.mark_out, Some(MarkConfig { value: TagValue::Unique, mask: u32::MAX }));
    assert_eq!(tags.set_mark_out, Some(MarkConfig { value: TagValue::Same, mask: 0xf }));
    assert!(tags.mark_in_sa && tags.set_mark_in.is_none());
    assert_eq!((tags.interface.inbound, tags.interface.outbound), (TagValue::UniqueByDirection, TagValue::Fixed(0)));
    assert_eq!(connection.interface.outbound, TagValue::Fixed(9));
    assert_eq!(connection.childless, ike_model::Childless::Force);
}

#[test]
fn one_connection_per_message() {
    assert!(parse_message(&Message::new()).is_err());
    let mut two = Message::new();
    two.section("a", Message::new());
    two.section("b", Message::new());
    assert_eq!(parse_message(&two).unwrap_err().errmsg(), "load-conn takes one connection");
}

/// A NIC may be plugged in, and one that is down shows no offload: what is missing now is no mistake where devices come and go.
#[test]
fn an_offload_that_may_come_is_doubtful() {
    let devices = offload::Devices { may_appear: true, ..devices(&[(OffloadMode::No, nic())]) };
    let wanted = |mode: &'static str, window: &'static str| {
        let change = |_: &mut Message, child: &mut Message| {
            child.set("hw_offload", mode);
            child.set("replay_window", window);
        };
        offload::check(&with(change).unwrap().connection, &devices)
    };
    let notes = wanted("packet", "32").unwrap();
    assert_eq!(notes.len(), 1);
    assert!(!notes[0].is_error() && notes[0].reason.contains("unless a device comes that has it"), "{notes:?}");
    assert!(wanted("no", "128").is_err(), "what is there is known");
}

#[test]
fn shunts_behind_what_a_device_protects_are_told() {
    let nic = devices(&[(OffloadMode::Packet, able()), (OffloadMode::No, able())]);
    let software = devices(&[(OffloadMode::No, able())]);
    let site = |mode: &'static str| {
        with(move |_, child| {
            child.list("local_ts", ["10.1.0.0/16"]);
            child.list("remote_ts", ["0.0.0.0/0"]);
            child.set("hw_offload", mode);
        })
        .unwrap()
        .connection
    };
    let shunt = |mode: &'static str, remote: &'static str| {
        let mut connection = with(move |_, child| {
            child.set("mode", "pass");
            child.list("local_ts", ["0.0.0.0/0"]);
            child.list("remote_ts", [remote]);
            child.set("hw_offload", mode);
        })
        .unwrap()
        .connection;
        connection.name = "lan".into();
        connection
    };
    let told = |site: &ike_model::Connection, shunt: &ike_model::Connection, devices: &offload::Devices| {
        let found = offload::hidden_shunts(&[site, shunt], devices);
        found.into_iter().map(|(name, finding)| (name, finding.is_error(), finding.reason)).collect::<Vec<_>>()
    };
    for mode in ["packet", "auto"] {
        let found = told(&site(mode), &shunt("no", "10.9.0.0/24"), &nic);
        assert_eq!(found.len(), 1, "{mode}");
        assert_eq!((found[0].0.as_str(), found[0].1), ("lan", false));
        assert!(found[0].2.contains("protects c/net") && found[0].2.contains("10.9.0.0/24"), "{found:?}");
        assert_eq!(told(&site(mode), &shunt("packet", "10.9.0.0/24"), &nic), []);
    }
    assert_eq!(told(&site("no"), &shunt("no", "10.9.0.0/24"), &nic), []);
    assert_eq!(told(&site("auto"), &shunt("no", "10.9.0.0/24"), &software), [], "nothing is offloaded");
    assert_eq!(told(&site("packet"), &shunt("no", "2001:db8::/32"), &nic), [], "another family");
}
