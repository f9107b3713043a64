//! A file of SQLite that is damaged, full, held by somebody else, or no database at all.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::*;

fn location(scratch: &Scratch) -> (PathBuf, String) {
    let file = scratch.path().join("history.db");
    let url = format!("sqlite://{}", file.display());
    (file, url)
}

fn tell(history: &History, daemon: &mut Run, events: u64) {
    for number in 0..events {
        history.recorder().record(&[daemon.record(loaded(number))]).unwrap();
    }
}

fn wait_until_away(history: &History, because: &str) {
    let begin = Instant::now();
    loop {
        let figures = history.figures();
        if let Database::Away { error, .. } = &figures.database
            && error.contains(because)
        {
            return;
        }
        assert!(begin.elapsed() < PATIENT, "not {because:?}: {figures:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn beside(file: &Path, what: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(what)).collect()
}

#[test]
fn a_damaged_file_is_kept_and_a_new_one_begun() {
    let scratch = Scratch::new();
    let (file, url) = location(&scratch);
    let options = options(&url, &scratch);
    let history = History::start(&options, "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    tell(&history, &mut daemon, 200);
    wait_for(&history, 200);
    history.stop();
    drop(history);
    // The first page, which says that this is a database, stays; nothing of the others does.
    let length = fs::metadata(&file).unwrap().len();
    let garbage = vec![0xA5; usize::try_from(length).unwrap() - 4096];
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&garbage, 4096).unwrap();
    let history = History::start(&options, "b2", Rfc3339(2)).unwrap();
    let mut daemon = Run::new("b2", 2000);
    tell(&history, &mut daemon, 50);
    wait_for(&history, 50);
    assert!(history.figures().last_error.is_some_and(|error| error.contains("malformed")));
    history.stop();
    let kept: Vec<_> = beside(&file, "history.db.damaged-").iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(kept.iter().any(|kept| kept.ends_with(&garbage)), "as it was, of {length} octets");
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let scratch = Scratch::new();
    let (file, url) = location(&scratch);
    let words = "somebody's letters, and no database at all. ".repeat(100);
    fs::write(&file, &words).unwrap();
    let history = History::start(&options(&url, &scratch), "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    tell(&history, &mut daemon, 20);
    wait_until_away(&history, "not a database");
    assert_eq!((fs::read_to_string(&file).unwrap(), beside(&file, "damaged").len()), (words, 0));
    fs::remove_file(&file).unwrap();
    wait_for(&history, 20);
    history.stop();
}

#[test]
fn a_full_or_held_file_is_written_once_it_can_be() {
    let scratch = Scratch::new();
    let (file, url) = location(&scratch);
    let history = History::start(&options(&url, &scratch), "b1", Rfc3339(1)).unwrap();
    let mut daemon = Run::new("b1", 1000);
    tell(&history, &mut daemon, 10);
    wait_for(&history, 10);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = history.ask(|store| async move {
        store.do_it("PRAGMA max_page_count = 1").await;
        Ok(())
    });
    runtime.block_on(limit).unwrap();
    tell(&history, &mut daemon, 400);
    wait_for(&history, 410);
    assert!(history.figures().last_error.is_some_and(|error| error.contains("full")), "{:?}", history.figures());
    // Somebody looks at it with another program, and holds it.
    let place = Location::parse(&url).unwrap();
    runtime.block_on(async {
        let other = Store::open(&place, "other", Vec::new()).await.unwrap();
        other.do_it("BEGIN EXCLUSIVE").await;
        tell(&history, &mut daemon, 400);
        wait_until_away(&history, "locked");
        other.do_it("ROLLBACK").await;
        other.close().await;
    });
    wait_for(&history, 810);
    assert_eq!(beside(&file, "damaged").len(), 0);
    history.stop();
}
