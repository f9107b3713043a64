//! Running one script: what it writes line by line, its time, its end.

use std::io::{self, PipeReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::protocol::End;

/// Between being asked to end and being made to.
const GRACE: Duration = Duration::from_secs(2);
/// How long the last lines are waited for once the script has ended: something it has left in the background may hold the pipe.
const LAST_LINES: Duration = Duration::from_millis(50);
/// Lines that are handed on; further ones are counted.
const LINES: u64 = 200;
/// Octets of a line that are handed on.
const LINE: usize = 1_000;

/// What a script writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Line(String),
    Omitted(u64),
}

/// A script that was started, in a process group of its own.
pub(super) struct Started {
    shell: Child,
    group: Pid,
    output: PipeReader,
}

impl Started {
    /// Starts a line of the shell's in exactly this environment.
    pub(super) fn start(script: &str, environment: &[(String, String)]) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let shell = command.spawn()?;
        let group = i32::try_from(shell.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { shell, group, output })
    }

    /// Its process group.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Waits for its end, for `limit` at most; what it writes is handed on meanwhile.
    ///
    /// # Errors
    /// It cannot be watched. Then it is killed: what nobody watches does not run.
    pub(super) fn wait(mut self, limit: Duration, written: impl FnMut(Output)) -> io::Result<End> {
        let end = self.watch(limit, written);
        if end.is_err() && matches!(self.shell.try_wait(), Ok(None)) {
            // They may go in this very moment.
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.shell.kill();
            let _ = self.shell.wait();
        }
        end
    }

    fn watch(&mut self, limit: Duration, mut written: impl FnMut(Output)) -> io::Result<End> {
        let ended = pidfd_open(self.group, PidfdFlags::empty())?;
        let mut lines = Lines::default();
        let mut open = true;
        let begun = Instant::now();
        let mut steps = [(limit, Signal::TERM), (limit + GRACE, Signal::KILL)].into_iter().peekable();
        let mut late = false;
        loop {
            let until = steps.peek().map(|(at, _)| at.saturating_sub(begun.elapsed()));
            let has_ended = {
                let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
                if open {
                    fds.push(PollFd::new(&self.output, PollFlags::IN));
                }
                wait(&mut fds, until)?;
                !fds.first().is_none_or(|fd| fd.revents().is_empty())
            };
            open = open && self.read(&mut lines, &mut written)?;
            if has_ended {
                break;
            }
            if let Some((_, signal)) = steps.next_if(|(at, _)| begun.elapsed() >= *at) {
                late = true;
                // It may have gone in this very moment.
                let _ = kill_process_group(self.group, signal);
            }
        }
        let status = self.shell.wait()?;
        self.last_lines(open, &mut lines, &mut written)?;
        lines.finish(&mut written);
        Ok(match (late, status.code(), status.signal()) {
            (true, ..) => End::TimedOut,
            (false, Some(code), _) => End::Exited(code),
            (false, None, signal) => End::Killed(signal.unwrap_or_default()),
        })
    }

    /// Reads once if there is something; false at the end of the pipe.
    fn read(&mut self, lines: &mut Lines, written: &mut impl FnMut(Output)) -> io::Result<bool> {
        if !wait(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(Duration::ZERO))? {
            return Ok(true);
        }
        Ok(self.take(lines, written)? > 0)
    }

    /// Reads once; tells how many octets.
    fn take(&mut self, lines: &mut Lines, written: &mut impl FnMut(Output)) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let length = self.output.read(&mut buffer)?;
        lines.take(buffer.get(..length).unwrap_or_default(), written);
        Ok(length)
    }

    /// What is in the pipe when the script has ended, and what it has left in the background writes at once.
    fn last_lines(&mut self, open: bool, lines: &mut Lines, written: &mut impl FnMut(Output)) -> io::Result<()> {
        let mut open = open;
        // Its own words are all there by now, and none is lost however long we take for them.
        let mut own = ioctl_fionread(&self.output)?;
        while open && own > 0 {
            let taken = self.take(lines, written)?;
            open = taken > 0;
            own = own.saturating_sub(taken as u64);
        }
        let begun = Instant::now();
        while open && begun.elapsed() < LAST_LINES {
            if !wait(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(LAST_LINES.saturating_sub(begun.elapsed())))?
            {
                break;
            }
            open = self.read(lines, written)?;
        }
        Ok(())
    }
}

/// Whether one of them is ready within the time.
fn wait(fds: &mut [PollFd<'_>], within: Option<Duration>) -> io::Result<bool> {
    let within = within.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match poll(fds, within.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Cuts what is written into lines, so many and so long.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    told: u64,
    omitted: u64,
}

impl Lines {
    fn take(&mut self, octets: &[u8], written: &mut impl FnMut(Output)) {
        for octet in octets {
            match octet {
                b'\n' => self.end(written),
                // The rest of an overlong line is left out.
                _ if self.line.len() < LINE => self.line.push(*octet),
                _ => {}
            }
        }
    }

    fn end(&mut self, written: &mut impl FnMut(Output)) {
        let line = std::mem::take(&mut self.line);
        if self.told == LINES {
            self.omitted += 1;
            return;
        }
        self.told += 1;
        written(Output::Line(
            String::from_utf8_lossy(&line).trim_end().replace('\t', " ").replace(char::is_control, "?"),
        ));
    }

    fn finish(mut self, written: &mut impl FnMut(Output)) {
        if !self.line.is_empty() {
            self.end(written);
        }
        if self.omitted > 0 {
            written(Output::Omitted(self.omitted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, environment: &[(&str, &str)], limit: Duration) -> (End, Vec<Output>) {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut written = Vec::new();
        let started = Started::start(script, &environment).unwrap();
        let end = started.wait(limit, |output| written.push(output)).unwrap();
        (end, written)
    }

    /// The same of a script whose time begins to count with its first words: how long a shell takes to start is not its fault.
    fn run_from_its_first_words(script: &str, limit: Duration) -> (End, Vec<Output>) {
        let mut written = Vec::new();
        let started = Started::start(script, &[]).unwrap();
        assert!(wait(&mut [PollFd::new(&started.output, PollFlags::IN)], Some(LONG)).unwrap(), "it says nothing");
        let end = started.wait(limit, |output| written.push(output)).unwrap();
        (end, written)
    }

    /// A process that a script has named, in the kernel's words; none once it is gone.
    fn state(pid: &Output) -> Option<String> {
        let Output::Line(pid) = pid else { panic!("{pid:?}") };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, state) = stat.rsplit_once(") ")?;
        state.split(' ').next().map(str::to_owned)
    }

    fn line(text: &str) -> Output {
        Output::Line(text.to_owned())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_of_both_streams_comes_line_by_line_with_the_status() {
        let (end, written) = run("echo out; echo err >&2; printf 'a\\033[0mb'; exit 3", &[], LONG);
        assert_eq!(end, End::Exited(3));
        assert_eq!(written, [line("out"), line("err"), line("a?[0mb")]);
        assert_eq!(run("kill -9 $$", &[], LONG).0, End::Killed(9));
        assert_eq!(run("/nonexistent/program", &[], LONG).0, End::Exited(127));
    }

    #[test]
    fn the_environment_is_what_was_given_and_nothing_else() {
        let (_, written) = run("/usr/bin/env; pwd", &[("A", "1 $(id) `id`;\"'")], LONG);
        let mut lines: Vec<_> = written
            .into_iter()
            .map(|output| match output {
                Output::Line(text) => text,
                Output::Omitted(_) => panic!("too much"),
            })
            .collect();
        lines.sort();
        assert_eq!(lines, ["/", "A=1 $(id) `id`;\"'", "PWD=/"]);
    }

    #[test]
    fn what_takes_too_long_is_killed_with_what_it_has_started() {
        let begun = Instant::now();
        let (end, written) = run_from_its_first_words("sleep 600 & echo $!; wait", Duration::from_millis(200));
        assert_eq!(end, End::TimedOut);
        // The signal was sent; the kernel ends each process of the group in its own time.
        while state(&written[0]).is_some_and(|state| !["Z", "X"].contains(&&*state)) {
            assert!(begun.elapsed() < LONG, "{:?} is still there", written[0]);
            std::thread::sleep(Duration::from_millis(5));
        }
        let stubborn = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
        let (end, written) = run_from_its_first_words(stubborn, Duration::from_millis(100));
        assert_eq!((end, written), (End::TimedOut, vec![line("deaf")]));
    }

    #[test]
    fn what_cannot_be_watched_does_not_run() {
        let mut started = Started::start("exec sleep 60", &[]).unwrap();
        let process = format!("/proc/{}", started.shell.id());
        // Of this number there is no process anywhere.
        started.group = Pid::from_raw(i32::MAX).unwrap();
        started.wait(LONG, |_| ()).unwrap_err();
        assert!(!std::path::Path::new(&process).exists());
    }

    #[test]
    fn what_it_leaves_in_the_background_is_not_waited_for() {
        let (end, written) = run("sleep 600 & echo $!; echo done", &[], LONG);
        assert_eq!((end, written.last()), (End::Exited(0), Some(&line("done"))));
        assert!(state(&written[0]).is_some_and(|state| !["Z", "X"].contains(&&*state)), "it goes on");
        let Output::Line(pid) = &written[0] else { panic!("{written:?}") };
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn nothing_it_has_said_is_lost_on_who_listens_slowly() {
        // Few of these lines come with one read.
        let started = Started::start("i=0; while [ $i -lt 100 ]; do printf '%0300d\\n' $i; i=$((i+1)); done", &[]);
        let mut told = 0;
        let count = |_| {
            told += 1;
            std::thread::sleep(LAST_LINES / 10);
        };
        assert_eq!(started.unwrap().wait(LONG, count).unwrap(), End::Exited(0));
        assert_eq!(told, 100);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (end, written) = run("i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done", &[], LONG);
        assert_eq!(end, End::Exited(0));
        assert_eq!(written.len(), 201);
        assert_eq!(written.last(), Some(&Output::Omitted(300)));
        let (_, written) = run("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end", &[], LONG);
        assert_eq!(written, [Output::Line("x".repeat(LINE)), line("end")]);
        assert_eq!(run("yes", &[], Duration::from_millis(300)).0, End::TimedOut);
    }
}
