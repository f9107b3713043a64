//! What every test needs: a lab, two daemons, and their logs when something fails.

use std::time::Duration;

use anyhow::Result;
use lab::peer::conf::Tunnel;
use lab::peer::{Daemon, Peer};
use lab::topology::{Family, Lab, Middle, Side};
use libtest_mimic::{Failed, Trial};

/// How long anything that needs a few exchanges may take.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A test by name.
pub(crate) fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let words = |error: anyhow::Error| error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n\ncause: ");
    Trial::test(name, move || test().map_err(|error| Failed::from(words(error))))
}

/// Two daemons in a lab.
pub(crate) struct Pair<'lab> {
    pub(crate) a: Daemon<'lab>,
    pub(crate) b: Daemon<'lab>,
}

impl<'lab> Pair<'lab> {
    /// Starts a daemon on each side with the tunnel as it looks from there.
    pub(crate) fn start(lab: &'lab Lab, peers: [&dyn Peer; 2], tunnel: impl Fn(Side) -> Tunnel) -> Result<Self> {
        let [peer_a, peer_b] = peers;
        let start = |peer, side: Side| {
            let directory = lab.directory().join(side.letter());
            Daemon::start(peer, &lab.site(side).gateway, &directory, &[tunnel(side)])
        };
        Ok(Pair { a: start(peer_a, Side::A)?, b: start(peer_b, Side::B)? })
    }

    /// A daemon by its side.
    pub(crate) fn side(&self, side: Side) -> &Daemon<'lab> {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Runs a test with both daemons; when it fails, the error carries both logs.
    pub(crate) fn check(&mut self, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outcome = test(self);
        outcome.map_err(|error| {
            error.context(format!("log of A:\n{}\n\nlog of B:\n{}\n", self.a.log_tail(120), self.b.log_tail(120)))
        })
    }
}

/// A fresh lab with two daemons, IPv4 outside.
pub(crate) fn with_pair(
    middle: &Middle,
    peers: [&dyn Peer; 2],
    change: impl Fn(Side, Tunnel) -> Tunnel,
    test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new(middle)?;
    let mut pair = Pair::start(&lab, peers, |side| change(side, Tunnel::between(&lab, side, Family::V4)))?;
    pair.check(|pair| test(&lab, pair))
}
