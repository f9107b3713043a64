//! A raw socket on one interface: whole Ethernet frames in both directions.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netdevice, recv, send, socket_with,
    sockopt,
};

use crate::netns::Namespace;

/// The most that a frame can hold when the sender's segmentation is left to the device.
pub const LARGEST_FRAME: usize = 65_536 + 64;

/// Frames that may wait for us; bounded by the kernel's own limit where we may not force it.
const RECEIVE_BUFFER: usize = 32 << 20;

/// An open raw socket.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket that sees each frame that the interface receives or sends.
    ///
    /// # Errors
    /// No such interface, or raw sockets are not allowed.
    pub fn open(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        Ok(namespace.run(|| Self::open_here(interface))??)
    }

    /// Opens a socket that sees what leaves through the interface, and nothing that comes in. A kernel that does ESP itself shows what it
    /// has decrypted as if it had come in by the same interface.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_sent(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let socket = Self::open(namespace, interface)?;
        link::take_only_sent(&socket.descriptor)?;
        socket.discard_pending();
        Ok(socket)
    }

    fn open_here(interface: &str) -> io::Result<Self> {
        let every = link::Address::EVERY_PROTOCOL;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let descriptor = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(Protocol::from_raw(every)))?;
        if sockopt::set_socket_recv_buffer_size_force(&descriptor, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&descriptor, RECEIVE_BUFFER)?;
        }
        let index = netdevice::name_to_index(&descriptor, interface)?;
        bind(&descriptor, &link::Address::on(index))?;
        let socket = PacketSocket { descriptor };
        socket.discard_pending();
        Ok(socket)
    }

    /// Opens a socket that only sends, and past the queueing discipline: for floods.
    ///
    /// # Errors
    /// No such interface, or raw sockets are not allowed.
    pub fn sender(namespace: &Namespace, interface: &str) -> anyhow::Result<Self> {
        let open = || -> io::Result<Self> {
            let descriptor = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
            let index = netdevice::name_to_index(&descriptor, interface)?;
            bind(&descriptor, &link::Address::for_sending(index))?;
            link::bypass_queue(&descriptor)?;
            Ok(PacketSocket { descriptor })
        };
        Ok(namespace.run(open)??)
    }

    /// Sends whole frames with one system call; gives how many the kernel took.
    ///
    /// # Errors
    /// The kernel took none, for another reason than a full queue.
    pub fn send_many(&self, frames: &mut [Vec<u8>]) -> io::Result<usize> {
        link::send_many(&self.descriptor, frames)
    }

    /// Before it was bound, the socket saw every interface.
    fn discard_pending(&self) {
        let mut buffer = [0_u8; 64];
        while recv(&self.descriptor, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
    }

    /// Takes a waiting frame; `None` when there is none.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(&self.descriptor, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(buffer.get(..length)),
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a frame, at most so long.
    ///
    /// # Errors
    /// Waiting failed.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit =
            Timespec { tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a whole frame, Ethernet header included.
    ///
    /// # Errors
    /// The kernel did not take it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            match send(&self.descriptor, frame, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN | Errno::NOBUFS) => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the socket crate has no link-layer address and no sendmmsg(2)")]
mod link {
    use std::io;
    use std::num::NonZeroU32;
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

    /// `ETH_P_ALL`.
    const ETHERTYPE_EVERY: u16 = 0x0003;

    /// `struct sockaddr_ll` for binding a raw socket to an interface.
    pub(super) struct Address(libc::sockaddr_ll);

    impl Address {
        /// `ETH_P_ALL` in network order.
        pub(super) const EVERY_PROTOCOL: NonZeroU32 =
            NonZeroU32::new(ETHERTYPE_EVERY.to_be() as u32).expect("not zero");

        pub(super) fn on(index: u32) -> Self {
            Address(libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: Self::EVERY_PROTOCOL.get() as u16,
                sll_ifindex: index as i32,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            })
        }
    }

    impl Address {
        /// Nothing is received.
        pub(super) fn for_sending(index: u32) -> Self {
            let Self(address) = Self::on(index);
            Address(libc::sockaddr_ll { sll_protocol: 0, ..address })
        }
    }

    /// A filter for `PACKET_OUTGOING`, kept by the kernel for as long as the socket lives.
    pub(super) fn take_only_sent(socket: &OwnedFd) -> io::Result<()> {
        const SENT: u32 = libc::PACKET_OUTGOING as u32;
        const KIND: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, KIND),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SENT),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        let length = size_of_val(&program) as libc::socklen_t;
        // SAFETY: the descriptor is open; `program` and its steps are readable during the call, which copies them.
        let outcome = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                length,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Hands frames to the device at once.
    pub(super) fn bypass_queue(socket: &OwnedFd) -> io::Result<()> {
        let on: libc::c_int = 1;
        let length = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the descriptor is open; `on` is readable for `length` octets during the call.
        let outcome = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                length,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `sendmmsg(2)`.
    pub(super) fn send_many(socket: &OwnedFd, frames: &mut [Vec<u8>]) -> io::Result<usize> {
        let mut parts: Vec<libc::iovec> = frames
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: `mmsghdr` is plain data for which all-zero is the empty value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        let count = headers.len() as libc::c_uint;
        // SAFETY: the descriptor is open; each header points at one part, and that at one frame, all of which live across the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR)) => Ok(0),
                error => Err(error),
            },
        }
    }

    // SAFETY: the pointer is to a complete `sockaddr_ll` that lives for the call, with its own size.
    unsafe impl SocketAddrArg for Address {
        unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
            f((&raw const self.0).cast(), size_of::<libc::sockaddr_ll>() as SocketAddrLen)
        }
    }
}
