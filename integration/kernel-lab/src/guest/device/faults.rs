//! What goes wrong with hardware: links, lost tables, leaks, a driver that goes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::netns::command;
use lab::process::wait_until;
use lab::topology::{Family, Side};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::wired::{By, DEVICE, Shape, Wired, inner, outer, spi_from};

const SHAPE: Shape = Shape::Transport(Family::V4);
const TUNNEL: Shape = Shape::Tunnel(Family::V4);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("nic::faults::a_device_that_goes_down_loses_all", a_device_that_goes_down_loses_all),
        trial("nic::faults::a_carrier_that_goes_loses_nothing", a_carrier_that_goes_loses_nothing),
        trial("nic::faults::lost_sas_drop_and_lost_policies_leak", lost_sas_drop_and_lost_policies_leak),
        trial("nic::faults::a_leak_shows_on_the_wire", a_leak_shows_on_the_wire),
        trial("nic::faults::the_driver_goes_with_live_sas", the_driver_goes_with_live_sas),
        trial("nic::faults::another_namespace_loses_all", another_namespace_loses_all),
    ]
}

/// Nothing of the device is left in the kernel, which does not say so.
fn nothing_is_left(wired: &Wired, side: Side) -> Result<()> {
    let place = wired.place(side);
    let left = format!("{}{}", ip(place, "xfrm state")?, ip(place, "xfrm policy")?);
    ensure!(left.trim().is_empty(), "still there:\n{left}");
    ensure!(wired.nic.tables(side)?.is_empty(), "still in the device:\n{}", wired.nic.tables(side)?);
    Ok(())
}

/// The kernel deletes SAs and policies of a device that goes down, without a message; once it is up again packets leave in clear.
fn a_device_that_goes_down_loses_all() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Packet])?;
    wired.expect(SHAPE, 2, 2, "before")?;
    let monitor = wired.monitor(Side::A)?;
    wired.nic.turn(Side::A, "flap", "admin 200")?;
    nothing_is_left(&wired, Side::A)?;
    std::thread::sleep(Duration::from_millis(300));
    wired.up(Side::A)?;
    wired.wait_for_carrier()?;
    ensure!(monitor.output().is_empty(), "the kernel tells of it:\n{}", monitor.output());
    let captured = wired.on_the_wire(&[outer(Side::B, Family::V4)], || wired.expect(SHAPE, 2, 0, "after"))?;
    ensure!(captured.counts.clear >= 2, "the wire carried {}", captured.counts);
    // B's device still has its policies, and took none of it.
    ensure!(wired.counter(Side::B, "drop_rx_clear")? == 2, "B's device did not drop what came in clear");
    Ok(())
}

fn a_carrier_that_goes_loses_nothing() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Packet])?;
    wired.expect(SHAPE, 2, 2, "before")?;
    wired.nic.turn(Side::B, "flap", "carrier 500")?;
    wired.expect(SHAPE, 1, 0, "without carrier")?;
    wired.wait_for_carrier()?;
    wired.expect(SHAPE, 2, 2, "after")?;
    let line = wired.sa_line(Side::A, spi_from(Side::A))?;
    // The packet that found no carrier had been counted and numbered already.
    ensure!(line.contains(" packets=5 "), "{line}");
    Ok(())
}

/// A device that forgets, and keeps its link: the kernel still shows all. Without the SA the device drops; without the policy it leaks.
fn lost_sas_drop_and_lost_policies_leak() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Software])?;
    wired.nic.turn(Side::A, "reset", "sa")?;
    let dropped = wired.growth(Side::A, "drop_tx_no_sa", || wired.expect(SHAPE, 2, 0, "without SAs"))?;
    ensure!(dropped == 2, "{dropped} packets were dropped for want of an SA");
    let states = ip(&wired.a, "xfrm state")?;
    ensure!(states.matches("mode packet").count() == 2, "the kernel lost them as well:\n{states}");
    wired.nic.turn(Side::A, "reset", "policy")?;
    let captured =
        wired.on_the_wire(&[outer(Side::B, Family::V4)], || wired.expect(SHAPE, 2, 0, "without policies"))?;
    ensure!(captured.counts.clear >= 2 && captured.counts.esp == 0, "the wire carried {}", captured.counts);
    Ok(())
}

/// The judge of leaks can fail: the same capture sees nothing in clear from a good device, and everything from a broken one.
fn a_leak_shows_on_the_wire() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(TUNNEL, [By::Packet, By::Software])?;
    let protected = [inner(Side::A, Family::V4), inner(Side::B, Family::V4)];
    let seen = wired.on_the_wire(&protected, || wired.expect(TUNNEL, 4, 4, "a good device"))?.counts;
    ensure!(seen.clear == 0 && seen.esp == 8, "the wire carried {seen}");
    wired.nic.turn(Side::A, "leak", "Y")?;
    let seen = wired.on_the_wire(&protected, || wired.expect(TUNNEL, 4, 0, "a broken device"))?.counts;
    ensure!(seen.clear >= 4 && seen.esp == 0, "the wire carried {seen}");
    ensure!(wired.counter(Side::A, "tx_leaked")? == 4, "the device does not own up to it");
    Ok(())
}

/// `rmmod` with SAs, policies and a larval SA; afterwards the module works again.
fn the_driver_goes_with_live_sas() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(TUNNEL, [By::Packet, By::Packet])?;
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    let _monitor = wired.monitor(Side::A)?;
    wired.expect(SHAPE, 1, 0, "without an SA")?;
    wired.expect(TUNNEL, 2, 2, "with one")?;
    command("rmmod", &["cygnic"])?;
    let left = format!("{}{}", ip(&wired.a, "xfrm state")?, ip(&wired.a, "xfrm policy")?);
    let list = std::fs::read_to_string("/lab/modules")?;
    let line =
        list.lines().find(|line| line.starts_with("cygnic.ko")).context("the NIC is not in the list of modules")?;
    let mut words = vec!["/lab/modules.d/cygnic.ko"];
    words.extend(line.split_whitespace().skip(1));
    command("insmod", &words)?;
    drop(wired);
    ensure!(left.trim().is_empty(), "still there after the driver:\n{left}");
    let wired = Wired::new()?;
    wired.protect(TUNNEL, [By::Packet, By::Packet])?;
    wired.expect(TUNNEL, 2, 2, "with the new driver")
}

/// Moving a device to another namespace takes its SAs and policies away, too.
fn another_namespace_loses_all() -> Result<()> {
    let wired = Wired::new()?;
    wired.protect(SHAPE, [By::Packet, By::Software])?;
    let away = lab::netns::Namespace::new("wired-away")?;
    ip(&wired.a, &format!("link set {DEVICE} netns {}", away.name()))?;
    let empty = wait_until(Duration::from_secs(2), || nothing_is_left(&wired, Side::A).is_ok());
    ip(&away, &format!("link set {DEVICE} netns {}", wired.a.name()))?;
    ensure!(empty, "SAs or policies are left behind");
    Ok(())
}
