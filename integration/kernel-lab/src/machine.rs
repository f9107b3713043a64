//! Virtual machines: started with their shares of the tests, watched, judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{tool, verdict};

const QEMU: &str = "qemu-system-x86_64";
/// No hardware help: where it is offered inside another virtual machine it often fails, and the tests are few.
const MACHINE: [&str; 10] =
    ["-machine", "q35", "-cpu", "max", "-m", "1024", "-no-reboot", "-nodefaults", "-display", "none"];
const REAL_TIME: [&str; 2] = ["-accel", "tcg,thread=multi"];
/// Time is counted in instructions, four nanoseconds each, and jumps to whatever is due next when nothing runs: what waits costs nothing, and
/// how busy this machine is does not show inside.
const VIRTUAL_TIME: [&str; 4] = ["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"];
const KERNEL_WORDS: &str = "console=ttyS0 panic=-1 oops=panic mitigations=off tsc=reliable random.trust_cpu=on cryptomgr.notests loglevel=6 net.ifnames=0";

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initrd: PathBuf,
    /// Where each machine's output goes; emptied first.
    pub(crate) directory: PathBuf,
    /// How many machines share the tests.
    pub(crate) machines: usize,
    /// Words for the guest program.
    pub(crate) words: Vec<String>,
    /// When a machine is ended that has not ended by itself.
    pub(crate) time: Duration,
    /// Whether the kernel's messages are shown in any case.
    pub(crate) console: bool,
    /// Whether the guest's clock is that of the world.
    pub(crate) real_time: bool,
}

impl Plan {
    fn command(&self, share: &str) -> Command {
        let words = self.words.join(" ");
        // However this program ends, its machines end with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]);
        let clock: &[&str] = if self.real_time { &REAL_TIME } else { &VIRTUAL_TIME };
        command.args(MACHINE).args(clock).arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        command.arg("-append").arg(format!("{KERNEL_WORDS} -- {share} {words}"));
        command
    }
}

/// Runs a shell in the guest on this terminal.
///
/// # Errors
/// QEMU cannot be started.
pub(crate) fn shell(plan: &Plan) -> anyhow::Result<bool> {
    check()?;
    let mut command = plan.command("shell");
    command.args(["-smp", "2", "-serial", "mon:stdio"]);
    let status = command.status().map_err(|error| tool::explain(&command, &error))?;
    Ok(status.success())
}

/// Runs all tests and says whether all is well.
///
/// # Errors
/// QEMU cannot be started.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<bool> {
    check()?;
    // What the last run left.
    let _ = fs::remove_dir_all(&plan.directory);
    let mut machines = Vec::new();
    for index in 0..plan.machines {
        machines.push(Machine::start(plan, index)?);
    }
    let started = Instant::now();
    while machines.iter().any(|machine| machine.outcome.is_none()) {
        std::thread::sleep(Duration::from_millis(50));
        for machine in machines.iter_mut().filter(|machine| machine.outcome.is_none()) {
            machine.look(started.elapsed() > plan.time)?;
        }
    }
    let mut passed = true;
    for machine in &machines {
        passed &= machine.report(plan.console)?;
    }
    Ok(passed)
}

/// Whether there is a QEMU at all; later only its wrapper would know.
fn check() -> anyhow::Result<()> {
    tool::output(Command::new(QEMU).arg("--version")).map(drop)
}

/// One running machine.
struct Machine {
    index: usize,
    folder: PathBuf,
    child: Child,
    started: Instant,
    /// Octets of the tests' output that have been shown or kept.
    seen: usize,
    /// `Some` when it has ended: by itself, or because its time was up.
    outcome: Option<Outcome>,
}

enum Outcome {
    Ended,
    TimeUp,
}

impl Machine {
    fn start(plan: &Plan, index: usize) -> anyhow::Result<Self> {
        let folder = plan.directory.join(index.to_string());
        fs::create_dir_all(&folder)?;
        let mut command = plan.command(&format!("{index}/{}", plan.machines));
        command.args(["-smp", "1", "-serial"]).arg(format!("file:{}", folder.join("console").display()));
        command.args(["-device", "virtio-serial-pci"]);
        for name in ["tests", "files"] {
            command.arg("-chardev").arg(format!("file,id={name},path={}", folder.join(name).display()));
            command.arg("-device").arg(format!("virtserialport,chardev={name},name={name}"));
        }
        let errors = fs::File::create(folder.join("qemu"))?;
        command.stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
        let child = command.spawn().map_err(|error| tool::explain(&command, &error))?;
        Ok(Machine { index, folder, child, started: Instant::now(), seen: 0, outcome: None })
    }

    /// Shows what has come, and notes the end.
    fn look(&mut self, time_is_up: bool) -> anyhow::Result<()> {
        // Before the output is read, so that nothing comes after the last reading.
        let ended = self.child.try_wait()?.is_some();
        let output = self.text("tests");
        let new = output.get(self.seen..).unwrap_or_default();
        let whole = new.rfind('\n').map_or(0, |end| end + 1);
        for line in new.get(..whole).unwrap_or_default().lines().filter(|line| verdict::is_progress(line)) {
            println!("{line}");
        }
        self.seen += whole;
        if ended {
            self.outcome = Some(Outcome::Ended);
        } else if time_is_up {
            self.child.kill()?;
            self.child.wait()?;
            self.outcome = Some(Outcome::TimeUp);
        }
        Ok(())
    }

    /// Prints what is left to say and judges.
    fn report(&self, show_console: bool) -> anyhow::Result<bool> {
        let (output, console) = (self.text("tests"), self.text("console"));
        let code = verdict::exit_code(&output);
        let trouble = verdict::trouble(&console);
        let passed = code == Some(0) && trouble.is_none();
        if show_console || !passed {
            println!("--- messages of the kernel of machine {}:\n{}---", self.index, tail(&console, 150));
        }
        for line in output.lines().filter(|line| !verdict::is_progress(line) && !verdict::is_closing(line)) {
            println!("{line}");
        }
        if let Some(text) = trouble {
            println!("kernel-lab: machine {}: the kernel says: {text}", self.index);
        }
        if code.is_none() {
            println!("kernel-lab: machine {}: {}", self.index, self.why_no_end(&output));
        }
        self.unpack_files()?;
        Ok(passed)
    }

    fn why_no_end(&self, output: &str) -> String {
        let last = output.lines().last().map_or("before its first test".to_owned(), |line| format!("at `{line}`"));
        let seconds = self.started.elapsed().as_secs();
        match self.outcome {
            Some(Outcome::TimeUp) => format!("not at its end after {seconds} s, ended {last}"),
            Some(Outcome::Ended) | None => format!("stopped {last}; QEMU says: {}", self.text("qemu").trim()),
        }
    }

    /// Captures and logs that tests have kept.
    fn unpack_files(&self) -> anyhow::Result<()> {
        let archive = self.folder.join("files");
        if fs::metadata(&archive).is_ok_and(|entry| entry.len() > 0) {
            let into = self.folder.join("kept");
            fs::create_dir_all(&into)?;
            tool::output(Command::new("tar").arg("-x").arg("-C").arg(&into).arg("-f").arg(&archive))
                .context("unpacking what the guest kept")?;
        }
        Ok(())
    }

    fn text(&self, name: &str) -> String {
        read(&self.folder.join(name))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            // Already gone is what we want.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default()
}

/// The last lines, each with its end.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().iter().map(|line| format!("{line}\n")).collect()
}
