//! What is told, of a daemon that is made up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ike_model::device::{
    Capabilities, Device, DeviceId, DeviceState, DeviceTable, LimitUnit, LimitUnits, ModeInUse, OffloadMode,
    ReplayWindows, Rung, SelectorSupport,
};
use ike_model::history::{Database, KeepingFigures};
use ike_model::snapshot::{ConfiguredState, Traffic};
use ike_model::{Cause, CauseKind, ChildSaSnapshot, ChildSaState, Counter, Counters, EventBody};

use super::family::{ALL, Kind};
use super::*;
use crate::feed::Feed;
use crate::fixture::{Puppet, event};
use crate::page::fixture::{child, configured, ike, up, view};
use crate::site::Options;
use crate::view::{Messages, Webhook};

/// `METRICS.md` is the table. To write it anew: `UPDATE_METRICS=1 cargo test -p telemetry metrics`.
#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
    let expected = documentation();
    if std::env::var_os("UPDATE_METRICS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

fn documentation() -> String {
    let mut text = String::from(
        "# Metrics of cygnetd\n\nWhat `/metrics` tells. Generated from the table that the answer is made by; a test keeps it current. \
         Series are bounded: those with `connection` or `child` come once for each that is *configured*, and for the first 10,000 children \
         by name. Counters of a child are sums over all of its SAs since the daemon was started: they do not shrink when one is rekeyed or ends.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in ALL {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        text += &format!("| `{}` | {} | {labels} | {} |\n", family.name, family.kind.name(), family.help);
    }
    text += "\n## Coming from an exporter for strongSwan\n\nWhat dashboards and alerts were built on with torilabs/ipsec-prometheus-exporter \
             (`strongswan_*`) or sergeymakinen/ipsec_exporter (`ipsec_*`), and where it is here. Those have one series for each SA, whose \
             numbers are in its labels; here there is one for each configured child, so a rekey changes no series. States are labels instead \
             of numbers: `cygnet_child_up == 0` is a child that carries nothing.\n\n| there | here |\n|---|---|\n";
    let formerly: BTreeMap<&str, &str> =
        ALL.iter().flat_map(|family| family.formerly.iter().map(|old| (*old, family.name))).collect();
    for (old, new) in formerly {
        text += &format!("| `{old}` | `{new}` |\n");
    }
    text
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for family in ALL {
        assert!(seen.insert(family.name), "{} stands twice", family.name);
        let legal = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(legal(family.name) && family.labels.iter().all(|label| legal(label)), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
        assert!(family.help.ends_with('.') && !family.help.contains(['"', '\\', '\n', '|']), "{}", family.name);
    }
}

/// Samples by name and labels.
fn told(site: &Site, view: &View) -> BTreeMap<String, f64> {
    site.feed.ledger().look(view);
    let conditions = [Condition::met("sockets"), Condition::degraded("history", "it is away")];
    let text = page(site, view, &conditions, 0.1, Format::Prometheus);
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    let samples: Vec<_> = samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect();
    let told: BTreeMap<_, _> = samples.iter().cloned().collect();
    assert_eq!(told.len(), samples.len(), "no sample stands twice");
    told
}

fn site() -> Site {
    Site::new(Arc::new(Puppet::default()), Arc::new(Feed::default()), Options::default())
}

fn carried(mut child: ChildSaSnapshot, bytes: u64) -> ChildSaSnapshot {
    child.traffic_in = Traffic { bytes, packets: bytes / 10, idle_seconds: Some(3) };
    child.traffic_out = Traffic { bytes: 2 * bytes, packets: bytes / 5, idle_seconds: None };
    child
}

fn tell(site: &Site, seq: u64, body: EventBody) {
    site.feed.deliver(&event(seq, body));
}

fn rekeyed(old: &ChildSaSnapshot, new: &ChildSaSnapshot) -> EventBody {
    let ike = Box::new(ike("a", 1, Vec::new()));
    EventBody::ChildSaRekeyed { ike, old: Box::new(old.clone()), new: Box::new(new.clone()) }
}

/// A counter never goes down, whatever order views and events come in, and counts each octet once.
#[test]
fn what_was_carried_outlives_its_sas() {
    let site = site();
    let bytes = |view: &View| {
        let told = told(&site, view);
        let of = |direction: &str| {
            told[&format!("cygnet_child_bytes_total{{connection=\"a\",child=\"net\",direction=\"{direction}\"}}")]
        };
        (of("in"), of("out"))
    };
    let of = |children: Vec<ChildSaSnapshot>| view(vec![up("a", "net")], vec![("a", children)]);
    assert_eq!(bytes(&of(Vec::new())), (0.0, 0.0));
    let first = carried(child("net", 1), 1000);
    assert_eq!(bytes(&of(vec![first.clone()])), (1000.0, 2000.0));
    let stale = of(vec![first.clone()]);
    // The event knows more than the view before it, and a late view nothing more.
    let (first, second) = (carried(first, 1500), carried(child("net", 2), 0));
    tell(&site, 1, rekeyed(&first, &second));
    assert_eq!(bytes(&stale), (1500.0, 3000.0));
    // Stragglers on the old SA count beside the new one.
    let lingering = ChildSaSnapshot { state: ChildSaState::Deleted, ..carried(first, 1600) };
    assert_eq!(bytes(&of(vec![lingering, carried(second.clone(), 50)])), (1650.0, 3300.0));
    assert_eq!(bytes(&of(vec![carried(second.clone(), 70)])), (1670.0, 3340.0));
    let cause = Cause::new(CauseKind::PeerDeleted, "the peer closed it");
    let closed = Box::new(carried(second, 100));
    tell(&site, 2, EventBody::ChildSaClosed { ike: Box::new(ike("a", 1, Vec::new())), child: closed, cause });
    let down = view(vec![configured("a", "net", ConfiguredState::Down)], Vec::new());
    assert_eq!(bytes(&down), (1700.0, 3400.0));
    let (ike, last) = (Box::new(ike("a", 1, Vec::new())), Box::new(carried(child("net", 2), 110)));
    tell(&site, 3, EventBody::ChildSaRemoved { ike, child: last, successor: None });
    assert_eq!(bytes(&down), (1710.0, 3420.0));
    assert_eq!(bytes(&stale), (1710.0, 3420.0));
}

#[test]
fn a_configured_child_is_seen_while_it_is_down() {
    let site = site();
    let refused = ConfiguredState::Refused("no device".into());
    let children =
        vec![up("a", "net"), configured("a", "two", ConfiguredState::RetryIn(7)), configured("b", "x", refused)];
    let told = told(&site, &view(children, vec![("a", vec![child("net", 1)])]));
    let child = |family: &str, names: &str| told.get(&format!("cygnet_child_{family}{{{names}}}")).copied();
    let [net, two, x] =
        ["a\",child=\"net\"", "a\",child=\"two\"", "b\",child=\"x\""].map(|names| format!("connection=\"{names}"));
    for names in [&net, &two, &x] {
        assert_eq!(child("configured", names), Some(1.0));
    }
    assert_eq!([&net, &two, &x].map(|names| child("up", names)), [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!([&net, &two, &x].map(|names| child("sas_installed", names)), [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(child("state", &format!("{two},state=\"retry\"")), Some(1.0));
    assert_eq!(child("state", &format!("{x},state=\"refused\"")), Some(1.0));
    let offload = format!("{net},mode=\"packet\",device=\"cygnet0 (simulated)\"");
    assert_eq!(child("offload", &offload), Some(1.0));
    let of = |name: &str| told.get(name).copied();
    assert_eq!(of("cygnet_connection_up{connection=\"a\"}"), Some(1.0));
    assert_eq!(of("cygnet_connection_up{connection=\"b\"}"), Some(0.0));
    assert_eq!((of("cygnet_connections"), of("cygnet_children{state=\"retry\"}")), (Some(2.0), Some(1.0)));
    assert_eq!((of("cygnet_children{state=\"down\"}"), of("cygnet_scrape_complete")), (Some(0.0), Some(1.0)));
    assert_eq!(of("cygnet_condition_met{condition=\"history\"}"), Some(0.0));
}

#[test]
fn rekeys_and_failures_come_with_their_cause() {
    let site = site();
    let (first, second) = (child("net", 1), child("net", 2));
    let ike = || Box::new(ike("a", 1, Vec::new()));
    let soft = EventBody::ChildSaSoftExpired { ike: ike(), child: Box::new(first.clone()), unit: LimitUnit::Bytes };
    tell(&site, 1, soft);
    tell(&site, 2, rekeyed(&first, &second));
    tell(&site, 3, rekeyed(&second, &child("net", 3)));
    let cause = |kind| Cause::new(kind, "it was so");
    tell(&site, 4, EventBody::IkeSaFailed { ike: ike(), cause: cause(CauseKind::NoProposal) });
    tell(&site, 5, EventBody::IkeSaFailed { ike: ike(), cause: cause(CauseKind::NoProposal) });
    let failed = cause(CauseKind::PeerError);
    tell(&site, 6, EventBody::ChildSaRekeyFailed { ike: ike(), child: Box::new(second), cause: failed });
    let told = told(&site, &view(vec![up("a", "net")], vec![("a", vec![child("net", 3)])]));
    let net = "connection=\"a\",child=\"net\"";
    for (sample, value) in [
        (format!("cygnet_child_rekeys_total{{{net},cause=\"bytes\"}}"), 1.0),
        (format!("cygnet_child_rekeys_total{{{net},cause=\"asked\"}}"), 1.0),
        (format!("cygnet_child_rekeys_total{{{net},cause=\"time\"}}"), 0.0),
        (format!("cygnet_child_last_rekey_timestamp_seconds{{{net}}}"), 0.003),
        (format!("cygnet_child_rekey_failures_total{{{net}}}"), 1.0),
        (format!("cygnet_child_failures_total{{{net},what=\"rekey\",reason=\"peer-error\"}}"), 1.0),
        ("cygnet_connection_failures_total{connection=\"a\",what=\"establish\",reason=\"no-proposal\"}".into(), 2.0),
        ("cygnet_events_total{event=\"child-sa.rekeyed\"}".into(), 2.0),
    ] {
        assert_eq!(told.get(&sample), Some(&value), "{sample}");
    }
}

/// Neither many SAs of one connection nor many children can make an answer of any length.
#[test]
fn series_are_bounded() {
    let site = site();
    let many = (0..5000).map(|number| ("a", vec![child("net", number)])).collect();
    let one = told(&site, &view(vec![up("a", "net")], vec![("a", vec![child("net", 1)])])).len();
    let crowded = told(&site, &view(vec![up("a", "net")], many));
    assert_eq!(crowded.len(), one);
    assert_eq!(crowded["cygnet_child_sas_installed{connection=\"a\",child=\"net\"}"], 5000.0);
    let children: Vec<_> = (0..CHILDREN + 5).map(|number| up(&format!("c{number:05}"), "net")).collect();
    let told = told(&site, &view(children, Vec::new()));
    assert_eq!(told["cygnet_series_dropped"], 5.0);
    assert_eq!(told["cygnet_children{state=\"up\"}"], (CHILDREN + 5) as f64);
    assert_eq!(told.keys().filter(|name| name.starts_with("cygnet_child_up")).count(), CHILDREN);
}

/// A connection that is configured no more is forgotten, but not on a view that may lack it.
#[test]
fn what_is_unloaded_is_forgotten() {
    let site = site();
    tell(&site, 1, EventBody::IkeSaEstablished { ike: Box::new(ike("a", 1, Vec::new())) });
    let established = || site.feed.ledger().connection("a").established;
    site.feed.ledger().look(&View { complete: false, ..View::default() });
    assert_eq!(established(), 1);
    site.feed.ledger().look(&view(Vec::new(), Vec::new()));
    assert_eq!(established(), 0);
}

fn device() -> Device {
    let capabilities = Capabilities {
        algorithms: Vec::new(),
        tunnel: true,
        transport: true,
        esn: true,
        replay_windows: ReplayWindows::Range(32, 64),
        selectors: SelectorSupport::FULL,
        udp_encapsulation: true,
        limits: LimitUnits::ALL,
        sa_table: Some(16),
        policy_table: None,
        all_policy_kinds: true,
        in_place_move: true,
        separate_activation: true,
        marks: true,
        interface_ids: true,
    };
    let mode = ModeInUse { mode: OffloadMode::Packet, device: Some("cygnet0".into()), simulated: true };
    let rungs = vec![Rung { mode, capabilities }];
    Device { id: DeviceId(0), name: "cygnet0".into(), state: DeviceState::Up, rungs }
}

fn history() -> KeepingFigures {
    KeepingFigures {
        engine: "sqlite",
        spool_used: 10,
        spool_size: 20,
        has_room: true,
        waiting: 3,
        oldest_ms: Some(1_766_999_998_000),
        taken_over: 4,
        left_out: 5,
        forgotten: 6,
        database: Database::Away { since_ms: 1, error: "refused".into() },
        last_error: None,
        retain_days: 90,
        retain_rows: 0,
        rival: None,
    }
}

/// Everything in the table is told by a daemon that has everything.
#[test]
fn every_metric_is_told() {
    let site = site();
    let (mut first, second) = (child("net", 1), carried(child("net", 2), 10));
    (first.rekey_seconds, first.life_seconds) = (Some(5), Some(-1));
    let mut third = ChildSaSnapshot { rekey_seconds: Some(5), life_seconds: Some(-1), ..second.clone() };
    third.limits.soft.bytes = Some(100);
    third.limits.soft.packets = Some(0);
    let ike = || Box::new(ike("a", 1, Vec::new()));
    let cause = || Cause::new(CauseKind::Operator, "asked");
    tell(&site, 1, rekeyed(&first, &second));
    tell(&site, 2, EventBody::IkeSaClosed { ike: ike(), cause: cause() });
    tell(&site, 3, EventBody::IkeSaAuthFailed { ike: ike(), cause: cause(), refused_by_peer: false });
    tell(&site, 4, EventBody::ChildSaClosed { ike: ike(), child: Box::new(first), cause: cause() });
    tell(&site, 5, EventBody::ChildSaInstallFailed { ike: ike(), child: "net".into(), cause: cause() });
    let mut view = view(vec![up("a", "net")], vec![("a", vec![third])]);
    let standing = &mut view.ike_sas[0];
    (standing.rekey_seconds, standing.reauth_seconds) = (Some(1), Some(2));
    view.devices = Arc::new(DeviceTable { devices: vec![device()] });
    view.drops = vec![("replay".into(), 7)];
    let mut counters = Counters::default();
    counters.count(Counter::InfoInReq);
    view.messages = Messages {
        dropped: vec![("malformed", 1)],
        counters,
        by_connection: [("a".to_owned(), counters)].into(),
        ..Messages::default()
    };
    view.queues = vec![(1, 2)];
    view.history = Some(history());
    let webhook = Webhook { name: "ops".into(), state: "up", backlog: Some((1, 2)), ..Webhook::default() };
    view.webhooks = vec![Webhook { failures: vec![("status", 1)], last_success_ms: Some(1), ..webhook }];
    let told = told(&site, &view);
    let names: BTreeSet<&str> = told.keys().map(|sample| sample.split('{').next().unwrap()).collect();
    let all: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
    assert_eq!(names, all);
    for (sample, value) in [
        ("cygnet_child_rekey_bytes{connection=\"a\",child=\"net\"}", 80.0),
        ("cygnet_child_rekey_packets{connection=\"a\",child=\"net\"}", 0.0),
        ("cygnet_child_life_seconds{connection=\"a\",child=\"net\"}", -1.0),
        ("cygnet_history_oldest_waiting_seconds", 2.0),
        ("cygnet_history_database_up{engine=\"sqlite\"}", 0.0),
        ("cygnet_webhook_dead{webhook=\"ops\"}", 2.0),
        ("cygnet_device_sa_table_size{device=\"cygnet0\",mode=\"packet\"}", 16.0),
        ("cygnet_datapath_drops_total{reason=\"replay\"}", 7.0),
        ("cygnet_ike_messages_total{exchange=\"informational\",direction=\"in\",message=\"request\"}", 1.0),
        ("cygnet_ike_messages_total{exchange=\"informational\",direction=\"out\",message=\"request\"}", 0.0),
        (
            "cygnet_connection_messages_total{connection=\"a\",exchange=\"informational\",direction=\"in\",message=\"request\"}",
            1.0,
        ),
        ("cygnet_connection_invalid_messages_total{connection=\"a\"}", 0.0),
    ] {
        assert_eq!(told.get(sample), Some(&value), "{sample}");
    }
}

/// A whole answer about 5,000 connections that are up. `cargo test -p telemetry metrics -- --nocapture` shows the figures.
#[test]
fn five_thousand_connections_are_told_in_bounded_space() {
    const CONNECTIONS: u32 = 5_000;
    let site = site();
    let names: Vec<String> = (0..CONNECTIONS).map(|number| format!("site-{number:05}")).collect();
    let sas =
        names.iter().zip(1..).map(|(name, number)| (&**name, vec![carried(child("net", number), 1000)])).collect();
    let view = view(names.iter().map(|name| up(name, "net")).collect(), sas);
    let begun = Instant::now();
    site.feed.ledger().look(&view);
    let looked = begun.elapsed();
    let text = page(&site, &view, &[], 0.1, Format::OpenMetrics);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "{CONNECTIONS} connections: {samples} samples, {} octets, taken in within {looked:?}, written within {:?}",
        text.len(),
        begun.elapsed() - looked
    );
    assert!(
        samples < 30 * CONNECTIONS as usize && text.len() < 100 * samples,
        "{samples} samples, {} octets",
        text.len()
    );
}
