//! Who writes for a gateway, and who finds that somebody does.

use super::*;

/// The second one learns who the first is, and closes nothing of it; once the first is gone, it takes its place.
#[test]
fn the_second_daemon_of_a_name_learns_who_the_first_is() {
    for place in Place::both() {
        run(async {
            let first = place.store().await;
            assert_eq!(first.rival("b1").await.unwrap(), None);
            assert_eq!(first.rival("b1").await.unwrap(), None, "it holds the lock already");
            let mut daemon = Run::new("b1", NOON);
            let mut entries = vec![daemon.boot_on("gw-a.example", 4711)];
            entries.extend(daemon.life("site", "net", 1, 0).drain(..2));
            first.apply(&entries).await.unwrap();
            let second = place.store().await;
            let rival = second.rival("b2").await.unwrap().unwrap();
            assert_eq!(rival.boot_id, "b1");
            let (process, since) = (Some(("gw-a.example".into(), 4711)), Some(NOON));
            assert_eq!((&rival.process, rival.since_ms), (&process, since), "{}", place.url);
            let said = rival.to_string();
            assert!(said.starts_with("process 4711 on gw-a.example") && said.contains(", since 20"), "{said}");
            assert!(!second.is_alone() && first.is_alone());
            second.apply(&[Run::new("b2", NOON + 9000).boot_on("gw-a.example", 4712)]).await.unwrap();
            let up = Wanted { up: true, ..Wanted::default() };
            assert_eq!(second.generations(&up).await.unwrap().len(), 1, "what the first has open stays open");
            // One of another name is in nobody's way.
            let other = place.store_of("gw/b", Vec::new()).await;
            assert_eq!(other.rival("b9").await.unwrap(), None);
            first.close().await;
            drop(first);
            assert_eq!(ended(&second).await, None);
            second.bury_others("b2", NOON + 20_000).await.unwrap();
            assert_eq!(second.generations(&up).await.unwrap().len(), 0);
            for store in [second, other] {
                store.close().await;
            }
        });
    }
}

/// Only what a session says shows that it lives: a server keeps that of a machine that has vanished for a while.
#[test]
fn a_session_of_postgresql_shows_that_it_lives_by_speaking() {
    let place = Place::postgres();
    run(async {
        let (first, second) = (place.store().await, place.store().await);
        assert_eq!(first.rival("b1").await.unwrap(), None);
        let word = async || {
            let rival = second.rival("b2").await.unwrap().unwrap();
            let Life::Spoke(at) = rival.life else { panic!("{rival:?}") };
            at
        };
        // What it said last may be that its connection is put away.
        let mut before = word().await;
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            match word().await {
                now if now == before => break,
                now => before = now,
            }
        }
        first.rival("b1").await.unwrap();
        assert!(word().await > before);
        // The lock of that name in another database is another one.
        let elsewhere = Place::postgres();
        let third = elsewhere.store().await;
        assert_eq!(third.rival("b3").await.unwrap(), None);
        for store in [first, second, third] {
            store.close().await;
        }
    });
}

/// What a run of this boot that has ended leaves behind: a connection takes a moment to be gone.
async fn ended(store: &Store) -> Option<Rival> {
    let mut rival = store.rival("b2").await.unwrap();
    for _ in 0..6_000 {
        if rival.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        rival = store.rival("b2").await.unwrap();
    }
    rival
}
