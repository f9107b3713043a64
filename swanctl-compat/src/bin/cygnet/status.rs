//! `cygnet status`.

use std::io::Write;
use std::time::Duration;

use serde_json::Value as Json;
use swanctl_compat::text;
use swanctl_compat::vici::Message;
use swanctl_compat::vici::client::ClientError;
use swanctl_compat::watch::{Choice, Sort};

use crate::connect::Client;
use crate::moment::Clock;
use crate::paint::Colour;
use crate::stdio::{say, stdout};
use crate::watch::{self, Wish};
use crate::why::UNANSWERED;

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this connection. Ends with 2 when there is none of that name.
    connection: Option<String>,
    /// Print JSON; with --watch one object for each look.
    #[arg(long)]
    json: bool,
    /// Go on showing it, with what each child carries now and what is left until it is rekeyed: a screen on a terminal (s: sort, d: not up only,
    /// arrows: scroll, q: quit), lines elsewhere.
    #[arg(long, short)]
    watch: bool,
    /// Between two looks, in seconds.
    #[arg(long, short = 'n', value_name = "SECONDS", default_value = "2", value_parser = watch::interval, requires = "watch")]
    interval: Duration,
    /// In this order: name, throughput or state.
    #[arg(long, value_name = "ORDER", default_value = "name", value_parser = watch::sort, requires = "watch")]
    sort: Sort,
    /// Only children that are not up.
    #[arg(long, requires = "watch")]
    down: bool,
    /// End after so many looks.
    #[arg(long, value_name = "LOOKS", value_parser = clap::value_parser!(u64).range(1..), requires = "watch")]
    count: Option<u64>,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t)]
    color: Colour,
}

impl Arguments {
    /// What is to be watched, if anything.
    pub(crate) fn wish(&self, uri: &str) -> Option<Wish> {
        self.watch.then(|| Wish {
            uri: uri.to_owned(),
            connection: self.connection.clone(),
            interval: self.interval,
            choice: Choice { sort: self.sort, down: self.down },
            json: self.json,
            count: self.count,
            colour: self.color,
        })
    }
}

/// Widest name column.
const MAX_WIDTH: usize = 48;

/// Exit code when a child is neither up nor merely waiting for traffic: scripts can tell a broken gateway from a sound one.
const NOT_UP: u8 = 3;

pub(crate) fn run(client: &mut Client, arguments: &Arguments) -> Result<u8, ClientError> {
    let mut request = Message::new();
    if let Some(connection) = &arguments.connection {
        request.set("ike", connection.as_str());
    }
    let mut children = Vec::new();
    client.register("cygnet-child")?;
    client.command("cygnet-status", request, |event, message| {
        if event == "cygnet-child" {
            children.push(message.clone());
        }
        Ok(())
    })?;
    // Of a connection that is misspelled nobody must believe that all is well.
    if let Some(connection) = arguments.connection.as_deref().filter(|_| children.is_empty()) {
        let loaded = client.command("get-conns", Message::new(), |_, _| Ok(()))?;
        if loaded.list_strs("conns").all(|name| name != connection) {
            say!("cygnet: connection '{connection}' is not loaded");
            return Ok(UNANSWERED);
        }
    }
    let mut out = stdout();
    if arguments.json {
        let all: Vec<Json> = children.iter().filter_map(text::cygnet_json).collect();
        writeln!(out, "{}", Json::Array(all))?;
    } else {
        let names = children.iter().filter_map(|child| child.sections().next());
        let width = names.map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(MAX_WIDTH);
        let clock = Clock::new(false);
        let now = clock.now_ms() / 1000;
        for child in &children {
            write!(out, "{}", text::cygnet_child(child, now, width, &|ms| clock.time_of_day(ms)))?;
        }
        if children.is_empty() {
            writeln!(out, "no children are configured")?;
        }
    }
    out.flush()?;
    Ok(if children.iter().all(is_sound) { 0 } else { NOT_UP })
}

fn is_sound(event: &Message) -> bool {
    let state = event.sections().next().and_then(|(_, child)| child.get_str("state"));
    matches!(state, Some("up" | "trapped" | "shunt"))
}
