//! Deliveries and the endpoints they go to.

use ike_model::history::{
    Backlog, Delivery, DeliveryState, Disabled, PastDelivery, Redelivery, Subscription, Verdict, WantedDeliveries,
};

use super::*;

pub(super) fn to(endpoint: &str, events: &[&str]) -> Subscription {
    let events = events.iter().map(|event| (*event).to_owned()).collect();
    Subscription { endpoint: endpoint.into(), events, connections: Vec::new() }
}

#[test]
fn deliveries_are_claimed_once_and_come_back_until_they_are_settled() {
    for place in Place::both() {
        run(async {
            let subscriptions = vec![to("all", &[]), to("ends", &["child-sa.closed"])];
            let store = place.store_of("gw", subscriptions.clone()).await;
            store.apply(&Run::new("b1", NOON).life("site", "net", 1, 1)).await.unwrap();
            let waits = |endpoint: &str, waiting, dead| Backlog { endpoint: endpoint.into(), waiting, dead };
            assert_eq!(store.backlog().await.unwrap(), [waits("all", 5, 0), waits("ends", 1, 0)]);
            let now = NOON + 100_000;
            let first = store.claim("all", now, 30_000, 2).await.unwrap();
            assert_eq!(
                first.iter().map(|due| &*due.event).collect::<Vec<_>>(),
                ["ike-sa.established", "child-sa.installed"]
            );
            let rest = store.claim("all", now, 30_000, 9).await.unwrap();
            assert_eq!(rest.len(), 3, "the first two are somebody's");
            settle(&store, &first[0], Verdict::Delivered).await;
            let retry = Verdict::Retry { at_ms: now + 60_000, error: "503".into() };
            settle(&store, &first[1], retry).await;
            settle(&store, &rest[0], Verdict::Dead { error: "410".into() }).await;
            // Whoever claimed the other two has died.
            let back = store.claim("all", now + 30_000, 30_000, 9).await.unwrap();
            assert_eq!(back.iter().map(|due| &due.ulid).collect::<Vec<_>>(), [&rest[1].ulid, &rest[2].ulid]);
            let later = store.claim("all", now + 60_000, 0, 9).await.unwrap();
            assert!(later.iter().any(|due| due.ulid == first[1].ulid && due.attempts == 1));
            assert_eq!(store.backlog().await.unwrap(), [waits("all", 3, 1), waits("ends", 1, 0)]);
            assert_eq!(store.redeliver(&again_to(Some("ends")), now).await.unwrap(), 0);
            assert_eq!(store.redeliver(&again_to(None), now).await.unwrap(), 1);
            let again = store.claim("all", now, 30_000, 1).await.unwrap();
            assert_eq!((&again[0].ulid, again[0].attempts), (&rest[0].ulid, 0));
            // Too late: it has been delivered by somebody else meanwhile.
            settle(&store, &first[0], Verdict::Dead { error: "slow".into() }).await;
            assert_eq!(count(&store, "delivery WHERE state = 'delivered'").await, 1);
            store.close().await;
        });
    }
}

#[test]
fn what_is_held_is_not_an_attempt_and_what_a_dead_daemon_claimed_is_due_again() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("all", &[])]).await;
            store.apply(&Run::new("b1", NOON).life("site", "net", 1, 0)).await.unwrap();
            let now = NOON + 100_000;
            let first = store.claim("all", now, 3_600_000, 9).await.unwrap();
            let held = Verdict::Held { at_ms: first[0].time_ms, error: "down".into() };
            settle(&store, &first[0], held).await;
            let again = store.claim("all", now, 3_600_000, 9).await.unwrap();
            assert_eq!(again.iter().map(|due| (&due.ulid, due.attempts)).collect::<Vec<_>>(), [(&first[0].ulid, 0)]);
            let retry = Verdict::Retry { at_ms: now + 60_000, error: "503".into() };
            settle(&store, &first[1], retry).await;
            let other = place.store_of("other", Vec::new()).await;
            assert_eq!(
                store.claim("all", now, 3_600_000, 9).await.unwrap(),
                [],
                "another gateway's start changes nothing"
            );
            other.release_claims().await.unwrap();
            other.close().await;
            assert_eq!(store.claim("all", now, 3_600_000, 9).await.unwrap(), []);
            store.release_claims().await.unwrap();
            let back = store.claim("all", now, 3_600_000, 9).await.unwrap();
            let expected: Vec<_> = first.iter().filter(|due| due.ulid != first[1].ulid).map(|due| &due.ulid).collect();
            assert_eq!(
                back.iter().map(|due| &due.ulid).collect::<Vec<_>>(),
                expected,
                "in their order, without the one to be tried later"
            );
            assert_eq!(store.give_up("nobody", "dropped").await, Ok(0));
            let waiting = u64::try_from(first.len()).unwrap();
            assert_eq!(
                store.give_up("all", "dropped").await,
                Ok(waiting),
                "those that are claimed or due later included"
            );
            settle(&store, &back[0], Verdict::Delivered).await;
            let dead = list(&store, &WantedDeliveries { state: Some(DeliveryState::Dead), ..Default::default() }).await;
            assert!(dead.len() == first.len() && dead.iter().all(|one| one.last_error.as_deref() == Some("dropped")));
            store.close().await;
        });
    }
}

#[test]
fn very_many_deliveries_are_given_up_and_revived() {
    for place in Place::both() {
        run(async {
            let store =
                place.store_of("gw", vec![to("all", &[]), to("ends", &["child-sa.closed", "ike-sa.closed"])]).await;
            store.apply(&Run::new("b1", NOON).life("site", "net", 1, 250)).await.unwrap();
            let all = 254;
            assert_eq!(store.give_up("all", "dropped").await, Ok(all), "{}", place.url);
            assert_eq!(store.give_up("ends", "dropped").await, Ok(2));
            let of = |endpoint: Option<&str>| Redelivery { endpoint: endpoint.map(Into::into), ulid: None };
            assert_eq!(store.redeliver(&of(Some("all")), NOON).await, Ok(all));
            assert_eq!(store.give_up("all", "dropped").await, Ok(all));
            assert_eq!(store.redeliver(&of(None), NOON).await, Ok(all + 2));
            store.close().await;
        });
    }
}

/// Since when a receiver has not taken a message is known to whoever claims it later, and begins anew with what somebody does about it.
#[test]
fn it_is_known_since_when_a_delivery_fails() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("all", &[])]).await;
            store.apply(&Run::new("b1", NOON).life("site", "net", 1, 0)).await.unwrap();
            let now = NOON + 100_000;
            let claim = async || store.claim("all", now + 90_000, 0, 9).await.unwrap();
            let since = async || claim().await.iter().map(|due| due.failing_ms).collect::<Vec<_>>();
            let all = claim().await;
            assert_eq!((all.len(), since().await), (4, vec![None; 4]), "nobody has tried");
            let at_ms = all[0].time_ms;
            let verdicts = [
                Verdict::Held { at_ms, error: "429".into() },
                Verdict::Retry { at_ms, error: "400".into() },
                Verdict::Returned { at_ms },
            ];
            let settled: Vec<_> = all.iter().cloned().zip(verdicts).collect();
            store.settle(&settled, now).await.unwrap();
            store.settle(&settled, now + 5000).await.unwrap();
            let known = |due: &[Delivery]| due.iter().map(|due| (due.attempts, due.failing_ms)).collect::<Vec<_>>();
            assert_eq!(known(&claim().await)[..3], [(0, Some(now)), (2, Some(now)), (0, None)]);
            let one = Redelivery { endpoint: None, ulid: Some(all[0].ulid.clone()) };
            store.redeliver(&one, at_ms).await.unwrap();
            assert_eq!(since().await[..2], [None, Some(now)]);
            store.disable("all", "410", now).await.unwrap();
            store.enable("all").await.unwrap();
            assert_eq!(since().await, [None; 4]);
            store.close().await;
        });
    }
}

#[test]
fn two_that_claim_at_once_share_the_deliveries() {
    let place = Place::postgres();
    run(async {
        let (one, other) = (place.store_of("gw", vec![to("all", &[])]).await, place.store().await);
        let mut daemon = Run::new("b1", NOON);
        let entries: Vec<Entry> = (0..40).flat_map(|at| daemon.life("site", "net", at * 10, 1)).collect();
        one.apply(&entries).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let now = NOON + 1_000_000;
            let (a, b) = tokio::join!(one.claim("all", now, 30_000, 7), other.claim("all", now, 30_000, 7));
            let claimed = [a.unwrap(), b.unwrap()].concat();
            if claimed.is_empty() {
                break;
            }
            seen.extend(claimed.into_iter().map(|due| due.ulid));
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((seen.len(), all), (200, 200), "each exactly once");
        one.close().await;
        other.close().await;
    });
}

#[test]
fn one_event_is_redelivered_whatever_has_become_of_it() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("a", &[]), to("b", &[])]).await;
            store.apply(&Run::new("b1", NOON).life("site", "net", 1, 0)).await.unwrap();
            let now = NOON + 100_000;
            for endpoint in ["a", "b"] {
                let due = store.claim(endpoint, now, 30_000, 9).await.unwrap();
                let settled: Vec<_> = due.into_iter().map(|due| (due, Verdict::Delivered)).collect();
                store.settle(&settled, now).await.unwrap();
            }
            assert_eq!(
                (store.next_due("a").await.unwrap(), store.claim("a", now, 0, 9).await.unwrap()),
                (None, vec![])
            );
            let ulid = list(&store, &WantedDeliveries::default()).await[0].ulid.clone();
            let which =
                |endpoint: Option<&str>| Redelivery { endpoint: endpoint.map(str::to_owned), ulid: Some(ulid.clone()) };
            assert_eq!(store.redeliver(&which(Some("a")), now).await.unwrap(), 1);
            assert_eq!(store.next_due("a").await.unwrap(), Some(now));
            let again = store.claim("a", now, 30_000, 9).await.unwrap();
            assert_eq!(again.iter().map(|due| (&due.ulid, due.attempts)).collect::<Vec<_>>(), [(&ulid, 0)]);
            assert_eq!(store.next_due("a").await.unwrap(), Some(now + 30_000), "when the claim runs out");
            assert_eq!(store.redeliver(&which(None), now).await.unwrap(), 2);
            assert_eq!(store.redeliver(&Redelivery { endpoint: None, ulid: Some("none".into()) }, now).await, Ok(0));
            store.close().await;
        });
    }
}

#[test]
fn a_disabled_endpoint_collects_deliveries_and_gets_none_until_it_is_enabled() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("a", &[]), to("b", &[])]).await;
            let mut daemon = Run::new("b1", NOON);
            store.apply(&daemon.life("site", "net", 1, 0)).await.unwrap();
            let now = NOON + 100_000;
            store.disable("a", "410 Gone", now).await.unwrap();
            store.disable("a", "later", now + 5).await.unwrap();
            store.disable("never-seen", "410 Gone", now).await.unwrap();
            let gone = Some(Disabled { since_ms: now, reason: "410 Gone".into() });
            assert_eq!(store.disabled("a").await.unwrap(), gone, "the first reason stays");
            assert_eq!(store.disabled("b").await.unwrap(), None);
            store.apply(&daemon.life("site", "net", 11, 0)).await.unwrap();
            assert_eq!(store.claim("a", now, 0, 9).await.unwrap(), []);
            assert_eq!(store.next_due("a").await.unwrap(), None);
            assert_eq!(store.claim("b", now, 0, 9).await.unwrap().len(), 8);
            let other = place.store_of("other", vec![to("a", &[])]).await;
            assert_eq!(other.disabled("a").await.unwrap(), None, "each gateway has its own");
            store.close().await;
            // A restart does not enable it.
            let store = place.store_of("gw", vec![to("a", &[])]).await;
            assert_eq!(store.disabled("a").await.unwrap(), gone);
            assert_eq!(store.enable("a").await, Ok(true));
            assert_eq!(store.enable("a").await, Ok(false));
            assert_eq!(store.claim("a", now, 0, 9).await.unwrap().len(), 8, "all of it waited");
            store.close().await;
            other.close().await;
        });
    }
}

#[test]
fn deliveries_are_listed_the_newest_event_first_page_by_page() {
    for place in Place::both() {
        run(async {
            let store = place.store_of("gw", vec![to("a", &[]), to("b", &["child-sa.*"])]).await;
            let mut daemon = Run::new("b1", NOON);
            store.apply(&daemon.life("site", "net", 1, 1)).await.unwrap();
            store.apply(&daemon.life("branch", "net", 11, 0)).await.unwrap();
            let now = NOON + 100_000;
            let due = store.claim("a", now, 30_000, 9).await.unwrap();
            settle(&store, &due[0], Verdict::Delivered).await;
            settle(&store, &due[1], Verdict::Dead { error: "404".into() }).await;
            settle(&store, &due[2], Verdict::Retry { at_ms: now + 9_000, error: "timeout".into() }).await;
            let all = list(&store, &WantedDeliveries::default()).await;
            assert_eq!(all.len(), 9 + 5);
            let order = |row: &PastDelivery| (row.ulid.clone(), row.endpoint.clone());
            assert!(all.is_sorted_by(|a, b| order(a) > order(b)), "{all:#?}");
            let of = |ulid: &str| all.iter().find(|row| row.ulid == ulid && row.endpoint == "a").unwrap();
            let (first, second, third) = (of(&due[0].ulid), of(&due[1].ulid), of(&due[2].ulid));
            assert_eq!((first.state, first.attempts, first.delivered_ms), (DeliveryState::Delivered, 1, Some(now)));
            assert_eq!((second.state, second.last_error.as_deref()), (DeliveryState::Dead, Some("404")));
            assert_eq!((third.state, third.due_ms), (DeliveryState::Waiting, now + 9_000));
            assert_eq!((third.last_error.as_deref(), third.connection.as_deref()), (Some("timeout"), Some("site")));
            assert_eq!((&*third.event, third.time_ms), ("child-sa.rekeyed", NOON + 3000));
            let any = WantedDeliveries::default;
            for wanted in [
                any(),
                WantedDeliveries { endpoint: Some("b".into()), ..any() },
                WantedDeliveries { state: Some(DeliveryState::Waiting), ..any() },
                WantedDeliveries { connection: Some("site".into()), ..any() },
                WantedDeliveries { connection: Some("site".into()), state: Some(DeliveryState::Dead), ..any() },
                WantedDeliveries { ulid: Some(due[2].ulid.clone()), ..any() },
                WantedDeliveries { ulid: Some(due[2].ulid.clone()), connection: Some("branch".into()), ..any() },
            ] {
                let expected: Vec<_> = all.iter().filter(|row| matches(row, &wanted)).cloned().collect();
                assert_eq!(list(&store, &wanted).await, expected, "{wanted:?}");
                for limit in [1, 2, 5] {
                    assert_eq!(paged(&store, &wanted, limit).await, expected, "{limit} at a time of {wanted:?}");
                }
            }
            store.close().await;
        });
    }
}

fn matches(row: &PastDelivery, wanted: &WantedDeliveries) -> bool {
    wanted.endpoint.as_ref().is_none_or(|endpoint| *endpoint == row.endpoint)
        && wanted.state.is_none_or(|state| state == row.state)
        && wanted.ulid.as_ref().is_none_or(|ulid| *ulid == row.ulid)
        && (wanted.connection.is_none() || wanted.connection == row.connection)
}

async fn paged(store: &Store, wanted: &WantedDeliveries, limit: u32) -> Vec<PastDelivery> {
    let mut all: Vec<PastDelivery> = Vec::new();
    loop {
        let before = all.last().map(PastDelivery::cursor);
        let page = list(store, &WantedDeliveries { before, limit, ..wanted.clone() }).await;
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn list(store: &Store, wanted: &WantedDeliveries) -> Vec<PastDelivery> {
    store.deliveries(wanted).await.unwrap()
}

async fn settle(store: &Store, delivery: &Delivery, verdict: Verdict) {
    store.settle(&[(delivery.clone(), verdict)], NOON + 100_000).await.unwrap();
}

fn again_to(endpoint: Option<&str>) -> Redelivery {
    Redelivery { endpoint: endpoint.map(str::to_owned), ulid: None }
}
