//! `cygnet events`.

use std::io::{self, Write};

use ike_model::Rfc3339;
use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::follow;
use crate::history::exactly;
use crate::moment::Clock;
use crate::past::{self, Pages, Part};
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) part: Part,
    /// Only events of this name, such as child-sa.rekeyed; child-sa.* stands for all that begin so. May be given several times.
    #[arg(long = "event", visible_alias = "type", value_name = "NAME")]
    events: Vec<String>,
    /// Go on with what happens from now on, until interrupted. Without --since, only that. A daemon that is started anew is waited for, and what
    /// was missed meanwhile is fetched from the history.
    #[arg(long, short)]
    follow: bool,
    /// Print each record as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// What events of the past come as, and how they are told apart.
pub(crate) const EVENT: (&str, past::Key) = ("cygnet-past-event", |message| {
    let record: Json = serde_json::from_str(&text::cygnet_record(message)?).ok()?;
    let Rfc3339(time) = Rfc3339::parse(record.get("time")?.as_str()?)?;
    Some((message.get_str("ulid")?.to_owned(), time))
});

pub(crate) fn run(mut client: Client, uri: &str, arguments: &Arguments) -> Result<u8, ClientError> {
    let clock = arguments.part.clock();
    if arguments.follow {
        if arguments.part.is_elsewhere() {
            say!("cygnet: --follow shows what happens at this gateway: leave --gateway out");
            return Ok(UNANSWERED);
        }
        return follow::run(client, uri, arguments, &clock);
    }
    client.register(EVENT.0)?;
    let past = of_the_past(&mut client, &arguments.request(&clock), arguments.part.limit())?;
    if let Some(error) = past.answer.get_str("errmsg") {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let mut out = stdout();
    for message in &past.rows {
        arguments.print(&mut out, message, &clock)?;
    }
    out.flush()?;
    Ok(0)
}

/// Events of the past, the oldest first.
pub(crate) fn of_the_past(client: &mut Client, request: &Message, limit: Option<usize>) -> Result<Pages, ClientError> {
    let mut past = past::pages(client, "cygnet-events", request, EVENT, limit)?;
    past.rows.sort_by(|a, b| a.get_str("ulid").cmp(&b.get_str("ulid")));
    Ok(past)
}

impl Arguments {
    /// What to ask the daemon.
    pub(crate) fn request(&self, clock: &Clock) -> Message {
        let mut request = self.part.request(clock);
        if !self.events.is_empty() {
            request.set("type", self.events.join(","));
        }
        request
    }

    /// Prints an event, if it is asked for.
    pub(crate) fn print(&self, out: &mut impl Write, message: &Message, clock: &Clock) -> io::Result<()> {
        let json = text::cygnet_record(message).unwrap_or_default();
        let Ok(record) = serde_json::from_str::<Json>(&json) else { return Ok(()) };
        if !self.wants(&record) {
            return Ok(());
        }
        if self.json {
            return writeln!(out, "{json}");
        }
        let (tone, line) = text::cygnet_event_line(&record, &exactly(clock));
        writeln!(out, "{}", self.part.color.paint().tone(tone, &line))
    }

    fn wants(&self, record: &Json) -> bool {
        let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
        let of = |key: &str, field: &str| text(record.get(key)?.get(field));
        let connection =
            text(record.get("connection")).or_else(|| of("ike", "connection")).or_else(|| of("new", "connection"));
        let child = text(record.get("child")).or_else(|| of("child", "name")).or_else(|| of("new", "name"));
        let name = text(record.get("type")).unwrap_or_default();
        let named = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        };
        let cause = of("cause", "kind");
        (self.events.is_empty() || self.events.iter().any(named))
            && self.part.takes(connection.as_deref(), child.as_deref(), cause.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn wants(options: &str, record: &str) -> bool {
        let line = Line::parse_from(std::iter::once("events").chain(options.split_whitespace()));
        line.arguments.wants(&serde_json::from_str(record).unwrap())
    }

    #[test]
    fn events_are_chosen_by_name_connection_child_and_cause() {
        let closed = r#"{"type":"child-sa.closed","ike":{"connection":"site"},"child":{"name":"net"},"cause":{"kind":"operator"}}"#;
        for (options, expected) in [
            ("", true),
            ("--event child-sa.closed", true),
            ("--event child-sa.*", true),
            ("--type ike-sa.* --type child-sa.closed", true),
            ("--event ike-sa.*", false),
            ("--event child-sa", false),
            ("--connection site --child net --cause operator", true),
            ("--connection other", false),
            ("--child other", false),
            ("--cause reload", false),
        ] {
            assert_eq!(wants(options, closed), expected, "{options}");
        }
        let acquire = r#"{"type":"policy.acquire","connection":"site","child":"net"}"#;
        assert!(wants("--connection site --child net", acquire) && !wants("--cause operator", acquire));
    }
}
