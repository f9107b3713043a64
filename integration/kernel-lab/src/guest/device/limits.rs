//! Limits: what the device counts, when the kernel hears of it, and what happens after the hard one.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::process::{Process, wait_until};
use lab::topology::{Family, Side};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::wired::{By, Shape, Wired, spi_from};

const SHAPE: Shape = Shape::Transport(Family::V4);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("nic::limits::packets_soft_once_and_hard_exactly", packets_soft_once_and_hard_exactly),
        trial("nic::limits::inbound_too", inbound_too),
        trial("nic::limits::octets_where_allowed", octets_where_allowed),
        trial("nic::limits::polled_counters_are_late_and_overrun", polled_counters_are_late_and_overrun),
        trial("nic::limits::forced_by_the_device", forced_by_the_device),
        trial("nic::limits::time_is_the_kernels", time_is_the_kernels),
    ]
}

/// Protects both ends, with limits for what A sends.
fn limited(wired: &Wired, limits: &str) -> Result<()> {
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, limits)?;
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    wired.add_sa(Side::A, Side::B, SHAPE, By::Packet, "")?;
    wired.add_policy(Side::A, Side::B, SHAPE, By::Packet, "")?;
    wired.protect_end(Side::B, SHAPE, By::Software, "")
}

/// How often the monitor told of a soft and of a hard limit of an SA.
fn told(monitor: &Process, spi: u32) -> [usize; 2] {
    let output = monitor.output();
    let spi = format!("spi {spi:#010x}");
    let mut found = [0, 0];
    for event in output.split("Expired ").skip(1).filter(|event| event.contains(&spi)) {
        let [soft, hard] = &mut found;
        *if event.contains("hard 1") { hard } else { soft } += 1;
    }
    found
}

fn tells(monitor: &Process, spi: u32, expected: [usize; 2]) -> Result<()> {
    wait_until(Duration::from_secs(3), || told(monitor, spi) == expected);
    let found = told(monitor, spi);
    ensure!(found == expected, "soft and hard were told {found:?} times, not {expected:?}:\n{}", monitor.output());
    Ok(())
}

/// The kernel has the SA no longer.
fn is_gone(wired: &Wired, side: Side, spi: u32) -> Result<()> {
    let states = ip(wired.place(side), "xfrm state")?;
    ensure!(!states.contains(&format!("spi {spi:#010x}")), "the expired SA is still there:\n{states}");
    Ok(())
}

/// Soft at 5, hard at 10: ten packets, one soft and one hard event, then nothing but an acquire.
fn packets_soft_once_and_hard_exactly() -> Result<()> {
    let wired = Wired::new()?;
    let spi = spi_from(Side::A);
    limited(&wired, "limit packet-soft 5 limit packet-hard 10")?;
    let monitor = wired.monitor(Side::A)?;
    wired.expect(SHAPE, 4, 4, "below the soft limit")?;
    tells(&monitor, spi, [0, 0])?;
    wired.expect(SHAPE, 3, 3, "across the soft limit")?;
    tells(&monitor, spi, [1, 0])?;
    wired.expect(SHAPE, 5, 3, "across the hard limit")?;
    tells(&monitor, spi, [1, 1])?;
    is_gone(&wired, Side::A, spi)?;
    let asked = wait_until(Duration::from_secs(3), || monitor.output().contains("acquire"));
    ensure!(asked, "no acquire after the hard limit:\n{}", monitor.output());
    Ok(())
}

fn inbound_too() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect_end(Side::A, SHAPE, By::Software, "")?;
    wired.add_sa(Side::B, Side::A, SHAPE, By::Packet, "limit packet-soft 2 limit packet-hard 4")?;
    wired.add_policy(Side::B, Side::A, SHAPE, By::Packet, "")?;
    wired.add_sa(Side::B, Side::B, SHAPE, By::Packet, "")?;
    wired.add_policy(Side::B, Side::B, SHAPE, By::Packet, "")?;
    let monitor = wired.monitor(Side::B)?;
    wired.expect(SHAPE, 6, 4, "with an inbound limit of 4")?;
    tells(&monitor, spi_from(Side::A), [1, 1])?;
    is_gone(&wired, Side::B, spi_from(Side::A))
}

/// Octets are those of the protected packet without its outer IP header: 64 of the echo request, 8 ESP header, 8 IV, 4 trailer, 16 ICV.
fn octets_where_allowed() -> Result<()> {
    let wired = Wired::new()?;
    let spi = spi_from(Side::A);
    wired.nic.turn(Side::A, "byte_limits", "Y")?;
    limited(&wired, "limit byte-soft 300 limit byte-hard 500")?;
    let monitor = wired.monitor(Side::A)?;
    wired.expect(SHAPE, 1, 1, "one packet")?;
    let states = ip(&wired.a, "-s xfrm state")?;
    ensure!(states.contains("100(bytes), 1(packets)"), "the kernel counts otherwise:\n{states}");
    wired.expect(SHAPE, 1, 1, "200 octets")?;
    tells(&monitor, spi, [0, 0])?;
    wired.expect(SHAPE, 1, 1, "300 octets")?;
    tells(&monitor, spi, [1, 0])?;
    wired.expect(SHAPE, 4, 2, "up to 500 octets")?;
    tells(&monitor, spi, [1, 1])
}

/// Counters that the kernel sees late, as with hardware that polls them: it is told late, and more passes than the hard limit says.
fn polled_counters_are_late_and_overrun() -> Result<()> {
    let wired = Wired::new()?;
    let spi = spi_from(Side::A);
    limited(&wired, "limit packet-soft 5 limit packet-hard 10")?;
    let monitor = wired.monitor(Side::A)?;
    wired.nic.turn(Side::A, "stats_delay_ms", "60000")?;
    wired.expect(SHAPE, 14, 14, "before the device has looked")?;
    tells(&monitor, spi, [0, 0])?;
    wired.nic.turn(Side::A, "stats_delay_ms", "100")?;
    tells(&monitor, spi, [0, 1])?;
    is_gone(&wired, Side::A, spi)?;
    wired.expect(SHAPE, 2, 0, "after the device has looked")
}

/// The device itself says that an SA is at its limit.
fn forced_by_the_device() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Software])?;
    let monitor = wired.monitor(Side::A)?;
    let (out, inbound) = (spi_from(Side::A), spi_from(Side::B));
    wired.nic.turn(Side::A, "force_expire", &format!("{out:#x} soft"))?;
    tells(&monitor, out, [1, 0])?;
    wired.expect(SHAPE, 3, 3, "after a soft limit")?;
    wired.nic.turn(Side::A, "force_expire", &format!("{inbound:#x} hard"))?;
    tells(&monitor, inbound, [0, 1])?;
    is_gone(&wired, Side::A, inbound)?;
    ensure!(wired.nic.turn(Side::A, "force_expire", "0x7777 soft").is_err(), "an SA that is not there expired");
    // What comes for the SA that is gone finds neither the device nor the kernel.
    wired.expect(SHAPE, 2, 0, "after a hard limit")
}

/// Limits of time are kept by the kernel, whatever the device does.
fn time_is_the_kernels() -> Result<()> {
    let wired = Wired::new()?;
    limited(&wired, "limit time-soft 1 limit time-hard 3")?;
    let monitor = wired.monitor(Side::A)?;
    wired.expect(SHAPE, 1, 1, "at first")?;
    tells(&monitor, spi_from(Side::A), [1, 0])?;
    std::thread::sleep(Duration::from_secs(2));
    tells(&monitor, spi_from(Side::A), [1, 1])?;
    is_gone(&wired, Side::A, spi_from(Side::A))
}
