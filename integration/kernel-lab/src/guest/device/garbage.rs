//! Frames that are none: cut, altered and made up, thrown at a device with SAs of every kind. The kernel of the guest panics at its first
//! mistake, and the lab fails with it.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::classify::Class;
use lab::frame::ETHERNET;
use lab::packet::PacketSocket;
use lab::random::Random;
use lab::topology::{Family, Side};
use libtest_mimic::Trial;

use crate::bench::trial;
use crate::wired::{By, DEVICE, SHAPES, Shape, Wired, spi_from};

/// Frames thrown for each shape.
const THROWS: usize = 3_000;

pub(super) fn trials() -> Vec<Trial> {
    [("packet", By::Packet), ("crypto", By::Crypto)]
        .map(|(name, by)| trial(&format!("nic::garbage::on_{name}_offload"), move || garbage(by)))
        .into()
}

fn garbage(by: By) -> Result<()> {
    let wired = Wired::new()?;
    let mut random = Random::new(0x0_6c61_6272);
    for shape in SHAPES {
        wired.protect(shape, [By::Software, by])?;
        let captured = wired.on_the_wire(&[], || wired.expect(shape, 4, 4, "before"))?;
        let from_a = captured.frames.iter().filter(|frame| frame.class == Class::Esp(spi_from(Side::A)));
        let good: Vec<Vec<u8>> = from_a.map(|frame| frame.octets.clone()).collect();
        ensure!(good.len() >= 4, "{} frames to start from", good.len());
        let socket = PacketSocket::open(&wired.a, DEVICE)?;
        let before = received(&wired)?;
        for frame in good.iter().cycle().take(THROWS) {
            let frame = altered(frame, &mut random);
            // The kernel refuses what is shorter than an Ethernet header.
            let _ = socket.send(&frame);
        }
        std::thread::sleep(Duration::from_millis(200));
        let thrown = received(&wired)? - before;
        ensure!(thrown > THROWS as u64 / 2, "the device saw only {thrown} of {THROWS} frames");
        wired.expect(shape, 4, 4, "afterwards")?;
        wired.clear()?;
    }
    let shape = Shape::Tunnel(Family::V4);
    wired.protect(shape, [By::Software, by])?;
    wired.expect(shape, 4, 4, "with fresh SAs")
}

/// What became of all that the device at B received.
fn received(wired: &Wired) -> Result<u64> {
    let counters = wired.nic.counters(Side::B)?;
    let of = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        (name.starts_with("rx_") || name.starts_with("drop_rx_")).then(|| value.parse::<u64>().unwrap_or_default())
    };
    Ok(counters.lines().filter_map(of).sum())
}

/// One to four changes: an octet, a length, a cut, a tail.
fn altered(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..=pick(random, 4) {
        let length = frame.len();
        match pick(random, 6) {
            0 => frame.truncate(ETHERNET + pick(random, length.saturating_sub(ETHERNET) + 1)),
            1 => frame.extend(std::iter::repeat_n(0x5a, pick(random, 64))),
            // The IP header: its length, fragmentation, protocol.
            2 => set(&mut frame, ETHERNET + pick(random, 12), pick(random, 256)),
            // The ESP header, or a transport header in its place.
            3 => set(&mut frame, ETHERNET + 20 + pick(random, 32), pick(random, 256)),
            // The trailer and the ICV.
            4 => set(&mut frame, length.saturating_sub(1 + pick(random, 24)), pick(random, 256)),
            _ => set(&mut frame, ETHERNET + pick(random, length.max(ETHERNET + 1) - ETHERNET), pick(random, 256)),
        }
    }
    frame
}

fn pick(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).unwrap_or_default()
}

fn set(frame: &mut [u8], at: usize, value: usize) {
    if let Some(octet) = frame.get_mut(at) {
        *octet = u8::try_from(value).unwrap_or_default();
    }
}
