//! `cygnet-capture`: packets to a client, for as long as it wants them.
//!
//! A client that does not read holds up this stream only: meanwhile the queue of the capture fills up and loses what comes, which is counted. There
//! is room for few captures, so it does not hold its place for ever: it is given up like a client that takes nothing of an answer, and sooner when
//! somebody ends the capture.

mod keys;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ike_model::ChildSaSnapshot;
use ipsec::{Direction, OffloadMode, SaHandle, Side};
use swanctl_compat::capture::{self, EVENT_OCTETS, EVENT_PACKETS, Head, Packet, Sa, Totals};
use swanctl_compat::render;
use swanctl_compat::request::{WantedCapture, child_not_found, ike_not_found};
use swanctl_compat::vici::{Message, Packet as Vici, frame};

use crate::capture::{Batch, Capture, Origin, Record, Watching};
use crate::core::Core;
use crate::subscribers::{Client, framed};
use keys::Handing;

/// An event comes at least this often, so that a client sees time pass and knows what was lost.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What comes within this time goes into one event.
const GATHER: Duration = Duration::from_millis(10);
/// What came before the capture was told to end waits so long for a client that does not read.
const FAREWELL: Duration = Duration::from_secs(5);
/// SAs without a CHILD SA that are remembered.
const STRANGERS: usize = 4096;

const HEAD: &str = "cygnet-capture";
const PACKETS: &str = "cygnet-packets";

/// Streams until the capture is to end.
pub(super) async fn capture(core: &Core, client: &Client, wanted: WantedCapture) -> Message {
    if let Some(reason) = misses(core, client, &wanted) {
        return render::failed(&reason);
    }
    let handing = if wanted.keys { Handing::new(core, client).map(Some) } else { Ok(None) };
    let handing = match handing {
        Ok(handing) => handing,
        Err(reason) => return render::failed(&reason),
    };
    let begun = core.shared.captures.begin(&core.shared.backend, wanted);
    let watching = match begun {
        Ok(watching) => watching,
        Err(reason) => return render::failed(&reason),
    };
    let wanted = &watching.capture.wanted;
    tracing::info!(conn = wanted.connection, child = wanted.child, "packets are captured for a VICI client");
    let mut sas = Sas::default();
    let modes = sas.look(core, wanted).await;
    let stream = Stream { client, capture: &watching.capture, farewell: FAREWELL };
    let begun = stream.send(HEAD, head(&watching, modes).message()).await;
    let (seen, lost) = match begun {
        true => stream_packets(core, &watching, &stream, &mut sas, handing).await,
        false => Default::default(),
    };
    tracing::info!(
        conn = wanted.connection,
        inner = seen.inner,
        outer = seen.outer,
        lost = lost.inner + lost.outer,
        "the capture has ended"
    );
    capture::ended(seen, lost)
}

/// Ends a capture of another session.
pub(super) fn stop(core: &Core, id: u32) -> Message {
    if core.shared.captures.end(id) { render::matched(1, None) } else { render::matched(0, Some("no such capture")) }
}

/// What a capture cannot begin without.
fn misses(core: &Core, client: &Client, wanted: &WantedCapture) -> Option<String> {
    let Some(connection) = core.store.connections(Some(&wanted.connection)).pop() else {
        return Some(ike_not_found(&wanted.connection));
    };
    if let Some(child) = wanted.child.as_ref().filter(|child| connection.child(child).is_none()) {
        return Some(child_not_found(child));
    }
    (client.registrations(PACKETS) == 0).then(|| format!("nobody listens: register for {PACKETS} first"))
}

fn head(watching: &Watching, modes: Vec<String>) -> Head {
    let wanted = &watching.capture.wanted;
    Head {
        id: watching.capture.number,
        connection: wanted.connection.clone(),
        child: wanted.child.clone(),
        modes,
        inner: watching.view.inner.clone(),
        outer: watching.view.outer.clone(),
    }
}

/// Gives how many packets were sent, and how many lost.
async fn stream_packets(
    core: &Core,
    watching: &Watching,
    stream: &Stream<'_>,
    sas: &mut Sas,
    mut handing: Option<Handing>,
) -> (Totals, Totals) {
    let capture = &watching.capture;
    let (mut sent, mut spare) = (Totals::default(), Batch::default());
    let mut taken = match &mut handing {
        Some(handing) => handing.more(core, &capture.wanted, stream, true).await,
        None => true,
    };
    loop {
        if taken && tokio::time::timeout(HEARTBEAT, capture.ready()).await.is_ok() && !capture.is_ending() {
            tokio::time::sleep(GATHER).await;
        }
        // What comes after it was told to end is not waited for, but what came before is there.
        let ending = capture.is_ending();
        let (batch, [inner, outer]) = capture.take(spare);
        let mut lost = Totals { inner, outer };
        let news = sas.learn(core, &capture.wanted, &batch).await;
        if let Some(handing) = handing.as_mut().filter(|_| taken) {
            taken = handing.more(core, &capture.wanted, stream, news || ending).await;
        }
        if taken {
            taken = send_all(stream, sas, &batch, &mut lost, &mut sent).await;
        } else {
            batch.packets().for_each(|(record, _)| lost.count(side(record)));
        }
        if ending || !taken {
            return (sent, lost);
        }
        spare = batch.emptied();
    }
}

/// Sends a batch, adding to what was sent; what the client does not take is lost, and it is `false` then.
async fn send_all(stream: &Stream<'_>, sas: &Sas, batch: &Batch, lost: &mut Totals, sent: &mut Totals) -> bool {
    let mut packets = batch.packets().peekable();
    loop {
        let mut octets = 0;
        let (mut some, mut these) = (Vec::new(), Totals::default());
        while let Some((record, packet)) = packets.next_if(|_| octets < EVENT_OCTETS && some.len() < EVENT_PACKETS) {
            octets += packet.len();
            these.count(side(record));
            some.push(sas.describe(record, packet));
        }
        if !stream.send(PACKETS, capture::packets(*lost, some)).await {
            *lost += these;
            packets.for_each(|(record, _)| lost.count(side(record)));
            return false;
        }
        *sent += these;
        if packets.peek().is_none() {
            return true;
        }
    }
}

/// Events to one client.
struct Stream<'a> {
    client: &'a Client,
    capture: &'a Capture,
    /// See [`FAREWELL`].
    farewell: Duration,
}

impl Stream<'_> {
    /// Queues an event as soon as there is room; `false` when the client takes nothing, so that nothing further need be sent.
    async fn send(&self, event: &str, message: Message) -> bool {
        let frame = match frame::encode(&Vici::Event(event.to_owned(), message)) {
            Ok(octets) => framed(octets),
            Err(error) => {
                tracing::error!(%error, "packets are too long for VICI and were not sent");
                return true;
            }
        };
        for _ in 0..self.client.registrations(event) {
            let sent = tokio::select! {
                biased;
                sent = self.client.send(Arc::clone(&frame)) => sent,
                () = self.given_up() => false,
            };
            if !sent {
                return false;
            }
        }
        tokio::task::yield_now().await;
        true
    }

    /// Waits until the capture has been told to end for so long that a client that reads would have taken everything.
    async fn given_up(&self) {
        while !self.capture.is_ending() {
            tokio::time::sleep(HEARTBEAT).await;
        }
        tokio::time::sleep(self.farewell).await;
    }
}

/// The CHILD SAs of a connection, by the SAs that they own.
#[derive(Default)]
struct Sas {
    known: HashMap<SaHandle, (u32, u32)>,
    /// SAs that belong to none: already gone when they were asked for.
    strangers: HashSet<SaHandle>,
}

impl Sas {
    /// Asks the shards again; gives the mode really in use of each child that is up.
    async fn look(&mut self, core: &Core, wanted: &WantedCapture) -> Vec<String> {
        let ike_sas = core.ike_sas_of(&wanted.connection).await;
        let mut modes = Vec::new();
        for child in ike_sas.iter().flat_map(|ike| &ike.children) {
            let handles = child.sa_in.into_iter().chain(child.sa_out);
            self.known.extend(handles.map(|sa| (sa, (child.unique_id, child.generation))));
            let is_wanted = wanted.child.as_ref().is_none_or(|name| *name == *child.name);
            let mode = mode(core.nature.kind.name(), child);
            if is_wanted && child.sa_out.is_some() && !modes.contains(&mode) {
                modes.push(mode);
            }
        }
        modes
    }

    /// Asks where a batch has packets of SAs that are not known yet. Whether it has some, or IKE messages: there may be new SAs.
    async fn learn(&mut self, core: &Core, wanted: &WantedCapture, batch: &Batch) -> bool {
        let sa = |record: &Record| match &record.origin {
            Origin::Esp { sa, .. } => Some(*sa),
            Origin::Ike => None,
        };
        let is_new = |sa: &SaHandle| !self.known.contains_key(sa) && !self.strangers.contains(sa);
        let new: Vec<SaHandle> = batch.packets().filter_map(|(record, _)| sa(record)).filter(is_new).collect();
        if new.is_empty() {
            return batch.packets().any(|(record, _)| record.origin == Origin::Ike);
        }
        self.look(core, wanted).await;
        if self.strangers.len() > STRANGERS {
            self.strangers.clear();
        }
        self.strangers.extend(new.into_iter().filter(|sa| !self.known.contains_key(sa)));
        true
    }

    fn describe<'a>(&self, record: &Record, octets: &'a [u8]) -> Packet<'a> {
        let sa = match &record.origin {
            Origin::Esp { sa, name, spi, sequence } => Some(Sa {
                child: name.rsplit_once('/').map_or(&**name, |(_, child)| child).to_owned(),
                number: self.known.get(sa).copied(),
                spi: spi.to_string(),
                sequence: *sequence,
            }),
            Origin::Ike => None,
        };
        Packet {
            time: record.time,
            side: side(record),
            inbound: record.direction != Direction::Outbound,
            sa,
            dropped: record.dropped.map(str::to_owned),
            octets,
            length: octets.len(),
        }
    }
}

fn side(record: &Record) -> capture::Side {
    match record.side {
        Side::Inner => capture::Side::Inner,
        Side::Outer => capture::Side::Outer,
    }
}

/// `net4: kernel, packet offload on eth0`.
fn mode(backend: &str, child: &ChildSaSnapshot) -> String {
    let offload = match child.offload.mode {
        OffloadMode::No | OffloadMode::Auto => String::new(),
        OffloadMode::Crypto => ", crypto offload".to_owned(),
        OffloadMode::Packet => ", packet offload".to_owned(),
    };
    let device = child.offload.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
    let simulated = if child.offload.simulated { " (simulated)" } else { "" };
    format!("{}: {backend}{offload}{device}{simulated}", child.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Captures;
    use crate::capture::tests::{Showing, begin, wanted};
    use crate::subscribers::{ROOM, Subscribers};

    #[tokio::test]
    async fn a_client_that_takes_nothing_does_not_keep_its_place() {
        let soon = Duration::from_millis(50);
        let (all, captures) = (Subscribers::default(), Arc::<Captures>::default());
        let watching = begin(&captures, &Arc::<Showing>::default(), wanted(None, true)).unwrap();
        for patience in [Some(soon), None] {
            let (client, _queue) = all.join(patience);
            client.register(PACKETS);
            let stream = Stream { client: &client, capture: &watching.capture, farewell: soon };
            assert!(stream.send(PACKETS, Message::new()).await);
            while client.try_send(&framed(vec![0; ROOM / 16])) {}
            let message = Message::new().with("text", "x".repeat(60_000));
            if patience.is_none() {
                let waiting = tokio::time::timeout(4 * soon, stream.send(PACKETS, message.clone())).await;
                assert!(waiting.is_err(), "nobody has told it to end");
                captures.end(watching.capture.number);
            }
            assert!(!stream.send(PACKETS, message).await);
            assert_eq!(client.is_stuck(), patience.is_some());
        }
    }
}
