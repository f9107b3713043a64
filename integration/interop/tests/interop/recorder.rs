//! A VICI server between a client and a daemon, or in the place of one: it writes down what goes through, octet by octet.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use swanctl_compat::vici::frame::{self, Deframer};
use swanctl_compat::vici::{Message, Packet};

/// How long a client may take for one step.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gives the answers to a request: events, and the answer itself.
pub(crate) type Script = fn(&Packet) -> Vec<Packet>;

/// Who gives the answers.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// The daemon at this socket.
    Daemon(PathBuf),
    /// Nobody: what is written down.
    Script(Script),
    /// Nobody: every command succeeds, and what a daemon would have loaded already is nothing but these connections.
    Pretence {
        /// Names that `get-conns` gives.
        connections: Vec<String>,
        /// Ids that `get-shared` gives.
        secrets: Vec<String>,
    },
}

/// One request of a client and what came back for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// The packet as it came.
    pub(crate) request: Packet,
    /// Its octets.
    pub(crate) octets: Vec<u8>,
    /// Events before the answer, and the answer.
    pub(crate) answers: Vec<Packet>,
}

/// A command's name and message.
pub(crate) fn request_of(packet: &Packet) -> Option<(&str, &Message)> {
    if let Packet::CmdRequest(name, message) = packet { Some((name, message)) } else { None }
}

/// An event's name and message.
pub(crate) fn event_of(packet: &Packet) -> Option<(&str, &Message)> {
    if let Packet::Event(name, message) = packet { Some((name, message)) } else { None }
}

/// An answer's message.
pub(crate) fn answer_of(packet: &Packet) -> Option<&Message> {
    if let Packet::CmdResponse(message) = packet { Some(message) } else { None }
}

/// A listening socket that serves one client after the other.
pub(crate) struct Recorder {
    path: PathBuf,
    sessions: Receiver<Result<Vec<Exchange>>>,
    _server: JoinHandle<()>,
}

impl Recorder {
    /// Listens at `path`.
    pub(crate) fn start(path: &Path, behind: Behind) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        let (sender, sessions) = mpsc::channel();
        // It ends with the test program: between clients it waits for ever.
        let server = std::thread::spawn(move || serve(&listener, &behind, &sender));
        Ok(Self { path: path.to_owned(), sessions, _server: server })
    }

    /// The address for `--uri`.
    pub(crate) fn uri(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// What the client that has just gone said and heard.
    pub(crate) fn session(&self) -> Result<Vec<Exchange>> {
        match self.sessions.recv_timeout(PATIENCE) {
            Ok(session) => session,
            Err(RecvTimeoutError::Timeout) => bail!("no client came, or it did not go"),
            Err(RecvTimeoutError::Disconnected) => bail!("the recorder has ended"),
        }
    }
}

fn serve(listener: &UnixListener, behind: &Behind, sessions: &Sender<Result<Vec<Exchange>>>) {
    for client in listener.incoming() {
        let session = client.map_err(Into::into).and_then(|client| record(client, behind));
        if sessions.send(session).is_err() {
            return;
        }
    }
}

fn record(client: UnixStream, behind: &Behind) -> Result<Vec<Exchange>> {
    client.set_read_timeout(Some(PATIENCE))?;
    let daemon = match behind {
        Behind::Daemon(path) => Some(Line::new(UnixStream::connect(path)?)?),
        Behind::Pretence { .. } | Behind::Script(_) => None,
    };
    let mut client = Line::new(client)?;
    let mut daemon = daemon;
    let mut session = Vec::new();
    while let Some(octets) = client.next()? {
        let request = Packet::decode(&octets).with_context(|| format!("{octets:?} is no packet"))?;
        let answers = match (&mut daemon, behind) {
            (Some(daemon), _) => daemon.ask(&request)?,
            (None, Behind::Script(script)) => script(&request),
            (None, Behind::Pretence { connections, secrets }) => vec![pretend(&request, connections, secrets)],
            (None, Behind::Daemon(_)) => bail!("no daemon"),
        };
        for answer in &answers {
            client.say(answer)?;
        }
        session.push(Exchange { request, octets, answers });
    }
    Ok(session)
}

fn pretend(request: &Packet, connections: &[String], secrets: &[String]) -> Packet {
    let list = |name: &str, items: &[String]| {
        let mut message = Message::new();
        message.list(name, items.iter().map(String::as_str));
        message
    };
    match request {
        Packet::CmdRequest(name, _) => Packet::CmdResponse(match name.as_str() {
            "get-conns" => list("conns", connections),
            "get-shared" => list("keys", secrets),
            "get-keys" => list("keys", &[]),
            "get-authorities" => list("authorities", &[]),
            "get-pools" => Message::new(),
            "version" => Message::new().with("daemon", "pretender").with("version", "0"),
            _ => Message::new().with("success", "yes"),
        }),
        Packet::EventRegister(_) | Packet::EventUnregister(_) => Packet::EventConfirm,
        Packet::CmdResponse(_)
        | Packet::CmdUnknown
        | Packet::EventConfirm
        | Packet::EventUnknown
        | Packet::Event(..) => Packet::CmdUnknown,
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// One end of a connection.
pub(crate) struct Line {
    stream: UnixStream,
    deframer: Deframer,
    waiting: VecDeque<Vec<u8>>,
}

impl Line {
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, deframer: Deframer::new(), waiting: VecDeque::new() })
    }

    pub(crate) fn say(&mut self, packet: &Packet) -> Result<()> {
        Ok(self.stream.write_all(&frame::encode(packet)?)?)
    }

    /// Whatever octets.
    pub(crate) fn say_octets(&mut self, octets: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(octets)?)
    }

    /// The octets of the next packet; nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(octets) = self.waiting.pop_front() {
                return Ok(Some(octets));
            }
            while let Some(octets) = self.deframer.next_packet()? {
                self.waiting.push_back(octets);
            }
            if !self.waiting.is_empty() {
                continue;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => self.deframer.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                // A wait with a limit is not taken up again by itself.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next packet, if one comes soon.
    pub(crate) fn next_within(&mut self, time: Duration) -> Result<Option<Vec<u8>>> {
        self.stream.set_read_timeout(Some(time))?;
        let next = self.next();
        self.stream.set_read_timeout(Some(PATIENCE))?;
        match next {
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_timeout) => Ok(None),
            other => other,
        }
    }

    /// Events and the answer to a request.
    pub(crate) fn ask(&mut self, request: &Packet) -> Result<Vec<Packet>> {
        self.say(request)?;
        let mut answers = Vec::new();
        loop {
            let octets = self.next()?.context("the daemon closed the connection")?;
            let packet = Packet::decode(&octets)?;
            let last = !matches!(packet, Packet::Event(..));
            answers.push(packet);
            if last {
                return Ok(answers);
            }
            ensure!(answers.len() < 100_000, "events without end");
        }
    }
}
