//! What goes on between the gateways while the daemon is killed: tunnels from both sides, rekeys by time and by command, packets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::Vici;
use lab::peer::conf::{Child, Tunnel};
use lab::random::Random;
use lab::topology::{Family, HOST, LAN, Lab, Side, Site};
use swanctl_compat::vici::Message;

/// Connections; charon begins the last.
pub(super) const CONNECTIONS: u8 = 3;
/// Children of each.
const CHILDREN: u8 = 2;
/// Between two commands to rekey something, milliseconds.
const PAUSE: (u64, u64) = (40, 120);
/// Between two packets of a child.
const PACE: Duration = Duration::from_millis(40);

/// The tunnels as one side has them. Rekeying times are short on both, and both spread them.
pub(super) fn tunnels(lab: &Lab, side: Side) -> Vec<Tunnel> {
    (0..CONNECTIONS).map(|number| tunnel(lab, side, number)).collect()
}

fn tunnel(lab: &Lab, side: Side, number: u8) -> Tunnel {
    let mut tunnel = Tunnel::between(lab, side, Family::V4);
    let begins = if number + 1 < CONNECTIONS { Side::A } else { Side::B };
    tunnel.name = format!("c{number}");
    tunnel.local_id = format!("{}-{number}.example", side.letter());
    tunnel.remote_id = format!("{}-{number}.example", side.other().letter());
    tunnel.options =
        ["rekey_time = 5s", "rand_time = 2s", "fragmentation = no", "mobike = no"].map(str::to_owned).into();
    tunnel.children = (0..CHILDREN).map(|child| child_of(side, begins, number, child)).collect();
    tunnel
}

fn child_of(side: Side, begins: Side, connection: u8, child: u8) -> Child {
    let place = place(connection, child);
    let net = |side: Side| format!("10.{}.0.{place}/28", if side == Side::A { 1 } else { 2 });
    let mut options: Vec<String> = ["rekey_time = 2s", "rand_time = 1s", "life_time = 60s"].map(str::to_owned).into();
    // charon is told to begin, since it does so once only.
    if side == Side::A && begins == Side::A {
        options.push("start_action = start".into());
    }
    Child {
        name: name(connection, child),
        local_ts: net(side),
        remote_ts: net(side.other()),
        esp_proposals: "aes128gcm16-x25519".into(),
        options,
    }
}

fn name(connection: u8, child: u8) -> String {
    format!("c{connection}n{child}")
}

/// Where the subnets of a child begin.
fn place(connection: u8, child: u8) -> u8 {
    16 * (1 + connection * CHILDREN + child)
}

fn places() -> impl Iterator<Item = u8> {
    (0..CONNECTIONS).flat_map(|connection| (0..CHILDREN).map(move |child| place(connection, child)))
}

/// Has charon begin its connection afresh: what it may still have of an earlier run is gone at the other end.
pub(super) fn begin_from_charon(socket: &Path) -> Result<()> {
    let connection = CONNECTIONS - 1;
    let ike = format!("c{connection}");
    // There may be nothing to end.
    let _ = ask(socket, "terminate", &[("ike", &ike), ("force", "yes"), ("timeout", "-1")])?;
    for child in 0..CHILDREN {
        let child = name(connection, child);
        let answer = ask(socket, "initiate", &[("child", &child), ("ike", &ike), ("timeout", "-1")])?;
        ensure!(answer.is_yes("success"), "charon does not begin {child}: {:?}", answer.get_str("errmsg"));
    }
    Ok(())
}

fn ask(socket: &Path, command: &str, words: &[(&str, &str)]) -> Result<Message> {
    let mut vici = Vici::new(UnixStream::connect(socket)?);
    let message = words.iter().fold(Message::new(), |message, (key, value)| message.with(key, *value));
    Ok(vici.command(command, message, |_, _| Ok(()))?)
}

/// Gives each host an address in each subnet, and each gateway as well: charon installs nothing where it has none.
pub(super) fn prepare(lab: &Lab) -> Result<()> {
    for site in [&lab.a, &lab.b] {
        for place in places() {
            site.host.ip(&["address", "add", &format!("{}/24", host(site, place)), "dev", HOST])?;
            site.gateway.ip(&["address", "add", &format!("{}/24", address(site, place + 2)), "dev", LAN])?;
        }
    }
    Ok(())
}

/// Commands and packets, on threads of their own until dropped.
pub(super) struct Storm {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Storm {
    /// Begins. The sockets are those of gateway A's daemon and of charon.
    pub(super) fn begin(lab: &Lab, sockets: [PathBuf; 2], seed: u64) -> Result<Self> {
        let mut storm = Self { stop: Arc::default(), workers: Vec::new() };
        storm.send(&lab.a, &lab.b)?;
        storm.send(&lab.b, &lab.a)?;
        let stop = Arc::clone(&storm.stop);
        let mut random = Random::new(seed);
        storm.workers.push(thread::Builder::new().name("storm".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(PAUSE.0 + random.below(PAUSE.1 - PAUSE.0)));
                rekey_something(&sockets, &mut random);
            }
        })?);
        Ok(storm)
    }

    /// Packets of every child, one after the other.
    fn send(&mut self, here: &Site, there: &Site) -> Result<()> {
        let bind = |place: u8| UdpSocket::bind(SocketAddr::new(host(here, place), 0));
        let bound =
            here.host.run(|| places().map(|place| bind(place).map(|socket| (place, socket))).collect::<Vec<_>>())?;
        let sockets: Vec<(SocketAddr, UdpSocket)> = bound
            .into_iter()
            .map(|made| made.map(|(place, socket)| (SocketAddr::new(host(there, place), 9), socket)))
            .collect::<std::io::Result<_>>()?;
        let stop = Arc::clone(&self.stop);
        self.workers.push(thread::Builder::new().name("packets".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(PACE);
                for (to, socket) in &sockets {
                    // While there is no tunnel it is blocked.
                    let _ = socket.send_to(&[0; 64], to);
                }
            }
        })?);
        Ok(())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn host(site: &Site, place: u8) -> IpAddr {
    address(site, place + 1)
}

fn address(site: &Site, last: u8) -> IpAddr {
    match site.side {
        Side::A => [10, 1, 0, last].into(),
        Side::B => [10, 2, 0, last].into(),
    }
}

/// Refusals are part of a storm, and one of the daemons may just be dead.
fn rekey_something(sockets: &[PathBuf; 2], random: &mut Random) {
    let mut below = |limit: u8| u8::try_from(random.below(limit.into())).unwrap_or(0);
    let (side, connection, child, is_ike) = (below(2), below(CONNECTIONS), below(CHILDREN), below(6) == 0);
    let (key, value) = if is_ike { ("ike", format!("c{connection}")) } else { ("child", name(connection, child)) };
    if let Some(socket) = sockets.get(usize::from(side)) {
        let _ = ask(socket, "rekey", &[(key, &value)]);
    }
}
