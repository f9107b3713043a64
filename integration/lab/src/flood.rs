//! The flood soak: forged IKE_SA_INIT requests from thousands of addresses, while established tunnels rekey and answer liveness checks, and a
//! new peer comes.
//!
//! What the daemon must show: tunnels stay and carry traffic, rekeys are done, the newcomer gets in, memory stays bounded.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::hostile::verdict::Verdict;
use lab::peer::Daemon;
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::flood::{FORGED, Flood};
use lab::traffic::ping;

/// The tunnel that is there before.
const SITE: &str = "site";
const CHILD: &str = "net4";
/// The one that comes during the flood.
const LATE: &str = "late";
/// Between two rekeys.
const INTERVAL: Duration = Duration::from_secs(2);
/// The newcomer must be in after this long: its repetitions may be lost, and processors be short.
const PATIENCE: Duration = Duration::from_secs(40);
/// A rekey must be done after this long: a repetition or two may be lost.
const REKEY: Duration = Duration::from_secs(12);
/// What the target may grow by: the queues in front of the shards, full, and the half-open IKE SAs below the threshold.
const GROWTH_KIB: u64 = 24 * 1_024;
/// A peer that does not answer is given up after 1 + 1.8 + 3.2 + 5.8 s, so that one which was starved does not survive the run.
const TIMERS: &str = "[ike]\nretransmit_timeout = 1\nretransmit_tries = 3\n";

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Requests per second to throw
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Forged addresses
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=131_000))]
    addresses: u32,
    /// Port to throw at
    #[arg(long, default_value_t = 500)]
    port: u16,
}

/// Runs the soak; true when it passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let lab = Lab::new(&Middle::Direct)?;
    // Answers to forged addresses end here instead of going round.
    lab.b.gateway.ip(&["route", "add", "blackhole", FORGED])?;
    let start = |side: Side| {
        let peer = Cygnet { extra: TIMERS.into(), log: "warn".into() };
        Daemon::start(
            &peer,
            &lab.site(side).gateway,
            &lab.directory().join(side.letter()),
            &[site(&lab, side), late(&lab, side)],
        )
    };
    let (mut a, b) = (start(Side::A)?, start(Side::B)?);
    let outcome = soak(&lab, &mut a, &b, options);
    if !matches!(outcome, Ok(true)) {
        eprintln!("log of the target:\n{}\nlog of its peer:\n{}", a.log_tail(40), b.log_tail(40));
    }
    outcome
}

fn site(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    // A liveness check for every second of silence.
    tunnel.options.push("dpd_delay = 1s".into());
    tunnel
}

/// At the target it serves peers of any address, so that forged requests are no less welcome than the newcomer's.
fn late(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    tunnel.name = LATE.into();
    let (subnets, ids) = match side {
        Side::A => ((lab.a.lan(Family::V4), "10.77.0.0/24".to_owned()), ("gw-a.example", "late.example")),
        Side::B => (("10.77.0.0/24".to_owned(), lab.a.lan(Family::V4)), ("late.example", "gw-a.example")),
    };
    (tunnel.local_id, tunnel.remote_id) = (ids.0.into(), ids.1.into());
    if side == Side::A {
        tunnel.remote = "%any".into();
    }
    tunnel.children = vec![Child {
        name: LATE.into(),
        local_ts: subnets.0,
        remote_ts: subnets.1,
        esp_proposals: "aes128gcm16-x25519".into(),
        options: Vec::new(),
    }];
    tunnel
}

/// What happened while requests were thrown.
#[derive(Default)]
struct During {
    rekeys: Vec<Duration>,
    newcomer: Option<Duration>,
    pings: (u64, u64),
    highest_kib: u64,
}

fn soak(lab: &Lab, a: &mut Daemon<'_>, b: &Daemon<'_>, options: &Options) -> Result<bool> {
    for child in [CHILD, "net6"] {
        b.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
    }
    ensure!(pings(lab)? == 5, "the tunnel does not carry before the flood");
    let (before_kib, ike_before, counted) = (resident_kib(a)?, ike_sa(b)?, datagrams(lab)?);
    let flood = Flood::start(&lab.b, &lab.a, options.port, options.rate, options.addresses)?;
    let during = meanwhile(lab, a, b, Duration::from_secs_f64(options.seconds));
    let (sent, taken) = flood.end()?;
    let during = during?;
    let rate = sent as f64 / taken.as_secs_f64();
    let (read, answered, unread) = {
        let [read, answered, unread] = datagrams(lab)?;
        let [read_before, answered_before, unread_before] = counted;
        (read - read_before, answered - answered_before, unread - unread_before)
    };
    let ike_after = ike_sa(b)?;
    let highest = during.highest_kib.max(resident_kib(a)?);
    let mut verdict = Verdict::default();
    let floor = options.rate as f64 / 10.0;
    verdict.line(
        rate >= floor,
        &format!("thrown {sent} in {:.1} s, {rate:.0}/s of {}/s asked for", taken.as_secs_f64(), options.rate),
    );
    // On a busy machine some are thrown away before they come to a socket, where nobody counts them.
    verdict.line(
        read + unread >= sent / 2 && read >= sent / 20,
        &format!("{read} datagrams read by the daemon, {answered} sent by it, {unread} never read for lack of time"),
    );
    verdict.line(
        ike_before == ike_after,
        "the established IKE SA is the same as before: every liveness check was answered",
    );
    verdict.line(
        during.pings.0 == during.pings.1,
        &format!("{} of {} pings answered through its tunnel", during.pings.1, during.pings.0),
    );
    let slowest = during.rekeys.iter().max().copied().unwrap_or_default();
    let expected = (options.seconds / INTERVAL.as_secs_f64() / 2.0).floor() as usize;
    verdict.line(
        during.rekeys.len() >= expected.max(1),
        &format!("{} rekeys done meanwhile, the slowest in {} ms", during.rekeys.len(), slowest.as_millis()),
    );
    let newcomer = during.newcomer.map_or("not at all".into(), |time| format!("{} ms", time.as_millis()));
    verdict.line(during.newcomer.is_some(), &format!("a new peer got in: {newcomer}"));
    let growth = highest.saturating_sub(before_kib);
    verdict
        .line(growth <= GROWTH_KIB, &format!("VmRSS {before_kib} -> {highest} KiB at most, limit {GROWTH_KIB} more"));
    verdict.line(!a.log().contains("panicked at") && a.process().is_running(), "the daemon runs, no panic");
    println!(
        "flood {sent} IKE_SA_INIT at {rate:.0}/s from {} addresses: rekeys {} (slowest {} ms), newcomer {newcomer}, VmRSS {before_kib} -> {highest} KiB",
        options.addresses,
        during.rekeys.len(),
        slowest.as_millis()
    );
    Ok(verdict.passed())
}

/// Rekeys, pings, measures, and lets the newcomer come after a third of the time.
fn meanwhile(lab: &Lab, a: &mut Daemon<'_>, b: &Daemon<'_>, time: Duration) -> Result<During> {
    let started = Instant::now();
    let mut during = During::default();
    let mut asked = false;
    while started.elapsed() < time {
        let round = Instant::now();
        if !asked && started.elapsed() >= time / 3 {
            asked = true;
            let begun = Instant::now();
            let patience = PATIENCE.as_secs().to_string();
            let done = b.swanctl(&["--initiate", "--child", LATE, "--timeout", &patience]);
            during.newcomer = done.is_ok().then(|| begun.elapsed());
        }
        if let Some(time) = rekey(b)? {
            during.rekeys.push(time);
        }
        during.pings.0 += 5;
        during.pings.1 += u64::from(pings(lab)?);
        during.highest_kib = during.highest_kib.max(resident_kib(a)?);
        std::thread::sleep(INTERVAL.saturating_sub(round.elapsed()));
    }
    Ok(during)
}

/// Rekeys the tunnel from the peer; how long until the new CHILD SA is in use.
fn rekey(b: &Daemon<'_>) -> Result<Option<Duration>> {
    let spi = |sas: &[lab::peer::sas::IkeSa]| {
        sas.iter().filter(|sa| sa.name == SITE).find_map(|sa| sa.installed(CHILD).map(|child| child.spi_in.clone()))
    };
    let before = spi(&b.sas()?);
    let begun = Instant::now();
    b.swanctl(&["--rekey", "--child", CHILD])?;
    while begun.elapsed() < REKEY {
        let now = spi(&b.sas()?);
        if now.is_some() && now != before {
            return Ok(Some(begun.elapsed()));
        }
    }
    Ok(None)
}

fn pings(lab: &Lab) -> Result<u16> {
    let (source, target): (IpAddr, IpAddr) = (lab.b.host_address(Family::V4), lab.a.host_address(Family::V4));
    ping::ping(&lab.b.host, source, target, 5, ping::PATIENCE)
}

/// The SPIs of the established IKE SA.
fn ike_sa(daemon: &Daemon<'_>) -> Result<(String, String)> {
    let sas = daemon.sas()?;
    let ike = sas.iter().find(|sa| sa.name == SITE).context("the established IKE SA is gone")?;
    Ok(ike.spis.clone())
}

fn resident_kib(daemon: &mut Daemon<'_>) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process().id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Datagrams of UDP over IPv4 at the target, by its kernel: read, sent, and dropped because nobody read them in time.
fn datagrams(lab: &Lab) -> Result<[u64; 3]> {
    let table = lab.a.gateway.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = rows.next().zip(rows.next()).context("no counters of UDP")?;
    let field = |name: &str| {
        let found = names.split(' ').zip(values.split(' ')).find(|(found, _)| *found == name);
        found.and_then(|(_, value)| value.parse::<u64>().ok()).with_context(|| format!("no counter {name}"))
    };
    Ok([field("InDatagrams")?, field("OutDatagrams")?, field("RcvbufErrors")?])
}
