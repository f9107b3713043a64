//! A PostgreSQL of the tests' own, on loopback, as an unprivileged user.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::scratch::Scratch;

/// Whose the server is where the tests run as root, which it refuses to run as.
const USER: &str = "postgres";

static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Ends with the last test that uses it, or with the process.
pub(crate) struct Cluster {
    /// Its standard input: the server ends when that is closed.
    server: Child,
    port: u16,
    programs: PathBuf,
    scratch: Scratch,
}

impl Cluster {
    /// The one that is running, or a new one.
    pub(crate) fn shared() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap();
        running.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *running = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// URL of a new database.
    pub(crate) fn database(&self) -> String {
        let name = format!("history{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = format!("postgres://cygnet@127.0.0.1:{}/{name}", self.port);
        self.create_database(&url);
        url
    }

    /// Makes the database of this URL.
    pub(crate) fn create_database(&self, url: &str) {
        self.administrate("createdb", &[name(url)]);
    }

    /// Drops the database of this URL, whoever uses it.
    pub(crate) fn drop_database(&self, url: &str) {
        self.administrate("dropdb", &["--force", name(url)]);
    }

    fn administrate(&self, program: &str, arguments: &[&str]) {
        let port = self.port.to_string();
        let ended = Command::new(self.programs.join(program))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "cygnet"])
            .args(arguments)
            .status();
        assert!(ended.as_ref().is_ok_and(std::process::ExitStatus::success), "{program} ended with {ended:?}");
    }

    /// Stops the server, until [`Self::resume`].
    pub(crate) fn pause(&mut self) {
        drop(self.server.stdin.take());
        self.server.wait().unwrap();
    }

    /// Starts it again, with the same data at the same port.
    pub(crate) fn resume(&mut self) {
        self.server = serve(&self.programs.join("postgres"), &self.scratch.path().join("data"), self.port);
    }

    /// One that is used by one test only.
    pub(crate) fn start() -> Self {
        let programs = programs();
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").arg(USER).arg(&data).status().unwrap();
            assert!(owned.success(), "there is no user {USER}: install the package `postgresql`");
        }
        let initdb = programs.join("initdb");
        let made = unprivileged(&initdb)
            .args(["-A", "trust", "-U", "cygnet", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb ended with {made}");
        let port = free_port();
        let server = serve(&programs.join("postgres"), &data, port);
        Self { server, port, programs, scratch }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        // It has been told; nothing else can be done about it here.
        let _ = self.server.wait();
    }
}

/// Name of the database of a URL.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// Starts the server below a shell that ends it when this process ends, and waits until it takes connections.
fn serve(postgres: &Path, data: &Path, port: u16) -> Child {
    const SCRIPT: &str = r#""$@" & server=$!; cat >/dev/null; kill -INT $server; wait $server"#;
    let mut shell = unprivileged(Path::new("/bin/sh"));
    shell.args(["-c", SCRIPT, "sh"]).arg(postgres).arg("-D").arg(data);
    for setting in
        ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=100", "autovacuum=off"]
    {
        shell.args(["-c", setting]);
    }
    shell.args(["-c", &format!("port={port}")]);
    let mut server = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let ready = lines.by_ref().any(|line| {
        said.push(line);
        said.last().is_some_and(|line| line.contains("ready to accept connections"))
    });
    assert!(ready, "PostgreSQL did not start:\n{}", said.join("\n"));
    std::thread::spawn(move || lines.for_each(drop));
    server
}

fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// The programs of the newest PostgreSQL that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .map(|(_, programs)| programs)
        .expect("PostgreSQL is missing: cargo xtask setup, or install `postgresql`")
}

/// A port that nobody else has: the system gives those below 32768 to nobody, so that it is free again for a server that was paused.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(25_432);
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take(1_000);
    ports.find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()).expect("a free port")
}
