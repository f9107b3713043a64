//! Answers to commands.

use crate::names;
use crate::vici::{Element, Message};

/// `success=yes`.
#[must_use]
pub fn ok() -> Message {
    Message::new().with("success", "yes")
}

/// `success=no` with the reason.
#[must_use]
pub fn failed(error: &str) -> Message {
    Message::new().with("success", "no").with("errmsg", error)
}

/// [`failed`] with the configuration path of the culprit and what to do (keys `errpath` and `errhelp`).
#[must_use]
pub fn refused(error: &str, path: &str, help: Option<&str>) -> Message {
    let mut message = failed(error).with("errpath", path);
    if let Some(help) = help {
        message.set("errhelp", help);
    }
    message
}

/// Answer to `rekey`: how many SAs matched.
#[must_use]
pub fn matched(matches: u32, error: Option<&str>) -> Message {
    let mut message = Message::new();
    message.set("success", if error.is_none() { "yes" } else { "no" });
    message.set_display("matches", matches);
    if let Some(error) = error {
        message.set("errmsg", error);
    }
    message
}

/// Answer to `cygnet-guards`: what an earlier run left blocked and nobody has claimed, one entry for each policy or route.
#[must_use]
pub fn guards(unclaimed: Vec<String>, error: Option<&str>) -> Message {
    let mut message = Message::new();
    message.set("success", if error.is_none() { "yes" } else { "no" });
    message.push(Element::List("unclaimed".into(), unclaimed.into_iter().map(Into::into).collect()));
    if let Some(error) = error {
        message.set("errmsg", error);
    }
    message
}

/// Answer to `terminate`: how many SAs matched and how many of them are gone.
#[must_use]
pub fn terminated(matches: u32, terminated: u32, error: Option<&str>) -> Message {
    let mut message = Message::new();
    message.set("success", if error.is_none() { "yes" } else { "no" });
    message.set_display("matches", matches);
    message.set_display("terminated", terminated);
    if let Some(error) = error {
        message.set("errmsg", error);
    }
    message
}

/// Who answers `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonInfo {
    /// Name of the daemon.
    pub daemon: String,
    /// Its version.
    pub version: String,
    /// Operating system, as `uname -s`.
    pub sysname: String,
    /// Its release, as `uname -r`.
    pub release: String,
    /// Machine, as `uname -m`.
    pub machine: String,
}

/// Answer to `version`.
#[must_use]
pub fn version(info: &DaemonInfo) -> Message {
    let mut message = Message::new();
    message.set("daemon", info.daemon.as_str());
    message.set("version", info.version.as_str());
    message.set("sysname", info.sysname.as_str());
    message.set("release", info.release.as_str());
    message.set("machine", info.machine.as_str());
    message
}

/// Figures for `stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Seconds since the daemon started.
    pub running_seconds: u64,
    /// When it started, in the zone of its machine, which is how clients know it.
    pub since: jiff::Zoned,
    /// Shards and helper threads.
    pub workers_total: u32,
    /// Of these, without work right now.
    pub workers_idle: u32,
    /// Timers set.
    pub scheduled: u64,
    /// IKE SAs.
    pub ike_sas: u64,
    /// Of these, not yet established as responder.
    pub half_open: u64,
    /// What is built in: backends and sinks.
    pub plugins: Vec<String>,
    /// The heap, where the allocator tells.
    pub heap: Option<Heap>,
}

/// What the allocator holds, in octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heap {
    /// Taken from the system by growing the data segment.
    pub sbrk: usize,
    /// Taken from the system in mappings of their own.
    pub mmap: usize,
    /// Of all this, in use.
    pub used: usize,
    /// Of all this, not in use.
    pub free: usize,
}

/// Answer to `stats`.
#[must_use]
pub fn stats(stats: &Stats) -> Message {
    let mut uptime = Message::new();
    uptime.set("running", duration(stats.running_seconds));
    uptime.set("since", stats.since.strftime("%b %d %H:%M:%S %Y").to_string());
    let mut workers = Message::new();
    workers.set_display("total", stats.workers_total);
    workers.set_display("idle", stats.workers_idle);
    let busy = stats.workers_total.saturating_sub(stats.workers_idle);
    workers.section("active", priorities(&[busy, 0, 0, 0]));
    let mut ike_sas = Message::new();
    ike_sas.set_display("total", stats.ike_sas);
    ike_sas.set_display("half-open", stats.half_open);
    let mut message = Message::new();
    message.section("uptime", uptime);
    message.section("workers", workers);
    message.section("queues", priorities(&[0; 4]));
    message.set_display("scheduled", stats.scheduled);
    message.section("ikesas", ike_sas);
    message.list("plugins", stats.plugins.iter().map(String::as_str));
    if let Some(heap) = stats.heap {
        let mut figures = Message::new();
        for (name, octets) in [("sbrk", heap.sbrk), ("mmap", heap.mmap), ("used", heap.used), ("free", heap.free)] {
            figures.set_display(name, octets);
        }
        message.section("mallinfo", figures);
    }
    message
}

/// Algorithms that are built in, by IANA transform id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Ciphers that are no AEADs.
    pub encryption: Vec<u16>,
    /// Integrity.
    pub integrity: Vec<u16>,
    /// AEADs.
    pub aead: Vec<u16>,
    /// Pseudorandom functions.
    pub prf: Vec<u16>,
    /// Key exchange methods.
    pub key_exchange: Vec<u16>,
    /// What provides them.
    pub provider: &'static str,
}

/// Answer to `get-algorithms`: what kinds there are, and who provides each algorithm. Kinds that only a daemon of exchangeable parts has are empty.
#[must_use]
pub fn algorithms(algorithms: &Algorithms) -> Message {
    let by = algorithms.provider;
    let section = |ids: &[u16], name: fn(u16) -> String| {
        let mut out = Message::new();
        let mut seen = std::collections::BTreeSet::new();
        for id in ids.iter().filter(|id| seen.insert(**id)) {
            out.set(name(*id), by);
        }
        out
    };
    let mut message = Message::new();
    message.section("encryption", section(&algorithms.encryption, names::encryption));
    message.section("integrity", section(&algorithms.integrity, names::integrity));
    message.section("aead", section(&algorithms.aead, names::encryption));
    message.section("hasher", Message::new());
    message.section("prf", section(&algorithms.prf, names::prf));
    for kind in ["xof", "kdf", "drbg"] {
        message.section(kind, Message::new());
    }
    message.section("ke", section(&algorithms.key_exchange, names::key_exchange));
    message.section("rng", Message::new().with("RNG_STRONG", by));
    message.section("nonce-gen", Message::new().with("NONCE_GEN", by));
    message
}

fn priorities(values: &[u32; 4]) -> Message {
    let mut message = Message::new();
    for (name, value) in ["critical", "high", "medium", "low"].iter().zip(values) {
        message.set_display(*name, value);
    }
    message
}

/// `82 seconds`, `5 minutes`, `3 hours`, `4 days`: the largest unit of which there are more than two.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    let (amount, unit) =
        units.iter().find(|(length, _)| seconds > 2 * length).map_or((seconds, "seconds"), |(l, u)| (seconds / l, u));
    // Only seconds can be one alone.
    let unit = if amount == 1 { "second" } else { unit };
    format!("{amount} {unit}")
}

/// Answer to `reload-settings`: the file is good; `restart` names the tables in which it asks for what only a new start can give, `webhooks` says what
/// became of webhooks.
#[must_use]
pub fn reloaded(restart: &[&str], webhooks: &[String]) -> Message {
    let mut message = ok();
    if !webhooks.is_empty() {
        message.list("webhooks", webhooks.iter().map(String::as_str));
    }
    if !restart.is_empty() {
        message.list("restart-needed", restart.iter().copied());
    }
    message
}

/// Answer to `get-conns`: names of the connections loaded over VICI or from the daemon's directory; and where there are any, those of connections that
/// were `refused` and are listed as such until they are unloaded.
#[must_use]
pub fn get_conns(names: &[String], refused: &[String]) -> Message {
    let mut message = list("conns", names.iter().map(String::as_str));
    if !refused.is_empty() {
        message.list("refused", refused.iter().map(String::as_str));
    }
    message
}

/// Answer to `get-shared`: unique ids of the shared secrets.
#[must_use]
pub fn get_shared<'a>(ids: impl IntoIterator<Item = &'a str>) -> Message {
    list("keys", ids)
}

/// Answer to `get-keys`: ids of the private keys.
#[must_use]
pub fn get_keys<'a>(ids: impl IntoIterator<Item = &'a str>) -> Message {
    list("keys", ids)
}

/// Answer to `get-authorities`: names of the certification authorities.
#[must_use]
pub fn get_authorities<'a>(names: impl IntoIterator<Item = &'a str>) -> Message {
    list("authorities", names)
}

/// Answer to `get-pools` while there are none.
#[must_use]
pub fn get_pools() -> Message {
    Message::new()
}

fn list<'a>(name: &str, items: impl IntoIterator<Item = &'a str>) -> Message {
    let mut message = Message::new();
    message.list(name, items);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_in_local_time() {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        let since = jiff::Timestamp::from_second(1_767_323_045).unwrap().to_zoned(zone);
        let answer = stats(&Stats { since, ..Stats::default() });
        let uptime = answer.get_section("uptime").unwrap();
        assert_eq!(uptime.get_str("since"), Some("Jan 02 04:04:05 2026"));
    }

    #[test]
    fn durations() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (120, "120 seconds"),
            (121, "2 minutes"),
            (7_200, "120 minutes"),
            (7_201, "2 hours"),
            (172_801, "2 days"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
