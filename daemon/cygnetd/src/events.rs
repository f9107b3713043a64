//! Events: each body of the core is wrapped once into a record and given to every sink, in the order of its number.

mod log_sink;
mod vici_sink;

use std::sync::{Arc, Mutex, PoisonError};

use ike_model::{ChildSaSnapshot, EventBody, EventRecord};

use crate::clock;
use crate::subscribers::Subscribers;

/// Takes events. Never blocks: it is called from the threads that run IKE.
pub(crate) trait EventSink: Send + Sync {
    /// One more event.
    fn deliver(&self, record: &EventRecord);
}

/// All sinks of this build.
pub(crate) fn sinks(subscribers: &Arc<Subscribers>) -> Vec<Box<dyn EventSink>> {
    vec![Box::new(log_sink::LogSink), Box::new(vici_sink::ViciSink::new(Arc::clone(subscribers)))]
}

/// Numbers events and hands them out.
pub(crate) struct Hub {
    gateway: String,
    boot_id: String,
    backend: &'static str,
    sinks: Vec<Box<dyn EventSink>>,
    last: Mutex<u64>,
}

impl Hub {
    /// `boot_id` is new at each start; `backend` is the name CHILD SAs are shown with.
    pub(crate) fn new(gateway: String, boot_id: String, backend: &'static str, sinks: Vec<Box<dyn EventSink>>) -> Self {
        Self { gateway, boot_id, backend, sinks, last: Mutex::new(0) }
    }

    /// Wraps `body` and gives it to every sink. The lock is held meanwhile, so that every sink sees the numbers in order.
    pub(crate) fn publish(&self, mut body: EventBody) {
        for child in children(&mut body) {
            child.backend = self.backend;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let record = EventRecord {
            v: 1,
            gateway: self.gateway.clone(),
            boot_id: self.boot_id.clone(),
            seq: *last,
            time_ms: u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX),
            body,
        };
        for sink in &self.sinks {
            sink.deliver(&record);
        }
    }
}

/// The CHILD SAs an event speaks of.
fn children(body: &mut EventBody) -> Vec<&mut ChildSaSnapshot> {
    match body {
        EventBody::ChildSaInstalled { child, .. }
        | EventBody::ChildSaClosed { child, .. }
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
        | EventBody::ChildSaInstallFailed { ike, .. }
        | EventBody::PeerUnreachable { ike, .. }
        | EventBody::PeerReachable { ike } => ike.children.iter_mut().collect(),
        EventBody::IkeSaRekeyed { old, new } => old.children.iter_mut().chain(&mut new.children).collect(),
        EventBody::PolicyAcquire { .. }
        | EventBody::DeviceDown { .. }
        | EventBody::DeviceUp { .. }
        | EventBody::Repaired { .. }
        | EventBody::ConfigLoaded { .. }
        | EventBody::ConfigRejected { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Queue(Arc<Mutex<Vec<(u64, String)>>>);

    impl EventSink for Queue {
        fn deliver(&self, record: &EventRecord) {
            self.0.lock().unwrap().push((record.seq, serde_json::to_string(record).unwrap()));
        }
    }

    #[test]
    fn numbers_have_no_gap_and_keep_their_order() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Queue(Arc::clone(&seen)));
        let hub = Arc::new(Hub::new("gw".into(), "b1".into(), "userspace", vec![sink]));
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
        assert!(seen[0].1.starts_with(r#"{"v":1,"gateway":"gw","boot_id":"b1","seq":1,"time_ms":"#), "{}", seen[0].1);
        assert!(seen[0].1.contains(r#""type":"config.loaded","connection":"a""#), "{}", seen[0].1);
    }
}
