//! One client: packets in, handled strictly one after the other; answers and events out through one bounded queue.

use std::sync::Arc;

use swanctl_compat::request::EVENTS;
use swanctl_compat::vici::frame::{Deframer, MAX_PACKET};
use swanctl_compat::vici::{Packet, frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::commands::Commands;
use crate::subscribers::{Client, Frame};

/// Octets a client may send ahead while one of its requests is being handled.
const AHEAD: usize = 2 * MAX_PACKET;

/// Serves one client until it goes away.
pub(super) async fn serve<C: Commands>(stream: UnixStream, commands: Arc<C>) {
    let (reader, writer) = stream.into_split();
    let (client, queue) = commands.subscribers().join();
    let writing = tokio::spawn(write(writer, queue));
    let mut session = Session { reader, deframer: Deframer::new(), client: Arc::clone(&client), commands };
    let end = session.run().await;
    session.commands.subscribers().leave(&client);
    match end {
        End::Gone => {}
        End::Slow => {
            session.commands.subscribers().lost();
            tracing::warn!("a VICI client does not read its events and was disconnected");
            writing.abort();
        }
        End::Broken(why) => tracing::warn!(why, "a VICI client broke the protocol and was disconnected"),
    }
}

/// Why a session ended.
enum End {
    Gone,
    Slow,
    Broken(String),
}

/// Writes what is queued; ends when the session has dropped its side, or the client has gone.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        if writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}

struct Session<C> {
    reader: OwnedReadHalf,
    deframer: Deframer,
    client: Arc<Client>,
    commands: Arc<C>,
}

impl<C: Commands> Session<C> {
    async fn run(&mut self) -> End {
        // What a client sends may be a secret.
        let mut buffer = Zeroizing::new(vec![0; 64 * 1024]);
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
                    () = self.client.cut_off() => return End::Slow,
                },
            }
        }
    }

    /// Handles one packet, and meanwhile reads on: a client that goes away ends its wait.
    async fn packet(&mut self, octets: &[u8], buffer: &mut [u8]) -> Option<End> {
        let packet = match Packet::decode(octets) {
            Ok(packet) => packet,
            Err(error) => {
                // As the protocol has it: no answer.
                tracing::warn!(%error, "a VICI client sent a malformed packet");
                return None;
            }
        };
        let handling = handle(&*self.commands, &self.client, packet);
        tokio::pin!(handling);
        let mut ahead = 0;
        loop {
            tokio::select! {
                biased;
                alive = &mut handling => return (!alive).then_some(End::Gone),
                () = self.client.cut_off() => return Some(End::Slow),
                read = self.reader.read(buffer), if ahead < AHEAD => match read {
                    Ok(0) | Err(_) => return Some(End::Gone),
                    Ok(length) => {
                        ahead += length;
                        self.deframer.push(buffer.get(..length).unwrap_or_default());
                    }
                },
            }
        }
    }
}

/// Handles one packet; `false` when the client has gone.
async fn handle<C: Commands>(commands: &C, client: &Arc<Client>, packet: Packet) -> bool {
    let answer = match packet {
        Packet::CmdRequest(name, message) => commands.execute(client, &name, &message).await,
        Packet::EventRegister(event) => register(commands, client, &event),
        Packet::EventUnregister(event) => {
            let known = client.unregister(&event);
            commands.subscribers().refresh_log_level();
            if known { Packet::EventConfirm } else { Packet::EventUnknown }
        }
        Packet::CmdResponse(_)
        | Packet::CmdUnknown
        | Packet::EventConfirm
        | Packet::EventUnknown
        | Packet::Event(..) => {
            tracing::warn!("a VICI client sent a packet that only the daemon sends");
            return true;
        }
    };
    send(client, &answer).await
}

fn register<C: Commands>(commands: &C, client: &Client, event: &str) -> Packet {
    if !EVENTS.contains(&event) {
        return Packet::EventUnknown;
    }
    client.register(event);
    commands.subscribers().refresh_log_level();
    Packet::EventConfirm
}

/// Queues one packet; one that is too long for the protocol is left out, with a line in the log. `false` when the client has gone.
pub(super) async fn send(client: &Client, packet: &Packet) -> bool {
    match frame::encode(packet) {
        Ok(octets) => client.send(octets.into()).await,
        Err(error) => {
            tracing::error!(%error, "an answer is too long for VICI and was not sent");
            true
        }
    }
}
