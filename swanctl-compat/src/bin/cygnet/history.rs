//! `cygnet history`.

use std::io::{self, Write};

use serde_json::Value as Json;
use swanctl_compat::text::{self, Table, Tone};
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;

use crate::at;
use crate::connect::Client;
use crate::moment::Clock;
use crate::paint::Paint;
use crate::past::{self, Pages, Part};
use crate::stdio::{say, stdout};
use crate::why::UNANSWERED;

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    part: Part,
    /// Show IKE SAs rather than the generations of CHILD SAs.
    #[arg(long)]
    ike_sas: bool,
    /// Show one moment: who was up, who was not and since when, what ended or failed around it and why, and which webhooks were told.
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["ike_sas", "since", "until", "cause"])]
    at: Option<String>,
    /// With --at: how far around the moment events are shown.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "at")]
    around: String,
    /// Print one JSON document: {"totals": [...], "generations": [...]}, with --ike-sas a list. Moments are in milliseconds since the epoch. Where
    /// very many generations would have to be added up, "totals" is null, and "no-totals" says why.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let clock = arguments.part.clock();
    if let Some(moment) = &arguments.at {
        let moment = past::moment(&clock, "--at", moment);
        let around = past::length("--around", &arguments.around);
        return at::run(client, &arguments.part, (moment.0, around), &clock, arguments.json);
    }
    let mut request = arguments.part.request(&clock);
    request.set_if("ike-sas", arguments.ike_sas);
    let row = if arguments.ike_sas { PAST_IKE } else { GENERATION };
    for event in [TOTAL, row.0] {
        client.register(event)?;
    }
    let past = past::pages(client, "cygnet-history", &request, row, arguments.part.limit())?;
    if let Some(error) = past.answer.get_str("errmsg") {
        say!("cygnet: {error}");
        return Ok(UNANSWERED);
    }
    let mut out = stdout();
    if arguments.json {
        let list = |messages: &[Message]| messages.iter().filter_map(text::cygnet_json).collect::<Vec<Json>>();
        let json = if arguments.ike_sas {
            Json::Array(list(&past.rows))
        } else {
            document(&past, list(&past.others), list(&past.rows))
        };
        writeln!(out, "{json}")?;
    } else {
        let when = |ms| clock.show(ms);
        let rows = if arguments.ike_sas { text::cygnet_past_ikes } else { text::cygnet_generations };
        let tables = [text::cygnet_totals(&past.others, &when), rows(&past.rows, &when)];
        let [totals, rows] = &tables;
        if rows.is_empty() {
            writeln!(out, "nothing of that is in the history")?;
        } else {
            writeln!(out, "times are {}", clock.zone(clock.now_ms()))?;
            if let Some(why) = no_totals(&past) {
                writeln!(out, "\n{why}")?;
            }
            print(&mut out, totals, arguments.part.color.paint())?;
            print(&mut out, rows, arguments.part.color.paint())?;
        }
    }
    out.flush()?;
    Ok(0)
}

/// Why the answer has no totals, in words of the daemon.
fn no_totals(past: &Pages) -> Option<&str> {
    past.first.get_str("no-totals")
}

fn document(past: &Pages, totals: Vec<Json>, generations: Vec<Json>) -> Json {
    match no_totals(past) {
        None => serde_json::json!({ "totals": totals, "generations": generations }),
        Some(why) => serde_json::json!({ "totals": null, "no-totals": why, "generations": generations }),
    }
}

/// What child totals come as.
pub(crate) const TOTAL: &str = "cygnet-total";
/// What generations come as, and how they are told apart.
pub(crate) const GENERATION: (&str, past::Key) = ("cygnet-generation", |row| key(row, "installed"));
/// The same of IKE SAs.
pub(crate) const PAST_IKE: (&str, past::Key) = ("cygnet-past-ike", |row| key(row, "established"));

fn key(row: &Message, moment: &str) -> Option<(String, u64)> {
    let (_, row) = row.sections().next()?;
    let id = format!("{} {}", row.get_str("boot-id")?, row.get_str("uniqueid")?);
    Some((id, row.get_str(moment)?.parse().ok()?))
}

/// Prints a table that has rows, and an empty line before it.
pub(crate) fn print(out: &mut impl Write, table: &Table, paint: Paint) -> io::Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    let (heading, rows) = table.lines();
    writeln!(out, "\n{}", paint.heading(&heading))?;
    rows.iter().try_for_each(|(tone, line)| writeln!(out, "{}", paint.tone(*tone, line)))
}

/// The moments of a clock, for what is to be told apart to the millisecond.
pub(crate) fn exactly(clock: &Clock) -> impl Fn(u64) -> String + '_ {
    |ms| clock.show_exactly(ms)
}

impl Paint {
    /// A line as it is to be taken.
    pub(crate) fn tone(self, tone: Tone, line: &str) -> String {
        match tone {
            Tone::Plain => line.to_owned(),
            Tone::Good => self.good(line),
            Tone::Bad => self.bad(line),
        }
    }
}
