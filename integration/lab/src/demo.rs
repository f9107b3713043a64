//! The demo: two gateways, one tunnel, real packets, step by step.

use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::capture::Captured;
use lab::peer::Daemon;
use lab::peer::conf::{Tunnel, render};
use lab::peer::cygnet::Cygnet;
use lab::topology::{FAMILIES, Family, Lab, Middle, OuterCapture, Side};
use lab::traffic::{bulk, ping, stream};

/// IPv4 traffic: a trap brings it up.
const TRAPPED: &str = "net4";
/// IPv6 traffic: brought up by hand, rekeyed by a packet limit.
const LIMITED: &str = "net6";
/// Packets after which gateway A replaces the limited CHILD SA.
const REKEY_PACKETS: u64 = 2_500;
/// What the rekey step must reach.
const WANTED_REKEYS: u64 = 3;
const WANTED_PACKETS: u64 = 5_000;
/// How long anything that needs a few exchanges may take.
const SOON: Duration = Duration::from_secs(30);

/// Options of the demo.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Mebibytes of the bulk transfer
    #[arg(long, default_value_t = 128)]
    bulk: u64,
    /// Write the outer links' captures into this directory (gateway-a.pcap, gateway-b.pcap)
    #[arg(long, value_name = "DIRECTORY")]
    pcap: Option<PathBuf>,
    /// Show gateway A's swanctl.conf first
    #[arg(long)]
    files: bool,
    /// Show the daemons' logs at the end
    #[arg(long)]
    logs: bool,
}

/// Runs all steps; true when each passed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let started = Instant::now();
    println!(
        "LAN A 10.1.0.0/24, 2001:db8:1::/64 -- gateway A == outer link == gateway B -- LAN B 10.2.0.0/24, 2001:db8:2::/64\n"
    );
    let lab = Lab::new(&Middle::Direct)?;
    if options.files {
        println!("gateway A's swanctl.conf:\n\n{}", indented(&render(&[tunnel(&lab, Side::A)])));
    }
    let mut steps = Steps { number: 0, failed: 0 };
    let mut demo = Demo { lab: &lab, gateways: None, capture: None, captured: Vec::new() };
    // A step that fails ends the demo: what follows would only fail for the same reason.
    let _ = demo.steps(options, &mut steps);
    if let Some([a, b]) = &demo.gateways
        && (options.logs || steps.failed > 0)
    {
        println!(
            "\nlog of gateway A:\n{}\nlog of gateway B:\n{}",
            indented(&a.log_tail(80)),
            indented(&b.log_tail(80))
        );
    }
    let verdict = if steps.failed == 0 { "passed" } else { "FAILED" };
    println!("\ndemo {verdict}: {} steps, {:.1} s", steps.number, started.elapsed().as_secs_f64());
    Ok(steps.failed == 0)
}

/// Prints one line per step.
struct Steps {
    number: usize,
    failed: usize,
}

impl Steps {
    fn run<R>(&mut self, what: &str, work: impl FnOnce() -> Result<(R, String)>) -> Result<R> {
        self.number += 1;
        let started = Instant::now();
        match work() {
            Ok((result, figure)) => {
                println!("pass  {:>2}  {what}: {figure}  ({:.1} s)", self.number, started.elapsed().as_secs_f64());
                Ok(result)
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL  {:>2}  {what}: {error:#}  ({:.1} s)", self.number, started.elapsed().as_secs_f64());
                Err(error)
            }
        }
    }
}

struct Demo<'lab> {
    lab: &'lab Lab,
    gateways: Option<[Daemon<'lab>; 2]>,
    capture: Option<OuterCapture<'lab>>,
    captured: Vec<[Captured; 2]>,
}

impl Demo<'_> {
    fn steps(&mut self, options: &Options, steps: &mut Steps) -> Result<()> {
        self.capture = Some(self.lab.capture()?);
        steps.run("start two daemons", || self.start())?;
        steps.run("acquire: a first packet brings the tunnel up and is not lost", || self.acquire())?;
        steps.run("swanctl --initiate", || self.initiate())?;
        steps.run("ping LAN to LAN, IPv4 and IPv6, both ways", || self.ping())?;
        steps.run("bulk transfer, every octet compared", || self.bulk(options.bulk))?;
        steps.run("swanctl --list-sas, cygnet status", || self.list())?;
        steps.run("packet-limit rekeys under sequence-numbered streams both ways", || self.rekeys())?;
        steps.run("teardown: swanctl --terminate", || self.terminate())?;
        steps.run("daemons end on SIGTERM", || self.stop())?;
        steps.run("capture of both outer links shows only ESP", || self.judge(options))
    }

    fn gateways(&self) -> Result<(&Daemon<'_>, &Daemon<'_>)> {
        let [a, b] = self.gateways.as_ref().context("the daemons do not run")?;
        Ok((a, b))
    }

    fn start(&mut self) -> Result<((), String)> {
        let start = |side: Side| {
            let directory = self.lab.directory().join(format!("gateway-{}", side.letter()));
            Daemon::start(&Cygnet::default(), &self.lab.site(side).gateway, &directory, &[tunnel(self.lab, side)])
        };
        self.gateways = Some([start(Side::A)?, start(Side::B)?]);
        Ok(((), "ready".into()))
    }

    fn acquire(&self) -> Result<((), String)> {
        let (a, b) = self.gateways()?;
        ensure!(a.sas()?.is_empty() && b.sas()?.is_empty(), "there are SAs before any packet");
        let (source, target) = self.hosts(Side::A, Family::V4);
        let started = Instant::now();
        let answered = ping::ping(&self.lab.a.host, source, target, 1, ping::PATIENCE)?;
        let time = started.elapsed().as_millis();
        ensure!(answered == 1, "the first echo request was not answered");
        ensure!(
            a.sas()?.iter().any(|sa| sa.carries(&[TRAPPED])),
            "it was answered, but no SA stands: it went in clear"
        );
        Ok(((), format!("answered after {time} ms")))
    }

    fn initiate(&self) -> Result<((), String)> {
        let (a, b) = self.gateways()?;
        a.swanctl(&["--initiate", "--child", LIMITED, "--timeout", "30"])?;
        let both = |sas: &[lab::peer::sas::IkeSa]| sas.iter().any(|sa| sa.carries(&[TRAPPED, LIMITED]));
        let sas = a.wait_for("both children at A", SOON, both)?;
        b.wait_for("both children at B", SOON, both)?;
        ensure!(sas.len() == 1, "{} IKE SAs where one would do", sas.len());
        Ok(((), format!("one IKE SA ({}), two CHILD SAs", sas.first().map_or("", |sa| sa.algorithms.as_str()))))
    }

    fn ping(&self) -> Result<((), String)> {
        let mut total = 0;
        for (side, family) in [Side::A, Side::B].into_iter().flat_map(|side| FAMILIES.map(|family| (side, family))) {
            let (source, target) = self.hosts(side, family);
            let answered = ping::ping(&self.lab.site(side).host, source, target, 10, ping::PATIENCE)?;
            ensure!(answered == 10, "{source} to {target}: {answered} of 10 answered");
            total += answered;
        }
        Ok(((), format!("{total} of 40 answered")))
    }

    fn bulk(&mut self, mebibytes: u64) -> Result<((), String)> {
        // The capture pauses: a process that copies every frame would be what is measured.
        self.pause_capture()?;
        let transfer = bulk::transfer(&self.lab.a, &self.lab.b, Family::V4, mebibytes << 20);
        self.capture = Some(self.lab.capture()?);
        Ok(((), transfer?.to_string()))
    }

    fn list(&self) -> Result<((), String)> {
        let (a, _) = self.gateways()?;
        let text = a.swanctl(&["--list-sas"])?;
        println!("\n{}", indented(&text));
        ensure!(text.contains("ESTABLISHED") && text.contains("INSTALLED"), "no established SA in the list");
        let status = a.cygnet(&["status"])?;
        let lines = String::from_utf8_lossy(&status.stdout);
        println!("cygnet status:\n\n{}", indented(&lines));
        ensure!(status.status.success() && lines.lines().count() == 2, "cygnet status ended with {}", status.status);
        Ok(((), format!("{} lines, and one for each child by cygnet status", text.lines().count())))
    }

    fn rekeys(&self) -> Result<((), String)> {
        let (a, _) = self.gateways()?;
        let load = |octets| stream::Load { octets, rate: 1_000.0, family: Family::V6 };
        let streams = stream::start_both_ways(&self.lab.a, &self.lab.b, &[load(64), load(1_400)])?;
        let started = Instant::now();
        let mut spis = Vec::new();
        while started.elapsed() < Duration::from_secs(90) {
            let installed = a.sas()?.iter().find_map(|sa| sa.installed(LIMITED).map(|child| child.spi_out.clone()));
            spis.extend(installed.filter(|spi| spis.last() != Some(spi)));
            if spis.len() as u64 > WANTED_REKEYS {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // Packets flow on for a moment on the newest SA.
        thread::sleep(Duration::from_millis(500));
        let report = stream::finish_all(streams)?;
        let rekeys = spis.len().saturating_sub(1) as u64;
        ensure!(rekeys >= WANTED_REKEYS, "{rekeys} rekeys in {} s; {report}", started.elapsed().as_secs());
        ensure!(report.is_clean() && report.sent >= WANTED_PACKETS, "{rekeys} rekeys; {report}");
        Ok(((), format!("{rekeys} rekeys; {report}")))
    }

    fn terminate(&self) -> Result<((), String)> {
        let (a, b) = self.gateways()?;
        a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
        a.wait_for("no SA at A", SOON, <[_]>::is_empty)?;
        b.wait_for("no SA at B", SOON, <[_]>::is_empty)?;
        Ok(((), "no SA is left on either side".into()))
    }

    fn stop(&mut self) -> Result<((), String)> {
        for daemon in self.gateways.iter_mut().flatten() {
            let status = daemon.process().terminate()?;
            ensure!(status.success(), "a daemon ended with {status}");
        }
        // Nobody encrypts any more: what the guard does with these packets is in the capture.
        let (source, target) = self.hosts(Side::A, Family::V4);
        let answered = ping::ping(&self.lab.a.host, source, target, 3, Duration::from_millis(100))?;
        ensure!(answered == 0, "packets pass without a daemon");
        self.pause_capture()?;
        Ok(((), "both with exit code 0, nothing passes any more".into()))
    }

    fn judge(&self, options: &Options) -> Result<((), String)> {
        let mut lines = Vec::new();
        for (index, name) in ["A", "B"].into_iter().enumerate() {
            let parts: Vec<&Captured> = self.captured.iter().filter_map(|pair| pair.get(index)).collect();
            let sum = |count: fn(&Captured) -> u64| parts.iter().map(|captured| count(captured)).sum::<u64>();
            let (esp, ike) = (sum(|part| part.counts.esp + part.counts.udp_esp), sum(|part| part.counts.ike));
            let (clear, other) = (sum(|part| part.counts.clear), sum(|part| part.counts.other));
            let missed = sum(Captured::missed);
            lines.push(format!("{name}: ESP {esp} IKE {ike} other {other} in-clear {clear} missed {missed}"));
            if let (Some(directory), Some(last)) = (&options.pcap, parts.last()) {
                last.write_pcap(&directory.join(format!("gateway-{}.pcap", name.to_lowercase())))?;
            }
            if clear + other + missed > 0 || esp == 0 {
                bail!("{}", lines.join("; "));
            }
        }
        Ok(((), lines.join("; ")))
    }

    fn pause_capture(&mut self) -> Result<()> {
        if let Some(capture) = self.capture.take() {
            self.captured.push(capture.finish()?);
        }
        Ok(())
    }

    fn hosts(&self, from: Side, family: Family) -> (IpAddr, IpAddr) {
        (self.lab.site(from).host_address(family), self.lab.site(from.other()).host_address(family))
    }
}

/// The demo's tunnel: IPv4 by trap, IPv6 by hand with a packet limit at gateway A.
fn tunnel(lab: &Lab, side: Side) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    for child in &mut tunnel.children {
        if child.name == TRAPPED {
            child.options.push("start_action = trap".into());
        } else if side == Side::A {
            child.options.push(format!("rekey_packets = {REKEY_PACKETS}"));
            child.options.push(format!("life_packets = {}", REKEY_PACKETS * 4));
            child.options.push("rand_packets = 0".into());
        }
    }
    tunnel
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
