//! Three network namespaces, LAN host, gateway and the outside, wired for the host tests; gone on drop.
//!
//! ```text
//!  lan 10.1.0.5, 2001:db8:1::5 ── lan0 [gateway] wan0 ── wan 192.0.2.2, 2001:db8:99::2
//!                     10.1.0.1, 2001:db8:1::1   192.0.2.1, 2001:db8:99::1         also 10.2.0.7, 2001:db8:2::7, 198.51.100.9, 2001:db8:98::9
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// For what comes within a moment, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what does not come.
const SILENCE: Duration = Duration::from_millis(300);

/// The namespaces of one test.
pub(crate) struct Lab {
    pub(crate) lan: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) wan: Namespace,
}

/// One network namespace.
pub(crate) struct Namespace(String);

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = |role: &str| Namespace::new(format!("net-{}-{number}-{role}", std::process::id()));
        let lab = Self { lan: namespace("lan"), gateway: namespace("gw"), wan: namespace("wan") };
        lab.wire("lan0", &lab.lan, &["10.1.0.1/24", "2001:db8:1::1/64"], &["10.1.0.5/24", "2001:db8:1::5/64"]);
        lab.wire("wan0", &lab.wan, &["192.0.2.1/24", "2001:db8:99::1/64"], &["192.0.2.2/24", "2001:db8:99::2/64"]);
        lab.lan.ip("route add default via 10.1.0.1");
        lab.lan.ip("route add default via 2001:db8:1::1");
        for address in ["10.2.0.7/32", "2001:db8:2::7/128", "198.51.100.9/32", "2001:db8:98::9/128"] {
            lab.wan.ip(&format!("addr add {address} dev lo"));
        }
        lab.wan.ip("route add 10.1.0.0/16 via 192.0.2.1");
        lab.wan.ip("route add 2001:db8:1::/64 via 2001:db8:99::1");
        lab.gateway.ip("route add default via 192.0.2.2");
        lab.gateway.ip("route add default via 2001:db8:99::2");
        lab.gateway.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        lab.settle();
        lab
    }

    /// Carrier and router discovery take their time.
    fn settle(&self) {
        let ways = [
            (&self.lan, "10.1.0.5", "192.0.2.2"),
            (&self.lan, "2001:db8:1::5", "2001:db8:99::2"),
            (&self.wan, "2001:db8:99::2", "2001:db8:1::5"),
        ];
        for (namespace, from, to) in ways {
            assert!(namespace.reaches(from, to), "{from} to {to} without any guard");
        }
    }

    /// A further LAN host behind `device` of the gateway.
    pub(crate) fn attach(&self, device: &str, here: &[&str], there: &[&str]) -> Namespace {
        let namespace = Namespace::new(format!("{}-{device}", self.lan.0));
        self.wire(device, &namespace, here, there);
        namespace
    }

    fn wire(&self, device: &str, other: &Namespace, here: &[&str], there: &[&str]) {
        let (gateway, other_name) = (&self.gateway.0, &other.0);
        run("ip", &format!("link add {device} netns {gateway} type veth peer name eth0 netns {other_name}"));
        for (namespace, device, addresses) in [(&self.gateway, device, here), (other, "eth0", there)] {
            namespace.ip(&format!("link set {device} up"));
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                namespace.ip(&format!("addr add {address} dev {device} {nodad}"));
            }
        }
    }
}

impl Namespace {
    fn new(name: String) -> Self {
        // SAFETY: geteuid has no preconditions.
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests make network namespaces and need root");
        run("ip", &format!("netns add {name}"));
        let namespace = Self(name);
        namespace.ip("link set lo up");
        for setting in ["accept_dad", "dad_transmits"] {
            namespace.inside(|| std::fs::write(format!("/proc/sys/net/ipv6/conf/default/{setting}"), "0")).unwrap();
        }
        namespace
    }

    /// Runs `work` on a thread inside; processes it starts are inside too.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
            // SAFETY: the descriptor is open; only this thread changes its namespace.
            let outcome = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
            work()
        };
        thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs `ip` with these words.
    pub(crate) fn ip(&self, words: &str) -> String {
        run("ip", &format!("-n {} {words}", self.0))
    }

    /// What `ip netns` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` with one command a line.
    pub(crate) fn ip_batch(&self, commands: &str) {
        let mut ip = Command::new("ip").args(["-n", &self.0, "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }

    /// Sends one UDP packet from here; says whether the kernel took it.
    pub(crate) fn send(&self, from: &str, to: &str) -> io::Result<()> {
        self.inside(|| {
            let socket = UdpSocket::bind(address(from, 0))?;
            socket.send_to(b"clear", address(to, 4000)).map(|_| ())
        })
    }

    /// As [`Self::send`] from a socket that is bound to `device`.
    pub(crate) fn send_through(&self, device: &str, from: &str, to: &str) -> io::Result<()> {
        self.inside(|| {
            let socket = UdpSocket::bind(address(from, 0))?;
            let length = u32::try_from(device.len()).unwrap();
            let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
            // SAFETY: the descriptor is open and the name readable for its length.
            let outcome =
                unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, device.as_ptr().cast(), length) };
            assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
            socket.send_to(b"clear", address(to, 4000)).map(|_| ())
        })
    }

    /// A UDP socket inside.
    pub(crate) fn udp(&self, on: &str, port: u16) -> UdpSocket {
        self.inside(|| UdpSocket::bind(address(on, port)).unwrap())
    }

    /// Whether an echo comes back sooner or later.
    pub(crate) fn reaches(&self, from: &str, to: &str) -> bool {
        (0..PATIENCE.as_secs()).any(|_| self.pings(from, to))
    }

    /// Waits until a device that went with the last of its descriptors is gone: a process that another test has just forked has them, too, until
    /// it runs its own program.
    pub(crate) fn loses(&self, device: &str) {
        let words = ["-n", &self.0, "link", "show", device];
        let end = Instant::now() + PATIENCE;
        while Command::new("ip").args(words).output().unwrap().status.success() {
            assert!(Instant::now() < end, "{device} is still there");
        }
    }

    /// Whether an echo comes back at once.
    pub(crate) fn pings(&self, from: &str, to: &str) -> bool {
        let words = format!("netns exec {} ping -c 1 -W 1 -I {from} {to}", self.0);
        Command::new("ip").args(words.split_whitespace()).output().unwrap().status.success()
    }

    /// Watches `device`: see [`Watch`].
    pub(crate) fn watch(&self, device: &str) -> Watch {
        self.inside(|| Watch::new(device))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Every IP packet that a device receives.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    fn new(device: &str) -> Self {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let every = libc::ETH_P_ALL.to_be() >> 16;
        // SAFETY: plain system call.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, every) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and ours.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(device).unwrap();
        // SAFETY: a structure of integers.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        to.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        // SAFETY: the name is terminated by a zero octet.
        to.sll_ifindex = i32::try_from(unsafe { libc::if_nametoindex(name.as_ptr()) }).unwrap();
        let length = u32::try_from(size_of_val(&to)).unwrap();
        // SAFETY: `to` is a whole socket address.
        let outcome = unsafe { libc::bind(socket.as_raw_fd(), (&raw const to).cast(), length) };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// Whether a packet between these two addresses, in this direction, comes.
    pub(crate) fn sees(&self, from: &str, to: &str) -> bool {
        let end = Instant::now() + PATIENCE;
        while self.received(from, to) == 0 {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Packets between these two addresses, in this direction, that come within a moment.
    pub(crate) fn count(&self, from: &str, to: &str) -> usize {
        thread::sleep(SILENCE / 2);
        self.received(from, to)
    }

    /// The same that have come until now.
    fn received(&self, from: &str, to: &str) -> usize {
        let wanted: (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let mut packet = [0; 2048];
        let mut count = 0;
        loop {
            // SAFETY: the buffer is writable for its length.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
            let Ok(length) = usize::try_from(length) else { return count };
            count += usize::from(ends(&packet[..length]) == Some(wanted));
        }
    }
}

/// Source and destination of an IP packet.
pub(crate) fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// Waits until a non-blocking TUN queue yields a packet between these addresses.
pub(crate) fn read_packet(queue: &OwnedFd, from: &str, to: &str) -> bool {
    let wanted: (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut packet = [0; 2048];
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match rustix::io::read(queue, &mut packet) {
            Ok(length) if ends(&packet[..length]) == Some(wanted) => return true,
            Ok(_) => {}
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    false
}

/// A UDP packet with payload `tunnelled`, as it comes out of ESP.
pub(crate) fn udp_packet(from: &str, to: &str, port: u16) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let payload = b"tunnelled";
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    udp.extend_from_slice(payload);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (source, destination) = (octets(from), octets(to));
    let pseudo = [&source[..], &destination, &[0, 17], &length.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo[..], &udp].concat());
    udp[6..8].copy_from_slice(&sum);
    let mut packet = if from.is_ipv4() {
        let total = (20 + length).to_be_bytes();
        let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0];
        header.extend([source, destination].concat());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        header
    } else {
        let payload = length.to_be_bytes();
        let mut header = vec![0x60, 0, 0, 0, payload[0], payload[1], 17, 64];
        header.extend([source, destination].concat());
        header
    };
    packet.extend(udp);
    packet
}

fn checksum(octets: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// Whether a datagram arrives sooner or later.
pub(crate) fn arrives(socket: &UdpSocket) -> bool {
    arrives_within(socket, PATIENCE)
}

/// Whether none arrives within a moment.
pub(crate) fn is_silent(socket: &UdpSocket) -> bool {
    !arrives_within(socket, SILENCE)
}

fn arrives_within(socket: &UdpSocket, patience: Duration) -> bool {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.recv_from(&mut [0; 2048]).is_ok()
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "{program} {words}: {}", text(&output.stderr));
    text(&output.stdout)
}
