//! Sessions over a socket pair, with commands that only pretend.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use swanctl_compat::vici::frame::{self, Deframer};
use swanctl_compat::vici::{Message, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::commands::Commands;
use super::listener::Connection;
use super::session;
use crate::subscribers::{Client, ROOM, Subscribers};

/// How long an answer waits for a client that takes nothing of it.
const PATIENCE: Duration = Duration::from_millis(300);
/// For what comes within a moment.
const LONG: Duration = Duration::from_secs(60);

/// `echo` answers with its request, `stream` sends three events before, `endless` sends them as long as they are taken, `wait` waits to be
/// released, `long` has an answer that does not fit into a packet, `panic` does so.
#[derive(Default)]
struct Fake {
    subscribers: Arc<Subscribers>,
    release: Notify,
    sent: AtomicUsize,
}

impl Commands for Fake {
    fn subscribers(&self) -> &Arc<Subscribers> {
        &self.subscribers
    }

    async fn execute(&self, client: &Arc<Client>, name: &str, message: &Message) -> Packet {
        match name {
            "echo" => {}
            "wait" => self.release.notified().await,
            "long" => {
                let mut answer = Message::new();
                (0..10).for_each(|number| answer.set(format!("k{number}"), vec![b'x'; 60_000]));
                return Packet::CmdResponse(answer);
            }
            "panic" => panic!("of a command, on purpose"),
            "stream" => {
                for number in 0..3 {
                    let event = Packet::Event("list-sa".into(), Message::new().with("n", number.to_string()));
                    session::send(client, &event).await;
                }
            }
            "endless" => {
                let event = Packet::Event("list-sa".into(), Message::new().with("text", "x".repeat(60_000)));
                while session::send(client, &event).await {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => return Packet::CmdUnknown,
        }
        Packet::CmdResponse(message.clone())
    }
}

struct Peer {
    stream: UnixStream,
    deframer: Deframer,
}

impl Peer {
    async fn send(&mut self, packets: &[Packet]) {
        let octets: Vec<u8> = packets.iter().flat_map(|packet| frame::encode(packet).unwrap()).collect();
        self.stream.write_all(&octets).await.unwrap();
    }

    async fn next(&mut self) -> Option<Packet> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(octets) = self.deframer.next_packet().unwrap() {
                return Some(Packet::decode(&octets).unwrap());
            }
            let read = tokio::time::timeout(LONG, self.stream.read(&mut buffer)).await.unwrap();
            match read {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.deframer.push(&buffer[..length]),
            }
        }
    }
}

fn connect(commands: &Arc<Fake>) -> (Peer, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let session = tokio::spawn(session::serve(Connection::unix(theirs), Arc::clone(commands), Some(PATIENCE)));
    (Peer { stream: ours, deframer: Deframer::new() }, session)
}

fn request(name: &str, value: &str) -> Packet {
    Packet::CmdRequest(name.into(), Message::new().with("k", value))
}

fn response(value: &str) -> Packet {
    Packet::CmdResponse(Message::new().with("k", value))
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (mut peer, session) = connect(&Arc::default());
    peer.send(&[request("echo", "1"), request("nonsense", "2"), request("echo", "3")]).await;
    assert_eq!(peer.next().await, Some(response("1")));
    assert_eq!(peer.next().await, Some(Packet::CmdUnknown));
    assert_eq!(peer.next().await, Some(response("3")));
    drop(peer);
    session.await.unwrap();
}

#[tokio::test]
async fn a_stream_comes_before_its_answer() {
    let (mut peer, _session) = connect(&Arc::default());
    peer.send(&[request("stream", "end")]).await;
    for number in 0..3 {
        let event = Packet::Event("list-sa".into(), Message::new().with("n", number.to_string()));
        assert_eq!(peer.next().await, Some(event));
    }
    assert_eq!(peer.next().await, Some(response("end")));
}

#[tokio::test]
async fn registrations_are_confirmed_and_events_come() {
    let commands = Arc::new(Fake::default());
    let (mut peer, session) = connect(&commands);
    let name = |name: &str| name.to_owned();
    peer.send(&[Packet::EventRegister(name("ike-updown")), Packet::EventRegister(name("no-such-event"))]).await;
    assert_eq!(peer.next().await, Some(Packet::EventConfirm));
    assert_eq!(peer.next().await, Some(Packet::EventUnknown));
    commands.subscribers.emit("ike-updown", &Message::new().with("up", "yes"));
    assert_eq!(peer.next().await, Some(Packet::Event(name("ike-updown"), Message::new().with("up", "yes"))));
    peer.send(&[Packet::EventUnregister(name("ike-updown")), Packet::EventUnregister(name("ike-updown"))]).await;
    assert_eq!(peer.next().await, Some(Packet::EventConfirm));
    assert_eq!(peer.next().await, Some(Packet::EventUnknown));
    drop(peer);
    session.await.unwrap();
}

#[tokio::test]
async fn events_come_while_a_command_runs_and_leaving_ends_its_wait() {
    let commands = Arc::new(Fake::default());
    let (mut peer, session) = connect(&commands);
    peer.send(&[Packet::EventRegister("alert".into()), request("wait", "1"), request("wait", "2")]).await;
    assert_eq!(peer.next().await, Some(Packet::EventConfirm));
    commands.subscribers.emit("alert", &Message::new());
    assert_eq!(peer.next().await, Some(Packet::Event("alert".into(), Message::new())));
    commands.release.notify_one();
    assert_eq!(peer.next().await, Some(response("1")));
    // The second one is never released.
    drop(peer);
    tokio::time::timeout(LONG, session).await.unwrap().unwrap();
}

/// charon does not read a message that a command takes nothing from, and says this of the others; nobody waits for ever.
#[tokio::test]
async fn a_command_with_a_message_that_cannot_be_read_is_refused() {
    let (mut peer, _session) = connect(&Arc::default());
    for (name, message) in [("version", &[9_u8][..]), ("terminate", &[1, 1, b'a']), ("nonsense", &[2])] {
        let octets = [&[0, u8::try_from(name.len()).unwrap()], name.as_bytes(), message].concat();
        peer.stream.write_all(&u32::try_from(octets.len()).unwrap().to_be_bytes()).await.unwrap();
        peer.stream.write_all(&octets).await.unwrap();
    }
    for reason in ["unknown element type at octet 0", "message ends too early, at octet 3"] {
        let expected = Message::new().with("success", "no").with("errmsg", format!("parsing request failed: {reason}"));
        assert_eq!(peer.next().await, Some(Packet::CmdResponse(expected)));
    }
    assert_eq!(peer.next().await, Some(Packet::CmdUnknown));
}

#[tokio::test]
async fn malformed_packets_get_no_answer_and_harm_nobody() {
    let (mut peer, _session) = connect(&Arc::default());
    peer.stream.write_all(&[0, 0, 0, 2, 99, 0, 0, 0, 0, 0]).await.unwrap();
    peer.send(&[Packet::CmdUnknown, request("echo", "alive")]).await;
    assert_eq!(peer.next().await, Some(response("alive")));
    peer.stream.write_all(&[0xff; 8]).await.unwrap();
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn who_goes_on_sending_nonsense_is_cut_off() {
    let empty = 0_u32.to_be_bytes().to_vec();
    for nonsense in [empty, frame::encode(&Packet::EventConfirm).unwrap()] {
        let (mut peer, session) = connect(&Arc::default());
        peer.stream.write_all(&nonsense.repeat(1000)).await.unwrap();
        peer.send(&[request("echo", "never read")]).await;
        assert_eq!(peer.next().await, None);
        session.await.unwrap();
    }
}

/// Each request lets some more be read ahead, but not each as much as all.
#[tokio::test]
async fn what_is_sent_ahead_is_bounded_however_many_requests_wait() {
    let commands = Arc::new(Fake::default());
    let (mut peer, _session) = connect(&commands);
    let waits = 8;
    peer.send(&vec![request("wait", "1"); waits]).await;
    let octets = frame::encode(&request("echo", &"x".repeat(60_000))).unwrap();
    let (mut taken, mut sent) = (0, 0);
    for _ in 0..waits {
        let soon = Duration::from_millis(100);
        while let Ok(written) = tokio::time::timeout(soon, peer.stream.write(&octets[sent..])).await {
            let written = written.unwrap();
            (taken, sent) = (taken + written, (sent + written) % octets.len());
        }
        commands.release.notify_one();
        assert_eq!(peer.next().await, Some(response("1")));
    }
    // Twice the longest packet, and what the socket holds.
    assert!((1 << 20..3 << 20).contains(&taken), "{taken} octets");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_told_and_not_waited_for() {
    let (mut peer, _session) = connect(&Arc::default());
    peer.send(&[request("long", "1"), request("echo", "alive")]).await;
    let Some(Packet::CmdResponse(answer)) = peer.next().await else { panic!("no answer") };
    let reason = answer.get_str("errmsg").unwrap();
    assert!(answer.get_str("success") == Some("no") && reason.contains("too long for VICI"), "{reason}");
    assert_eq!(peer.next().await, Some(response("alive")));
}

#[tokio::test]
async fn a_command_that_panics_takes_its_client_along() {
    let commands = Arc::new(Fake::default());
    let (mut peer, session) = connect(&commands);
    peer.send(&[Packet::EventRegister("alert".into())]).await;
    assert_eq!(peer.next().await, Some(Packet::EventConfirm));
    peer.send(&[request("panic", "1")]).await;
    assert_eq!(peer.next().await, None);
    assert!(session.await.is_err() && !commands.subscribers.anybody_wants("alert"));
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_events_and_the_others_go_on() {
    let commands = Arc::new(Fake::default());
    let (mut stuck, _session) = connect(&commands);
    let (mut other, _other_session) = connect(&commands);
    stuck.send(&[Packet::EventRegister("alert".into()), Packet::EventRegister("cygnet-lost".into())]).await;
    assert_eq!(stuck.next().await, Some(Packet::EventConfirm));
    assert_eq!(stuck.next().await, Some(Packet::EventConfirm));
    let big = Message::new().with("text", "x".repeat(60_000));
    const SENT: u64 = 100;
    for _ in 0..SENT {
        commands.subscribers.emit("alert", &big);
        tokio::task::yield_now().await;
    }
    other.send(&[request("echo", "alive")]).await;
    assert_eq!(other.next().await, Some(response("alive")));
    // It reads again: what was kept comes, then how much was lost, and then what happens now.
    stuck.send(&[request("echo", "back")]).await;
    let (mut kept, mut lost) = (0, 0);
    let number = |message: &Message, key: &str| message.get_str(key).unwrap().parse::<u64>().unwrap();
    loop {
        let packet = stuck.next().await.unwrap();
        let Packet::Event(name, message) = packet else { break assert_eq!(packet, response("back")) };
        if name == "alert" {
            assert_eq!(message, big);
            kept += 1;
        } else {
            assert_eq!(name, "cygnet-lost");
            lost += number(&message, "lost");
            assert_eq!(number(&message, "lost-total"), lost);
        }
    }
    commands.subscribers.emit("alert", &Message::new());
    if kept + lost < SENT {
        let Some(Packet::Event(_, message)) = stuck.next().await else { panic!("not told") };
        lost += number(&message, "lost");
    }
    assert_eq!(stuck.next().await, Some(Packet::Event("alert".into(), Message::new())));
    assert!(kept > 0 && lost > 0 && kept + lost == SENT, "{kept} came, {lost} were lost");
}

/// What waits for it is bounded, and after a while nothing does.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_ended() {
    let commands = Arc::new(Fake::default());
    let (mut stuck, session) = connect(&commands);
    let (mut other, _other_session) = connect(&commands);
    let begin = Instant::now();
    stuck.send(&[request("endless", "1")]).await;
    for round in 0..5 {
        other.send(&[request("echo", "alive")]).await;
        assert_eq!(other.next().await, Some(response("alive")), "round {round}");
    }
    tokio::time::timeout(LONG, session).await.unwrap().unwrap();
    assert!(begin.elapsed() >= PATIENCE);
    // What the socket holds on its way comes besides what waits.
    let sent = commands.sent.load(Ordering::Relaxed);
    assert!((ROOM / 60_100..40).contains(&sent), "{sent} events were made for nobody");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_long_time_for_its_answer_gets_all_of_it() {
    let commands = Arc::new(Fake::default());
    let (mut slow, _session) = connect(&commands);
    slow.send(&[request("endless", "1")]).await;
    let begin = Instant::now();
    while begin.elapsed() < 3 * PATIENCE {
        assert!(matches!(slow.next().await, Some(Packet::Event(..))));
        tokio::time::sleep(PATIENCE / 20).await;
    }
    assert!(commands.sent.load(Ordering::Relaxed) > 40);
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let (mut peer, _session) = connect(&Arc::default());
    let octets: Vec<u8> =
        [request("echo", "1"), request("echo", "2")].iter().flat_map(|p| frame::encode(p).unwrap()).collect();
    for octet in octets {
        peer.stream.write_all(&[octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.next().await, Some(response("1")));
    assert_eq!(peer.next().await, Some(response("2")));
}

#[tokio::test]
async fn the_longest_packet_passes_and_a_longer_one_ends_the_session() {
    let (peer, session) = connect(&Arc::default());
    let mut message = Message::new();
    for number in 0..8 {
        // Each value takes its name, its lengths and its type besides.
        message.set(format!("k{number}"), vec![b'x'; 65_535 - 7]);
    }
    let packet = Packet::CmdRequest("echo".into(), message.clone());
    let octets = frame::encode(&packet).unwrap();
    assert!(octets.len() > frame::MAX_PACKET - 64, "{}", octets.len());
    let Peer { stream, mut deframer } = peer;
    let (mut receiver, mut sender) = stream.into_split();
    // It takes the answer as well to get all of this away.
    let sending = tokio::spawn(async move {
        sender.write_all(&octets).await?;
        sender.write_all(&u32::MAX.to_be_bytes()).await.map(|()| sender)
    });
    let mut buffer = vec![0; 64 * 1024];
    let answer = loop {
        if let Some(octets) = deframer.next_packet().unwrap() {
            break Packet::decode(&octets).unwrap();
        }
        let length = receiver.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the session ended without an answer");
        deframer.push(&buffer[..length]);
    };
    assert_eq!(answer, Packet::CmdResponse(message));
    drop(sending.await.unwrap().unwrap());
    assert_eq!(receiver.read(&mut buffer).await.unwrap(), 0);
    session.await.unwrap();
}
