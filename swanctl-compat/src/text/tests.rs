use super::*;
use crate::vici::Message;

#[test]
fn raw_and_pretty() {
    let mut inner = Message::new().with("k", "v");
    inner.list("l", ["a", "b"]);
    inner.list("e", std::iter::empty::<&str>());
    inner.set("bin", vec![0u8, 255]);
    let mut message = Message::new().with("x", "1");
    message.section("s", inner);
    message.section("", Message::new());
    assert_eq!(labelled("list-sa event", &message), "list-sa event {x=1 s {k=v l=[a b] e=[] bin=0x00ff}  {}}\n");
    assert_eq!(labelled("list-sas reply", &Message::new()), "list-sas reply {}\n");
    assert_eq!(
        pretty("r", &message),
        "r {\n  x = 1\n  s {\n    k = v\n    l = [\n      a\n      b\n    ]\n    e = [\n    ]\n    bin = 0x00ff\n  }\n   {\n  }\n}\n"
    );
}

#[test]
fn json_knows_numbers_and_flags() {
    let mut sa = Message::new()
        .with("uniqueid", "7")
        .with("initiator", "yes")
        .with("spi-in", "00000012")
        .with("rekey-time", "-5");
    sa.set("hw-offload", "no");
    sa.list("local-ts", ["10.1.0.0/16"]);
    let mut event = Message::new();
    event.section("site-a", sa);
    assert_eq!(
        named_json(&event, "connection").unwrap().to_string(),
        r#"{"connection":"site-a","hw-offload":"no","initiator":true,"local-ts":["10.1.0.0/16"],"rekey-time":-5,"spi-in":"00000012","uniqueid":7}"#
    );
}

#[test]
fn log_lines_repeat_their_prefix() {
    let message = Message::new().with("group", "IKE").with("thread", "5").with("msg", "one\ntwo");
    assert_eq!(log(&message), "05[IKE] one\n05[IKE] two\n");
    let message = Message::new().with("group", "ENC").with("msg", "one");
    assert_eq!(log(&message), "[ENC] one\n");
}

fn sa_event(initiator: bool) -> Message {
    let mut child = Message::new()
        .with("name", "net")
        .with("uniqueid", "12")
        .with("reqid", "3")
        .with("state", "INSTALLED")
        .with("mode", "TUNNEL")
        .with("protocol", "ESP")
        .with("encap", "yes")
        .with("spi-in", "c1a2b3c4")
        .with("spi-out", "d4c3b2a1")
        .with("if-id-in", "00000007")
        .with("if-id-out", "00000007")
        .with("mark-in", "0000002a")
        .with("encr-alg", "AES_GCM_16")
        .with("encr-keysize", "256")
        .with("dh-group", "ECP_384")
        .with("esn", "1")
        .with("bytes-in", "9000")
        .with("packets-in", "75")
        .with("use-in", "3")
        .with("bytes-out", "8000")
        .with("packets-out", "70")
        .with("rekey-time", "3100")
        .with("life-time", "3840")
        .with("install-time", "120");
    child.list("local-ts", ["10.1.0.0/16"]);
    child.list("remote-ts", ["10.2.0.0/16", "10.3.0.0/16"]);
    let mut children = Message::new();
    children.section("net-12", child);
    let mut ike = Message::new().with("uniqueid", "7").with("version", "2").with("state", "ESTABLISHED");
    for (key, value) in [
        ("local-host", "198.51.100.1"),
        ("local-port", "4500"),
        ("local-id", "gw-a.example"),
        ("remote-host", "203.0.113.9"),
        ("remote-port", "4500"),
        ("remote-id", "gw-b.example"),
        ("remote-eap-id", "bob"),
    ] {
        ike.set(key, value);
    }
    ike.set_if("initiator", initiator);
    for (key, value) in [
        ("initiator-spi", "0011223344556677"),
        ("responder-spi", "8899aabbccddeeff"),
        ("encr-alg", "AES_GCM_16"),
        ("encr-keysize", "256"),
        ("prf-alg", "PRF_HMAC_SHA2_384"),
        ("dh-group", "ECP_384"),
        ("established", "120"),
        ("rekey-time", "13011"),
        ("reauth-time", "80000"),
    ] {
        ike.set(key, value);
    }
    ike.list("local-vips", ["10.9.0.1"]);
    ike.list("tasks-queued", ["CHILD_REKEY"]);
    ike.list("tasks-active", ["IKE_DPD"]);
    ike.section("child-sas", children);
    let mut event = Message::new();
    event.section("site-a", ike);
    event
}

/// As strongSwan's swanctl 5.9.8 prints the same event.
#[test]
fn sas() {
    assert_eq!(
        list_sa(&sa_event(true)),
        "site-a: #7, ESTABLISHED, IKEv2, 0011223344556677_i* 8899aabbccddeeff_r\n\
         \x20 local  'gw-a.example' @ 198.51.100.1[4500] [10.9.0.1]\n\
         \x20 remote 'gw-b.example' @ 203.0.113.9[4500] EAP: 'bob'\n\
         \x20 AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384\n\
         \x20 established 120s ago, rekeying in 13011s, reauth in 80000s\n\
         \x20 queued:  CHILD_REKEY\n\
         \x20 active:  IKE_DPD\n\
         \x20 net: #12, reqid 3, INSTALLED, TUNNEL-in-UDP, ESP:AES_GCM_16-256/ECP_384/ESN\n\
         \x20   installed 120s ago, rekeying in 3100s, expires in 3840s\n\
         \x20   in  c1a2b3c4 (0x0000002a|0x00000007),   9000 bytes,    75 packets,     3s ago\n\
         \x20   out d4c3b2a1 (-|0x00000007),   8000 bytes,    70 packets\n\
         \x20   local  10.1.0.0/16\n\
         \x20   remote 10.2.0.0/16 10.3.0.0/16\n"
    );
    assert!(
        list_sa(&sa_event(false))
            .starts_with("site-a: #7, ESTABLISHED, IKEv2, 0011223344556677_i 8899aabbccddeeff_r*\n")
    );
}

/// As strongSwan's swanctl 5.9.8 prints the same event; it has no ports.
#[test]
fn connections() {
    let mut child = Message::new().with("mode", "TUNNEL").with("rekey_time", "3600").with("rekey_bytes", "5");
    child.set("rekey_packets", "0");
    child.set("dpd_action", "none");
    child.list("local-ts", ["10.1.0.0/16"]);
    child.list("remote-ts", ["10.2.0.0/16", "dynamic"]);
    let mut shunt = Message::new().with("mode", "PASS").with("rekey_time", "3600").with("priority", "9");
    shunt.list("local-ts", ["10.1.0.0/16"]);
    shunt.list("remote-ts", ["10.2.0.0/16"]);
    let mut children = Message::new();
    children.section("net", child);
    children.section("sh", shunt);
    let event = |dpd_delay: Option<&str>, port: Option<&str>| {
        let mut conn = Message::new().with("version", "IKEv2").with("reauth_time", "0").with("rekey_time", "14400");
        conn.list("local_addrs", ["198.51.100.1", "%any"]);
        conn.list("remote_addrs", ["gw"]);
        dpd_delay.into_iter().for_each(|delay| conn.set("dpd_delay", delay));
        port.into_iter().for_each(|port| conn.set("remote_port", port));
        let mut round = Message::new().with("id", "a").with("class", "pre-shared key");
        round.list("groups", std::iter::empty::<&str>());
        conn.section("local-1", round);
        conn.section("remote-1", Message::new());
        conn.section("children", children.clone());
        let mut event = Message::new();
        event.section("c", conn);
        event
    };
    let expected = |dpd: &str, action: &str, port: &str| {
        format!(
            "c: IKEv2, no reauthentication, rekeying every 14400s{dpd}\n\
             \x20 local:  198.51.100.1\n\
             \x20 local:  %any\n\
             \x20 remote: gw{port}\n\
             \x20 local pre-shared key authentication:\n\
             \x20   id: a\n\
             \x20 remote unspecified authentication:\n\
             \x20 net: TUNNEL, rekeying every 3600s or 5 bytes{action}\n\
             \x20   local:  10.1.0.0/16\n\
             \x20   remote: 10.2.0.0/16 dynamic\n\
             \x20 sh: PASS, no rekeying\n\
             \x20   local:  10.1.0.0/16\n\
             \x20   remote: 10.2.0.0/16\n\
             \x20   priority: 9\n"
        )
    };
    assert_eq!(list_conn(&event(None, None)), expected("", "", ""));
    assert_eq!(
        list_conn(&event(Some("30"), Some("4500"))),
        expected(", dpd delay 30s", ", dpd action is none", "[4500]")
    );
}

#[test]
fn policies() {
    let mut policy = Message::new().with("child", "net").with("ike", "site-a").with("mode", "PASS");
    policy.list("local-ts", ["10.1.0.0/16"]);
    policy.list("remote-ts", ["10.2.0.0/16", "10.3.0.0/16"]);
    let mut event = Message::new();
    event.section("site-a/net", policy.clone());
    assert_eq!(list_policy(&event), "site-a/net, PASS\n  local:  10.1.0.0/16\n  remote: 10.2.0.0/16 10.3.0.0/16\n");
    let mut event = Message::new();
    event.section("site-a/net", policy.with("reqid", "3"));
    assert!(list_policy(&event).starts_with("site-a/net, reqid 3, PASS\n"));
}

#[test]
fn status_lines() {
    let event = |child: Message| {
        let mut event = Message::new();
        event.section("c/net", child);
        event
    };
    let up = Message::new()
        .with("state", "up")
        .with("hw-offload", "packet")
        .with("offload-dev", "cygnet0")
        .with("simulated", "yes");
    assert_eq!(
        cygnet_child(&event(up), 0, 8, &|ms| format!("<{ms}>")),
        "c/net     up          offload packet on cygnet0 (simulated)\n"
    );
    let mut retry = Message::new().with("state", "retry").with("retry-in", "17");
    retry.section("last-cause", Message::new().with("kind", "no-secret").with("text", "no key").with("time", "1000"));
    assert_eq!(
        cygnet_child(&event(retry), 1130, 5, &|ms| format!("<{ms}>")),
        "c/net  retry in 17s  last: no key (2 minutes ago)\n"
    );
    let mut dated = Message::new()
        .with("state", "retry")
        .with("retry-in", "17")
        .with("retry-at", "1700000047")
        .with("failures", "4");
    dated.section(
        "last-cause",
        Message::new().with("kind", "no-secret").with("text", "no key").with("time", "1699999900"),
    );
    let line = "c/net  retry in 17s at <1700000047000>, 4 failures  last: no key (2 minutes ago)\n";
    assert_eq!(cygnet_child(&event(dated), 1_700_000_030, 5, &|ms| format!("<{ms}>")), line);
    let refused = Message::new().with("state", "refused").with("reason", "no NIC");
    assert_eq!(cygnet_child(&event(refused), 0, 5, &|ms| format!("<{ms}>")), "c/net  refused: no NIC\n");
}

fn generation() -> ike_model::history::Generation {
    use ike_model::history::{Generation, Limits};
    use ike_model::proposal::EspAlgorithms;
    use ike_model::snapshot::Carried;
    let carried = |bytes| Carried { bytes, packets: bytes / 100 };
    Generation {
        gateway: "gw".into(),
        boot_id: "b1".into(),
        connection: "site".into(),
        child: "net".into(),
        unique_id: 4,
        ike_unique_id: 1,
        lineage: 1,
        generation: 3,
        mode: "tunnel".into(),
        encap: false,
        reqid: 7,
        spi_in: Some(0xC000_0004),
        spi_out: Some(0x1000),
        algorithms: Some(EspAlgorithms {
            encryption: 20,
            key_bits: Some(128),
            integrity: None,
            key_exchange: Some(31),
            esn: true,
        }),
        backend: "kernel".into(),
        offload: "packet".into(),
        device: Some("eth0".into()),
        simulated: false,
        local_ts: "10.1.0.0/16".into(),
        remote_ts: "10.2.0.0/16".into(),
        limits: Limits::default(),
        carried_in: carried(1000),
        carried_out: carried(0),
        total_in: carried(4000),
        total_out: carried(0),
        installed_ms: 1_700_000_000_000,
        removed_ms: Some(1_700_003_552_000),
        cause: Some("rekeyed".into()),
        cause_text: Some("replaced by {5}".into()),
    }
}

fn shown(table: &Table) -> String {
    let (heading, rows) = table.lines();
    let rows = rows.iter().map(|(tone, line)| format!("{tone:?} {line}\n"));
    format!("{heading}\n{}", rows.collect::<String>())
}

#[test]
fn generations_and_totals_of_the_past() {
    use ike_model::history::Generation;
    let when = |ms: u64| format!("<{}>", ms / 1000);
    let event = crate::render::cygnet_generation(&generation());
    let json = cygnet_json(&event).unwrap();
    assert_eq!((&json["spi-in"], &json["removed"]), (&"c0000004".into(), &1_700_003_552_000_u64.into()));
    assert_eq!((&json["bytes-total-in"], &json["generation"]), (&4000.into(), &3.into()));
    let up = Generation { removed_ms: None, cause: None, cause_text: None, unique_id: 15, ..generation() };
    let died = Generation { cause: Some("daemon-died".into()), gateway: "gw2".into(), ..generation() };
    let rows = [&up, &generation()].map(crate::render::cygnet_generation);
    assert_eq!(
        shown(&cygnet_generations(&rows, &when)),
        "INSTALLED     LASTED  CHILD SA         SPIS IN, OUT       ALGORITHMS                      MODE                                   \
         IN                  OUT             END\n\
         Good <1700000000>  up      site/net{15} #3  c0000004 00001000  AES_GCM_16-128/CURVE_25519/ESN  kernel tunnel, packet offload on \
         eth0  1000 B, 10 packets  0 B, 0 packets\n\
         Plain <1700000000>  59m12s  site/net{4} #3   c0000004 00001000  AES_GCM_16-128/CURVE_25519/ESN  kernel tunnel, packet offload on \
         eth0  1000 B, 10 packets  0 B, 0 packets  rekeyed: replaced by {5}\n"
    );
    let fleet = [&up, &died].map(crate::render::cygnet_generation);
    let fleet = shown(&cygnet_generations(&fleet, &when));
    assert!(fleet.starts_with("GATEWAY  INSTALLED") && fleet.contains("Bad gw2      <17"), "{fleet}");
    let total = ike_model::history::ChildTotal {
        gateway: "gw".into(),
        connection: "site".into(),
        child: "net".into(),
        generations: 12,
        carried_in: ike_model::snapshot::Carried { bytes: 5 << 20, packets: 1 },
        carried_out: up.carried_out,
        first_ms: 0,
        up: true,
    };
    assert_eq!(
        shown(&cygnet_totals(&[crate::render::cygnet_total(&total)], &when)),
        "CHILD     STATE  GENERATIONS  SINCE  IN                 OUT\n\
         Good site/net  up     12           <0>    5.0 MiB, 1 packet  0 B, 0 packets\n"
    );
}

#[test]
fn long_records_come_in_pieces() {
    use crate::vici::{Packet, frame};
    let record = |children: usize| {
        let child = format!("{{\"name\":\"{}\"}}", "\u{e4}".repeat(500));
        let children = vec![child; children].join(",");
        format!("{{\"type\":\"ike-sa.closed\",\"ike\":{{\"connection\":\"c\",\"children\":[{children}]}}}}")
    };
    for children in [0, 58, 59, 60, 61, 200, 400] {
        let record = record(children);
        let event = crate::render::cygnet_event("01A", &record);
        assert_eq!(cygnet_record(&event).as_deref(), Some(&*record), "{children} children");
        let octets = frame::encode(&Packet::Event("cygnet-event".into(), event)).unwrap();
        assert!(octets.len() < frame::MAX_PACKET, "{} octets", octets.len());
    }
    let short = cygnet_record(&crate::render::cygnet_event("01A", &record(5_000))).unwrap();
    let short: serde_json::Value = serde_json::from_str(&short).unwrap();
    assert_eq!(short, serde_json::json!({"type": "ike-sa.closed", "ike": {"connection": "c"}}));
}

#[test]
fn event_lines() {
    let line = |json: &str| cygnet_event_line(&serde_json::from_str(json).unwrap(), &|ms| format!("<{ms}>")).1;
    assert_eq!(
        line(
            r#"{"time":"T","type":"child-sa.rekeyed","ike":{"connection":"site"},"old":{"name":"net","unique_id":1,"spi_in":256,"spi_out":null},
               "new":{"name":"net","unique_id":2,"spi_in":257,"spi_out":4096}}"#
        ),
        "T  child-sa.rekeyed       site/net {1} 00000100_i -_o -> {2} 00000101_i 00001000_o"
    );
    assert_eq!(
        line(r#"{"time":"1970-01-01T00:00:01.000Z","type":"policy.acquire","connection":"a","child":"b"}"#),
        "<1000>  policy.acquire         a/b"
    );
    assert_eq!(line(r#"{"time":"T","type":"offload.device-up","name":"eth0"}"#), "T  offload.device-up      eth0");
    assert_eq!(
        line(
            r#"{"time":"T","type":"ike-sa.closed","ike":{"connection":"a"},"cause":{"kind":"x","text":"by\u001bpeer"}}"#
        ),
        "T  ike-sa.closed          a  x: by\\u{1b}peer"
    );
}
