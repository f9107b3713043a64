//! A receiver of webhooks that fails half of the time, and keeps an account of what it has accepted.
//!
//! Its own HTTP/1.1, a few lines of it: the failures are of the kind that a server library keeps from happening.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::netns::Namespace;
use lab::random::Random;

use super::moment::{Cue, Trap};

/// Where it listens, inside gateway A.
const ADDRESS: &str = "127.0.0.1:8090";
/// Where webhooks are sent to.
pub(super) const URL: &str = "http://127.0.0.1:8090/hook";
/// How long it keeps silent: longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(4);
/// A request is not longer than this.
const LONGEST: usize = 1 << 20;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    /// 204.
    Accepts,
    /// 200, after a while.
    AcceptsSlowly,
    /// 500.
    Fails,
    /// 503, with a time after which to come again.
    IsBusy,
    /// Says nothing until nobody waits any more.
    IsSilent,
    /// Closes the connection after it has read the request.
    HangsUp,
    /// Begins to answer and closes the connection.
    BreaksOff,
}

impl Mood {
    /// Being slow is for a few: it holds up those who come after.
    const GOOD: [Mood; 4] = [Mood::Accepts, Mood::Accepts, Mood::Accepts, Mood::AcceptsSlowly];
    const BAD: [Mood; 9] = [
        Mood::Fails,
        Mood::Fails,
        Mood::IsBusy,
        Mood::IsBusy,
        Mood::IsSilent,
        Mood::HangsUp,
        Mood::HangsUp,
        Mood::BreaksOff,
        Mood::BreaksOff,
    ];
}

/// What it knows of one webhook.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// How often it came.
    pub(super) seen: u32,
    /// How often it was answered with success.
    pub(super) accepted: u32,
    /// Its body, as accepted first.
    pub(super) body: String,
}

/// Everything that came, by its identifier.
pub(super) type Accounts = BTreeMap<String, Account>;

#[derive(Default)]
struct Books {
    accounts: Mutex<Accounts>,
    moods: Mutex<BTreeMap<Mood, u64>>,
    healthy: AtomicBool,
    deaf: AtomicBool,
    stop: AtomicBool,
}

/// A receiver; closed while it is down.
pub(super) struct Receiver<'lab> {
    namespace: &'lab Namespace,
    books: Arc<Books>,
    random: Arc<Mutex<Random>>,
    trap: Arc<Trap>,
    worker: Option<JoinHandle<()>>,
}

impl<'lab> Receiver<'lab> {
    /// One that is down yet.
    pub(super) fn new(namespace: &'lab Namespace, seed: u64, trap: &Arc<Trap>) -> Self {
        let random = Arc::new(Mutex::new(Random::new(seed)));
        Self { namespace, books: Arc::default(), random, trap: Arc::clone(trap), worker: None }
    }

    /// Begins to listen.
    pub(super) fn open(&mut self) -> Result<()> {
        let listener = self.namespace.run(|| TcpListener::bind(ADDRESS))?.context("binding the receiver")?;
        let (books, random, trap) = (Arc::clone(&self.books), Arc::clone(&self.random), Arc::clone(&self.trap));
        let worker = thread::Builder::new().name("receiver".into()).spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if books.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (books, random, trap) = (Arc::clone(&books), Arc::clone(&random), Arc::clone(&trap));
                thread::spawn(move || serve(stream, &books, &random, &trap));
            }
        })?;
        self.worker = Some(worker);
        Ok(())
    }

    /// From now on it accepts everything.
    pub(super) fn recover(&self) {
        self.books.healthy.store(true, Ordering::Relaxed);
    }

    /// From now on it forgets one in ten of those that it accepts.
    pub(super) fn sabotage(&self) {
        self.books.deaf.store(true, Ordering::Relaxed);
    }

    /// What has come so far.
    pub(super) fn accounts(&self) -> Accounts {
        lock(&self.books.accounts).clone()
    }

    /// What it did how often.
    pub(super) fn moods(&self) -> BTreeMap<Mood, u64> {
        lock(&self.books.moods).clone()
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.books.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            // Wakes it up; when that fails it has ended already.
            let _ = self.namespace.run(|| TcpStream::connect(ADDRESS));
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, request after request.
fn serve(stream: TcpStream, books: &Books, random: &Mutex<Random>, trap: &Trap) {
    let Ok(writing) = stream.try_clone() else { return };
    let mut reading = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reading) {
        trap.notice(Cue::Delivering);
        lock(&books.accounts).entry(request.id.clone()).or_default().seen += 1;
        let mood = mood(books, random);
        *lock(&books.moods).entry(mood).or_default() += 1;
        if !answer(&writing, mood) {
            return;
        }
        let forgets = books.deaf.load(Ordering::Relaxed) && lock(random).below(10) == 0;
        let mut accounts = lock(&books.accounts);
        let account = accounts.entry(request.id).or_default();
        if Mood::GOOD.contains(&mood) && !forgets {
            account.accepted += 1;
            if account.body.is_empty() {
                account.body = request.body;
            }
        }
    }
}

fn mood(books: &Books, random: &Mutex<Random>) -> Mood {
    if books.healthy.load(Ordering::Relaxed) {
        return Mood::Accepts;
    }
    let mut random = lock(random);
    let moods: &[Mood] = if random.below(2) == 0 { &Mood::GOOD } else { &Mood::BAD };
    let choice = usize::try_from(random.below(moods.len() as u64)).unwrap_or(0);
    moods.get(choice).copied().unwrap_or(Mood::Fails)
}

/// Answers; false when the connection is to be closed.
fn answer(mut stream: &TcpStream, mood: Mood) -> bool {
    let (wait, octets, stays): (Duration, &[u8], bool) = match mood {
        Mood::Accepts => (Duration::ZERO, b"HTTP/1.1 204 No Content\r\n\r\n", true),
        Mood::AcceptsSlowly => (Duration::from_millis(300), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        Mood::Fails => (Duration::ZERO, b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", true),
        Mood::IsBusy => {
            (Duration::ZERO, b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n", true)
        }
        Mood::IsSilent => (SILENCE, b"", false),
        Mood::HangsUp => (Duration::ZERO, b"", false),
        Mood::BreaksOff => (Duration::ZERO, b"HTTP/1.1 20", false),
    };
    thread::sleep(wait);
    stream.write_all(octets).is_ok() && stays
}

struct Request {
    id: String,
    body: String,
}

impl Request {
    /// The next one; nothing at the end of the connection, or when it is none of a webhook.
    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let (mut id, mut length, mut signed) = (None, 0, false);
        let first = line(stream)?;
        if !first.starts_with("POST /hook ") {
            return None;
        }
        loop {
            let header = line(stream)?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':')?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse::<usize>().ok().filter(|length| *length <= LONGEST)?,
                "webhook-id" => id = Some(value.trim().to_owned()),
                "webhook-signature" => signed = value.trim().starts_with("v1,"),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(Self { id: id.filter(|_| signed)?, body: String::from_utf8(body).ok()? })
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let length = stream.by_ref().take(16 << 10).read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
