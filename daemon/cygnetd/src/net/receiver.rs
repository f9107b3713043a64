//! The threads that read the IKE sockets: one hands each datagram to its shard, the other screens first requests.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ipsec::{Path, Reports};
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::Sockets;
use super::message;
use super::screen::{self, Screen};

/// Datagrams taken from one socket before the next one gets its turn.
const BURST: usize = 64;
/// Longest UDP payload.
const LARGEST: usize = 65_535;

/// The reading threads. Dropping it ends them.
pub(crate) struct Receiver {
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// Starts reading; `nat_too` when nobody else reads the NAT-T sockets.
    pub(crate) fn start(
        sockets: Arc<Sockets>,
        nat_too: bool,
        reports: Arc<dyn Reports>,
        screen: Screen,
    ) -> io::Result<Self> {
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut receiver = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        let (stopped, known) = (Arc::clone(&stop), Arc::clone(&sockets));
        let read = move || read_until(&stopped, &known, nat_too, &*reports);
        receiver.threads.push(thread::Builder::new().name("ike-receive".into()).spawn(read)?);
        let read = move || screen::run(&stop, &sockets, &screen);
        receiver.threads.push(thread::Builder::new().name("ike-first".into()).spawn(read)?);
        Ok(receiver)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read_until(stop: &OwnedFd, sockets: &Sockets, nat_too: bool, reports: &dyn Reports) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let mut polled = vec![PollFd::new(stop, PollFlags::IN)];
        polled.extend(sockets.to_read(nat_too).map(|bound| PollFd::new(&bound.socket, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for datagrams");
                return;
            }
        }
        let mut ready = polled.iter().map(|entry| !entry.revents().is_empty());
        if ready.next() == Some(true) {
            return;
        }
        for (bound, ready) in sockets.to_read(nat_too).zip(ready) {
            if ready {
                drain(bound, &mut buffer, reports);
            }
        }
    }
}

fn drain(bound: &super::sockets::Bound, buffer: &mut [u8], reports: &dyn Reports) {
    for _ in 0..BURST {
        let received = match message::receive(bound.socket.as_fd(), bound.local.port(), buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
            // Also errors that ICMP left on the socket; the next round reads on.
            Err(_) => return,
        };
        if received.truncated {
            continue;
        }
        let octets = buffer.get(..received.length).unwrap_or_default();
        deliver(bound.nat, received.path, octets, reports);
    }
}

/// Takes the non-ESP marker off; ESP without a backend that reads it, and keepalives, go nowhere.
fn deliver(nat: bool, path: Path, octets: &[u8], reports: &dyn Reports) {
    if !nat {
        return reports.ike_datagram(path, octets);
    }
    if let Some(message) = octets.strip_prefix(&[0; 4]) {
        reports.ike_datagram(path, message);
    }
}
