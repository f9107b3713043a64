//! The tables, on both engines.

mod index;
mod outbox;
mod release;
mod retain;
mod rival;

use ike_model::history::{Generation, Verdict, Wanted};
use ike_model::snapshot::Carried;
use ike_model::{Cause, CauseKind, EventBody};
use sqlx::Row as _;

use super::*;
use crate::fixture::{Place, Run, child_sa, ike_sa};
use crate::spool::Entry;
use crate::sql::Sql;

const NOON: u64 = 1_790_000_000_000;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn carried(bytes: u64) -> Carried {
    Carried { bytes, packets: bytes / 100 }
}

async fn count(store: &Store, what: &str) -> i64 {
    let sql = Sql::new(&format!("SELECT COUNT(*) FROM {what}"));
    sql.fetch(&store.readers).await.unwrap()[0].try_get(0).unwrap()
}

#[test]
fn each_generation_is_a_row_with_all_that_was_negotiated() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = vec![daemon.boot()];
            entries.extend(daemon.life("site", "net", 1, 3));
            let applied = store.apply(&entries).await.unwrap();
            assert_eq!((applied.events, applied.known, applied.unreadable), (7, 0, 0), "{}", place.url);
            let all = store.generations(&Wanted::default()).await.unwrap();
            let ends: Vec<_> =
                all.iter().map(|row| (row.unique_id, row.generation, row.lineage, row.cause.as_deref())).collect();
            let rekeyed = Some("rekeyed");
            assert_eq!(ends, [(4, 3, 1, Some("operator")), (3, 2, 1, rekeyed), (2, 1, 1, rekeyed), (1, 0, 1, rekeyed)]);
            let sa = child_sa("net", 2, 1, 1000);
            let row = &all[2];
            assert_eq!((row.spi_in, row.spi_out), (sa.spi_in.map(|spi| spi.get()), sa.spi_out.map(|spi| spi.get())));
            assert_eq!(row.algorithms, sa.algorithms);
            assert_eq!((&*row.local_ts, &*row.remote_ts, &*row.mode), ("10.1.0.0/16", "10.2.0.0/16", "tunnel"));
            assert_eq!((row.device.as_deref(), &*row.offload, row.reqid, row.encap), (Some("eth0"), "packet", 7, true));
            assert_eq!((row.limits.soft, row.limits.hard.time), (sa.limits.soft, sa.limits.hard.time));
            assert_eq!(row.limits.hard.packets, Some(u64::try_from(i64::MAX).unwrap()), "both engines end there");
            assert_eq!((row.carried_in, row.carried_out), (carried(1000), carried(1000)));
            assert_eq!((row.installed_ms, row.removed_ms), (NOON + 3000, Some(NOON + 4000)));
            let totals = store.totals(&Wanted::default()).await.unwrap();
            assert_eq!(totals.len(), 1);
            assert_eq!((totals[0].generations, totals[0].carried_in, totals[0].up), (4, carried(4000), false));
            let ikes = store.ike_sas(&Wanted::default()).await.unwrap();
            assert_eq!(ikes.len(), 1);
            assert_eq!((&*ikes[0].initiator_spi, &*ikes[0].responder_spi), ("fedcba9876543210", "0000000000000001"));
            assert_eq!((&*ikes[0].local_id, ikes[0].cause.as_deref()), ("a.example", Some("operator")));
            assert_eq!(ikes[0].algorithms, ike_sa("site", 1).algorithms);
            store.close().await;
        });
    }
}

/// What a generation has carried after it was replaced, or after its end was told, is in its row and in the totals of those that came after it.
#[test]
fn the_last_counters_are_the_ones_that_stay() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let ike = || Box::new(ike_sa("site", 1));
            let cause = || Cause::new(CauseKind::Operator, "terminated by command");
            let sa = |generation: u32, bytes: u64, total: u64| {
                let mut sa = child_sa("net", 1 + generation, generation, bytes);
                (sa.total_in, sa.total_out) = (carried(total), carried(total));
                Box::new(sa)
            };
            let bodies = [
                EventBody::ChildSaInstalled { ike: ike(), child: sa(0, 0, 0) },
                EventBody::ChildSaRekeyed { ike: ike(), old: sa(0, 1000, 1000), new: sa(1, 0, 1000) },
                EventBody::ChildSaRekeyed { ike: ike(), old: sa(1, 200, 1200), new: sa(2, 0, 1200) },
                // Stragglers of the first one, and of the second one after the end of the third one.
                EventBody::ChildSaRemoved { ike: ike(), child: sa(0, 1300, 1300), successor: Some(2) },
                EventBody::ChildSaClosed { ike: ike(), child: sa(2, 0, 1500), cause: cause() },
                EventBody::ChildSaRemoved { ike: ike(), child: sa(2, 700, 2200), successor: None },
                EventBody::ChildSaRemoved { ike: ike(), child: sa(1, 300, 1600), successor: Some(3) },
            ];
            let mut entries = vec![daemon.boot()];
            entries.extend(bodies.into_iter().map(|body| daemon.told(body)));
            store.apply(&entries).await.unwrap();
            let row = |row: &Generation| (row.unique_id, row.carried_in, row.total_out, row.cause.clone().unwrap());
            let rows: Vec<_> = store.generations(&Wanted::default()).await.unwrap().iter().map(row).collect();
            let line = |id, own, total, cause: &str| (id, carried(own), carried(total), cause.to_owned());
            let expected =
                [line(3, 700, 2300, "operator"), line(2, 300, 1600, "rekeyed"), line(1, 1300, 1300, "rekeyed")];
            assert_eq!(rows, expected, "{}", place.url);
            let totals = store.totals(&Wanted::default()).await.unwrap();
            assert_eq!((totals[0].carried_in, totals[0].up), (carried(2300), false));
            store.close().await;
        });
    }
}

/// Its end may be among events that could not be taken down.
#[test]
fn what_is_out_of_the_data_path_is_not_up() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let ike = || Box::new(ike_sa("site", 1));
            let sa = |bytes| Box::new(child_sa("net", 1, 0, bytes));
            let entries = [
                daemon.boot(),
                daemon.told(EventBody::ChildSaInstalled { ike: ike(), child: sa(0) }),
                daemon.told(EventBody::ChildSaRemoved { ike: ike(), child: sa(500), successor: None }),
            ];
            store.apply(&entries).await.unwrap();
            let row = &store.generations(&Wanted::default()).await.unwrap()[0];
            assert_eq!((row.removed_ms, row.cause.as_deref()), (Some(NOON + 2000), Some("internal")), "{}", place.url);
            assert_eq!(row.carried_in, carried(500));
            store.close().await;
        });
    }
}

#[test]
fn what_was_prepared_is_a_generation_from_then_on() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let ike = || Box::new(ike_sa("site", 1));
            let sa = |unique_id, generation| Box::new(child_sa("net", unique_id, generation, 0));
            let prepared = |unique_id| EventBody::ChildSaPrepared { ike: ike(), child: sa(unique_id, 1), replaces: 1 };
            let cause = Cause::new(CauseKind::CollisionLost, "both ends rekeyed at once");
            let entries = [
                daemon.boot(),
                daemon.told(EventBody::ChildSaInstalled { ike: ike(), child: sa(1, 0) }),
                daemon.told(prepared(2)),
                daemon.told(prepared(3)),
                daemon.told(EventBody::ChildSaRekeyed { ike: ike(), old: sa(1, 0), new: sa(3, 1) }),
                daemon.told(EventBody::ChildSaWithdrawn { ike: ike(), child: sa(2, 1), cause }),
                daemon.told(prepared(4)),
                Run::new("b2", NOON + 60_000).boot(),
            ];
            store.apply(&entries).await.unwrap();
            let all = store.generations(&Wanted::default()).await.unwrap();
            let mut ends: Vec<_> =
                all.iter().map(|row| (row.unique_id, row.generation, row.lineage, row.cause.as_deref())).collect();
            ends.sort_unstable();
            let died = Some("daemon-died");
            let expected =
                [(1, 0, 1, Some("rekeyed")), (2, 1, 1, Some("collision-lost")), (3, 1, 1, died), (4, 1, 1, died)];
            assert_eq!(ends, expected, "{}", place.url);
            let of_winner = all.iter().find(|row| row.unique_id == 3).unwrap();
            assert_eq!(of_winner.installed_ms, NOON + 3000, "when it was installed, not when it was switched to");
            store.close().await;
        });
    }
}

#[test]
fn events_are_found_by_names_causes_and_gateways() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let (mut daemon, mut other) = (Run::new("b1", NOON), Run::of("other", "o1", NOON));
            let mut entries = daemon.life("site", "net", 1, 1);
            entries.extend(other.life("site", "net", 1, 0));
            store.apply(&entries).await.unwrap();
            let found = async |wanted: Wanted| {
                let events = store.events(&wanted).await.unwrap();
                events.into_iter().map(|event| event.event).collect::<Vec<_>>()
            };
            let named = |names: &str| Wanted { event: Some(names.into()), ..Wanted::default() };
            assert_eq!(found(named("child-sa.re*,ike-sa.closed")).await, ["ike-sa.closed", "child-sa.rekeyed"]);
            assert_eq!(found(named("child-sa_*")).await, Vec::<String>::new(), "nothing else is a wildcard");
            let ended = Wanted { cause: Some("operator".into()), ..Wanted::default() };
            assert_eq!(found(ended.clone()).await, ["ike-sa.closed", "child-sa.closed"], "{}", place.url);
            let fleet = Wanted { gateway: Some("*".into()), ..ended.clone() };
            assert_eq!(found(fleet.clone()).await.len(), 4);
            let gateways = store.generations(&fleet).await.unwrap();
            assert_eq!(gateways.iter().filter(|row| row.gateway == "other").count(), 1);
            assert_eq!(gateways.len(), 2, "the generation that was rekeyed ended for another cause");
            assert_eq!(store.ike_sas(&ended).await.unwrap().len(), 1);
            assert_eq!(store.totals(&Wanted { cause: None, ..fleet }).await.unwrap().len(), 2);
            store.close().await;
        });
    }
}

#[test]
fn what_is_told_twice_is_kept_once() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = vec![daemon.boot()];
            entries.extend(daemon.life("site", "net", 1, 2));
            // Every cut: what was read again after a crash begins before and ends after what is known.
            for end in 1..=entries.len() {
                store.apply(&entries[..end]).await.unwrap();
            }
            assert_eq!(count(&store, "event").await, 6);
            assert_eq!(count(&store, "child_sa").await, 3);
            let again = store.apply(&entries).await.unwrap();
            assert_eq!((again.events, again.known), (0, 6));
            assert_eq!(count(&store, "child_sa WHERE removed_us IS NULL").await, 0);
            store.close().await;
        });
    }
}

#[test]
fn what_a_child_has_carried_is_the_sum_of_its_generations_however_the_events_were_cut() {
    for place in Place::both() {
        run(async {
            let mut daemon = Run::new("b1", NOON);
            let mut entries = vec![daemon.boot()];
            entries.extend(daemon.life("site", "net", 1, 6));
            entries.extend(daemon.life("site", "voice", 21, 2));
            let mut late = child_sa("net", 3, 2, 1700);
            late.offload.mode = ipsec::OffloadMode::No;
            // Counters that come after the end still count; the mode is what it was.
            let told = EventBody::StateLost { ike: Box::new(ike_sa("site", 1)), child: Box::new(late) };
            entries.push(daemon.told(told));
            let mut next = Run::new("b2", NOON + 60_000);
            entries.push(next.boot());
            entries.extend(next.life("site", "net", 1, 0).drain(..2));
            let mut seen = Vec::new();
            for length in [1, 2, 3, 7, entries.len()] {
                let gateway = format!("gw{length}");
                let store = place.store_of(&gateway, Vec::new()).await;
                for batch in entries.chunks(length) {
                    store.apply(&named(batch, &gateway)).await.unwrap();
                }
                let mut totals = store.totals(&Wanted::default()).await.unwrap();
                let all = store.generations(&Wanted::default()).await.unwrap();
                for total in &totals {
                    let own = all.iter().filter(|row| row.child == total.child);
                    assert_eq!(total.generations, own.clone().count() as u64, "{total:?}");
                    assert_eq!(total.carried_in.bytes, own.map(|row| row.carried_in.bytes).sum::<u64>(), "{total:?}");
                }
                totals.iter_mut().for_each(|total| total.gateway.clear());
                let rows =
                    all.into_iter().map(|row| Generation { gateway: String::new(), boot_id: String::new(), ..row });
                seen.push((totals, rows.collect::<Vec<_>>()));
                let between = Wanted { since_ms: Some(NOON + 3500), until_ms: Some(NOON + 4500), ..Wanted::default() };
                let part = store.totals(&between).await.unwrap();
                assert_eq!((part.len(), part[0].generations, part[0].carried_in), (1, 2, carried(2700)));
                store.close().await;
            }
            assert_eq!(seen[0].0.iter().map(|total| total.carried_in.bytes).collect::<Vec<_>>(), [7700, 3000]);
            assert_eq!((seen[0].1[1].offload.as_str(), seen[0].0[0].up), ("packet", true));
            assert!(seen.iter().all(|other| *other == seen[0]), "{seen:#?}");
        });
    }
}

/// The same events of another gateway, whose runs are others.
fn named(entries: &[Entry], gateway: &str) -> Vec<Entry> {
    let rename = |entry: &Entry| {
        let mut value: serde_json::Value = serde_json::from_slice(&entry.payload).unwrap();
        value["boot_id"] = format!("{gateway}-{}", value["boot_id"]).into();
        value["gateway"] = gateway.into();
        if let Some(ulid) = value.get_mut("ulid") {
            *ulid = format!("{}-{gateway}", ulid.as_str().unwrap()).into();
        }
        Entry { kind: entry.kind, payload: serde_json::to_vec(&value).unwrap() }
    };
    entries.iter().map(rename).collect()
}

#[test]
fn what_a_dead_daemon_left_open_is_closed_by_the_next_start() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut other = Run::of("other", "o1", NOON);
            let mut entries = vec![other.boot()];
            entries.extend(other.life("site", "net", 1, 0).drain(..2));
            let mut daemon = Run::new("b1", NOON);
            entries.push(daemon.boot());
            entries.extend(daemon.life("site", "net", 1, 1).drain(..3));
            store.apply(&entries).await.unwrap();
            assert!(store.totals(&Wanted::default()).await.unwrap()[0].up);
            let mut next = Run::new("b2", NOON + 60_000);
            let boot = next.boot();
            store.apply(std::slice::from_ref(&boot)).await.unwrap();
            store.apply(&next.life("site", "net", 1, 0)[..2]).await.unwrap();
            // Read again after all: it must not close what is up now.
            store.apply(&[daemon.boot(), boot]).await.unwrap();
            let all = store.generations(&Wanted::default()).await.unwrap();
            let ends: Vec<_> =
                all.iter().map(|row| (&*row.boot_id, row.generation, row.cause.as_deref(), row.removed_ms)).collect();
            let died = ("b1", 1, Some("daemon-died"), Some(NOON + 60_000));
            assert_eq!(ends, [("b2", 0, None, None), died, ("b1", 0, Some("rekeyed"), Some(NOON + 3000))]);
            let elsewhere = Wanted { gateway: Some("other".into()), ..Wanted::default() };
            assert!(store.totals(&elsewhere).await.unwrap()[0].up, "another gateway's is not ours to close");
            let ikes = store.ike_sas(&Wanted::default()).await.unwrap();
            assert_eq!(ikes.iter().map(|ike| ike.cause.as_deref()).collect::<Vec<_>>(), [None, Some("daemon-died")]);
            store.close().await;
        });
    }
}

#[test]
fn a_part_of_the_past_can_be_asked_for() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = daemon.life("site", "net", 1, 2);
            entries.extend(daemon.life("site", "voice", 11, 0));
            entries.extend(daemon.life("branch", "net", 21, 0));
            store.apply(&entries).await.unwrap();
            let numbers = async |wanted: Wanted| {
                store.generations(&wanted).await.unwrap().iter().map(|row| row.unique_id).collect::<Vec<_>>()
            };
            let wanted = Wanted::default;
            let (site, net) = (Some("site".to_owned()), Some("net".to_owned()));
            assert_eq!(numbers(wanted()).await, [21, 11, 3, 2, 1]);
            assert_eq!(numbers(Wanted { child: net.clone(), ..wanted() }).await, [21, 3, 2, 1]);
            assert_eq!(numbers(Wanted { connection: site.clone(), child: net, ..wanted() }).await, [3, 2, 1]);
            assert_eq!(numbers(Wanted { limit: 2, ..wanted() }).await, [21, 11]);
            // 1 was up from 2 s to 3 s, 2 to 4 s, 3 to 5 s.
            let between = |since: u64, until: u64| Wanted {
                since_ms: Some(NOON + since),
                until_ms: Some(NOON + until),
                connection: site.clone(),
                ..wanted()
            };
            assert_eq!(numbers(between(3500, 4000)).await, [2]);
            assert_eq!(numbers(between(3000, 4001)).await, [3, 2, 1]);
            assert_eq!(numbers(between(100_000, 200_000)).await, [0_u32; 0]);
            let events = store.events(&Wanted { event: Some("child-sa.rekeyed".into()), ..wanted() }).await.unwrap();
            assert_eq!(events.iter().map(|event| event.time_ms).collect::<Vec<_>>(), [NOON + 4000, NOON + 3000]);
            let record: serde_json::Value = serde_json::from_str(&events[0].record).unwrap();
            assert_eq!(
                (record["type"].as_str(), record["ulid"].as_str()),
                (Some("child-sa.rekeyed"), Some(&*events[0].ulid))
            );
            store.close().await;
        });
    }
}

#[test]
fn totals_are_of_all_children_and_are_refused_where_they_would_take_long() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = daemon.life("site", "busy", 1, query::SUMMED + 1);
            entries.extend(daemon.life("site", "calm", 50_000, 2));
            store.apply(&entries).await.unwrap();
            let rekeyed = Wanted { cause: Some("rekeyed".into()), limit: 1, ..Wanted::default() };
            let since = Wanted { since_ms: Some(NOON), ..Wanted::default() };
            for wanted in [&rekeyed, &since] {
                let refused = store.totals(wanted).await.unwrap_err();
                assert!(matches!(&refused, HistoryError::TooMuch(what) if what.contains("than 200 ")), "{refused}");
            }
            let calm = Wanted { child: Some("calm".into()), ..rekeyed.clone() };
            assert_eq!(store.totals(&calm).await.unwrap()[0].generations, 2, "{}", place.url);
            let all = store.totals(&Wanted { limit: 1, ..Wanted::default() }).await.unwrap();
            let counted: Vec<_> = all.iter().map(|total| (&*total.child, total.generations)).collect();
            assert_eq!(counted, [("busy", u64::from(query::SUMMED) + 2), ("calm", 3)], "a limit is about rows");
            store.close().await;
        });
    }
}

#[test]
fn what_is_up_has_ended_for_no_cause() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = daemon.life("site", "net", 1, 1);
            entries.extend(daemon.life("site", "voice", 11, 0).drain(..2));
            store.apply(&entries).await.unwrap();
            let since = Wanted { since_ms: Some(NOON), ..Wanted::default() };
            let counted = async |wanted: &Wanted| {
                (store.generations(wanted).await.unwrap().len(), store.totals(wanted).await.unwrap().len())
            };
            assert_eq!(counted(&since).await, (3, 2), "{}", place.url);
            assert_eq!(counted(&Wanted { up: true, ..since.clone() }).await, (1, 1));
            let of = |cause: &str, up| Wanted { cause: Some(cause.into()), up, ..since.clone() };
            assert_eq!(counted(&of("operator", false)).await, (1, 1));
            assert_eq!(counted(&of("rekeyed", false)).await, (1, 1));
            assert_eq!(counted(&of("rekeyed", true)).await, (0, 0));
            let everywhere = Wanted { gateway: Some("*".into()), ..of("operator", false) };
            assert_eq!(counted(&everywhere).await, (1, 1));
            assert_eq!(store.ike_sas(&everywhere).await.unwrap().len(), 1);
            store.close().await;
        });
    }
}

/// Whatever a peer has said that looks like one.
#[test]
fn what_ended_and_what_failed_is_found_by_its_cause() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut entries = daemon.life("site", "net", 1, 2);
            let said = |kind, text: &str| Cause::new(kind, text);
            let lying = r#"{"cause":{"kind":"operator","text":""}} \0 \u0000 "#;
            let ike = || Box::new(ike_sa("site", 50));
            entries.push(daemon.told(EventBody::IkeSaEstablished { ike: ike() }));
            let cause = said(CauseKind::PeerError, lying);
            entries.push(daemon.told(EventBody::IkeSaClosed { ike: ike(), cause }));
            entries.push(daemon.told(EventBody::ConfigLoaded { connection: lying.into() }));
            store.apply(&entries).await.unwrap();
            let of = |cause: &str| Wanted { cause: Some(cause.into()), ..Wanted::default() };
            for (cause, events, children, ikes) in
                [("operator", 2, 1, 1), ("peer-error", 1, 0, 1), ("rekeyed", 0, 2, 0), ("reload", 0, 0, 0)]
            {
                let wanted = of(cause);
                let found = (
                    store.events(&wanted).await.unwrap().len(),
                    store.generations(&wanted).await.unwrap().len(),
                    store.ike_sas(&wanted).await.unwrap().len(),
                );
                assert_eq!(found, (events, children, ikes), "{} {cause}", place.url);
                let counted: u64 = store.totals(&wanted).await.unwrap().iter().map(|total| total.generations).sum();
                assert_eq!(counted, children as u64);
            }
            store.close().await;
        });
    }
}

#[test]
fn the_release_before_goes_on_writing_and_an_older_one_refuses() {
    let known = i64::try_from(migrate::STEPS.len()).unwrap();
    let additive = migrate::Step {
        statements: "ALTER TABLE event ADD COLUMN weight BIGINT NOT NULL DEFAULT 1",
        compatible_from: 1,
        ..migrate::Step::default()
    };
    let breaking = migrate::Step {
        statements: "ALTER TABLE event ADD COLUMN more TEXT",
        compatible_from: known + 2,
        ..migrate::Step::default()
    };
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            store.apply(&daemon.life("site", "net", 1, 1)).await.unwrap();
            let location = place.location();
            let newer = lasting(&location).await.unwrap();
            let next = [migrate::STEPS, &[additive]].concat();
            migrate::run(&location, &newer, &next).await.unwrap();
            // Taken once; the release before neither minds at its start nor while it runs.
            migrate::run(&location, &newer, &next).await.unwrap();
            store.apply(&daemon.life("site", "net", 11, 1)).await.unwrap();
            let restarted = place.store().await;
            assert_eq!(count(&restarted, "event WHERE weight = 1").await, 10);
            restarted.close().await;
            if let Some(file) = &location.file {
                let copy = migrate::copy_path(file, known);
                let kept = Location::parse(&format!("sqlite://{}", copy.display())).unwrap();
                let kept = Store::open(&kept, "gw", Vec::new()).await.unwrap();
                assert_eq!(count(&kept, "event").await, 5, "as it was before");
                kept.close().await;
            }
            migrate::run(&location, &newer, &[&*next, &[breaking]].concat()).await.unwrap();
            let refused = Store::open(&location, "gw", Vec::new()).await.unwrap_err();
            let OpenError::TooNew { found, needed, known: ours } = refused else { panic!("{refused}") };
            assert_eq!((found, needed, ours), (known + 2, known + 2, known));
            newer.close().await;
            store.close().await;
        });
    }
}

#[test]
fn gateways_that_start_together_make_one_schema() {
    let place = Place::postgres();
    run(async {
        let (a, b, c) = tokio::join!(place.store(), place.store_of("b", Vec::new()), place.store_of("c", Vec::new()));
        assert_eq!(count(&a, "cygnet_schema").await, i64::try_from(migrate::STEPS.len()).unwrap());
        for store in [a, b, c] {
            store.close().await;
        }
    });
}

/// Those who only read, that is: what is written and what is forgotten may take longer.
#[test]
fn postgresql_ends_a_question_that_nobody_waits_for_any_more() {
    let place = Place::postgres();
    run(async {
        let store = place.store().await;
        for (pool, expected) in [(&store.readers, "8s"), (&store.writer, "0"), (store.seeker(), "0")] {
            let rows = Sql::new("SHOW statement_timeout").fetch(pool).await.unwrap();
            assert_eq!(rows[0].try_get::<String, _>(0).unwrap(), expected);
        }
        store.close().await;
    });
}

#[test]
fn what_a_peer_chose_does_no_harm() {
    for place in Place::both() {
        run(async {
            let store = place.store().await;
            let mut daemon = Run::new("b1", NOON);
            let mut ike = ike_sa("site", 1);
            ike.remote_id = ike_model::Identity::Fqdn("a'; DROP TABLE event; --\0\u{1F9A2}".into());
            let cause = Cause::new(CauseKind::PeerError, "$1 ? \0 \u{7}");
            let told = [
                daemon.told(EventBody::IkeSaEstablished { ike: Box::new(ike.clone()) }),
                daemon.told(EventBody::IkeSaClosed { ike: Box::new(ike), cause }),
                Entry { kind: crate::spool::Kind::Record, payload: b"{}".to_vec() },
                Entry { kind: crate::spool::Kind::Boot, payload: vec![0xFF] },
            ];
            let applied = store.apply(&told).await.unwrap();
            assert_eq!((applied.events, applied.unreadable), (2, 2));
            let ikes = store.ike_sas(&Wanted::default()).await.unwrap();
            assert!(ikes[0].remote_id.contains("DROP TABLE"), "{ikes:?}");
            assert_eq!(store.events(&Wanted::default()).await.unwrap().len(), 2);
            store.close().await;
        });
    }
}

#[test]
fn a_url_says_what_it_means() {
    for good in ["sqlite:///var/lib/x.db", "postgres://u:p@h/db", "postgresql://h/db?sslmode=require"] {
        assert_eq!(crate::check_url(good), Ok(()), "{good}");
    }
    for bad in ["", "history.db", "sqlite://x.db", "sqlite::memory:", "mysql://h/db", "sqlite:///x?mode=ro"] {
        assert!(crate::check_url(bad).is_err(), "{bad}");
    }
    let location = Location::parse("postgres://u:hunter2@h/db").unwrap();
    assert!(!format!("{location:?}").contains("hunter2"));
}
