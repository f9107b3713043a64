//! How the engines mean to answer: by an index, whatever the question.

use ike_model::history::{DeliveryCursor, DeliveryState, WantedDeliveries};

use super::*;

/// Enough rows that reading all of a table would be the worse way, and what both planners know of them.
async fn filled(place: &Place) -> Store {
    let store = place.store_of("gw", vec![outbox::to("ops", &[]), outbox::to("ends", &["*.closed"])]).await;
    let mut daemon = Run::new("b1", NOON);
    for connection in 0..20 {
        let lives = (0..40).flat_map(|child| {
            daemon.life(&format!("c{connection}"), &format!("n{child}"), connection * 1000 + child * 10, 4)
        });
        let mut entries: Vec<Entry> = lives.collect();
        // One of each connection is up.
        entries.extend(daemon.life(&format!("c{connection}"), "n7", connection * 1000 + 900, 0).drain(..2));
        store.apply(&entries).await.unwrap();
    }
    store
}

#[test]
fn an_index_answers_every_question_about_the_past() {
    for place in Place::both() {
        run(async {
            let store = filled(&place).await;
            // PostgreSQL learns about its tables by itself. SQLite may never: the questions alone have to lead it.
            if store.engine == Engine::Postgres {
                store.do_it("ANALYZE").await;
            }
            let any = || Wanted { limit: 10, ..Wanted::default() };
            let child = Wanted { child: Some("n7".into()), ..any() };
            let connection = Wanted { connection: Some("c3".into()), ..any() };
            let of = Wanted { connection: Some("c3".into()), ..child.clone() };
            let within = |wanted: &Wanted| Wanted {
                since_ms: Some(NOON + 1_000_000),
                until_ms: Some(NOON + 1_010_000),
                ..wanted.clone()
            };
            let up = |wanted: &Wanted| Wanted { up: true, ..wanted.clone() };
            let ended = |wanted: &Wanted| Wanted { cause: Some("hard-limit".into()), ..wanted.clone() };
            let rare = Wanted { event: Some("ike-sa.auth-failed".into()), ..any() };
            let questions = [
                (store.generations_sql(&any()), "child_sa_time"),
                (store.generations_sql(&child), "child_sa_child"),
                (store.generations_sql(&connection), "child_sa_of"),
                (store.generations_sql(&of), "child_sa_connection"),
                (store.generations_sql(&within(&of)), "child_sa_connection|child_sa_of"),
                (store.generations_sql(&within(&child)), "child_sa_child"),
                (store.generations_sql(&within(&any())), "child_sa_time"),
                (store.generations_sql(&up(&any())), "child_sa_open"),
                (store.generations_sql(&up(&of)), "child_sa_open"),
                (store.totals_sql(&of), "child_total"),
                (store.totals_sql(&any()), "child_total"),
                (store.totals_sql(&any()), "child_sa_open"),
                (store.totals_sql(&of), "child_sa_open"),
                (store.totals_sql(&up(&of)), "child_sa_open"),
                (store.totals_sql(&within(&up(&of))), "child_sa_open"),
                (store.totals_sql(&within(&of)), "child_sa_connection|child_sa_of"),
                (store.events_sql(&within(&any())), "event_time"),
                (store.events_sql(&connection), "event_connection"),
                (store.events_sql(&child), "event_child"),
                (store.events_sql(&rare), "event_type"),
                (store.ike_sas_sql(&connection), "ike_sa_connection"),
                (store.ike_sas_sql(&within(&connection)), "ike_sa_connection"),
                (store.ike_sas_sql(&up(&any())), "ike_sa_open"),
                (store.generations_sql(&ended(&any())), "child_sa_cause"),
                (store.generations_sql(&within(&ended(&any()))), "child_sa_cause"),
                (store.generations_sql(&ended(&of)), "child_sa_cause|child_sa_connection"),
                (store.totals_sql(&ended(&any())), "child_sa_cause"),
                (store.totals_sql(&within(&ended(&any()))), "child_sa_cause"),
                (store.ike_sas_sql(&ended(&any())), "ike_sa_cause"),
                (store.events_sql(&ended(&any())), "event_cause"),
            ];
            for (question, index) in questions {
                uses(&store, question, index).await;
            }
            store.close().await;
        });
    }
}

#[test]
fn an_index_answers_every_question_about_deliveries() {
    for place in Place::both() {
        run(async {
            let store = filled(&place).await;
            let due = store.claim("ops", NOON + 100_000_000, 0, 3000).await.unwrap();
            let settled: Vec<_> = due.into_iter().map(|due| (due, Verdict::Delivered)).collect();
            store.settle(&settled, NOON + 100_000_000).await.unwrap();
            if store.engine == Engine::Postgres {
                store.do_it("ANALYZE").await;
            }
            let any = || WantedDeliveries { limit: 10, ..WantedDeliveries::default() };
            let before = DeliveryCursor { ulid: settled[1500].0.ulid.clone(), endpoint: "ops".into() };
            let further = || WantedDeliveries { before: Some(before.clone()), ..any() };
            let questions = [
                (store.deliveries_sql("ops", DeliveryState::Delivered, &any()), "delivery_list"),
                (store.deliveries_sql("ops", DeliveryState::Waiting, &further()), "delivery_list"),
                (store.deliveries_of_sql("c3", &any()), "event_connection"),
                (store.deliveries_of_sql("c3", &further()), "event_connection"),
                (store.due_sql("ops", NOON * 1000 + 900_000_000, 10), "delivery_due"),
            ];
            for (question, index) in questions {
                uses(&store, question, index).await;
            }
            // All have arrived, as nearly all have in any long past.
            let due = store.claim("ops", NOON + 100_000_000, 0, 9000).await.unwrap();
            let settled: Vec<_> = due.into_iter().map(|due| (due, Verdict::Delivered)).collect();
            store.settle(&settled, NOON + 100_000_000).await.unwrap();
            if store.engine == Engine::Postgres {
                store.do_it("ANALYZE").await;
            }
            for index in ["delivery_due", "delivery_dead"] {
                uses(&store, store.backlog_sql(), index).await;
            }
            store.close().await;
        });
    }
}

/// The plan finds its rows by this index, or one of these, and reads no table as a whole but those of totals.
async fn uses(store: &Store, question: Sql, index: &str) {
    let plan = explain(store, question).await;
    assert!(index.split('|').any(|index| plan.contains(index)), "{:?}: no {index} in\n{plan}", store.engine);
    let whole = |line: &str| {
        let scan = line.contains("Seq Scan on ") || line.contains("SCAN ");
        scan && ["child_sa", "ike_sa", "event", "delivery"]
            .iter()
            .any(|table| line.ends_with(table) || line.contains(&format!(" on {table} ")))
    };
    assert!(!plan.lines().any(whole), "{:?}:\n{plan}", store.engine);
}

async fn explain(store: &Store, question: Sql) -> String {
    let (prefix, column) = match store.engine {
        Engine::Sqlite => ("EXPLAIN QUERY PLAN ", 3),
        Engine::Postgres => ("EXPLAIN ", 0),
    };
    let rows = question.after(prefix).fetch(&store.readers).await.unwrap();
    rows.iter().map(|row| row.try_get::<String, _>(column).unwrap() + "\n").collect()
}
