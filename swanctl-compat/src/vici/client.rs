//! A VICI client over any stream: one command at a time, events passed on as they come. Opening the stream is left to the caller.

use std::fmt;
use std::io::{self, Read, Write};

use super::endpoint::EndpointError;
use super::frame::{self, Deframer};
use super::{Message, Packet};

/// Why talking to the daemon failed.
#[derive(Debug)]
pub enum ClientError {
    /// A URI that is none of ours.
    Uri(String, EndpointError),
    /// No connection.
    Connect(String, io::Error),
    /// The connection broke.
    Io(io::Error),
    /// What came is no VICI, or not what was due.
    Protocol(String),
    /// The daemon does not know this command.
    UnknownCommand(String),
    /// The daemon does not know this event.
    UnknownEvent(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri, error) => write!(f, "'{uri}': {error}"),
            Self::Connect(uri, error) => write!(f, "connecting to '{uri}' URI failed: {}", reason(error)),
            Self::Io(error) => write!(f, "{}", reason(error)),
            Self::Protocol(text) => write!(f, "protocol error: {text}"),
            Self::UnknownCommand(name) => write!(f, "the daemon does not know the command '{name}'"),
            Self::UnknownEvent(name) => write!(f, "the daemon does not know the event '{name}'"),
        }
    }
}

/// The error's text without the number that Rust appends.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

impl ClientError {
    /// Exit code of a program that ends because of it: the error number of the system where there is one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Connect(_, error) | Self::Io(error) => {
                error.raw_os_error().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
            }
            Self::Uri(..) => ENOENT,
            Self::Protocol(_) | Self::UnknownCommand(_) | Self::UnknownEvent(_) => 1,
        }
    }
}

/// What strongSwan's tool ends with where a URI leads nowhere.
const ENOENT: u8 = 2;

/// Exit code of bad input, the number of EINVAL.
pub const EINVAL: u8 = 22;

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    deframer: Deframer,
}

impl<S: Read + Write> Client<S> {
    /// A client at the start of a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, deframer: Deframer::new() }
    }

    /// Asks for an event.
    ///
    /// # Errors
    /// When the daemon does not know it, or the connection fails.
    pub fn register(&mut self, event: &str) -> Result<(), ClientError> {
        self.send(&Packet::EventRegister(event.to_owned()))?;
        loop {
            match self.receive()? {
                Packet::EventConfirm => return Ok(()),
                Packet::EventUnknown => return Err(ClientError::UnknownEvent(event.to_owned())),
                // An event registered before may come in between; nobody waits for it yet.
                Packet::Event(..) => {}
                packet @ (Packet::CmdRequest(..)
                | Packet::CmdResponse(_)
                | Packet::CmdUnknown
                | Packet::EventRegister(_)
                | Packet::EventUnregister(_)) => return Err(unexpected(&packet)),
            }
        }
    }

    /// Runs a command and gives its answer; events that come before it go to `on_event`.
    ///
    /// # Errors
    /// When the daemon does not know the command, the connection fails, or `on_event` does.
    pub fn command(
        &mut self,
        name: &str,
        message: Message,
        mut on_event: impl FnMut(&str, &Message) -> Result<(), ClientError>,
    ) -> Result<Message, ClientError> {
        self.send(&Packet::CmdRequest(name.to_owned(), message))?;
        loop {
            match self.receive()? {
                Packet::CmdResponse(answer) => return Ok(answer),
                Packet::CmdUnknown => return Err(ClientError::UnknownCommand(name.to_owned())),
                Packet::Event(event, content) => on_event(&event, &content)?,
                packet @ (Packet::CmdRequest(..)
                | Packet::EventRegister(_)
                | Packet::EventUnregister(_)
                | Packet::EventConfirm
                | Packet::EventUnknown) => return Err(unexpected(&packet)),
            }
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn event(&mut self) -> Result<(String, Message), ClientError> {
        match self.receive()? {
            Packet::Event(event, content) => Ok((event, content)),
            packet @ (Packet::CmdRequest(..)
            | Packet::CmdResponse(_)
            | Packet::CmdUnknown
            | Packet::EventRegister(_)
            | Packet::EventUnregister(_)
            | Packet::EventConfirm
            | Packet::EventUnknown) => Err(unexpected(&packet)),
        }
    }

    fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        let octets = zeroize::Zeroizing::new(frame::encode(packet).map_err(|e| ClientError::Protocol(e.to_string()))?);
        Ok(self.stream.write_all(&octets)?)
    }

    fn receive(&mut self) -> Result<Packet, ClientError> {
        // What comes may be a key.
        let mut buffer = zeroize::Zeroizing::new([0; 16 * 1024]);
        loop {
            if let Some(octets) = self.deframer.next_packet().map_err(|e| ClientError::Protocol(e.to_string()))? {
                return Packet::decode(&zeroize::Zeroizing::new(octets))
                    .map_err(|e| ClientError::Protocol(e.to_string()));
            }
            let length = self.stream.read(&mut buffer[..])?;
            if length == 0 {
                return Err(ClientError::Protocol("the daemon closed the connection".to_owned()));
            }
            self.deframer.push(buffer.get(..length).unwrap_or_default());
        }
    }
}

fn unexpected(packet: &Packet) -> ClientError {
    let name = match packet {
        Packet::CmdRequest(..) => "a command",
        Packet::CmdResponse(_) => "an answer",
        Packet::CmdUnknown => "a refusal of a command",
        Packet::EventRegister(_) | Packet::EventUnregister(_) => "a registration",
        Packet::EventConfirm => "a confirmation",
        Packet::EventUnknown => "a refusal of an event",
        Packet::Event(..) => "an event",
    };
    ClientError::Protocol(format!("the daemon sent {name}, which is not due"))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A daemon that has said everything already.
    #[derive(Default)]
    struct Script {
        answers: VecDeque<u8>,
        received: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // Three octets at a time, so that packets come in pieces.
            let length = buffer.len().min(3);
            self.answers.read(&mut buffer[..length])
        }
    }

    impl Write for Script {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.received.write(octets)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn client(answers: &[Packet]) -> Client<Script> {
        let answers = answers.iter().flat_map(|packet| frame::encode(packet).unwrap()).collect();
        Client::new(Script { answers, received: Vec::new() })
    }

    #[test]
    fn events_come_before_the_answer() {
        let event = || Packet::Event("list-sa".into(), Message::new().with("a", "1"));
        let answer = Message::new().with("done", "yes");
        let mut client = client(&[Packet::EventConfirm, event(), event(), Packet::CmdResponse(answer.clone())]);
        client.register("list-sa").unwrap();
        let mut seen = 0;
        let got = client.command("list-sas", Message::new(), |name, _| {
            assert_eq!(name, "list-sa");
            seen += 1;
            Ok(())
        });
        assert_eq!((got.unwrap(), seen), (answer, 2));
        let sent = [Packet::EventRegister("list-sa".into()), Packet::CmdRequest("list-sas".into(), Message::new())];
        let expected: Vec<u8> = sent.iter().flat_map(|packet| frame::encode(packet).unwrap()).collect();
        assert_eq!(client.stream.received, expected);
    }

    #[test]
    fn refusals_and_ends_are_errors() {
        let run =
            |answers: &[Packet]| client(answers).command("x", Message::new(), |_, _| Ok(())).unwrap_err().to_string();
        assert_eq!(run(&[Packet::CmdUnknown]), "the daemon does not know the command 'x'");
        assert_eq!(run(&[]), "protocol error: the daemon closed the connection");
        assert_eq!(run(&[Packet::EventConfirm]), "protocol error: the daemon sent a confirmation, which is not due");
        let error = client(&[Packet::EventUnknown]).register("e").unwrap_err();
        assert_eq!(error.to_string(), "the daemon does not know the event 'e'");
    }
}
