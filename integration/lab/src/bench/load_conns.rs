//! What thousands of connections cost: loaded, loaded again unchanged, listed and unloaded by `swanctl`, in Cygnet and in Debian's charon, in turns
//! within one run.
//!
//! The client is Debian's for both, so that what differs is the daemon; then Cygnet once more with its own client. Times are those of the whole
//! command and of the daemon's processor alone. Memory is what the daemon has resident after loading, against before.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::peer::charon::Charon;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Client, Daemon, Peer, Recipe};
use lab::topology::{Lab, Middle};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Connections, each with one child
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// What each child does when it is loaded: with `trap` there are policies and guards
    #[arg(long, default_value = "none", value_parser = ["none", "trap"])]
    start_action: String,
    /// Cygnet alone, with this client
    #[arg(long, value_parser = ["debian", "cygnet"])]
    only: Option<String>,
}

/// What is done, in this order.
const STEPS: [&str; 4] = ["load", "load again", "list-conns", "unload"];

/// What each step took.
struct Measured {
    who: &'static str,
    /// By the clock, and of the daemon's processor time.
    times: [(Duration, Duration); STEPS.len()],
    /// Octets resident: before, and with everything loaded.
    resident: [u64; 2],
}

/// With fewer connections, what differs is when the system has time for whom.
const MANY: u32 = 1_000;

/// Runs the measurement; true when both daemons did all of it, and Cygnet was nowhere slower with many.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let lab = Lab::new(&Middle::Direct)?;
    let cygnet = Cygnet::default();
    let subjects: [(&'static str, &dyn Peer, Client); 3] = [
        ("charon, Debian's swanctl", &QuietCharon, Client::Debian),
        ("Cygnet, Debian's swanctl", &cygnet, Client::Debian),
        ("Cygnet, its own swanctl", &cygnet, Client::Cygnet),
    ];
    let wanted = |who: &str| match options.only.as_deref() {
        None => true,
        Some("debian") => who.starts_with("Cygnet, Debian"),
        Some(_) => who.starts_with("Cygnet, its"),
    };
    println!("{} connections, start_action = {}", options.connections, options.start_action);
    let mut all = Vec::new();
    for (number, (who, peer, client)) in subjects.into_iter().filter(|(who, ..)| wanted(who)).enumerate() {
        let directory = lab.directory().join(format!("a{number}"));
        let mut daemon = Daemon::start(peer, &lab.a.gateway, &directory, &[])?;
        let measured = measure(options, who, &mut daemon, client)
            .with_context(|| format!("{who}; the end of its log:\n{}", daemon.log_tail(20)))?;
        daemon.process().terminate()?;
        print(&measured, options.connections);
        all.push(measured);
    }
    let faster = compare(&all, options.connections);
    Ok(faster || options.connections < MANY)
}

/// Debian's charon with a log as short as it is unless configured otherwise.
#[derive(Debug)]
struct QuietCharon;

impl Peer for QuietCharon {
    fn name(&self) -> &'static str {
        Charon.name()
    }

    fn prepare(&self, directory: &Path) -> Result<Recipe> {
        let recipe = Charon.prepare(directory)?;
        let file = directory.join("strongswan.conf");
        let text = std::fs::read_to_string(&file)?;
        let levels = ["ike", "cfg", "chd"].map(|group| format!("      {group} = 2\n"));
        let quiet = levels.iter().fold(text.clone(), |text, level| text.replace(level, ""));
        ensure!(quiet.len() + levels.concat().len() == text.len(), "its log is not as expected:\n{text}");
        std::fs::write(file, quiet)?;
        Ok(recipe)
    }
}

fn measure(options: &Options, who: &'static str, daemon: &mut Daemon<'_>, client: Client) -> Result<Measured> {
    let file = daemon.directory().join("swanctl/swanctl.conf");
    let id = daemon.process().id();
    let count = options.connections;
    std::fs::write(&file, text(count, &options.start_action)?)?;
    let mut resident = [resident_of(id)?, 0];
    let mut times = [(Duration::ZERO, Duration::ZERO); STEPS.len()];
    for (number, step) in STEPS.iter().enumerate() {
        let (command, expected) = match *step {
            "list-conns" => ("--list-conns", format!("{}: IKEv2", name(count - 1))),
            "unload" => {
                std::fs::write(&file, "")?;
                ("--load-conns", format!("{count} unloaded"))
            }
            _ => ("--load-conns", format!("successfully loaded {count} connections, 0 unloaded")),
        };
        let (begin, used) = (Instant::now(), processor_time(id)?);
        let said = daemon.swanctl_of(client, &[command])?;
        let time = (begin.elapsed(), processor_time(id)?.saturating_sub(used));
        ensure!(said.contains(&expected), "{step}: `{expected}` is not in what swanctl said");
        if let Some(place) = times.get_mut(number) {
            *place = time;
        }
        if *step == "load again" {
            resident[1] = resident_of(id)?;
        }
    }
    Ok(Measured { who, times, resident })
}

fn name(number: u32) -> String {
    format!("site-{number}")
}

/// As a hub of a large network might have it: each peer with its address, its identity and its subnet.
fn text(count: u32, start_action: &str) -> Result<String> {
    let mut text = String::from("connections {\n");
    for number in 0..count {
        let (high, low) = (number / 250, number % 250);
        write!(
            text,
            "  {} {{\n    version = 2\n    remote_addrs = 198.18.{high}.{low}\n    proposals = aes256gcm16-prfsha384-x25519\n    \
             local {{\n      auth = psk\n      id = hub.example\n    }}\n    remote {{\n      auth = psk\n      id = site-{number}.example\n    }}\n    \
             children {{\n      net {{\n        local_ts = 10.0.0.0/16\n        remote_ts = 172.{}.{}.{}/28\n        \
             esp_proposals = aes256gcm16-x25519\n        start_action = {start_action}\n      }}\n    }}\n  }}\n",
            name(number),
            16 + number / 4096,
            number / 16 % 256,
            number % 16 * 16,
        )?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn print(measured: &Measured, connections: u32) {
    println!("\n{}", measured.who);
    for (step, (clock, processor)) in STEPS.iter().zip(measured.times) {
        let (clock, processor) = (clock.as_secs_f64(), processor.as_secs_f64());
        println!("  {step:<12} {clock:>8.2} s, the daemon's processor {processor:>6.2} s");
    }
    let [before, after] = measured.resident;
    let each = per_connection(measured, connections);
    println!(
        "  resident     {} KiB before, {} KiB loaded: {each:.1} KiB for each connection",
        before / 1024,
        after / 1024
    );
}

fn per_connection(measured: &Measured, connections: u32) -> f64 {
    let [before, after] = measured.resident;
    after.saturating_sub(before) as f64 / 1024.0 / f64::from(connections)
}

/// Every other against the first, which is charon unless it was left out.
fn compare(all: &[Measured], connections: u32) -> bool {
    let Some((charon, others)) = all.split_first() else { return true };
    let mut good = true;
    println!();
    for other in others {
        let ratio = |pair: ((Duration, Duration), (Duration, Duration))| {
            pair.1.0.as_secs_f64() / pair.0.0.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        let ratios: Vec<f64> = charon.times.iter().copied().zip(other.times).map(ratio).collect();
        let told: Vec<String> = STEPS.iter().zip(&ratios).map(|(step, ratio)| format!("{step} {ratio:.2}")).collect();
        let memory = per_connection(other, connections) / per_connection(charon, connections).max(f64::MIN_POSITIVE);
        println!("{} / {}: {}; memory {memory:.2}", other.who, charon.who, told.join(", "));
        good &= ratios.iter().all(|ratio| *ratio <= 1.0);
    }
    good
}

/// Octets of memory that a process has.
fn resident_of(id: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Processor time of all threads of a process, as far as counted in hundredths of a second.
fn processor_time(id: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold anything; of what follows it, user and system time are the twelfth and thirteenth.
    let fields: Vec<&str> = text.rsplit_once(')').context("no name")?.1.split_ascii_whitespace().collect();
    let ticks = |number: usize| fields.get(number).and_then(|field| field.parse::<u64>().ok()).context("no number");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
