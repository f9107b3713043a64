//! The process that runs scripts, with the privileges that the daemon was started with.
//!
//! It has the other end of the daemon's socket as its standard input, no other file of the daemon's, and nothing of its environment. It ends when
//! that socket is closed, which the kernel sees to however the daemon dies: what runs by then may finish within its time, because half a change
//! of a firewall is worse than a late one. (A signal at the parent's death would cut those off from their output instead.) Signals that are
//! meant for the daemon are not for it: the scripts of the last `down` are still to come.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group, setsid};

use super::protocol::{Channel, End, Report, Request};
use super::script::{Output, Started};

/// Tells this program that it is the helper. Not an option for users.
const MODE: &str = "--run-updown-scripts";
/// More scripts than this at once are refused, whatever the daemon thinks.
const AT_ONCE: usize = 256;
/// Scripts that are killed at the end have so long to notice.
const GRACE: Duration = Duration::from_secs(1);

/// The daemon's side of a helper.
#[derive(Debug)]
pub(crate) struct Helper {
    process: Child,
    channel: Channel,
}

impl Helper {
    /// Starts one.
    ///
    /// # Errors
    /// There is no process for it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let begin = || -> io::Result<Self> {
            let (channel, theirs) = Channel::pair()?;
            let mut command = Command::new("/proc/self/exe");
            command.arg0("cygnetd-updown").arg(MODE).env_clear().current_dir("/");
            let process = command.stdin(theirs).stdout(Stdio::null()).spawn()?;
            Ok(Self { process, channel })
        };
        begin().context("cannot start the helper that runs updown scripts")
    }

    /// Our end, for the thread that listens.
    pub(super) fn listener(&self) -> io::Result<Channel> {
        self.channel.try_clone()
    }

    /// Somebody who does for `user` what that user may not.
    ///
    /// # Errors
    /// There is no file descriptor for it.
    pub(crate) fn deputy(&self, user: u32) -> anyhow::Result<Deputy> {
        let channel = self.channel.try_clone().context("cannot reach the helper that runs updown scripts")?;
        Ok(Deputy { channel, user })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn tell(&self, request: &Request) -> io::Result<()> {
        self.channel.send(request)
    }

    /// Makes sure that it is gone, as far as it is ours to end; the answer says how it went.
    pub(super) fn bury(mut self) -> String {
        // One that has ended stays ended.
        let killed = self.process.kill();
        if killed.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            && matches!(self.process.try_wait(), Ok(None))
        {
            // It has more privileges than we have by now. Once nobody speaks to it any more it ends by itself.
            self.channel.close();
            return "it does not end, and is left to itself".into();
        }
        match self.process.wait().map(|status| (status.code(), status.signal())) {
            Ok((Some(code), _)) => format!("it ended with status {code}"),
            Ok((None, signal)) => format!("it was killed by signal {}", signal.unwrap_or_default()),
            Err(error) => format!("its end is not known: {error}"),
        }
    }

    /// Has it kill what it runs and end.
    pub(super) fn end(mut self) {
        if self.tell(&Request::End {}).is_ok() {
            let begun = Instant::now();
            while begun.elapsed() < GRACE * 3 {
                if !matches!(self.process.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.bury();
    }
}

/// A helper as seen by somebody who needs its privileges.
#[derive(Debug)]
pub(crate) struct Deputy {
    channel: Channel,
    /// Whose deputy it is.
    pub(crate) user: u32,
}

impl Deputy {
    /// Has a socket file removed, if it is this device's and inode still.
    ///
    /// # Errors
    /// The helper cannot be told.
    pub(crate) fn remove_socket(&self, path: &Path, (device, inode): (u64, u64)) -> io::Result<()> {
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        self.channel.send(&Request::RemoveSocket { path, device, inode })
    }
}

/// Whether this process is to be the helper: then this is all that it does.
pub(crate) fn asked(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1).is_none_or(|mode| mode != MODE) {
        return None;
    }
    Some(match settle_in().and_then(|channel| Scripts::new(channel).serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cygnetd: the helper that runs updown scripts, which only cygnetd itself can start: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Away from the daemon's terminal and signals.
fn settle_in() -> io::Result<Channel> {
    let channel = Channel::of(io::stdin().as_fd().try_clone_to_owned()?)?;
    // Only the leader of a group cannot, and has a session then.
    let _ = setsid();
    // The name in lists of processes; not one that `killall cygnetd` would meet.
    std::fs::write("/proc/self/comm", "cygnetd-updown")?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        deaf_to(signal);
    }
    Ok(channel)
}

/// A signal that does nothing. Unlike one that is ignored or blocked, scripts do not inherit it.
fn deaf_to(signal: libc::c_int) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the function does nothing, so it may be called at any moment.
    #[allow(unsafe_code)] // no safe interface to handlers of signals
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// Scripts that run.
#[derive(Debug, Default)]
struct Running {
    all: Mutex<All>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct All {
    /// By their numbers: their process groups, once they are started.
    groups: HashMap<u64, Option<Pid>>,
    /// Those that have ended and whose end is being told.
    telling: usize,
    /// What all of them have been sent, and those that are only now being started get as well.
    sent: Option<Signal>,
}

impl Running {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more, unless there are too many.
    fn expect(&self, id: u64) -> bool {
        let groups = &mut self.all().groups;
        let room = groups.len() < AT_ONCE;
        if room {
            groups.insert(id, None);
        }
        room
    }

    /// Its process group.
    fn started(&self, id: u64, group: Pid) {
        let mut all = self.all();
        all.groups.insert(id, Some(group));
        if let Some(signal) = all.sent {
            // It may have gone in this very moment.
            let _ = kill_process_group(group, signal);
        }
    }

    /// It runs no more; only its end is still to be told.
    fn ended(&self, id: u64) {
        let mut all = self.all();
        all.groups.remove(&id);
        all.telling += 1;
    }

    fn told(&self) {
        let mut all = self.all();
        all.telling = all.telling.saturating_sub(1);
        self.fewer.notify_all();
    }

    /// Waits until none is left and all ends are told, for so long.
    fn none_left(&self, within: Duration) -> bool {
        let some_left = |all: &mut All| !all.groups.is_empty() || all.telling > 0;
        let waited = self.fewer.wait_timeout_while(self.all(), within, some_left);
        !some_left(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn kill(&self, signal: Signal) {
        let mut all = self.all();
        all.sent = Some(signal);
        for group in all.groups.values().flatten() {
            // It may have gone in this very moment.
            let _ = kill_process_group(*group, signal);
        }
    }
}

/// The helper's work.
pub(super) struct Scripts {
    channel: Arc<Channel>,
    running: Arc<Running>,
}

impl Scripts {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel: Arc::new(channel), running: Arc::default() }
    }

    /// Does what is asked for until the end.
    ///
    /// # Errors
    /// What came was no request.
    pub(super) fn serve(self) -> io::Result<()> {
        let mut longest = Duration::ZERO;
        loop {
            match self.channel.receive() {
                Ok(Some(Request::Run { id, limit_ms, script, environment })) => {
                    let limit = Duration::from_millis(limit_ms);
                    longest = longest.max(limit);
                    self.run(id, limit, script, environment);
                }
                Ok(Some(Request::RemoveSocket { path, device, inode })) => remove_socket(&path, device, inode),
                Ok(Some(Request::End {})) => {
                    self.running.kill(Signal::TERM);
                    if !self.running.none_left(GRACE) {
                        self.running.kill(Signal::KILL);
                        self.running.none_left(GRACE);
                    }
                    return Ok(());
                }
                Ok(None) => {
                    self.running.none_left(longest + GRACE * 3);
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {
                    self.running.none_left(longest + GRACE * 3);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn run(&self, id: u64, limit: Duration, script: String, environment: Vec<(String, String)>) {
        let (channel, running) = (Arc::clone(&self.channel), Arc::clone(&self.running));
        // Nobody may listen any more; then nobody wants to know.
        let report = move |report: Report| channel.send(&report).unwrap_or_default();
        if !running.expect(id) {
            return report(Report::Ended { id, end: End::NotRun("too many scripts run already".into()) });
        }
        let (of_thread, on_failure) = (report.clone(), Arc::clone(&self.running));
        let work = move || {
            let end = one(id, limit, &script, &environment, &running, &of_thread);
            running.ended(id);
            of_thread(Report::Ended { id, end: end.unwrap_or_else(|error| End::NotRun(error.to_string())) });
            running.told();
        };
        if let Err(error) = std::thread::Builder::new().name(format!("script-{id}")).spawn(work) {
            on_failure.ended(id);
            report(Report::Ended { id, end: End::NotRun(error.to_string()) });
            on_failure.told();
        }
    }
}

/// It may be another one by now, or none.
fn remove_socket(path: &str, device: u64, inode: u64) {
    let same = |file: &Metadata| file.file_type().is_socket() && (file.dev(), file.ino()) == (device, inode);
    if std::fs::symlink_metadata(path).is_ok_and(|file| same(&file)) {
        let _ = std::fs::remove_file(path);
    }
}

fn one(
    id: u64,
    limit: Duration,
    script: &str,
    environment: &[(String, String)],
    running: &Running,
    report: &impl Fn(Report),
) -> io::Result<End> {
    let started = Started::start(script, environment)?;
    running.started(id, started.group());
    started.wait(limit, |output| {
        report(match output {
            Output::Line(text) => Report::Line { id, text },
            Output::Omitted(lines) => Report::Omitted { id, lines },
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving() -> (Channel, std::thread::JoinHandle<io::Result<()>>) {
        let (ours, theirs) = Channel::pair().unwrap();
        let scripts = Scripts::new(Channel::of(theirs).unwrap());
        (ours, std::thread::spawn(move || scripts.serve()))
    }

    fn run(id: u64, script: &str) -> Request {
        Request::Run { id, limit_ms: 60_000, script: script.into(), environment: Vec::new() }
    }

    fn line(id: u64, text: &str) -> Report {
        Report::Line { id, text: text.into() }
    }

    fn ended(id: u64, end: End) -> Report {
        Report::Ended { id, end }
    }

    /// By either signal: a machine that has much to do may take the whole grace for the first.
    fn has_been_killed(channel: &Channel) -> bool {
        matches!(channel.receive().unwrap(), Some(Report::Ended { id: 1, end: End::Killed(_) }))
    }

    fn directory(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("cygnetd-helper-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn scripts_run_side_by_side_and_are_told_apart() {
        let (channel, thread) = serving();
        let directory = directory("apart");
        let go = directory.join("go");
        let slow = format!("until [ -e {} ]; do sleep 0.02; done; echo slow; exit 1", go.display());
        channel.send(&run(1, &slow)).unwrap();
        channel.send(&run(2, "echo quick")).unwrap();
        let told = || channel.receive::<Report>().unwrap().unwrap();
        assert_eq!([told(), told()], [line(2, "quick"), ended(2, End::Exited(0))]);
        std::fs::write(go, "").unwrap();
        assert_eq!([told(), told()], [line(1, "slow"), ended(1, End::Exited(1))]);
        channel.send(&Request::End {}).unwrap();
        thread.join().unwrap().unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_cannot_be_run_is_told() {
        let (channel, thread) = serving();
        channel.send(&run(1, "nul \0 octet")).unwrap();
        let Some(Report::Ended { id: 1, end: End::NotRun(why) }) = channel.receive().unwrap() else { panic!() };
        assert!(why.contains("nul byte"), "{why}");
        channel.send(&"nonsense").unwrap();
        thread.join().unwrap().unwrap_err();
    }

    #[test]
    fn at_the_end_everything_is_killed_but_a_vanished_daemon_is_outlived() {
        let directory = directory("end");
        let (channel, thread) = serving();
        channel.send(&run(1, "echo begun; sleep 600")).unwrap();
        assert_eq!(channel.receive().unwrap(), Some(line(1, "begun")));
        channel.send(&Request::End {}).unwrap();
        thread.join().unwrap().unwrap();
        assert!(has_been_killed(&channel));
        let (channel, thread) = serving();
        channel.send(&run(1, &format!("sleep 0.2; touch {}/finished", directory.display()))).unwrap();
        drop(channel);
        thread.join().unwrap().unwrap();
        assert!(directory.join("finished").exists());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_only_being_started_at_the_end_is_killed_as_well() {
        for _ in 0..20 {
            let (channel, thread) = serving();
            channel.send(&run(1, "sleep 600")).unwrap();
            channel.send(&Request::End {}).unwrap();
            thread.join().unwrap().unwrap();
            assert!(has_been_killed(&channel));
        }
    }

    #[test]
    fn a_user_who_asks_for_the_mode_is_told_that_it_is_not_for_him() {
        assert!(asked(["cygnetd", "--check"].map(OsString::from).into_iter()).is_none());
        assert!(asked(["cygnetd"].map(OsString::from).into_iter()).is_none());
    }
}
