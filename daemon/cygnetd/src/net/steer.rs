//! A filter in the kernel that tells first requests from everything else, for two sockets on one address.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The flag in the fourth octet behind both SPIs.
const RESPONSE: u32 = 0x20;

/// Of a group of two sockets the second gets requests with a responder's SPI of zero (RFC 7296 §3.1: those are IKE_SA_INIT), the first everything
/// else: COOKIE and other refusals in answer to our own first requests, which have that SPI too, and what is too short to tell. `socket` is
/// any of the two; both are bound.
pub(super) fn first_requests_to_second(socket: BorrowedFd<'_>) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let mut steps = [
        load(8),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 5, 0),
        load(12),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, 0),
        load(16),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, 0, RESPONSE),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    #[allow(unsafe_code)] // no safe interface to this option
    // SAFETY: the descriptor is borrowed and open; the program and its steps live on our stack during the call, in which the kernel copies them.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
