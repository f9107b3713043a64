//! The harness proves itself with a daemon that nobody here wrote on both sides, and without any daemon.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::charon::Charon;
use lab::relay::Profile;
use lab::topology::{FAMILIES, Family, Lab, Middle, Side};
use lab::traffic::{bulk, inject, ping, stream};
use libtest_mimic::Trial;

use crate::harness::{SOON, trial, with_pair};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("self::clear_traffic_is_seen_as_clear", clear_traffic_is_seen_as_clear),
        trial("self::relay_delays_reorders_and_loses", relay_delays_reorders_and_loses),
        trial("self::forged_packets_arrive_without_a_guard", forged_packets_arrive_without_a_guard),
        trial("self::charon_to_charon", charon_to_charon),
        trial("self::charon_to_charon_behind_nat", charon_to_charon_behind_nat),
    ]
}

/// Without a tunnel, packets between the LANs cross a routed middle in clear and the capture says so: a capture that could not see a
/// leak would prove nothing.
fn clear_traffic_is_seen_as_clear() -> Result<()> {
    let lab = Lab::new(&Middle::Router)?;
    let capture = lab.capture()?;
    for family in FAMILIES {
        let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
        ensure!(ping::ping(&lab.a.host, source, target, 5, ping::PATIENCE)? == 5, "{family:?} ping");
    }
    let load = stream::Load { octets: 1_400, rate: 1_000.0, family: Family::V6 };
    let report = stream::both_ways(&lab.a, &lab.b, &[load], Duration::from_millis(300))?;
    ensure!(report.is_clean(), "{report}");
    let transfer = bulk::transfer(&lab.a, &lab.b, Family::V4, 4 << 20)?;
    ensure!(transfer.octets == 4 << 20);
    for captured in capture.finish()? {
        ensure!(captured.missed() == 0, "missed {} frames", captured.missed());
        ensure!(captured.counts.clear >= 20 + report.sent && captured.counts.esp == 0, "{}", captured.counts);
        let file = lab.directory().join("clear.pcap");
        captured.write_pcap(&file)?;
        ensure!(std::fs::metadata(&file)?.len() > 20_000, "pcap file too short");
    }
    Ok(())
}

fn relay_delays_reorders_and_loses() -> Result<()> {
    let path = Profile {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        reorder: 0.05,
        loss: 0.02,
        ..Profile::CLEAN
    };
    let lab = Lab::new(&Middle::Relay(path))?;
    let sender = lab.a.gateway.run(|| std::net::UdpSocket::bind((lab.a.outer_address(Family::V4), 0)))??;
    let receiver = lab.b.gateway.run(|| std::net::UdpSocket::bind((lab.b.outer_address(Family::V4), 0)))??;
    let started = std::time::Instant::now();
    let (source, target) = (lab.a.outer_address(Family::V6), lab.b.outer_address(Family::V6));
    ensure!(ping::answers_within(&lab.a.gateway, source, target, SOON)?, "no answer");
    ensure!(started.elapsed() >= Duration::from_millis(30), "the path has no delay");
    let load = stream::Load { octets: 200, rate: 4_000.0, family: Family::V4 };
    let stream = stream::Stream::between(sender, receiver, load)?;
    std::thread::sleep(Duration::from_secs(1));
    let report = stream.finish()?;
    let share = |count: u64| count as f64 / report.sent as f64;
    ensure!((0.005..0.05).contains(&share(report.lost)), "{report}");
    ensure!((0.01..0.10).contains(&share(report.reordered)), "{report}");
    ensure!(report.duplicated == 0, "{report}");
    Ok(())
}

fn forged_packets_arrive_without_a_guard() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    for family in FAMILIES {
        let received = inject::forged_packets_received(&lab.b, &lab.a, family, 10, SOON)?;
        ensure!(received == 10, "{family:?}: {received} of 10");
    }
    Ok(())
}

fn charon_to_charon() -> Result<()> {
    with_pair(
        &Middle::Direct,
        [&Charon, &Charon],
        |_, tunnel| tunnel,
        |lab, pair| {
            let capture = lab.capture()?;
            for child in ["net4", "net6"] {
                pair.a.swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
            }
            pair.b.wait_for("both children", SOON, |sas| sas.iter().any(|sa| sa.carries(&["net4", "net6"])))?;
            for family in FAMILIES {
                let (source, target) = (lab.a.host_address(family), lab.b.host_address(family));
                ensure!(ping::ping(&lab.a.host, source, target, 5, ping::PATIENCE)? == 5, "{family:?} ping");
            }
            let [at_a, at_b] = capture.finish()?;
            for captured in [at_a, at_b] {
                ensure!(captured.missed() == 0 && captured.counts.clear == 0, "{}", captured.counts);
                ensure!(captured.counts.udp_esp >= 20 && captured.counts.ike >= 4, "{}", captured.counts);
            }
            Ok(())
        },
    )
}

fn charon_to_charon_behind_nat() -> Result<()> {
    let change = |side, tunnel: lab::peer::conf::Tunnel| match side {
        Side::A => tunnel,
        Side::B => lab::peer::conf::Tunnel { remote: "%any".into(), ..tunnel },
    };
    with_pair(&Middle::NatBeforeA, [&Charon, &Charon], change, |lab, pair| {
        pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"])?;
        let sas = pair.b.wait_for("net4", SOON, |sas| sas.iter().any(|sa| sa.carries(&["net4"])))?;
        ensure!(
            sas.iter().all(|sa| sa.remote_host != lab.a.outer_address(Family::V4).to_string()),
            "no translation: {sas:?}"
        );
        let (source, target) = (lab.b.host_address(Family::V4), lab.a.host_address(Family::V4));
        ensure!(ping::ping(&lab.b.host, source, target, 5, ping::PATIENCE)? == 5, "ping");
        Ok(())
    })
}
