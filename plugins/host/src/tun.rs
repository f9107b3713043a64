//! The TUN device: queues, virtio-net headers, segmentation offloads, MTU, up.
//!
//! The device has no address: protected routes name a source address of the gateway, and ICMP errors are sent from one inside the local
//! traffic selector. It exists as long as one of its queues is open, and while it does nobody else can open the same name: the name is the
//! lock between two daemons in one network namespace. Reading, writing and the virtio-net header belong to the datapath.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use super::error::HostError;
use super::links;
use super::netlink::Netlink;

/// How a TUN device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Name, at most 15 octets.
    pub device: String,
    /// Queues; more than one makes the device multi-queue.
    pub queues: u16,
    /// MTU; 0 leaves the kernel's 1500.
    pub mtu: u32,
    /// Whether packets carry a virtio-net header and may be segmented later: large packets in both directions.
    pub offloads: bool,
}

/// Segmentation work the kernel leaves to the reader and accepts from the writer of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP over IPv4 in packets beyond the MTU.
    pub tso4: bool,
    /// TCP over IPv6 in packets beyond the MTU.
    pub tso6: bool,
    /// UDP over IPv4 and IPv6 in packets beyond the MTU.
    pub uso: bool,
}

/// An open TUN device that is up. Queues are non-blocking; closing all of them removes the device.
#[derive(Debug)]
pub struct Tun {
    /// Queues, in order.
    pub queues: Vec<OwnedFd>,
    /// Name.
    pub device: String,
    /// Interface index; a device made anew has a new one.
    pub ifindex: u32,
    /// What the kernel accepted.
    pub offloads: Offloads,
    /// Octets of virtio-net header before each packet: 0 or 10.
    pub header_octets: usize,
}

/// `struct virtio_net_hdr` without the merged-buffers field.
const VIRTIO_NET_HEADER: libc::c_int = 10;

/// How long a device that is held is waited for: longer than a child takes to become another program.
const HELD: Duration = Duration::from_secs(1);
/// Between two attempts.
const LOOK: Duration = Duration::from_millis(10);

impl Offloads {
    /// What is asked for, the most first; kernels before 6.2 know no USO.
    const LADDER: [Self; 5] = [
        Self { checksum: true, tso4: true, tso6: true, uso: true },
        Self { checksum: true, tso4: true, tso6: true, uso: false },
        Self { checksum: true, tso4: true, tso6: false, uso: false },
        Self { checksum: true, tso4: false, tso6: false, uso: false },
        Self { checksum: false, tso4: false, tso6: false, uso: false },
    ];

    fn flags(self) -> libc::c_ulong {
        let flag = |wanted: bool, flags: u32| if wanted { flags } else { 0 };
        libc::c_ulong::from(
            flag(self.checksum, libc::TUN_F_CSUM)
                | flag(self.tso4, libc::TUN_F_TSO4)
                | flag(self.tso6, libc::TUN_F_TSO6)
                | flag(self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6),
        )
    }
}

impl Tun {
    /// Makes the device, or takes over one of this name that nobody holds, and brings it up. One that is held is waited for, for a second.
    pub fn open(config: &TunConfig) -> Result<Self, HostError> {
        let failed = |action| move |source| HostError::Device { device: config.device.clone(), action, source };
        let request = interface_request(config)?;
        let mut queues = Vec::new();
        for _ in 0..config.queues.max(1) {
            queues.push(open_free_queue(request).map_err(|error| queue_error(config, error))?);
        }
        let mut accepted = Offloads::default();
        for queue in &queues {
            if config.offloads {
                set_header_octets(queue).map_err(failed("set the virtio-net header"))?;
                accepted = set_offloads(queue).map_err(failed("set the offloads"))?;
            }
        }
        // Otherwise the kernel makes itself a link-local address and sends router solicitations into the device.
        let _ = super::sysctl::write(&super::sysctl::ipv6(&config.device, "addr_gen_mode"), "1");
        let mut route = Netlink::open("route", netlink_sys::protocols::NETLINK_ROUTE)?;
        let ifindex = links::index(&config.device).map_err(failed("find the interface index"))?;
        links::bring_up(&mut route, ifindex, config.mtu).map_err(|refusal| refusal.on("bring up", &config.device))?;
        let header_octets = if config.offloads { 10 } else { 0 };
        Ok(Self { queues, device: config.device.clone(), ifindex, offloads: accepted, header_octets })
    }
}

fn interface_request(config: &TunConfig) -> Result<libc::ifreq, HostError> {
    let name = config.device.as_bytes();
    let legal = |octet: &u8| octet.is_ascii_graphic() && !b"/:%".contains(octet);
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.iter().all(legal) || config.device.starts_with('.') {
        return Err(HostError::Setting {
            setting: "device",
            value: config.device.clone(),
            reason: "an interface name has 1 to 15 printable characters and none of / : %",
        });
    }
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
    if config.offloads {
        flags |= libc::IFF_VNET_HDR;
    }
    if config.queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (slot, octet) in ifr_name.iter_mut().zip(name) {
        *slot = libc::c_char::from_ne_bytes([*octet]);
    }
    let ifr_flags = libc::c_short::try_from(flags).unwrap_or_default();
    Ok(libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: ifr_flags } })
}

/// Opens a queue, and waits a moment for a device that is held. Whoever held it may be about to let go: a child that has been forked and is not
/// yet another program still has the files of its parent, also when that has closed them or is gone.
fn open_free_queue(request: libc::ifreq) -> io::Result<OwnedFd> {
    let started = Instant::now();
    loop {
        match open_queue(request) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < HELD => thread::sleep(LOOK),
            outcome => return outcome,
        }
    }
}

fn open_queue(mut request: libc::ifreq) -> io::Result<OwnedFd> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path())?;
    #[allow(unsafe_code)] // no safe interface to this ioctl
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which lives on our stack; the descriptor is open.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(file.into()) }
}

fn path() -> &'static str {
    const PATH: &CStr = c"/dev/net/tun";
    PATH.to_str().unwrap_or_default()
}

fn queue_error(config: &TunConfig, source: io::Error) -> HostError {
    let action = match source.raw_os_error() {
        Some(libc::EBUSY) => "open a queue; another process holds the device",
        Some(libc::EINVAL) => "open a queue; a device of this name exists with other properties",
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "open /dev/net/tun; is the tun module loaded?",
        Some(libc::EPERM | libc::EACCES) => "open /dev/net/tun; CAP_NET_ADMIN is needed",
        _ => "open /dev/net/tun",
    };
    HostError::Device { device: config.device.clone(), action, source }
}

fn set_header_octets(queue: &OwnedFd) -> io::Result<()> {
    let octets = VIRTIO_NET_HEADER;
    #[allow(unsafe_code)] // no safe interface to this ioctl
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on our stack; the descriptor is open.
    let outcome = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const octets) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The first step of the ladder that the kernel accepts; it refuses unknown flags with EINVAL.
fn set_offloads(queue: &OwnedFd) -> io::Result<Offloads> {
    let mut refusal = io::Error::from_raw_os_error(libc::EINVAL);
    for offloads in Offloads::LADDER {
        #[allow(unsafe_code)] // no safe interface to this ioctl
        // SAFETY: TUNSETOFFLOAD takes its argument by value; the descriptor is open.
        let outcome = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD, offloads.flags()) };
        if outcome >= 0 {
            return Ok(offloads);
        }
        refusal = io::Error::last_os_error();
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(device: &str, queues: u16, offloads: bool) -> TunConfig {
        TunConfig { device: device.to_owned(), queues, mtu: 0, offloads }
    }

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for bad in ["", "sixteen-octets--", "a/b", "a b", "cygnet%d", "."] {
            let error = interface_request(&config(bad, 1, false)).err().map(|error| error.to_string());
            assert!(error.is_some_and(|text| text.contains("interface name")), "{bad:?}");
        }
        assert!(interface_request(&config("fifteen-octets-", 1, false)).is_ok());
    }

    #[test]
    fn flags_follow_the_configuration() {
        let flags = |queues, offloads| {
            let request = interface_request(&config("cygnet0", queues, offloads)).unwrap();
            #[allow(unsafe_code)] // a union in libc
            // SAFETY: `interface_request` initialises `ifru_flags`.
            let flags = unsafe { request.ifr_ifru.ifru_flags };
            i32::from(flags)
        };
        assert_eq!(flags(1, false), libc::IFF_TUN | libc::IFF_NO_PI);
        assert_eq!(flags(1, true), libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        assert_eq!(flags(4, false), libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE);
    }

    #[test]
    fn each_step_of_the_ladder_asks_for_less() {
        for pair in Offloads::LADDER.windows(2) {
            assert_eq!(pair[1].flags() & !pair[0].flags(), 0);
            assert_ne!(pair[1].flags(), pair[0].flags());
        }
    }
}
