use super::*;

/// A configured child as the daemon tells of it.
fn child(name: &str, state: &str, more: &[(&str, &str)]) -> Message {
    let mut child = Message::new().with("state", state);
    let mut cause = Message::new();
    for (key, value) in more {
        match key.strip_prefix("cause-") {
            Some(key) => cause.set(key, *value),
            None => child.set(*key, *value),
        }
    }
    if !cause.is_empty() {
        child.section("last-cause", cause);
    }
    let mut event = Message::new();
    event.section(name, child);
    event
}

/// A CHILD SA: unique id, generation, state, octets and packets over all generations, and how old it is.
#[derive(Clone, Copy)]
struct Sa {
    id: u64,
    generation: u64,
    state: &'static str,
    total: [u64; 4],
    age: u64,
}

const SA: Sa = Sa { id: 1, generation: 0, state: "INSTALLED", total: [0; 4], age: 100 };

fn ike(connection: &str, name: &str, sas: &[Sa]) -> Message {
    let mut children = Message::new();
    for sa in sas {
        let mut child = Message::new().with("name", name).with("state", sa.state);
        child.set_display("uniqueid", sa.id);
        child.set_display("generation", sa.generation);
        child.set_display("install-time", sa.age);
        let keys = ["bytes-total-in", "packets-total-in", "bytes-total-out", "packets-total-out"];
        keys.iter().zip(sa.total).for_each(|(key, value)| child.set_display(*key, value));
        for (key, value) in [("bytes-in", "700"), ("bytes-out", "900"), ("packets-in", "7"), ("packets-out", "3")] {
            child.set(key, value);
        }
        for (key, value) in [("rekey-time", "3100"), ("rekey-bytes", "5000000900"), ("rekey-packets", "1000000")] {
            child.set(key, value);
        }
        children.section(format!("{name}-{}", sa.id), child);
    }
    let mut section = Message::new().with("state", "ESTABLISHED");
    section.section("child-sas", children);
    let mut event = Message::new();
    event.section(connection, section);
    event
}

fn look(at_ms: u64, sas: &[Sa]) -> Look {
    let up = child("site/net", "up", &[("hw-offload", "packet"), ("offload-dev", "eth0")]);
    Look { children: vec![up], ike_sas: vec![ike("site", "net", sas)], at_ms, wall: 1_000 }
}

fn rate(view: &View) -> Option<[u64; 4]> {
    view.rows()[0].rate.map(|rate| [rate.bytes_in, rate.packets_in, rate.bytes_out, rate.packets_out])
}

#[test]
fn throughput_is_honest_over_rekeys_and_restarts() {
    let mut view = View::default();
    view.look(&look(0, &[Sa { total: [1_000, 10, 2_000, 20], ..SA }]));
    assert_eq!(rate(&view), None, "of one look nothing is known");
    view.look(&look(2_000, &[Sa { total: [3_000, 30, 2_000, 20], ..SA }]));
    assert_eq!(rate(&view), Some([1_000, 10, 0, 0]));
    // Rekeyed twice in one interval: the sums go on, and the one that lingers is not counted again.
    let lingers = Sa { state: "REKEYED", total: [9_000, 90, 9_000, 90], ..SA };
    view.look(&look(4_000, &[lingers, Sa { id: 3, generation: 2, total: [5_000, 40, 4_000, 40], age: 0, ..SA }]));
    assert_eq!(rate(&view), Some([1_000, 5, 1_000, 10]));
    // Authenticated afresh: beside the old one there is a new one, of which all is new.
    let old = Sa { id: 3, generation: 2, total: [5_200, 42, 4_000, 40], ..SA };
    view.look(&look(6_000, &[old, Sa { id: 4, total: [800, 8, 600, 6], age: 1, ..SA }]));
    assert_eq!((rate(&view), view.rows()[0].sas), (Some([500, 5, 300, 3]), 2));
    view.look(&look(8_000, &[Sa { id: 4, total: [2_800, 28, 600, 6], age: 3, ..SA }]));
    assert_eq!(rate(&view), Some([1_000, 10, 0, 0]));
    // One that is older than the interval and was not seen before: how much of it is new cannot be known.
    view.look(&look(10_000, &[Sa { id: 9, total: [90_000, 900, 0, 0], age: 70, ..SA }]));
    assert_eq!(rate(&view), None);
    view.look(&look(11_000, &[Sa { id: 9, total: [90_500, 905, 0, 0], age: 71, ..SA }]));
    assert_eq!(rate(&view), Some([500, 5, 0, 0]));
    // The daemon was away.
    view.forget();
    view.look(&look(12_000, &[Sa { id: 1, total: [7, 7, 7, 7], age: 0, ..SA }]));
    assert_eq!(rate(&view), None);
}

/// Four children, of which one has a name as nobody should give.
fn four() -> View {
    let mut view = View::default();
    let cause = [("cause-text", "the peer does not answer"), ("cause-time", "700")];
    let children = vec![
        child("a-rather-long-connection-name/and-child", "up", &[("hw-offload", "no")]),
        child("evil\u{1b}[2J\u{202e}/net", "refused", &[("reason", "no such\nthing")]),
        child("gw/lan", "retry", &[("retry-in", "17"), ("failures", "4"), cause[0], cause[1]]),
        child(
            "site/net",
            "up",
            &[("hw-offload", "packet"), ("offload-dev", "eth0"), ("cause-text", "rekeying failed")],
        ),
    ];
    let sas = |total| {
        vec![
            ike("a-rather-long-connection-name", "and-child", &[Sa { total, ..SA }]),
            ike("site", "net", &[Sa { id: 2, total: [0, 0, total[2] * 1_000, total[3]], ..SA }]),
        ]
    };
    view.look(&Look { children: children.clone(), ike_sas: sas([0; 4]), at_ms: 0, wall: 1_000 });
    view.look(&Look { children, ike_sas: sas([2_469, 24, 3_000, 30]), at_ms: 2_000, wall: 1_000 });
    view
}

fn screen(columns: usize, lines: usize) -> Screen<'static> {
    Screen { columns, lines, above: 0, choice: Choice::default(), interval: "2s", time: "14:03:20", lost: None }
}

#[test]
fn a_screen_of_80_columns() {
    let expected = "\
cygnet 14:03:20  4 children: 1 refused, 1 retry, 2 up  in 1.2kB/s  out 1.5MB/s
every 2s, by name (s)  d: not up only  q: quit
CHILD            STATE      IN B/s pkt/s    OUT pkt/s REKEY IN         OFFLOAD
a-rather…d-child up           1.2k    12   1.5k    15 51m 5.0GB 999kp  no
evil\\u{1…2e}/net refused         -     -      -     -
  last: no such\\nthing
gw/lan           retry 17s       -     -      -     -
  last: the peer does not answer (5m ago)
site/net         up              0     0   1.5M    15 51m 5.0GB 999kp  pack…eth0
  last: rekeying failed
";
    let frame = screen(80, 24).draw(&four());
    assert_eq!(frame.text(), expected);
    assert!(frame.text().lines().all(|line| width(line) <= 80));
}

#[test]
fn a_wide_screen_shows_all_of_it_and_a_small_one_what_fits() {
    let wide = screen(120, 24).draw(&four()).text();
    assert!(wide.contains("a-rather-long-connection-name/and-child up "), "{wide}");
    assert!(wide.contains("packet eth0"), "{wide}");
    for (columns, lines) in [(80, 5), (40, 3), (20, 24), (1, 1), (0, 0), (10, 2)] {
        let frame = screen(columns, lines).draw(&four());
        assert!(frame.lines.len() <= lines, "{columns}x{lines}");
        let text = frame.text();
        assert!(text.lines().all(|line| width(line) <= columns), "{columns}x{lines}:\n{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    }
}

#[test]
fn children_are_chosen_sorted_and_scrolled() {
    let view = four();
    let names =
        |choice| view.chosen(choice).iter().map(|row| row.name.chars().take(4).collect::<String>()).collect::<Vec<_>>();
    assert_eq!(names(Choice::default()), ["a-ra", "evil", "gw/l", "site"]);
    assert_eq!(names(Choice { sort: Sort::Throughput, down: false }), ["site", "a-ra", "evil", "gw/l"]);
    assert_eq!(names(Choice { sort: Sort::State, down: false }), ["evil", "gw/l", "a-ra", "site"]);
    assert_eq!(names(Choice { sort: Sort::Name, down: true }), ["evil", "gw/l"]);
    assert_eq!(Sort::Name.next().next().next(), Sort::Name);
    let scrolled = Screen { above: 3, ..screen(80, 24) }.draw(&view).text();
    assert!(scrolled.contains("from 4 of 4") && !scrolled.contains("gw/lan"), "{scrolled}");
    let lost = Screen { lost: Some(("14:03:10", "no such file")), ..screen(80, 24) }.draw(&view).text();
    assert!(lost.contains("daemon not reachable since 14:03:10: no such file"), "{lost}");
}

#[test]
fn lines_and_objects_carry_the_same() {
    let view = four();
    let text = lines(&view, Choice { sort: Sort::State, down: false }, "14:03:20");
    let expected = "\
14:03:20 evil\\u{1b}[2J\\u{202e}/net refused last: no such\\nthing
14:03:20 gw/lan retry in 17s last: the peer does not answer (300s ago)
14:03:20 a-rather-long-connection-name/and-child up SAs 1 in 1234 B/s 12 pkt/s out 1500 B/s 15 pkt/s \
rekey in 3100s or 5000000000 B or 999993 pkt offload no
14:03:20 site/net up SAs 1 in 0 B/s 0 pkt/s out 1500000 B/s 15 pkt/s rekey in 3100s or 5000000000 B or 999993 pkt \
offload packet eth0 last: rekeying failed
";
    assert_eq!(text, expected);
    let found = json(&view, Choice::default());
    assert_eq!(found["children"][3]["per-second"]["bytes-out"], 1_500_000);
    assert_eq!(found["children"][2]["retry-in"], 17);
    assert_eq!(found["children"][2]["trouble"]["age"], 300);
    assert_eq!(found["children"][1]["trouble"]["age"], serde_json::Value::Null);
    assert_eq!(found["children"].as_array().unwrap().len(), 4);
    assert_eq!(unreachable_json(7, "gone")["reachable"], false);
    assert_eq!(unreachable_line("14:03:20", "go\u{7}ne"), "14:03:20 daemon not reachable: go\\u{7}ne\n");
}

#[test]
fn text_fits_its_cells() {
    assert_eq!(cut("short", 5), "short");
    assert_eq!(cut("connection/child", 9), "conn…hild");
    assert_eq!(cut("日本語の名前", 6), "日…前");
    assert!(width(&cut("日本語の名前", 6)) <= 6);
    assert_eq!((cut("abc", 1), cut("abc", 0)), ("…".into(), String::new()));
    let amounts = [(0, "0"), (999, "999"), (1_000, "1.0k"), (12_345, "12k"), (999_999, "999k"), (1_000_000, "1.0M")];
    for (value, text) in amounts {
        assert_eq!(cells::amount(value), text);
    }
    assert_eq!(cells::amount(u64::MAX), "18E");
    assert_eq!([119, 120, 7_199, 7_200, 172_800].map(cells::span), ["119s", "2m", "119m", "2h", "2d"]);
}

#[test]
fn thousands_of_children_are_joined_and_drawn_without_delay() {
    const MANY: u64 = 5_000;
    let children = |_| (0..MANY).map(|n| child(&format!("site-{n}/net"), "up", &[("hw-offload", "no")])).collect();
    let sas =
        |sum| (0..MANY).map(|n| ike(&format!("site-{n}"), "net", &[Sa { id: n, total: [sum; 4], ..SA }])).collect();
    let mut view = View::default();
    for at in 0..2 {
        view.look(&Look { children: children(at), ike_sas: sas(at * 1_000), at_ms: at * 1_000, wall: 0 });
    }
    assert_eq!(
        view.sum(),
        Rate { bytes_in: 5_000_000, packets_in: 5_000_000, bytes_out: 5_000_000, packets_out: 5_000_000 }
    );
    let frame = Screen { above: 4_990, ..screen(80, 24) }.draw(&view);
    assert_eq!((frame.lines.len(), frame.most_above), (13, 4_999));
}
