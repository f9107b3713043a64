//! Two gateways of ours on one rung of offload: over a plain link, or over the test NIC.

use anyhow::{Context, Result};
use lab::capture::Capture;
use lab::classify::Counts;
use lab::pair::Pair;
use lab::peer::Peer;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::CygnetOn;
use lab::topology::{FAMILIES, Family, Lab, Middle, OUTER, OuterCapture, Side};

use crate::nic::{Mode, Nic};

/// Where ESP is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rung {
    /// By the kernel, over a plain link.
    Software,
    /// By the kernel, its cryptography by the device.
    Crypto,
    /// By the device.
    Packet,
}

/// All of them, for tables.
pub(crate) const RUNGS: [Rung; 3] = [Rung::Software, Rung::Crypto, Rung::Packet];

impl Rung {
    /// As it is called in the names of tests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rung::Software => "software",
            Rung::Crypto => "crypto",
            Rung::Packet => "packet",
        }
    }

    /// What a child asks for.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Rung::Software => "hw_offload = no",
            Rung::Crypto => "hw_offload = crypto",
            Rung::Packet => "hw_offload = packet",
        }
    }

    /// What `list-sas` says of a child: read back, not wished.
    pub(crate) fn listed(self) -> String {
        match self {
            Rung::Software => "no".into(),
            Rung::Crypto => format!("crypto {OUTER}"),
            Rung::Packet => format!("packet {OUTER}"),
        }
    }

    /// The families that can be inside a tunnel whose outside is of one family: with packet offload the kernel has no route for another one.
    pub(crate) fn inside(self, outer: Family) -> Vec<Family> {
        match self {
            Rung::Software | Rung::Crypto => FAMILIES.into(),
            Rung::Packet => vec![outer],
        }
    }
}

/// Where `ip xfrm state` shows an SA; nothing where it does not show it.
pub(crate) fn rung_of(states: &str, spi: &str) -> Option<Rung> {
    let named = format!("spi 0x{spi} ");
    let entry = states.split("\nsrc ").find(|entry| entry.contains(&named))?;
    Some(match (entry.contains("mode packet"), entry.contains("mode crypto")) {
        (true, _) => Rung::Packet,
        (false, true) => Rung::Crypto,
        (false, false) => Rung::Software,
    })
}

/// The child of a family.
pub(crate) fn child(family: Family) -> &'static str {
    match family {
        Family::V4 => "net4",
        Family::V6 => "net6",
    }
}

/// Ours on the kernel backend.
pub(crate) fn ours() -> CygnetOn {
    CygnetOn { backend: "kernel", extra: String::new(), log: String::new() }
}

/// Two sites whose gateways can do one rung. The devices go home before the places end.
pub(crate) struct Ground {
    pub(crate) rung: Rung,
    nic: Option<Nic>,
    pub(crate) lab: Lab,
}

impl Ground {
    pub(crate) fn new(rung: Rung) -> Result<Self> {
        match rung {
            Rung::Software => Ok(Ground { rung, nic: None, lab: Lab::new(&Middle::Direct)? }),
            Rung::Crypto => Self::on_nic(rung, Mode::Crypto),
            Rung::Packet => Self::on_nic(rung, Mode::Packet),
        }
    }

    /// Over the test NIC in a mode of the caller's choice.
    pub(crate) fn on_nic(rung: Rung, mode: Mode) -> Result<Self> {
        let mut nic = Nic::take(0, mode)?;
        let lab = Lab::joined(|a, b| {
            nic.put(Side::A, a, OUTER)?;
            nic.put(Side::B, b, OUTER)
        })?;
        Ok(Ground { rung, nic: Some(nic), lab })
    }

    /// The test NIC.
    pub(crate) fn nic(&self) -> Result<&Nic> {
        self.nic.as_ref().context("this rung has no NIC")
    }

    /// A tunnel of this rung as it looks from a side.
    pub(crate) fn tunnel(&self, side: Side, outer: Family) -> Tunnel {
        let mut tunnel = Tunnel::between(&self.lab, side, outer).with_child_option(self.rung.option());
        let names: Vec<&str> = self.rung.inside(outer).into_iter().map(child).collect();
        tunnel.children.retain(|child| names.contains(&child.name.as_str()));
        tunnel
    }

    /// Starts a daemon on each side, IPv4 outside, and runs a test with both; when it fails, the error carries both logs and the kernels' tables.
    pub(crate) fn with_pair(
        &self,
        peers: [&dyn Peer; 2],
        change: impl Fn(Side, Tunnel) -> Tunnel,
        test: impl FnOnce(&Ground, &mut Pair<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut pair = Pair::start(&self.lab, peers, |side| change(side, self.tunnel(side, Family::V4)))?;
        pair.check(|pair| test(self, pair).map_err(|error| error.context(self.tables())))
    }

    /// What the kernel holds on both sides, for the words of a failed test.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for site in [&self.lab.a, &self.lab.b] {
            for table in ["state", "policy"] {
                let shown = site.gateway.ip(&["-s", "xfrm", table]).unwrap_or_else(|error| error.to_string());
                text += &format!("xfrm {table} of {:?}:\n{shown}\n", site.side);
            }
            if let Some(nic) = &self.nic {
                text +=
                    &format!("tables of the NIC of {:?}:\n{}\n", site.side, nic.tables(site.side).unwrap_or_default());
            }
        }
        text
    }

    /// Starts looking at what the link between the gateways carries.
    pub(crate) fn wire(&self) -> Result<Wire<'_>> {
        Ok(match &self.nic {
            Some(nic) => Wire::Tap(nic, nic.capture(&self.lab.protected(), 2_000)?),
            None => Wire::Sent(self.lab.capture_sent()?),
        })
    }
}

/// A capture of the link between the gateways.
pub(crate) enum Wire<'ground> {
    /// By the tap of the test NIC.
    Tap(&'ground Nic, Capture),
    /// What each gateway sends.
    Sent(OuterCapture<'ground>),
}

impl Wire<'_> {
    /// Ends the capture: every frame of the link once.
    pub(crate) fn finish(self) -> Result<Counts> {
        let (counts, missed) = match self {
            Wire::Tap(nic, capture) => {
                let captured = capture.finish(nic.tap(), &nic.wire())?;
                let missed = captured.missed();
                (captured.counts, missed)
            }
            Wire::Sent(capture) => {
                let [a, b] = capture.finish()?;
                let missed = a.missed() + b.missed();
                (sum(&a.counts, &b.counts), missed)
            }
        };
        anyhow::ensure!(missed == 0, "the capture missed {missed} frames");
        Ok(counts)
    }
}

fn sum(a: &Counts, b: &Counts) -> Counts {
    let mut by_spi = a.by_spi.clone();
    for (spi, count) in &b.by_spi {
        *by_spi.entry(*spi).or_default() += count;
    }
    Counts {
        esp: a.esp + b.esp,
        udp_esp: a.udp_esp + b.udp_esp,
        ike: a.ike + b.ike,
        keepalive: a.keepalive + b.keepalive,
        housekeeping: a.housekeeping + b.housekeeping,
        clear: a.clear + b.clear,
        other: a.other + b.other,
        by_spi,
    }
}
