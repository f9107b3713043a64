//! Hard limits under load, in real daemons: how many packets pass beyond one, where the data path raises it and where the daemon finds it in the
//! counters; nothing in clear, and the tunnel comes back with other keys.

use anyhow::{Context, Result, ensure};
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use lab::traffic::stream::{Load, Stream};
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::life;

const CHILD: &str = "net4";
/// Packets that the SA may carry.
const LIMIT: u64 = 4_000;
/// Octets of each packet.
const OCTETS: usize = 200;
/// Packets in a second: the limit is reached after two.
const RATE: f64 = 2_000.0;

/// A device and the limit of its SAs.
struct Case {
    name: &'static str,
    /// Limits that the simulated NIC raises; nothing = no NIC is simulated.
    raises: Option<&'static str>,
    limit: &'static str,
    /// Packets beyond the limit, at most.
    most: u64,
}

const CASES: [Case; 4] = [
    Case { name: "raised_by_the_data_path", raises: None, limit: "life_packets = 4000", most: 0 },
    Case { name: "raised_by_a_nic", raises: Some("\"time\", \"packets\""), limit: "life_packets = 4000", most: 0 },
    Case {
        name: "packets_found_in_counters",
        raises: Some("\"time\""),
        limit: "life_packets = 4000",
        most: LIMIT / 100,
    },
    Case {
        name: "octets_found_in_counters",
        raises: Some("\"time\", \"packets\""),
        limit: "life_bytes = 800000",
        most: LIMIT / 100,
    },
];

pub(crate) fn trials() -> Vec<Trial> {
    CASES.iter().map(|case| trial(format!("limits::{}", case.name), move || overrun_at_best(case))).collect()
}

fn gateway(case: &Case) -> Cygnet {
    let nic = |raises| {
        format!("[backend.userspace]\nsimulate_packet_device = true\n[backend.userspace.limits]\nlimits = [{raises}]\n")
    };
    Cygnet { extra: case.raises.map(nic).unwrap_or_default(), log: String::new() }
}

/// Where the daemon has to look at the counters in time, other work on the machine can only make it worse: the best of some runs counts.
fn overrun_at_best(case: &'static Case) -> Result<()> {
    let mut outcome = overrun(case);
    for _ in 0..if case.most > 0 { 3 } else { 0 } {
        if outcome.is_ok() {
            break;
        }
        outcome = overrun(case);
    }
    outcome
}

fn overrun(case: &'static Case) -> Result<()> {
    let ours = gateway(case);
    let plain = Cygnet { extra: String::new(), log: String::new() };
    let configure = |side: Side, mut tunnel: Tunnel| {
        tunnel.children.retain(|child| child.name == CHILD);
        if side == Side::A {
            for child in &mut tunnel.children {
                child.options.extend([case.limit.into(), "rekey_packets = 0".into(), "rekey_bytes = 0".into()]);
                child.options.extend(case.raises.map(|_| "hw_offload = packet".into()));
            }
        }
        tunnel
    };
    with_pair(&Middle::Direct, [&ours, &plain], configure, |lab, pair| {
        pair.a.swanctl(&["--initiate", "--child", CHILD, "--timeout", "30"])?;
        let before = spi_out(pair)?;
        let capture = lab.capture()?;
        let load = Load { octets: OCTETS, rate: RATE, family: Family::V4 };
        let stream = Stream::start(lab.site(Side::A), lab.site(Side::B), load)?;
        life::settle("more is sent than the limit", || Ok(stream.sent() >= LIMIT + LIMIT / 4))?;
        let report = stream.finish()?;
        let [at_a, _] = capture.finish()?;
        let passed = at_a.counts.by_spi.get(&before).copied().unwrap_or_default();
        let over = passed.saturating_sub(LIMIT);
        println!(
            "{}: {passed} packets passed an SA for {LIMIT}, {:+.2} %",
            case.name,
            over as f64 * 100.0 / LIMIT as f64
        );
        ensure!(at_a.missed() == 0, "the capture missed {} frames", at_a.missed());
        ensure!(report.sent > LIMIT + LIMIT / 50, "only {} packets were sent", report.sent);
        ensure!(
            passed >= LIMIT - LIMIT / 100 && over <= case.most,
            "{passed} packets passed, {} may",
            LIMIT + case.most
        );
        ensure!(at_a.counts.clear == 0, "{} packets in clear", at_a.counts.clear);
        comes_back(lab, pair, before)
    })
}

fn spi_out(pair: &Pair<'_>) -> Result<u32> {
    let sas = pair.a.wait_for("the child", SOON, |sas| sas.iter().any(|sa| sa.carries(&[CHILD])))?;
    let child = sas.iter().find_map(|sa| sa.installed(CHILD)).context("it is not listed")?;
    u32::from_str_radix(&child.spi_out, 16).context("its SPI is no number")
}

/// The tunnel is there again, with other keys, and carries packets.
fn comes_back(lab: &Lab, pair: &Pair<'_>, before: u32) -> Result<()> {
    let other = |child: &str| u32::from_str_radix(child, 16).is_ok_and(|spi| spi != before);
    pair.a.wait_for("another SA", SOON, |sas| {
        sas.iter().filter_map(|sa| sa.installed(CHILD)).any(|child| other(&child.spi_out))
    })?;
    let (here, there) = (lab.site(Side::A), lab.site(Side::B));
    let (from, to) = (here.host_address(Family::V4), there.host_address(Family::V4));
    ensure!(ping::ping(&here.host, from, to, 5, ping::PATIENCE)? == 5, "it carries nothing");
    Ok(())
}
