//! What a worker does with deliveries, against an outbox in memory and a receiver that answers from a script, in virtual time.

mod change;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use ike_model::WebhookHealth;
use ike_model::history::{
    Answer, Backlog, DeliveryState, Disabled, PastDelivery, Redelivery, Subscription, WantedDeliveries,
};
use reqwest::StatusCode;

use super::*;
use crate::courier::Carrying;
use crate::endpoint::Address;
use crate::keys::Keys;

const NAME: &str = "ops";

/// Wall-clock time that goes as fast as the virtual clock. It begins before the virtual clock of any test does, or it would stand still at first.
pub(crate) fn now_ms() -> u64 {
    const BEFORE: Duration = Duration::from_secs(3600);
    static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(|| std::time::Instant::now() - BEFORE);
    1_790_000_000_000 + millis(Instant::now().into_std().saturating_duration_since(*BEGIN))
}

/// One delivery as the outbox knows it.
#[derive(Clone, Debug)]
struct Row {
    state: DeliveryState,
    attempts: u32,
    due_ms: u64,
    time_ms: u64,
    record: String,
    error: Option<String>,
    failing_ms: Option<u64>,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<String, Row>,
    disabled: Option<Disabled>,
    away: bool,
    /// The most outcomes that were told at once.
    together: usize,
}

/// An outbox in memory.
struct Memory {
    table: Mutex<Table>,
    news: watch::Sender<u64>,
}

impl Memory {
    fn of(count: usize) -> Arc<Self> {
        let memory = Self { table: Mutex::default(), news: watch::Sender::new(1) };
        let memory = Arc::new(memory);
        memory.add(0..count);
        memory
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, numbers: std::ops::Range<usize>) {
        let now = now_ms() - 1000;
        for number in numbers {
            let time_ms = now + number as u64 / 100;
            let record = format!("{{\"seq\":{number}}}");
            let row = Row {
                state: DeliveryState::Waiting,
                attempts: 0,
                due_ms: time_ms,
                time_ms,
                record,
                error: None,
                failing_ms: None,
            };
            self.table().rows.insert(id(number), row);
        }
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    fn row(&self, number: usize) -> Row {
        self.table().rows[&id(number)].clone()
    }

    fn count(&self, state: DeliveryState) -> usize {
        self.table().rows.values().filter(|row| row.state == state).count()
    }

    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Table) -> T) -> Answer<'_, T> {
        let mut table = self.table();
        let answer = if table.away { Err(HistoryError::Unreachable("away".into())) } else { Ok(question(&mut table)) };
        Box::pin(async move { answer })
    }
}

fn id(number: usize) -> String {
    format!("{number:026}")
}

impl Outbox for Memory {
    fn subscribe(&self, _: Vec<Subscription>) -> Answer<'_, ()> {
        self.ask(|_| ())
    }

    fn claim<'a>(&'a self, endpoint: &'a str, lease_ms: u64, limit: u32) -> Answer<'a, Vec<Delivery>> {
        self.ask(|table| {
            let now = now_ms();
            let mut due: Vec<_> = table
                .rows
                .iter_mut()
                .filter(|(_, row)| row.state == DeliveryState::Waiting && row.due_ms <= now)
                .collect();
            due.sort_by_key(|(ulid, row)| (row.due_ms, (*ulid).clone()));
            let disabled = table.disabled.is_some();
            let due = due.into_iter().take(if disabled { 0 } else { limit as usize });
            let claim = |(ulid, row): (&String, &mut Row)| {
                row.due_ms = now + lease_ms;
                let (time_ms, attempts, record) = (row.time_ms, row.attempts, row.record.clone());
                Delivery {
                    ulid: ulid.clone(),
                    endpoint: endpoint.into(),
                    event: "config.loaded".into(),
                    time_ms,
                    record,
                    attempts,
                    failing_ms: row.failing_ms,
                }
            };
            due.map(claim).collect()
        })
    }

    fn settle<'a>(&'a self, delivery: &'a Delivery, verdict: Verdict) -> Answer<'a, ()> {
        let settled = [(delivery.clone(), verdict)];
        self.ask(|table| settle(table, &settled))
    }

    fn settle_all<'a>(&'a self, settled: &'a [(Delivery, Verdict)]) -> Answer<'a, ()> {
        self.ask(|table| settle(table, settled))
    }

    fn redeliver<'a>(&'a self, _: &'a Redelivery) -> Answer<'a, u64> {
        let due = self.ask(|table| {
            let dead = table.rows.values_mut().filter(|row| row.state == DeliveryState::Dead);
            dead.map(|row| (row.state, row.attempts, row.due_ms) = (DeliveryState::Waiting, 0, now_ms())).count() as u64
        });
        self.tell();
        due
    }

    fn give_up<'a>(&'a self, _: &'a str, reason: &'a str) -> Answer<'a, u64> {
        self.ask(|table| {
            let waiting = table.rows.values_mut().filter(|row| row.state == DeliveryState::Waiting);
            waiting.map(|row| (row.state, row.error) = (DeliveryState::Dead, Some(reason.into()))).count() as u64
        })
    }

    fn news(&self, seen: u64) -> Answer<'_, u64> {
        let mut news = self.news.subscribe();
        Box::pin(async move { Ok(*news.wait_for(|number| *number != seen).await.unwrap()) })
    }

    fn next_due<'a>(&'a self, _: &'a str) -> Answer<'a, Option<u64>> {
        self.ask(|table| {
            let waiting = table.rows.values().filter(|row| row.state == DeliveryState::Waiting);
            waiting.map(|row| row.due_ms).min().filter(|_| table.disabled.is_none())
        })
    }

    fn disable<'a>(&'a self, _: &'a str, reason: &'a str) -> Answer<'a, ()> {
        self.ask(|table| table.disabled = Some(Disabled { since_ms: now_ms(), reason: reason.into() }))
    }

    fn enable<'a>(&'a self, _: &'a str) -> Answer<'a, bool> {
        let was = self.ask(|table| table.disabled.take().is_some());
        self.tell();
        was
    }

    fn disabled<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Disabled>> {
        self.ask(|table| table.disabled.clone())
    }

    fn backlog(&self) -> Answer<'_, Vec<Backlog>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn deliveries<'a>(&'a self, _: &'a WantedDeliveries) -> Answer<'a, Vec<PastDelivery>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn settle(table: &mut Table, settled: &[(Delivery, Verdict)]) {
    table.together = table.together.max(settled.len());
    for (delivery, verdict) in settled {
        let row = table.rows.get_mut(&delivery.ulid).unwrap();
        if row.state != DeliveryState::Waiting {
            continue;
        }
        row.attempts += u32::from(!matches!(verdict, Verdict::Held { .. } | Verdict::Returned { .. }));
        match verdict {
            Verdict::Delivered => row.state = DeliveryState::Delivered,
            Verdict::Retry { at_ms, error } | Verdict::Held { at_ms, error } => {
                (row.due_ms, row.error) = (*at_ms, Some(error.clone()));
                row.failing_ms.get_or_insert_with(now_ms);
            }
            Verdict::Returned { at_ms } => row.due_ms = *at_ms,
            Verdict::Dead { error } => (row.state, row.error) = (DeliveryState::Dead, Some(error.clone())),
        }
    }
}

type Script = Box<dyn Fn(usize, usize) -> Result<(), Failure> + Send + Sync>;

/// A receiver: what it answers to the n-th attempt of a message, and what it has seen.
struct Receiver {
    script: Mutex<Script>,
    seen: Mutex<Vec<usize>>,
    tries: Mutex<HashMap<usize, usize>>,
    takes: Duration,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Receiver {
    fn new(script: impl Fn(usize, usize) -> Result<(), Failure> + Send + Sync + 'static) -> Arc<Self> {
        Self::slow(Duration::ZERO, script)
    }

    fn slow(
        takes: Duration,
        script: impl Fn(usize, usize) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            tries: Mutex::default(),
            takes,
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn becomes(&self, script: impl Fn(usize, usize) -> Result<(), Failure> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn seen(&self) -> Vec<usize> {
        self.seen.lock().unwrap().clone()
    }

    fn tries(&self, number: usize) -> usize {
        self.tries.lock().unwrap().get(&number).copied().unwrap_or(0)
    }
}

impl Courier for Receiver {
    fn carry<'a>(&'a self, message: &'a Message) -> Carrying<'a> {
        let number: usize = message.id.parse().unwrap();
        Box::pin(async move {
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(under_way, Ordering::SeqCst);
            tokio::time::sleep(self.takes).await;
            let tries = {
                let mut tries = self.tries.lock().unwrap();
                let tries = tries.entry(number).or_default();
                *tries += 1;
                *tries
            };
            self.seen.lock().unwrap().push(number);
            let outcome = (self.script.lock().unwrap())(number, tries);
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            outcome.map(|()| 200)
        })
    }
}

fn status(code: u16) -> Result<(), Failure> {
    Err(Failure::of_status(StatusCode::from_u16(code).unwrap(), None))
}

fn nobody() -> Result<(), Failure> {
    Err(Failure::new(Class::Connect, "no connection: refused"))
}

/// Times are short: waits of 40 ms where a real endpoint has minutes.
fn endpoint() -> Endpoint {
    let mut endpoint = Endpoint::new(NAME, Address::parse("http://127.0.0.1:1/").unwrap(), Keys::Given(Vec::new()));
    endpoint.retry = vec![Duration::from_millis(40); 2];
    endpoint.longest_pause = Duration::from_millis(40);
    endpoint
}

struct Running {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    board: Arc<Board>,
}

impl Running {
    fn start(endpoint: Endpoint, outbox: &Arc<Memory>, receiver: &Arc<Receiver>) -> Self {
        let board = Arc::<Board>::default();
        let outbox = Arc::<Memory>::clone(outbox) as Arc<dyn Outbox>;
        let courier = Arc::<Receiver>::clone(receiver) as Arc<dyn Courier>;
        let worker = Worker::new(Arc::new(endpoint), outbox, courier, Arc::clone(&board), Arc::default());
        let (stop, stopping) = watch::channel(false);
        Self { stop, task: tokio::spawn(worker.run(stopping)), board }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

/// Waits until something holds, for at least a minute.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}

async fn all_delivered(outbox: &Memory, count: usize) {
    until("all are delivered", || outbox.count(DeliveryState::Delivered) == count).await;
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_once_and_in_order() {
    let (outbox, receiver) = (Memory::of(300), Receiver::new(|_, _| Ok(())));
    let running = Running::start(endpoint(), &outbox, &receiver);
    all_delivered(&outbox, 300).await;
    outbox.add(300..320);
    all_delivered(&outbox, 320).await;
    assert_eq!(receiver.seen(), (0..320).collect::<Vec<_>>());
    let figures = running.board.read();
    assert_eq!(
        (figures.attempts, figures.delivered, figures.in_flight, figures.health),
        (320, 320, 0, WebhookHealth::Up)
    );
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_way_than_wanted() {
    let (outbox, receiver) = (Memory::of(60), Receiver::slow(Duration::from_millis(5), |_, _| Ok(())));
    let running = Running::start(Endpoint { concurrency: 8, ..endpoint() }, &outbox, &receiver);
    all_delivered(&outbox, 60).await;
    assert_eq!(receiver.most.load(Ordering::SeqCst), 8);
    assert_eq!(receiver.seen().len(), 60);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_dies_alone_and_can_be_revived() {
    let (outbox, receiver) =
        (Memory::of(20), Receiver::new(|number, _| if number == 3 { status(400) } else { Ok(()) }));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("it is given up", || outbox.count(DeliveryState::Dead) == 1).await;
    all_delivered(&outbox, 19).await;
    assert_eq!((outbox.row(3).attempts, receiver.tries(3)), (3, 3), "the first attempt and two retries");
    assert!(outbox.row(3).error.unwrap().contains("400 Bad Request"));
    let order: Vec<_> = receiver.seen().into_iter().filter(|number| *number != 3).collect();
    assert_eq!(order, (0..20).filter(|number| *number != 3).collect::<Vec<_>>(), "nobody waits for it");
    let figures = running.board.read();
    assert_eq!((figures.given_up, figures.failures["refused"]), (1, 3));
    receiver.becomes(|_, _| Ok(()));
    assert_eq!(outbox.redeliver(&Redelivery::default()).await, Ok(1));
    all_delivered(&outbox, 20).await;
    running.stop().await;
}

/// Thousands wait for a receiver that is down, and none of them is the worse for it.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_dead_receiver_uses_up_no_attempts() {
    let (outbox, receiver) = (Memory::of(2000), Receiver::new(|_, _| nobody()));
    let running = Running::start(Endpoint { concurrency: 8, ..endpoint() }, &outbox, &receiver);
    until("it is tried several times", || receiver.seen().len() > 6).await;
    assert!(receiver.seen().len() < 50, "one message at a time, with pauses");
    assert_eq!(running.board.read().health, WebhookHealth::Down);
    assert_eq!(receiver.most.load(Ordering::SeqCst), 1);
    receiver.becomes(|_, _| Ok(()));
    all_delivered(&outbox, 2000).await;
    assert!(outbox.table().rows.values().all(|row| row.attempts == 1));
    assert_eq!(running.board.read().health, WebhookHealth::Up);
    running.stop().await;
}

/// A receiver that refuses everything is down as well, and its messages wait rather than die.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_refuses_everything_is_left_alone() {
    let (outbox, receiver) = (Memory::of(30), Receiver::new(|_, _| status(500)));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("it is found to be down", || running.board.read().health == WebhookHealth::Down).await;
    until("it is tried on", || receiver.seen().len() > 40).await;
    assert_eq!(outbox.count(DeliveryState::Dead), 0);
    receiver.becomes(|_, _| Ok(()));
    all_delivered(&outbox, 30).await;
    running.stop().await;
}

/// One that takes too long each time stops nobody for long, and dies by its own attempts.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_never_answered_does_not_block_the_others() {
    let slow = |number, _| if number == 0 { Err(Failure::new(Class::Timeout, "no answer in time")) } else { Ok(()) };
    let (outbox, receiver) = (Memory::of(10), Receiver::new(slow));
    let running = Running::start(endpoint(), &outbox, &receiver);
    all_delivered(&outbox, 9).await;
    outbox.add(10..12);
    until("it is given up", || {
        // Only what happens between tells its failures from those of the receiver.
        outbox.add(12..13);
        outbox.count(DeliveryState::Dead) == 1
    })
    .await;
    assert_eq!(outbox.row(0).attempts, 3);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn waits_that_the_receiver_asks_for_are_kept() {
    let busy = |_, tries| match tries {
        1 => Err(Failure::of_status(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_millis(300)))),
        _ => Ok(()),
    };
    let (outbox, receiver) = (Memory::of(1), Receiver::new(busy));
    let began = Instant::now();
    let running = Running::start(endpoint(), &outbox, &receiver);
    all_delivered(&outbox, 1).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(outbox.row(0).attempts, 1, "being busy is no refusal");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_is_asked_no_more_until_it_is_enabled() {
    let (outbox, receiver) =
        (Memory::of(10), Receiver::new(|number, _| if number == 4 { status(410) } else { Ok(()) }));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("it is disabled", || outbox.table().disabled.is_some()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    outbox.add(10..12);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((receiver.seen(), running.board.read().health), ((0..5).collect(), WebhookHealth::Disabled));
    assert!(outbox.table().disabled.as_ref().unwrap().reason.contains("410 Gone"));
    running.stop().await;
    // Also after a restart.
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("it is known", || running.board.read().health == WebhookHealth::Disabled).await;
    receiver.becomes(|_, _| Ok(()));
    assert_eq!(outbox.enable(NAME).await, Ok(true));
    all_delivered(&outbox, 12).await;
    assert!(receiver.seen().starts_with(&[0, 1, 2, 3, 4, 4, 5]), "what it refused is the first: {:?}", receiver.seen());
    assert_eq!(outbox.row(4).attempts, 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_down_gives_up_what_has_waited_too_long() {
    let (outbox, receiver) = (Memory::of(700), Receiver::new(|_, _| nobody()));
    let running = Running::start(Endpoint { give_up: Duration::from_millis(400), ..endpoint() }, &outbox, &receiver);
    until("all are given up at once", || outbox.count(DeliveryState::Dead) == 700).await;
    assert!(outbox.table().together < 2 * CLAIM.1, "they are not held together: {}", outbox.table().together);
    assert!(receiver.seen().len() < 40);
    outbox.add(700..701);
    outbox.table().rows.get_mut(&id(700)).unwrap().time_ms = now_ms();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(outbox.row(700).state, DeliveryState::Waiting, "it has not waited yet");
    running.stop().await;
}

fn busy(wait: Duration) -> Result<(), Failure> {
    Err(Failure::of_status(StatusCode::TOO_MANY_REQUESTS, Some(wait)))
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_more_time_for_ever_does_not_get_it() {
    let (outbox, receiver) = (Memory::of(300), Receiver::new(|_, _| busy(Duration::from_millis(15))));
    let running = Running::start(Endpoint { give_up: Duration::from_millis(400), ..endpoint() }, &outbox, &receiver);
    until("all are given up", || outbox.count(DeliveryState::Dead) == 300).await;
    assert!((4..60).contains(&receiver.seen().len()), "it was left alone as it asked");
    for number in [0, 299] {
        let row = outbox.row(number);
        assert_eq!(row.error.unwrap(), "the receiver answered 429 Too Many Requests; not taken for 400ms");
    }
    assert_eq!(running.board.read().given_up, 300);
    running.stop().await;
}

/// A receiver that is busy for the sake of one message, and takes all others, is never down for long: that one holds up nobody.
#[tokio::test(start_paused = true)]
async fn a_message_that_the_receiver_is_always_too_busy_for_dies_alone() {
    for concurrency in [1, 4] {
        let script = |number, _| if number == 3 { busy(Duration::from_millis(5)) } else { Ok(()) };
        let (outbox, receiver) = (Memory::of(20), Receiver::slow(Duration::from_millis(2), script));
        let endpoint = Endpoint { concurrency, give_up: Duration::from_millis(500), ..endpoint() };
        let running = Running::start(endpoint, &outbox, &receiver);
        let (mut next, mut most) = (20, 0);
        while outbox.row(3).state == DeliveryState::Waiting {
            assert!(next < 1000, "it is given up");
            outbox.add(next..next + 1);
            next += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            most = most.max(outbox.count(DeliveryState::Waiting));
        }
        assert_eq!(outbox.row(3).state, DeliveryState::Dead);
        assert!(receiver.tries(3) > 4, "it was tried {} times", receiver.tries(3));
        // What comes during two pauses, and what there was in the beginning.
        assert!(most < 40, "{most} waited at once");
        all_delivered(&outbox, next - 1).await;
        running.stop().await;
    }
}

/// Runs of ours that end before the span is over add up; only, each gives the receiver some time of its own.
#[tokio::test(start_paused = true)]
async fn how_long_a_receiver_has_been_down_is_known_over_restarts() {
    let (outbox, receiver) = (Memory::of(600), Receiver::new(|_, _| nobody()));
    let days = |days: u64| now_ms() - days * 86_400_000;
    for (number, row) in outbox.table().rows.values_mut().enumerate() {
        (row.time_ms, row.due_ms) = (days(5), days(5));
        row.failing_ms = (number < 40).then(|| days(5));
    }
    let began = Instant::now();
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("all are given up", || outbox.count(DeliveryState::Dead) == 600).await;
    assert!(began.elapsed() >= TRIED, "it may have been we who were away");
    assert!(receiver.seen().len() < 40, "also what nobody had tried, for nothing could arrive");
    assert!(outbox.row(599).error.unwrap().ends_with("; not taken for 4 days"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_loses_nothing() {
    let (outbox, receiver) = (Memory::of(40), Receiver::slow(Duration::from_millis(5), |_, _| Ok(())));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("some arrive", || receiver.seen().len() > 4).await;
    outbox.table().away = true;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let seen = receiver.seen().len();
    outbox.table().away = false;
    all_delivered(&outbox, 40).await;
    assert!(seen <= 40);
    assert_eq!(receiver.seen().len(), 40, "what arrived meanwhile is not sent again");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_is_not_sent() {
    let (outbox, receiver) = (Memory::of(40), Receiver::slow(Duration::from_millis(50), |_, _| Ok(())));
    let running = Running::start(endpoint(), &outbox, &receiver);
    until("some arrive", || receiver.seen().len() > 2).await;
    running.stop().await;
    let seen = receiver.seen().len();
    assert_eq!(outbox.count(DeliveryState::Delivered), seen, "what was under way has been waited for");
    let table = outbox.table();
    let mut rest = table.rows.values().filter(|row| row.state == DeliveryState::Waiting);
    assert!(seen < 40 && rest.all(|row| row.due_ms <= now_ms() && row.attempts == 0), "the rest is due");
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_leaves_behind_is_not_under_way() {
    let (outbox, receiver) = (Memory::of(3), Receiver::slow(FAREWELL * 2, |_, _| Ok(())));
    let running = Running::start(endpoint(), &outbox, &receiver);
    let board = Arc::clone(&running.board);
    until("one is under way", || board.read().in_flight == 1).await;
    running.stop().await;
    until("none is", || board.read().in_flight == 0).await;
    assert_eq!((board.read().attempts, outbox.row(0).state), (0, DeliveryState::Waiting));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_record_is_given_up_and_not_sent() {
    let (outbox, receiver) = (Memory::of(3), Receiver::new(|_, _| Ok(())));
    outbox.table().rows.get_mut(&id(1)).unwrap().record = "{".into();
    let running = Running::start(endpoint(), &outbox, &receiver);
    all_delivered(&outbox, 2).await;
    until("it is given up", || outbox.row(1).state == DeliveryState::Dead).await;
    assert_eq!(receiver.seen(), [0, 2]);
    running.stop().await;
}
