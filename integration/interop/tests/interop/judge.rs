//! ESP as others see it: scapy opens what our datapath seals and seals what it must open; static SAs between two of our datapaths.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipsec::{EspEncryption, Spi};
use lab::frame::ETHERNET;
use lab::packet::PacketSocket;
use lab::process::{uninterrupted, wait_until};
use lab::relay::Profile;
use lab::topology::{FAMILIES, Family, Lab, Middle, OUTER, Side};
use lab::traffic::{bulk, ping, stream};
use libtest_mimic::Trial;

use crate::datapath::{Agreement, Datapath, pair};
use crate::harness::{SOON, trial};

/// Debian's interpreter, for Debian's scapy.
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("judge.py");
/// Packets in each direction.
const PACKETS: usize = 50;
const GCM: EspEncryption = EspEncryption::AesGcm16(128);

pub(crate) fn trials() -> Vec<Trial> {
    let cases = [
        ("native_v4_aes_gcm", Agreement::new(GCM, Family::V4)),
        (
            "native_v6_aes_gcm_256_esn",
            Agreement { esn: true, ..Agreement::new(EspEncryption::AesGcm16(256), Family::V6) },
        ),
        ("native_v4_chacha20", Agreement::new(EspEncryption::ChaCha20Poly1305, Family::V4)),
        (
            "native_v6_chacha20_esn",
            Agreement { esn: true, ..Agreement::new(EspEncryption::ChaCha20Poly1305, Family::V6) },
        ),
        ("in_udp_v4_aes_gcm", Agreement { in_udp: true, ..Agreement::new(GCM, Family::V4) }),
        (
            "esn_past_the_wrap",
            Agreement { esn: true, initial_sequence: (1 << 32) + 5, ..Agreement::new(GCM, Family::V4) },
        ),
    ];
    let mut trials: Vec<Trial> = Vec::new();
    for (name, agreement) in cases {
        trials.push(trial(format!("judge::scapy_opens::{name}"), move || scapy_opens(&agreement)));
        trials.push(trial(format!("judge::scapy_seals::{name}"), move || scapy_seals(&agreement)));
    }
    trials.push(trial("judge::static_sas_carry_everything", static_sas_carry_everything));
    trials.push(trial("judge::oversize_packets_arrive", oversize_packets_arrive));
    trials.push(trial("judge::esn_crosses_the_wrap_under_loss", esn_crosses_the_wrap_under_loss));
    trials
}

/// The peer's inbound SPI where the peer is a script.
fn foreign_spi() -> Result<Spi> {
    Spi::new(0x00c0_ffee).context("a legal SPI")
}

fn scapy_opens(agreement: &Agreement) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let datapath = Datapath::start(&lab, Side::A, agreement)?;
    datapath.install(&lab, agreement, foreign_spi()?)?;
    let capture = lab.capture()?;
    let sent = || lab.a.gateway.frame_counts(OUTER).map(|(_, sent)| sent);
    let before = sent()?;
    for family in FAMILIES {
        let sender = lab.a.host.run(|| UdpSocket::bind(SocketAddr::new(lab.a.host_address(family), 0)))??;
        for number in 0..PACKETS {
            sender.send_to(
                format!("packet {number:04}").as_bytes(),
                SocketAddr::new(lab.b.host_address(family), 9_999),
            )?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    wait_until(SOON, || sent().is_ok_and(|now| now >= before + 2 * PACKETS as u64));
    let [captured, _] = capture.finish()?;
    ensure!(captured.counts.clear == 0, "{}", captured.counts);
    let file = lab.directory().join("sealed.pcap");
    captured.write_pcap(&file)?;
    let said = python(agreement, Side::A, foreign_spi()?, "open", &file, &lab)?;
    let expected = format!("opened {} packets", 2 * PACKETS);
    ensure!(said.contains(&expected), "{said}\n{}\ndropped: {}", captured.counts, datapath.drops());
    Ok(())
}

fn scapy_seals(agreement: &Agreement) -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let datapath = Datapath::start(&lab, Side::A, agreement)?;
    datapath.install(&lab, agreement, foreign_spi()?)?;
    let file = lab.directory().join("sealed.hex");
    python(agreement, Side::B, datapath.inbound_spi(), "seal", &file, &lab)?;
    let listeners =
        FAMILIES.map(|family| lab.a.host.run(|| UdpSocket::bind(SocketAddr::new(lab.a.host_address(family), 9_999))));
    let socket = PacketSocket::open(&lab.b.gateway, OUTER)?;
    let mut thrown = 0;
    for line in fs::read_to_string(&file)?.lines() {
        let packet = from_hex(line)?;
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend_from_slice(&lab.a.outer_mac());
        frame.extend_from_slice(&lab.b.outer_mac());
        frame.extend_from_slice(if packet.first().is_some_and(|first| first >> 4 == 4) {
            &[0x08, 0x00]
        } else {
            &[0x86, 0xdd]
        });
        frame.extend_from_slice(&packet);
        socket.send(&frame)?;
        thrown += 1;
    }
    ensure!(thrown == 2 * PACKETS, "scapy sealed {thrown} packets");
    for listener in listeners {
        let listener = listener??;
        listener.set_read_timeout(Some(SOON))?;
        let mut buffer = [0; 64];
        for number in 0..PACKETS {
            let length = uninterrupted(|| listener.recv(&mut buffer))
                .with_context(|| format!("packet {number}; dropped: {}", datapath.drops()))?;
            ensure!(buffer.get(..length) == Some(format!("packet {number:04}").as_bytes()), "packet {number} differs");
        }
    }
    Ok(())
}

/// Runs the judge; `sender` says whose key and addresses the SA has.
fn python(agreement: &Agreement, sender: Side, spi: Spi, task: &str, file: &Path, lab: &Lab) -> Result<String> {
    let (from, to) = (lab.site(sender), lab.site(sender.other()));
    let cipher = match agreement.encryption {
        EspEncryption::AesGcm16(_) => "AES-GCM",
        EspEncryption::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        EspEncryption::AesCbc(_) => bail!("not carried by the datapath"),
    };
    let key: String = agreement.key(sender).iter().map(|octet| format!("{octet:02x}")).collect();
    let mut command = Command::new(PYTHON);
    command.args(["-c", SCRIPT, task, cipher, &key]).arg(spi.get().to_string());
    command.arg(from.outer_address(agreement.outer).to_string()).arg(to.outer_address(agreement.outer).to_string());
    command
        .arg(agreement.initial_sequence.to_string())
        .arg(u8::from(agreement.esn).to_string())
        .arg(u8::from(agreement.in_udp).to_string());
    for family in FAMILIES {
        command.arg(from.host_address(family).to_string()).arg(to.host_address(family).to_string());
    }
    let output = command.arg(PACKETS.to_string()).arg(file).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn from_hex(line: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = line.bytes().collect();
    digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

fn static_sas_carry_everything() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let capture = lab.capture()?;
    let datapaths = pair(&lab, &Agreement::new(GCM, Family::V4))?;
    for (side, family) in [Side::A, Side::B].into_iter().flat_map(|side| FAMILIES.map(|family| (side, family))) {
        let (from, to) = (lab.site(side), lab.site(side.other()));
        let answered = ping::ping(&from.host, from.host_address(family), to.host_address(family), 5, ping::PATIENCE)?;
        ensure!(
            answered == 5,
            "{side:?} {family:?}: {answered} of 5; dropped: {} / {}",
            datapaths[0].drops(),
            datapaths[1].drops()
        );
    }
    let load = |family| stream::Load { octets: 1_300, rate: 500.0, family };
    let report = stream::both_ways(&lab.a, &lab.b, &FAMILIES.map(load), Duration::from_secs(1))?;
    ensure!(report.is_clean(), "{report}");
    for captured in capture.finish()? {
        let counts = &captured.counts;
        ensure!(captured.missed() == 0 && counts.clear == 0 && counts.other == 0 && counts.ike == 0, "{counts}");
        ensure!(counts.esp == report.sent + 40, "{counts} for {} packets", report.sent + 40);
    }
    for family in FAMILIES {
        bulk::transfer(&lab.a, &lab.b, family, 16 << 20)?;
    }
    Ok(())
}

/// From 1,000 packets before the low half of the sequence number wraps to 2,000 behind it, under 2 % loss and reordering.
fn esn_crosses_the_wrap_under_loss() -> Result<()> {
    let path = Profile { delay: Duration::from_millis(2), reorder: 0.02, loss: 0.02, ..Profile::CLEAN };
    let lab = Lab::new(&Middle::Relay(path))?;
    let agreement = Agreement { esn: true, initial_sequence: (1 << 32) - 1_000, ..Agreement::new(GCM, Family::V4) };
    let datapaths = pair(&lab, &agreement)?;
    let load = stream::Load { octets: 300, rate: 1_500.0, family: Family::V4 };
    let streams = stream::start_both_ways(&lab.a, &lab.b, &[load])?;
    ensure!(wait_until(SOON, || streams.iter().all(|stream| stream.sent() >= 3_000)), "too little is sent");
    let report = stream::finish_all(streams)?;
    let tally = lab.relay.as_ref().context("a relay")?.tally();
    let drops = format!("{} / {}", datapaths[0].drops(), datapaths[1].drops());
    ensure!(report.sent >= 5_000 && report.reordered > 10, "{report}");
    ensure!(
        tally.dropped > 20 && report.lost <= tally.dropped,
        "{report}; the path dropped {}; datapaths: {drops}",
        tally.dropped
    );
    ensure!(report.duplicated == 0, "{report}");
    Ok(())
}

/// Datagrams that do not fit a tunnel packet: fragmented where that is allowed, signalled where not, and never in clear.
fn oversize_packets_arrive() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let capture = lab.capture()?;
    let datapaths = pair(&lab, &Agreement::new(GCM, Family::V4))?;
    for family in FAMILIES {
        let receiver = lab.b.host.run(|| UdpSocket::bind(SocketAddr::new(lab.b.host_address(family), 0)))??;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let sender = lab.a.host.run(|| UdpSocket::bind(SocketAddr::new(lab.a.host_address(family), 0)))??;
        let mut buffer = [0; 4_096];
        let mut received = 0;
        // The first ones may be spent on learning the path's MTU.
        for _ in 0..6 {
            // An error left on the socket by an ICMP message is part of the learning.
            let _ = sender.send_to(&[7; 3_000], receiver.local_addr()?);
            received += usize::from(uninterrupted(|| receiver.recv(&mut buffer)).is_ok_and(|length| length == 3_000));
        }
        ensure!(
            received >= 3,
            "{family:?}: {received} of 6; dropped: {} / {}",
            datapaths[0].drops(),
            datapaths[1].drops()
        );
    }
    for captured in capture.finish()? {
        ensure!(captured.counts.clear == 0 && captured.missed() == 0, "{}", captured.counts);
    }
    Ok(())
}
