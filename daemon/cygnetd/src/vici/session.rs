//! One client: packets in, handled strictly one after the other; answers and events out through one bounded queue.

use std::sync::Arc;
use std::time::Duration;

use swanctl_compat::render;
use swanctl_compat::request::{EVENTS, unreadable};
use swanctl_compat::vici::frame::{Deframer, MAX_PACKET};
use swanctl_compat::vici::{DecodeError, Packet, PacketError, frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::account::Account;
use super::commands::Commands;
use super::listener::Connection;
use crate::subscribers::{Client, Queued, Subscribers, framed};

/// Octets of further requests that are kept for a client while one is being handled.
const AHEAD: usize = 2 * MAX_PACKET;

/// Packets without an answer that a client may send until it is cut off: each is a line in the log.
const NONSENSE: u32 = 64;

/// Octets read at once. An idle client costs little more than this.
const BUFFER: usize = 8 * 1024;

/// How long what is queued for a client that has gone may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves one client until it goes away, or for so long takes nothing of an answer.
pub(super) async fn serve<C: Commands>(connection: Connection, commands: Arc<C>, patience: Option<Duration>) {
    let Connection { reader, writer, peer } = connection;
    let (client, queue) = commands.subscribers().join(patience);
    let writing = AbortOnDrop(tokio::spawn(write(writer, queue)));
    let account = Account::new(peer.to_string());
    client.introduce(peer);
    let joined = Joined { subscribers: Arc::clone(commands.subscribers()), client: Arc::clone(&client) };
    let mut session =
        Session { reader, deframer: Deframer::new(), client: Arc::clone(&client), commands, account, nonsense: 0 };
    let end = session.run().await;
    drop(joined);
    let peer = session.account.peer();
    match end {
        End::Broken(why) => tracing::warn!(why, "a VICI client ({peer}) broke the protocol and was disconnected"),
        End::Gone if client.is_stuck() => {
            tracing::warn!("a VICI client ({peer}) did not read its answer and was disconnected");
            return;
        }
        End::Gone => {}
    }
    if client.lost() > 0 {
        tracing::warn!(lost = client.lost(), "a VICI client ({peer}) that did not read all of its events has gone");
    }
    // What is queued may be the last answer of a client that has closed its sending side only. The queue ends when nobody can fill it any more.
    client.close();
    drop((session, client));
    if tokio::time::timeout(FAREWELL, written(writing)).await.is_err() {
        tracing::debug!("a VICI client did not take its last answers");
    }
}

/// Waits until everything that was queued is written.
async fn written(mut writing: AbortOnDrop) {
    // A writer that panicked has said so.
    let _ = (&mut writing.0).await;
}

/// A client among the others, until it leaves them: also when one of its commands panics.
struct Joined {
    subscribers: Arc<Subscribers>,
    client: Arc<Client>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.subscribers.leave(&self.client);
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a session ended.
enum End {
    Gone,
    Broken(String),
}

/// Packets that are written together at most: listings are many short ones.
const TOGETHER: usize = 64;

/// Octets that do not wait for more.
const ENOUGH: usize = 32 * 1024;

/// Writes what is queued; ends when the session has dropped its side, or the client has gone.
async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::UnboundedReceiver<Queued>) {
    let (mut batch, mut part, mut octets) = (Vec::new(), Vec::new(), Vec::new());
    while queue.recv_many(&mut batch, TOGETHER).await > 0 {
        let mut waiting = batch.drain(..).peekable();
        while let Some(queued) = waiting.next() {
            octets.extend_from_slice(&queued.frame);
            part.push(queued);
            if octets.len() < ENOUGH && waiting.peek().is_some() {
                continue;
            }
            if writer.write_all(&octets).await.is_err() {
                return;
            }
            // Only what has been written makes room.
            part.clear();
            octets.clear();
        }
        octets.shrink_to(2 * ENOUGH);
    }
}

struct Session<C> {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    deframer: Deframer,
    client: Arc<Client>,
    commands: Arc<C>,
    account: Account,
    /// Packets without an answer so far.
    nonsense: u32,
}

impl<C: Commands> Session<C> {
    async fn run(&mut self) -> End {
        // What a client sends may be a secret.
        let mut buffer = Zeroizing::new(vec![0; BUFFER]);
        loop {
            match self.deframer.next_packet() {
                Err(error) => return End::Broken(error.to_string()),
                Ok(Some(octets)) => {
                    let octets = Zeroizing::new(octets);
                    if let Some(end) = self.packet(&octets, &mut buffer).await {
                        return end;
                    }
                }
                Ok(None) => tokio::select! {
                    read = self.reader.read(&mut buffer) => match read {
                        Ok(0) | Err(_) => return End::Gone,
                        Ok(length) => self.deframer.push(buffer.get(..length).unwrap_or_default()),
                    },
                    () = self.client.losing() => warn_of_loss(self.account.peer()),
                },
            }
        }
    }

    /// Handles one packet, and meanwhile reads on: a client that goes away ends its wait.
    async fn packet(&mut self, octets: &[u8], buffer: &mut [u8]) -> Option<End> {
        let packet = match Packet::decode(octets) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::warn!(%error, "a VICI client ({}) sent a malformed packet", self.account.peer());
                return match error {
                    PacketError::Request(command, error) => self.refuse(&command, &error).await,
                    // As the protocol has it: no answer.
                    PacketError::Empty
                    | PacketError::UnknownType(_)
                    | PacketError::Name
                    | PacketError::Trailing
                    | PacketError::Message(_) => self.nonsense(),
                };
            }
        };
        if !is_request(&packet) {
            tracing::warn!("a VICI client ({}) sent a packet that only the daemon sends", self.account.peer());
            return self.nonsense();
        }
        if let Packet::CmdRequest(name, message) = &packet {
            tracing::debug!(command = %name.escape_debug(), "command of a VICI client ({})", self.account.peer());
            self.account.note(name, message);
        }
        let handling = handle(&*self.commands, &self.client, packet);
        tokio::pin!(handling);
        loop {
            tokio::select! {
                biased;
                alive = &mut handling => return (!alive).then_some(End::Gone),
                () = self.client.losing() => warn_of_loss(self.account.peer()),
                read = self.reader.read(buffer), if self.deframer.waiting() < AHEAD => match read {
                    Ok(0) | Err(_) => return Some(End::Gone),
                    Ok(length) => self.deframer.push(buffer.get(..length).unwrap_or_default()),
                },
            }
        }
    }

    /// Answers a command whose message cannot be read, so that the client does not wait for ever.
    async fn refuse(&self, command: &str, error: &DecodeError) -> Option<End> {
        let packet = unreadable(command, error).map_or(Packet::CmdUnknown, Packet::CmdResponse);
        (!answer(&self.client, &packet).await).then_some(End::Gone)
    }

    /// One more packet that has no answer. A client that goes on like this would fill the log, and keep the others waiting meanwhile.
    fn nonsense(&mut self) -> Option<End> {
        self.nonsense += 1;
        (self.nonsense > NONSENSE).then(|| End::Broken(format!("more than {NONSENSE} of its packets make no sense")))
    }
}

fn warn_of_loss(peer: &str) {
    tracing::warn!("a VICI client ({peer}) does not read its events and loses them");
}

/// Whether it is one that clients send.
fn is_request(packet: &Packet) -> bool {
    match packet {
        Packet::CmdRequest(..) | Packet::EventRegister(_) | Packet::EventUnregister(_) => true,
        Packet::CmdResponse(_)
        | Packet::CmdUnknown
        | Packet::EventConfirm
        | Packet::EventUnknown
        | Packet::Event(..) => false,
    }
}

/// Handles one packet; `false` when the client has gone.
async fn handle<C: Commands>(commands: &C, client: &Arc<Client>, packet: Packet) -> bool {
    let packet = match packet {
        Packet::CmdRequest(name, message) => commands.execute(client, &name, &message).await,
        Packet::EventRegister(event) => register(commands, client, &event),
        Packet::EventUnregister(event) => {
            let known = client.unregister(&event);
            commands.subscribers().refresh_log_level();
            if known { Packet::EventConfirm } else { Packet::EventUnknown }
        }
        // See `is_request`.
        Packet::CmdResponse(_)
        | Packet::CmdUnknown
        | Packet::EventConfirm
        | Packet::EventUnknown
        | Packet::Event(..) => return true,
    };
    answer(client, &packet).await
}

fn register<C: Commands>(commands: &C, client: &Client, event: &str) -> Packet {
    if !EVENTS.contains(&event) {
        return Packet::EventUnknown;
    }
    client.register(event);
    commands.subscribers().refresh_log_level();
    let peer = client.peer().map(ToString::to_string).unwrap_or_default();
    tracing::debug!(event, "a VICI client listens ({peer})");
    Packet::EventConfirm
}

/// Queues an answer. In place of one that VICI cannot carry goes the reason: whoever asked waits for something. `false` when the client has gone.
async fn answer(client: &Client, packet: &Packet) -> bool {
    let error = match frame::encode(packet) {
        Ok(octets) => return client.send(framed(octets)).await,
        Err(error) => error,
    };
    tracing::error!(%error, "an answer is more than VICI can carry");
    send(client, &Packet::CmdResponse(render::failed(&format!("the answer cannot be given: {error}")))).await
}

/// Queues one element of a stream; one that is too long for the protocol is left out, with a line in the log. `false` when the client has gone.
pub(super) async fn send(client: &Client, packet: &Packet) -> bool {
    match frame::encode(packet) {
        Ok(octets) => client.send(framed(octets)).await,
        Err(error) => {
            tracing::error!(%error, "an event is too long for VICI and was not sent");
            true
        }
    }
}
