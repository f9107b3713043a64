//! The life of a tunnel, step by step, between any two daemons.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::pair::{Pair, SOON};
use crate::peer::sas::{ChildSa, IkeSa};
use crate::topology::{Family, Lab, Side};
use crate::traffic::stream::{self, Load, Stream};

/// The children of every tunnel.
pub const CHILDREN: [&str; 2] = ["net4", "net6"];

/// Initiates both children from one side and waits for both sides.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn establish(pair: &Pair<'_>, from: Side) -> Result<()> {
    establish_all(pair, from, &CHILDREN)
}

/// The same for other children.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn establish_all(pair: &Pair<'_>, from: Side, children: &[&str]) -> Result<()> {
    for child in children {
        pair.side(from).swanctl(&["--initiate", "--child", child, "--timeout", "30"])?;
    }
    for side in [Side::A, Side::B] {
        pair.side(side).wait_for(
            "one IKE SA with the children",
            SOON,
            |sas| matches!(sas, [sa] if sa.carries(children)),
        )?;
    }
    Ok(())
}

/// Light streams of both families and sizes, both ways: what waits for a busy charon must fit its receive buffer.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn streams(lab: &Lab) -> Result<Vec<Stream>> {
    let load = |family, octets| Load { octets, rate: 40.0, family };
    stream::start_both_ways(
        &lab.a,
        &lab.b,
        &[load(Family::V4, 64), load(Family::V4, 1_300), load(Family::V6, 64), load(Family::V6, 1_300)],
    )
}

/// Ends streams; every packet must have arrived once and in order.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn all_arrived(streams: Vec<Stream>) -> Result<u64> {
    let report = stream::finish_all(streams)?;
    ensure!(report.is_clean(), "{report}");
    Ok(report.sent)
}

/// One side rekeys a child; both sides then use the same new pair of SPIs.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn rekey_child(pair: &Pair<'_>, from: Side, child: &str) -> Result<()> {
    let before = installed(pair, from, child)?;
    pair.side(from).swanctl(&["--rekey", "--child", child])?;
    settle(&format!("{child} rekeyed by {from:?}"), || {
        let (own, other) = (installed(pair, from, child)?, installed(pair, from.other(), child)?);
        let is_new = own.spi_in != before.spi_in && own.spi_out != before.spi_out;
        Ok(is_new && own.spi_in == other.spi_out && own.spi_out == other.spi_in)
    })
}

/// One side rekeys the IKE SA; both sides then have the same new pair of SPIs, and the children with it.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn rekey_ike(pair: &Pair<'_>, from: Side) -> Result<()> {
    rekey_ike_with(pair, from, &CHILDREN)
}

/// The same for an IKE SA with other children.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn rekey_ike_with(pair: &Pair<'_>, from: Side, children: &[&str]) -> Result<()> {
    let before = only_ike_sa(pair, from)?.spis;
    pair.side(from).swanctl(&["--rekey", "--ike", "site"])?;
    settle(&format!("IKE SA rekeyed by {from:?}"), || {
        let (own, other) = (only_ike_sa(pair, from), only_ike_sa(pair, from.other()));
        let (Ok(own), Ok(other)) = (own, other) else { return Ok(false) };
        Ok(own.spis != before && own.spis == other.spis && own.carries(children) && other.carries(children))
    })
}

/// One side deletes a child; the other one loses it, too, and keeps the rest. Rekeyed predecessors may linger on their own time.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn delete_child(pair: &Pair<'_>, from: Side, child: &str) -> Result<()> {
    pair.side(from).swanctl(&["--terminate", "--child", child, "--timeout", "30"])?;
    for side in [Side::A, Side::B] {
        pair.side(side).wait_for(
            &format!("{child} gone"),
            SOON,
            |sas| matches!(sas, [sa] if sa.state == "ESTABLISHED" && sa.installed(child).is_none()),
        )?;
    }
    Ok(())
}

/// One side deletes the IKE SA; nothing is left on either.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn delete_ike(pair: &Pair<'_>, from: Side) -> Result<()> {
    pair.side(from).swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
    for side in [Side::A, Side::B] {
        pair.side(side).wait_for("no SA", SOON, <[IkeSa]>::is_empty)?;
    }
    Ok(())
}

/// The one established IKE SA; half-open ones that nobody authenticated do not count.
fn only_ike_sa(pair: &Pair<'_>, side: Side) -> Result<IkeSa> {
    let established: Vec<IkeSa> = pair.side(side).sas()?.into_iter().filter(|sa| sa.state == "ESTABLISHED").collect();
    match <[IkeSa; 1]>::try_from(established) {
        Ok([sa]) => Ok(sa),
        Err(sas) => bail!("{} established IKE SAs at {side:?}", sas.len()),
    }
}

/// The one installed CHILD SA of that name.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn installed(pair: &Pair<'_>, side: Side, child: &str) -> Result<ChildSa> {
    let sas = pair.side(side).sas()?;
    let found: Vec<&ChildSa> = sas
        .iter()
        .flat_map(|sa| &sa.children)
        .filter(|found| found.name == child && found.state == "INSTALLED")
        .collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        others => bail!("{} installed CHILD SAs {child} at {side:?}: {sas:#?}", others.len()),
    }
}

/// Polls until something has come true; errors on the way count as "not yet".
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn settle(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    settle_within(SOON, what, condition)
}

/// The same for what takes longer.
///
/// # Errors
/// It did not come true, or a daemon does not answer.
pub fn settle_within(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = std::time::Instant::now();
    loop {
        let outcome = condition();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if started.elapsed() > limit {
            outcome?;
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(40));
    }
}
