//! Two daemons in a lab: started together, and their logs when something fails.

use std::time::Duration;

use anyhow::Result;

use crate::peer::conf::Tunnel;
use crate::peer::{Daemon, Peer};
use crate::topology::{Family, Lab, Middle, Side};

/// How long anything that needs a few exchanges may take, on a busy machine: whoever waits for it is not to take a lack of processors for a failure.
pub const SOON: Duration = Duration::from_secs(30);

/// Two daemons in a lab.
#[derive(Debug)]
pub struct Pair<'lab> {
    /// The one in gateway A.
    pub a: Daemon<'lab>,
    /// The one in gateway B.
    pub b: Daemon<'lab>,
}

impl<'lab> Pair<'lab> {
    /// Starts a daemon on each side with the tunnel as it looks from there.
    ///
    /// # Errors
    /// One did not start or refused its configuration.
    pub fn start(lab: &'lab Lab, peers: [&dyn Peer; 2], tunnel: impl Fn(Side) -> Tunnel) -> Result<Self> {
        let [peer_a, peer_b] = peers;
        let start = |peer, side: Side| {
            let directory = lab.directory().join(side.letter());
            Daemon::start(peer, &lab.site(side).gateway, &directory, &[tunnel(side)])
        };
        Ok(Pair { a: start(peer_a, Side::A)?, b: start(peer_b, Side::B)? })
    }

    /// A daemon by its side.
    #[must_use]
    pub fn side(&self, side: Side) -> &Daemon<'lab> {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Runs a test with both daemons; when it fails, the error carries both logs.
    ///
    /// # Errors
    /// The test's own.
    pub fn check(&mut self, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outcome = test(self);
        outcome.map_err(|error| {
            error.context(format!("log of A:\n{}\n\nlog of B:\n{}\n", self.a.log_tail(120), self.b.log_tail(120)))
        })
    }
}

/// A fresh lab with two daemons, IPv4 outside.
///
/// # Errors
/// The lab, a daemon's start, or the test's own.
pub fn with_pair(
    middle: &Middle,
    peers: [&dyn Peer; 2],
    change: impl Fn(Side, Tunnel) -> Tunnel,
    test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>,
) -> Result<()> {
    in_lab(&Lab::new(middle)?, peers, change, test)
}

/// Two daemons in a lab that is there already, IPv4 outside.
///
/// # Errors
/// A daemon's start, or the test's own.
pub fn in_lab(
    lab: &Lab,
    peers: [&dyn Peer; 2],
    change: impl Fn(Side, Tunnel) -> Tunnel,
    test: impl FnOnce(&Lab, &mut Pair<'_>) -> Result<()>,
) -> Result<()> {
    let mut pair = Pair::start(lab, peers, |side| change(side, Tunnel::between(lab, side, Family::V4)))?;
    pair.check(|pair| test(lab, pair))
}
