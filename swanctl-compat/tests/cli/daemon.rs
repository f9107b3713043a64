//! A daemon that answers from a table and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use swanctl_compat::text;
use swanctl_compat::vici::frame::{self, Deframer};
use swanctl_compat::vici::{Message, Packet};

/// What the daemon says.
#[derive(Default)]
pub(crate) struct Script {
    answers: BTreeMap<String, Message>,
    streams: BTreeMap<String, (String, Vec<Message>)>,
    unknown: Vec<String>,
}

impl Script {
    /// Answer to a command; without one it is `success=yes`, or empty for lists.
    pub(crate) fn answers(mut self, command: &str, answer: Message) -> Self {
        self.answers.insert(command.to_owned(), answer);
        self
    }

    /// Events before the answer to a command, or after the registration when the command is `register`.
    pub(crate) fn streams(mut self, command: &str, event: &str, messages: impl IntoIterator<Item = Message>) -> Self {
        self.streams.insert(command.to_owned(), (event.to_owned(), messages.into_iter().collect()));
        self
    }

    /// A command that the daemon does not know.
    pub(crate) fn unknown(mut self, command: &str) -> Self {
        self.unknown.push(command.to_owned());
        self
    }

    fn answer(&self, command: &str) -> Packet {
        if self.unknown.iter().any(|unknown| unknown == command) {
            return Packet::CmdUnknown;
        }
        let silent = ["list-", "get-", "cygnet-"].iter().any(|prefix| command.starts_with(prefix));
        let usual = || if silent { Message::new() } else { Message::new().with("success", "yes") };
        Packet::CmdResponse(self.answers.get(command).cloned().unwrap_or_else(usual))
    }

    fn events(&self, command: &str) -> Vec<Packet> {
        let Some((event, messages)) = self.streams.get(command) else { return Vec::new() };
        messages.iter().map(|message| Packet::Event(event.clone(), message.clone())).collect()
    }
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    commands: Mutex<Vec<String>>,
}

/// A listening daemon; its socket goes away on drop.
pub(crate) struct Daemon {
    path: PathBuf,
    seen: Arc<Seen>,
}

impl Daemon {
    pub(crate) fn start(script: Script) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("swanctl-cli-{}-{number}.vici", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Seen::default());
        let (thread_seen, script) = (Arc::clone(&seen), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread_seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, script) = (Arc::clone(&thread_seen), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &script, &seen));
            }
        });
        Self { path, seen }
    }

    pub(crate) fn uri(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// How many clients connected.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Commands so far, in raw form.
    pub(crate) fn received(&self) -> Vec<String> {
        self.seen.commands.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(mut stream: UnixStream, script: &Script, seen: &Seen) {
    let mut deframer = Deframer::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(octets) = deframer.next_packet().unwrap() {
            for packet in react(Packet::decode(&octets).unwrap(), script, seen) {
                if stream.write_all(&frame::encode(&packet).unwrap()).is_err() {
                    return;
                }
            }
        }
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => deframer.push(&buffer[..length]),
            Ok(_) | Err(_) => return,
        }
    }
}

fn react(packet: Packet, script: &Script, seen: &Seen) -> Vec<Packet> {
    match packet {
        Packet::CmdRequest(command, message) => {
            seen.commands.lock().unwrap().push(format!("{command} {}", text::raw(&message)));
            let mut out = script.events(&command);
            out.push(script.answer(&command));
            out
        }
        Packet::EventRegister(_) => {
            let mut out = vec![Packet::EventConfirm];
            out.extend(script.events("register"));
            out
        }
        Packet::CmdResponse(_)
        | Packet::CmdUnknown
        | Packet::EventUnregister(_)
        | Packet::EventConfirm
        | Packet::EventUnknown
        | Packet::Event(..) => panic!("a client does not send this"),
    }
}
