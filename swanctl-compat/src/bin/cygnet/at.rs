//! `cygnet history --at`: why was the tunnel down at that moment, and who was told?

use std::io::{self, Write};

use serde_json::{Value as Json, json};
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::connect::Client;
use crate::events::{EVENT, of_the_past};
use crate::history::{GENERATION, PAST_IKE, TOTAL, exactly, print};
use crate::moment::Clock;
use crate::past::{self, Part};
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Events of which each packet or each command may make one; they explain nothing here.
const NOISE: [&str; 2] = ["policy.acquire", "config.loaded"];
/// What deliveries to webhooks come as.
const DELIVERY: &str = "cygnet-delivery";
/// How much of the past of one child is looked at for its last end.
const LAST: usize = 1;

/// What is known of one moment.
struct View {
    ike_sas: Vec<Message>,
    up: Vec<Message>,
    /// The last generation of each child that was not up.
    down: Vec<Message>,
    events: Vec<Event>,
}

/// An event, and what became of its deliveries.
struct Event {
    record: Json,
    deliveries: Vec<Json>,
}

/// Shows what was there at `moment` and what happened `around` it, in milliseconds.
pub(crate) fn run(
    client: &mut Client,
    part: &Part,
    (moment, around): (u64, u64),
    clock: &Clock,
    as_json: bool,
) -> Result<u8, ClientError> {
    let view = match look(client, part, moment, around)? {
        Ok(view) => view,
        Err(error) => {
            say!("cygnet: {error}");
            return Ok(UNANSWERED);
        }
    };
    let mut out = stdout();
    if as_json {
        writeln!(out, "{}", view.json(moment))?;
    } else {
        view.show(&mut out, part, (moment, around), clock)?;
    }
    out.flush()?;
    Ok(0)
}

/// Asks; `Ok(Err)` when the daemon cannot answer.
fn look(client: &mut Client, part: &Part, moment: u64, around: u64) -> Result<Result<View, String>, ClientError> {
    for event in [TOTAL, GENERATION.0, PAST_IKE.0, EVENT.0, DELIVERY] {
        client.register(event)?;
    }
    let mut then = part.whose();
    then.set_display("since", moment);
    then.set_display("until", moment.saturating_add(1));
    let generations = past::pages(client, "cygnet-history", &then, GENERATION, None)?;
    if let Some(error) = generations.answer.get_str("errmsg") {
        return Ok(Err(error.to_owned()));
    }
    let mut of_ike = then.clone();
    of_ike.set("ike-sas", "yes");
    let ike_sas = past::pages(client, "cygnet-history", &of_ike, PAST_IKE, None)?.rows;
    let down = down(client, part, moment, &generations.rows)?;
    let mut window = part.whose();
    window.set_display("since", moment.saturating_sub(around));
    window.set_display("until", moment.saturating_add(around));
    let mut events = Vec::new();
    for message in &of_the_past(client, &window, None)?.rows {
        let record = text::cygnet_record(message).and_then(|record| serde_json::from_str::<Json>(&record).ok());
        let told = |record: &Json| record["type"].as_str().is_some_and(|name| !NOISE.contains(&name));
        if let Some(record) = record.filter(told) {
            let deliveries = deliveries(client, message.get_str("ulid").unwrap_or_default())?;
            events.push(Event { record, deliveries });
        }
    }
    Ok(Ok(View { ike_sas, up: generations.rows, down, events }))
}

/// The last generation before `moment` of each child that has been up before and was not then.
fn down(client: &mut Client, part: &Part, moment: u64, up: &[Message]) -> Result<Vec<Message>, ClientError> {
    let mut before = part.whose();
    before.set_display("until", moment);
    // Of the whole past they are kept; up to a moment, they would have to be added up.
    let totals = past::pages(client, "cygnet-history", &part.whose(), GENERATION, Some(LAST))?.others;
    let was_up = |name: &str| up.iter().filter_map(|row| row.sections().next()).any(|(of, _)| of == name);
    let mut down = Vec::new();
    for (name, total) in totals.iter().filter_map(|total| total.sections().next()) {
        let began = total.get_str("first").and_then(|first| first.parse().ok()).unwrap_or(u64::MAX);
        if was_up(name) || began >= moment {
            continue;
        }
        let mut one = before.clone();
        for (key, of) in [("ike", "connection"), ("child", "child"), ("gateway", "gateway")] {
            one.set(key, total.get_str(of).unwrap_or_default());
        }
        one.set("totals", "no");
        down.extend(past::pages(client, "cygnet-history", &one, GENERATION, Some(LAST))?.rows);
    }
    Ok(down)
}

/// Deliveries of one event.
fn deliveries(client: &mut Client, ulid: &str) -> Result<Vec<Json>, ClientError> {
    let mut found = Vec::new();
    let request = Message::new().with("event", ulid);
    client.command("cygnet-webhook-deliveries", request, |event, message| {
        if event == DELIVERY {
            found.extend(text::cygnet_json(message));
        }
        Ok(())
    })?;
    Ok(found)
}

impl View {
    fn json(&self, moment: u64) -> Json {
        let list = |messages: &[Message]| messages.iter().filter_map(text::cygnet_json).collect::<Vec<Json>>();
        let events: Vec<Json> =
            self.events.iter().map(|event| json!({ "record": event.record, "deliveries": event.deliveries })).collect();
        json!({
            "at": moment,
            "ike-sas": list(&self.ike_sas),
            "up": list(&self.up),
            "down": list(&self.down),
            "events": events,
        })
    }

    fn show(&self, out: &mut impl Write, part: &Part, (moment, around): (u64, u64), clock: &Clock) -> io::Result<()> {
        let (paint, when) = (part.color.paint(), exactly(clock));
        writeln!(out, "at {} ({})", clock.show(moment), clock.zone(moment))?;
        if self.up.is_empty() && self.down.is_empty() {
            writeln!(out, "\nno child was up then, nor before")?;
        }
        for (title, rows) in [("up:", &self.up), ("not up; what was last:", &self.down)] {
            let table = text::cygnet_generations(rows, &when);
            if !table.is_empty() {
                writeln!(out, "\n{title}")?;
            }
            print(out, &table, paint)?;
        }
        let ike_sas = text::cygnet_past_ikes(&self.ike_sas, &when);
        if !ike_sas.is_empty() {
            writeln!(out, "\nIKE SAs:")?;
        }
        print(out, &ike_sas, paint)?;
        let (from, to) = (moment.saturating_sub(around), moment.saturating_add(around));
        writeln!(out, "\nfrom {} to {}:", clock.show(from), clock.show(to))?;
        if self.events.is_empty() {
            writeln!(out, "nothing happened")?;
        }
        for event in &self.events {
            let (tone, line) = text::cygnet_event_line(&event.record, &when);
            writeln!(out, "{}", paint.tone(tone, &line))?;
            for told in event.deliveries.iter().map(|delivery| told(delivery, &when)) {
                writeln!(out, "    {told}")?;
            }
        }
        Ok(())
    }
}

/// What became of a delivery, in words.
fn told(delivery: &Json, when: &dyn Fn(u64) -> String) -> String {
    let text = |key: &str| delivery[key].as_str().unwrap_or_default();
    // Not every number is one in the daemon's messages.
    let number = |key: &str| delivery[key].as_u64().or_else(|| delivery[key].as_str()?.parse().ok());
    let time = |key: &str| number(key).map(when).unwrap_or_default();
    let endpoint = text("name");
    let tries = match number("attempts") {
        Some(1) => "1 attempt".to_owned(),
        attempts => format!("{} attempts", attempts.unwrap_or(0)),
    };
    match text("state") {
        "delivered" => format!("told to {endpoint} at {} ({tries})", time("delivered")),
        "dead" => format!("not told to {endpoint}: given up after {tries}: {}", text("last-error")),
        "waiting" if text("last-error").is_empty() => format!("not yet told to {endpoint}"),
        _ => format!("not yet told to {endpoint}: {tries}, next at {}: {}", time("due"), text("last-error")),
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

    /// A daemon that knows three children, of which the last one came up at 500; each has one generation.
    fn serve(mut stream: UnixStream) {
        let named = |child: &str, content: Message| {
            let mut message = Message::new();
            message.section(format!("site/{child}"), content.with("connection", "site").with("child", child));
            message
        };
        let total = |(child, first): (&str, &str)| {
            let total = Message::new().with("gateway", "gw").with("first", first);
            Packet::Event(TOTAL.into(), named(child, total))
        };
        let (mut deframer, mut buffer) = (Deframer::new(), [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            deframer.push(&buffer[..length]);
            while let Some(packet) = deframer.next_packet().unwrap() {
                let Packet::CmdRequest(_, request) = Packet::decode(&packet).unwrap() else { panic!("no command") };
                let events: Vec<Packet> = match request.get_str("child") {
                    Some(child) => {
                        assert_eq!((request.get_str("until"), request.get_str("totals")), (Some("400"), Some("no")));
                        let row = Message::new().with("boot-id", "b").with("uniqueid", "1").with("installed", "100");
                        vec![Packet::Event(GENERATION.0.into(), named(child, row))]
                    }
                    None => {
                        assert_eq!(request.get_str("until"), None, "the totals of the whole past are at hand");
                        [("a", "100"), ("b", "100"), ("c", "100"), ("late", "500")].map(total).into()
                    }
                };
                for packet in events.into_iter().chain([Packet::CmdResponse(Message::new())]) {
                    stream.write_all(&frame::encode(&packet).unwrap()).unwrap();
                }
            }
        }
    }

    #[test]
    fn every_child_that_was_down_is_told_of() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let daemon = std::thread::spawn(move || serve(theirs));
        let mut client = client::Client::new(Stream::Unix(ours));
        let mut up = Message::new();
        up.section("site/b", Message::new());
        let down = down(&mut client, &Part::default(), 400, &[up]).unwrap();
        let names: Vec<&str> = down.iter().filter_map(|row| Some(row.sections().next()?.0)).collect();
        assert_eq!(names, ["site/a", "site/c"]);
        drop(client);
        daemon.join().unwrap();
    }

    #[test]
    fn deliveries_in_words() {
        let when = |ms: u64| format!("<{ms}>");
        let say = |delivery: Json| told(&delivery, &when);
        assert_eq!(
            say(json!({"name": "ops", "state": "delivered", "attempts": "1", "delivered": "7"})),
            "told to ops at <7> (1 attempt)"
        );
        assert_eq!(
            say(json!({"name": "ops", "state": "dead", "attempts": 9, "last-error": "410"})),
            "not told to ops: given up after 9 attempts: 410"
        );
        assert_eq!(say(json!({"name": "ops", "state": "waiting", "attempts": 0})), "not yet told to ops");
        assert_eq!(
            say(json!({"name": "ops", "state": "waiting", "attempts": 2, "due": 5, "last-error": "refused"})),
            "not yet told to ops: 2 attempts, next at <5>: refused"
        );
    }
}
