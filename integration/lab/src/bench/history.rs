//! How fast events are taken down and over into the database, and how fast a long past answers, on both engines.
//!
//! Events are recorded one by one, as the daemon does, and count when they are in the database. With `--rows` a past of so many rows is made by
//! the database itself and then asked what `cygnet history --child` and the status page ask, each time about another child, with nothing of the
//! database's files in the memory of the system.

mod life;
mod rows;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ike_model::history::Keeping as _;
use ike_model::{EventRecord, Rfc3339};
use lab::netns::Namespace;
use lab::postgres::Postgres;
use rustix::fs::Advice;
use sa_history::{History, Retention, spool};

use life::Run;

/// The name of the gateway whose past it is.
const GATEWAY: &str = "gw";
/// When the past begins, in milliseconds.
const BEGIN: u64 = 1_790_000_000_000;
/// A database that has not taken all events over by then never will.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which databases.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Sqlite,
    Postgres,
    Both,
}

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which databases
    #[arg(long, value_enum, default_value = "both")]
    engine: Engine,
    /// Events to be written
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Rows of CHILD SAs to be asked about, instead; a tenth as many events and deliveries come with them
    #[arg(long)]
    rows: Option<u64>,
    /// Where the databases lie: ten million rows take about ten gigabytes, until the end of the run
    #[arg(long, default_value = "/var/tmp")]
    directory: PathBuf,
}

/// Runs the measurement; true when no event was lost, or every question was answered in time.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let directory = Directory::new(&options.directory)?;
    let mut good = true;
    if options.engine != Engine::Postgres {
        let place = directory.0.join("sqlite");
        std::fs::create_dir(&place)?;
        good &= measure(options, "SQLite", &format!("sqlite://{}/history.db", place.display()), &place)?;
    }
    if options.engine != Engine::Sqlite {
        let namespace = Namespace::new("history")?;
        let place = directory.0.join("postgres");
        let postgres = Postgres::start(&namespace, &place)?;
        postgres.database("history")?;
        good &= measure(options, "PostgreSQL", &postgres.url_by_socket("history"), &place)?;
    }
    Ok(good)
}

/// A directory that is gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(below: &Path) -> Result<Self> {
        let path = below.join(format!("cygnet-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

fn measure(options: &Options, engine: &str, url: &str, place: &Path) -> Result<bool> {
    match options.rows {
        Some(rows) => rows::measure(engine, url, place, rows),
        None => rate(engine, url, place, options.events),
    }
}

fn start(url: &str, place: &Path) -> Result<History> {
    let options = sa_history::Options {
        url: url.into(),
        gateway: GATEWAY.into(),
        retention: Retention { days: 0, rows: 0 },
        spool: spool::Options { directory: place.join("spool"), size: 4 << 30, fsync: false },
        subscriptions: Vec::new(),
    };
    Ok(History::start(&options, "bench", Rfc3339(BEGIN))?)
}

fn rate(engine: &str, url: &str, place: &Path, events: u64) -> Result<bool> {
    let mut daemon = Run::new(GATEWAY, "bench", BEGIN);
    let mut records: Vec<EventRecord> = Vec::new();
    while (records.len() as u64) < events {
        daemon.life(&mut records);
    }
    let history = start(url, place)?;
    wait(&history, |figures| figures.database == ike_model::history::Database::Open)?;
    let recorder = history.recorder();
    let begin = Instant::now();
    for record in &records {
        recorder.record(std::slice::from_ref(record))?;
    }
    let recorded = begin.elapsed();
    wait(&history, |figures| figures.waiting == 0)?;
    let written = begin.elapsed();
    let figures = history.figures();
    history.stop();
    let per_second = |time: Duration| records.len() as f64 / time.as_secs_f64();
    println!(
        "{engine}: {} events, recorded at {:.0}/s, written at {:.0}/s; {} left out",
        records.len(),
        per_second(recorded),
        per_second(written),
        figures.left_out
    );
    Ok(figures.taken_over == records.len() as u64 && figures.left_out == 0)
}

fn wait(history: &History, done: impl Fn(&ike_model::history::KeepingFigures) -> bool) -> Result<()> {
    let begin = Instant::now();
    while !done(&history.figures()) {
        ensure!(begin.elapsed() < PATIENCE, "the history does not get on: {:?}", history.figures());
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Does something with every file below a directory; sockets, and files that have just gone, do not matter.
fn each_file(directory: &Path, act: &dyn Fn(&File)) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, act)?;
        } else if let Ok(file) = File::open(&path) {
            act(&file);
        }
    }
    Ok(())
}

/// Has the system write what it holds of the files below a directory.
fn write_out(directory: &Path) -> Result<()> {
    each_file(directory, &|file| {
        let _ = rustix::fs::fdatasync(file);
    })
}

/// Has the system forget what it holds of them, as far as it has been written.
fn forget_files(directory: &Path) -> Result<()> {
    each_file(directory, &|file| {
        let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    })
}
