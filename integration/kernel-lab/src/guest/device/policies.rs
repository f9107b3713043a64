//! The device's policy table: protect, allow, block by priority, in both directions; acquires.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::process::wait_until;
use lab::topology::{Family, Side};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::wired::{By, DEVICE, REQID, Shape, Wired, outer};

const SHAPE: Shape = Shape::Transport(Family::V4);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("nic::policies::priorities_decide", priorities_decide),
        trial("nic::policies::ports_and_protocols_select", ports_and_protocols_select),
        trial("nic::policies::what_comes_in_clear_is_dropped", what_comes_in_clear_is_dropped),
        trial("nic::policies::an_sa_that_no_policy_names_brings_nothing", an_sa_that_no_policy_names_brings_nothing),
        trial("nic::policies::the_newest_sa_is_used", the_newest_sa_is_used),
        trial("nic::policies::acquire_from_an_offloaded_policy", acquire_from_an_offloaded_policy),
        trial("nic::policies::a_refused_larval_sa_makes_no_acquire", a_refused_larval_sa_makes_no_acquire),
    ]
}

/// A template-less policy from A to B, outbound at A.
fn plain_policy(wired: &Wired, priority: u32, words: &str) -> Result<String> {
    let (from, to) = (outer(Side::A, Family::V4), outer(Side::B, Family::V4));
    ip(
        &wired.a,
        &format!("xfrm policy add src {from} dst {to} {words} priority {priority} offload packet dev {DEVICE}"),
    )
}

/// Allow, block and protect between the same addresses: the lowest number decides, in the device as in the kernel.
fn priorities_decide() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Software])?;
    wired.expect(SHAPE, 2, 2, "protected")?;
    // The kernel tells policies of equal selectors apart by the selector's user only, which `ip` cannot say: these differ by protocol.
    plain_policy(&wired, 50, "proto udp dir out action block")?;
    let from = outer(Side::A, Family::V4);
    let to = outer(Side::B, Family::V4);
    let sender = wired.a.run(|| std::net::UdpSocket::bind((from, 0)))??;
    ensure!(sender.send_to(b"blocked", (to, 9)).is_err(), "the kernel let a packet of a blocking policy go");
    plain_policy(&wired, 40, "proto udp dport 9 dir out action allow")?;
    let captured = wired.on_the_wire(&[], || sender.send_to(b"allowed", (to, 9)).map(drop).map_err(Into::into))?;
    ensure!(captured.counts.other == 1 && captured.counts.esp == 0, "the wire carried {}", captured.counts);
    ensure!(wired.counter(Side::A, "tx_bypass")? > 0, "the device did not see the allowing policy");
    wired.expect(SHAPE, 2, 2, "still protected")
}

/// A policy for one port of UDP leaves all else alone.
fn ports_and_protocols_select() -> Result<()> {
    let wired = Wired::new()?;
    let (from, to) = (outer(Side::A, Family::V4), outer(Side::B, Family::V4));
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "")?;
    ip(
        &wired.a,
        &format!(
            "xfrm policy add src {from} dst {to} proto udp dport 7000 dir out priority 100 offload packet dev {DEVICE} tmpl src {from} \
             dst {to} proto esp reqid {REQID} mode transport"
        ),
    )?;
    let sender = wired.a.run(|| std::net::UdpSocket::bind((from, 0)))??;
    let captured = wired.on_the_wire(&[], || {
        for port in [7_000, 7_001] {
            sender.send_to(b"which one?", (to, port))?;
        }
        wired.expect(SHAPE, 1, 1, "another protocol")
    })?;
    let seen = &captured.counts;
    // One datagram, the echo request and its reply; B says that nobody listens on the port.
    ensure!(seen.esp == 1 && (3..=4).contains(&seen.other), "the wire carried {seen}");
    Ok(())
}

/// The kernel trusts the device to have dropped what should have been protected.
fn what_comes_in_clear_is_dropped() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect_end(Side::B, SHAPE, By::Packet, "")?;
    let dropped = wired.growth(Side::B, "drop_rx_clear", || wired.expect(SHAPE, 3, 0, "in clear"))?;
    ensure!(dropped == 3, "{dropped} packets in clear were dropped");
    // A device that leaves that to the kernel, which leaves it to the device.
    wired.nic.turn(Side::B, "accept_clear", "Y")?;
    let passed = wired.growth(Side::B, "rx_clear", || wired.ping(SHAPE, 3))?;
    ensure!(passed == 3, "{passed} packets in clear were accepted");
    wired.nic.turn(Side::B, "accept_clear", "N")?;
    // The device forgets its policies: now the same packets get through, since the kernel looks no further.
    wired.nic.turn(Side::B, "reset", "policy")?;
    let passed = wired.growth(Side::B, "rx_plain", || wired.ping(SHAPE, 3))?;
    ensure!(passed >= 3, "{passed} packets passed a device without policies");
    Ok(())
}

/// A tunnel's packets whose inner addresses no policy of the SA covers are dropped after decryption.
fn an_sa_that_no_policy_names_brings_nothing() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Tunnel(Family::V4);
    wired.protect_end(Side::A, shape, By::Software, "")?;
    wired.add_sa(Side::B, Side::A, shape, By::Packet, "")?;
    let dropped = wired.growth(Side::B, "drop_rx_policy", || wired.expect(shape, 2, 0, "without a policy"))?;
    ensure!(dropped == 2, "{dropped} packets without a policy were dropped");
    wired.add_policy(Side::B, Side::A, shape, By::Packet, "")?;
    let passed = wired.growth(Side::B, "rx_packet", || wired.ping(shape, 2))?;
    ensure!(passed == 2, "{passed} packets passed with a policy");
    Ok(())
}

/// Make before break: both SAs of a reqid are there, and the later one carries.
fn the_newest_sa_is_used() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Software])?;
    wired.expect(SHAPE, 2, 2, "the first SA")?;
    let (from, to) = (outer(Side::A, Family::V4), outer(Side::B, Family::V4));
    for (place, offload) in
        [(&wired.b, "replay-window 32".into()), (&wired.a, format!("offload packet dev {DEVICE} dir out"))]
    {
        let aead = "aead rfc4106(gcm(aes)) 0x101112131415161718191a1b1c1d1e1f20212223 128";
        ip(
            place,
            &format!(
                "xfrm state add src {from} dst {to} proto esp spi 0x2001 reqid {REQID} mode transport {aead} {offload}"
            ),
        )?;
    }
    wired.expect(SHAPE, 3, 3, "the second SA")?;
    let line = wired.sa_line(Side::A, 0x2001)?;
    ensure!(line.contains(" packets=3 "), "{line}");
    ip(&wired.a, &format!("xfrm state delete src {from} dst {to} proto esp spi 0x2001"))?;
    wired.expect(SHAPE, 2, 2, "the first SA again")
}

/// The first packet makes the kernel ask, with the policy's device in the message; the larval SA takes no entry of the device. It is lost, and
/// nothing leaves in clear.
fn acquire_from_an_offloaded_policy() -> Result<()> {
    let wired = Wired::new()?;
    wired.nic.turn(Side::A, "sa_table_size", "0")?;
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    let monitor = wired.monitor(Side::A)?;
    let captured = wired.on_the_wire(&[], || wired.expect(SHAPE, 2, 0, "without an SA"))?;
    ensure!(captured.counts.esp == 0 && captured.counts.other == 0, "the wire carried {}", captured.counts);
    let asked = wait_until(Duration::from_secs(3), || monitor.output().contains("acquire"));
    let said = monitor.output();
    ensure!(asked && said.contains(&format!("crypto offload parameters: dev {DEVICE} mode packet")), "{said}");
    ensure!(wired.counter(Side::A, "acquires")? > 0, "the device saw no larval SA");
    wired.nic.turn(Side::A, "sa_table_size", "10")?;
    // The SA that was asked for takes the larval one's place.
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "")?;
    wired.protect_end(Side::B, SHAPE, By::Software, "")?;
    wired.add_sa(Side::A, Side::B, SHAPE, By::Packet, "")?;
    wired.add_policy(Side::A, Side::B, SHAPE, By::Packet, "")?;
    wired.expect(SHAPE, 2, 2, "with the SA")
}

/// When the device takes no larval SA the kernel never asks: the packets are lost, and still not sent in clear.
fn a_refused_larval_sa_makes_no_acquire() -> Result<()> {
    let wired = Wired::new()?;
    wired.nic.turn(Side::A, "refuse_acquire", "Y")?;
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    let monitor = wired.monitor(Side::A)?;
    // The kernel refuses already when a socket is connected; a datagram of an unconnected one shows it as well.
    let sender = wired.a.run(|| std::net::UdpSocket::bind((outer(Side::A, Family::V4), 0)))??;
    let captured = wired.on_the_wire(&[], || {
        for _ in 0..3 {
            let sent = sender.send_to(b"nobody asks", (outer(Side::B, Family::V4), 9));
            ensure!(sent.is_err(), "the kernel took the packet");
        }
        Ok(())
    })?;
    ensure!(captured.counts.esp == 0 && captured.counts.other == 0, "the wire carried {}", captured.counts);
    ensure!(!monitor.output().contains("acquire"), "{}", monitor.output());
    Ok(())
}
