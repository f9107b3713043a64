//! `plugins/kernel/BEHAVIOURS.md`: what the tests in the guest hold the kernel backend to, for people.

use std::fmt::Write as _;

use ipsec::conformance::BEHAVIOURS;

use super::RUNGS;
use super::differences::{DIFFERENCES, Seen, of};

/// To write it anew: `UPDATE_BEHAVIOURS=1 cargo test -p kernel-lab --bin guest`.
#[test]
fn the_table_of_behaviours_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/kernel/BEHAVIOURS.md");
    let expected = render();
    if std::env::var_os("UPDATE_BEHAVIOURS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "plugins/kernel/BEHAVIOURS.md is out of date: UPDATE_BEHAVIOURS=1 cargo test -p kernel-lab --bin guest"
    );
}

#[test]
fn every_difference_is_about_a_behaviour_and_about_it_once() {
    for (at, difference) in DIFFERENCES.iter().enumerate() {
        assert!(BEHAVIOURS.iter().any(|behaviour| behaviour.name == difference.name), "{difference:?}");
        for rung in difference.rungs {
            let first = DIFFERENCES.iter().position(|one| one.name == difference.name && one.rungs.contains(rung));
            assert_eq!(first, Some(at), "{} on {rung:?} is written twice", difference.name);
        }
    }
}

fn render() -> String {
    let mut out = String::from(
        "# What the kernel backend keeps\n\n\
         The named behaviours of the conformance kit (`daemon/ipsec/src/conformance`, its rules in `daemon/ipsec/BEHAVIOURS.md`) on the kernel\n\
         backend: with ESP in software, with crypto offload and with packet offload on the test NIC. The tests `conformance::` of\n\
         `cargo xtask kernel-lab` run each of them on Debian's Linux 6.12 and hold it against this table.\n\n\
         - **yes**: kept. **no**: the kernel does otherwise. **-**: it cannot be shown here. **n/a**: the rung does not claim what the rule is about.\n  \
           The number is that of the reason below.\n\n",
    );
    let names: Vec<&str> = RUNGS.iter().map(|(name, ..)| *name).collect();
    let _ = writeln!(out, "| Behaviour | {} |\n|---|{}", names.join(" | "), "---|".repeat(RUNGS.len()));
    for behaviour in BEHAVIOURS {
        let marks: Vec<String> = RUNGS.iter().map(|(_, mode, _)| mark(behaviour.name, *mode)).collect();
        let _ = writeln!(out, "| `{}` | {} |", behaviour.name, marks.join(" | "));
    }
    let _ = writeln!(out, "\n{} behaviours.\n\n## Reasons\n", BEHAVIOURS.len());
    for (number, reason) in reasons().iter().enumerate() {
        let _ = writeln!(out, "{}. {reason}", number + 1);
    }
    out
}

/// Each reason once, in the order of the behaviours.
fn reasons() -> Vec<&'static str> {
    let mut all = Vec::new();
    for (behaviour, (_, rung, _)) in
        BEHAVIOURS.iter().flat_map(|behaviour| RUNGS.iter().map(move |rung| (behaviour, rung)))
    {
        if let Some(difference) = of(behaviour.name, *rung)
            && !all.contains(&difference.reason)
        {
            all.push(difference.reason);
        }
    }
    all
}

fn mark(name: &str, rung: ipsec::OffloadMode) -> String {
    let Some(difference) = of(name, rung) else { return "yes".into() };
    let number = reasons().iter().position(|reason| *reason == difference.reason).map_or(0, |at| at + 1);
    match difference.seen {
        Seen::Broken(_) => format!("no ({number})"),
        Seen::CannotShow => format!("- ({number})"),
        Seen::NotClaimed => format!("n/a ({number})"),
    }
}
