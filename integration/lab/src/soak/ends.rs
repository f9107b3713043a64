//! Two ends of a tunnel as their lists show them: the one established IKE SA and the one installed CHILD SA of a name.

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::sas::{ChildSa, IkeSa};
use swanctl_compat::vici::Message;

/// One end.
pub(super) struct End {
    /// The IKE SA.
    pub(super) ike: IkeSa,
    /// The CHILD SA.
    pub(super) child: ChildSa,
}

/// Both ends.
pub(super) fn both(daemons: &[Daemon<'_>; 2], child: &str) -> Result<[End; 2]> {
    let [a, b] = daemons;
    Ok([end(a, child)?, end(b, child)?])
}

fn end(daemon: &Daemon<'_>, child: &str) -> Result<End> {
    let mut ikes: Vec<IkeSa> = daemon.sas_at_once()?.into_iter().filter(|sa| sa.state == "ESTABLISHED").collect();
    ensure!(ikes.len() == 1, "{} established IKE SAs", ikes.len());
    let ike = ikes.pop().context("an IKE SA")?;
    let installed = ike.children.iter().filter(|other| other.name == child && other.state == "INSTALLED");
    let mut installed: Vec<ChildSa> = installed.cloned().collect();
    ensure!(installed.len() == 1, "{} installed CHILD SAs {child}", installed.len());
    Ok(End { child: installed.pop().context("a CHILD SA")?, ike })
}

/// What asks an end to rekey its IKE SA or its CHILD SA.
pub(super) fn request(is_ike: bool, end: &End) -> Message {
    match is_ike {
        true => Message::new().with("ike-id", end.ike.unique_id.as_str()),
        false => Message::new().with("child-id", end.child.unique_id.as_str()),
    }
}

/// Whether both show the same SAs.
pub(super) fn agree([a, b]: &[End; 2]) -> bool {
    a.ike.spis == b.ike.spis && a.child.spi_in == b.child.spi_out && a.child.spi_out == b.child.spi_in
}

/// Whether the IKE SA, or the CHILD SA, is another one than before at both ends.
pub(super) fn is_new(before: &[End; 2], now: &[End; 2], ike: bool) -> bool {
    before.iter().zip(now).all(|(before, now)| match ike {
        true => before.ike.spis != now.ike.spis,
        false => before.child.spi_in != now.child.spi_in && before.child.spi_out != now.child.spi_out,
    })
}
