//! The test run, stage by stage: each prints its seconds and its runners' own closing lines. What fails does not hide the rest: the
//! run goes on and fails at its end, unless the code does not build. A test that fails is run a second time by itself, since tests of
//! processes and packets share a busy machine: what passes then does not fail the run, but the table names it as unsteady.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, Outcome, build, setup};

/// One stage: a name and the command lines it consists of.
struct Stage {
    name: &'static str,
    quick: bool,
    steps: &'static [Step],
}

enum Step {
    /// A cargo command line.
    Cargo(&'static str),
    /// The same; test programs run inside namespaces of their own, because some make network namespaces.
    CargoInside(&'static str),
    /// A task of the `lab` binary as built for tests.
    Lab(&'static str),
    /// The model checker as built for tests.
    Model(&'static str),
    /// The kernel lab as built for tests.
    KernelLab(&'static str),
}

/// Each selects the whole workspace, so that all use the same build: choosing packages would choose other features and build anew.
/// The programs that the lab runs are built with the tests of their packages.
const STAGES: [Stage; 10] = [
    Stage { name: "fmt", quick: true, steps: &[Step::Cargo("fmt --all --check")] },
    Stage { name: "clippy", quick: true, steps: &[Step::Cargo("clippy --workspace --all-targets -- -D warnings")] },
    Stage {
        name: "build",
        quick: true,
        // What only other platforms build is fetched too: `cargo metadata` wants it, where there is no network any more.
        steps: &[Step::Cargo("fetch --locked"), Step::Cargo("test --workspace --no-run")],
    },
    Stage {
        name: "unit",
        quick: true,
        steps: &[Step::CargoInside("test --workspace --exclude scenarios --exclude interop --no-fail-fast")],
    },
    Stage { name: "scenarios", quick: true, steps: &[Step::Cargo("test --workspace --test scenarios")] },
    Stage { name: "interop", quick: false, steps: &[Step::Cargo("test --workspace --test interop")] },
    Stage { name: "kernel lab", quick: false, steps: &[Step::KernelLab("")] },
    // The same schedules each time, as a test says the same of the same code; `soak model` without a seed takes fresh ones.
    Stage {
        name: "model",
        quick: false,
        steps: &[
            Step::Model("--minutes 2 --schedules 8000 --violations 3 --seed 1753562672822176"),
            Step::Model("--minutes 2 --schedules 8000 --violations 3 --seed 1753562672830176"),
        ],
    },
    Stage {
        name: "soak cuts",
        quick: false,
        steps: &[
            Step::Lab("soak-rekey --minutes 1"),
            Step::Lab("soak-rekey --minutes 0.2 --by bytes"),
            Step::Lab("soak-rekey --minutes 0.2 --by time"),
            Step::Lab("soak-rekey --minutes 0.25 --peers charon --rate 50"),
            Step::Lab("bench-acquire --samples 30 --traps 200"),
            Step::Lab("bench-load-conns --connections 200"),
            Step::Lab("soak-charon --rounds 20 --minutes 1"),
            Step::Lab("soak-loss --runs 8 --parallel 8 --retransmit 0.25"),
            Step::Lab("soak-crash --kills 10 --seed 1"),
            Step::Lab("soak-crash --kills 3 --engine sqlite --receiver down --seed 2"),
            Step::Lab("soak-crash --kills 6 --engine sqlite --sabotage spool --seed 3"),
            Step::Lab("soak-crash --kills 3 --engine sqlite --sabotage receiver --seed 4"),
            Step::Lab("hostile-ike --count 20000 --warm-up 10000 --log trace"),
            Step::Lab("hostile-esp --count 100000 --warm-up 50000"),
            Step::Lab("hostile-memory --pairs 500"),
            Step::Lab("flood-init --rate 20000 --seconds 6 --addresses 10000"),
            Step::Lab("soak-rekey --minutes 0.1 --sabotage drop-old-inbound"),
            Step::Lab("soak-rekey --minutes 0.1 --sabotage early-outbound"),
            Step::Lab("soak-rekey --minutes 0.1 --sabotage linger-0"),
        ],
    },
    Stage { name: "docs", quick: false, steps: &[Step::Cargo("doc --workspace --no-deps --document-private-items")] },
];

/// More tests than these do not fail by chance: they are not run again.
const CHANCE: usize = 3;

/// What a finished stage leaves for the table.
struct Row {
    name: &'static str,
    time: Duration,
    passed: bool,
    closing: Vec<String>,
}

/// Runs the stages; the quick run leaves out what needs daemons and minutes.
pub(crate) fn run(quick: bool) -> Outcome {
    if !quick {
        setup::ensure()?;
    }
    let mut rows = Vec::new();
    for stage in STAGES.iter().filter(|stage| stage.quick || !quick) {
        println!("\n=== {} ===", stage.name);
        let started = Instant::now();
        let mut closing = Vec::new();
        let mut failed = 0;
        for step in stage.steps {
            let mut heard = Heard::default();
            let outcome = run_step(step, &[], &mut heard);
            let tests = heard.failed_tests();
            closing.append(&mut heard.closing);
            match outcome {
                Ok(()) => {}
                Err(Failure::Code(_)) if pass_alone(step, &tests, &mut closing)? => {}
                Err(Failure::Code(_)) => failed += 1,
                Err(failure) => return Err(failure),
            }
        }
        let passed = failed == 0;
        let time = started.elapsed();
        println!("=== {}: {} in {:.1} s", stage.name, verdict(passed), time.as_secs_f64());
        rows.push(Row { name: stage.name, time, passed, closing });
        if stage.name == "build" && !passed {
            break;
        }
    }
    print_table(&rows);
    if rows.iter().all(|row| row.passed) { Ok(()) } else { Err(Failure::Code(1)) }
}

/// Whether tests that failed pass when each is run again by itself. Without names it was not tests that failed.
fn pass_alone(step: &Step, tests: &[String], closing: &mut Vec<String>) -> Result<bool, Failure> {
    if tests.is_empty() || tests.len() > CHANCE {
        return Ok(false);
    }
    for test in tests {
        let mut heard = Heard::default();
        match run_step(step, &["--", "--exact", test], &mut heard) {
            Ok(()) if heard.closing.iter().any(|line| count_before(line, " passed") > 0) => {}
            Ok(()) | Err(Failure::Code(_)) => return Ok(false),
            Err(failure) => return Err(failure),
        }
        closing.push(format!("unsteady: {test} failed, and passed when it was run again"));
    }
    Ok(true)
}

/// What the output of a step says.
#[derive(Default)]
struct Heard {
    closing: Vec<String>,
    /// Test programs that began and did not come to their result: they died.
    unfinished: usize,
}

impl Heard {
    fn hear(&mut self, line: String) {
        if line.starts_with("running ") && line.trim_end_matches('s').ends_with(" test") {
            self.unfinished += 1;
        } else if line.starts_with("test result:") {
            self.unfinished = self.unfinished.saturating_sub(1);
        }
        if is_closing(&line) {
            self.closing.push(line);
        }
    }

    /// The names of the tests that failed, from libtest's lines; none where a program died, as nobody knows what else would have failed.
    fn failed_tests(&self) -> Vec<String> {
        if self.unfinished > 0 {
            return Vec::new();
        }
        let name = |line: &String| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.trim_end().to_owned());
        self.closing.iter().filter_map(name).collect()
    }
}

fn run_step(step: &Step, more: &[&str], heard: &mut Heard) -> Outcome {
    let built = build::target_directory()?.join("debug");
    let lab = built.join("lab");
    let (mut command, line) = match step {
        Step::Cargo(line) => (build::cargo(), line),
        Step::CargoInside(line) => {
            let mut cargo = build::cargo();
            cargo.arg("--config").arg(format!("target.'cfg(all())'.runner = ['{}', 'inside']", lab.display()));
            (cargo, line)
        }
        Step::Lab(line) => (Command::new(lab), line),
        Step::Model(line) => (Command::new(built.join("soak-model")), line),
        Step::KernelLab(line) => (Command::new(built.join("kernel-lab")), line),
    };
    command.args(line.split_whitespace()).args(more).env("RUSTDOCFLAGS", "-D warnings");
    let name = match step {
        Step::Cargo(_) | Step::CargoInside(_) => "cargo",
        Step::Lab(_) => "lab",
        Step::Model(_) => "soak-model",
        Step::KernelLab(_) => "kernel-lab",
    };
    println!("$ {name} {line} {}", more.join(" "));
    passing_through(&mut command, heard)
}

/// Runs a command, shows its output as it comes and keeps the lines with which test runners close.
fn passing_through(command: &mut Command, heard: &mut Heard) -> Outcome {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            heard.hear(line);
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Code(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The last line of libtest for a target with tests, its line of a test that failed, the last line of a soak, and what hostile runs say of memory.
fn is_closing(line: &str) -> bool {
    (line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed"))
        || line.starts_with("test ") && line.ends_with(" ... FAILED")
        || line.starts_with("sent ")
        || line.starts_with("model: ")
        || line.starts_with("crash ")
        || line.starts_with("history lost ")
        || line.starts_with("first seed ")
        || line.starts_with("runs ")
        || line.starts_with("flood ")
        || line.starts_with("acquire ")
        || line.contains("VmRSS") && (line.starts_with("pass ") || line.starts_with("FAIL "))
}

fn print_table(rows: &[Row]) {
    println!("\n{:<12} {:>8}  {:<6}  closing lines", "stage", "seconds", "");
    let mut total = Duration::ZERO;
    for row in rows {
        total += row.time;
        let (first, rest) = summary(&row.closing);
        println!("{:<12} {:>8.1}  {:<6}  {first}", row.name, row.time.as_secs_f64(), verdict(row.passed));
        for line in rest {
            println!("{:<30}  {line}", "");
        }
    }
    let passed = rows.iter().all(|row| row.passed);
    println!("{:<12} {:>8.1}  {}", "total", total.as_secs_f64(), verdict(passed));
}

/// Many targets are added up to one line; other closing lines stand as they were printed.
fn summary(closing: &[String]) -> (String, Vec<&String>) {
    let (results, other): (Vec<&String>, Vec<&String>) =
        closing.iter().partition(|line| line.starts_with("test result:"));
    if results.is_empty() {
        return (String::new(), other);
    }
    let passed: usize = results.iter().map(|line| count_before(line, " passed")).sum();
    let failed: usize = results.iter().map(|line| count_before(line, " failed")).sum();
    let ignored: usize = results.iter().map(|line| count_before(line, " ignored")).sum();
    let targets = results.len();
    (format!("{passed} passed, {failed} failed, {ignored} ignored in {targets} targets"), other)
}

fn count_before(line: &str, word: &str) -> usize {
    line.split_once(word)
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let lines = [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s".to_owned(),
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"
                .to_owned(),
        ];
        assert!(lines.iter().all(|line| is_closing(line)));
        assert_eq!(summary(&lines).0, "15 passed, 2 failed, 1 ignored in 2 targets");
        assert!(!is_closing("test a::b::c ... ok"));
        assert!(!is_closing(
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        ));
    }
    #[test]
    fn tests_that_failed_are_named_unless_their_program_died() {
        let failed = "test a::b::c    ... FAILED";
        let result =
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let named = |lines: &[&str]| {
            let mut heard = Heard::default();
            lines.iter().for_each(|line| heard.hear((*line).to_owned()));
            heard.failed_tests()
        };
        assert_eq!(named(&["running 4 tests", "test a ... ok", failed, result]), ["a::b::c"]);
        assert_eq!(named(&["running 4 tests", failed, "running 1 test", result]), [""; 0]);
    }
}
