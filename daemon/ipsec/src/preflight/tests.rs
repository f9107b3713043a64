use super::*;
use crate::algorithm::EspIntegrity;
use crate::capability::SelectorSupport;
use crate::handle::DeviceId;
use crate::sa::ModeInUse;
use crate::selector::{AddressRange, PortRange, TrafficSelector};

/// What a NIC with packet offload carries: AES-GCM, TCP and UDP, no ranges, no UDP encapsulation, few entries.
fn packet() -> Capabilities {
    Capabilities {
        algorithms: vec![EspAlgorithm::AES_128_GCM, EspAlgorithm::AES_256_GCM],
        tunnel: true,
        transport: false,
        esn: false,
        replay_windows: ReplayWindows::Only(vec![32, 64, 128, 256]),
        selectors: SelectorSupport { ranges: false, ports: false, protocols: Some(vec![6, 17]) },
        udp_encapsulation: false,
        limits: LimitUnits { time: false, bytes: false, packets: true },
        sa_table: Some(8),
        policy_table: Some(9),
        all_policy_kinds: false,
        in_place_move: false,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    }
}

fn software() -> Capabilities {
    let cbc = EspAlgorithm { encryption: EspEncryption::AesCbc(256), integrity: Some(EspIntegrity::HmacSha2_256_128) };
    let gcm192 = EspAlgorithm { encryption: EspEncryption::AesGcm16(192), integrity: None };
    Capabilities {
        algorithms: [packet().algorithms, vec![EspAlgorithm::CHACHA20_POLY1305, cbc, gcm192]].concat(),
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(32, 4096),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits { time: true, bytes: true, packets: true },
        sa_table: None,
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: true,
        marks: true,
        interface_ids: true,
        ..packet()
    }
}

fn rung(mode: OffloadMode, capabilities: Capabilities) -> Rung {
    let device = (mode != OffloadMode::No).then(|| "eth0".into());
    Rung { mode: ModeInUse { mode, device, simulated: false }, capabilities }
}

fn device() -> Device {
    let rungs = vec![rung(OffloadMode::Packet, packet()), rung(OffloadMode::No, software())];
    Device { id: DeviceId(1), name: "eth0".into(), state: DeviceState::Up, rungs }
}

fn side(text: &str, length: u8) -> TrafficSelector {
    TrafficSelector::prefix(text.parse().unwrap(), length).unwrap()
}

/// What every rung of [`device`] carries.
fn asks() -> Asks {
    Asks {
        kind: PolicyKind::Protect,
        mode: SaMode::Tunnel,
        suites: vec![Suite { algorithm: EspAlgorithm::AES_256_GCM, esn: false }],
        replay_window: 32,
        encapsulation: Encapsulation::Native,
        selectors: vec![SelectorPair { local: side("10.1.0.0", 16), remote: side("10.2.0.0", 16) }],
        limits: LimitUnits { time: false, bytes: false, packets: true },
        marks: false,
        interface_ids: false,
        entries: Entries { sas: 4, policies: 2 },
    }
}

fn asks_for(change: impl FnOnce(&mut Asks)) -> Asks {
    let mut asks = asks();
    change(&mut asks);
    asks
}

fn only(algorithm: EspAlgorithm, esn: bool) -> Asks {
    asks_for(|asks| asks.suites = vec![Suite { algorithm, esn }])
}

fn selecting(change: impl FnOnce(&mut TrafficSelector)) -> Asks {
    asks_for(|asks| change(&mut asks.selectors[0].remote))
}

const NOTHING_HELD: fn(OffloadMode) -> Entries = |_| Entries::default();

/// Every refusal alone, with its sentence and its key. The last rung carries all of it.
#[test]
fn each_refusal_names_device_wish_offer_and_key() {
    let aes = |bits, integrity| EspAlgorithm { encryption: EspEncryption::AesCbc(bits), integrity: Some(integrity) };
    let range = AddressRange::new("10.2.0.1".parse().unwrap(), "10.2.0.9".parse().unwrap()).unwrap();
    let gcm192 = EspAlgorithm { encryption: EspEncryption::AesGcm16(192), integrity: None };
    let cases: Vec<(Asks, &str, Option<&str>)> = vec![
        (
            only(EspAlgorithm::CHACHA20_POLY1305, false),
            "carries aes128gcm16 or aes256gcm16, not chacha20poly1305: change `esp_proposals`",
            Some("esp_proposals"),
        ),
        (
            only(gcm192, false),
            "carries this cipher with keys of 128 or 256 bits, not 192: change `esp_proposals`",
            Some("esp_proposals"),
        ),
        (
            only(EspAlgorithm::AES_256_GCM, true),
            "carries no extended sequence numbers, only 32-bit ones: add `noesn` to `esp_proposals`",
            Some("esp_proposals"),
        ),
        (asks_for(|asks| asks.mode = SaMode::Transport), "carries tunnel mode only: set `mode = tunnel`", Some("mode")),
        (
            asks_for(|asks| asks.replay_window = 1024),
            "has replay windows of 32, 64, 128 or 256 packets, not 1024: change `replay_window`",
            Some("replay_window"),
        ),
        (
            asks_for(|asks| asks.replay_window = 0),
            "has replay windows of 32, 64, 128 or 256 packets, not 0: change `replay_window`",
            Some("replay_window"),
        ),
        (
            asks_for(|asks| asks.encapsulation = Encapsulation::Nat),
            "carries no ESP in UDP, only native ESP, and there is NAT on the way to the peer: set `hw_offload = auto`",
            None,
        ),
        (
            asks_for(|asks| asks.encapsulation = Encapsulation::Forced),
            "carries no ESP in UDP, only native ESP: unset `encap`",
            Some("encap"),
        ),
        (
            selecting(|side| side.addresses = range),
            "carries prefixes only, not 10.1.0.0/16 === 10.2.0.1..10.2.0.9: change `local_ts` or `remote_ts`",
            Some("remote_ts"),
        ),
        (
            selecting(|side| (side.protocol, side.ports) = (6, PortRange::single(80))),
            "looks at no ports, only at addresses and protocols, and cannot carry 10.1.0.0/16 === 10.2.0.0/16[6/80]: \
             change `local_ts` or `remote_ts`",
            Some("remote_ts"),
        ),
        (
            selecting(|side| side.protocol = 132),
            "carries all protocols together or protocol 6 or 17 alone, not 10.1.0.0/16 === 10.2.0.0/16[132]: \
             change `local_ts` or `remote_ts`",
            Some("remote_ts"),
        ),
        (
            asks_for(|asks| asks.marks = true),
            "cannot match or set packet marks: unset `mark_in`, `mark_out` and `set_mark_*`",
            Some("mark_out"),
        ),
        (
            asks_for(|asks| asks.interface_ids = true),
            "knows no interface ids: unset `if_id_in` and `if_id_out`",
            Some("if_id_out"),
        ),
        (
            asks_for(|asks| asks.entries.sas = 10),
            "is full: of 8 SAs 0 are in use or kept for rekeying and 10 more are needed: set `hw_offload = auto` or use fewer children",
            None,
        ),
        (
            asks_for(|asks| asks.entries.policies = 10),
            "is full: of 9 policies 0 are in use and 10 more are needed: set `hw_offload = auto` or use fewer selectors",
            Some("remote_ts"),
        ),
        (
            asks_for(|asks| asks.kind = PolicyKind::Trap),
            "has no trap policies: take `trap` out of `start_action`",
            Some("start_action"),
        ),
        (
            asks_for(|asks| asks.kind = PolicyKind::Shunt),
            "has protecting policies only, no shunts: set `hw_offload = no`",
            Some("mode"),
        ),
    ];
    for (asks, text, key) in cases {
        let device = device();
        let plan = ladder_plan(&device, OffloadMode::Packet, &asks, NOTHING_HELD);
        assert_eq!(plan.reasons(), format!("device eth0 with packet offload {text}"));
        let [Rejected { refusals, .. }] = plan.rejected.as_slice() else { panic!("{:?}", plan.rejected) };
        let [refusal] = refusals.as_slice() else { panic!("{refusals:?}") };
        assert_eq!(refusal.key(), key, "{refusal:?}");
        assert!(plan.rungs.is_empty());
        let lower = ladder_plan(&device, OffloadMode::Auto, &asks, NOTHING_HELD);
        assert_eq!(modes(&lower), [OffloadMode::No], "{text}");
        assert_eq!(lower.rejected, plan.rejected);
    }
    let icv = {
        let mut crypto = packet();
        crypto.algorithms = vec![aes(128, EspIntegrity::HmacSha2_256_128)];
        check(&crypto, &only(aes(128, EspIntegrity::HmacSha2_512_256), false), Entries::default())
    };
    let sentence = icv.refusals[0].sentence("eth0", OffloadMode::Crypto);
    assert_eq!(
        sentence,
        "device eth0 with crypto offload carries this cipher with an ICV of 128 bits, not 256: change `esp_proposals`"
    );
}

fn modes(plan: &Plan<'_>) -> Vec<OffloadMode> {
    plan.rungs.iter().map(|rung| rung.mode.mode).collect()
}

#[test]
fn all_refusals_are_given_at_once() {
    let asks = asks_for(|asks| {
        (asks.mode, asks.replay_window, asks.marks) = (SaMode::Transport, 7, true);
        asks.encapsulation = Encapsulation::Nat;
    });
    let found = check(&packet(), &asks, Entries::default());
    assert_eq!(found.refusals.len(), 4, "{:?}", found.refusals);
    assert_eq!(check(&software(), &asks, Entries::default()).refusals.len(), 1, "7 is no window anywhere");
}

/// One of the transforms is enough, and what is not known is not held against anybody.
#[test]
fn what_may_still_go_well_is_let_through() {
    let suites = vec![
        Suite { algorithm: EspAlgorithm::CHACHA20_POLY1305, esn: false },
        Suite { algorithm: EspAlgorithm::AES_256_GCM, esn: true },
        Suite { algorithm: EspAlgorithm::AES_256_GCM, esn: false },
    ];
    let unknown = asks_for(|asks| {
        asks.suites = suites;
        asks.encapsulation = Encapsulation::Unknown;
        asks.selectors.clear();
    });
    assert_eq!(check(&packet(), &unknown, Entries::default()), Findings::default());
    // Policies that hold no SA do not ask for transforms.
    let trap = asks_for(|asks| (asks.kind, asks.suites) = (PolicyKind::Trap, Vec::new()));
    assert!(check(&software(), &trap, Entries::default()).refusals.is_empty());
}

#[test]
fn ladder_has_the_rungs_that_are_asked_for() {
    let device = device();
    let plan = |wanted| ladder_plan(&device, wanted, &asks(), NOTHING_HELD);
    assert_eq!(modes(&plan(OffloadMode::Auto)), [OffloadMode::Packet, OffloadMode::No]);
    assert_eq!(modes(&plan(OffloadMode::No)), [OffloadMode::No]);
    assert_eq!(modes(&plan(OffloadMode::Packet)), [OffloadMode::Packet]);
    let crypto = plan(OffloadMode::Crypto);
    assert!(crypto.rungs.is_empty());
    assert_eq!(
        crypto.reasons(),
        "device eth0 has no crypto offload, only packet offload or software: set `hw_offload` to one of these"
    );
}

#[test]
fn what_a_rung_holds_counts_for_that_rung() {
    let device = device();
    let held = |mode| match mode {
        OffloadMode::Packet => Entries { sas: 5, policies: 8 },
        OffloadMode::Crypto | OffloadMode::No | OffloadMode::Auto => Entries { sas: 1_000, policies: 1_000 },
    };
    let plan = ladder_plan(&device, OffloadMode::Auto, &asks(), held);
    assert_eq!(modes(&plan), [OffloadMode::No]);
    assert_eq!(
        plan.rejected[0].refusals,
        [Refusal::SaTable { size: 8, held: 5, needs: 4 }, Refusal::PolicyTable { size: 9, held: 8, needs: 2 },]
    );
    assert!(plan.rejected[0].refusals.iter().all(Refusal::may_pass));
    let rekeying = asks_for(|asks| asks.entries = Entries { sas: 2, policies: 0 });
    assert_eq!(modes(&ladder_plan(&device, OffloadMode::Auto, &rekeying, held)).len(), 2);
}

#[test]
fn a_device_that_is_away_carries_nothing() {
    for (state, text) in [(DeviceState::Down, "device eth0 is down"), (DeviceState::Gone, "device eth0 was removed")] {
        let device = Device { state, ..device() };
        let plan = ladder_plan(&device, OffloadMode::Auto, &asks(), NOTHING_HELD);
        assert!(plan.rungs.is_empty());
        assert_eq!(plan.reason(OffloadMode::Packet).as_deref(), Some(text));
        assert_eq!(plan.rejected.len(), 2);
    }
}

#[test]
fn limits_that_the_device_does_not_raise_are_noted() {
    let limits = LimitUnits { time: true, bytes: true, packets: true };
    let device = device();
    let plan = ladder_plan(&device, OffloadMode::Packet, &asks_for(|asks| asks.limits = limits), NOTHING_HELD);
    let text: Vec<_> = plan.notes.iter().map(|note| note.sentence("eth0", OffloadMode::Packet)).collect();
    assert_eq!(
        text,
        [
            "device eth0 with packet offload raises no time limits: they are watched from its counters",
            "device eth0 with packet offload raises no byte limits: they are watched from its counters",
        ]
    );
    let none = LimitUnits { time: false, bytes: false, packets: false };
    let plan = ladder_plan(&device, OffloadMode::Packet, &asks_for(|asks| asks.limits = none), NOTHING_HELD);
    assert!(plan.notes.is_empty());
}

#[test]
fn algorithms_read_as_in_the_configuration() {
    let text: Vec<String> = software().algorithms.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes256-sha256", "aes192gcm16"]);
}

#[test]
fn a_shunt_in_software_is_hidden_by_what_a_device_takes() {
    let pair = |local: (&str, u8), remote: (&str, u8)| SelectorPair {
        local: side(local.0, local.1),
        remote: side(remote.0, remote.1),
    };
    let everything = pair(("10.1.0.0", 16), ("0.0.0.0", 0));
    let shunt = pair(("0.0.0.0", 0), ("10.9.0.0", 24));
    assert_eq!(hidden(&[shunt], &[everything]), Some(pair(("10.1.0.0", 16), ("10.9.0.0", 24))));
    assert_eq!(hidden(&[shunt], &[pair(("10.1.0.0", 16), ("10.8.0.0", 16))]), None);
    let mut web = shunt;
    (web.remote.protocol, web.remote.ports) = (6, PortRange::single(80));
    let mut mail = everything;
    (mail.remote.protocol, mail.remote.ports) = (6, PortRange::single(25));
    assert_eq!(hidden(&[web], &[mail]), None, "other ports");
    assert!(hidden(&[web], &[everything]).is_some());
    assert_eq!(hidden(&[], &[everything]), None);
}
