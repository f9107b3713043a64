//! What the tests need beyond the Rust toolchain: one list of Debian packages, one of Python packages, and another Debian's strongSwan
//! ([`trixie`]).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Failure, Outcome, build, trixie};

/// The one package list. Each line: the package, what uses it.
const PACKAGES: [(&str, &str); 25] = [
    ("iproute2", "namespaces, links, routes"),
    ("iputils-ping", "reachability"),
    ("nftables", "address translation between the gateways"),
    ("tcpdump", "a look at captures by hand"),
    ("tshark", "a foreign judge of ESP and IKE"),
    ("charon-systemd", "the charon peer"),
    ("strongswan-swanctl", "Debian's swanctl"),
    ("libcharon-extra-plugins", "charon's user-space ESP"),
    ("libstrongswan-standard-plugins", "charon's cryptography"),
    ("python3-scapy", "a second foreign judge of ESP"),
    ("python3-prometheus-client", "a foreign reader of the metrics"),
    ("binutils", "the kernel lab: libraries that programs need"),
    ("debian-archive-keyring", "the kernel lab: its packages are signed"),
    ("gcc-12", "the kernel lab: the compiler of its kernel, for modules"),
    ("kmod", "the kernel lab: which module needs which"),
    ("make", "the kernel lab: building its test NIC"),
    ("qemu-system-x86", "the kernel lab: its virtual machines"),
    ("xz-utils", "the kernel lab: the kernel's modules are compressed"),
    ("postgresql", "the history on a server; the tests start their own"),
    ("chromium-driver", "the status page in a browser"),
    ("fonts-dejavu-core", "the browser's letters"),
    ("python3-venv", "the Python packages below"),
    ("man-db", "manual pages are read without a warning"),
    ("zsh", "its completions are read by it"),
    ("fish", "its completions are read by it"),
];

/// What the interop tests use from PyPI. Each line: the package, the module by which one sees that it is there, what uses it. Each is taken
/// alone: what it depends on is not used.
const PYTHON: [(&str, &str, &str); 3] = [
    ("vici==6.0.3", "vici", "a VICI client nobody here wrote"),
    ("standardwebhooks==1.1.0", "standardwebhooks", "a judge of the webhooks' signatures nobody here wrote"),
    ("axe-playwright-python==0.1.8", "axe_playwright_python", "axe-core, the judge of the page's accessibility"),
];

/// A hook that Debian's packages ask before they start a service; 101 means "no".
const POLICY_HOOK: &str = "/usr/sbin/policy-rc.d";

/// Prints the commands that [`install`] runs.
pub(crate) fn print_plan() {
    println!("# Debian, as root; no service is started ({POLICY_HOOK} answers 101 meanwhile)");
    println!("apt-get update");
    println!("apt-get install --yes --no-install-recommends {}", names().join(" "));
    println!("# below the target directory");
    println!("python3 -m venv --system-site-packages target/peers");
    for (package, _, reason) in PYTHON {
        println!("target/peers/bin/python -m pip install --no-deps {package}   # {reason}");
    }
    trixie::print_plan();
    for (package, reason) in PACKAGES {
        println!("# {package:<24} {reason}");
    }
}

/// Installs what is missing. Needs root and Debian for packages.
pub(crate) fn install() -> Outcome {
    let missing = missing_packages();
    if !missing.is_empty() {
        if !can_install() {
            return Err(refuse(&missing));
        }
        let _hook = NoServices::declare()?;
        build::run(apt_get().arg("update"))?;
        build::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    }
    let environment = build::target_directory()?.join("peers");
    let missing = missing_python(&environment);
    if !missing.is_empty() {
        println!("installing {} into {}", missing.join(" "), environment.display());
        build::run(Command::new("python3").args(["-m", "venv", "--system-site-packages"]).arg(&environment))?;
        let mut python = Command::new(environment.join("bin/python"));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "10", "--no-deps"];
        build::run(python.args(pip).args(&missing))?;
    }
    trixie::ensure(&environment)?;
    println!("prerequisites are installed");
    Ok(())
}

/// apt-get that asks nothing, waits for another one (a fresh machine may be updating itself) and does not give up for a network that stutters.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=5"]);
    command
}

/// Before a test run: installs as root on Debian, otherwise says what is missing.
pub(crate) fn ensure() -> Outcome {
    let missing = missing_packages();
    let peers = build::target_directory()?.join("peers");
    if missing.is_empty() && missing_python(&peers).is_empty() && trixie::is_there(&peers) {
        return Ok(());
    }
    if missing.is_empty() || can_install() { install() } else { Err(refuse(&missing)) }
}

fn refuse(missing: &[&str]) -> Failure {
    eprintln!("missing: {}", missing.join(" "));
    eprintln!("run as root on Debian:  cargo xtask setup     (what it does: cargo xtask setup --dry-run)");
    Failure::Code(2)
}

fn names() -> Vec<&'static str> {
    PACKAGES.iter().map(|(name, _)| *name).collect()
}

fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && is_root()
}

fn is_root() -> bool {
    // The owner of our own /proc entry is our effective user.
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn missing_packages() -> Vec<&'static str> {
    names().into_iter().filter(|name| !is_installed(name)).collect()
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn missing_python(environment: &Path) -> Vec<&'static str> {
    // Looked for without being run: a module may need what is not installed.
    let finds = |module: &str| {
        Command::new(environment.join("bin/python"))
            .args(["-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)", module])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    PYTHON.iter().filter(|(_, module, _)| !finds(module)).map(|(package, ..)| *package).collect()
}

/// While it lives, packages do not start services. An administrator's own hook stays untouched.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn declare() -> Result<Self, Failure> {
        let hook = PathBuf::from(POLICY_HOOK);
        if hook.exists() {
            return Ok(NoServices(None));
        }
        fs::write(&hook, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices(Some(hook)))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(hook) = &self.0 {
            // Nothing to do about a failure here: the hook only keeps services from starting.
            let _ = fs::remove_file(hook);
        }
    }
}
