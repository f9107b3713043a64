//! Whether two daemons agree on what there is: one IKE SA, its CHILD SAs, SPIs in pairs, and nothing besides, in the data path either.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Daemon;
use super::sas::{ChildSa, IkeSa};

/// Everything in which two ends differ from one IKE SA with exactly these children, each installed once. Empty when all is well.
///
/// # Errors
/// A daemon does not answer.
pub fn findings(a: &Daemon<'_>, b: &Daemon<'_>, children: &[&str]) -> anyhow::Result<Vec<String>> {
    let (sas_a, sas_b) = (a.sas()?, b.sas()?);
    let mut found = Vec::new();
    for (end, sas) in [("A", &sas_a), ("B", &sas_b)] {
        found.extend(alone(sas, children).into_iter().map(|what| format!("{end}: {what}")));
    }
    found.extend(in_pairs(&sas_a, &sas_b));
    for (end, daemon, sas) in [("A", a, &sas_a), ("B", b, &sas_b)] {
        if daemon.tells_backend_sas() {
            found.extend(in_data_path(sas, &daemon.backend_sas()?).into_iter().map(|what| format!("{end}: {what}")));
        }
    }
    Ok(found)
}

/// Waits until there is nothing to find: rekeyed SAs linger for some seconds.
///
/// # Errors
/// Something is still wrong after that time; the error says what.
pub fn settle(a: &Daemon<'_>, b: &Daemon<'_>, children: &[&str], limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let found = findings(a, b, children)?;
        if found.is_empty() {
            return Ok(());
        }
        if started.elapsed() > limit {
            let sas = format!("A: {:#?}\nB: {:#?}", a.sas()?, b.sas()?);
            bail!("{} s later there is still: {}\n{sas}", limit.as_secs(), found.join("; "));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until neither end lists any SA, nor holds one in its data path where it can be asked.
///
/// # Errors
/// Something is still there after that time; the error says what.
pub fn gone(a: &Daemon<'_>, b: &Daemon<'_>, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let mut found = Vec::new();
        for (end, daemon) in [("A", a), ("B", b)] {
            found.extend(daemon.sas()?.iter().map(|sa| format!("{end}: IKE SA {} is {}", sa.unique_id, sa.state)));
            if daemon.tells_backend_sas() {
                found.extend(daemon.backend_sas()?.iter().map(|sa| format!("{end}: the data path holds {}", sa.spi)));
            }
        }
        match found.is_empty() {
            true => return Ok(()),
            false if started.elapsed() > limit => {
                bail!("{} s later there is still: {}", limit.as_secs(), found.join("; "))
            }
            false => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn alone(sas: &[IkeSa], children: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    if sas.len() != 1 {
        found.push(format!("{} IKE SAs", sas.len()));
    }
    for sa in sas.iter().filter(|sa| sa.state != "ESTABLISHED") {
        found.push(format!("an IKE SA is {}", sa.state));
    }
    let all: Vec<&ChildSa> = sas.iter().flat_map(|sa| &sa.children).collect();
    for name in children {
        let count = all.iter().filter(|child| child.name == *name && child.state == "INSTALLED").count();
        if count != 1 {
            found.push(format!("{count} installed CHILD SAs {name}"));
        }
    }
    let others = all.iter().filter(|child| child.state != "INSTALLED" || !children.contains(&child.name.as_str()));
    found.extend(others.map(|child| format!("a CHILD SA {} is {}", child.name, child.state)));
    found
}

/// In which IKE SAs and CHILD SAs two lists differ.
#[must_use]
pub fn in_pairs(a: &[IkeSa], b: &[IkeSa]) -> Vec<String> {
    let ikes = |sas: &[IkeSa]| sas.iter().map(|sa| sa.spis.clone()).collect::<BTreeSet<_>>();
    let mut found = Vec::new();
    if ikes(a) != ikes(b) {
        found.push(format!("SPIs of the IKE SAs differ: {:?} {:?}", ikes(a), ikes(b)));
    }
    let of = |sas: &[IkeSa], swap: bool| -> BTreeSet<(String, String, String)> {
        let key = |child: &ChildSa| match swap {
            false => (child.name.clone(), child.spi_in.clone(), child.spi_out.clone()),
            true => (child.name.clone(), child.spi_out.clone(), child.spi_in.clone()),
        };
        sas.iter().flat_map(|sa| &sa.children).map(key).collect()
    };
    let (ours, theirs) = (of(a, false), of(b, true));
    found.extend(ours.symmetric_difference(&theirs).map(|(name, spi_in, spi_out)| {
        format!("{name} in {spi_in} out {spi_out}, as A would see it, is not on both sides")
    }));
    found
}

/// An SA in a data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSa {
    /// Its SPI.
    pub spi: String,
    /// No CHILD SA knows of it.
    pub orphan: bool,
}

fn in_data_path(sas: &[IkeSa], held: &[BackendSa]) -> Vec<String> {
    let listed = sas.iter().flat_map(|sa| &sa.children).flat_map(|child| [&child.spi_in, &child.spi_out]);
    let mut listed: Vec<&str> = listed.map(String::as_str).collect();
    let mut held_spis: Vec<&str> = held.iter().map(|sa| sa.spi.as_str()).collect();
    listed.sort_unstable();
    held_spis.sort_unstable();
    let mut found: Vec<String> =
        held.iter().filter(|sa| sa.orphan).map(|sa| format!("SA {} of the data path is an orphan", sa.spi)).collect();
    if listed != held_spis {
        found.push(format!("the data path holds {held_spis:?} and the list says {listed:?}"));
    }
    found
}

/// Reads what `cygnet-backend-sas` streamed.
pub(super) fn backend_sa(event: &swanctl_compat::vici::Message) -> anyhow::Result<BackendSa> {
    let (_, sa) = event.sections().next().context("an empty event")?;
    let spi = sa.get_str("spi").context("no SPI")?.to_owned();
    Ok(BackendSa { spi, orphan: sa.is_yes("orphan") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(name: &str, state: &str, spi_in: &str, spi_out: &str) -> ChildSa {
        let text = str::to_owned;
        ChildSa {
            name: text(name),
            state: text(state),
            spi_in: text(spi_in),
            spi_out: text(spi_out),
            ..ChildSa::default()
        }
    }

    fn ike(children: Vec<ChildSa>) -> IkeSa {
        IkeSa { state: "ESTABLISHED".into(), spis: ("1".into(), "2".into()), children, ..IkeSa::default() }
    }

    #[test]
    fn what_is_too_much_or_missing_is_found() {
        let a = [ike(vec![child("net", "INSTALLED", "c1", "c2")])];
        let b = [ike(vec![child("net", "INSTALLED", "c2", "c1")])];
        assert!(alone(&a, &["net"]).is_empty() && in_pairs(&a, &b).is_empty());
        assert_eq!(alone(&a, &["net", "other"]), ["0 installed CHILD SAs other"]);
        assert_eq!(alone(&a, &[]), ["a CHILD SA net is INSTALLED"]);
        let twice = [ike(vec![child("net", "INSTALLED", "c1", "c2"), child("net", "INSTALLED", "c3", "c4")])];
        assert_eq!(alone(&twice, &["net"]), ["2 installed CHILD SAs net"]);
        assert_eq!(in_pairs(&twice, &b).len(), 1);
        let lingering = [ike(vec![child("net", "INSTALLED", "c1", "c2"), child("net", "DELETED", "c3", "c4")])];
        assert_eq!(alone(&lingering, &["net"]), ["a CHILD SA net is DELETED"]);
        assert_eq!(alone(&[], &["net"]), ["0 IKE SAs", "0 installed CHILD SAs net"]);
    }

    #[test]
    fn the_data_path_holds_what_is_listed() {
        let sas = [ike(vec![child("net", "INSTALLED", "c1", "c2")])];
        let held = |spis: &[&str]| -> Vec<BackendSa> {
            spis.iter().map(|spi| BackendSa { spi: (*spi).into(), orphan: *spi == "c9" }).collect()
        };
        assert!(in_data_path(&sas, &held(&["c2", "c1"])).is_empty());
        assert_eq!(in_data_path(&sas, &held(&["c1"])).len(), 1);
        assert_eq!(in_data_path(&sas, &held(&["c1", "c2", "c9"])).len(), 2);
    }
}
