//! Events: each body of the core is wrapped once into a record and given to every sink, in the order of its number.

mod log_sink;
mod vici_sink;

use std::sync::{Arc, Mutex, PoisonError};

use ike_crypto::SecureRandom;
use ike_model::history::NotRecorded;
use ike_model::{Cause, CauseKind, ChildSaSnapshot, EventBody, EventRecord, Recorder, Rfc3339, Ulids};

use crate::clock;
use crate::subscribers::Subscribers;
use crate::telemetry::Telemetry;
use crate::updown::Updown;

/// Takes events. Never blocks: it is called from the threads that run IKE.
pub(crate) trait EventSink: Send + Sync {
    /// One more event.
    fn deliver(&self, record: &EventRecord);
}

/// All sinks of this run.
pub(crate) fn sinks(subscribers: &Arc<Subscribers>, telemetry: &Telemetry, updown: &Updown) -> Vec<Box<dyn EventSink>> {
    let mut sinks: Vec<Box<dyn EventSink>> =
        vec![Box::new(log_sink::LogSink), Box::new(vici_sink::ViciSink::new(Arc::clone(subscribers)))];
    sinks.extend(telemetry.sink());
    sinks.push(updown.sink());
    sinks
}

/// Who publishes: what is the same in all records of one run.
pub(crate) struct Origin {
    /// Name of the gateway.
    pub(crate) gateway: String,
    /// New at each start.
    pub(crate) boot_id: String,
    /// The name CHILD SAs are shown with.
    pub(crate) backend: &'static str,
    /// For what nobody shall guess.
    pub(crate) random: &'static dyn SecureRandom,
}

/// Numbers events, has them taken down and hands them out.
pub(crate) struct Hub {
    origin: Origin,
    recorder: Option<Arc<dyn Recorder>>,
    sinks: Vec<Box<dyn EventSink>>,
    numbering: Mutex<Numbering>,
}

#[derive(Default)]
struct Numbering {
    last: u64,
    ulids: Ulids,
    /// Number of the first event that was not taken down, and why, until that can be told.
    gap: Option<(u64, NotRecorded)>,
}

impl Hub {
    /// Without a recorder, events are only handed out.
    pub(crate) fn new(origin: Origin, recorder: Option<Arc<dyn Recorder>>, sinks: Vec<Box<dyn EventSink>>) -> Self {
        Self { origin, recorder, sinks, numbering: Mutex::default() }
    }

    /// Identifies this run in every record.
    pub(crate) fn boot_id(&self) -> &str {
        &self.origin.boot_id
    }

    /// Name of the gateway, in every record.
    #[cfg(feature = "telemetry")]
    pub(crate) fn gateway(&self) -> &str {
        &self.origin.gateway
    }

    /// Events of new IKE SAs can be taken down.
    pub(crate) fn has_room(&self) -> bool {
        self.recorder.as_ref().is_none_or(|recorder| recorder.has_room())
    }

    /// Publishes one event.
    pub(crate) fn publish(&self, body: EventBody) {
        self.publish_all([body]);
    }

    /// Wraps each body, has all of them taken down at once, and gives them to every sink. When this returns, what they describe may be let
    /// out. The lock is held meanwhile, so that everybody sees the numbers in order.
    pub(crate) fn publish_all(&self, bodies: impl IntoIterator<Item = EventBody>) {
        let mut numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bodies = bodies.into_iter().peekable();
        if bodies.peek().is_none() {
            return;
        }
        self.tell_gap(&mut numbering);
        let records: Vec<EventRecord> = bodies.map(|body| self.wrap(&mut numbering, body)).collect();
        self.take_down(&mut numbering, &records);
        self.hand_out(&records);
    }

    fn wrap(&self, numbering: &mut Numbering, mut body: EventBody) -> EventRecord {
        for child in children(&mut body) {
            child.backend = self.origin.backend;
        }
        numbering.last += 1;
        let time_ms = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
        let random = || {
            let mut octets = [0; 10];
            // Without random octets an identifier can be guessed, but it still is one of its kind: the boot id is beside it.
            if self.origin.random.fill(&mut octets).is_err() {
                octets = [0; 10];
            }
            octets
        };
        EventRecord {
            v: 1,
            ulid: numbering.ulids.next(time_ms, random),
            time: Rfc3339(time_ms),
            gateway: self.origin.gateway.clone(),
            boot_id: self.origin.boot_id.clone(),
            seq: numbering.last,
            body,
        }
    }

    /// Once events can be taken down again, the first to be is which ones are missing.
    fn tell_gap(&self, numbering: &mut Numbering) {
        let Some(((first, error), recorder)) = numbering.gap.clone().zip(self.recorder.as_ref()) else { return };
        let last = numbering.last;
        let cause = Cause::new(CauseKind::Internal, error.to_string());
        let record = [self.wrap(numbering, EventBody::EventsGap { first, last, cause })];
        match recorder.record(&record) {
            Ok(()) => {
                numbering.gap = None;
                self.hand_out(&record);
            }
            // Its number has been given to nobody.
            Err(_) => numbering.last = last,
        }
    }

    fn take_down(&self, numbering: &mut Numbering, records: &[EventRecord]) {
        let Some((recorder, first)) = self.recorder.as_ref().zip(records.first()) else { return };
        // A gap that could not be told cannot be followed by what comes after it.
        if numbering.gap.is_some() {
            return;
        }
        if let Err(error) = recorder.record(records) {
            tracing::error!(%error, first = first.seq, "events cannot be taken down: history and webhooks will miss them");
            numbering.gap = Some((first.seq, error));
        }
    }

    fn hand_out(&self, records: &[EventRecord]) {
        for record in records {
            for sink in &self.sinks {
                sink.deliver(record);
            }
        }
    }
}

/// The CHILD SAs an event speaks of.
fn children(body: &mut EventBody) -> Vec<&mut ChildSaSnapshot> {
    match body {
        EventBody::ChildSaInstalled { child, .. }
        | EventBody::ChildSaPrepared { child, .. }
        | EventBody::ChildSaWithdrawn { child, .. }
        | EventBody::ChildSaClosed { child, .. }
        | EventBody::ChildSaRemoved { child, .. }
        | EventBody::ChildSaRekeyFailed { child, .. }
        | EventBody::ChildSaSoftExpired { child, .. }
        | EventBody::ChildSaHardExpired { child, .. }
        | EventBody::Degraded { child, .. }
        | EventBody::StateLost { child, .. } => vec![child],
        EventBody::ChildSaRekeyed { old, new, .. } => vec![old, new],
        EventBody::IkeSaEstablished { ike }
        | EventBody::IkeSaClosed { ike, .. }
        | EventBody::IkeSaAuthFailed { ike, .. }
        | EventBody::IkeSaFailed { ike, .. }
        | EventBody::IkeSaUpdated { ike, .. }
        | EventBody::IkeSaRekeyFailed { ike, .. }
        | EventBody::IkeSaDuplicate { ike, .. }
        | EventBody::ChildSaInstallFailed { ike, .. }
        | EventBody::ChildSaFailed { ike, .. }
        | EventBody::PeerUnreachable { ike, .. }
        | EventBody::PeerReachable { ike } => ike.children.iter_mut().collect(),
        EventBody::IkeSaRekeyed { old, new } => old.children.iter_mut().chain(&mut new.children).collect(),
        EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::Repaired { .. }
        | EventBody::UpdownFailed { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. }
        | EventBody::KeysExported { .. }
        | EventBody::EventsGap { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Queue(Arc<Mutex<Vec<(u64, String)>>>);

    impl EventSink for Queue {
        fn deliver(&self, record: &EventRecord) {
            self.0.lock().unwrap().push((record.seq, serde_json::to_string(record).unwrap()));
        }
    }

    fn origin() -> Origin {
        Origin { gateway: "gw".into(), boot_id: "b1".into(), backend: "userspace", random: &ike_crypto::SystemRandom }
    }

    /// Takes down as long as it may.
    #[derive(Default)]
    struct Notebook {
        full: AtomicBool,
        kept: Mutex<Vec<EventRecord>>,
    }

    impl Recorder for Notebook {
        fn record(&self, records: &[EventRecord]) -> Result<(), NotRecorded> {
            if self.full.load(Ordering::Relaxed) {
                return Err(NotRecorded::Full);
            }
            self.kept.lock().unwrap().extend_from_slice(records);
            Ok(())
        }

        fn has_room(&self) -> bool {
            !self.full.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_gap_is_told_as_soon_as_it_can_be() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notebook = Arc::new(Notebook::default());
        let recorder = Arc::<Notebook>::clone(&notebook) as Arc<dyn Recorder>;
        let hub = Hub::new(origin(), Some(recorder), vec![Box::new(Queue(Arc::clone(&seen)))]);
        let event = |name: &str| EventBody::ConfigLoaded { connection: name.into() };
        hub.publish(event("a"));
        notebook.full.store(true, Ordering::Relaxed);
        hub.publish_all([event("b"), event("c")]);
        hub.publish(event("d"));
        notebook.full.store(false, Ordering::Relaxed);
        hub.publish(event("e"));
        let kept: Vec<_> =
            notebook.kept.lock().unwrap().iter().map(|record| (record.seq, record.body.clone())).collect();
        let cause = Cause::new(CauseKind::Internal, "the spool is full");
        assert_eq!(kept, [(1, event("a")), (5, EventBody::EventsGap { first: 2, last: 4, cause }), (6, event("e"))]);
        let seen = seen.lock().unwrap();
        assert!(seen.iter().map(|(seq, _)| *seq).eq(1..=6), "everybody else misses nothing");
    }

    #[test]
    fn numbers_have_no_gap_and_keep_their_order() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Queue(Arc::clone(&seen)));
        let hub = Arc::new(Hub::new(origin(), None, vec![sink]));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let hub = Arc::clone(&hub);
                std::thread::spawn(move || {
                    for _ in 0..100 {
                        hub.publish(EventBody::ConfigLoaded { connection: "a".into() });
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().map(|(seq, _)| *seq).eq(1..=400));
        assert!(seen[0].1.starts_with(r#"{"v":1,"ulid":"0"#), "{}", seen[0].1);
        assert!(seen[0].1.contains(r#"Z","gateway":"gw","boot_id":"b1","seq":1,"#), "{}", seen[0].1);
        assert!(seen[0].1.contains(r#""type":"config.loaded","connection":"a""#), "{}", seen[0].1);
    }
}
