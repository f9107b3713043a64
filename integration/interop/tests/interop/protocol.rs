//! What a VICI server answers to odd requests, packet by packet: ours next to Debian's charon, on one connection each.
//!
//! After each case comes `get-conns`: its answer shows where the answers to the case end, that they come in order, and what the case has changed.

use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::peer::charon::Charon;
use lab::peer::cygnet::Cygnet;
use lab::peer::{Daemon, Peer};
use lab::topology::{Lab, Middle};
use libtest_mimic::Trial;
use swanctl_compat::vici::frame::{self, MAX_PACKET};
use swanctl_compat::vici::{Message, Packet};

use crate::harness::trial;
use crate::recorder::Line;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("protocol::odd_requests_next_to_charon", odd_requests_next_to_charon)]
}

/// How ours is to answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    /// As charon does.
    Same,
    /// charon does not look at messages that a command takes nothing from; ours says that it cannot read it, and does nothing.
    Unreadable,
}

struct Case {
    name: &'static str,
    /// Whole packets, without their lengths.
    packets: Vec<Vec<u8>>,
    ours: Ours,
}

fn case(name: &'static str, packets: Vec<Vec<u8>>) -> Case {
    Case { name, packets, ours: Ours::Same }
}

fn unreadable(name: &'static str, command: &str, message: &[u8]) -> Case {
    Case { name, packets: vec![named(0, command, message)], ours: Ours::Unreadable }
}

/// A packet with a name and whatever follows.
fn named(kind: u8, name: &str, rest: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [&[kind, length], name.as_bytes(), rest].concat()
}

fn request(command: &str, message: Message) -> Vec<u8> {
    Packet::CmdRequest(command.into(), message).encode().unwrap_or_default()
}

fn connection(address: &str) -> Message {
    let mut conn = Message::new().with("version", "2");
    conn.list("remote_addrs", [address]);
    conn.section("local", Message::new().with("auth", "psk").with("id", "a"));
    conn.section("remote", Message::new().with("auth", "psk").with("id", "b"));
    let (mut child, mut children) = (Message::new(), Message::new());
    child.list("remote_ts", ["10.9.0.0/24"]);
    children.section("net", child);
    conn.section("children", children);
    conn
}

/// A `load-conn` with these connections; one with a `!` has a key that nobody knows, one without a letter is no section at all.
fn load(names: &[&str]) -> Vec<u8> {
    let mut message = Message::new();
    for name in names {
        match name.strip_prefix('!') {
            Some(bad) => message.section(bad, connection("192.0.2.9").with("nonsense", "1")),
            None if *name == "-" => message.set("stray", "x"),
            None if *name == "[]" => message.list("strays", ["x"]),
            None => message.section(*name, connection("192.0.2.9")),
        }
    }
    request("load-conn", message)
}

fn cases() -> Vec<Case> {
    let register = |event: &str| named(3, event, &[]);
    let unregister = |event: &str| named(4, event, &[]);
    let list = || request("list-conns", Message::new().with("ike", "two"));
    vec![
        case("several connections in one message", vec![load(&["one", "two"])]),
        case("the first of them cannot be", vec![load(&["!three", "four"])]),
        case("the second of them cannot be", vec![load(&["five", "!six", "seven"])]),
        case("keys and lists beside connections", vec![load(&["-", "eight", "[]", "nine", "-"])]),
        case("the same connection twice", vec![load(&["one", "one"])]),
        case("a message without a connection", vec![load(&[]), load(&["-"]), load(&["[]"])]),
        case("packets that only a server sends", vec![vec![1], vec![2], vec![5], vec![6], named(7, "log", &[])]),
        case("a type of tomorrow", vec![vec![8], vec![255]]),
        case("nothing at all", vec![vec![]]),
        case("a request without a name", vec![vec![0], vec![0, 5, b'v']]),
        case("a request with an empty name", vec![vec![0, 0]]),
        case("an unknown command", vec![named(0, "nonsense", &[]), named(0, "nonsense", &[9])]),
        case("registrations without a name", vec![vec![3], vec![3, 5, b'l'], vec![4]]),
        case("a registration with an empty name", vec![vec![3, 0], vec![4, 0]]),
        case(
            "registrations with something after the name",
            vec![named(3, "ike-rekey", b"xx"), named(4, "ike-rekey", b"xx")],
        ),
        case("events that there are not", vec![register("nonsense"), unregister("nonsense"), unregister("ike-updown")]),
        case("registered twice", vec![register("list-conn"), register("list-conn"), list()]),
        case("once taken back", vec![unregister("list-conn"), list()]),
        case("twice taken back", vec![unregister("list-conn"), unregister("list-conn"), list()]),
        case("sections 64 deep", vec![named(0, "unload-conn", &nested(64))]),
        unreadable("an unknown element", "get-keys", &[9]),
        unreadable("an end without a start", "get-keys", &[2]),
        unreadable("a section without an end", "get-keys", &[1, 1, b'a']),
        unreadable("a list without an end", "get-keys", &[4, 1, b'a']),
        unreadable("an item outside a list", "get-keys", &[5, 0, 1, b'a']),
        unreadable("a value that is too short", "get-keys", &[3, 1, b'a', 0, 5, b'x']),
        unreadable("a section in a list", "get-keys", &[4, 1, b'a', 1, 1, b'b', 2, 6]),
        unreadable("sections a thousand deep", "get-keys", &nested(1_000)),
        unreadable("a connection that cannot be read", "load-conn", &[9]),
        case("the longest packet", vec![longest()]),
    ]
}

fn nested(depth: usize) -> Vec<u8> {
    [[1, 1, b'a'].repeat(depth), vec![2; depth]].concat()
}

/// A request of just as many octets as a packet may have.
fn longest() -> Vec<u8> {
    let mut octets = named(0, "get-keys", &[]);
    for key in b'a'..=b'i' {
        // Type, name and two octets of length come with each value.
        let length = u16::try_from((MAX_PACKET - octets.len()).min(60_000) - 5).unwrap_or(u16::MAX);
        octets.extend([3, 1, key]);
        octets.extend(length.to_be_bytes());
        octets.extend(vec![b'x'; length.into()]);
    }
    octets
}

/// What came back: the answers to a case, and the connections after it.
#[derive(Debug, PartialEq)]
struct Answers {
    packets: Vec<Packet>,
    connections: Vec<String>,
}

struct Server {
    name: &'static str,
    line: Line,
}

impl Server {
    fn connect(name: &'static str, socket: &Path) -> Result<Self> {
        Ok(Self { name, line: Line::new(UnixStream::connect(socket)?)? })
    }

    /// Sends a case at once, and collects what comes before the answer to `get-conns`.
    fn answers(&mut self, case: &Case) -> Result<Answers> {
        let mut octets = Vec::new();
        for packet in case.packets.iter().chain([&request("get-conns", Message::new())]) {
            octets.extend(u32::try_from(packet.len())?.to_be_bytes());
            octets.extend(packet);
        }
        self.line.say_octets(&octets)?;
        let mut packets = Vec::new();
        loop {
            let octets = self.line.next()?.with_context(|| format!("{}: {} hung up", case.name, self.name))?;
            match Packet::decode(&octets)? {
                Packet::CmdResponse(message) if message.get_list("conns").is_some() => {
                    let connections = message.list_strs("conns").map(str::to_owned).collect();
                    return Ok(Answers { packets, connections });
                }
                Packet::Event(name, message) => packets.push(Packet::Event(name, names_only(&message))),
                Packet::CmdResponse(message) => packets.push(Packet::CmdResponse(without_places(&message))),
                other @ (Packet::CmdRequest(..)
                | Packet::CmdUnknown
                | Packet::EventRegister(_)
                | Packet::EventUnregister(_)
                | Packet::EventConfirm
                | Packet::EventUnknown) => packets.push(other),
            }
        }
    }
}

/// Without the keys by which only ours says where a mistake is.
fn without_places(answer: &Message) -> Message {
    let mut out = Message::new();
    let elements = answer.elements().iter().filter(|element| !["errpath", "errhelp"].contains(&element.name()));
    elements.for_each(|element| out.push(element.clone()));
    out
}

/// What the sections of a message are called: what they hold is others' business.
fn names_only(message: &Message) -> Message {
    let mut names = Message::new();
    names.list("sections", message.sections().map(|(name, _)| name));
    names
}

fn odd_requests_next_to_charon() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let start = |peer: &dyn Peer, name: &str| Daemon::start(peer, &lab.a.gateway, &lab.directory().join(name), &[]);
    let (ours, charon) = (start(&Cygnet::default(), "ours")?, start(&Charon, "charon")?);
    let mut servers = [Server::connect("ours", ours.socket())?, Server::connect("charon", charon.socket())?];
    let mut wrong = Vec::new();
    for case in cases() {
        let [ours, theirs] = &mut servers;
        let (ours, theirs) = (ours.answers(&case)?, theirs.answers(&case)?);
        let fits = match case.ours {
            Ours::Same => ours == theirs,
            Ours::Unreadable => {
                let refused = matches!(&*ours.packets, [Packet::CmdResponse(answer)] if is_unreadable(answer));
                refused && ours.connections == theirs.connections && theirs.packets.len() == 1
            }
        };
        if !fits {
            wrong.push(format!("{}:\n  ours   {ours:?}\n  charon {theirs:?}", case.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    servers.into_iter().try_for_each(too_long)?;
    for socket in [ours.socket(), charon.socket()] {
        let mut line = Line::new(UnixStream::connect(socket)?)?;
        let answer = line.ask(&Packet::CmdRequest("version".into(), Message::new()))?;
        ensure!(matches!(answer.as_slice(), [Packet::CmdResponse(_)]), "not alive: {answer:?}");
    }
    Ok(())
}

fn is_unreadable(answer: &Message) -> bool {
    let reason = answer.get_str("errmsg").unwrap_or_default();
    answer.get_str("success") == Some("no") && reason.starts_with("parsing request failed: ")
}

/// A packet longer than the longest ends the connection as soon as it is announced, after what was asked before is answered.
fn too_long(mut server: Server) -> Result<()> {
    let asked = frame::encode(&Packet::CmdRequest("version".into(), Message::new()))?;
    let announced = u32::try_from(MAX_PACKET + 1)?.to_be_bytes();
    server.line.say_octets(&[&asked[..], &announced].concat())?;
    let mut answers = 0;
    while let Some(octets) = server.line.next()? {
        let packet = Packet::decode(&octets)?;
        let Packet::CmdResponse(_) = packet else { bail!("{}: not expected: {packet:?}", server.name) };
        answers += 1;
    }
    // charon may hang up before it has got round to the answer.
    ensure!(answers == 1 || server.name == "charon", "{} answers from {}", answers, server.name);
    Ok(())
}
