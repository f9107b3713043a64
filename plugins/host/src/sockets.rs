//! What every outer socket (UDP 500 and 4500, raw ESP) carries so that it goes around the tunnel and the guard.
//!
//! The mark keeps its packets out of our routing table; the bypass is a pair of per-socket XFRM policies, which the kernel looks at before any
//! other policy. A bypass is as narrow as can be: it concerns one socket of our own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::sockopt;

use super::error::HostError;
use super::prefix::Family;
use super::xfrm::{Way, socket_policy};

/// Sets SO_MARK.
pub fn set_mark(socket: BorrowedFd<'_>, mark: u32) -> Result<(), HostError> {
    set(socket, "SO_MARK", libc::SOL_SOCKET, libc::SO_MARK, &mark.to_ne_bytes())
}

/// Sets the receive buffer, beyond the system's limit where we may, and returns what the kernel granted.
pub fn set_receive_buffer(socket: BorrowedFd<'_>, octets: usize) -> Result<usize, HostError> {
    let failed = |source: rustix::io::Errno| HostError::SocketOption { option: "SO_RCVBUF", source: source.into() };
    if sockopt::set_socket_recv_buffer_size_force(socket, octets).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, octets).map_err(failed)?;
    }
    sockopt::socket_recv_buffer_size(socket).map_err(failed)
}

/// Lets everything of `family` pass on this socket whatever the kernel's policies say, in both directions.
///
/// A socket holds one policy per direction, so an IPv6 socket that also carries IPv4 can bypass only one of them: use one socket per family.
/// Returns `false` where the kernel has no XFRM and so nothing to bypass.
pub fn socket_bypass(socket: impl AsFd, family: Family) -> Result<bool, HostError> {
    let (name, level, option) = match family {
        Family::V4 => ("IP_XFRM_POLICY", libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
        Family::V6 => ("IPV6_XFRM_POLICY", libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY),
    };
    for way in [Way::In, Way::Out] {
        match set(socket.as_fd(), name, level, option, &socket_policy(family, way)) {
            Err(HostError::SocketOption { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP)) =>
            {
                return Ok(false);
            }
            answer => answer?,
        }
    }
    Ok(true)
}

/// Has the kernel take ESP out of what arrives on a NAT-T socket (RFC 3948); IKE with its marker comes through, keepalives are dropped.
///
/// # Errors
/// The kernel's refusal: it has no IPsec.
pub fn esp_in_udp(socket: impl AsFd) -> Result<(), HostError> {
    const UDP_ENCAP: libc::c_int = 100;
    const UDP_ENCAP_ESPINUDP: libc::c_int = 2;
    set(socket.as_fd(), "UDP_ENCAP", libc::IPPROTO_UDP, UDP_ENCAP, &UDP_ENCAP_ESPINUDP.to_ne_bytes())
}

fn set(
    socket: BorrowedFd<'_>,
    option: &'static str,
    level: libc::c_int,
    number: libc::c_int,
    value: &[u8],
) -> Result<(), HostError> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or_default();
    #[allow(unsafe_code)] // no safe interface to these options
    // SAFETY: the descriptor is borrowed and open; `value` is readable for `length` octets during the call.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, number, value.as_ptr().cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(HostError::SocketOption { option, source: io::Error::last_os_error() }) }
}
