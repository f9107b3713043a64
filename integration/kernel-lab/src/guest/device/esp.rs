//! ESP of the device: against software and against itself, replay, sequence numbers, encapsulation, sizes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipsec::sa::HeaderCopy;
use ipsec::{Direction, EspAlgorithm, KeyMaterial, Reqid, SaMode, Spi, Tags};
use lab::classify::Class;
use lab::frame::{ETHERNET, udp};
use lab::packet::PacketSocket;
use lab::process::wait_until;
use lab::topology::{Family, Side};
use lab::traffic::ping::ping;
use libtest_mimic::Trial;
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{DeviceOffload, KernelLimits, NewState, StateId, Xfrm};

use crate::bench::{ip, trial};
use crate::wired::{By, DEVICE, REQID, SHAPES, Shape, Wired, inner, outer, spi_from};

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("nic::esp::replayed_and_altered_packets_are_dropped", replayed_and_altered_packets_are_dropped),
        trial("nic::esp::sequence_numbers_do_not_cycle", sequence_numbers_do_not_cycle),
        trial("nic::esp::encapsulated_in_udp", encapsulated_in_udp),
        trial("nic::esp::inner_family_differs_inbound", inner_family_differs_inbound),
        trial("nic::esp::large_frames_and_too_large_ones", large_frames_and_too_large_ones),
        trial("nic::esp::fragments_and_options_are_not_offloaded", fragments_and_options_are_not_offloaded),
    ];
    let ends = [
        ("packet_and_software", [By::Packet, By::Software]),
        ("software_and_packet", [By::Software, By::Packet]),
        ("packet_and_packet", [By::Packet, By::Packet]),
        ("crypto_and_software", [By::Crypto, By::Software]),
        ("software_and_crypto", [By::Software, By::Crypto]),
        ("crypto_and_packet", [By::Crypto, By::Packet]),
    ];
    for (name, by) in ends {
        trials.push(trial(&format!("nic::esp::carries::{name}"), move || carries(by)));
        trials.push(trial(&format!("nic::esp::extended_sequence_numbers::{name}"), move || {
            extended_sequence_numbers(by)
        }));
    }
    trials
}

/// Every shape in both directions; the wire carries ESP and nothing in clear, and the ends that offload did it themselves.
fn carries(by: [By; 2]) -> Result<()> {
    let wired = Wired::new()?;
    for shape in SHAPES {
        wired.protect(shape, by)?;
        let before = counts(&wired, by)?;
        let protected = [inner(Side::A, Family::V4), inner(Side::A, Family::V6)];
        let captured = wired.on_the_wire(&protected, || wired.expect(shape, 5, 5, &format!("{shape:?}")))?;
        let seen = &captured.counts;
        ensure!(seen.esp >= 10 && seen.clear == 0 && seen.other == 0, "{shape:?}: the wire carried {seen}");
        for (before, after) in before.into_iter().zip(counts(&wired, by)?) {
            ensure!(
                after.iter().zip(before).all(|(after, before)| *after >= before + 5),
                "{shape:?}: counters went from {before:?} to {after:?}"
            );
        }
        wired.clear()?;
    }
    Ok(())
}

/// What the devices of the ends that offload have sent and received.
fn counts(wired: &Wired, by: [By; 2]) -> Result<Vec<[u64; 2]>> {
    let mut found = Vec::new();
    for (side, by) in [Side::A, Side::B].into_iter().zip(by) {
        let rung = match by {
            By::Software => continue,
            By::Crypto => "crypto",
            By::Packet => "packet",
        };
        found.push([wired.counter(side, &format!("tx_{rung}"))?, wired.counter(side, &format!("rx_{rung}"))?]);
    }
    Ok(found)
}

/// Sequence numbers go past 2^32 in both directions. `ip` cannot say ESN of an outbound SA with a direction, so the SAs come from the kernel
/// backend's own layer.
fn extended_sequence_numbers(by: [By; 2]) -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Tunnel(Family::V4);
    for (at, by) in [Side::A, Side::B].into_iter().zip(by) {
        for from in [Side::A, Side::B] {
            add_extended(&wired, at, from, by)?;
            wired.add_policy(at, from, shape, by, "")?;
        }
    }
    wired.expect(shape, 8, 8, "across 2^32")?;
    for (side, by) in [Side::A, Side::B].into_iter().zip(by) {
        if by == By::Packet {
            for from in [Side::A, Side::B] {
                let line = wired.sa_line(side, spi_from(from))?;
                ensure!(line.contains(" esn=1 ") && line.contains(" seq=4294967300 "), "at {side:?}: {line}");
            }
        }
    }
    Ok(())
}

fn add_extended(wired: &Wired, at: Side, from: Side, by: By) -> Result<()> {
    let key = KeyMaterial::new(&[7; 20], None);
    let place = wired.place(at);
    let index = ip(place, &format!("-o link show dev {DEVICE}"))?;
    let index = index.split(':').next().and_then(|text| text.trim().parse().ok()).context("no interface index")?;
    let offload = match by {
        By::Software => None,
        By::Crypto => Some(DeviceOffload { link: index, packet: false }),
        By::Packet => Some(DeviceOffload { link: index, packet: true }),
    };
    let is_out = at == from;
    let state = NewState {
        id: StateId {
            destination: outer(from.other(), Family::V4),
            spi: Spi::new(spi_from(from)).context("a reserved SPI")?,
            mark: None,
        },
        source: outer(from, Family::V4),
        direction: if is_out { Direction::Outbound } else { Direction::Inbound },
        reqid: Reqid(REQID),
        mode: SaMode::Tunnel,
        algorithm: EspAlgorithm::AES_128_GCM,
        key: &key,
        esn: true,
        replay_window: if is_out { 0 } else { 64 },
        initial_sequence: u64::from(u32::MAX) - 3,
        encapsulation: None,
        original_source: None,
        copy: HeaderCopy::default(),
        tags: Tags::NONE,
        limits: KernelLimits::default(),
        offload,
        cpu: None,
        nat_keepalive: None,
        selector: None,
    };
    place.run(|| KernelXfrm::open().map(|mut xfrm| xfrm.add_state(&state)))???;
    Ok(())
}

/// Frames of a tunnel, sent a second time and with an octet changed: the device at B takes neither, and tells the kernel of both.
fn replayed_and_altered_packets_are_dropped() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Tunnel(Family::V4);
    wired.protect(shape, [By::Software, By::Packet])?;
    let captured = wired.on_the_wire(&[], || wired.expect(shape, 3, 3, "before the attack"))?;
    let from_a = captured.frames.iter().filter(|frame| frame.class == Class::Esp(spi_from(Side::A)));
    let frames: Vec<Vec<u8>> = from_a.map(|frame| frame.octets.clone()).collect();
    ensure!(frames.len() == 3, "{} frames from A", frames.len());
    let socket = PacketSocket::open(&wired.a, DEVICE)?;
    let grows = |name: &str, frames: &[Vec<u8>]| -> Result<()> {
        let before = wired.counter(Side::B, name)?;
        for frame in frames {
            socket.send(frame)?;
        }
        let all = before + frames.len() as u64;
        let counted = wait_until(Duration::from_secs(2), || wired.counter(Side::B, name).is_ok_and(|now| now == all));
        ensure!(counted, "{name} went from {before} to {}", wired.counter(Side::B, name)?);
        Ok(())
    };
    grows("drop_rx_replay", &frames)?;
    let altered: Vec<Vec<u8>> = frames.iter().enumerate().map(|(index, frame)| altered(frame, index)).collect();
    grows("drop_rx_auth", &altered)?;
    let state = ip(&wired.b, "-s xfrm state")?;
    let told = state.contains("replay 3 failed 3");
    ensure!(told, "the kernel was not told of the drops:\n{state}");
    wired.expect(shape, 3, 3, "after the attack")
}

/// The same packet with a sequence number that has not been used: its ICV no longer fits.
fn altered(frame: &[u8], index: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(low) = frame.get_mut(14 + 20 + 7) {
        *low = 200 + u8::try_from(index).unwrap_or_default();
    }
    frame
}

/// Without ESN an SA ends at 2^32-1: what comes after is dropped (RFC 4303 §3.3.3).
fn sequence_numbers_do_not_cycle() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Transport(Family::V4);
    wired.add_sa(Side::A, Side::A, shape, By::Packet, "replay-oseq 0xfffffffc")?;
    wired.add_policy(Side::A, Side::A, shape, By::Packet, "")?;
    wired.add_sa(Side::A, Side::B, shape, By::Packet, "")?;
    wired.add_policy(Side::A, Side::B, shape, By::Packet, "")?;
    wired.protect_end(Side::B, shape, By::Software, "")?;
    let dropped = wired.growth(Side::A, "drop_tx_sequence", || wired.expect(shape, 5, 3, "with three numbers left"))?;
    ensure!(dropped == 2, "{dropped} packets were dropped for want of a number");
    let line = wired.sa_line(Side::A, spi_from(Side::A))?;
    ensure!(line.contains(" seq=4294967295 "), "{line}");
    Ok(())
}

/// ESP in UDP in transport mode; bare ESP of such an SA is not taken.
fn encapsulated_in_udp() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Transport(Family::V4);
    for side in [Side::A, Side::B] {
        wired.protect_end(side, shape, By::Packet, "encap espinudp 4500 4500 0.0.0.0")?;
    }
    let captured = wired.on_the_wire(&[], || wired.expect(shape, 4, 4, "in UDP"))?;
    let seen = &captured.counts;
    ensure!(seen.udp_esp == 8 && seen.esp == 0 && seen.other == 0, "the wire carried {seen}");
    Ok(())
}

/// IPv6 in IPv4 and IPv4 in IPv6, towards the device: outbound the kernel itself has no route for such a tunnel with packet offload.
fn inner_family_differs_inbound() -> Result<()> {
    let wired = Wired::new()?;
    for (outside, inside) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let tunnel = Shape::Tunnel(outside);
        for at in [Side::A, Side::B] {
            let by = if at == Side::A { By::Software } else { By::Packet };
            wired.add_sa(at, Side::A, tunnel, by, "flag af-unspec")?;
            let way = if at == Side::A { "out" } else { "in" };
            let (from, to) = (inner(Side::A, inside), inner(Side::B, inside));
            let offload = if at == Side::A { String::new() } else { format!("offload packet dev {DEVICE}") };
            ip(
                wired.place(at),
                &format!(
                    "xfrm policy add src {from} dst {to} dir {way} priority 100 {offload} tmpl src {} dst {} proto esp reqid {REQID} \
                     mode tunnel",
                    outer(Side::A, outside),
                    outer(Side::B, outside)
                ),
            )?;
        }
        // The answers come back in clear: B has no policy for them, and A none that would refuse them.
        let answered = ping(&wired.a, inner(Side::A, inside), inner(Side::B, inside), 3, Duration::from_millis(500))?;
        ensure!(answered == 3, "{inside:?} in {outside:?}: {answered} of 3 echo requests answered");
        let line = wired.sa_line(Side::B, spi_from(Side::A))?;
        ensure!(line.contains(" packets=3 "), "{line}");
        wired.clear()?;
    }
    Ok(())
}

/// Frames of 9000 octets pass. A packet that fits the link but not once it is protected is dropped by the kernel, which knows the SA's overhead; the
/// sender is told.
fn large_frames_and_too_large_ones() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Transport(Family::V4);
    wired.protect(shape, [By::Packet, By::Packet])?;
    let sizes = |octets: u16| -> Result<bool> {
        let to = outer(Side::B, Family::V4).to_string();
        Ok(wired
            .a
            .command("busybox", &["ping", "-c", "2", "-W", "1", "-s", &octets.to_string(), &to])
            .is_ok_and(|text| text.contains(" 2 packets received")))
    };
    ensure!(sizes(1_400)?, "1400 octets did not pass an MTU of 1500");
    ensure!(!sizes(1_471)?, "1471 octets passed an MTU of 1500 with ESP around them");
    for side in [Side::A, Side::B] {
        ip(wired.place(side), &format!("link set {DEVICE} mtu 9000"))?;
    }
    ensure!(sizes(8_900)?, "8900 octets did not pass an MTU of 9000");
    Ok(())
}

/// What hardware does not offload is dropped, by the kernel where it knows and by the device otherwise: nothing falls back to software or leaves in clear.
fn fragments_and_options_are_not_offloaded() -> Result<()> {
    let wired = Wired::new()?;
    let shape = Shape::Transport(Family::V4);
    wired.protect(shape, [By::Packet, By::Software])?;
    let to = outer(Side::B, Family::V4).to_string();
    let socket = PacketSocket::open(&wired.a, DEVICE)?;
    let captured = wired.on_the_wire(&[], || {
        // Fragments of the kernel's own making.
        let _ = wired.a.command("busybox", &["ping", "-c", "2", "-W", "1", "-s", "3000", &to]);
        // What the kernel would not have let through.
        for (frame, reason) in [(fragment(), "drop_tx_fragment"), (with_option(), "drop_tx_options")] {
            let dropped = wired.growth(Side::A, reason, || Ok(socket.send(&frame)?))?;
            ensure!(dropped == 1, "{reason} grew by {dropped}");
        }
        Ok(())
    })?;
    ensure!(captured.counts.esp == 0 && captured.counts.other == 0, "the wire carried {}", captured.counts);
    wired.expect(shape, 3, 3, "an ordinary packet afterwards")
}

/// A datagram from A to B.
fn datagram() -> Vec<u8> {
    let address = |side| SocketAddr::new(outer(side, Family::V4), 4_000);
    udp([2; 6], [2; 6], address(Side::A), address(Side::B), b"no offload")
}

/// The same with the flag that more fragments follow.
fn fragment() -> Vec<u8> {
    let mut frame = datagram();
    if let Some(flags) = frame.get_mut(ETHERNET + 6) {
        *flags = 0x20;
    }
    frame
}

/// The same with a router alert (RFC 2113).
fn with_option() -> Vec<u8> {
    let mut frame = datagram();
    if let Some([version, _, _, length, ..]) = frame.get_mut(ETHERNET..) {
        (*version, *length) = (0x46, *length + 4);
    }
    frame.splice(ETHERNET + 20..ETHERNET + 20, [0x94, 4, 0, 0]);
    frame
}
