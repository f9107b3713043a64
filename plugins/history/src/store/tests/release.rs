//! A database that an earlier release made, and goes on writing after this one has migrated it.
//!
//! `release-1` holds what the first release sent to each engine, statement by statement, with the values in place: how it made its tables and
//! filled them, and what it went on to write. It is never changed; a later release gets a directory of its own.

use ike_model::history::{Backlog, Redelivery};
use sqlx::AnyPool;

use super::*;

/// What the first release did: made and filled the tables, and went on to write.
fn release_1(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Sqlite => (include_str!("release-1/made.sqlite.sql"), include_str!("release-1/goes-on.sqlite.sql")),
        Engine::Postgres => {
            (include_str!("release-1/made.postgres.sql"), include_str!("release-1/goes-on.postgres.sql"))
        }
    }
}

/// Carries out what was sent, over the one connection of `pool`.
async fn play(pool: &AnyPool, script: &'static str) {
    let mut connection = pool.acquire().await.unwrap();
    for statement in script.split(";\n").filter(|statement| !statement.is_empty()) {
        if let Err(error) = connection.execute(statement).await {
            panic!("{error}: {statement}");
        }
    }
}

#[test]
fn what_the_first_release_made_is_migrated_and_read() {
    for place in Place::both() {
        run(async {
            let location = place.location();
            let old = lasting(&location).await.unwrap();
            play(&old, release_1(location.engine).0).await;
            old.close().await;
            let store = place.store().await;
            assert_eq!(rows(&store, "site").await, [(3, "operator"), (2, "rekeyed"), (1, "rekeyed")]);
            assert_eq!(rows(&store, "branch").await, [(11, "up")]);
            assert_eq!(totals(&store).await, [("branch", 1, 0, true), ("site", 3, 3000, false)]);
            assert_eq!(store.events(&Wanted::default()).await.unwrap().len(), 9);
            assert_eq!(store.ike_sas(&Wanted::default()).await.unwrap().len(), 2);
            assert_eq!(store.backlog().await.unwrap(), [waits("all", 7, 1), waits("ends", 1, 0)]);
            assert_eq!(store.deliveries(&Default::default()).await.unwrap().len(), 10, "all its endpoints are known");
            store.close().await;
            if let Some(file) = &location.file {
                let copy = migrate::copy_path(file, 1);
                let copy = lasting(&Location::parse(&format!("sqlite://{}", copy.display())).unwrap()).await.unwrap();
                play(&copy, release_1(Engine::Sqlite).1).await;
                copy.close().await;
            }
        });
    }
}

#[test]
fn the_first_release_goes_on_writing_after_the_migration_and_is_read() {
    for place in Place::both() {
        run(async {
            let location = place.location();
            let (made, goes_on) = release_1(location.engine);
            let old = lasting(&location).await.unwrap();
            play(&old, made).await;
            let store = place.store().await;
            play(&old, goes_on).await;
            assert_eq!(
                rows(&store, "site").await,
                [(2, "up"), (1, "rekeyed"), (3, "operator"), (2, "rekeyed"), (1, "rekeyed")]
            );
            assert_eq!(rows(&store, "branch").await, [(12, "daemon-died"), (11, "rekeyed")]);
            assert_eq!(totals(&store).await, [("branch", 2, 1500, false), ("site", 5, 4000, true)]);
            let ikes = store.ike_sas(&Wanted { connection: Some("branch".into()), ..Wanted::default() }).await.unwrap();
            assert_eq!(
                ikes.iter().map(|ike| (ike.unique_id, &*ike.remote)).collect::<Vec<_>>(),
                [(12, "198.51.100.9:4500"), (11, "192.0.2.2:4500")]
            );
            assert_eq!(store.backlog().await.unwrap(), [waits("all", 15, 0)]);
            // This release takes over from there.
            let mut daemon = Run::new("b3", NOON + 400_000);
            let mut entries = vec![daemon.boot()];
            entries.extend(daemon.life("site", "net", 1, 0));
            store.apply(&entries).await.unwrap();
            assert_eq!(totals(&store).await, [("branch", 2, 1500, false), ("site", 6, 5000, false)]);
            assert_eq!(rows(&store, "site").await[..2], [(1, "operator"), (2, "daemon-died")]);
            assert_eq!(store.redeliver(&Redelivery::default(), NOON).await, Ok(0));
            old.close().await;
            store.close().await;
        });
    }
}

/// Several gateways of this release and one of the first, all at once.
#[test]
fn gateways_that_migrate_together_take_each_step_once() {
    let place = Place::postgres();
    run(async {
        let location = place.location();
        let (made, goes_on) = release_1(location.engine);
        let old = lasting(&location).await.unwrap();
        play(&old, made).await;
        let (a, b, c, ()) = tokio::join!(
            place.store(),
            place.store_of("b", Vec::new()),
            place.store_of("c", Vec::new()),
            play(&old, goes_on),
        );
        assert_eq!(count(&a, "cygnet_schema").await, i64::try_from(migrate::STEPS.len()).unwrap());
        assert_eq!(totals(&a).await, [("branch", 2, 1500, false), ("site", 5, 4000, true)]);
        old.close().await;
        for store in [a, b, c] {
            store.close().await;
        }
    });
}

fn waits(endpoint: &str, waiting: u64, dead: u64) -> Backlog {
    Backlog { endpoint: endpoint.into(), waiting, dead }
}

/// Numbers and ends of a connection's CHILD SAs, the newest first.
async fn rows(store: &Store, connection: &str) -> Vec<(u32, &'static str)> {
    let wanted = Wanted { connection: Some(connection.into()), ..Wanted::default() };
    let end = |cause: Option<&str>| {
        let known = ["operator", "rekeyed", "daemon-died"].into_iter();
        cause.map_or("up", |cause| known.into_iter().find(|known| *known == cause).unwrap())
    };
    let all = store.generations(&wanted).await.unwrap();
    all.iter().map(|row| (row.unique_id, end(row.cause.as_deref()))).collect()
}

/// Connection, generations, octets each way and whether it is up, of each child.
async fn totals(store: &Store) -> Vec<(&'static str, u64, u64, bool)> {
    let all = store.totals(&Wanted::default()).await.unwrap();
    let known = |name: &str| ["branch", "site"].into_iter().find(|known| *known == name).unwrap();
    let row = |total: &ike_model::history::ChildTotal| {
        assert_eq!(total.carried_in, total.carried_out);
        (known(&total.connection), total.generations, total.carried_in.bytes, total.up)
    };
    all.iter().map(row).collect()
}
