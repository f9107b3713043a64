//! One endpoint's deliveries: claimed, sent, settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ike_model::WebhookHealth;
use ike_model::history::{Delivery, HistoryError, Outbox, Verdict};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::circuit::Circuit;
use crate::courier::Courier;
use crate::endpoint::Endpoint;
use crate::failure::{Class, Failure};
use crate::figures::Board;
use crate::message::Message;
use crate::retry::jittered;

/// Deliveries claimed at once.
const CLAIM: (usize, usize) = (32, 256);
/// Outcomes that are told at once, and how long the first waits for others. After a crash so many messages may arrive once more.
const SETTLE: usize = 64;
const SETTLE_AFTER: Duration = Duration::from_millis(20);
/// What a claim outlasts the attempts that it was made for by.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a database that is away is left alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest sleep: wall-clock time may be set meanwhile.
const NAP: Duration = Duration::from_secs(60);
/// How long a run of ours has tried before what happened in earlier ones counts: we may have been away ourselves.
const TRIED: Duration = if cfg!(test) { Duration::from_millis(250) } else { Duration::from_secs(3600) };
/// How long messages under way may hold up the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is said of a receiver that wants no more.
const GONE: &str = "the receiver answered 410 Gone: it wants no more messages";

#[cfg(test)]
pub(crate) use tests::now_ms;

/// Wall-clock time, in milliseconds.
#[cfg(not(test))]
pub(crate) fn now_ms() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What others may tell a worker.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Somebody has changed something: look again, and try at once.
    pub(crate) again: Notify,
}

struct Landed {
    delivery: Delivery,
    took: Duration,
    outcome: Result<(), Failure>,
}

/// The worker of one endpoint.
pub(crate) struct Worker {
    endpoint: Arc<Endpoint>,
    outbox: Arc<dyn Outbox>,
    courier: Arc<dyn Courier>,
    board: Arc<Board>,
    bell: Arc<Bell>,
    circuit: Circuit,
    began: Instant,
    /// Claimed, with the time at which it is too late to begin.
    queue: VecDeque<(Delivery, Instant)>,
    under_way: JoinSet<Landed>,
    outcomes: Vec<(Delivery, Verdict)>,
    settle_at: Option<Instant>,
    /// The database is not asked before.
    patience: Option<Instant>,
    disabled: bool,
    /// It is not known whether it is.
    look_again: bool,
}

impl Worker {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        outbox: Arc<dyn Outbox>,
        courier: Arc<dyn Courier>,
        board: Arc<Board>,
        bell: Arc<Bell>,
    ) -> Self {
        let circuit = Circuit::new(endpoint.longest_pause);
        Self {
            endpoint,
            outbox,
            courier,
            board,
            bell,
            circuit,
            began: Instant::now(),
            queue: VecDeque::new(),
            under_way: JoinSet::new(),
            outcomes: Vec::new(),
            settle_at: None,
            patience: None,
            disabled: false,
            look_again: true,
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.work() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.end().await;
    }

    /// Nothing in here may lose what was claimed or has arrived when it is dropped half-way: it is in `self`, or its claim runs out.
    async fn work(&mut self) {
        let mut seen = 0;
        loop {
            self.launch();
            self.settle().await;
            let next_due = self.claim().await;
            if next_due == Next::Now {
                continue;
            }
            let (outbox, bell) = (Arc::clone(&self.outbox), Arc::clone(&self.bell));
            let wake = self.wake(next_due);
            tokio::select! {
                Some(landed) = self.under_way.join_next() => self.land(landed.ok()).await,
                () = sleep_until(wake) => {}
                news = outbox.news(seen), if self.patience.is_none() => match news {
                    Ok(number) => {
                        seen = number;
                        // It may be news that it is not.
                        self.look_again |= self.disabled;
                    }
                    Err(_) => self.be_patient(),
                },
                () = bell.again.notified() => {
                    self.circuit.try_now(Instant::now());
                    self.patience = None;
                    self.look_again = true;
                }
            }
        }
    }

    /// Finds out whether the endpoint is disabled.
    async fn look(&mut self) {
        match self.outbox.disabled(&self.endpoint.name).await {
            Ok(found) => {
                self.look_again = false;
                self.disabled = found.is_some();
                let down = self.circuit.down_for(Instant::now()).is_some();
                self.board.is(match self.disabled {
                    true => WebhookHealth::Disabled,
                    false if down => WebhookHealth::Down,
                    false if self.circuit.is_closed() => WebhookHealth::Up,
                    false => WebhookHealth::Untried,
                });
            }
            Err(error) => {
                self.away(&error);
            }
        }
    }

    fn be_patient(&mut self) {
        self.patience = Some(Instant::now() + PATIENCE);
    }

    fn room(&self) -> usize {
        let concurrency = usize::from(self.endpoint.concurrency.max(1));
        if self.disabled { 0 } else { self.circuit.room(Instant::now(), self.under_way.len(), concurrency) }
    }

    /// Sends what may be sent of what is claimed.
    fn launch(&mut self) {
        let now = Instant::now();
        while self.room() > 0 {
            let Some((delivery, too_late)) = self.queue.pop_front() else { return };
            // Its claim may run out under way. It comes back.
            if too_late <= now {
                continue;
            }
            match Message::of(&delivery) {
                Ok(message) => self.send(delivery, message, now),
                Err(error) => {
                    let failure = Failure::new(Class::Settings, format!("the record is no JSON: {error}"));
                    let verdict = self.give_up(&delivery, &failure);
                    self.told(delivery, verdict, now);
                }
            }
        }
    }

    fn send(&mut self, delivery: Delivery, message: Message, began: Instant) {
        let courier = Arc::clone(&self.courier);
        let under_way = self.board.began();
        self.under_way.spawn(async move {
            let outcome = courier.carry(&message).await.map(drop);
            drop(under_way);
            Landed { delivery, took: began.elapsed(), outcome }
        });
    }

    /// Claims more, where there is use for it.
    async fn claim(&mut self) -> Next {
        let now = Instant::now();
        if let Some(until) = self.patience {
            if until > now {
                return Next::At(until);
            }
            self.patience = None;
        }
        if self.look_again {
            self.look().await;
        }
        let room = self.room();
        if room == 0 || self.queue.len() >= room {
            return Next::Unknown;
        }
        let concurrency = usize::from(self.endpoint.concurrency.max(1));
        // An endpoint that is to be tried gets one message.
        let wanted = if self.circuit.is_closed() { (concurrency * 4).clamp(CLAIM.0, CLAIM.1) } else { 1 };
        match self.take(wanted).await {
            Ok(claimed) if claimed.is_empty() => self.next_due().await,
            Ok(claimed) => {
                let too_late = now + self.lease() - self.endpoint.timeout - MARGIN;
                self.queue.extend(claimed.into_iter().map(|delivery| (delivery, too_late)));
                Next::Now
            }
            Err(error) => self.away(&error),
        }
    }

    /// How long what is claimed belongs to us: some wait in the queue first, then an attempt takes its time.
    fn lease(&self) -> Duration {
        self.endpoint.timeout * 2 + MARGIN * 2
    }

    async fn take(&self, limit: usize) -> Result<Vec<Delivery>, HistoryError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.outbox.claim(&self.endpoint.name, millis(self.lease()), limit).await
    }

    async fn next_due(&mut self) -> Next {
        match self.outbox.next_due(&self.endpoint.name).await {
            Ok(None) => Next::Unknown,
            Ok(Some(due_ms)) => {
                let wait = Duration::from_millis(due_ms.saturating_sub(now_ms()));
                Next::At(Instant::now() + wait.clamp(SETTLE_AFTER, NAP))
            }
            Err(error) => self.away(&error),
        }
    }

    fn away(&mut self, error: &HistoryError) -> Next {
        tracing::debug!(webhook = self.endpoint.name, %error, "deliveries cannot be claimed now");
        self.be_patient();
        Next::Unknown
    }

    /// Until when there is nothing to do unless something happens.
    fn wake(&self, next: Next) -> Instant {
        let now = Instant::now();
        let due = match next {
            Next::Now => Some(now),
            Next::At(at) => Some(at),
            Next::Unknown => None,
        };
        let resumes = self.circuit.paused_until().filter(|until| *until > now);
        [due, resumes, self.settle_at, self.patience].into_iter().flatten().min().unwrap_or(now + NAP).min(now + NAP)
    }

    /// What becomes of a message after an attempt.
    async fn land(&mut self, landed: Option<Landed>) {
        // An attempt that panicked is made again when its claim has run out.
        let Some(Landed { delivery, took, outcome }) = landed else { return };
        let now = Instant::now();
        self.board.ended(now_ms(), took, outcome.as_ref().err());
        let verdict = match outcome {
            Ok(()) => {
                self.arrived(now);
                Verdict::Delivered
            }
            Err(failure) => self.failed(&delivery, &failure, now).await,
        };
        self.told(delivery, verdict, now);
    }

    fn arrived(&mut self, now: Instant) {
        if let Some(down) = self.circuit.succeeded(now) {
            tracing::info!(
                webhook = self.endpoint.name,
                down_seconds = down.as_secs(),
                "the webhook takes messages again"
            );
        }
        if !self.disabled {
            self.board.is(WebhookHealth::Up);
        }
    }

    async fn failed(&mut self, delivery: &Delivery, failure: &Failure, now: Instant) -> Verdict {
        let error = failure.text.clone();
        if failure.class == Class::Gone {
            self.disable().await;
            return Verdict::Held { at_ms: delivery.time_ms, error };
        }
        let wall = now_ms();
        let judgement = self.circuit.failed(&delivery.ulid, failure, failing(delivery, wall), now);
        if judgement.opened {
            self.pause(failure);
        }
        if judgement.counts {
            return self.again(delivery, failure, wall);
        }
        if self.has_given_up(delivery, now, wall) {
            let late = self.late(failure);
            self.sweep(&late, now, wall).await;
            return self.give_up(delivery, &late);
        }
        // What cannot be the message's fault leaves it its place; else another one finds out. A receiver may be too busy for this one alone.
        let keeps_place = failure.is_free() && failure.class != Class::Busy;
        let at_ms = if keeps_place { delivery.time_ms } else { wall };
        Verdict::Held { at_ms, error }
    }

    /// The next attempt by the schedule, if there is one.
    fn again(&self, delivery: &Delivery, failure: &Failure, wall: u64) -> Verdict {
        let attempt = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
        let Some(wait) = self.endpoint.retry.get(attempt) else { return self.give_up(delivery, failure) };
        let wait = jittered(*wait);
        tracing::debug!(
            webhook = self.endpoint.name,
            event = delivery.event,
            ulid = delivery.ulid,
            ?wait,
            "{failure}; tried again"
        );
        Verdict::Retry { at_ms: wall.saturating_add(millis(wait)), error: failure.text.clone() }
    }

    fn give_up(&self, delivery: &Delivery, failure: &Failure) -> Verdict {
        self.board.gave_up();
        tracing::warn!(
            webhook = self.endpoint.name,
            event = delivery.event,
            ulid = delivery.ulid,
            attempts = delivery.attempts.saturating_add(1),
            "{failure}; the message is given up until `cygnet webhook redeliver {}`",
            self.endpoint.name
        );
        Verdict::Dead { error: failure.text.clone() }
    }

    /// The message has waited for so long, and all that time the endpoint was down or had an excuse for not taking it.
    fn has_given_up(&self, delivery: &Delivery, now: Instant, wall: u64) -> bool {
        let limit = self.endpoint.give_up;
        let down = self.circuit.down_for(now).unwrap_or_default().max(failing(delivery, wall));
        let tried = now.saturating_duration_since(self.began) >= limit.min(TRIED);
        let waited = wall.saturating_sub(delivery.time_ms) >= millis(limit);
        !limit.is_zero() && tried && waited && down >= limit
    }

    /// A failure that has lasted for too long.
    fn late(&self, failure: &Failure) -> Failure {
        let limit = self.endpoint.give_up;
        let span = match limit.as_secs() {
            secs if secs >= 86_400 => format!("{} days", secs / 86_400),
            _ => format!("{limit:?}"),
        };
        Failure { text: format!("{}; not taken for {span}", failure.text), ..failure.clone() }
    }

    /// Gives up everything else that has waited too long: it would take a failure for each otherwise.
    async fn sweep(&mut self, failure: &Failure, now: Instant, wall: u64) {
        let mut given_up = 0_u64;
        while let Ok(claimed) = self.take(CLAIM.1).await {
            let mut is_last = claimed.len() < CLAIM.1;
            for delivery in claimed {
                let error = failure.text.clone();
                let verdict = if self.has_given_up(&delivery, now, wall) {
                    given_up += 1;
                    self.board.gave_up();
                    Verdict::Dead { error }
                } else {
                    is_last = true;
                    Verdict::Held { at_ms: delivery.time_ms, error }
                };
                self.told(delivery, verdict, now);
            }
            // There may be very many.
            self.settle_now().await;
            if is_last || !self.outcomes.is_empty() {
                break;
            }
        }
        if given_up > 0 {
            let webhook = &self.endpoint.name;
            tracing::warn!(
                webhook,
                given_up,
                "{failure}; messages are given up until `cygnet webhook redeliver {webhook}`"
            );
        }
    }

    /// Everything that is claimed waits.
    fn pause(&mut self, failure: &Failure) {
        self.board.is(WebhookHealth::Down);
        tracing::warn!(
            webhook = self.endpoint.name,
            "the webhook takes no messages: {failure}; they wait, and it is tried now and then"
        );
        self.give_back(Some(&failure.text));
    }

    async fn disable(&mut self) {
        if !self.disabled {
            self.disabled = true;
            self.board.is(WebhookHealth::Disabled);
            tracing::warn!(
                webhook = self.endpoint.name,
                "{GONE}; the webhook is disabled until `cygnet webhook enable {}`, messages wait",
                self.endpoint.name
            );
        }
        self.give_back(Some(GONE));
        if let Err(error) = self.outbox.disable(&self.endpoint.name, GONE).await {
            // It is asked again, and answers 410 again.
            self.disabled = false;
            self.away(&error);
        }
    }

    /// Gives back what is claimed and not sent; why, where that is the receiver's doing.
    fn give_back(&mut self, why: Option<&str>) {
        let now = Instant::now();
        while let Some((delivery, _)) = self.queue.pop_front() {
            let at_ms = delivery.time_ms;
            let verdict = match why {
                Some(why) => Verdict::Held { at_ms, error: why.to_owned() },
                None => Verdict::Returned { at_ms },
            };
            self.told(delivery, verdict, now);
        }
    }

    fn told(&mut self, delivery: Delivery, verdict: Verdict, now: Instant) {
        self.outcomes.push((delivery, verdict));
        self.settle_at.get_or_insert(now + SETTLE_AFTER);
    }

    /// Tells outcomes, when there are enough, or nobody is under way who could add one soon.
    async fn settle(&mut self) {
        let Some(at) = self.settle_at else { return };
        let idle = self.under_way.is_empty() && self.queue.is_empty();
        if at <= Instant::now() || idle || self.outcomes.len() >= SETTLE {
            self.settle_now().await;
        }
    }

    async fn settle_now(&mut self) {
        if self.patience.is_some_and(|until| until > Instant::now()) {
            return;
        }
        match self.outbox.settle_all(&self.outcomes).await {
            Ok(()) => {
                self.outcomes.clear();
                self.settle_at = None;
            }
            Err(error) => {
                tracing::debug!(webhook = self.endpoint.name, %error, "what has become of messages cannot be told now");
                self.be_patient();
                self.settle_at = self.patience;
            }
        }
    }

    /// Waits for what is under way, for a moment, and tells what has become of it.
    async fn end(mut self) {
        let deadline = Instant::now() + FAREWELL;
        while let Ok(Some(landed)) = timeout_at(deadline, self.under_way.join_next()).await {
            self.land(landed.ok()).await;
        }
        self.give_back(None);
        self.patience = None;
        if !self.outcomes.is_empty() && timeout_at(deadline + FAREWELL, self.settle_now()).await.is_err() {
            tracing::info!(
                webhook = self.endpoint.name,
                "some messages may arrive once more: what became of them could not be told"
            );
        }
    }
}

/// How long the receiver has not taken a message.
fn failing(delivery: &Delivery, wall: u64) -> Duration {
    Duration::from_millis(delivery.failing_ms.map_or(0, |since| wall.saturating_sub(since)))
}

/// When there may be something to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Now,
    At(Instant),
    /// Only news tell.
    Unknown,
}

#[cfg(test)]
mod tests;
