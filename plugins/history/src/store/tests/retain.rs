//! What is forgotten, and what that costs whoever writes meanwhile.

use std::time::{Duration, Instant};

use super::outbox::to;
use super::*;

const DAY: u64 = 86_400_000;

#[test]
fn what_is_old_or_too_much_is_forgotten_unless_it_is_still_needed() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("ends", &["child-sa.closed"])]).await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = daemon.life("site", "old", 1, 1);
            entries.extend(daemon.life("site", "up", 11, 0).drain(..2));
            store.apply(&entries).await.unwrap();
            let mut young = Run::new("b2", NOON + 10 * DAY);
            store.apply(&young.life("site", "young", 1, 0)).await.unwrap();
            let keep = Retention { days: 5, rows: 0 };
            store.forget(keep, NOON + 4 * DAY).await.unwrap();
            assert_eq!(count(&store, "event").await, 11, "nothing is that old");
            store.forget(keep, NOON + 11 * DAY).await.unwrap();
            let children = store.generations(&Wanted::default()).await.unwrap();
            let names: Vec<_> = children.iter().map(|row| &*row.child).collect();
            assert_eq!(names, ["young", "up"], "what is up stays, however old");
            let old = format!("event WHERE time_us < {}", (NOON + DAY) * 1000);
            assert_eq!(count(&store, &old).await, 1, "what is to be delivered stays");
            let due = store.claim("ends", NOON + 11 * DAY, 0, 1).await.unwrap();
            store.settle(&[(due[0].clone(), Verdict::Delivered)], NOON + 11 * DAY).await.unwrap();
            store.forget(keep, NOON + 11 * DAY).await.unwrap();
            assert_eq!((count(&store, &old).await, count(&store, "delivery").await), (0, 1));
            assert_eq!(count(&store, "event").await, 4);
            store.forget(Retention { days: 0, rows: 1 }, NOON + 11 * DAY).await.unwrap();
            assert_eq!(count(&store, "event").await, 2, "the newest, and the one to be delivered");
            store.close().await;
        });
    }
}

#[test]
fn what_waits_is_passed_by_and_what_goes_takes_its_deliveries_and_totals_along() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("slow", &["ike-sa.*"]), to("ops", &[])]).await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = vec![daemon.boot()];
            for life in 0..700 {
                entries.extend(daemon.life("site", &format!("n{}", life % 7), life * 10, 1));
            }
            // Their daemon dies: all of them end at the same moment.
            for life in 0..1300 {
                entries.extend(daemon.life("gone", "many", 10_000 + life, 0).drain(..2));
            }
            let mut next = Run::new("b2", NOON + 20 * DAY);
            entries.push(next.boot());
            entries.extend(next.life("site", "n3", 1, 0));
            store.apply(&entries).await.unwrap();
            let due = store.claim("ops", NOON + 30 * DAY, 0, 100_000).await.unwrap();
            let settled: Vec<_> = due.into_iter().map(|due| (due, Verdict::Delivered)).collect();
            store.settle(&settled, NOON + 30 * DAY).await.unwrap();
            let waiting = 700 * 2 + 1300 + 2;
            assert_eq!(count(&store, "delivery WHERE state = 'waiting'").await, waiting);
            let forgotten = store.forget(Retention { days: 5, rows: 0 }, NOON + 22 * DAY).await.unwrap();
            // Of SAs all that ended before; of events what no longer waits.
            assert_eq!(count(&store, "child_sa").await, 1 + 1300, "these ended when the next daemon began");
            assert_eq!(count(&store, "event").await, waiting + 2);
            assert_eq!(count(&store, "delivery WHERE ulid NOT IN (SELECT ulid FROM event)").await, 0);
            assert_eq!(forgotten, 700 * 2 + 700 + 700 * 3 + 1300);
            let totals = store.totals(&Wanted::default()).await.unwrap();
            let known: Vec<_> = totals.iter().map(|total| (&*total.child, total.generations)).collect();
            assert_eq!(
                known,
                [("many", 1300), ("n3", 100 * 2 + 1)],
                "what was forgotten of a child that is known counts"
            );
            let forgotten = store.forget(Retention { days: 5, rows: 0 }, NOON + 26 * DAY).await.unwrap();
            assert_eq!((forgotten, count(&store, "child_sa").await), (1300 + 1300 + 1 + 1 + 2, 0));
            assert_eq!(count(&store, "child_total").await + count(&store, "connection_total").await, 0);
            store.close().await;
        });
    }
}

#[test]
fn a_file_gives_back_what_was_forgotten() {
    let place = Place::sqlite();
    run(async {
        let store = place.store().await;
        let mut daemon = Run::new("b1", NOON);
        for _ in 0..8 {
            let entries: Vec<Entry> = (0..100).flat_map(|life| daemon.life("site", "net", life * 20, 9)).collect();
            store.apply(&entries).await.unwrap();
            daemon = Run::new(&format!("b{}", daemon.time_ms()), daemon.time_ms());
        }
        let pages = async || {
            let rows = Sql::new("PRAGMA page_count").fetch(&store.writer).await.unwrap();
            rows[0].try_get::<i64, _>(0).unwrap()
        };
        let before = pages().await;
        store.forget(Retention { days: 1, rows: 0 }, NOON + 30 * DAY).await.unwrap();
        let after = pages().await;
        assert!(before > 4000 && after < before / 3, "{before} pages, then {after}");
        store.close().await;
    });
}

/// A statement that forgets everything at once would hold up a batch for as long as that takes.
#[test]
fn forgetting_holds_up_nobody_for_long() {
    for place in [Place::sqlite, Place::postgres] {
        // A machine with much else to do may hold up one batch by itself, but not one of each attempt. The first that shows it is the last.
        assert!((0..10).any(|_| run(batches_go_on(&place()))));
    }
}

/// Whether those that come while much is forgotten wait for a small part of that time only.
async fn batches_go_on(place: &Place) -> bool {
    let store = place.store_of("gw", vec![to("ops", &[])]).await;
    let mut daemon = Run::new("b1", NOON);
    for life in 0..20 {
        let entries: Vec<Entry> = (0..50).flat_map(|at| daemon.life("site", "net", (life * 50 + at) * 10, 5)).collect();
        store.apply(&entries).await.unwrap();
    }
    store.do_it("UPDATE delivery SET state = 'delivered'").await;
    let mut next = Run::new("b2", NOON + 20 * DAY);
    let begin = Instant::now();
    let forgetting = async {
        let rows = store.forget(Retention { days: 5, rows: 0 }, NOON + 22 * DAY).await.unwrap();
        (rows, begin.elapsed())
    };
    let mut longest = Duration::ZERO;
    let mut batches = 0;
    let writing = async {
        loop {
            let entries = next.life("site", "net", batches * 10, 0);
            let begin = Instant::now();
            store.apply(&entries).await.unwrap();
            longest = longest.max(begin.elapsed());
            batches += 1;
        }
    };
    let (rows, took) = tokio::select! {
        done = forgetting => done,
        () = writing => unreachable!(),
    };
    println!("{:?}: {rows} rows in {took:?}, {batches} batches meanwhile, {longest:?} at most", store.engine);
    assert_eq!(rows, 1000 * (9 + 6 + 1));
    store.close().await;
    batches > 30 && longest < took / 4
}
