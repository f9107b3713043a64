//! What runs inside the kernel lab's virtual machine: tests on a real kernel, one after the other, each in namespaces of its own.
//!
//! To add tests: a module with `pub(crate) fn trials() -> Vec<Trial>`, and its line in [`trials`].

mod anchors;
mod bench;
mod conformance;
mod device;
mod esp_keys;
mod explain;
mod facts;
mod ground;
mod host;
mod interop;
mod judge;
mod libreswan;
mod netlink;
mod nic;
mod peers;
mod trouble;
mod tunnel;
mod wired;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Every test of the guest.
fn trials() -> Vec<Trial> {
    let all = [
        anchors::trials(),
        explain::trials(),
        facts::trials(),
        host::trials(),
        netlink::trials(),
        peers::trials(),
        device::trials(),
        judge::trials(),
        tunnel::trials(),
        trouble::trials(),
        interop::trials(),
        // The last: they keep their places, and the NIC in them, from one test to the next.
        conformance::trials(),
    ];
    all.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests change what belongs to the whole machine: its clock, the NIC's knobs.
    arguments.test_threads = Some(1);
    let trials = trials().into_iter().filter(|trial| is_wanted(&arguments, trial.name())).collect();
    let trials = match bench::share() {
        Some((index, count)) => bench::of_share(trials, index, count),
        None => trials,
    };
    if !arguments.list && !lab::enter::is_inside() {
        eprintln!(
            "guest: runs in the virtual machine that `cargo xtask kernel-lab` starts; here it only lists its tests"
        );
        return ExitCode::from(2);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Shares are made of the tests that run, so they are chosen first; the choice itself is libtest's.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    match &arguments.filter {
        Some(filter) if arguments.exact => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    }
}
