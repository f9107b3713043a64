//! Entering namespaces of our own before anything else is done.
//!
//! The program starts itself again under `unshare`: new mount, network and process namespaces, and a user namespace when it is not
//! root. `/run` and the lab's own files are private tmpfs, so the names of network namespaces belong to this run alone, and the
//! kernel ends every process and forgets every link and file when the first process of the run is gone.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set inside; also tells a human which way was taken.
const INSIDE: &str = "CYGNET_LAB_INSIDE";

/// What the first process of the run does: private /run and files, the loopback, then the program as a child, so that Ctrl-C
/// reaches it.
const FIRST_PROCESS: &str =
    "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs \"$1\" && shift && ip link set lo up && \"$@\"";

/// Makes sure that this program runs inside namespaces of its own.
///
/// Returns when it does already; otherwise the process becomes the one that runs the program again inside, and has its exit code.
///
/// # Errors
/// One sentence that names what blocks the way and what lifts it.
pub fn enter() -> anyhow::Result<()> {
    if is_inside() {
        fs::create_dir_all(directory())?;
        return Ok(());
    }
    let way = if rustix::process::geteuid().is_root() { Way::Root } else { Way::UserNamespace };
    check(way)?;
    eprintln!("lab: running {}", way.describe());
    fs::create_dir_all(directory())?;
    // Becoming `unshare` instead of starting it: whoever kills this process then kills the whole run.
    let error = unshare(way)
        .args(["sh", "-c", FIRST_PROCESS, "sh"])
        .arg(directory())
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, way.describe())
        .exec();
    Err(error.into())
}

/// Where the run keeps its files: inside, a tmpfs that goes with the run.
#[must_use]
pub fn directory() -> PathBuf {
    env::temp_dir().join("cygnet-lab")
}

/// Whether [`enter`] has been passed.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

#[derive(Clone, Copy)]
enum Way {
    Root,
    UserNamespace,
}

impl Way {
    fn describe(self) -> &'static str {
        match self {
            Way::Root => "as root, in mount, network and process namespaces of its own",
            Way::UserNamespace => "without root, in a user namespace of its own",
        }
    }
}

fn unshare(way: Way) -> Command {
    let mut command = Command::new("unshare");
    if matches!(way, Way::UserNamespace) {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command
}

/// Finds the known blocks and words each in one sentence.
fn check(way: Way) -> anyhow::Result<()> {
    for (tool, package) in [("unshare", "util-linux"), ("ip", "iproute2")] {
        if let Err(error) = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status()
            && error.kind() == io::ErrorKind::NotFound
        {
            anyhow::bail!("the program `{tool}` is missing: install the package {package}");
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        anyhow::bail!(
            "there is no /dev/net/tun: load the module with `modprobe tun`, or give the container that device"
        );
    }
    let attempt = unshare(way).arg("true").output()?;
    if attempt.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&attempt.stderr).trim().to_owned();
    anyhow::bail!("{} ({said})", explain(way));
}

fn explain(way: Way) -> &'static str {
    let setting = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if matches!(way, Way::Root) {
        return "this root may not make namespaces: it runs in a container without CAP_SYS_ADMIN, so run outside of it or add that capability";
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor restricts user namespaces here: run as root, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`";
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "user namespaces are turned off for users: run as root, or `sysctl kernel.unprivileged_userns_clone=1`";
    }
    if setting("/proc/sys/user/max_user_namespaces", "0") {
        return "no user namespace may be made: run as root, or raise `sysctl user.max_user_namespaces`";
    }
    if fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("Seccomp:\t2")) {
        return "a seccomp filter (a container's, as a rule) forbids unshare(2): run as root outside of it, or with a filter that allows it";
    }
    "this user may not make user namespaces: run as root"
}
