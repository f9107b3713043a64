//! Two of our gateways that are kept busy while something happens to the history of the first: traffic that must not be hurt, rekeys from both
//! ends, IKE SAs that come and go, and a witness of all that the first one tells meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::life;
use crate::pair::Pair;
use crate::peer::Daemon;
use crate::peer::conf::{Child, Tunnel};
use crate::peer::cygnet::Cygnet;
use crate::topology::{Family, Lab, Side};
use crate::traffic::stream::Stream;

/// The child that is rekeyed.
pub const CHILD: &str = "net4";
/// The connection that comes and goes, and its child.
pub const OTHER: [&str; 2] = ["other", "extra"];

/// What identifies an event: the run of the daemon and its number in that.
pub type Number = (String, u64);

/// Two busy gateways.
#[derive(Debug)]
pub struct Busy<'lab> {
    lab: &'lab Lab,
    /// The daemons.
    pub pair: Pair<'lab>,
    streams: Vec<Stream>,
    witness: Witness,
    rounds: u32,
}

/// What has been done, and the longest that one step of it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Rekeys of the child.
    pub rekeys: u32,
    /// IKE SAs that were established, and ended again.
    pub handshakes: u32,
    /// The slowest step.
    pub slowest: Duration,
}

impl<'lab> Busy<'lab> {
    /// Brings them up; `settings` are further lines of the first one's `cygnetd.toml`.
    ///
    /// # Errors
    /// They did not come up.
    pub fn start(lab: &'lab Lab, settings: &str) -> Result<Self> {
        let busy = |settings: &str| Cygnet { extra: settings.into(), log: String::new() };
        let start = |side: Side, settings: &str| {
            let directory = lab.directory().join(side.letter());
            Daemon::start(&busy(settings), &lab.site(side).gateway, &directory, &tunnels(lab, side))
        };
        let pair = Pair { a: start(Side::A, settings)?, b: start(Side::B, "")? };
        let witness = Witness::of(&pair.a)?;
        life::establish(&pair, Side::A)?;
        let streams = life::streams(lab)?;
        Ok(Self { lab, pair, streams, witness, rounds: 0 })
    }

    /// Rekeys the child, from each end in turn, and has another IKE SA come and go.
    ///
    /// # Errors
    /// Something of that did not happen.
    pub fn round(&mut self) -> Result<Done> {
        let rekeyed = self.rekey()?;
        let began = Instant::now();
        self.handshake()?;
        Ok(Done { rekeys: 1, handshakes: 1, slowest: rekeyed.max(began.elapsed()) })
    }

    /// Rekeys the child, from each end in turn.
    ///
    /// # Errors
    /// It was not rekeyed.
    pub fn rekey(&mut self) -> Result<Duration> {
        self.rounds += 1;
        let began = Instant::now();
        life::rekey_child(&self.pair, if self.rounds.is_multiple_of(2) { Side::A } else { Side::B }, CHILD)?;
        Ok(began.elapsed())
    }

    /// Has another IKE SA come, and go.
    ///
    /// # Errors
    /// It was not established.
    pub fn handshake(&self) -> Result<()> {
        self.handshake_of(if self.rounds.is_multiple_of(2) { &self.pair.b } else { &self.pair.a })
    }

    /// The same, begun by the first gateway.
    ///
    /// # Errors
    /// It was not established.
    pub fn handshake_of_a(&self) -> Result<()> {
        self.handshake_of(&self.pair.a)
    }

    fn handshake_of(&self, from: &Daemon<'_>) -> Result<()> {
        let [connection, child] = OTHER;
        from.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
        from.swanctl(&["--terminate", "--ike", connection, "--timeout", "30"])?;
        Ok(())
    }

    /// Keeps them busy for so long, and for three rounds at least, however slow the machine is.
    ///
    /// # Errors
    /// Something was hurt.
    pub fn work(&mut self, time: Duration) -> Result<Done> {
        let (began, mut done) = (Instant::now(), Done::default());
        while began.elapsed() < time || done.rekeys < 3 {
            done = done + self.round()?;
        }
        Ok(done)
    }

    /// The first daemon was started anew: there is another witness, and traffic begins again.
    ///
    /// # Errors
    /// They did not come up.
    pub fn begin_again(&mut self) -> Result<()> {
        self.witness.merge(Witness::of(&self.pair.a)?);
        self.streams = life::streams(self.lab)?;
        Ok(())
    }

    /// Ends the traffic, which must have arrived whole; tells how many packets that were.
    ///
    /// # Errors
    /// Packets were lost, doubled or overtaken.
    pub fn end_traffic(&mut self) -> Result<u64> {
        life::all_arrived(std::mem::take(&mut self.streams))
    }

    /// Everything that the first gateway has told is in its history once, and nothing is missing between; tells how many events that are.
    /// Waits for what is under way.
    ///
    /// # Errors
    /// Something is missing or there twice.
    pub fn nothing_is_missing(&self) -> Result<usize> {
        let mut count = 0;
        life::settle_within(Duration::from_secs(60), "all that was told is in the history", || {
            let kept = kept(&self.pair.a)?;
            let told = self.witness.told();
            count = kept.len();
            self.complete(&kept, &told).map(|()| true)
        })?;
        Ok(count)
    }

    fn complete(&self, kept: &BTreeMap<Number, String>, told: &BTreeMap<Number, String>) -> Result<()> {
        ensure!(!told.is_empty(), "nothing was told");
        let missing: Vec<_> = told.iter().filter(|(number, ulid)| kept.get(number) != Some(ulid)).collect();
        ensure!(missing.is_empty(), "{} of {} events are missing: {missing:?}", missing.len(), told.len());
        let runs: BTreeSet<&String> = kept.keys().map(|(run, _)| run).collect();
        for run in runs {
            let numbers = kept.keys().filter(|(of, _)| of == run).map(|(_, number)| *number);
            ensure!(numbers.clone().eq(1..=numbers.count() as u64), "the numbers of run {run} have a gap");
        }
        Ok(())
    }

    /// What the first gateway has told, by number, with its ULID.
    #[must_use]
    pub fn told(&self) -> BTreeMap<Number, String> {
        self.witness.told()
    }
}

impl std::ops::Add for Done {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            rekeys: self.rekeys + more.rekeys,
            handshakes: self.handshakes + more.handshakes,
            slowest: self.slowest.max(more.slowest),
        }
    }
}

/// The tunnel that stands, and the one that comes and goes.
fn tunnels(lab: &Lab, side: Side) -> [Tunnel; 2] {
    let stands = Tunnel::between(lab, side, Family::V4);
    let [name, child] = OTHER;
    let network = |side| match side {
        Side::A => "10.1.11.0/24".to_owned(),
        Side::B => "10.2.11.0/24".to_owned(),
    };
    let mut other = stands.clone();
    name.clone_into(&mut other.name);
    other.local_id = format!("other-{}.example", side.letter());
    other.remote_id = format!("other-{}.example", side.other().letter());
    other.children = vec![Child {
        name: child.into(),
        local_ts: network(side),
        remote_ts: network(side.other()),
        esp_proposals: "aes128gcm16-x25519".into(),
        options: Vec::new(),
    }];
    [stands, other]
}

/// The events that are in a gateway's history: its ULID by number.
///
/// # Errors
/// It does not answer, or something is there twice.
pub fn kept(daemon: &Daemon<'_>) -> Result<BTreeMap<Number, String>> {
    let output = daemon.cygnet(&["events", "--json", "--limit", "0"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut kept = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (number, ulid) = number(line).context("no record of an event")?;
        ensure!(kept.insert(number, ulid).is_none(), "twice: {line}");
    }
    Ok(kept)
}

/// Number and ULID of a record, which is JSON.
fn number(record: &str) -> Option<(Number, String)> {
    let text = |key: &str| {
        let (_, rest) = record.split_once(&format!("\"{key}\":\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let (_, rest) = record.split_once("\"seq\":")?;
    let digits = rest.split_once(|c: char| !c.is_ascii_digit())?.0;
    Some(((text("boot_id")?, digits.parse().ok()?), text("ulid")?))
}

/// Listens to what a daemon tells, as any client may.
#[derive(Debug)]
struct Witness(Arc<Mutex<BTreeMap<Number, String>>>);

impl Witness {
    /// It listens until the daemon ends.
    fn of(daemon: &Daemon<'_>) -> Result<Self> {
        let mut vici = daemon.vici()?;
        vici.register("cygnet-event")?;
        let told = Arc::new(Mutex::new(BTreeMap::new()));
        let seen = Arc::clone(&told);
        thread::Builder::new().name("witness".into()).spawn(move || {
            while let Ok((_, message)) = vici.event() {
                if let Some((number, ulid)) = message.get_str("record").and_then(number) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(number, ulid);
                }
            }
        })?;
        Ok(Self(told))
    }

    fn told(&self) -> BTreeMap<Number, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an earlier one has heard counts, too.
    fn merge(&mut self, next: Self) {
        let earlier = self.told();
        next.0.lock().unwrap_or_else(PoisonError::into_inner).extend(earlier);
        *self = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_known_by_their_numbers() {
        let record = r#"{"v":1,"ulid":"01A","time":"x","gateway":"g","boot_id":"b","seq":17,"type":"config.loaded"}"#;
        assert_eq!(number(record), Some((("b".into(), 17), "01A".into())));
        assert_eq!(number("{}"), None);
    }
}
