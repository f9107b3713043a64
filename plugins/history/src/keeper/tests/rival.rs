//! Two daemons that keep their history under one name.

use super::*;

fn rival_of(history: &History) -> Option<String> {
    history.figures().rival
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_second_daemon_of_the_same_name_says_whose_it_is_until_that_one_has_ended() {
    for place in Place::both() {
        let (one, two) = (Scratch::new(), Scratch::new());
        let first = History::start(&options(&place.url, &one), "b1", Rfc3339(1)).unwrap();
        let mut daemon = Run::new("b1", 1000);
        first.recorder().record(&[daemon.record(loaded(1))]).unwrap();
        wait_for(&first, 1);
        let second = History::start(&options(&place.url, &two), "b2", Rfc3339(2)).unwrap();
        wait_until("the second finds the first", || rival_of(&second).is_some());
        let said = rival_of(&second).unwrap();
        let here = format!("process {} on ", std::process::id());
        assert!(said.starts_with(&here) && said.contains("since 1970-01-01T00:00:00.001Z"), "{said}");
        assert_eq!(rival_of(&first), None, "{}", place.url);
        // Both go on.
        second.recorder().record(&[Run::new("b2", 2000).record(loaded(2))]).unwrap();
        wait_for(&second, 2);
        first.stop();
        drop(first);
        wait_until("the second is alone", || rival_of(&second).is_none());
        second.stop();
    }
}

/// The server does not know yet that a machine has vanished: its lock is nobody's, and nobody is told of it.
#[test]
fn a_predecessor_that_has_vanished_is_no_rival() {
    let place = Place::postgres();
    let scratch = Scratch::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (there, runtime) = (runtime(), runtime());
    // It holds its lock and, as nothing there runs any more, says no more.
    let vanished = there.block_on(async {
        let store = place.store().await;
        assert_eq!(store.rival("b1").await.unwrap(), None);
        let mut daemon = Run::new("b1", 1000);
        let mut entries = vec![daemon.boot()];
        entries.extend(daemon.life("site", "net", 1, 0).drain(..2));
        store.apply(&entries).await.unwrap();
        store
    });
    let history = History::start(&options(&place.url, &scratch), "b2", Rfc3339(9000)).unwrap();
    let up = || {
        let wanted = Wanted { up: true, ..Wanted::default() };
        runtime.block_on(history.generations(&wanted)).map(|rows| rows.len()).ok()
    };
    history.recorder().record(&[Run::new("b2", 9000).record(loaded(1))]).unwrap();
    wait_until("the database is open", || up() == Some(1));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((rival_of(&history), up()), (None, Some(1)), "it may live, and nothing of it is closed");
    there.block_on(vanished.close());
    wait_until("what it left open is closed", || up() == Some(0));
    assert_eq!(rival_of(&history), None);
    history.stop();
}
