//! `cygnet events --follow`: what happens, without a gap and without repeating anything, over restarts of the daemon.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::{self, Client};
use crate::events::{Arguments, EVENT, of_the_past};
use crate::moment::Clock;
use crate::stdio::{say, stdout};

/// What events come as when they happen.
const TOLD: &str = "cygnet-event";
/// Between two attempts to reach a daemon that is gone.
const RETRY: Duration = Duration::from_millis(250);
/// How long the history may take to have what was told before.
const LAG: Duration = Duration::from_secs(30);
/// Events that are remembered so as not to be shown twice.
const REMEMBERED: usize = 20_000;
/// Clocks may step back a little between two events.
const SLACK_MS: u64 = 10_000;

/// Shows events until it is interrupted.
pub(crate) fn run(client: Client, uri: &str, arguments: &Arguments, clock: &Clock) -> Result<u8, ClientError> {
    let from_ms = arguments.part.since(clock).map_or(clock.now_ms(), |since| since.0);
    let mut follower = Follower { arguments, clock, seen: Seen::default(), from_ms };
    let mut client = Some(client);
    loop {
        let connected = match client.take() {
            Some(client) => client,
            None => reconnect(uri)?,
        };
        match follower.listen(connected) {
            Ok(never) => match never {},
            // Nothing can be shown any more.
            Err(Ended::Output(error)) => return Err(ClientError::Io(error)),
            Err(Ended::Daemon(error @ (ClientError::Io(_) | ClientError::Protocol(_)))) => {
                say!("cygnet: {error}: waiting for the daemon");
            }
            Err(Ended::Daemon(error)) => return Err(error),
        }
    }
}

/// Why listening ended.
enum Ended {
    Daemon(ClientError),
    Output(io::Error),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Daemon(error)
    }
}

/// There is no such value.
enum Never {}

struct Follower<'a> {
    arguments: &'a Arguments,
    clock: &'a Clock,
    seen: Seen,
    /// Nothing that happened before is shown.
    from_ms: u64,
}

impl Follower<'_> {
    fn listen(&mut self, mut client: Client) -> Result<Never, Ended> {
        // The last: what comes from then on is not lost between two registrations.
        client.register(EVENT.0)?;
        client.register(TOLD)?;
        self.catch_up(&mut client)?;
        loop {
            let (event, message) = client.event()?;
            if event != TOLD {
                continue;
            }
            let missed = self.seen.is_gap(&message);
            if missed {
                self.catch_up(&mut client)?;
            }
            self.show(&message)?;
        }
    }

    /// Shows what the history has from the last event on.
    fn catch_up(&mut self, client: &mut Client) -> Result<(), Ended> {
        let since = self.seen.last_ms.map_or(self.from_ms, |last| last.saturating_sub(SLACK_MS).max(self.from_ms));
        let request = since_then(&self.arguments.request(self.clock), since);
        // All that has been missed is shown; of what was before, as much as is asked for.
        let limit = if self.seen.last_ms.is_some() { None } else { self.arguments.part.limit() };
        let (began, mut live) = (Instant::now(), Vec::new());
        loop {
            let past = of_the_past(client, &request, limit)?;
            if let Some(error) = past.answer.get_str("errmsg") {
                say!("cygnet: {error}: what was missed is not shown");
                return live.iter().chain(&past.others).try_for_each(|message| self.show(message));
            }
            live.extend(past.others);
            if past.answer.is_yes("complete") {
                // What happened while the history was asked came in between.
                return past.rows.iter().chain(&live).try_for_each(|message| self.show(message));
            }
            if began.elapsed() > LAG {
                say!("cygnet: the history lags behind: some of what was missed may not be shown");
                return past.rows.iter().chain(&live).try_for_each(|message| self.show(message));
            }
            thread::sleep(RETRY);
        }
    }

    fn show(&mut self, message: &Message) -> Result<(), Ended> {
        if !self.seen.is_new(message) {
            return Ok(());
        }
        let mut out = stdout();
        let shown = self.arguments.print(&mut out, message, self.clock).and_then(|()| out.flush());
        shown.map_err(Ended::Output)
    }
}

/// The same request about what happened from a moment on, in milliseconds, whatever it said of that itself.
fn since_then(request: &Message, since_ms: u64) -> Message {
    let mut out = Message::new();
    for element in request.elements().iter().filter(|element| element.name() != "since") {
        out.push(element.clone());
    }
    out.set_display("since", since_ms);
    out
}

fn reconnect(uri: &str) -> Result<Client, ClientError> {
    loop {
        match connect::connect(uri) {
            Err(ClientError::Connect(..)) => thread::sleep(RETRY),
            outcome => return outcome,
        }
    }
}

/// What has been shown.
#[derive(Debug, Default)]
struct Seen {
    ulids: VecDeque<String>,
    /// Run and number of the last event that the daemon told.
    last: Option<(String, u64)>,
    /// When the last of all happened.
    last_ms: Option<u64>,
}

impl Seen {
    /// Between the last event and this one others were told: the daemon does not wait for slow listeners.
    fn is_gap(&self, message: &Message) -> bool {
        match (&self.last, number(message)) {
            (Some((run, last)), Some((of, number))) => *run == of && number > last + 1,
            (None, _) | (_, None) => false,
        }
    }

    /// Notes it; `false` when it was noted before.
    fn is_new(&mut self, message: &Message) -> bool {
        let Some((ulid, ms)) = (EVENT.1)(message) else { return false };
        if self.ulids.iter().rev().any(|seen| *seen == ulid) {
            return false;
        }
        self.ulids.push_back(ulid);
        if self.ulids.len() > REMEMBERED {
            self.ulids.pop_front();
        }
        self.last_ms = self.last_ms.max(Some(ms));
        if let Some(next) = number(message) {
            let known = self.last.as_ref().is_some_and(|last| last.0 == next.0 && last.1 > next.1);
            if !known {
                self.last = Some(next);
            }
        }
        true
    }
}

/// Run and number of an event.
fn number(message: &Message) -> Option<(String, u64)> {
    let record: serde_json::Value = serde_json::from_str(&text::cygnet_record(message)?).ok()?;
    Some((record.get("boot_id")?.as_str()?.to_owned(), record.get("seq")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_asked_for_once() {
        let asked = Message::new().with("type", "child-sa.*").with("since", "1000").with("until", "9000");
        let request = since_then(&asked, 5_000);
        let values: Vec<_> = request.elements().iter().map(|element| element.name()).collect();
        assert_eq!(values, ["type", "until", "since"]);
        assert_eq!(request.get_str("since"), Some("5000"));
    }

    fn event(run: &str, number: u64) -> Message {
        let record = format!(r#"{{"time":"2026-11-26T03:12:00.{number:03}Z","boot_id":"{run}","seq":{number}}}"#);
        Message::new().with("ulid", format!("{run}{number}")).with("record", record)
    }

    #[test]
    fn nothing_is_shown_twice_and_gaps_are_noticed() {
        let mut seen = Seen::default();
        assert!(!seen.is_gap(&event("a", 7)), "where listening begins");
        assert!(seen.is_new(&event("a", 7)) && !seen.is_new(&event("a", 7)));
        assert!(!seen.is_gap(&event("a", 8)) && seen.is_gap(&event("a", 9)));
        assert!(seen.is_new(&event("a", 9)));
        // What was missed comes from the history.
        assert!(seen.is_new(&event("a", 8)) && !seen.is_gap(&event("a", 10)));
        assert!(!seen.is_gap(&event("b", 5)), "another run is caught up with when it is reached");
        assert!(seen.is_new(&event("b", 5)) && !seen.is_gap(&event("b", 6)));
        assert_eq!(seen.last_ms, Some(1_795_662_720_009));
    }
}
