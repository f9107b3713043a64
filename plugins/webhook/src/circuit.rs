//! Whether an endpoint is worth a try: what is down is left alone as a whole, rather than message by message.
//!
//! As long as messages arrive, each failure is one message's own, which is tried again by the schedule. When the receiver cannot be reached, or
//! refuses several different messages in a row, everything waits, and single messages, one at a time, find out whether it is back. Those attempts
//! do not count for the messages that made them: thousands may wait for days, and arrive as soon as the receiver does.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;
use crate::retry::jittered;

/// First wait for an endpoint that is down; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// So many different messages refused in a row, and none accepted between, mean the receiver and not the messages.
const REFUSALS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been tried yet.
    Untried,
    /// Messages arrive.
    Closed,
    /// They do not, and have not in earlier runs for the time `before`.
    Paused { until: Instant, pauses: u32, since: Instant, before: Duration },
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// It counts as an attempt of its message.
    pub(crate) counts: bool,
    /// With it, everything begins to wait.
    pub(crate) opened: bool,
}

/// The circuit to one endpoint.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: State,
    /// Messages refused since the last success.
    refused: Vec<String>,
    longest: Duration,
}

impl Circuit {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { state: State::Untried, refused: Vec::new(), longest }
    }

    /// How many more messages may be sent while `under_way` are.
    pub(crate) fn room(&self, now: Instant, under_way: usize, concurrency: usize) -> usize {
        match self.state {
            State::Closed => concurrency.saturating_sub(under_way),
            State::Untried => 1_usize.saturating_sub(under_way),
            State::Paused { until, .. } if until <= now => 1_usize.saturating_sub(under_way),
            State::Paused { .. } => 0,
        }
    }

    /// Messages arrive.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Until when nothing is sent.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        match self.state {
            State::Untried | State::Closed => None,
            State::Paused { until, .. } => Some(until),
        }
    }

    /// How long it has been down, also in earlier runs.
    pub(crate) fn down_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Untried | State::Closed => None,
            State::Paused { since, before, .. } => Some(now.saturating_duration_since(since).saturating_add(before)),
        }
    }

    /// A message has arrived. Tells how long none could, where that had been found.
    pub(crate) fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        let down = self.down_for(now);
        self.refused.clear();
        self.state = State::Closed;
        down
    }

    /// A message has not arrived, which has failed for the time `failing` already, maybe in earlier runs.
    pub(crate) fn failed(&mut self, message: &str, failure: &Failure, failing: Duration, now: Instant) -> Judgement {
        if !self.refused.iter().any(|known| known == message) && self.refused.len() < REFUSALS {
            self.refused.push(message.to_owned());
        }
        let all = failure.concerns_all() || self.refused.len() >= REFUSALS;
        match self.state {
            State::Paused { until, pauses, since, before } => {
                // What was under way when the pause began does not make it longer, unless the receiver asks.
                let pauses = if until <= now { pauses.saturating_add(1) } else { pauses };
                let again = if until <= now { now + self.pause(pauses, failure) } else { until };
                let until = again.max(now + failure.asked.unwrap_or_default());
                self.state = State::Paused { until, pauses, since, before };
                Judgement { counts: false, opened: false }
            }
            // A receiver that refuses lives.
            State::Untried | State::Closed if !all => Judgement { counts: true, opened: false },
            State::Untried => {
                self.open(failure, failing, now);
                Judgement { counts: false, opened: true }
            }
            State::Closed => {
                self.open(failure, Duration::ZERO, now);
                Judgement { counts: !failure.is_free(), opened: true }
            }
        }
    }

    fn open(&mut self, failure: &Failure, before: Duration, now: Instant) {
        self.state = State::Paused { until: now + self.pause(0, failure), pauses: 0, since: now, before };
    }

    fn pause(&self, pauses: u32, failure: &Failure) -> Duration {
        let usual = FIRST_PAUSE.saturating_mul(1 << pauses.min(16)).min(self.longest);
        jittered(usual).max(failure.asked.unwrap_or_default())
    }

    /// Somebody knows better: the next message is sent at once.
    pub(crate) fn try_now(&mut self, now: Instant) {
        if let State::Paused { pauses, since, before, .. } = self.state {
            self.state = State::Paused { until: now, pauses: pauses.min(1), since, before };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;
    use reqwest::StatusCode;

    const NEW: Duration = Duration::ZERO;

    fn refusal() -> Failure {
        Failure::of_status(StatusCode::INTERNAL_SERVER_ERROR, None)
    }

    fn nobody() -> Failure {
        Failure::new(Class::Connect, "no connection")
    }

    fn pause(circuit: &Circuit, now: Instant) -> f64 {
        circuit.paused_until().unwrap().saturating_duration_since(now).as_secs_f64()
    }

    #[test]
    fn one_message_tries_and_then_all_follow() {
        let mut circuit = Circuit::new(Duration::from_secs(30));
        let now = Instant::now();
        assert_eq!((circuit.room(now, 0, 8), circuit.room(now, 1, 8)), (1, 0));
        circuit.succeeded(now);
        assert_eq!((circuit.room(now, 0, 8), circuit.room(now, 3, 8)), (8, 5));
    }

    #[test]
    fn pauses_grow_to_the_longest_and_count_for_nobody() {
        let mut circuit = Circuit::new(Duration::from_secs(30));
        let mut now = Instant::now();
        assert_eq!(circuit.failed("a", &nobody(), NEW, now), Judgement { counts: false, opened: true });
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] {
            let wait = pause(&circuit, now);
            assert!((expected * 0.8..=expected * 1.2).contains(&wait), "{wait} instead of {expected}");
            assert_eq!(circuit.room(now, 0, 8), 0);
            now = circuit.paused_until().unwrap();
            assert_eq!((circuit.room(now, 0, 8), circuit.room(now, 1, 8)), (1, 0));
            assert_eq!(circuit.failed("a", &refusal(), NEW, now), Judgement { counts: false, opened: false });
        }
        assert!(circuit.succeeded(now).unwrap() > Duration::from_secs(60));
        assert_eq!(circuit.room(now, 0, 8), 8);
        assert_eq!(circuit.succeeded(now), None);
    }

    #[test]
    fn one_bad_message_stops_nobody_and_five_do() {
        let mut circuit = Circuit::new(Duration::from_secs(30));
        let now = Instant::now();
        let own = Judgement { counts: true, opened: false };
        for _ in 0..20 {
            assert_eq!(circuit.failed("a", &refusal(), NEW, now), own);
        }
        circuit.succeeded(now);
        for message in ["a", "b", "c", "d"] {
            assert_eq!(circuit.failed(message, &refusal(), NEW, now), own);
        }
        assert_eq!(circuit.failed("e", &refusal(), NEW, now), Judgement { counts: true, opened: true });
        assert!(!circuit.failed("f", &refusal(), NEW, circuit.paused_until().unwrap()).counts);
    }

    #[test]
    fn what_cannot_be_the_messages_fault_does_not_count() {
        let now = Instant::now();
        let of = |status, asked: Option<u64>| {
            Failure::of_status(StatusCode::from_u16(status).unwrap(), asked.map(Duration::from_secs))
        };
        let cases = [
            (nobody(), false),
            (Failure::new(Class::Timeout, "slow"), true),
            (of(502, None), true),
            (of(503, None), true),
            (of(503, Some(9)), false),
            (of(429, None), false),
        ];
        for (failure, counts) in cases {
            let mut circuit = Circuit::new(Duration::from_secs(30));
            circuit.succeeded(now);
            assert_eq!(circuit.failed("a", &failure, NEW, now), Judgement { counts, opened: true }, "{failure:?}");
        }
    }

    #[test]
    fn a_receiver_says_how_long_and_somebody_else_that_it_is_over() {
        let now = Instant::now();
        let busy = |seconds| Failure::of_status(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(seconds)));
        let mut circuit = Circuit::new(Duration::from_secs(30));
        circuit.succeeded(now);
        circuit.failed("a", &busy(600), NEW, now);
        assert_eq!(pause(&circuit, now), 600.0);
        // Late ones do not make it longer, unless they were told so.
        circuit.failed("b", &nobody(), NEW, now);
        assert_eq!(pause(&circuit, now), 600.0);
        circuit.failed("c", &busy(700), NEW, now);
        assert_eq!(pause(&circuit, now), 700.0);
        circuit.try_now(now);
        assert_eq!(circuit.room(now, 0, 8), 1);
    }

    /// What nobody has taken since an earlier run shows that the receiver has been down since then; what it refused while it took others does not.
    #[test]
    fn a_receiver_that_was_down_before_the_daemon_started_has_been_for_longer() {
        let day = Duration::from_secs(86_400);
        let now = Instant::now();
        let mut circuit = Circuit::new(Duration::from_secs(30));
        circuit.failed("a", &nobody(), day, now);
        circuit.failed("b", &nobody(), 3 * day, now);
        assert_eq!(circuit.down_for(now + day), Some(2 * day));
        circuit.try_now(now);
        assert_eq!(circuit.down_for(now), Some(day));
        circuit.succeeded(now);
        circuit.failed("c", &nobody(), day, now);
        assert_eq!(circuit.down_for(now), Some(Duration::ZERO));
    }
}
