//! A PostgreSQL of the lab's own, on the loopback of one namespace.
//!
//! It refuses to run as root, which the lab always is, if only in its own user namespace: it gets a user namespace of its own in which it is
//! somebody else. Nothing is chowned, and no user needs to exist.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::{Namespace, command};
use crate::process::{Process, wait_until};

/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(90);
/// In a namespace of its own any port is free.
const PORT: &str = "5432";
/// Becomes somebody who is not root.
const UNPRIVILEGED: [&str; 3] = ["--user", "--map-user=1000", "--map-group=1000"];

/// A PostgreSQL server with a directory of its own.
#[derive(Debug)]
pub struct Postgres<'lab> {
    namespace: &'lab Namespace,
    programs: PathBuf,
    data: PathBuf,
    server: Option<Process>,
}

impl<'lab> Postgres<'lab> {
    /// Makes a cluster below `directory` and starts it.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or did not start.
    pub fn start(namespace: &'lab Namespace, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (programs, data) = (programs()?, directory.join("data"));
        let mut arguments: Vec<OsString> = UNPRIVILEGED.map(OsString::from).into();
        arguments.push(programs.join("initdb").into());
        let options = ["-A", "trust", "-U", "cygnet", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"];
        arguments.extend(options.map(OsString::from));
        arguments.push(data.clone().into());
        command("unshare", &arguments)?;
        std::fs::create_dir_all(data.with_extension("sockets"))?;
        let mut postgres = Self { namespace, programs, data, server: None };
        postgres.resume()?;
        Ok(postgres)
    }

    /// Starts the server, again after [`Self::stop`], and waits until it takes connections.
    ///
    /// # Errors
    /// It did not start; the error carries its words.
    pub fn resume(&mut self) -> Result<()> {
        let mut arguments: Vec<OsString> = UNPRIVILEGED.map(OsString::from).into();
        arguments.extend([self.programs.join("postgres").into(), "-D".into(), self.data.clone().into()]);
        let port = format!("port={PORT}");
        let sockets = format!("unix_socket_directories={}", self.sockets().display());
        for setting in ["listen_addresses=127.0.0.1", &sockets, "fsync=off", &port] {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let log = self.data.with_extension("log");
        let told_before = told_ready(&std::fs::read_to_string(&log).unwrap_or_default());
        let mut server = Process::start(self.namespace, Path::new("unshare"), &arguments, &[], &log)?;
        let mut ended = false;
        wait_until(PATIENCE, || {
            ended = !server.is_running();
            ended || told_ready(&server.output()) > told_before
        });
        let output = server.output();
        ensure!(!ended && told_ready(&output) > told_before, "PostgreSQL did not start:\n{output}");
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server and throws its clients out; the data stay.
    ///
    /// # Errors
    /// It did not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.signal(Signal::INT)?;
        ensure!(wait_until(PATIENCE, || !server.is_running()), "PostgreSQL does not stop:\n{}", server.output());
        Ok(())
    }

    /// Makes a database and gives its URL, good inside the namespace.
    ///
    /// # Errors
    /// The server refused.
    pub fn database(&self, name: &str) -> Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://cygnet@127.0.0.1:{PORT}/{name}"))
    }

    /// The URL of a database for other namespaces: by a socket in the file system.
    #[must_use]
    pub fn url_by_socket(&self, name: &str) -> String {
        // A path in a query needs no escapes but for characters that ours do not have.
        format!("postgres://cygnet@localhost:{PORT}/{name}?host={}", self.sockets().display())
    }

    /// Has the server carry out a statement, and gives its rows, one a line, columns with `|` between.
    ///
    /// # Errors
    /// The server refused.
    pub fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let psql = self.programs.join("psql");
        let sockets = self.sockets();
        let [program, sockets] = [&psql, &sockets].map(|path| path.to_str().unwrap_or_default());
        let options = ["-h", sockets, "-p", PORT, "-U", "cygnet", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc"];
        command(program, &[options.as_slice(), &[statement]].concat())
    }

    /// Has who comes over the network show a password, from now on.
    ///
    /// # Errors
    /// The server refused.
    pub fn ask_for_password(&self, password: &str) -> Result<()> {
        self.sql("postgres", &format!("ALTER USER cygnet PASSWORD '{password}'"))?;
        std::fs::write(self.data.join("pg_hba.conf"), "local all all trust\nhost all all all scram-sha-256\n")?;
        self.sql("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// Stops all its processes where they are: connections stay, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let server = self.server.as_ref().context("PostgreSQL does not run")?.id();
        // The first, so that it starts no more of them.
        for process in std::iter::once(server).chain(children(server)?) {
            let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("process id")?;
            match kill_process(pid, signal) {
                // A process of a connection that has ended meanwhile.
                Err(Errno::SRCH) if process != server => {}
                outcome => outcome.context("signalling PostgreSQL")?,
            }
        }
        Ok(())
    }

    fn sockets(&self) -> PathBuf {
        self.data.with_extension("sockets")
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        // Its processes end by themselves when the first one does, but not frozen ones.
        let _ = self.thaw();
    }
}

/// The processes that this one has started.
fn children(process: u32) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    text.split_whitespace().map(|number| number.parse().context("process id")).collect()
}

fn told_ready(log: &str) -> usize {
    log.matches("ready to accept connections").count()
}

/// The programs of the newest PostgreSQL that is installed.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, programs)| programs);
    newest.context("PostgreSQL is missing: install the package postgresql, or run `cargo xtask setup`")
}
