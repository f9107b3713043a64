//! Background processes inside a namespace: own `/run`, output into a file, ended by process id on drop.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Namespace;

/// How long a process may take between SIGTERM and its end before it is killed.
const TERM_TIME: Duration = Duration::from_secs(30);

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
