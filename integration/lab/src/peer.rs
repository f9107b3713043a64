//! Daemons inside a gateway: Cygnet's own and others that read the same `swanctl.conf`.
//!
//! A test names a [`Peer`] for each side at run time; everything after that (loading, initiating, looking at SAs, signals) is the
//! same for all of them and goes through VICI, with our `swanctl` or with Debian's.

pub mod audit;
pub mod charon;
pub mod conf;
pub mod cygnet;
pub mod sas;
pub mod trixie;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use swanctl_compat::vici::{self, Message};

use crate::netns::Namespace;
use crate::process::{Process, wait_until};
use conf::Tunnel;
use sas::{IkeSa, Node};

/// A VICI client.
pub type Vici = vici::client::Client<UnixStream>;

/// How long a daemon may take until it says that it is ready, on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);

/// An implementation of IKEv2 that can be put into a gateway.
pub trait Peer: Sync {
    /// Its short name, as it appears in test names.
    fn name(&self) -> &'static str;

    /// Writes the daemon's own files below `directory` and says how it is started.
    ///
    /// # Errors
    /// A file could not be written, or the program is not installed.
    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe>;
}

/// How a daemon is started, again and again.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment, added to ours.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// Its VICI socket.
    pub socket: PathBuf,
    /// Where its log goes in the end, if not to its output.
    pub log: Option<PathBuf>,
    /// The client that belongs to it.
    pub client: Client,
    /// Whether it reads `swanctl.conf` by itself when it starts.
    pub loads_at_start: bool,
}

/// A `swanctl` program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Ours, beside the running program.
    Cygnet,
    /// Debian's, from the package strongswan-swanctl.
    Debian,
    /// Debian 13's, of strongSwan 6.0.1.
    Debian13,
}

impl Client {
    /// The program, without arguments.
    ///
    /// # Errors
    /// It is not installed or not built.
    pub fn command(self) -> anyhow::Result<Command> {
        match self {
            Client::Cygnet => Ok(Command::new(binary("swanctl")?)),
            Client::Debian => Ok(Command::new(installed("/usr/sbin/swanctl", "strongswan-swanctl")?)),
            Client::Debian13 => trixie::command("swanctl"),
        }
    }
}

/// The path of a program that is built together with this one.
///
/// # Errors
/// It has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().context("program directory")?;
    // Test programs lie one level deeper.
    let directory =
        if directory.ends_with("deps") { directory.parent().context("target directory")? } else { directory };
    let path = directory.join(name);
    ensure!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    Ok(path)
}

fn installed(path: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(path);
    ensure!(path.exists(), "{} is missing: install the package {package}, or run `cargo xtask setup`", path.display());
    Ok(path)
}

/// A daemon inside a gateway.
#[derive(Debug)]
pub struct Daemon<'lab> {
    namespace: &'lab Namespace,
    directory: PathBuf,
    recipe: Recipe,
    process: Process,
}

impl<'lab> Daemon<'lab> {
    /// Writes its files, starts it and loads the tunnels.
    ///
    /// # Errors
    /// It did not start or refused the configuration; the error carries its log.
    pub fn start(
        peer: &dyn Peer,
        namespace: &'lab Namespace,
        directory: &Path,
        tunnels: &[Tunnel],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory.join("swanctl"))?;
        conf::write(&directory.join("swanctl/swanctl.conf"), tunnels)?;
        let recipe = peer.prepare(directory)?;
        let process = Self::launch(namespace, directory, &recipe)?;
        let daemon = Daemon { namespace, directory: directory.to_owned(), recipe, process };
        daemon.load_unless_loaded()?;
        Ok(daemon)
    }

    /// Starts the process; what it says of itself comes to a socket that `NOTIFY_SOCKET` names.
    fn begin(namespace: &Namespace, directory: &Path, recipe: &Recipe) -> anyhow::Result<(Process, UnixDatagram)> {
        let address = directory.join("notify");
        // Left by the previous start.
        let _ = std::fs::remove_file(&address);
        let notifications = UnixDatagram::bind(&address)?;
        notifications.set_nonblocking(true)?;
        // As systemd's is: a daemon may run as any user.
        std::fs::set_permissions(&address, PermissionsExt::from_mode(0o777))?;
        let mut environment: Vec<(&str, &Path)> =
            recipe.environment.iter().map(|(key, path)| (*key, path.as_path())).collect();
        environment.push(("NOTIFY_SOCKET", &address));
        let log = directory.join("output.log");
        let process = Process::start(namespace, &recipe.program, &recipe.arguments, &environment, &log)?;
        Ok((process, notifications))
    }

    /// Starts the process and waits until it says that it is ready, as systemd would: a datagram `READY=1`.
    fn launch(namespace: &Namespace, directory: &Path, recipe: &Recipe) -> anyhow::Result<Process> {
        let (mut process, notifications) = Self::begin(namespace, directory, recipe)?;
        let (mut ended, mut buffer) = (false, [0; 512]);
        let ready = wait_until(START_TIME, || {
            ended = !process.is_running();
            let told = notifications.recv(&mut buffer).ok().and_then(|length| buffer.get(..length));
            ended || told.is_some_and(|text| text.split(|octet| *octet == b'\n').any(|line| line == b"READY=1"))
        });
        let name = recipe.program.display();
        ensure!(!ended, "{name} ended at its start:\n{}", process.output());
        ensure!(ready, "{name} did not become ready in {} s:\n{}", START_TIME.as_secs(), process.output());
        Ok(process)
    }

    /// Starts it again after it ended or was killed, with the same files.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process = Self::launch(self.namespace, &self.directory, &self.recipe)?;
        self.load_unless_loaded()
    }

    /// The same without waiting until it is ready, and without loading anything.
    ///
    /// # Errors
    /// The program could not be started.
    pub fn restart_at_once(&mut self) -> anyhow::Result<()> {
        // Nobody listens any more to what it says of itself.
        self.process = Self::begin(self.namespace, &self.directory, &self.recipe)?.0;
        Ok(())
    }

    fn load_unless_loaded(&self) -> anyhow::Result<()> {
        if self.recipe.loads_at_start { Ok(()) } else { self.load().map(drop) }
    }

    /// Replaces the tunnels in its `swanctl.conf`; [`Self::load`] makes them known.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_tunnels(&self, tunnels: &[Tunnel]) -> anyhow::Result<()> {
        conf::write(&self.directory.join("swanctl/swanctl.conf"), tunnels)
    }

    /// `swanctl --load-all`.
    ///
    /// # Errors
    /// Something was refused.
    pub fn load(&self) -> anyhow::Result<String> {
        self.swanctl(&["--load-all", "--noprompt"])
    }

    /// Runs the daemon's own `swanctl` and returns what it printed.
    ///
    /// # Errors
    /// It ended with an error; the error carries its words.
    pub fn swanctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.swanctl_of(self.recipe.client, arguments)
    }

    /// Runs a chosen `swanctl` and returns what it printed.
    ///
    /// # Errors
    /// It ended with an error; the error carries its words.
    pub fn swanctl_of(&self, client: Client, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.swanctl_output(client, arguments)?;
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("swanctl {} ended with {}:\n{text}{errors}", arguments.join(" "), output.status);
        }
        Ok(text.into_owned())
    }

    /// Runs a chosen `swanctl` to whatever end.
    ///
    /// # Errors
    /// It is not installed or not built.
    pub fn swanctl_output(&self, client: Client, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.swanctl_command(client, arguments)?.output()?)
    }

    /// A chosen `swanctl` that has not been started yet.
    ///
    /// # Errors
    /// It is not installed or not built.
    pub fn swanctl_command(&self, client: Client, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = client.command()?;
        command
            .args(arguments)
            .arg("--uri")
            .arg(self.uri())
            .env("SWANCTL_DIR", self.directory.join("swanctl"))
            .envs(self.recipe.environment.iter().map(|(key, path)| (*key, path)));
        Ok(command)
    }

    /// Runs `cygnet` to whatever end.
    ///
    /// # Errors
    /// It is not built.
    pub fn cygnet(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(Command::new(binary("cygnet")?).arg("--uri").arg(self.uri()).args(arguments).output()?)
    }

    /// The address of its VICI socket.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("unix://{}", self.recipe.socket.display())
    }

    /// The path of its VICI socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.recipe.socket
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its IKE SAs with their CHILD SAs.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn sas(&self) -> anyhow::Result<Vec<IkeSa>> {
        let text = self.swanctl(&["--list-sas", "--raw"])?;
        Ok(sas::ike_sas(&Node::parse_all(&text)))
    }

    /// A connection to its VICI socket.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn vici(&self) -> anyhow::Result<Vici> {
        let stream = UnixStream::connect(&self.recipe.socket)
            .with_context(|| format!("connecting to {}", self.recipe.socket.display()))?;
        Ok(Vici::new(stream))
    }

    /// Whether it can be asked for [`Self::backend_sas`].
    #[must_use]
    pub fn tells_backend_sas(&self) -> bool {
        self.recipe.client == Client::Cygnet
    }

    /// What its data path holds by the data path's own word; only Cygnet can be asked.
    ///
    /// # Errors
    /// The daemon or its backend does not answer.
    pub fn backend_sas(&self) -> anyhow::Result<Vec<audit::BackendSa>> {
        let mut vici = self.vici()?;
        let mut events = Vec::new();
        vici.register("cygnet-backend-sa")?;
        let answer = vici.command("cygnet-backend-sas", Message::new(), |_, event| {
            events.push(event.clone());
            Ok(())
        })?;
        if let Some(error) = answer.get_str("errmsg") {
            bail!("{error}");
        }
        events.iter().map(audit::backend_sa).collect()
    }

    /// The same without a client program: for looking often.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn sas_at_once(&self) -> anyhow::Result<Vec<IkeSa>> {
        let mut vici = self.vici()?;
        let mut nodes = Vec::new();
        vici.register("list-sa")?;
        vici.command("list-sas", Message::new(), |_, event| {
            nodes.push(Node::from(event));
            Ok(())
        })?;
        Ok(sas::ike_sas(&nodes))
    }

    /// Waits until its SAs fulfil a condition.
    ///
    /// # Errors
    /// They did not in time; the error shows them.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut(&[IkeSa]) -> bool,
    ) -> anyhow::Result<Vec<IkeSa>> {
        let started = Instant::now();
        loop {
            let sas = self.sas()?;
            if condition(&sas) {
                return Ok(sas);
            }
            if started.elapsed() > limit {
                bail!("not within {} s: {what}; the SAs are {sas:#?}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let file = self.recipe.log.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        self.process.output() + &String::from_utf8_lossy(&file)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}
