//! First requests, before a shard sees them: answered with COOKIE, dropped, or put into their shard's inbox.
//!
//! RFC 7296 §2.6. Done on a thread of its own, which keeps nothing of what it answers. A request with a valid COOKIE goes into a lane of its
//! own, ahead of those that nothing is known of.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ike_crypto::CryptoProvider;
use ike_model::IkeSettings;
use ike_sa::{Admission, Gate, Screened};
use ipsec::Path;
use rustix::event::{PollFd, PollFlags};

use super::Sockets;
use super::message::Batch;
use crate::clock;
use crate::events::Hub;
use crate::router::Router;

/// At least this long between two log lines about dropped requests.
const FLOOD_PAUSE: Duration = Duration::from_secs(10);

/// What first requests are screened with.
pub(crate) struct Screen {
    /// Who may begin.
    pub(crate) admission: Arc<Admission>,
    /// Cryptography of cookies.
    pub(crate) provider: &'static CryptoProvider,
    /// The limits.
    pub(crate) settings: IkeSettings,
    /// The way to the shards.
    pub(crate) router: Arc<Router>,
    /// Where the events of what is begun go.
    pub(crate) events: Arc<Hub>,
}

impl Screen {
    /// Takes one request. Gives the answer, if it is to be answered at once.
    pub(super) fn take(&self, path: Path, octets: &[u8]) -> Option<Vec<u8>> {
        // What could not be taken down is not begun: the peer asks again.
        self.admission.hold(!self.events.has_room());
        let gate =
            Gate { now: clock::now(), rng: self.provider.random, provider: self.provider, settings: &self.settings };
        match self.admission.screen(&gate, path, octets) {
            Screened::Pass { proven } => {
                self.router.first_request(path, octets, proven);
                None
            }
            Screened::Answer(answer) => Some(answer),
            Screened::Drop => None,
        }
    }
}

/// Reads the sockets of first requests, and the router's queue of those that came another way, until `stop`.
pub(super) fn run(stop: &OwnedFd, sockets: &Sockets, screen: &Screen) {
    let mut batch = Batch::new();
    let queue = screen.router.firsts();
    let (mut told, mut told_at) = (0, clock::now());
    loop {
        let dropped = queue.dropped();
        if dropped > told && clock::now().saturating_since(told_at) >= FLOOD_PAUSE {
            tracing::warn!(
                since = dropped - told,
                dropped,
                "first requests on the NAT-T port come faster than they can be looked at"
            );
            (told, told_at) = (dropped, clock::now());
        }
        let mut polled = vec![PollFd::new(stop, PollFlags::IN), PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN)];
        polled.extend(sockets.of_first_requests().map(|bound| PollFd::new(&bound.socket, PollFlags::IN)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for first requests");
                return;
            }
        }
        let mut ready = polled.iter().map(|entry| !entry.revents().is_empty());
        if ready.next() == Some(true) {
            return;
        }
        ready.next();
        for datagram in queue.take() {
            answer(sockets, screen, datagram.path, &datagram.octets);
        }
        for (bound, ready) in sockets.of_first_requests().zip(ready) {
            // An error (an ICMP error that came back, for example) is cleared by being read.
            if ready && batch.receive(bound.socket.as_fd()).is_ok() {
                for (remote, local, octets) in batch.datagrams() {
                    let local = SocketAddr::new(local, bound.local.port());
                    answer(sockets, screen, Path { local, remote }, octets);
                }
            }
        }
    }
}

/// A cookie that cannot be sent is lost like any datagram.
fn answer(sockets: &Sockets, screen: &Screen, path: Path, octets: &[u8]) {
    if let Some(octets) = screen.take(path, octets)
        && let Err(error) = sockets.send(&path, &octets, 0)
    {
        tracing::debug!(local = %path.local, peer = %path.remote, %error, "COOKIE not sent");
    }
}
