//! Which daemons meet: chosen by name at run time.

use anyhow::{Context, Result};
use lab::peer::Peer;
use lab::peer::charon::{Charon, Charon13};
use lab::peer::cygnet::Cygnet;

/// Replaces the daemons: `CYGNET_INTEROP_PEERS=charon,charon` runs every test with a foreign daemon in the place of ours, which shows
/// what a test expects of anybody. The default is `cygnet,charon`.
const CHOICE: &str = "CYGNET_INTEROP_PEERS";

static CYGNET: Cygnet = Cygnet { extra: String::new(), log: String::new() };

/// A daemon by its name.
pub(crate) fn by_name(name: &str) -> Result<&'static dyn Peer> {
    let known: [&'static dyn Peer; 3] = [&CYGNET, &Charon, &Charon13];
    known.into_iter().find(|peer| peer.name() == name).with_context(|| format!("no peer is called {name}"))
}

/// The pair of the matrix: ours and a foreign one, or what the environment says.
pub(crate) fn chosen() -> Result<[&'static dyn Peer; 2]> {
    let words = std::env::var(CHOICE).unwrap_or_else(|_| "cygnet,charon".into());
    let (a, b) = words.split_once(',').with_context(|| format!("{CHOICE} needs two names with a comma between"))?;
    Ok([by_name(a)?, by_name(b)?])
}

/// The daemon under test on both sides.
pub(crate) fn ours() -> Result<[&'static dyn Peer; 2]> {
    let [ours, _] = chosen()?;
    Ok([ours, ours])
}
