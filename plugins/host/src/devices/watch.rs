//! The thread that hears of changes at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::super::error::HostError;
use super::super::netlink::Netlink;
use super::super::rules::OURS;
use super::{Devices, LinkChange};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// Entries that the kernel makes for single destinations (redirects, path MTUs) and no route of anybody.
const RTM_F_CLONED: u32 = 0x200;

/// Listens for links, addresses, routes, rules and next hops.
pub(super) fn listen() -> Result<Netlink, HostError> {
    const LINK: u32 = 1;
    const IPV4_ADDRESS: u32 = 5;
    const IPV4_ROUTE: u32 = 7;
    const IPV4_RULE: u32 = 8;
    const IPV6_ADDRESS: u32 = 9;
    const IPV6_ROUTE: u32 = 11;
    const IPV6_RULE: u32 = 19;
    const NEXTHOP: u32 = 32;
    let groups = [LINK, IPV4_ADDRESS, IPV4_ROUTE, IPV4_RULE, IPV6_ADDRESS, IPV6_ROUTE, IPV6_RULE, NEXTHOP];
    Netlink::listen("route", NETLINK_ROUTE, &groups)
}

/// Whether the way of our marked packets may be another one after this message. Our own routes and rules are not for them.
pub(super) fn concerns_routes(kind: u16, body: &[u8]) -> bool {
    let flags = body.get(8..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_ne_bytes);
    match (kind, body) {
        (RTM_NEWADDR..=RTM_DELADDR | RTM_NEWRULE..=RTM_DELRULE | RTM_NEWNEXTHOP..=RTM_DELNEXTHOP, _) => true,
        (RTM_NEWROUTE..=RTM_DELROUTE, [_, _, _, _, _, protocol, ..]) => {
            *protocol != u8::from(OURS) && flags & RTM_F_CLONED == 0
        }
        _ => false,
    }
}

/// Follows [`Devices`] on a thread and tells of each change. Stops when dropped.
#[derive(Debug)]
pub struct LinkWatch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Starts the thread. `told` is called from there and should not take long.
    ///
    /// # Errors
    /// The system's refusal of a thread or an event counter.
    pub fn start(devices: Arc<Devices>, told: impl Fn(LinkChange) + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let heard = {
            let changes = devices.changes.lock().unwrap_or_else(PoisonError::into_inner);
            changes.as_fd().try_clone_to_owned()?
        };
        let body = move || {
            while wait(&heard, &stopped) {
                devices.follow().into_iter().for_each(&told);
            }
        };
        let thread = thread::Builder::new().name("link-watch".to_owned()).spawn(body)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        // A counter that cannot be written to is at its end already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that follows links ended in a panic");
        }
    }
}

/// Waits for something to hear; `false` when it is time to stop.
fn wait(heard: &OwnedFd, stop: &OwnedFd) -> bool {
    loop {
        let mut both = [PollFd::new(heard, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut both, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for changes of links");
                return false;
            }
            Ok(_) => return both.last().is_none_or(|stop| stop.revents().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_way_of_our_packets_is_told_from_what_does_not() {
        let route = |protocol, flags: u32| {
            let mut out = vec![2, 24, 0, 0, 254, protocol, 0, 1];
            out.extend_from_slice(&flags.to_ne_bytes());
            out
        };
        assert!(concerns_routes(RTM_NEWROUTE, &route(3, 0)) && concerns_routes(RTM_DELROUTE, &route(186, 0)));
        assert!(!concerns_routes(RTM_NEWROUTE, &route(u8::from(OURS), 0)));
        assert!(!concerns_routes(RTM_NEWROUTE, &route(0, RTM_F_CLONED)));
        assert!(concerns_routes(RTM_NEWADDR, &[]) && concerns_routes(RTM_DELRULE, &[]));
        assert!(concerns_routes(RTM_NEWNEXTHOP, &[]) && !concerns_routes(28, &route(3, 0)));
    }
}
