//! One network namespace: made, configured, entered, removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The routing table of tunnels: Cygnet's default, and charon's.
const TUNNEL_TABLE: &str = "220";

/// A named network namespace; removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    link: File,
}

impl Namespace {
    /// Makes the namespace and brings its loopback up; IPv6 addresses are usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// The program is not inside its own namespaces, or `ip` refused.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        if !crate::enter::is_inside() {
            bail!("labs are made inside namespaces of their own only: call lab::enter::enter() first");
        }
        command("ip", &["netns", "add", name])?;
        let link = File::open(format!("/run/netns/{name}"))?;
        let namespace = Namespace { name: name.to_owned(), link };
        namespace.ip(&["link", "set", "lo", "up"])?;
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/router_solicitations"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGUMENTS` inside and returns what it printed.
    ///
    /// # Errors
    /// `ip` refused; the error carries its words.
    pub fn ip(&self, arguments: &[&str]) -> anyhow::Result<String> {
        // `ip -n` would make a mount namespace each time, which takes longer than all else that it does.
        self.run(|| command("ip", arguments))?.map_err(|error| anyhow!("in {}: {error}", self.name))
    }

    /// Runs several lines of `ip` one after the other, up to the first that is refused: much faster than a process for each.
    ///
    /// # Errors
    /// `ip` refused one; the error carries its words.
    pub fn ip_all(&self, lines: &[String]) -> anyhow::Result<()> {
        self.run(|| batch(lines))?.map_err(|error| anyhow!("in {}: {error}", self.name))
    }

    /// Runs a command inside and returns what it printed.
    ///
    /// # Errors
    /// It could not start or ended with an error; the error carries its words.
    pub fn command(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["netns", "exec", self.name.as_str(), program];
        all.extend_from_slice(arguments);
        command("ip", &all)
    }

    /// Writes one kernel parameter below `/proc/sys`, for this namespace.
    ///
    /// # Errors
    /// The parameter does not exist or refuses the value.
    pub fn sysctl(&self, parameter: &str, value: &str) -> anyhow::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{parameter}"), value))?
            .with_context(|| format!("setting {parameter} in {}", self.name))
    }

    /// Runs a closure on a thread of this namespace. Sockets made there stay there.
    ///
    /// # Errors
    /// The namespace could not be entered.
    ///
    /// # Panics
    /// When the closure does.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The routes into a tunnel, as daemons keep them in a table of their own: one for each remote subnet of their outbound policies.
    ///
    /// # Errors
    /// `ip` refused.
    pub fn protected_routes(&self) -> anyhow::Result<Vec<String>> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            // A table that never had a route is none.
            let text = self.ip(&[family, "route", "show", "table", TUNNEL_TABLE]).unwrap_or_default();
            // What the guard leaves there blocks and carries nothing.
            routes.extend(text.lines().filter(|line| !line.starts_with("unreachable")).map(str::to_owned));
        }
        Ok(routes)
    }

    /// Frames that an interface has received so far and those that it has sent, as the kernel counts them.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn frame_counts(&self, interface: &str) -> anyhow::Result<(u64, u64)> {
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let fields: Vec<&str> = line.with_context(|| format!("no interface {interface}"))?.split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
        Ok((field(1).context("no receive counter")?, field(9).context("no transmit counter")?))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The kernel removes it with the run anyway; this only frees it earlier.
        let _ = command("ip", &["netns", "del", self.name.as_str()]);
    }
}

/// Gives lines to one `ip`.
fn batch(lines: &[String]) -> anyhow::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ip.spawn().context("starting ip")?;
    let text = lines.join("\n") + "\n";
    // Where it ends early, its words say more than the broken pipe.
    let written = child.stdin.take().context("no standard input")?.write_all(text.as_bytes());
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}, given:\n{text}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(written?)
}

/// Runs a command to its end.
///
/// # Errors
/// It could not start or ended with an error; the error carries its words.
pub fn command<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let line: Vec<String> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned()).collect();
    // Some say what is wrong where others print what was asked for.
    let said = [output.stderr, output.stdout].map(|octets| String::from_utf8_lossy(&octets).trim().to_owned());
    bail!("{program} {}: {}", line.join(" "), said.join("\n").trim())
}
