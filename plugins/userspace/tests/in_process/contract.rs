//! The rules of the backend contract: on the datapath itself, on simulated NICs, and for all backends side by side in `daemon/ipsec/BEHAVIOURS.md`.

use std::fmt::Write as _;

use ipsec::OffloadMode;
use ipsec::conformance::double::{Double, able};
use ipsec::conformance::{BEHAVIOURS, Behaviour, Recorder, Subject, Verdict, run};
use offload_userspace::NoMachine;
use offload_userspace::nic::{NicLimits, Preset, Simulation};

use crate::links::machine;
use crate::subject::InProcess;

/// A datapath that poses as a NIC with these limits, or as none.
fn posing(limits: Option<NicLimits>) -> InProcess {
    InProcess::posing(limits.map(|limits| Simulation { limits, each_link: false }), NoMachine::default())
}

/// Like an mlx5 that does crypto offload too, with tables that can be filled.
fn mlx5() -> NicLimits {
    let size = Some(16);
    let like = NicLimits::like(Preset::Mlx5);
    NicLimits { crypto: Some(true), sa_table: size, policy_table: size, crypto_sa_table: size, ..like }
}

/// A host around the datapath is what the namespaces are for.
const WITHOUT_A_HOST: &[&str] = &["ike_passes_whatever_is_protected"];
/// A datapath that is no simulation cannot be told to have faults.
const WITHOUT_FAULTS: &[&str] = &[
    "a_refusal_by_the_device_is_told_and_undone",
    "ike_passes_whatever_is_protected",
    "a_soft_limit_comes_before_the_numbers_end",
    "a_gcm_key_protects_no_more_than_it_may",
];

/// On each rung: what cannot be shown is named here, what is not claimed in the table.
#[test]
fn every_rule_of_the_contract_is_kept() {
    let cases: [(Option<NicLimits>, OffloadMode, &[&str]); 6] = [
        (None, OffloadMode::No, WITHOUT_FAULTS),
        (Some(NicLimits::default()), OffloadMode::No, WITHOUT_A_HOST),
        (Some(NicLimits::default()), OffloadMode::Packet, WITHOUT_A_HOST),
        (Some(mlx5()), OffloadMode::No, WITHOUT_A_HOST),
        (Some(mlx5()), OffloadMode::Crypto, WITHOUT_A_HOST),
        (Some(mlx5()), OffloadMode::Packet, WITHOUT_A_HOST),
    ];
    for (limits, rung, cannot_show) in cases {
        expect(&format!("{rung:?} of {limits:?}"), &run(|| posing(limits.clone()), rung), cannot_show);
    }
    // The links of the machine, each a NIC of its own.
    expect("two NICs", &run(|| machine().0, OffloadMode::Packet), WITHOUT_A_HOST);
}

fn expect(what: &str, ended: &[(&str, Verdict)], cannot_show: &[&str]) {
    let broken: Vec<_> = ended.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).collect();
    assert!(broken.is_empty(), "{what}: {broken:#?}");
    let hidden = ended.iter().filter(|(_, verdict)| *verdict == Verdict::CannotShow).map(|(name, _)| *name);
    assert_eq!(hidden.collect::<Vec<_>>(), cannot_show, "{what}");
}

/// A column of the table: a fresh subject and the rung it is tested on.
type Column = (&'static str, fn() -> Box<dyn Subject>, OffloadMode);

const COLUMNS: [Column; 7] = [
    ("double", || Box::new(Double::new(able(), None)), OffloadMode::Packet),
    ("recorder", || Box::new(Recorder::new()), OffloadMode::No),
    ("userspace", || Box::new(posing(None)), OffloadMode::No),
    ("as a NIC", || Box::new(posing(Some(NicLimits::default()))), OffloadMode::Packet),
    ("as two NICs", || Box::new(machine().0), OffloadMode::Packet),
    ("as an mlx5", || Box::new(posing(Some(mlx5()))), OffloadMode::Packet),
    ("its crypto", || Box::new(posing(Some(mlx5()))), OffloadMode::Crypto),
];

/// To write it anew: `UPDATE_BEHAVIOURS=1 cargo test -p offload-userspace --test in-process`.
#[test]
fn the_table_of_behaviours_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../daemon/ipsec/BEHAVIOURS.md");
    let expected = render();
    if std::env::var_os("UPDATE_BEHAVIOURS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "daemon/ipsec/BEHAVIOURS.md is out of date: UPDATE_BEHAVIOURS=1 cargo test -p offload-userspace --test in-process"
    );
}

fn render() -> String {
    let mut out = String::from(
        "# What every backend keeps\n\n\
         The named behaviours of the conformance kit (`daemon/ipsec/src/conformance`), and what the backends show of them; made by running them.\n\n\
         - **yes**: kept. **no**: broken. **-**: this subject cannot show it. **n/a**: its rung does not claim what the rule is about.\n\
         - *double*: the backend in memory that the kit is tested with. Every behaviour is broken by at least one of its deliberate mistakes, and each\n\
           mistake breaks exactly the behaviours it should (`daemon/ipsec/src/conformance/tests/faults.rs`).\n\
         - *recorder*: the scripted double of the scenarios, which carries no packets and does what it is told.\n\
         - *userspace*: the ESP datapath, fed by hand; then posing as a NIC without limits, as two, as a small mlx5 with packet offload, and as one with crypto offload.\n  \
           Guard, routes and IKE beside them are shown on a real host in `plugins/userspace/tests/namespaces/contract.rs`.\n\n\
         The kernel backend needs a real kernel, so it has a table of its own: `plugins/kernel/BEHAVIOURS.md`.\n\n",
    );
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let _ = writeln!(out, "| Behaviour | Rule | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(COLUMNS.len()));
    for behaviour in BEHAVIOURS {
        let marks: Vec<&str> = COLUMNS.iter().map(|column| mark(behaviour, column)).collect();
        let _ = writeln!(out, "| `{}` | {} | {} |", behaviour.name, behaviour.rule, marks.join(" | "));
    }
    let _ = writeln!(out, "\n{} behaviours.", BEHAVIOURS.len());
    out
}

fn mark(behaviour: &Behaviour, (_, fresh, rung): &Column) -> &'static str {
    match behaviour.check(&mut *fresh(), *rung) {
        Ok(()) => "yes",
        Err(Verdict::Broken(_)) => "no",
        Err(Verdict::CannotShow) => "-",
        Err(Verdict::NotClaimed) => "n/a",
    }
}
