//! How fast messages are delivered: from the history's database to a receiver on loopback that answers at once.
//!
//! All messages wait before the first is sent, as they do for a receiver that comes back. One line: for both engines, with one message under way
//! and with eight.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use event_webhook::signature::Secret;
use event_webhook::{Address, Endpoint, Keys, Webhooks};
use ike_model::history::{Outbox, Subscription};
use ike_model::{EventBody, EventRecord, Rfc3339, Ulids};
use lab::netns::Namespace;
use lab::postgres::Postgres;
use sa_history::{History, Retention, spool};

/// The webhook.
const NAME: &str = "bench";
/// The gateway whose events they are.
const GATEWAY: &str = "gw";
/// What they are signed with.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
/// What has not been done by then never will.
const PATIENCE: Duration = Duration::from_secs(300);
/// Messages under way at once.
const CONCURRENCY: [u16; 2] = [1, 8];

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Messages in each run
    #[arg(long, default_value_t = 3_000)]
    messages: u64,
}

/// Runs the measurement; true when every message arrived once.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let namespace = Namespace::new("webhook")?;
    let directory = std::env::temp_dir().join(format!("cygnet-bench-webhook-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let outcome = measure(options, &namespace, &directory);
    // A directory that stays is no wrong result.
    let _ = std::fs::remove_dir_all(&directory);
    let (rates, complete) = outcome?;
    println!("webhook deliveries per second: {}", rates.join("; "));
    Ok(complete)
}

fn measure(options: &Options, namespace: &Namespace, directory: &Path) -> Result<(Vec<String>, bool)> {
    let postgres = Postgres::start(namespace, &directory.join("postgres"))?;
    let (mut rates, mut complete) = (Vec::new(), true);
    for engine in ["SQLite", "PostgreSQL"] {
        let mut of_engine = Vec::new();
        for concurrency in CONCURRENCY {
            let name = format!("{}{concurrency}", engine.to_lowercase());
            let place = directory.join(&name);
            std::fs::create_dir_all(&place)?;
            let url = if engine == "SQLite" {
                format!("sqlite://{}/history.db", place.display())
            } else {
                postgres.database(&name)?;
                postgres.url_by_socket(&name)
            };
            // Threads that are started in there stay there.
            let (rate, arrived) = namespace.run(|| one(options, &url, &place, concurrency))??;
            complete &= arrived == options.messages;
            of_engine.push(format!("{rate:.0} ({concurrency} at once)"));
        }
        rates.push(format!("{engine} {}", of_engine.join(", ")));
    }
    Ok((rates, complete))
}

/// Deliveries per second, and how many messages arrived.
fn one(options: &Options, url: &str, place: &Path, concurrency: u16) -> Result<(f64, u64)> {
    let (address, arrived) = receiver()?;
    let history = History::start(&settings(url, place), "boot", Rfc3339(1_790_000_000_000))?;
    record(&history, options.messages)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let waiting = |history: &History| -> Result<u64> {
        let backlog = runtime.block_on(history.backlog()).unwrap_or_default();
        Ok(backlog.iter().map(|backlog| backlog.waiting).sum())
    };
    until("messages wait", || Ok(waiting(&history)? == options.messages))?;
    let history = Arc::new(history);
    let mut endpoint =
        Endpoint::new(NAME, Address::parse(&address).map_err(anyhow::Error::msg)?, Keys::Given(vec![secret()?]));
    endpoint.concurrency = concurrency;
    let outbox = Arc::<History>::clone(&history) as Arc<dyn Outbox>;
    let began = Instant::now();
    let webhooks = Webhooks::start(vec![endpoint], &outbox, GATEWAY, "cygnet/bench")?;
    until("messages arrive", || Ok(arrived.load(Ordering::Relaxed) >= options.messages))?;
    let took = began.elapsed().as_secs_f64();
    until("messages are settled", || Ok(waiting(&history)? == 0))?;
    webhooks.stop();
    history.stop();
    Ok((options.messages as f64 / took, arrived.load(Ordering::Relaxed)))
}

fn secret() -> Result<Secret> {
    Secret::parse(SECRET).map_err(anyhow::Error::msg)
}

fn settings(url: &str, place: &Path) -> sa_history::Options {
    sa_history::Options {
        url: url.into(),
        gateway: GATEWAY.into(),
        retention: Retention { days: 0, rows: 0 },
        spool: spool::Options { directory: place.join("spool"), size: 1 << 30, fsync: false },
        subscriptions: vec![Subscription { endpoint: NAME.into(), events: Vec::new(), connections: Vec::new() }],
    }
}

fn record(history: &History, messages: u64) -> Result<()> {
    let (recorder, mut ulids) = (history.recorder(), Ulids::default());
    for seq in 1..=messages {
        let time_ms = 1_790_000_000_000 + seq;
        let record = EventRecord {
            v: 1,
            ulid: ulids.next(time_ms, || [0; 10]),
            time: Rfc3339(time_ms),
            gateway: GATEWAY.into(),
            boot_id: "boot".into(),
            seq,
            body: EventBody::ConfigLoaded { connection: format!("connection-{seq}") },
        };
        recorder.record(&[record])?;
    }
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A receiver that takes everything: its URL, and how much it has taken.
fn receiver() -> Result<(String, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no receiver")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let arrived = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&arrived);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            // A connection that breaks shows in the number of messages.
            thread::spawn(move || serve(stream, &count));
        }
    });
    Ok((url, arrived))
}

fn serve(stream: TcpStream, count: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut Read::take(&mut reader, length), &mut std::io::sink())?;
        count.fetch_add(1, Ordering::Relaxed);
        writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
