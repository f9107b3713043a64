//! The guest's tests as they are named; they run in a virtual machine only.

use std::collections::BTreeSet;
use std::process::Command;

/// What a program prints when asked for the names of the tests.
fn listed(program: &str) -> Vec<String> {
    let output = Command::new(program).arg("--list").output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[test]
fn each_test_has_a_module_and_a_name_of_its_own() {
    let names = listed(env!("CARGO_BIN_EXE_guest"));
    assert!(!names.is_empty());
    assert!(
        names
            .iter()
            .all(|name| name.split_once("::").is_some_and(|(module, rest)| !module.is_empty() && !rest.is_empty()))
    );
    assert!(names.iter().all(|name| !name.contains(char::is_whitespace)), "a name goes onto the kernel's command line");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn the_host_lists_what_the_guest_has() {
    assert_eq!(listed(env!("CARGO_BIN_EXE_kernel-lab")), listed(env!("CARGO_BIN_EXE_guest")));
}

#[test]
fn the_guests_tests_do_not_run_here() {
    let outcome =
        Command::new(env!("CARGO_BIN_EXE_guest")).env_remove("CYGNET_LAB_INSIDE").output().expect("it starts");
    assert_eq!(outcome.status.code(), Some(2));
}
