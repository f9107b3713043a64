//! The kernel lab: a virtual machine with a kernel that has ESP, in which tests hold the kernel backend against that kernel.
//!
//! ```text
//! packages ──► Debian's 6.12 kernel and its headers; programs of Debian 13 (iproute2, strongSwan, libreswan) with their libraries
//! module   ──► the test NIC, built against those headers
//! image    ──► an initramfs of all that, our own programs and busybox
//! machine  ──► QEMU without hardware help; the guest's tests write into files that are shown as they grow
//! ```
//!
//! Nothing is installed on this machine: packages are fetched with an apt configuration of the lab's own and unpacked below
//! `target/kernel-lab`, where everything is kept between runs. The tests themselves are the binary `guest` (`src/guest`).

mod archive;
mod elf;
mod foreign;
mod image;
mod machine;
mod module;
mod packages;
mod tool;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;

/// Tests on a real kernel's IPsec data path, in a virtual machine made for them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only the test of exactly this name
    #[arg(long)]
    exact: bool,
    /// Names the tests and ends
    #[arg(long)]
    list: bool,
    /// A shell in the guest instead of the tests; `poweroff -f` or Ctrl-A X ends it
    #[arg(long)]
    shell: bool,
    /// Shows the kernel's messages also when all is well
    #[arg(long)]
    console: bool,
    /// Lets the guest's clock be that of the world, instead of one that counts instructions and skips what would be waiting
    #[arg(long)]
    real_time: bool,
    /// How many machines share the tests
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    machines: Option<u8>,
    /// Seconds after which a machine that has not ended is ended
    #[arg(long, default_value_t = 1_800)]
    timeout: u64,
    /// Asks for newer packages than those already fetched
    #[arg(long)]
    update: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let guest = lab::peer::binary("guest")?;
    if arguments.list {
        print!("{}", listing(&guest, arguments)?);
        return Ok(true);
    }
    let tests = listing(&guest, arguments)?.lines().filter(|line| line.ends_with(": test")).count();
    ensure!(tests > 0, "no test of the guest is called like that; `kernel-lab --list` names them all");
    ensure!(cfg!(target_arch = "x86_64"), "the kernel lab knows only machines of type x86_64");
    let store = directory()?;
    let started = Instant::now();
    let packages = packages::Packages::ensure(&store, arguments.update)?;
    let nic = module::build(&packages, &store)?;
    let initrd = image::build(&packages, &nic, &guest, &store)?;
    println!("kernel-lab: Linux {}, image ready after {:.1} s", packages.release, started.elapsed().as_secs_f64());
    let machines = arguments.machines.map_or_else(default_machines, usize::from).min(tests);
    let plan = machine::Plan {
        kernel: packages.vmlinuz(),
        initrd,
        directory: store.join("run"),
        machines,
        words: guest_words(arguments),
        time: Duration::from_secs(arguments.timeout),
        console: arguments.console,
        // A human at the keyboard is slower than a clock that skips all waiting.
        real_time: arguments.real_time || arguments.shell,
    };
    if arguments.shell {
        return machine::shell(&plan);
    }
    let passed = machine::run(&plan)?;
    Ok(foreign::judge(&plan.directory)? && passed)
}

/// Where everything is kept: `kernel-lab` in the target directory.
fn directory() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().find(|path| path.join("CACHEDIR.TAG").exists());
    let store = target.context("this program does not lie in a target directory of cargo")?.join("kernel-lab");
    std::fs::create_dir_all(&store)?;
    Ok(store)
}

/// One machine for each processor: without hardware help each keeps one busy.
fn default_machines() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2)
}

fn guest_words(arguments: &Arguments) -> Vec<String> {
    let mut words: Vec<String> = arguments.filter.iter().cloned().collect();
    if arguments.exact {
        words.push("--exact".into());
    }
    words
}

/// What the guest program itself says it would run; it can be asked on any machine.
fn listing(guest: &std::path::Path, arguments: &Arguments) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(guest);
    tool::output(command.arg("--list").args(guest_words(arguments)))
}
