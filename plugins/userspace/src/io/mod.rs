//! Sockets, the tunnel device's queue, and the threads that move packets between them.
//!
//! One thread transmits (it alone reads the tunnel device, so every outbound SA has one transmitter), one receives (it alone reads the outer
//! sockets, so every replay window has one writer). Both sleep in poll(2) and are woken through an eventfd when control published something.

#[allow(unsafe_code)] // recvmmsg, sendmmsg and socket options have no safe interface
pub(crate) mod mmsg;
mod offload;
pub(crate) mod receive;
#[allow(unsafe_code)] // see above
pub(crate) mod socket;
pub(crate) mod transmit;
pub(crate) mod wake;

/// Now on CLOCK_BOOTTIME.
pub(crate) fn now() -> ipsec::Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    ipsec::Instant::new(std::time::Duration::new(seconds, nanoseconds))
}
