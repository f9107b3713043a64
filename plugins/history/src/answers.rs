//! What the daemon asks of the history, answered by the thread that has the database.

use std::time::Duration;

use ike_model::history::{
    Answer, Backlog, ChildTotal, Delivery, Disabled, Generation, HistoryError, Keeping, KeepingFigures, Outbox,
    PastDelivery, PastEvent, PastIkeSa, Redelivery, Subscription, Timeline, Verdict, Wanted, WantedDeliveries,
};

use tokio::time::{Instant, sleep};

use crate::History;
use crate::keeper::now_ms;

/// How long a question waits for what is still in the spool.
const COMPLETE_TIME: Duration = Duration::from_secs(2);
/// Between two looks.
const COMPLETE_STEP: Duration = Duration::from_millis(5);

impl Timeline for History {
    fn generations<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<Generation>> {
        let wanted = wanted.clone();
        self.ask(|store| async move { store.generations(&wanted).await })
    }

    fn totals<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<ChildTotal>> {
        let wanted = wanted.clone();
        self.ask(|store| async move { store.totals(&wanted).await })
    }

    fn ike_sas<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<PastIkeSa>> {
        let wanted = wanted.clone();
        self.ask(|store| async move { store.ike_sas(&wanted).await })
    }

    fn events<'a>(&'a self, wanted: &'a Wanted) -> Answer<'a, Vec<PastEvent>> {
        let wanted = wanted.clone();
        self.ask(|store| async move { store.events(&wanted).await })
    }

    fn complete(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let end = self.spool.end();
            let late = Instant::now() + COMPLETE_TIME;
            while !self.spool.is_taken_over(end) {
                self.keeper.hurry();
                if Instant::now() > late || self.keeper.status().trouble().is_some() {
                    return Ok(false);
                }
                sleep(COMPLETE_STEP).await;
            }
            Ok(true)
        })
    }
}

impl Outbox for History {
    fn subscribe(&self, subscriptions: Vec<Subscription>) -> Answer<'_, ()> {
        self.keeper.subscribe(subscriptions);
        // A database that is away gets their names when it is opened.
        self.ask(|store| async move { store.name_endpoints().await })
    }

    fn claim<'a>(&'a self, endpoint: &'a str, lease_ms: u64, limit: u32) -> Answer<'a, Vec<Delivery>> {
        let endpoint = endpoint.to_owned();
        self.ask(move |store| async move { store.claim(&endpoint, now_ms(), lease_ms, limit).await })
    }

    fn settle<'a>(&'a self, delivery: &'a Delivery, verdict: Verdict) -> Answer<'a, ()> {
        let settled = [(delivery.clone(), verdict)];
        self.ask(|store| async move { store.settle(&settled, now_ms()).await })
    }

    fn settle_all<'a>(&'a self, settled: &'a [(Delivery, Verdict)]) -> Answer<'a, ()> {
        let settled = settled.to_vec();
        self.ask(|store| async move { store.settle(&settled, now_ms()).await })
    }

    fn redeliver<'a>(&'a self, which: &'a Redelivery) -> Answer<'a, u64> {
        let which = which.clone();
        Box::pin(async move {
            let due = self.ask(|store| async move { store.redeliver(&which, now_ms()).await }).await?;
            self.keeper.status().tell();
            Ok(due)
        })
    }

    fn give_up<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, u64> {
        let (endpoint, reason) = (endpoint.to_owned(), reason.to_owned());
        self.ask(|store| async move { store.give_up(&endpoint, &reason).await })
    }

    fn news(&self, seen: u64) -> Answer<'_, u64> {
        let mut news = self.keeper.status().news();
        Box::pin(async move {
            let number = news.wait_for(|number| *number != seen).await;
            number.map(|number| *number).map_err(|_| HistoryError::Unreachable("the history has ended".into()))
        })
    }

    fn next_due<'a>(&'a self, endpoint: &'a str) -> Answer<'a, Option<u64>> {
        let endpoint = endpoint.to_owned();
        self.ask(|store| async move { store.next_due(&endpoint).await })
    }

    fn disable<'a>(&'a self, endpoint: &'a str, reason: &'a str) -> Answer<'a, ()> {
        let (endpoint, reason) = (endpoint.to_owned(), reason.to_owned());
        self.ask(|store| async move { store.disable(&endpoint, &reason, now_ms()).await })
    }

    fn enable<'a>(&'a self, endpoint: &'a str) -> Answer<'a, bool> {
        let endpoint = endpoint.to_owned();
        Box::pin(async move {
            let was_disabled = self.ask(|store| async move { store.enable(&endpoint).await }).await?;
            self.keeper.status().tell();
            Ok(was_disabled)
        })
    }

    fn disabled<'a>(&'a self, endpoint: &'a str) -> Answer<'a, Option<Disabled>> {
        let endpoint = endpoint.to_owned();
        self.ask(|store| async move { store.disabled(&endpoint).await })
    }

    fn backlog(&self) -> Answer<'_, Vec<Backlog>> {
        self.ask(|store| async move { store.backlog().await })
    }

    fn deliveries<'a>(&'a self, wanted: &'a WantedDeliveries) -> Answer<'a, Vec<PastDelivery>> {
        let wanted = wanted.clone();
        self.ask(|store| async move { store.deliveries(&wanted).await })
    }
}

impl Keeping for History {
    fn figures(&self) -> KeepingFigures {
        self.keeper.figures()
    }
}
