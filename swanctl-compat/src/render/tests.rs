mod alerts;

use std::sync::Arc;

use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::{BackendSaOwner, BackendSaSnapshot, Carried, ConfiguredState, Traffic};
use ike_model::{
    Cause, CauseKind, ChildSaSnapshot, ChildSaState, ConfiguredChildStatus, DrawnTags, EventBody, Identity,
    IkeSaSnapshot,
};
use ipsec::{EspAlgorithm, Limits, ModeInUse, OffloadMode, Reqid, SaHandle, Shard, Spi, TrafficSelector};

use super::*;
use crate::request::SaFilter;
use crate::vici::{Element, Message};

fn child() -> ChildSaSnapshot {
    ChildSaSnapshot {
        reqid: Reqid(3),
        encap: true,
        spi_in: Spi::new(0xc1a2_b3c4),
        spi_out: Spi::new(0xd4c3_b2a1),
        algorithms: Some(EspAlgorithms {
            encryption: 20,
            key_bits: Some(256),
            integrity: None,
            key_exchange: Some(20),
            esn: true,
        }),
        traffic_in: Traffic { bytes: 9_000, packets: 75, idle_seconds: Some(3) },
        traffic_out: Traffic { bytes: 0, packets: 0, idle_seconds: None },
        total_in: Carried { bytes: 59_000, packets: 475 },
        total_out: Carried { bytes: 100, packets: 1 },
        limits: Limits::default().bounded(EspAlgorithm::AES_256_GCM, true),
        rekey_seconds: Some(3_100),
        life_seconds: Some(3_840),
        installed_seconds: Some(120),
        local_ts: vec![TrafficSelector::prefix("10.1.0.0".parse().unwrap(), 16).unwrap()],
        remote_ts: vec![TrafficSelector::prefix("10.2.0.0".parse().unwrap(), 16).unwrap()],
        generation: 2,
        offload: ModeInUse { mode: OffloadMode::Packet, device: Some("cygnet0".into()), simulated: true },
        ..ChildSaSnapshot::plain("net", 12)
    }
}

fn ike() -> IkeSaSnapshot {
    let end = |address: &str, id: &str| (address.parse().unwrap(), Identity::Fqdn(id.into()));
    let (local, remote) = (end("198.51.100.1:4500", "gw-a.example"), end("203.0.113.9:4500", "gw-b.example"));
    IkeSaSnapshot {
        initiator_spi: 0x0011_2233_4455_6677,
        responder_spi: 0x8899_aabb_ccdd_eeff,
        nat_remote: true,
        algorithms: Some(IkeAlgorithms {
            encryption: 12,
            key_bits: Some(256),
            integrity: Some(13),
            prf: 6,
            key_exchange: 31,
        }),
        established_seconds: Some(120),
        rekey_seconds: Some(-5),
        heard_seconds: 4,
        tasks_queued: vec!["CHILD_REKEY"],
        children: vec![child()],
        ..IkeSaSnapshot::plain("site-a", 7, local, remote)
    }
}

/// A message in one line: `key=value`, `list=[a b]`, `section{...}`.
fn shown(message: &Message) -> String {
    let one = |element: &Element| match element {
        Element::KeyValue(name, value) => format!("{name}={}", value.as_str().unwrap()),
        Element::List(name, items) => {
            let items: Vec<&str> = items.iter().map(|item| item.as_str().unwrap()).collect();
            format!("{name}=[{}]", items.join(" "))
        }
        Element::Section(name, content) => format!("{name}{{{}}}", shown(content)),
    };
    message.elements().iter().map(one).collect::<Vec<_>>().join(" ")
}

const IKE: &str = "uniqueid=7 version=2 state=ESTABLISHED local-host=198.51.100.1 local-port=4500 local-id=gw-a.example \
remote-host=203.0.113.9 remote-port=4500 remote-id=gw-b.example initiator=yes initiator-spi=0011223344556677 \
responder-spi=8899aabbccddeeff nat-remote=yes nat-any=yes encr-alg=AES_CBC encr-keysize=256 integ-alg=HMAC_SHA2_384_192 \
prf-alg=PRF_HMAC_SHA2_384 dh-group=CURVE_25519 established=120 rekey-time=-5 tasks-queued=[CHILD_REKEY]";

const CHILD: &str = "name=net uniqueid=12 reqid=3 state=INSTALLED mode=TUNNEL protocol=ESP encap=yes spi-in=c1a2b3c4 \
spi-out=d4c3b2a1 encr-alg=AES_GCM_16 encr-keysize=256 dh-group=ECP_384 esn=1 bytes-in=9000 packets-in=75 use-in=3 bytes-out=0 \
packets-out=0 rekey-time=3100 life-time=3840 install-time=120 local-ts=[10.1.0.0/16] remote-ts=[10.2.0.0/16] backend=userspace \
generation=2 bytes-total-in=59000 packets-total-in=475 bytes-total-out=100 packets-total-out=1 rekey-bytes=6597069766656 \
life-bytes=8796093022208 rekey-packets=103079215104 life-packets=137438953472 hw-offload=packet offload-dev=cygnet0 simulated=yes";

#[test]
fn fields_of_list_sa_in_order() {
    let message = list_sa(&ike(), &SaFilter::default()).unwrap();
    assert_eq!(shown(&message), format!("site-a{{{IKE} child-sas{{net-12{{{CHILD}}}}}}}"));
}

#[test]
fn a_child_without_sas_shows_no_details() {
    let created = ChildSaSnapshot { state: ChildSaState::Created, ..child() };
    let text = shown(&child_sa(&created));
    assert!(
        text.starts_with("name=net uniqueid=12 reqid=3 state=CREATED mode=TUNNEL local-ts=[10.1.0.0/16]"),
        "{text}"
    );
}

#[test]
fn filters() {
    let passes = |filter: SaFilter| list_sa(&ike(), &filter).is_some();
    let none = SaFilter::default;
    assert!(passes(SaFilter { ike: Some("site-a".into()), ..none() }));
    assert!(!passes(SaFilter { ike: Some("site-b".into()), ..none() }));
    assert!(passes(SaFilter { ike_id: Some(7), child: Some("net".into()), ..none() }));
    assert!(!passes(SaFilter { ike_id: Some(8), ..none() }));
    let children = |filter: SaFilter| {
        let message = list_sa(&ike(), &filter).unwrap();
        message.get_section("site-a").unwrap().get_section("child-sas").unwrap().sections().count()
    };
    assert_eq!(children(SaFilter { child: Some("other".into()), ..none() }), 0);
    assert_eq!(children(SaFilter { child_id: Some(12), ..none() }), 1);
    assert_eq!(children(SaFilter { child_id: Some(13), ..none() }), 0);
}

#[test]
fn events_have_vici_names() {
    let old_ike = IKE.replace("ESTABLISHED", "REKEYING").replace(" established=120 rekey-time=-5", "");
    let old_child = CHILD.replace("INSTALLED", "REKEYED");
    let sa = || Box::new(ike());
    let cause = || Cause::new(CauseKind::PeerDeleted, "the peer deleted it");
    let cases = [
        (EventBody::IkeSaEstablished { ike: sa() }, "ike-updown", format!("up=yes site-a{{{IKE}}}")),
        (EventBody::IkeSaClosed { ike: sa(), cause: cause() }, "ike-updown", format!("site-a{{{IKE}}}")),
        (
            EventBody::IkeSaRekeyed { old: sa(), new: sa() },
            "ike-rekey",
            format!("site-a{{old{{{old_ike}}} new{{{IKE}}}}}"),
        ),
        (
            EventBody::ChildSaInstalled { ike: sa(), child: Box::new(child()) },
            "child-updown",
            format!("up=yes site-a{{{IKE} child-sas{{net-12{{{CHILD}}}}}}}"),
        ),
        (
            EventBody::ChildSaClosed { ike: sa(), child: Box::new(child()), cause: cause() },
            "child-updown",
            format!("site-a{{{IKE} child-sas{{net-12{{{CHILD}}}}}}}"),
        ),
        (
            EventBody::ChildSaRekeyed { ike: sa(), old: Box::new(child()), new: Box::new(child()) },
            "child-rekey",
            format!("site-a{{{IKE} child-sas{{net{{old{{{old_child}}} new{{{CHILD}}}}}}}}}"),
        ),
        (
            EventBody::PeerUnreachable { ike: sa(), cause: cause() },
            "alert",
            format!("type=retransmit-send-timeout ike-sa{{site-a{{{IKE}}}}}"),
        ),
    ];
    for (body, name, expected) in cases {
        let told = events(&body);
        let [(found, message)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*found, shown(message)), (name, expected));
        assert!(crate::request::EVENTS.contains(found));
    }
    assert!(events(&EventBody::PeerReachable { ike: sa() }).is_empty());
    let removed = EventBody::ChildSaRemoved { ike: sa(), child: Box::new(child()), successor: None };
    assert!(events(&removed).is_empty());
}

#[test]
fn log_lines() {
    let line = LogLine { group: "IKE", level: 1, thread: 5, ike_sa: Some(("site-a", 7)), text: "up" };
    assert_eq!(shown(&log(&line)), "group=IKE level=1 thread=5 ikesa-name=site-a ikesa-uniqueid=7 msg=up");
    assert_eq!(shown(&control_log(&LogLine { ike_sa: None, ..line })), "group=IKE level=1 msg=up");
}

#[test]
fn connections_as_listed() {
    let mut conn = Message::new().with("dpd_delay", "30");
    conn.list("remote_addrs", ["203.0.113.9", "10.0.0.0/8", "10.0.0.1-10.0.0.3", "gw.example"]);
    conn.section("local", Message::new().with("auth", "psk").with("id", "gw-a"));
    let mut net = Message::new().with("start_action", "trap").with("priority", "9").with("dpd_action", "restart");
    net.list("remote_ts", ["10.2.0.0/16[udp/53]"]);
    let mut children = Message::new();
    children.section("net", net);
    conn.section("children", children);
    let connection = crate::load_conn::parse("c", &conn).unwrap().connection;
    assert_eq!(
        shown(&list_conn(&connection)),
        "c{local_addrs=[%any] remote_addrs=[203.0.113.9 10.0.0.0/8 10.0.0.1-10.0.0.3 gw.example] local_port=500 remote_port=500 \
         version=IKEv2 reauth_time=0 rekey_time=14400 unique=UNIQUE_NO dpd_delay=30 \
         local-1{id=gw-a class=pre-shared key groups=[] cert_policy=[] certs=[] cacerts=[]} \
         remote-1{groups=[] cert_policy=[] certs=[] cacerts=[]} \
         children{net{mode=TUNNEL rekey_time=3600 rekey_bytes=0 rekey_packets=0 dpd_action=start close_action=none \
         local-ts=[dynamic] remote-ts=[10.2.0.0/16[udp/domain]] priority=9 \
         esp_proposals=[aes128gcm16-aes256gcm16-ecp256-ecp384-x25519-modp3072-modp2048-none-noesn \
         aes128-aes192-aes256-sha256-sha384-sha512-ecp256-ecp384-x25519-modp3072-modp2048-none-noesn] life_time=3960 rand_time=360 \
         life_bytes=0 rand_bytes=0 life_packets=0 rand_packets=0 start_action=trap hw_offload=no policies=yes inactivity=0 \
         copy_df=yes copy_ecn=yes copy_dscp=out}} \
         proposals=[aes128-aes192-aes256-sha256-sha384-sha512-prfsha256-prfsha384-prfsha512-ecp256-ecp384-x25519-modp3072-modp2048 \
         aes128gcm16-aes256gcm16-chacha20poly1305-prfsha256-prfsha384-prfsha512-ecp256-ecp384-x25519-modp3072-modp2048] \
         mobike=yes encap=no fragmentation=yes childless=allow dscp=000000 keyingtries=1 over_time=1440 rand_time=1440}"
    );
    let listing =
        PolicyListing { connection: "c", child: &connection.children[0], kind: PolicyKind::Trap, reqid: Some(3) };
    assert_eq!(
        shown(&list_policy(&listing)),
        "c/net{child=net reqid=3 ike=c mode=TUNNEL local-ts=[dynamic] remote-ts=[10.2.0.0/16[udp/domain]]}"
    );
}

#[test]
fn status_of_configured_children() {
    let status = ConfiguredChildStatus {
        connection: "c".into(),
        child: "net".into(),
        state: ConfiguredState::RetryIn(17),
        offload: None,
        failures: 4,
        last_cause: Some((1_700_000_000, Cause::new(CauseKind::NoSecret, "no secret for a and b"))),
    };
    assert_eq!(
        shown(&cygnet_child(&status, 1_700_000_030)),
        "c/net{connection=c child=net state=retry retry-in=17 retry-at=1700000047 failures=4 \
         last-cause{kind=no-secret text=no secret for a and b time=1700000000}}"
    );
    let up = ConfiguredChildStatus {
        state: ConfiguredState::Up,
        offload: Some(ModeInUse { mode: OffloadMode::No, device: None::<Arc<str>>, simulated: false }),
        failures: 0,
        last_cause: None,
        ..status
    };
    assert_eq!(shown(&cygnet_child(&up, 0)), "c/net{connection=c child=net state=up hw-offload=no}");
}

/// Marks and interface ids stand where charon puts them, in eight digits, and only where there are any.
#[test]
fn marks_and_interface_ids_of_sas() {
    use ipsec::Mark;
    let tags = DrawnTags {
        mark_in: Some(Mark::new(0x2a, 0xff)),
        mark_out: None,
        if_id_in: 5,
        if_id_out: 0x1_0000,
        ..DrawnTags::default()
    };
    let all = shown(&sas::child_sa(&ChildSaSnapshot { tags, ..child() }));
    assert!(
        all.contains(
            "spi-out=d4c3b2a1 mark-in=0000002a mark-mask-in=000000ff if-id-in=00000005 if-id-out=00010000 encr-alg="
        ),
        "{all}"
    );
    let ike = shown(&sas::ike_sa(&IkeSaSnapshot { if_id_in: 1, if_id_out: 2, ..ike() }));
    assert!(ike.contains("nat-any=yes if-id-in=00000001 if-id-out=00000002 encr-alg="), "{ike}");
}

#[test]
fn sas_of_the_backend_name_their_owner() {
    let owner = BackendSaOwner {
        connection: "c".into(),
        child: "net".into(),
        unique_id: 12,
        state: ChildSaState::Installed,
        inbound: true,
    };
    let owned = BackendSaSnapshot {
        sa: SaHandle::new(Shard(1), 0x18),
        spi: Spi::new(0xc1a2_b3c4).unwrap(),
        traffic: Traffic { bytes: 9_000, packets: 75, idle_seconds: Some(3) },
        sequence: 80,
        owner: Some(owner),
    };
    assert_eq!(
        shown(&cygnet_backend_sa(&owned)),
        "c1a2b3c4-100000000000018{spi=c1a2b3c4 handle=100000000000018 bytes=9000 packets=75 use=3 sequence=80 connection=c \
         child=net uniqueid=12 state=INSTALLED direction=in}"
    );
    let orphan = BackendSaSnapshot { owner: None, traffic: Traffic::default(), ..owned };
    assert!(shown(&cygnet_backend_sa(&orphan)).ends_with("packets=0 sequence=80 orphan=yes}"));
}

#[test]
fn webhooks_and_deliveries() {
    use ike_model::history::{DeliveryState, Disabled, PastDelivery};
    use ike_model::{WebhookFigures, WebhookHealth, WebhookSnapshot, WebhookTried};
    let figures = WebhookFigures {
        health: WebhookHealth::Down,
        attempts: 3,
        failures: [("tcp", 2)].into(),
        last_latency: Some(std::time::Duration::from_millis(5)),
        ..WebhookFigures::default()
    };
    let webhook = WebhookSnapshot {
        name: "ops".into(),
        url: Some("http://a/".into()),
        events: vec!["*".into()],
        waiting: Some(4),
        dead: Some(0),
        disabled: Some(Disabled { since_ms: 9, reason: "410".into() }),
        figures,
        ..WebhookSnapshot::default()
    };
    assert_eq!(
        shown(&cygnet_webhook(&webhook)),
        "ops{name=ops state=down url=http://a/ events=[*] connections=[] waiting=4 dead=0 disabled-since=9 reason=410 attempts=3 \
         delivered=0 given-up=0 in-flight=0 failures{tcp=2} last-latency=5000}"
    );
    let tried = |status, failure| {
        shown(&cygnet_webhook_tried(&WebhookTried {
            id: "01J".into(),
            status,
            failure,
            took: std::time::Duration::from_micros(7),
        }))
    };
    assert_eq!(tried(Some(200), None), "success=yes id=01J status=200 time=7");
    assert_eq!(tried(None, Some(("tcp", "no".into()))), "success=no id=01J time=7 failed=tcp errmsg=no");
    let mut delivery = PastDelivery {
        ulid: "01J".into(),
        endpoint: "ops".into(),
        event: "child-sa.closed".into(),
        connection: Some("site".into()),
        time_ms: 1,
        state: DeliveryState::Waiting,
        attempts: 2,
        due_ms: 3,
        last_error: Some("503".into()),
        delivered_ms: None,
    };
    let head = "01J{event=01J name=ops type=child-sa.closed connection=site time=1";
    assert_eq!(
        shown(&cygnet_delivery(&delivery)),
        format!("{head} state=waiting attempts=2 due=3 last-error=503 cursor=01J/ops}}")
    );
    (delivery.state, delivery.delivered_ms, delivery.last_error) = (DeliveryState::Delivered, Some(8), None);
    assert_eq!(
        shown(&cygnet_delivery(&delivery)),
        format!("{head} state=delivered attempts=2 delivered=8 cursor=01J/ops}}")
    );
    assert!(["cygnet-webhook", "cygnet-delivery"].iter().all(|event| crate::request::EVENTS.contains(event)));
}
