//! The way from the spool into a database that comes and goes.

mod file;
mod rival;

use std::time::Instant;

use ike_model::history::{
    Database, Keeping as _, Outbox as _, Redelivery, Timeline as _, Verdict, Wanted, WantedDeliveries,
};
use ike_model::{EventBody, Rfc3339};

use super::*;
use crate::cluster::Cluster;
use crate::fixture::{Place, Run};
use crate::scratch::Scratch;
use crate::{History, spool};

const PATIENT: Duration = Duration::from_secs(60);

fn options(url: &str, scratch: &Scratch) -> Options {
    Options {
        url: url.into(),
        gateway: "gw".into(),
        retention: Retention { days: 0, rows: 0 },
        spool: spool::Options { directory: scratch.path().join("spool"), size: 16 << 20, fsync: false },
        subscriptions: Vec::new(),
    }
}

fn loaded(name: u64) -> EventBody {
    EventBody::ConfigLoaded { connection: format!("c{name}") }
}

/// How many events the database has; nothing while it does not answer.
fn kept(history: &History) -> Option<usize> {
    ask(history).ok()
}

/// The same, or why it does not answer.
fn ask(history: &History) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events = runtime.block_on(history.events(&Wanted::default()));
    events.map(|events| events.len()).map_err(|error| error.to_string())
}

fn wait_for(history: &History, events: usize) {
    let begin = Instant::now();
    while kept(history) != Some(events) {
        assert!(begin.elapsed() < PATIENT, "{:?} of {events} events after {PATIENT:?}", kept(history));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until so many events are taken over and left out, and none waits: the figures follow what the database has.
fn settled(history: &History, taken_over: u64, left_out: u64) -> KeepingFigures {
    let begin = Instant::now();
    loop {
        let figures = history.figures();
        let counts = (figures.taken_over, figures.left_out, figures.waiting);
        if counts == (taken_over, left_out, 0) && figures.database == Database::Open {
            return figures;
        }
        assert!(begin.elapsed() < PATIENT, "{figures:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_taken_down_is_in_the_database_soon_and_at_the_latest_after_the_next_start() {
    for place in Place::both() {
        let scratch = Scratch::new();
        let options = options(&place.url, &scratch);
        let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
        let mut daemon = Run::new("b1", 1000);
        for number in 0..600 {
            history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
        }
        wait_for(&history, 600);
        history.recorder().record(&[daemon.record(loaded(600))]).unwrap();
        history.stop();
        drop(history);
        let history = History::start(&options, "b2", Rfc3339(2)).unwrap();
        wait_for(&history, 601);
        history.stop();
    }
}

#[test]
fn a_storm_that_does_not_end_is_taken_over_all_the_same() {
    let scratch = Scratch::new();
    let place = Place::sqlite();
    let mut options = options(&place.url, &scratch);
    options.subscriptions = vec![Subscription { endpoint: "ops".into(), events: Vec::new(), connections: Vec::new() }];
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    let begin = Instant::now();
    let mut told = 0;
    // Ten at once, so that a thread that seldom runs still tells of many.
    while history.figures().taken_over < 1000 {
        assert!(begin.elapsed() < PATIENT, "{:?}", history.figures());
        let records: Vec<_> = (0..10).map(|number| daemon.record(loaded(told + number))).collect();
        history.recorder().record(&records).unwrap();
        told += 10;
        std::thread::sleep(Duration::from_millis(5));
    }
    settled(&history, told, 0);
    history.stop();
}

#[test]
fn who_waits_for_what_was_told_has_it_although_more_comes() {
    let scratch = Scratch::new();
    let place = Place::sqlite();
    let history = History::start(&options(&place.url, &scratch), "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..10 {
        let records: Vec<_> = (0..100).map(|number| daemon.record(loaded(number))).collect();
        history.recorder().record(&records).unwrap();
        let begin = Instant::now();
        while runtime.block_on(history.complete()) != Ok(true) {
            assert!(begin.elapsed() < PATIENT, "{:?}", history.figures());
        }
    }
    assert_eq!(kept(&history), Some(1000));
    history.stop();
}

#[test]
fn a_database_that_cannot_be_opened_yet_holds_up_nobody() {
    let scratch = Scratch::new();
    let obstacle = scratch.path().join("data");
    std::fs::write(&obstacle, "a file where a directory should be").unwrap();
    let options = options(&format!("sqlite://{}/history.db", obstacle.display()), &scratch);
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    for number in 0..100 {
        history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
    }
    assert_eq!(kept(&history), None);
    std::fs::remove_file(&obstacle).unwrap();
    wait_for(&history, 100);
    history.stop();
}

#[test]
fn a_server_that_goes_and_comes_back_misses_nothing() {
    let mut cluster = Cluster::start();
    let scratch = Scratch::new();
    let options = options(&cluster.database(), &scratch);
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    let mut tell = |count: u64| {
        let begin = Instant::now();
        for number in 0..count {
            history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
        }
        assert!(begin.elapsed() < PATIENT / 2, "nobody waits for a database");
    };
    tell(300);
    wait_for(&history, 300);
    cluster.pause();
    tell(300);
    assert_eq!(kept(&history), None);
    cluster.resume();
    wait_for(&history, 600);
    tell(10);
    wait_for(&history, 610);
    history.stop();
}

#[test]
fn an_older_release_keeps_no_history_and_stops_nobody() {
    let place = Place::sqlite();
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = place.store().await;
        store.do_it("INSERT INTO cygnet_schema (version, compatible_from) VALUES (9, 9)").await;
        store.close().await;
    });
    let mut options = options(&place.url, &scratch);
    options.spool.size = 8 << 10;
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    let begin = Instant::now();
    // Far more than the spool holds, once it is known that nobody will read it.
    let mut taken = 0;
    while taken < 1000 {
        assert!(begin.elapsed() < PATIENT);
        let record = daemon.record(loaded(taken));
        taken += u64::from(history.recorder().record(&[record]).is_ok());
    }
    assert!(history.recorder().has_room());
    assert_eq!(kept(&history), None);
    history.stop();
}

#[test]
fn who_waits_for_deliveries_is_woken_by_them() {
    for place in Place::both() {
        let scratch = Scratch::new();
        let mut options = options(&place.url, &scratch);
        options.subscriptions =
            vec![Subscription { endpoint: "ops".into(), events: Vec::new(), connections: Vec::new() }];
        let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
        let mut daemon = Run::new("b1", 1000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let patiently = async |seen| timeout(PATIENT, history.news(seen)).await.expect("news").unwrap();
            let mut seen = patiently(0).await;
            assert_eq!(history.next_due("ops").await, Ok(None), "open, and nothing to do yet");
            assert!(timeout(Duration::from_millis(50), history.news(seen)).await.is_err());
            history.recorder().record(&[daemon.record(loaded(1))]).unwrap();
            seen = patiently(seen).await;
            let due = history.claim("ops", 30_000, 9).await.unwrap();
            assert_eq!(due.len(), 1);
            let dead = Verdict::Dead { error: "404".into() };
            history.settle_all(&[(due[0].clone(), dead)]).await.unwrap();
            assert_eq!(history.redeliver(&Redelivery::default()).await, Ok(1));
            seen = patiently(seen).await;
            history.disable("ops", "410").await.unwrap();
            assert_eq!(history.claim("ops", 30_000, 9).await, Ok(Vec::new()));
            assert_eq!(history.enable("ops").await, Ok(true));
            patiently(seen).await;
            let again = history.claim("ops", 30_000, 9).await.unwrap();
            assert_eq!(again, due);
            history.settle(&again[0], Verdict::Delivered).await.unwrap();
            assert_eq!(history.deliveries(&WantedDeliveries::default()).await.unwrap()[0].attempts, 1);
        });
        history.stop();
    }
}

#[test]
fn figures_tell_what_waits_and_why() {
    let scratch = Scratch::new();
    let obstacle = scratch.path().join("data");
    std::fs::write(&obstacle, "a file where a directory should be").unwrap();
    let options = options(&format!("sqlite://{}/history.db", obstacle.display()), &scratch);
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 5000);
    for number in 0..100 {
        history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
    }
    let begin = Instant::now();
    while !matches!(history.figures().database, Database::Away { .. }) {
        assert!(begin.elapsed() < PATIENT, "{:?}", history.figures());
        std::thread::sleep(Duration::from_millis(5));
    }
    let figures = history.figures();
    let Database::Away { error, .. } = &figures.database else { panic!("{figures:?}") };
    assert_eq!(figures.last_error.as_ref(), Some(error));
    // The first is that the run begins.
    assert_eq!((figures.engine, figures.waiting, figures.oldest_ms), ("sqlite", 101, Some(1)));
    assert!(figures.has_room && figures.spool_used > 100 * 100 && figures.spool_size == 16 << 20, "{figures:?}");
    history.stop();
    drop(history);
    let history = History::start(&options, "b2", Rfc3339(2)).unwrap();
    assert_eq!(history.figures().waiting, 102, "what an earlier run left counts");
    std::fs::remove_file(&obstacle).unwrap();
    wait_for(&history, 100);
    assert_eq!(settled(&history, 100, 0).oldest_ms, None);
    history.stop();
}

#[test]
fn a_database_that_was_made_anew_gets_its_tables_and_goes_on() {
    let cluster = Cluster::start();
    let scratch = Scratch::new();
    let url = cluster.database();
    let options = options(&url, &scratch);
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    for number in 0..10 {
        history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
    }
    wait_for(&history, 10);
    cluster.drop_database(&url);
    for number in 0..10 {
        history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
    }
    let begin = Instant::now();
    // Whoever asks may find out before the keeper does, which then knows that events wait.
    loop {
        match ask(&history) {
            Err(reason) if reason.contains("does not exist") && reason.contains("events wait in the spool") => break,
            other => assert!(begin.elapsed() < PATIENT, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.create_database(&url);
    wait_for(&history, 10);
    history.stop();
}

/// The database refuses what is in it already under another run and number.
#[test]
fn an_event_that_is_refused_is_left_out_alone() {
    for place in Place::both() {
        let scratch = Scratch::new();
        let history = History::start(&options(&place.url, &scratch), "b1", Rfc3339(1)).unwrap();
        let mut daemon = Run::new("b1", 1000);
        let first = daemon.record(loaded(0));
        history.recorder().record(std::slice::from_ref(&first)).unwrap();
        wait_for(&history, 1);
        let records: Vec<_> = (1..300)
            .map(|number| {
                let record = daemon.record(loaded(number));
                if number == 77 { ike_model::EventRecord { ulid: first.ulid, ..record } } else { record }
            })
            .collect();
        history.recorder().record(&records).unwrap();
        wait_for(&history, 299);
        settled(&history, 299, 1);
        history.stop();
    }
}
