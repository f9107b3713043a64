//! Which events of ours VICI clients get, and as what: the table of `EVENTS.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ike_model::CauseKind;
use ipsec::{DeviceId, LimitUnit, PacketSelectors, Path};

use super::*;

/// One of each event; those that have a cause have this one.
fn samples(kind: CauseKind, initiator: bool, refused_by_peer: bool) -> Vec<EventBody> {
    let ike = || Box::new(IkeSaSnapshot { initiator, ..super::ike() });
    let child = || Box::new(super::child());
    let cause = || Cause::new(kind, "for a reason");
    let (connection, name) = (|| "site-a".to_owned(), || "net".to_owned());
    let device = DeviceId(0);
    let packet = PacketSelectors {
        source: "10.1.0.1".parse().unwrap(),
        destination: "10.2.0.1".parse().unwrap(),
        protocol: 1,
        ports: None,
    };
    vec![
        EventBody::IkeSaEstablished { ike: ike() },
        EventBody::IkeSaRekeyed { old: ike(), new: ike() },
        EventBody::IkeSaClosed { ike: ike(), cause: cause() },
        EventBody::IkeSaAuthFailed { ike: ike(), cause: cause(), refused_by_peer },
        EventBody::IkeSaFailed { ike: ike(), cause: cause() },
        EventBody::IkeSaUpdated { ike: ike(), path: moved() },
        EventBody::IkeSaRekeyFailed { ike: ike(), cause: cause() },
        EventBody::IkeSaDuplicate { ike: ike(), replaces: 1 },
        EventBody::ChildSaInstalled { ike: ike(), child: child() },
        EventBody::ChildSaPrepared { ike: ike(), child: child(), replaces: 1 },
        EventBody::ChildSaWithdrawn { ike: ike(), child: child(), cause: cause() },
        EventBody::ChildSaRekeyed { ike: ike(), old: child(), new: child() },
        EventBody::ChildSaClosed { ike: ike(), child: child(), cause: cause() },
        EventBody::ChildSaRemoved { ike: ike(), child: child(), successor: None },
        EventBody::ChildSaRekeyFailed { ike: ike(), child: child(), cause: cause() },
        EventBody::ChildSaInstallFailed { ike: ike(), child: name(), cause: cause() },
        EventBody::ChildSaFailed { ike: ike(), child: Some(name()), cause: cause() },
        EventBody::ChildSaSoftExpired { ike: ike(), child: child(), unit: LimitUnit::Time },
        EventBody::ChildSaHardExpired { ike: ike(), child: child(), unit: LimitUnit::Time },
        EventBody::PolicyAcquire { connection: connection(), child: name(), packet },
        EventBody::DeviceDown { device, name: "eth0".into(), gone: false },
        EventBody::DeviceUp { device, name: "eth0".into() },
        EventBody::Degraded { ike: ike(), child: child(), cause: cause() },
        EventBody::Repaired { connection: connection(), child: name(), cause: cause() },
        EventBody::StateLost { ike: ike(), child: child() },
        EventBody::PeerUnreachable { ike: ike(), cause: cause() },
        EventBody::PeerReachable { ike: ike() },
        EventBody::UpdownFailed {
            connection: connection(),
            child: name(),
            unique_id: 12,
            verb: "up-client".into(),
            status: Some(1),
            cause: cause(),
        },
        EventBody::KeysExported { connection: connection(), uid: 0, pid: None, sas: Vec::new() },
        EventBody::ConfigLoaded { connection: connection() },
        EventBody::ConfigRejected { connection: connection(), cause: cause() },
        EventBody::EventsGap { first: 1, last: 2, cause: cause() },
    ]
}

fn moved() -> Path {
    Path { local: "198.51.100.7:4500".parse().unwrap(), remote: "203.0.113.9:4501".parse().unwrap() }
}

/// Types of alert that strongSwan's README of VICI lists, and why one of them is never sent.
const ALERTS: [(&str, &str); 33] = [
    ("radius-not-responding", "there is no RADIUS"),
    ("shutdown-signal", ""),
    ("local-auth-failed", ""),
    ("peer-auth-failed", ""),
    ("peer-addr-failed", ""),
    ("peer-init-unreachable", ""),
    (
        "invalid-ike-spi",
        "anybody can send such messages: they are counted (`invalid-spi` of `get-counters`) and are no event",
    ),
    (
        "parse-error-header",
        "anybody can send such messages: they are counted (`invalid` of `get-counters`) and are no event",
    ),
    ("parse-error-body", ""),
    ("retransmit-send", "counted (`cygnet_ike_retransmits_total`)"),
    ("retransmit-send-cleared", "that a peer answers again is `peer.reachable`, after `peer.unreachable` only"),
    ("retransmit-send-timeout", ""),
    ("retransmit-receive", "counted (`cygnet_ike_retransmits_total`)"),
    ("half-open-timeout", ""),
    ("proposal-mismatch-ike", ""),
    ("proposal-mismatch-child", ""),
    ("ts-mismatch", ""),
    ("ts-narrowed", "the selectors of what comes up are in `child-updown`"),
    ("install-child-sa-failed", ""),
    ("install-child-policy-failed", "an SA and its policies are installed together: `install-child-sa-failed`"),
    ("unique-replace", ""),
    ("unique-keep", ""),
    ("keep-on-child-sa-failure", "an IKE SA stays always when its first CHILD SA fails"),
    ("vip-failure", "there are no virtual addresses"),
    ("authorization-failed", "nobody else is asked whether a peer may come in"),
    ("ike-sa-expired", ""),
    ("cert-expired", "there are no certificates"),
    ("cert-revoked", "there are no certificates"),
    ("cert-validation-failed", "there are no certificates"),
    ("cert-no-issuer", "there are no certificates"),
    ("cert-untrusted-root", "there are no certificates"),
    ("cert-exceeded-path-len", "there are no certificates"),
    ("cert-policy-violation", "there are no certificates"),
];

/// For each event: the VICI events that always come, and each type of alert with the kinds of cause that it comes for.
type Table = BTreeMap<&'static str, (BTreeSet<&'static str>, BTreeMap<String, BTreeSet<String>>)>;

fn table() -> Table {
    let mut table = Table::new();
    let both = [false, true];
    let ways = both.into_iter().flat_map(|initiator| both.map(|refused| (initiator, refused)));
    for (kind, (initiator, refused)) in
        CauseKind::ALL.into_iter().flat_map(|kind| ways.clone().map(move |way| (kind, way)))
    {
        for body in samples(kind, initiator, refused) {
            let (always, alerts) = table.entry(body.name()).or_default();
            for (name, message) in events(&body) {
                match message.get_str("type") {
                    Some(alert) if name == "alert" => {
                        alerts.entry(alert.to_owned()).or_default().insert(kind.name().to_owned());
                    }
                    _ => drop(always.insert(name)),
                }
            }
        }
    }
    table
}

/// `EVENTS.md` is what is sent. To write it anew: `UPDATE_EVENTS=1 cargo test -p swanctl-compat events`.
#[test]
fn documentation_of_events_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/EVENTS.md");
    let expected = documentation();
    if std::env::var_os("UPDATE_EVENTS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

fn documentation() -> String {
    let mut text = String::from(
        "# Events, and what VICI clients get of them\n\nGenerated from what is sent for each event; a test keeps it current. Every event also \
         goes out whole, as the JSON that webhooks get, to\nthose who register for `cygnet-event`. Behind a type of alert stand the kinds of \
         cause (`cause.kind` of the event) for which it is sent;\na type without any is sent always.\n\n| event | VICI event | alert |\n|---|---|---|\n",
    );
    let table = table();
    for name in EventBody::NAMES {
        let (always, alerts) = &table[name];
        let always: Vec<String> = always.iter().map(|name| format!("`{name}`")).collect();
        let alert = |(alert, kinds): (&String, &BTreeSet<String>)| {
            let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
            match kinds.len() {
                all if all == CauseKind::ALL.len() => format!("`{alert}`"),
                most if 2 * most > CauseKind::ALL.len() => format!("`{alert}` (any other)"),
                _ => format!("`{alert}` ({})", kinds.join(", ")),
            }
        };
        let alerts: Vec<String> = alerts.iter().map(alert).collect();
        let _ = writeln!(text, "| `{name}` | {} | {} |", always.join(", "), alerts.join("; "));
    }
    text += "\n`local-auth-failed` says that the peer refused us or that we have no secret, `peer-auth-failed` that we refused the peer. When the \
             daemon is told\nto stop, `shutdown-signal` is sent without any event.\n\n## Types of alert that are never sent\n\n| type | why |\n|---|---|\n";
    for (alert, reason) in ALERTS.iter().filter(|(_, reason)| !reason.is_empty()) {
        let _ = writeln!(text, "| `{alert}` | {reason} |");
    }
    text
}

#[test]
fn every_event_is_known_and_every_alert_is_one_of_strongswans() {
    let table = table();
    assert_eq!(table.keys().copied().collect::<BTreeSet<_>>(), EventBody::NAMES.into());
    let mut sent: BTreeSet<&str> = table.values().flat_map(|(_, alerts)| alerts.keys().map(String::as_str)).collect();
    let shutdown = shutdown_alert();
    sent.extend(shutdown.get_str("type"));
    let expected: BTreeSet<&str> = ALERTS.iter().filter(|(_, why)| why.is_empty()).map(|(alert, _)| *alert).collect();
    assert_eq!(sent, expected);
}

fn alerts_of(body: &EventBody) -> Vec<String> {
    let told = events(body).into_iter().filter(|(name, _)| *name == "alert");
    told.map(|(_, message)| message.get_str("type").unwrap_or_default().to_owned()).collect()
}

#[test]
fn authentication_fails_here_or_there() {
    let of = |kind, refused_by_peer| {
        let (ike, cause) = (Box::new(ike()), Cause::new(kind, "x"));
        alerts_of(&EventBody::IkeSaAuthFailed { ike, cause, refused_by_peer })
    };
    assert_eq!(of(CauseKind::AuthenticationFailed, false), ["peer-auth-failed"]);
    assert_eq!(of(CauseKind::AuthenticationFailed, true), ["local-auth-failed"]);
    assert_eq!(of(CauseKind::NoSecret, false), ["local-auth-failed"]);
    assert_eq!(of(CauseKind::NoConfiguration, false), ["peer-auth-failed"]);
}

#[test]
fn an_end_may_be_an_alert_too() {
    let (ike, cause) = (Box::new(ike()), Cause::new(CauseKind::HardLimit, "its time is up"));
    let told = events(&EventBody::IkeSaClosed { ike, cause });
    let [(first, down), (second, expired)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*first, *second), ("ike-updown", "alert"));
    assert_eq!(shown(down), format!("site-a{{{IKE}}}"));
    assert_eq!(shown(expired), format!("type=ike-sa-expired ike-sa{{site-a{{{IKE}}}}}"));
}

/// The new way stands in front, and what is behind it is as it was before.
#[test]
fn a_move_shows_the_new_way_and_the_old_ike_sa() {
    let told = events(&EventBody::IkeSaUpdated { ike: Box::new(ike()), path: moved() });
    let [(name, message)] = &told[..] else { panic!("{told:?}") };
    let expected =
        format!("local-host=198.51.100.7 local-port=4500 remote-host=203.0.113.9 remote-port=4501 site-a{{{IKE}}}");
    assert_eq!((*name, shown(message)), ("ike-update", expected));
}
