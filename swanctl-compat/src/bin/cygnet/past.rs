//! Which part of the past: options that `cygnet history` and `cygnet events` share, and asking for it page by page.

use ike_model::Rfc3339;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::moment::Clock;
use crate::paint::Colour;

/// Rows in one question.
const PAGE: u32 = 1000;
/// Stands for every gateway.
const ALL: &str = "all";

/// The options.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Part {
    /// Only this connection.
    #[arg(long, value_name = "CONN")]
    connection: Option<String>,
    /// Only children of this name.
    #[arg(long)]
    child: Option<String>,
    /// Of another gateway that keeps its history in the same database, or of all of them.
    #[arg(long, value_name = "NAME|all")]
    gateway: Option<String>,
    /// What was there at this moment or later. Moments are local: how long ago (90s, 15m, 2h30m, 7d), a time of day (03:12, the last one), a date,
    /// both ("2026-01-31 03:12"), today, yesterday, or RFC 3339 with a zone.
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// What was there before this moment.
    #[arg(long, value_name = "MOMENT")]
    until: Option<String>,
    /// Only what ended or failed for a cause of this kind, such as peer-unreachable or daemon-died.
    #[arg(long, value_name = "KIND")]
    cause: Option<String>,
    /// At most so many, the newest; 0 = all.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Read and show moments in UTC rather than in local time. JSON has UTC always.
    #[arg(long)]
    utc: bool,
    /// Colours.
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(crate) color: Colour,
}

impl Part {
    /// In which zone moments are read and shown.
    pub(crate) fn clock(&self) -> Clock {
        Clock::new(self.utc)
    }

    /// What to ask the daemon. Ends the program where a moment is none.
    pub(crate) fn request(&self, clock: &Clock) -> Message {
        let mut request = self.whose();
        for (key, text) in [("since", &self.since), ("until", &self.until)] {
            if let Some(text) = text {
                request.set_display(key, moment(clock, &format!("--{key}"), text).0);
            }
        }
        if let Some(cause) = &self.cause {
            request.set("cause", cause.as_str());
        }
        request
    }

    /// The same without moments and causes.
    pub(crate) fn whose(&self) -> Message {
        let mut request = Message::new();
        let gateway = self.gateway.as_deref().map(|name| if name == ALL { "*" } else { name });
        for (key, value) in
            [("ike", self.connection.as_deref()), ("child", self.child.as_deref()), ("gateway", gateway)]
        {
            if let Some(value) = value {
                request.set(key, value);
            }
        }
        request
    }

    /// Whether an event that comes now is asked for.
    pub(crate) fn takes(&self, connection: Option<&str>, child: Option<&str>, cause: Option<&str>) -> bool {
        let fits =
            |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == has);
        fits(&self.connection, connection) && fits(&self.child, child) && fits(&self.cause, cause)
    }

    /// A part of the past is asked for by time.
    pub(crate) fn since(&self, clock: &Clock) -> Option<Rfc3339> {
        self.since.as_deref().map(|text| moment(clock, "--since", text))
    }

    /// Of another gateway: what happens now is not known here.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.gateway.is_some()
    }

    /// At most so many rows; `None` = all.
    pub(crate) fn limit(&self) -> Option<usize> {
        (self.limit > 0).then(|| usize::try_from(self.limit).unwrap_or(usize::MAX))
    }
}

/// A moment that was asked for. Ends the program where it is none, as clap does.
pub(crate) fn moment(clock: &Clock, option: &str, text: &str) -> Rfc3339 {
    match clock.parse(text) {
        Ok(time) => time,
        Err(error) => clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{option}: {error}\n")).exit(),
    }
}

/// An answer: rows, the newest first, and the message that ended the last page.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Streamed messages that are no rows.
    pub(crate) others: Vec<Message>,
    /// The rows.
    pub(crate) rows: Vec<Message>,
    /// What the daemon said in the end.
    pub(crate) answer: Message,
    /// What it said to the first question.
    pub(crate) first: Message,
}

/// How rows are told apart, and the moment by which they are ordered.
pub(crate) type Key = fn(&Message) -> Option<(String, u64)>;

/// Runs a command again and again, each time for what is older, until there are `limit` rows or no more. `event` is what rows come as.
///
/// # Errors
/// As for any command. That the daemon refuses is in the answer.
pub(crate) fn pages(
    client: &mut Client,
    command: &str,
    request: &Message,
    (event, key): (&str, Key),
    limit: Option<usize>,
) -> Result<Pages, ClientError> {
    let mut all = Pages::default();
    let mut until = None;
    loop {
        // A further page repeats rows of the moment at which the one before ended: it is as large as it can be, however few are still wanted.
        let wanted = limit.filter(|_| until.is_none()).and_then(|limit| u32::try_from(limit).ok());
        let size = wanted.map_or(PAGE, |wanted| wanted.min(PAGE));
        let mut request = request.clone();
        request.set_display("limit", size);
        if let Some(until) = until {
            request.set_display("until", until);
            request.set("totals", "no");
        }
        let mut page = Vec::new();
        all.answer = client.command(command, request, |name, message| {
            if name == event {
                page.push(message.clone());
            } else {
                all.others.push(message.clone());
            }
            Ok(())
        })?;
        if until.is_none() {
            all.first = all.answer.clone();
        }
        let full = page.len() >= usize::try_from(size).unwrap_or(usize::MAX);
        // Rows of one moment may lie on both sides of the end of a page, and come again.
        page.sort_by_key(|row| std::cmp::Reverse(key(row).map(|(_, at)| at)));
        let known: Vec<_> = all.rows.iter().rev().take(page.len()).filter_map(key).collect();
        let before = all.rows.len();
        let oldest = page.last().and_then(key).map(|(_, at)| at);
        all.rows.extend(page.into_iter().filter(|row| key(row).is_none_or(|key| !known.contains(&key))));
        all.rows.truncate(limit.unwrap_or(usize::MAX));
        let enough = limit.is_some_and(|limit| all.rows.len() >= limit);
        let Some(oldest) = oldest.filter(|_| full && !enough && all.answer.get("errmsg").is_none()) else {
            return Ok(all);
        };
        // All of this page was known: go past the moment they share.
        until = Some(if all.rows.len() > before { oldest + 1 } else { oldest });
    }
}

/// A length of time that was asked for, in milliseconds. Ends the program where it is none.
pub(crate) fn length(option: &str, text: &str) -> u64 {
    match crate::moment::ago(text) {
        Some(seconds) => seconds.saturating_mul(1000),
        None => {
            let error = format!("{option}: '{text}' is no length of time: expected one such as 90s, 5m or 2h30m\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, error).exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use swanctl_compat::vici::frame::{self, Deframer};
    use swanctl_compat::vici::{Packet, client};

    use super::*;
    use crate::connect::Stream;

    const ROW: &str = "row";

    fn row(number: u64) -> Message {
        // Thirty rows have one moment, and the first page ends among them.
        let at = if (980..1_010).contains(&number) { 9_000 } else { 10_000 - number };
        Message::new().with("id", number.to_string()).with("at", at.to_string())
    }

    fn key(row: &Message) -> Option<(String, u64)> {
        Some((row.get_str("id")?.to_owned(), row.get_str("at")?.parse().ok()?))
    }

    /// A daemon that has these rows, the newest first.
    fn serve(mut stream: UnixStream, rows: &[Message]) {
        let (mut deframer, mut buffer) = (Deframer::new(), [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            deframer.push(&buffer[..length]);
            while let Some(packet) = deframer.next_packet().unwrap() {
                let Packet::CmdRequest(_, request) = Packet::decode(&packet).unwrap() else { panic!("no command") };
                let number = |key: &str| request.get_str(key).and_then(|text| text.parse::<u64>().ok());
                let (until, limit) = (number("until").unwrap_or(u64::MAX), number("limit").unwrap());
                let found = rows.iter().filter(|row| key(row).unwrap().1 < until).take(usize::try_from(limit).unwrap());
                let events = found.map(|row| Packet::Event(ROW.to_owned(), row.clone()));
                for packet in events.chain([Packet::CmdResponse(Message::new())]) {
                    stream.write_all(&frame::encode(&packet).unwrap()).unwrap();
                }
            }
        }
    }

    /// Whatever number of rows is asked for, and wherever pages end.
    #[test]
    fn pages_leave_nothing_out_between_them() {
        for limit in [Some(1), Some(999), Some(1_000), Some(1_001), Some(1_012), None] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let rows: Vec<Message> = (0..1_500).map(row).collect();
            let daemon = std::thread::spawn(move || serve(theirs, &rows));
            let mut client = client::Client::new(Stream::Unix(ours));
            let found = pages(&mut client, "rows", &Message::new(), (ROW, key), limit).unwrap().rows;
            let numbers: Vec<u64> = found.iter().map(|row| row.get_str("id").unwrap().parse().unwrap()).collect();
            let expected = u64::try_from(limit.unwrap_or(1_500)).unwrap();
            assert_eq!(numbers, (0..expected).collect::<Vec<_>>(), "{limit:?}");
            drop(client);
            daemon.join().unwrap();
        }
    }
}
