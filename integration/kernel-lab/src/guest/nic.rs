//! The test NIC: a pair of its devices, put into places and brought home afterwards; its knobs, counters and tables.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::capture::Capture;
use lab::classify::Prefix;
use lab::netns::{Namespace, command};
use lab::process::wait_until;
use lab::topology::Side;

const KNOBS: &str = "/sys/kernel/debug/cygnic";
/// Every knob with its value before anybody turns it.
const DEFAULTS: [(&str, &str); 11] = [
    ("sa_table_size", "4096"),
    ("policy_table_size", "4096"),
    ("refuse_next", "\n"),
    ("no_esn", "N"),
    ("byte_limits", "N"),
    ("packet_limits", "Y"),
    ("udp_encap", "Y"),
    ("any_protocol", "N"),
    ("refuse_acquire", "N"),
    ("leak", "N"),
    ("accept_clear", "N"),
];

/// What the devices offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// SAs and policies whole.
    Packet,
    /// Cryptography only.
    Crypto,
    /// Nothing.
    None,
}

/// Both devices of a pair and the tap on their wire.
pub(crate) struct Nic {
    number: usize,
    tap: Namespace,
    /// Where each end is now, and its name there.
    places: [Option<(String, String)>; 2],
}

impl Nic {
    /// Takes a pair and turns all its knobs to where they are at first.
    pub(crate) fn take(number: usize, mode: Mode) -> Result<Self> {
        let tap = Namespace::new(&format!("tap{number}"))?;
        let nic = Nic { number, tap, places: [None, None] };
        for side in [Side::A, Side::B] {
            let home = || fs::exists(format!("/sys/class/net/{}", nic.name(side))).unwrap_or(false);
            ensure!(wait_until(Duration::from_secs(5), home), "{} is not there", nic.name(side));
            for (knob, value) in DEFAULTS {
                nic.turn(side, knob, value)?;
            }
            nic.turn(side, "stats_delay_ms", "0")?;
            nic.to_mode(side, mode)?;
        }
        let wire = nic.wire();
        command("ip", &["link", "set", wire.as_str(), "netns", nic.tap.name()])?;
        nic.tap.ip(&["link", "set", &wire, "up"])?;
        Ok(nic)
    }

    /// Puts an end into a place, under a name.
    pub(crate) fn put(&mut self, side: Side, place: &Namespace, name: &str) -> Result<()> {
        let device = self.name(side);
        command("ip", &["link", "set", device.as_str(), "netns", place.name(), "name", name])?;
        *self.place(side) = Some((place.name().to_owned(), name.to_owned()));
        Ok(())
    }

    /// Turns a knob of an end.
    pub(crate) fn turn(&self, side: Side, knob: &str, value: &str) -> Result<()> {
        let path = self.folder(side).join(knob);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Has an end offload that. States that were deleted may still be on their way out.
    pub(crate) fn to_mode(&self, side: Side, mode: Mode) -> Result<()> {
        let word = match mode {
            Mode::Packet => "packet",
            Mode::Crypto => "crypto",
            Mode::None => "none",
        };
        let turned = wait_until(Duration::from_secs(5), || self.turn(side, "mode", word).is_ok());
        ensure!(turned, "{} cannot go to mode {word}", self.name(side));
        Ok(())
    }

    /// A counter of an end.
    pub(crate) fn counter(&self, side: Side, name: &str) -> Result<u64> {
        counter(&self.counters(side)?, name)
    }

    /// All counters of an end, a line each.
    pub(crate) fn counters(&self, side: Side) -> Result<String> {
        self.read(side, "counters")
    }

    /// The SAs and policies of an end.
    pub(crate) fn tables(&self, side: Side) -> Result<String> {
        self.read(side, "tables")
    }

    /// Starts capturing the wire itself.
    pub(crate) fn capture(&self, protected: &[Prefix], kept: usize) -> Result<Capture> {
        Capture::start(&self.tap, &self.wire(), protected, kept)
    }

    /// Where the tap is.
    pub(crate) fn tap(&self) -> &Namespace {
        &self.tap
    }

    /// The tap's name.
    pub(crate) fn wire(&self) -> String {
        format!("nic{}w", self.number)
    }

    fn read(&self, side: Side, name: &str) -> Result<String> {
        let path = self.folder(side).join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn name(&self, side: Side) -> String {
        format!("nic{}{}", self.number, side.letter())
    }

    fn folder(&self, side: Side) -> PathBuf {
        PathBuf::from(KNOBS).join(self.name(side))
    }

    fn place(&mut self, side: Side) -> &mut Option<(String, String)> {
        let [a, b] = &mut self.places;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }
}

/// A counter out of the lines of all.
pub(crate) fn counter(counters: &str, name: &str) -> Result<u64> {
    let value = counters.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.with_context(|| format!("no counter {name} in:\n{counters}"))
}

impl Drop for Nic {
    fn drop(&mut self) {
        // A namespace that ends gives its devices back later and under the name they had there.
        for side in [Side::A, Side::B] {
            let home = self.name(side);
            if let Some((place, name)) = self.place(side).take() {
                let _ = command("ip", &["-n", &place, "link", "set", &name, "down"]);
                let _ = command("ip", &["-n", &place, "link", "set", &name, "netns", "1", "name", &home]);
            }
        }
        let _ = self.tap.ip(&["link", "set", &self.wire(), "netns", "1"]);
    }
}
