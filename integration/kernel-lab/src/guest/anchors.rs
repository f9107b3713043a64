//! A defect of the kernel that the backend works around, shown without the backend: SAs of software hide those of a device.

use anyhow::{Context, ensure};
use lab::topology::Family;
use libtest_mimic::Trial;

use crate::bench::{Pair, WIRE, ip, trial};

/// A key of AES-128 with its salt, for `ip xfrm`.
const AEAD: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";
const ENDS: [&str; 2] = ["nic0a", "nic0b"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("anchors::what_software_holds_hides_what_a_device_holds", || hides(false)),
        trial("anchors::behind_a_state_of_software_that_was_there_first_it_hides_nothing", || hides(true)),
    ]
}

/// Two places joined by the test NIC; both ends go back in the end.
struct Nic(Pair);

impl Nic {
    fn new() -> anyhow::Result<Self> {
        let nic = Self(Pair::apart()?);
        for (place, end) in [&nic.0.a, &nic.0.b].into_iter().zip(ENDS) {
            lab::netns::command("ip", &["link", "set", end, "netns", place.name(), "name", WIRE])
                .context("the test NIC")?;
        }
        nic.0.join()?;
        Ok(nic)
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        for (place, end) in [&self.0.a, &self.0.b].into_iter().zip(ENDS) {
            let _ = place.ip(&["link", "set", WIRE, "down", "name", end, "netns", "1"]);
        }
    }
}

/// A device of A holds SAs and policies; B does the same in software.
fn hides(anchored: bool) -> anyhow::Result<()> {
    let nic = Nic::new()?;
    let Pair { a, b } = &nic.0;
    let (here, there) = Pair::addresses(Family::V4);
    let state = |from, to, spi: u32, more: &str| {
        format!("xfrm state add src {from} dst {to} proto esp spi {spi:#x} reqid 7 mode transport {AEAD} {more}")
    };
    let policy = |from, to, way, more: &str| {
        let template = format!("tmpl src {from} dst {to} proto esp reqid 7 mode transport");
        format!("xfrm policy add src {from} dst {to} dir {way} priority 100 {template} {more}")
    };
    for line in [state(here, there, 0x1001, ""), state(there, here, 0x1002, "")] {
        ip(b, &line)?;
    }
    ip(b, &policy(here, there, "in", ""))?;
    ip(b, &policy(there, here, "out", ""))?;
    if anchored {
        ip(a, &state(there, here, 0x1003, ""))?;
    }
    let device = |way| format!("offload packet dev {WIRE} dir {way}");
    ip(a, &state(here, there, 0x1001, &device("out")))?;
    ip(a, &state(there, here, 0x1002, &format!("replay-window 32 {}", device("in"))))?;
    let device = format!("offload packet dev {WIRE}");
    ip(a, &policy(here, there, "out", &device))?;
    ip(a, &policy(there, here, "in", &device))?;
    let answered = nic.0.ping(Family::V4, 3)?;
    ensure!(answered == 3, "{answered} of 3 echo requests answered over the device");
    // As of another child of the same peer, or of another daemon.
    ip(a, &state(here, there, 0x1004, ""))?;
    let answered = nic.0.ping(Family::V4, 3)?;
    let expected = if anchored { 3 } else { 0 };
    ensure!(answered == expected, "with an SA of software beside it {answered} of 3 echo requests answered");
    Ok(())
}
