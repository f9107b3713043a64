//! Background processes inside a namespace: own `/run`, output into a file, ended by process id on drop.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Namespace;

/// How long a process may take between SIGTERM and its end before it is killed.
const TERM_TIME: Duration = Duration::from_secs(30);

/// Looks in a row at which a process that has nothing to do must wait.
const IDLE_LOOKS: u32 = 20;

/// A running process and its log file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program inside the namespace with a private, empty `/run`; its output is appended to `log`.
    ///
    /// # Errors
    /// The program could not be started.
    pub fn start<S: AsRef<OsStr>>(
        namespace: &Namespace,
        program: &Path,
        arguments: &[S],
        environment: &[(&str, &Path)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$@\"", "sh"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Its process id: `ip`, `sh` and the program replace each other and keep it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same for signals.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid().context("process id")?, signal).context("signalling a process")
    }

    /// Asks it to end and waits; kills it after half a minute.
    ///
    /// # Errors
    /// It could not be signalled or had to be killed.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let mut ended = None;
        let in_time = wait_until(TERM_TIME, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        match ended {
            Some(status) if in_time => Ok(status),
            Some(_) | None => {
                self.kill()?;
                bail!("still running {} s after SIGTERM, killed", TERM_TIME.as_secs())
            }
        }
    }

    /// Ends it with SIGKILL and waits.
    ///
    /// # Errors
    /// It could not be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is what we want.
        let _ = self.kill();
    }
}

/// Whether every thread of a process is in a state, as proc(5) names it: `T` stands still, `S` waits for something to come.
#[must_use]
pub fn all_threads_are(id: u32, state: char) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return false };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
    })
}

/// Waits until none of these processes has anything to do, at several looks in a row: what is told by one and read by another has come.
///
/// # Errors
/// They are busy all the time.
pub fn wait_until_idle(ids: &[u32], limit: Duration) -> anyhow::Result<()> {
    let mut looks = 0;
    let idle = wait_until(limit, || {
        let idle = ids.iter().all(|id| all_threads_are(*id, 'S'));
        looks = if idle { looks + 1 } else { 0 };
        looks >= IDLE_LOOKS
    });
    ensure!(idle, "the processes {ids:?} are busy for {} s", limit.as_secs());
    Ok(())
}

/// Repeats a call that was interrupted: a read with a limit in time is not taken up again by itself when the process stood still and goes on.
///
/// # Errors
/// Those of the call.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Polls a condition every 10 ms; false when it has not come true in time.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
