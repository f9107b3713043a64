//! What the daemon and its helper say to each other: one JSON value in each packet of a `SOCK_SEQPACKET` pair, at most [`LONGEST`] octets. What
//! does not parse ends the conversation.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// More than a socket buffer of the usual size takes as one packet; where buffers are larger, no more than this is sent all the same.
const LONGEST: usize = 256 * 1024;
/// An end that does not read for so long is as good as dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// To the helper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// Run a script.
    Run {
        /// Names it in reports.
        id: u64,
        /// It is killed after this.
        limit_ms: u64,
        /// For `/bin/sh -c`.
        script: String,
        /// All of its environment.
        environment: Vec<(String, String)>,
    },
    /// Remove the file of a socket, if it is the same still.
    RemoveSocket {
        /// Where.
        path: String,
        /// The file's device.
        device: u64,
        /// Its number there.
        inode: u64,
    },
    /// Kill what runs and end.
    End {},
}

/// From the helper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Report {
    /// A line that a script has written.
    Line {
        /// Which.
        id: u64,
        /// Without control characters.
        text: String,
    },
    /// Lines of a script that were left out because there were too many.
    Omitted {
        /// Which.
        id: u64,
        /// How many.
        lines: u64,
    },
    /// A script has ended.
    Ended {
        /// Which.
        id: u64,
        /// How.
        end: End,
    },
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", content = "detail", rename_all = "kebab-case")]
pub(super) enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that was not ours.
    Killed(i32),
    /// It took too long and was killed.
    TimedOut,
    /// It was not run at all.
    NotRun(String),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::of(ours)?, theirs))
    }

    /// The end that `socket` is.
    ///
    /// # Errors
    /// It is another kind of file.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Nothing is sent or received any more, by any of its duplicates.
    pub(super) fn close(&self) {
        // It may be closed already.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// The same end, for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `EMSGSIZE` when it is too long; otherwise the other end has gone or does not read.
    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let octets = serde_json::to_vec(message)?;
        if octets.len() > LONGEST {
            return Err(rustix::io::Errno::MSGSIZE.into());
        }
        loop {
            match rustix::net::send(&self.0, &octets, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                outcome => return outcome.map(drop).map_err(Into::into),
            }
        }
    }

    /// Waits for one message; nothing when the other end has gone.
    ///
    /// # Errors
    /// What was said is none.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut buffer = vec![0; LONGEST];
        let length = loop {
            match rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                outcome => break outcome?.1,
            }
        };
        match buffer.get(..length) {
            Some([]) => Ok(None),
            Some(octets) => Ok(Some(serde_json::from_slice(octets)?)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        let b = Channel::of(b).unwrap();
        let run =
            Request::Run { id: 7, limit_ms: 1, script: "true\n".into(), environment: vec![("A".into(), "b c".into())] };
        a.send(&run).unwrap();
        a.send(&Request::End {}).unwrap();
        assert_eq!(b.receive::<Request>().unwrap(), Some(run));
        assert_eq!(b.receive::<Request>().unwrap(), Some(Request::End {}));
        for end in [End::Exited(3), End::Killed(9), End::TimedOut, End::NotRun("no".into())] {
            b.send(&Report::Ended { id: 1, end: end.clone() }).unwrap();
            assert_eq!(a.receive::<Report>().unwrap(), Some(Report::Ended { id: 1, end }));
        }
        drop(b);
        assert_eq!(a.receive::<Report>().unwrap(), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            r#"{"request":"end","more":1}"#,
            r#"{"request":"stop"}"#,
            r#"{"request":"run","id":1,"limit_ms":2,"script":"x","environment":[],"user":"root"}"#,
            "{}",
            "\u{0}",
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_too_long_is_told_from_an_end_that_has_gone() {
        let (a, b) = Channel::pair().unwrap();
        let run = Request::Run { id: 7, limit_ms: 1, script: "\u{1}".repeat(60_000), environment: Vec::new() };
        assert_eq!(a.send(&run).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        // A larger buffer would let it through, and the other end would take it for nonsense.
        rustix::net::sockopt::set_socket_send_buffer_size(&a.0, 2 * LONGEST).unwrap();
        let run = Request::Run { id: 7, limit_ms: 1, script: "x".repeat(LONGEST), environment: Vec::new() };
        assert_eq!(a.send(&run).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop(b);
        // A process that another test has just forked has it, too, until it runs its own program.
        let gone = (0..10_000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            a.send(&Request::End {}).err()
        });
        assert_eq!(gone.unwrap().raw_os_error(), Some(libc::EPIPE));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(Channel::of(reader.into()).is_err(), "no socket");
    }
}
