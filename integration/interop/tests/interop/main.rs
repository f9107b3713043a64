//! One target: every test is named after peers, role and behaviour. See [`harness`] for how they run.

mod absence;
mod accounts;
mod acquire;
mod afresh;
mod alerts;
mod alike;
mod asked;
mod breaking;
mod capture;
mod clients;
mod crossing;
mod datapath;
mod debian;
mod detour;
mod differential;
mod doctor;
mod dry_run;
mod explain;
mod faults;
mod files;
mod fleet;
mod forms;
mod fragments;
mod guard;
mod harness;
mod http;
mod judge;
mod kernel;
mod life;
mod limits;
mod loglines;
mod matrix;
mod metrics;
mod moving;
mod offload;
mod page;
mod past;
mod peers;
mod privacy;
mod privileges;
mod protocol;
mod python;
mod recorder;
mod rendering;
mod rust_vici;
mod secrets;
mod self_test;
mod service;
mod several;
mod status;
mod subcommands;
mod tool;
mod transport;
mod trouble;
mod updown;
mod watch;
mod webhook;
mod why;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list
        && let Err(error) = lab::enter::enter()
    {
        eprintln!("interop: {error}");
        return ExitCode::from(2);
    }
    arguments.test_threads.get_or_insert(harness::AT_ONCE);
    let trials: Vec<Trial> = [
        self_test::trials(),
        judge::trials(),
        forms::trials(),
        fragments::trials(),
        guard::trials(),
        faults::trials(),
        debian::trials(),
        subcommands::trials(),
        python::trials(),
        loglines::trials(),
        files::trials(),
        differential::trials(),
        alike::trials(),
        alerts::trials(),
        clients::trials(),
        capture::trials(),
        protocol::trials(),
        rust_vici::trials(),
        rendering::trials(),
        tool::trials(),
        dry_run::trials(),
        secrets::trials(),
        status::trials(),
        watch::trials(),
        metrics::trials(),
        service::trials(),
        transport::trials(),
        absence::trials(),
        acquire::trials(),
        afresh::trials(),
        breaking::trials(),
        several::trials(),
        detour::trials(),
        crossing::trials(),
        matrix::trials(),
        moving::trials(),
        doctor::trials(),
        explain::trials(),
        why::trials(),
        offload::trials(),
        past::trials(),
        asked::trials(),
        trouble::trials(),
        updown::trials(),
        accounts::trials(),
        webhook::trials(),
        fleet::trials(),
        privacy::trials(),
        privileges::trials(),
        page::trials(),
        limits::trials(),
        kernel::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        harness::tell_longest();
    }
    conclusion.exit_code()
}
