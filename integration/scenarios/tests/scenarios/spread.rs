//! What was installed in the same instant is not rekeyed in the same instant: 10,000 IKE SAs with a CHILD SA each, over their jitter windows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ike_model::{Connection, EventBody};
use ike_sa::Input;
use ipsec::Instant;
use ipsec::limits::Lifetime;
use scenarios::config;

use crate::memory::{COUNT, End, ends, establish, exchange};

/// Seconds until rekeying at the latest, and so many sooner at most.
#[derive(Clone, Copy)]
struct Window {
    last: u64,
    length: u64,
}

/// CHILD SAs as by default; IKE SAs sooner, so that nothing is rekeyed twice meanwhile.
const CHILD: Window = Window { last: 3_600, length: 360 };
const IKE: Window = Window { last: 3_000, length: 300 };

fn with_lifetimes(connection: Connection) -> Connection {
    let mut connection = config::with_child(connection, |child| {
        child.lifetime.time = Lifetime { soft: CHILD.last, hard: CHILD.last + CHILD.length, jitter: CHILD.length };
    });
    connection.rekey_time = Duration::from_secs(IKE.last);
    (connection.rand_time, connection.over_time) = (Duration::from_secs(IKE.length), Duration::from_secs(IKE.length));
    connection
}

/// Runs both ends until this second. Datagrams take no time.
fn run_until([a, b]: [&mut End; 2], second: u64) {
    let end = Instant::new(Duration::from_secs(second));
    let mut to_b = VecDeque::new();
    loop {
        let next = [a.endpoint.poll_deadline(), b.endpoint.poll_deadline()].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else { return };
        (a.now, b.now) = (a.now.max(next), b.now.max(next));
        a.handle(Input::Deadline, &mut to_b);
        exchange([a, b], &mut to_b);
        let mut to_a = VecDeque::new();
        b.handle(Input::Deadline, &mut to_a);
        assert!(to_a.is_empty(), "B begins something");
    }
}

/// How many there were in each second, of the first time that each was rekeyed.
fn judge(what: &str, window: Window, rekeyed: impl Iterator<Item = Instant>) {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    // The clock begins at one second.
    rekeyed.for_each(|at| *seconds.entry(at.since_start().as_secs() - 1).or_default() += 1);
    let (all, most) = (seconds.values().sum::<usize>(), seconds.values().max().copied().unwrap_or_default());
    let mean = COUNT as f64 / window.length as f64;
    println!("{what}: {all} rekeyings in {} s, {mean:.1} in a second, {most} at most", window.length);
    assert_eq!(all, COUNT, "{what}");
    let (first, last) = (window.last - window.length, window.last);
    assert!(seconds.keys().all(|second| (first..=last).contains(second)), "{what}: outside of the window");
    // Six standard deviations of what chance puts into a second.
    assert!((most as f64) < mean + 6.0 * mean.sqrt(), "{what}: {most} in one second");
    // And no part of the window has much more or less than its share.
    for tenth in 0..10 {
        let begin = first + tenth * window.length / 10;
        let part = seconds.range(begin..begin + window.length / 10).map(|(_, count)| count).sum::<usize>();
        let share = COUNT / 10;
        assert!((share * 85 / 100..=share * 115 / 100).contains(&part), "{what}: {part} in part {tenth}");
    }
}

#[test]
fn ten_thousand_tunnels_installed_at_once() {
    let [mut a, mut b] = ends(with_lifetimes);
    a.keeps = |body| {
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for two kinds among all")]
        match body {
            EventBody::ChildSaRekeyed { new, .. } => new.generation == 1,
            EventBody::IkeSaRekeyed { new, .. } => new.generation == 1,
            _ => false,
        }
    };
    establish([&mut a, &mut b]);
    run_until([&mut a, &mut b], 1 + IKE.last + 1);
    judge("IKE SAs", IKE, a.told.iter().map(|(at, _)| *at));
    a.told.clear();
    run_until([&mut a, &mut b], 1 + CHILD.last + 1);
    judge("CHILD SAs", CHILD, a.told.iter().map(|(at, _)| *at));
    let counts = a.endpoint.counts();
    assert_eq!((counts.established, b.endpoint.counts().established), (COUNT, COUNT));
}
