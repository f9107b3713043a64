//! Who looks at packets, and the bounded queue to each.
//!
//! [`Captures`] is the one tap of the backend, and is told of IKE messages by the shards. Whoever hands in a packet copies it into the queues of
//! those that want it and goes on: a queue that is full loses the packet and counts it. Reading a queue swaps it for an empty one, so a reader
//! holds nobody up for longer than that takes. Nothing is copied, and no lock taken, while nobody looks.

mod queue;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use ipsec::{Direction, OffloadBackend, Path, Shown, Side, Tap, View};
use offload_host::head::{self, DEFAULT_HOPS, Head};
use swanctl_compat::request::WantedCapture;
use tokio::sync::Notify;

use crate::clock;

pub(crate) use queue::{Batch, Origin, Record};
use queue::{NewRecord, Queue};

/// Captures at the same time: each has its queue.
const MOST: usize = 4;
/// Before IKE on the NAT-T port.
const MARKER: [u8; 4] = [0; 4];

/// All captures under way.
#[derive(Default)]
pub(crate) struct Captures {
    active: ArcSwap<Vec<Arc<Capture>>>,
    /// Some of them want IKE messages.
    ike: AtomicBool,
    last: AtomicU32,
    /// Held while captures come and go.
    changing: Mutex<()>,
}

/// One capture.
pub(crate) struct Capture {
    /// Names it.
    pub(crate) number: u32,
    /// What it is about.
    pub(crate) wanted: WantedCapture,
    queue: Mutex<Queue>,
    /// Something waits in the queue that was empty, or it is to end.
    ready: Notify,
    ending: AtomicBool,
}

/// A capture under way; dropping it ends it.
pub(crate) struct Watching {
    captures: Arc<Captures>,
    backend: Arc<dyn OffloadBackend>,
    /// It.
    pub(crate) capture: Arc<Capture>,
    /// What can be seen.
    pub(crate) view: View,
}

/// An IKE message as a shard sees it.
#[derive(Clone, Copy)]
pub(crate) struct IkeMessage<'a> {
    /// The connection that its IKE SA belongs to.
    pub(crate) connection: &'a str,
    /// Its way.
    pub(crate) path: Path,
    /// From us, or to us.
    pub(crate) direction: Direction,
    /// It goes over the port that it shares with ESP.
    pub(crate) nat: bool,
    /// DSCP, as far as it is known.
    pub(crate) dscp: u8,
    /// The message, without the non-ESP marker.
    pub(crate) octets: &'a [u8],
}

impl Captures {
    /// Begins a capture.
    ///
    /// # Errors
    /// The backend does not show packets, or too many look already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        backend: &Arc<dyn OffloadBackend>,
        wanted: WantedCapture,
    ) -> Result<Watching, String> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut active = Vec::clone(&self.active.load());
        if active.len() >= MOST {
            return Err(format!("{MOST} captures are under way already: end one of them first"));
        }
        let view = match backend.show_packets(Some(Arc::<Self>::clone(self))) {
            Ok(view) => view,
            Err(reason) if wanted.ike_alone => {
                View { inner: format!("nothing: {reason}"), outer: format!("IKE messages only: {reason}") }
            }
            Err(reason) => return Err(format!("{reason}; `--ike` captures IKE messages alone")),
        };
        let capture = Arc::new(Capture {
            number: self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            wanted,
            queue: Mutex::default(),
            ready: Notify::new(),
            ending: AtomicBool::new(false),
        });
        active.push(Arc::clone(&capture));
        self.replace(active);
        Ok(Watching { captures: Arc::clone(self), backend: Arc::clone(backend), capture, view })
    }

    /// Tells a capture to end; `false` when there is none of this number.
    pub(crate) fn end(&self, number: u32) -> bool {
        let active = self.active.load();
        let capture = active.iter().find(|capture| capture.number == number);
        if let Some(capture) = capture {
            capture.ending.store(true, Ordering::Relaxed);
            capture.ready.notify_one();
        }
        capture.is_some()
    }

    /// Whether any capture wants IKE messages: asked for each.
    pub(crate) fn wants_ike(&self) -> bool {
        self.ike.load(Ordering::Relaxed)
    }

    /// An IKE message was sent or received.
    pub(crate) fn ike(&self, message: &IkeMessage<'_>) {
        let wants = |capture: &&Arc<Capture>| capture.wanted.ike && capture.wanted.connection == message.connection;
        let active = self.active.load();
        let mut wanting = active.iter().filter(wants).peekable();
        if wanting.peek().is_none() {
            return;
        }
        let IkeMessage { path, direction, nat, dscp, octets, .. } = *message;
        let (source, destination) = match direction {
            Direction::Outbound => (path.local, path.remote),
            Direction::Inbound | Direction::Forward => (path.remote, path.local),
        };
        let head = Head {
            source: source.ip(),
            destination: destination.ip(),
            protocol: 0,
            ports: Some((source.port(), destination.port())),
            class: dscp << 2,
            hops: DEFAULT_HOPS,
            dont_fragment: false,
            options: &[],
        };
        let marked = if nat { [&MARKER[..], octets].concat() } else { octets.to_vec() };
        let mut room = head::room();
        let head = head.write(&marked, &mut room);
        let record = NewRecord {
            time: clock::wall(),
            direction,
            side: Side::Outer,
            dropped: None,
            origin: || Origin::Ike,
            octets: [head, &marked],
        };
        wanting.for_each(|capture| capture.put(&record));
    }

    fn replace(&self, active: Vec<Arc<Capture>>) {
        self.ike.store(active.iter().any(|capture| capture.wanted.ike), Ordering::Relaxed);
        self.active.store(Arc::new(active));
    }
}

impl Tap for Captures {
    fn wants(&self, name: &str) -> bool {
        self.active.load().iter().any(|capture| capture.wants(name))
    }

    fn show(&self, packet: &Shown<'_>) {
        let record = NewRecord {
            time: clock::wall(),
            direction: packet.direction,
            side: packet.side,
            dropped: packet.dropped,
            origin: || Origin::Esp {
                sa: packet.sa,
                name: Arc::clone(packet.name),
                spi: packet.spi,
                sequence: packet.sequence,
            },
            octets: packet.octets,
        };
        self.active.load().iter().filter(|capture| capture.wants(packet.name)).for_each(|capture| capture.put(&record));
    }
}

impl Capture {
    fn wants(&self, name: &str) -> bool {
        let child = name.strip_prefix(self.wanted.connection.as_str()).and_then(|rest| rest.strip_prefix('/'));
        child.is_some_and(|child| match &self.wanted.child {
            Some(wanted) => wanted == child,
            None => !child.contains('/'),
        })
    }

    fn put(&self, record: &NewRecord<'_, impl Fn() -> Origin>) {
        let was_empty = self.queue.lock().unwrap_or_else(PoisonError::into_inner).put(record);
        if was_empty {
            self.ready.notify_one();
        }
    }

    /// Takes what waits, leaving `empty` in its place; and how many packets were lost so far, inner and outer.
    pub(crate) fn take(&self, empty: Batch) -> (Batch, [u64; 2]) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take(empty)
    }

    /// Waits until something has come into the empty queue, or the capture is to end.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Whether it is to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _changing = self.captures.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut active = Vec::clone(&self.captures.active.load());
        active.retain(|capture| !Arc::ptr_eq(capture, &self.capture));
        if active.is_empty()
            && let Err(reason) = self.backend.show_packets(None)
        {
            // It showed none.
            tracing::debug!("{reason}");
        }
        self.captures.replace(active);
    }
}

#[cfg(test)]
pub(crate) mod tests;
