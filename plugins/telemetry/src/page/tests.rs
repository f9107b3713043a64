//! The API over a real socket, against a daemon that is made up.
#![allow(clippy::indexing_slicing, reason = "indexing JSON gives null where there is nothing")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ike_model::history::DeliveryState;
use ike_model::snapshot::ConfiguredState;
use ike_model::{Cause, CauseKind, EventRecord};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::fixture::{HOSTILE, Past, Stage, child, configured, generation, ike, up, view};
use crate::address::{Bound, Listen};
use crate::feed::Feed;
use crate::fixture::loaded;
use crate::server::Server;
use crate::site::{Options, Site};
use crate::view::{View, Webhook};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    server: Option<Server>,
    stage: Arc<Stage>,
    feed: Arc<Feed>,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.take().into_iter().for_each(Server::stop);
    }
}

/// A server with a history, and a token or none.
fn run(token: Option<&str>) -> Running {
    run_stage(Stage { past: Some(Arc::new(Past::default())), ..Stage::default() }, token)
}

/// A server of a daemon in this state: what a view tells is kept for a second, so it is there before anybody asks.
fn run_with(view: View) -> Running {
    let stage = Stage { past: Some(Arc::new(Past::default())), ..Stage::default() };
    stage.puppet.view.send_replace(view);
    run_stage(stage, None)
}

fn run_stage(stage: Stage, token: Option<&str>) -> Running {
    let bound = Bound::bind(&[Listen::parse("127.0.0.1:0").unwrap()]).unwrap();
    let address = bound.addresses()[0];
    let (stage, feed) = (Arc::new(stage), Arc::new(Feed::default()));
    let options = Options { token: token.map(|token| Zeroizing::new(token.into())), ..Options::default() };
    let site = Site::new(Arc::<Stage>::clone(&stage), Arc::clone(&feed), options);
    Running { server: Some(Server::start(bound, site).unwrap()), stage, feed, address }
}

impl Running {
    fn past(&self) -> &Past {
        self.stage.past.as_deref().unwrap()
    }

    /// Status, head and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        let address = self.address;
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        self.say(&format!("{head}{headers}\r\n{body}"))
    }

    fn say(&self, request: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> Json {
        let (status, _, body) = self.ask("GET", path, "", "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Status and code of an error.
    fn refused(&self, path: &str) -> (u16, String) {
        code(self.ask("GET", path, "", ""))
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> (u16, Json) {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        let (status, _, body) = self.ask("POST", path, &headers, body);
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn code((status, _, body): (u16, String, String)) -> (u16, String) {
    let body: Json = serde_json::from_str(&body).unwrap();
    assert!(!body["error"]["message"].as_str().unwrap_or_default().is_empty(), "{body}");
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_page_and_its_files_are_served_with_a_policy() {
    let running = run(None);
    for (path, kind) in [("/", "text/html"), ("/assets/main.js", "text/javascript"), ("/assets/base.css", "text/css")] {
        let (status, head, body) = running.ask("GET", path, "", "");
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")) && !body.is_empty(), "{head}");
        for expected in ["default-src 'none'", "script-src 'self';", "require-trusted-types-for 'script'", "nosniff"] {
            assert!(head.contains(expected), "{path}: {expected} is not in {head}");
        }
    }
    for path in ["/assets/", "/assets/..%2fsrc%2flib.rs", "/assets/../Cargo.toml", "/assets/none.js", "/api", "/api/x"]
    {
        assert_eq!(running.refused(path).0, 404, "{path}");
    }
}

#[test]
fn status_has_every_tunnel_and_what_is_known_of_it() {
    let mut retrying = configured("b-site", "net", ConfiguredState::RetryIn(30));
    retrying.failures = 2;
    retrying.last_cause = Some((1_766_999_000, Cause::new(CauseKind::PeerUnreachable, HOSTILE)));
    let refused = configured("c-site", "net", ConfiguredState::Refused("no such device".into()));
    let mut old = child("net", 6);
    old.total_in.bytes = 90;
    let mut new = child("net", 7);
    (new.generation, new.total_in.bytes, new.traffic_in.bytes) = (1, 100, 10);
    new.spi_in = ike_model::device::Spi::new(0xc0de_0007);
    let running = run_with(view(
        vec![up("a-site", "net"), retrying, refused],
        vec![("a-site", vec![old, new]), ("gone", vec![child("left-over", 9)])],
    ));
    let status = running.get("/api/status");
    assert_eq!(status["gateway"], "gw-a.example");
    assert_eq!(status["counts"]["total"], 4);
    assert_eq!((&status["counts"]["up"], &status["counts"]["retry"]), (&json!(2), &json!(1)));
    assert_eq!(status["actions"]["allowed"], false);
    let [a, b, c, gone] = status["tunnels"].as_array().unwrap().as_slice() else { panic!("{status:#}") };
    assert_eq!((&a["state"], &a["generation"], &a["sas"]), (&json!("up"), &json!(1), &json!(1)));
    assert_eq!(
        (&a["spi_in"], &a["carried"]["in"]["bytes"], &a["total"]["in"]["bytes"]),
        (&json!("c0de0007"), &json!(10), &json!(100))
    );
    assert_eq!(a["mode"], json!({"offload": "packet", "device": "cygnet0", "simulated": true, "backend": "userspace"}));
    assert_eq!(a["remote_id"], HOSTILE, "as it is: who shows it makes it harmless");
    assert_eq!((&b["retry_at_ms"], &b["failures"]), (&json!(1_767_000_030_000_u64), &json!(2)));
    assert_eq!(b["cause"], json!({"kind": "peer-unreachable", "text": HOSTILE, "time_ms": 1_766_999_000_000_u64}));
    assert_eq!((&c["state"], &c["reason"], &c["mode"]), (&json!("refused"), &json!("no such device"), &Json::Null));
    assert_eq!((&gone["child"], &gone["state"]), (&json!("left-over"), &json!("up")), "unloaded, and yet it carries");
}

#[test]
fn several_peers_of_one_connection_are_one_tunnel_with_sums() {
    let with = |unique_id, bytes| {
        let mut sa = child("net", unique_id);
        sa.total_in.bytes = bytes;
        sa
    };
    let sas = vec![("road", vec![with(3, 10)]), ("road", vec![with(4, 5)])];
    let running = run_with(view(vec![up("road", "net")], sas));
    let tunnel = &running.get("/api/status")["tunnels"][0];
    assert_eq!(
        (&tunnel["sas"], &tunnel["total"]["in"]["bytes"], &tunnel["unique_id"]),
        (&json!(2), &json!(15), &json!(4))
    );
}

#[test]
fn thousands_of_tunnels_are_searched_and_paged() {
    let names: Vec<String> = (0..5_000).map(|number| format!("site-{number:04}")).collect();
    let all = names.iter().map(|name| up(name, "net")).collect();
    let mut view = view(all, Vec::new());
    view.ike_sas = names.iter().zip(1..).map(|(name, id)| ike(name, id, vec![child("net", id)])).collect();
    let running = run_with(view);
    let first = running.get("/api/status?limit=50");
    assert_eq!((&first["counts"]["total"], first["tunnels"].as_array().unwrap().len()), (&json!(5_000), 50));
    assert_eq!(running.get("/api/status?limit=2&offset=4999")["tunnels"][0]["connection"], "site-4999");
    assert_eq!(running.get("/api/status?limit=50&offset=7000")["tunnels"], json!([]));
    let found = running.get("/api/status?search=SITE-012");
    assert_eq!((&found["matching"], &found["tunnels"][9]["connection"]), (&json!(10), &json!("site-0129")));
    assert_eq!(running.get("/api/status?search=198.51.100.9")["matching"], 5_000);
    assert_eq!(running.get("/api/status?connection=site-0007&child=net")["matching"], 1);
    assert_eq!(running.get("/api/status?state=down&limit=0")["matching"], 0);
}

#[test]
fn what_makes_no_sense_is_refused_with_words() {
    let running = run(None);
    for path in [
        "/api/status?state=sideways",
        "/api/status?limit=-1",
        "/api/status?samples=yesterday",
        "/api/status?colour=blue",
        "/api/status?sort=size",
        "/api/events?before=01J",
        "/api/events?limit=99999999999",
        "/api/deliveries?state=lost",
        "/api/deliveries?before=x",
        "/api/timeline?since=1h",
    ] {
        let (status, code) = running.refused(path);
        assert!(status == 400 && code == "invalid", "{path}: {status} {code}");
    }
}

/// The name of another site that has itself resolved to our address.
#[test]
fn a_rebound_name_gets_nothing() {
    let running = run(Some("right"));
    for path in ["/", "/api/status", "/api/events/live", "/api/deliveries"] {
        let answer = running.say(&format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"));
        assert_eq!(code(answer), (421, "unknown-host".into()), "{path}");
    }
}

#[test]
fn without_a_history_the_past_says_so() {
    let running = run_stage(Stage::default(), Some("right"));
    for path in ["/api/events", "/api/timeline", "/api/deliveries"] {
        assert_eq!(running.refused(path), (503, "unavailable".into()), "{path}");
    }
    let (status, answer) = running.post("/api/deliveries/redeliver", "Authorization: Bearer right\r\n", "{}");
    assert!(status == 503 && answer["error"]["message"].as_str().unwrap().contains("history.url"), "{answer}");
    assert_eq!(running.get("/api/status")["webhooks"], json!([]));
}

#[test]
fn changes_need_the_token_and_our_own_page() {
    let running = run(Some("right"));
    running.past().delivery("01A", "ops", DeliveryState::Dead);
    let path = "/api/deliveries/redeliver";
    let own = format!("Origin: http://{}\r\n", running.address);
    let cases = [
        ("", 401, "token-needed"),
        ("Authorization: Bearer wrong\r\n", 401, "wrong-token"),
        ("Authorization: Basic cmlnaHQ=\r\n", 401, "token-needed"),
        ("Authorization: Bearer right\r\nOrigin: https://evil.example\r\n", 403, "other-origin"),
        ("Authorization: Bearer right\r\nOrigin: null\r\n", 403, "other-origin"),
    ];
    for (headers, status, code) in cases {
        let answer = running.post(path, headers, "{}");
        assert_eq!((answer.0, &answer.1["error"]["code"]), (status, &json!(code)), "{headers}");
        assert_eq!(running.get("/api/deliveries")["deliveries"][0]["state"], "dead");
    }
    let answer = running.post(path, &format!("Authorization: Bearer right\r\n{own}"), "{}");
    assert_eq!(answer, (200, json!({"redelivered": 1})));
    assert_eq!(running.ask("GET", path, "", "").0, 405);
}

#[test]
fn without_a_token_nothing_can_be_changed_and_the_reason_is_told() {
    let running = run(None);
    for path in ["/api/deliveries/redeliver", "/api/webhooks/ops/enable"] {
        let (status, answer) = running.post(path, "Authorization: Bearer guess\r\n", "{}");
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("no-token-set")), "{path}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("http.token"));
    }
    assert!(running.get("/api/status")["actions"]["reason"].as_str().unwrap().contains("http.token"));
}

#[test]
fn deliveries_are_listed_redelivered_and_endpoints_enabled() {
    let stage = Stage { past: Some(Arc::new(Past::default())), ..Stage::default() };
    let webhook = |name: &str, state, backlog| Webhook { name: name.into(), state, backlog, ..Webhook::default() };
    let webhooks = vec![webhook("ops", "up", Some((0, 2))), webhook("siem", "disabled", None)];
    stage.puppet.view.send_replace(View { webhooks, ..view(Vec::new(), Vec::new()) });
    let running = run_stage(stage, Some("right"));
    let past = running.past();
    for (ulid, state) in [("01A", DeliveryState::Dead), ("01B", DeliveryState::Dead), ("01C", DeliveryState::Delivered)]
    {
        past.delivery(ulid, "ops", state);
    }
    past.delivery("01D", "siem", DeliveryState::Waiting);
    let disabled = ike_model::history::Disabled { since_ms: 5, reason: "410 Gone".into() };
    past.disabled.lock().unwrap().insert("siem".into(), disabled);
    let first = running.get("/api/deliveries?limit=3");
    assert_eq!((&first["deliveries"][0]["ulid"], &first["next"]), (&json!("01D"), &json!("01B/ops")));
    let ops = json!({"name": "ops", "state": "up", "waiting": 0, "dead": 2, "disabled": null});
    assert_eq!(first["webhooks"][0], ops);
    let disabled = json!({"since_ms": 5, "reason": "410 Gone"});
    assert_eq!((&first["webhooks"][1]["disabled"], &first["webhooks"][1]["dead"]), (&disabled, &Json::Null));
    let second = running.get("/api/deliveries?limit=3&before=01B/ops");
    assert_eq!((&second["deliveries"][0]["ulid"], &second["next"]), (&json!("01A"), &Json::Null));
    let token = "Authorization: Bearer right\r\n";
    let one = running.post("/api/deliveries/redeliver", token, r#"{"ulid": "01C", "endpoint": "ops"}"#);
    assert_eq!(one, (200, json!({"redelivered": 1})));
    assert_eq!(running.get("/api/deliveries?state=dead")["deliveries"].as_array().unwrap().len(), 2);
    let all = running.post("/api/deliveries/redeliver", token, r#"{"endpoint": "ops"}"#);
    assert_eq!(all, (200, json!({"redelivered": 2})));
    assert_eq!(running.post("/api/webhooks/siem/enable", token, "").1, json!({"enabled": true}));
    assert_eq!(running.post("/api/webhooks/siem/enable", token, "").1, json!({"enabled": false}));
    assert_eq!(running.post("/api/webhooks/nobody/enable", token, "").0, 404);
    for wrong in ["", "[]", "{\"uild\": 1}", "{\"ulid\": 1}", "{"] {
        assert_eq!(running.post("/api/deliveries/redeliver", token, wrong).0, 400, "{wrong}");
    }
}

#[test]
fn the_timeline_has_present_counters_of_what_is_up() {
    let mut sa = child("net", 3);
    sa.traffic_in.bytes = 777;
    let running = run_with(view(vec![up("site", "net")], vec![("site", vec![sa])]));
    let rows = [generation(1, 100, Some(200)), generation(2, 200, Some(300)), generation(3, 300, None)];
    running.past().generations.lock().unwrap().extend(rows);
    let timeline = running.get("/api/timeline?connection=site&child=net&limit=2");
    let [newest, before] = timeline["generations"].as_array().unwrap().as_slice() else { panic!("{timeline:#}") };
    assert_eq!((&newest["unique_id"], &newest["carried_in"]["bytes"]), (&json!(3), &json!(777)));
    assert_eq!((&before["carried_in"]["bytes"], &before["cause"]), (&json!(1), &json!("rekeyed")));
    assert_eq!((&timeline["more"], &newest["spi_in"]), (&json!(true), &json!("0000c0de")));
    assert_eq!((&timeline["totals"], timeline.get("no_totals")), (&json!([]), None));
    let part = running.get("/api/timeline?since=250");
    assert_eq!((part["generations"].as_array().unwrap().len(), &part["no_totals"]), (2, &json!("too many")));
    let rows = running.get("/api/timeline?since=250&totals=false");
    assert_eq!((rows["generations"].as_array().unwrap().len(), rows.get("no_totals")), (2, None));
}

#[test]
fn events_are_paged_without_a_gap_also_within_one_moment() {
    let running = run(None);
    let mut ulids = ike_model::Ulids::default();
    // Many of one moment, as when a whole configuration is loaded.
    for seq in 1..=700_u64 {
        let moment = if (100..600).contains(&seq) { 50_000 } else { seq * 1_000 };
        let record = EventRecord { ulid: ulids.next(moment, || [0; 10]), ..loaded(seq, HOSTILE) };
        running.past().take_down(&EventRecord { time: ike_model::Rfc3339(record.ulid.time_ms()), ..record });
    }
    let mut seen = Vec::new();
    let mut path = "/api/events?limit=130".to_owned();
    loop {
        let page = running.get(&path);
        seen.extend(page["events"].as_array().unwrap().iter().map(|event| event["ulid"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/events?limit=130&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 700);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "each once, the newest first");
}

/// A reader of the stream.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn of(running: &Running, after: Option<&EventRecord>) -> Self {
        let after = after.map(|record| format!("Last-Event-ID: {}\r\n", record.ulid)).unwrap_or_default();
        let mut stream = running.connect();
        let request = format!("GET /api/events/live HTTP/1.1\r\nHost: {}\r\n{after}\r\n", running.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut follower = Self(BufReader::new(stream));
        follower.line("retry: ");
        follower
    }

    /// The rest of the next line that begins so.
    fn line(&mut self, begin: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim_end().to_owned();
            }
        }
    }

    fn seq(&mut self) -> u64 {
        serde_json::from_str::<Json>(&self.line("data: ")).unwrap()["seq"].as_u64().unwrap()
    }
}

#[test]
fn a_stream_goes_on_where_it_was_interrupted() {
    let running = run(None);
    let deliver = |seq| {
        running.past().take_down(&loaded(seq, "site"));
        running.feed.deliver(&loaded(seq, "site"));
    };
    (1..=3).for_each(deliver);
    let mut first = Follower::of(&running, None);
    (4..=5).for_each(deliver);
    assert_eq!(first.line("id: "), loaded(4, "").ulid.to_string());
    assert_eq!((first.seq(), first.seq()), (4, 5));
    drop(first);
    (6..=7).for_each(deliver);
    // From memory, and then live.
    let mut second = Follower::of(&running, Some(&loaded(5, "")));
    deliver(8);
    assert_eq!([second.seq(), second.seq(), second.seq()], [6, 7, 8]);
    // From the history what memory has not, and nothing twice.
    let mut third = Follower::of(&running, Some(&loaded(1, "")));
    deliver(9);
    let all: Vec<u64> = (0..8).map(|_| third.seq()).collect();
    assert_eq!(all, (2..=9).collect::<Vec<_>>());
}

#[test]
fn what_a_stream_cannot_tell_any_more_is_told_to_be_lost() {
    let running = run(None);
    (1..=1_500).for_each(|seq| running.past().take_down(&loaded(seq, "site")));
    let mut follower = Follower::of(&running, Some(&loaded(1, "")));
    follower.line("event: lost");
    assert_eq!(follower.line("data: "), "null");
    assert_eq!(follower.seq(), 500, "the newest thousand and one");
    // The history has not caught up with what happened before.
    let fresh = run(None);
    (1..=3).for_each(|seq| fresh.past().take_down(&loaded(seq, "site")));
    fresh.past().is_behind.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut behind = Follower::of(&fresh, Some(&loaded(1, "")));
    behind.line("event: lost");
    behind.line("data: null");
    assert_eq!((behind.seq(), behind.seq()), (2, 3));
    // A browser that has been with another gateway.
    let mut stranger = running.connect();
    let request = format!("GET /api/events/live HTTP/1.1\r\nHost: {}\r\nLast-Event-ID: 7\r\n\r\n", running.address);
    stranger.write_all(request.as_bytes()).unwrap();
    let mut stranger = Follower(BufReader::new(stranger));
    stranger.line("retry: ");
    running.feed.deliver(&loaded(1_501, "site"));
    assert_eq!(stranger.seq(), 1_501);
}

#[test]
fn a_slow_reader_learns_what_it_missed_and_streams_are_bounded() {
    let running = run(None);
    let mut slow = Follower::of(&running, None);
    // More than the sockets and the feed hold, and no more than is told long before the server has no patience left.
    let long = "x".repeat(4_096);
    let events = 6_000_u64;
    (1..=events).for_each(|seq| running.feed.deliver(&loaded(seq, &long)));
    // Once or several times, depending on who got how much of the processors.
    let (mut read, mut missed) = (0, 0);
    loop {
        let data = slow.line("data: ");
        if let Ok(lost) = data.parse::<u64>() {
            missed += lost;
            continue;
        }
        read += 1;
        if serde_json::from_str::<Json>(&data).unwrap()["seq"] == events {
            break;
        }
    }
    assert!(missed > 1_000 && read > 1_000 && missed + read == events, "{missed} lost, {read} read");
    let others: Vec<Follower> = (0..31).map(|_| Follower::of(&running, None)).collect();
    assert_eq!(running.refused("/api/events/live"), (503, "too-many-streams".into()));
    drop(others);
}

#[test]
fn samples_come_since_the_last_ones() {
    let mut later = view(vec![up("site", "net")], vec![("site", vec![child("net", 1)])]);
    let running = run_with(later.clone());
    assert_eq!(running.get("/api/status?samples=0")["tunnels"][0]["samples"], json!([]));
    assert!(running.get("/api/status")["tunnels"][0].get("samples").is_none());
    later.taken_ms += 10_000;
    later.ike_sas[0].children[0].total_in.bytes = 10_000;
    running.stage.puppet.view.send_replace(later.clone());
    // A view is kept for a second.
    let deadline = std::time::Instant::now() + PATIENCE;
    let samples = loop {
        let samples = running.get("/api/status?samples=0")["tunnels"][0]["samples"].clone();
        if samples != json!([]) || std::time::Instant::now() > deadline {
            break samples;
        }
    };
    assert_eq!(samples, json!([[later.taken_ms, 8_000, 0, null]]));
    let after = format!("/api/status?samples={}", later.taken_ms);
    assert_eq!(running.get(&after)["tunnels"][0]["samples"], json!([]));
}

#[test]
fn devices_are_shown_rung_by_rung() {
    use ike_model::device::{
        Capabilities, Device, DeviceId, DeviceState, DeviceTable, LimitUnits, ModeInUse, OffloadMode, ReplayWindows,
        Rung, SelectorSupport,
    };
    let capabilities = Capabilities {
        algorithms: Vec::new(),
        tunnel: true,
        transport: false,
        esn: true,
        replay_windows: ReplayWindows::Range(32, 256),
        selectors: SelectorSupport { ranges: false, ports: true, protocols: Some(vec![6]) },
        udp_encapsulation: true,
        limits: LimitUnits { time: false, bytes: false, packets: true },
        sa_table: Some(1024),
        policy_table: None,
        all_policy_kinds: false,
        in_place_move: false,
        separate_activation: true,
        marks: false,
        interface_ids: false,
    };
    let mode = ModeInUse { mode: OffloadMode::Packet, device: Some("eth0".into()), simulated: false };
    let rungs = vec![Rung { mode, capabilities }];
    let device = Device { id: DeviceId(1), name: "eth0".into(), state: DeviceState::Down, rungs };
    let mut view = view(Vec::new(), Vec::new());
    view.devices = Arc::new(DeviceTable { devices: vec![device] });
    let running = run_with(view);
    let device = &running.get("/api/devices")["devices"][0];
    let rung = &device["rungs"][0];
    assert_eq!((&device["name"], &device["state"], &rung["mode"]), (&json!("eth0"), &json!("down"), &json!("packet")));
    assert_eq!(rung["replay_windows"], json!(["0", "32-256"]));
    assert_eq!((&rung["limits"], &rung["sa_table"]), (&json!(["packets"]), &json!(1024)));
    assert_eq!(
        (&rung["all_protocols"], &rung["protocols"], &rung["policy_table"]),
        (&json!(false), &json!([6]), &Json::Null)
    );
}
