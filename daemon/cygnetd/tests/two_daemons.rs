//! Two real daemons between two LANs: a pre-shared key, a CHILD SA with packets through it, what VICI says of it, and a clean end.
//!
//! Runs with one shard and with four, with the NAT-T port read by the backend.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use lab::peer::conf::{self, Tunnel};
use lab::process::{Process, wait_until};
use lab::topology::{Family, Lab, Middle, Side, Site};
use lab::traffic::ping;
use swanctl_compat::vici::frame::{self, Deframer};
use swanctl_compat::vici::{Message, Packet};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // What `cargo test` passes on to choose among tests is of no use here.
    let run = || -> anyhow::Result<()> {
        unread_check()?;
        lab::enter::enter()?;
        for shards in [1, 4] {
            tunnel(shards).with_context(|| format!("with {shards} shards"))?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `cygnetd --check | head -1`: what it ends with is the answer, read or not.
fn unread_check() -> anyhow::Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_cygnetd"));
    let code = check.args(["--check", "--swanctl", "/nonexistent"]).stdout(writer).status()?.code();
    ensure!(code == Some(2), "a check that nobody reads ends with {code:?}");
    Ok(())
}

fn tunnel(shards: u8) -> anyhow::Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut a = Daemon::start(&lab, Side::A, shards)?;
    let mut b = Daemon::start(&lab, Side::B, shards)?;
    let outcome = established(&lab, &a, &b).and_then(|()| closed(&mut a, &b));
    if outcome.is_err() {
        eprintln!("--- daemon A\n{}\n--- daemon B\n{}", a.process.output(), b.process.output());
    }
    outcome?;
    b.process.terminate()?;
    println!("two daemons, {shards} shards: ok");
    Ok(())
}

fn established(lab: &Lab, a: &Daemon, b: &Daemon) -> anyhow::Result<()> {
    let mut watcher = b.client()?;
    watcher.register("child-updown")?;
    for child in ["net4", "net6"] {
        let (_, answer) =
            a.client()?.request("initiate", &Message::new().with("child", child).with("timeout", "30000"))?;
        ensure!(answer.is_yes("success"), "initiate {child}: {:?}", answer.get_str("errmsg"));
    }
    let (event, message) = watcher.event()?;
    ensure!(event == "child-updown" && message.is_yes("up"), "{event}: {message:?}");
    for family in lab::topology::FAMILIES {
        let (from, to) = (&lab.a, &lab.b);
        let (source, target) = (from.host_address(family), to.host_address(family));
        ensure!(ping::answers_within(&from.host, source, target, PATIENCE)?, "no answer from {target}");
    }
    for daemon in [a, b] {
        for child in ["net4", "net6"] {
            let sa = daemon.child_sa(child)?.with_context(|| format!("{child} is not listed"))?;
            ensure!(sa.get_str("state") == Some("INSTALLED"), "{child} is {:?}", sa.get_str("state"));
            ensure!(sa.get_str("backend") == Some("userspace"), "{child} is on {:?}", sa.get_str("backend"));
            // An answer may be back before the data path has counted it.
            for counter in ["packets-in", "packets-out"] {
                let counts = wait_until(PATIENCE, || daemon.count(child, counter).is_some_and(|packets| packets > 0));
                ensure!(counts, "{child}: {counter} is {:?}", daemon.count(child, counter));
            }
        }
    }
    let (rows, _) = a.client()?.list("cygnet-status", "cygnet-child")?;
    ensure!(rows.len() == 2, "cygnet-status: {rows:?}");
    let (rows, _) = a.client()?.list("cygnet-backend-sas", "cygnet-backend-sa")?;
    let orphans = rows.iter().flat_map(|row| row.sections()).filter(|(_, sa)| sa.is_yes("orphan")).count();
    ensure!(rows.len() == 4 && orphans == 0, "cygnet-backend-sas: {rows:?}");
    Ok(())
}

/// A daemon that is told to stop deletes its SAs at the peer, and takes its socket away.
fn closed(a: &mut Daemon, b: &Daemon) -> anyhow::Result<()> {
    let status = a.process.terminate()?;
    ensure!(status.success(), "daemon A ended with {status}");
    ensure!(!a.socket.exists(), "daemon A left its socket");
    ensure!(wait_until(PATIENCE, || b.child_sa("net4").is_ok_and(|sa| sa.is_none())), "daemon B was not told");
    Ok(())
}

struct Daemon {
    process: Process,
    socket: PathBuf,
}

impl Daemon {
    fn start(lab: &Lab, side: Side, shards: u8) -> anyhow::Result<Self> {
        let directory = lab.directory().join(format!("daemon-{}", side.letter()));
        std::fs::create_dir_all(&directory)?;
        let socket = directory.join("vici");
        conf::write(&directory.join("swanctl.conf"), &[Tunnel::between(lab, side, Family::V4)])?;
        let settings = directory.join("cygnetd.toml");
        let (directory_text, socket_text) = (directory.display(), socket.display());
        let text = format!(
            "[privileges]\nuser = \"root\"\n[ike]\nshards = {shards}\n[swanctl]\ndirectory = \"{directory_text}\"\n[vici]\nsocket = \"unix://{socket_text}\"\n[log]\nlevel = \"debug\"\n[history]\nurl = \"sqlite://{directory_text}/history.db\"\n",
        );
        std::fs::write(&settings, text)?;
        let site: &Site = lab.site(side);
        let arguments = ["--config".as_ref(), settings.as_os_str()];
        let program = Path::new(env!("CARGO_BIN_EXE_cygnetd"));
        let mut process = Process::start(&site.gateway, program, &arguments, &[], &directory.join("log"))?;
        let ready = wait_until(PATIENCE, || !process.is_running() || UnixStream::connect(&socket).is_ok());
        ensure!(ready && process.is_running(), "cygnetd did not start:\n{}", process.output());
        Ok(Self { process, socket })
    }

    fn client(&self) -> anyhow::Result<Client> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        Ok(Client { stream, deframer: Deframer::new() })
    }

    /// A counter of a CHILD SA.
    fn count(&self, child: &str, counter: &str) -> Option<u64> {
        self.child_sa(child).ok()??.get_str(counter)?.parse().ok()
    }

    /// The CHILD SA of this name, as `list-sas` has it.
    fn child_sa(&self, name: &str) -> anyhow::Result<Option<Message>> {
        let (ike_sas, _) = self.client()?.list("list-sas", "list-sa")?;
        let children = ike_sas.iter().flat_map(Message::sections).filter_map(|(_, ike)| ike.get_section("child-sas"));
        let mut named = children.flat_map(Message::sections).filter(|(_, child)| child.get_str("name") == Some(name));
        Ok(named.next().map(|(_, child)| child.clone()))
    }
}

struct Client {
    stream: UnixStream,
    deframer: Deframer,
}

impl Client {
    fn send(&mut self, packet: &Packet) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&frame::encode(packet)?)?)
    }

    fn next(&mut self) -> anyhow::Result<Packet> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(octets) = self.deframer.next_packet()? {
                return Ok(Packet::decode(&octets)?);
            }
            let length = self.stream.read(&mut buffer)?;
            ensure!(length > 0, "the daemon closed the connection");
            self.deframer.push(buffer.get(..length).unwrap_or_default());
        }
    }

    fn register(&mut self, event: &str) -> anyhow::Result<()> {
        self.send(&Packet::EventRegister(event.into()))?;
        let answer = self.next()?;
        ensure!(answer == Packet::EventConfirm, "registering for {event}: {answer:?}");
        Ok(())
    }

    fn event(&mut self) -> anyhow::Result<(String, Message)> {
        let packet = self.next()?;
        let Packet::Event(name, message) = packet else { bail!("no event but {packet:?}") };
        Ok((name, message))
    }

    /// The events that came, and the answer.
    fn request(&mut self, command: &str, message: &Message) -> anyhow::Result<(Vec<Message>, Message)> {
        self.send(&Packet::CmdRequest(command.into(), message.clone()))?;
        let mut events = Vec::new();
        loop {
            let packet = self.next()?;
            if let Packet::CmdResponse(answer) = packet {
                return Ok((events, answer));
            }
            let Packet::Event(_, message) = packet else { bail!("{command}: {packet:?}") };
            events.push(message);
        }
    }

    fn list(&mut self, command: &str, event: &str) -> anyhow::Result<(Vec<Message>, Message)> {
        self.register(event)?;
        self.request(command, &Message::new())
    }
}
