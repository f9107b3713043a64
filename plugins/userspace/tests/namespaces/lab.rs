//! Two gateways with a LAN host each, in network namespaces of their own: `lan-a - gw-a - gw-b - lan-b`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::ping::{Options, ping};

/// For what comes within a moment, on a machine that has much else to do.
pub(crate) const LONG: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces, removed on drop.
pub(crate) struct Lab {
    prefix: String,
    /// Whether the outer link is IPv6.
    pub(crate) outer_v6: bool,
}

static TURN: RwLock<()> = RwLock::new(());

/// The right to use the machine's network beside other tests. Fails where no namespaces can be made.
pub(crate) fn turn() -> RwLockReadGuard<'static, ()> {
    able();
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// The right to flood the machine's network, or to measure it, alone: a flood in one namespace costs packets in all.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    able();
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

fn able() {
    let able = rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists();
    assert!(able, "this test makes network namespaces: it needs root (or a user namespace) and /dev/net/tun");
}

impl Lab {
    pub(crate) fn new(outer_v6: bool) -> Self {
        let prefix = format!("us{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { prefix, outer_v6 };
        for role in ["la", "ga", "gb", "lb"] {
            run(&["ip", "netns", "add", &lab.ns(role)]);
            lab.exec(role, &["ip", "link", "set", "lo", "up"]);
            // Nobody else is on these links: no waiting for duplicate addresses.
            lab.exec(role, &["sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"]);
        }
        lab.link("la", "ga", "lan");
        lab.link("lb", "gb", "lan");
        lab.link("ga", "gb", "wan");
        for (lan, gateway, subnet) in [("la", "ga", "1"), ("lb", "gb", "2")] {
            lab.exec(lan, &["ip", "addr", "add", &format!("10.{subnet}.0.2/24"), "dev", "lan"]);
            lab.exec(lan, &["ip", "-6", "addr", "add", &format!("fd0{subnet}::2/64"), "dev", "lan", "nodad"]);
            lab.exec(gateway, &["ip", "addr", "add", &format!("10.{subnet}.0.1/24"), "dev", "lan"]);
            lab.exec(gateway, &["ip", "-6", "addr", "add", &format!("fd0{subnet}::1/64"), "dev", "lan", "nodad"]);
            lab.exec(lan, &["ip", "route", "add", "default", "via", &format!("10.{subnet}.0.1")]);
            lab.exec(lan, &["ip", "-6", "route", "add", "default", "via", &format!("fd0{subnet}::1")]);
            lab.exec(gateway, &["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
        }
        for (gateway, own, peer) in [("ga", "1", "2"), ("gb", "2", "1")] {
            lab.exec(gateway, &["ip", "addr", "add", &format!("192.0.2.{own}/24"), "dev", "wan"]);
            lab.exec(gateway, &["ip", "-6", "addr", "add", &format!("2001:db8::{own}/64"), "dev", "wan", "nodad"]);
            // What the tunnel does not carry would leave in clear here.
            lab.exec(gateway, &["ip", "route", "add", "default", "via", &format!("192.0.2.{peer}")]);
            lab.exec(gateway, &["ip", "-6", "route", "add", "default", "via", &format!("2001:db8::{peer}")]);
        }
        // A fresh veth drops everything until the kernel has noticed its carrier.
        for (role, device) in [("la", "lan"), ("ga", "lan"), ("ga", "wan"), ("gb", "wan"), ("gb", "lan"), ("lb", "lan")]
        {
            eventually("carrier", || lab.exec(role, &["ip", "-br", "link", "show", device]).contains(" UP "));
        }
        lab
    }

    /// Outer address of gateway `a` or `b`.
    pub(crate) fn outer(&self, gateway: &str) -> std::net::IpAddr {
        let text = match (self.outer_v6, gateway) {
            (false, "ga") => "192.0.2.1",
            (false, _) => "192.0.2.2",
            (true, "ga") => "2001:db8::1",
            (true, _) => "2001:db8::2",
        };
        text.parse().unwrap()
    }

    pub(crate) fn ns(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    fn link(&self, a: &str, b: &str, name: &str) {
        let (a_ns, b_ns) = (self.ns(a), self.ns(b));
        run(&["ip", "link", "add", name, "netns", &a_ns, "type", "veth", "peer", "name", name, "netns", &b_ns]);
        for role in [a, b] {
            self.exec(role, &["ip", "link", "set", name, "up"]);
        }
    }

    /// Runs a command in a namespace; it must succeed.
    pub(crate) fn exec(&self, role: &str, command: &[&str]) -> String {
        let output = self.try_exec(role, command);
        assert!(output.status.success(), "{command:?} in {role}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_exec(&self, role: &str, command: &[&str]) -> Output {
        // A program begins where the thread is that starts it; `ip netns exec` would make a mount namespace besides.
        self.inside(role, || Command::new(command[0]).args(&command[1..]).output().unwrap())
    }

    /// Answers to `count` pings from one LAN host to an address.
    pub(crate) fn ping(&self, role: &str, to: &str, count: u32, options: &[&str]) -> u32 {
        self.inside(role, || ping(to, count, &Options::parse(options)))
    }

    /// Pings a hundred times a second until the end of what is returned, whatever becomes of it.
    pub(crate) fn keep_pinging(&self, role: &str, to: &str) -> Pinging {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(role), "ping", "-n", "-q", "-i", "0.01", to]);
        Pinging(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Runs `work` on a thread inside a namespace; threads it starts stay there.
    pub(crate) fn inside<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        let ns = File::open(format!("/run/netns/{}", self.ns(role))).unwrap();
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                    rustix::thread::move_into_link_name_space(ns.as_fd(), kind).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// Sends so many octets over TCP from one namespace to another and returns how many arrived.
    pub(crate) fn transfer(&self, from: &str, to: &str, address: &str, octets: usize) -> usize {
        let listener = self.inside(to, || TcpListener::bind((address, 0)).unwrap());
        let target = listener.local_addr().unwrap();
        let sender = self.inside(from, || TcpStream::connect_timeout(&target, LONG).unwrap());
        let (mut receiver, _) = listener.accept().unwrap();
        receiver.set_read_timeout(Some(LONG)).unwrap();
        sender.set_write_timeout(Some(LONG)).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let chunk = [0x77; 65_536];
                let mut left = octets;
                while left > 0 && (&sender).write_all(&chunk[..left.min(chunk.len())]).is_ok() {
                    left -= left.min(chunk.len());
                }
            });
            let (mut arrived, mut buffer) = (0, vec![0; 65_536]);
            while let Ok(length @ 1..) = uninterrupted(|| receiver.read(&mut buffer)) {
                arrived += length;
            }
            arrived
        })
    }

    /// Has packets that were sent as one cross the outer link one by one, so that they can be counted there: on a busy machine several wait, and
    /// are sent together.
    pub(crate) fn single_packets(&self) {
        for gateway in ["ga", "gb"] {
            self.exec(gateway, &["ip", "link", "set", "wan", "gso_max_segs", "1"]);
        }
    }

    /// Watches a link.
    pub(crate) fn capture(&self, role: &str, device: &str) -> Capture {
        self.inside(role, || Capture::new(device).unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for role in ["la", "ga", "gb", "lb"] {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(role)]).status();
        }
    }
}

/// A `ping` that goes on.
pub(crate) struct Pinging(Child);

impl Drop for Pinging {
    fn drop(&mut self) {
        // One that has ended already stays ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Packets seen on a link, both directions.
pub(crate) struct Capture(OwnedFd);

impl Capture {
    fn new(device: &str) -> io::Result<Self> {
        let every = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers are passed; the descriptor is fresh.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, i32::from(every));
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: an all-zero sockaddr_ll is valid, and bind reads exactly one.
        let outcome = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = every;
            let name = std::ffi::CString::new(device).unwrap();
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, 64 << 20);
        Ok(Self(fd))
    }

    /// IP packets since the last call.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 70_000];
        while let Ok(length) = rustix::io::read(&self.0, &mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }

    /// Counts since the last call: native ESP, UDP 4500, packets with a LAN address in clear.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for packet in self.packets() {
            match packet.first().map(|octet| octet >> 4) {
                Some(4) if packet[12] == 10 || packet[16] == 10 => counts.clear += 1,
                Some(6) if packet[8] == 0xfd || packet[24] == 0xfd => counts.clear += 1,
                Some(4) if packet[9] == 50 => counts.native += 1,
                Some(6) if packet[6] == 50 => counts.native += 1,
                Some(4) if packet[9] == 17 => counts.udp += 1,
                Some(6) if packet[6] == 17 => counts.udp += 1,
                _ => {}
            }
        }
        counts
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) native: usize,
    pub(crate) udp: usize,
    pub(crate) clear: usize,
}

/// Repeats a call that was interrupted: a read with a limit in time is not taken up again by itself when the process stood still and goes on.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A socket at this address, once no child that is forked meanwhile holds one that was closed.
pub(crate) fn bound(address: SocketAddr) -> UdpSocket {
    let mut socket = None;
    eventually("the port is free", || {
        socket = UdpSocket::bind(address).ok();
        socket.is_some()
    });
    socket.unwrap()
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
