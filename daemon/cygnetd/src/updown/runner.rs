//! The thread that has scripts run: in order, so many at once, each within its time; and that notices when the helper is gone.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ike_model::{Cause, CauseKind, EventBody, Identity};
use ipsec::SelectorPair;
use offload_host::probe::Probe;
use tokio::sync::oneshot;

use super::environment::{environment, verb};
use super::helper::Helper;
use super::protocol::{Channel, End, Report, Request};
use super::queue::Queue;
use super::{Failures, Limits, Successor, Told};
use crate::clock;
use crate::events::Hub;

/// Scripts that wait at most; each takes some hundred octets. A limit for a child that goes up and down without end while its script hangs.
const WAITING: usize = 100_000;
/// A helper that says nothing of a script for so long after its time is stuck.
const SILENCE: Duration = Duration::from_secs(10);
/// Between a helper's end and its successor's beginning, so that one that dies at once does not keep us busy.
const PAUSE: Duration = Duration::from_secs(1);
/// How often is looked for a stuck helper.
const LOOK: Duration = Duration::from_secs(5);

/// What the runner is told.
pub(super) enum Message {
    /// A CHILD SA came up or went.
    Told(Told),
    /// The helper of this number says something.
    Reported(u64, Report),
    /// The helper of this number has gone.
    Gone(u64),
    /// Tell when all scripts asked for by now have ended.
    Settled(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// What keeps an order of its own: scripts about one peer under one connection.
type Lane = (Arc<str>, Identity);

/// One script for one pair of selectors.
#[derive(Debug)]
struct Call {
    told: Arc<Told>,
    pair: SelectorPair,
}

impl Call {
    fn lane(&self) -> Lane {
        (Arc::clone(&self.told.ike.connection), self.told.ike.remote_id.clone())
    }

    fn verb(&self) -> String {
        verb(&self.told, &self.pair)
    }

    fn script(&self) -> &str {
        self.told.child.updown.as_ref().map(|updown| updown.script.as_str()).unwrap_or_default()
    }
}

pub(super) struct Runner {
    limits: Limits,
    hub: Arc<Hub>,
    failures: Arc<Failures>,
    /// For those who listen to helpers.
    to_us: Sender<Message>,
    helper: Option<Helper>,
    successor: Successor,
    /// Number of the helper; grows with each.
    number: u64,
    /// When the next one is started, where there is none.
    next_helper: Option<Instant>,
    queue: Queue<Lane, Call>,
    /// When each script that runs was begun.
    begun: HashMap<u64, Instant>,
    waiting_for_rest: Vec<oneshot::Sender<()>>,
    interfaces: Interfaces,
}

impl Runner {
    pub(super) fn new(
        limits: Limits,
        hub: Arc<Hub>,
        failures: Arc<Failures>,
        to_us: Sender<Message>,
        helper: Helper,
        successor: Successor,
    ) -> io::Result<Self> {
        let mut runner = Self {
            limits,
            hub,
            failures,
            to_us,
            helper: None,
            successor,
            number: 0,
            next_helper: None,
            queue: Queue::default(),
            begun: HashMap::new(),
            waiting_for_rest: Vec::new(),
            interfaces: Interfaces::default(),
        };
        runner.employ(helper)?;
        Ok(runner)
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            self.begin();
            match messages.recv_timeout(self.pause()) {
                Ok(Message::Told(told)) => self.told(told),
                Ok(Message::Reported(number, report)) if number == self.number => self.reported(report),
                Ok(Message::Gone(number)) if number == self.number => self.lost("it has ended"),
                // From one that was given up before.
                Ok(Message::Reported(..) | Message::Gone(_)) => {}
                Ok(Message::Settled(to)) => self.waiting_for_rest.push(to),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.look_for_trouble();
            if self.queue.is_idle() {
                // Whoever waits may have gone.
                self.waiting_for_rest.drain(..).for_each(|to| to.send(()).unwrap_or_default());
            }
        }
        self.stop();
    }

    fn pause(&self) -> Duration {
        let restart = self.next_helper.map(|at| at.saturating_duration_since(Instant::now()));
        restart.unwrap_or(LOOK)
    }

    fn told(&mut self, told: Told) {
        let told = Arc::new(told);
        for pair in SelectorPair::product(&told.child.local_ts, &told.child.remote_ts) {
            let call = Call { told: Arc::clone(&told), pair };
            if self.queue.waiting() >= WAITING {
                self.failed(&call, None, format!("{WAITING} scripts wait already: it was not run"));
            } else {
                self.queue.push(call.lane(), call);
            }
        }
    }

    /// Begins what may be.
    fn begin(&mut self) {
        while let Some(helper) = &self.helper {
            let Some((id, call)) = self.queue.next(self.limits.at_once) else { return };
            let interface = self.interfaces.with(call.told.ike.local.ip());
            let (conn, child, verb) = (&*call.told.ike.connection, &*call.told.child.name, call.verb());
            tracing::debug!(conn, child, verb, interface, "running the updown script");
            let request = Request::Run {
                id,
                limit_ms: u64::try_from(self.limits.time.as_millis()).unwrap_or(u64::MAX),
                script: call.script().to_owned(),
                environment: environment(&call.told, &call.pair, interface),
            };
            self.begun.insert(id, Instant::now());
            match helper.tell(&request) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.ended(id, &End::NotRun("the script is too long to be handed over".into()));
                }
                Err(error) => self.lost(&format!("it cannot be told anything: {error}")),
            }
        }
    }

    fn reported(&mut self, report: Report) {
        match report {
            Report::Line { id, text } => self.say(id, &text),
            Report::Omitted { id, lines } => self.say(id, &format!("({lines} more lines are left out)")),
            Report::Ended { id, end } => self.ended(id, &end),
        }
    }

    fn say(&self, id: u64, text: &str) {
        if let Some(call) = self.queue.running(id) {
            let (conn, child, ike) = (&*call.told.ike.connection, &*call.told.child.name, call.told.ike.unique_id);
            tracing::info!(conn, child, ike, verb = call.verb(), "updown: {text}");
        }
    }

    fn ended(&mut self, id: u64, end: &End) {
        self.begun.remove(&id);
        let Some(call) = self.queue.ended(id) else { return };
        let seconds = self.limits.time.as_secs_f64();
        match end {
            End::Exited(0) => self.failures.note(&call.told.ike.connection, &call.told.child.name, None),
            End::Exited(status) => self.failed(&call, Some(*status), format!("it ended with status {status}")),
            End::Killed(signal) => self.failed(&call, None, format!("it was killed by signal {signal}")),
            End::TimedOut => self.failed(&call, None, format!("it took longer than {seconds} s and was killed")),
            End::NotRun(why) => self.failed(&call, None, format!("it could not be run: {why}")),
        }
    }

    fn failed(&self, call: &Call, status: Option<i32>, what: String) {
        let (connection, child) = (call.told.ike.connection.to_string(), call.told.child.name.to_string());
        let verb = call.verb();
        let cause = Cause::new(CauseKind::ScriptFailed, format!("updown script, {verb}: {what}"));
        self.failures.note(&connection, &child, Some((clock::wall().as_secs(), cause.clone())));
        let unique_id = call.told.child.unique_id;
        self.hub.publish(EventBody::UpdownFailed { connection, child, unique_id, verb, status, cause });
    }

    /// The helper is of no use any more: what it ran has an unknown end, what waits is run by its successor, if it can have one.
    fn lost(&mut self, why: &str) {
        let Some(helper) = self.helper.take() else { return };
        let (pid, how) = (helper.id(), helper.bury());
        match self.successor {
            Successor::Possible => {
                tracing::warn!(
                    pid,
                    "the helper that runs updown scripts is gone ({why}; {how}): another one is started"
                );
            }
            Successor::Unprivileged => tracing::error!(
                pid,
                "the helper that runs updown scripts is gone ({why}; {how}), and with it the privileges to run them: restart cygnetd"
            ),
        }
        for id in self.queue.all_running() {
            let what = "the helper was lost while it ran; it may run still";
            self.ended(id, &End::NotRun(what.into()));
        }
        self.next_helper = (self.successor == Successor::Possible).then(|| Instant::now() + PAUSE);
    }

    fn look_for_trouble(&mut self) {
        let longest = self.limits.time + SILENCE;
        if self.helper.is_some() && self.begun.values().any(|begun| begun.elapsed() > longest) {
            self.lost("it does not say what became of a script");
        }
        if self.helper.is_none() && self.successor == Successor::Unprivileged {
            self.give_up("the helper that could run it is gone: restart cygnetd");
        }
        if self.helper.is_none() && self.next_helper.is_some_and(|at| at <= Instant::now()) {
            let employed = Helper::start().and_then(|helper| Ok(self.employ(helper)?));
            if let Err(error) = employed {
                tracing::error!("updown scripts wait: {error:#}");
                self.next_helper = Some(Instant::now() + PAUSE * 10);
            }
        }
    }

    /// From now on this one runs the scripts.
    fn employ(&mut self, helper: Helper) -> io::Result<()> {
        self.number += 1;
        if let Err(error) = self.listen_to(&helper) {
            // One that nobody listens to is of no use, and would stay behind as a zombie.
            helper.bury();
            return Err(error);
        }
        tracing::debug!(pid = helper.id(), "a helper runs updown scripts");
        self.helper = Some(helper);
        self.next_helper = None;
        Ok(())
    }

    fn listen_to(&self, helper: &Helper) -> io::Result<()> {
        let (channel, to_us, number) = (helper.listener()?, self.to_us.clone(), self.number);
        let thread = std::thread::Builder::new().name("updown-reports".into());
        thread.spawn(move || listen(&channel, number, &to_us)).map(drop)
    }

    /// Runs nothing of what waits.
    fn give_up(&mut self, why: &str) {
        let waiting: Vec<Call> = self.queue.drain().collect();
        for call in waiting {
            self.failed(&call, None, why.into());
        }
    }

    fn stop(&mut self) {
        for id in self.queue.all_running() {
            self.ended(id, &End::NotRun("the daemon has stopped and does not wait for its end".into()));
        }
        self.give_up("the daemon has stopped before it could be run");
        if let Some(helper) = self.helper.take() {
            helper.end();
        }
    }
}

/// Passes on what a helper says until it has gone.
fn listen(channel: &Channel, number: u64, to_us: &Sender<Message>) {
    loop {
        let message = match channel.receive() {
            Ok(Some(report)) => Message::Reported(number, report),
            // What it says makes no sense, so it is no better than one that has gone.
            Ok(None) | Err(_) => Message::Gone(number),
        };
        let last = matches!(message, Message::Gone(_));
        if to_us.send(message).is_err() || last {
            return;
        }
    }
}

/// Names of the interfaces that have our addresses. One that has gone is still told by its name when a CHILD SA goes because of it.
#[derive(Default)]
struct Interfaces {
    probe: Option<Probe>,
    known: HashMap<IpAddr, String>,
}

impl Interfaces {
    fn with(&mut self, address: IpAddr) -> &str {
        if let Some(name) = self.look_up(address) {
            self.known.insert(address, name);
        }
        // As charon says where there is none.
        self.known.get(&address).map_or("unknown", String::as_str)
    }

    fn look_up(&mut self, address: IpAddr) -> Option<String> {
        if address.is_loopback() {
            return Some("lo".into());
        }
        if self.probe.is_none() {
            self.probe = Probe::open().ok();
        }
        let probe = self.probe.as_mut()?;
        let link = probe.addresses().ok()?.into_iter().find(|own| own.address == address)?.link;
        probe.links().ok()?.get(link).map(|link| link.name.to_string())
    }
}
