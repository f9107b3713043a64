//! Events as the daemon would tell them.

use std::sync::Arc;
use std::time::Duration;

use ike_model::history::Subscription;
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::{Carried, Traffic};
use ike_model::{Cause, CauseKind, ChildSaSnapshot, EventBody, EventRecord, Identity, IkeSaSnapshot, Rfc3339, Ulids};
use ipsec::{ModeInUse, OffloadMode, Reqid, Spi, TrafficSelector, Volume};

use crate::cluster::Cluster;
use crate::scratch::Scratch;
use crate::spool::{Entry, Kind};
use crate::store::{Location, Store};

/// A place for a database, of each engine.
pub(crate) struct Place {
    pub(crate) url: String,
    _scratch: Scratch,
    _cluster: Option<Arc<Cluster>>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let scratch = Scratch::new();
        Self { url: format!("sqlite://{}/history.db", scratch.path().display()), _scratch: scratch, _cluster: None }
    }

    pub(crate) fn postgres() -> Self {
        let cluster = Cluster::shared();
        Self { url: cluster.database(), _scratch: Scratch::new(), _cluster: Some(cluster) }
    }

    pub(crate) fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    pub(crate) fn location(&self) -> Location {
        Location::parse(&self.url).unwrap()
    }

    pub(crate) async fn store(&self) -> Store {
        self.store_of("gw", Vec::new()).await
    }

    pub(crate) async fn store_of(&self, gateway: &str, subscriptions: Vec<Subscription>) -> Store {
        Store::open(&self.location(), gateway, subscriptions).await.unwrap()
    }
}

/// One run of a daemon: makes its entries of the spool.
pub(crate) struct Run {
    gateway: String,
    boot_id: String,
    seq: u64,
    time_ms: u64,
    ulids: Ulids,
}

impl Run {
    pub(crate) fn of(gateway: &str, boot_id: &str, time_ms: u64) -> Self {
        Self { gateway: gateway.into(), boot_id: boot_id.into(), seq: 0, time_ms, ulids: Ulids::default() }
    }

    pub(crate) fn new(boot_id: &str, time_ms: u64) -> Self {
        Self::of("gw", boot_id, time_ms)
    }

    /// When its last event was.
    pub(crate) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The beginning of this run, as an earlier release told it.
    pub(crate) fn boot(&self) -> Entry {
        let (gateway, boot_id) = (&self.gateway, &self.boot_id);
        let payload = format!(r#"{{"gateway":"{gateway}","boot_id":"{boot_id}","time_ms":{}}}"#, self.time_ms);
        Entry { kind: Kind::Boot, payload: payload.into_bytes() }
    }

    /// The same, on this machine.
    pub(crate) fn boot_on(&self, host: &str, pid: u32) -> Entry {
        let (gateway, boot_id, time_ms) = (&self.gateway, &self.boot_id, self.time_ms);
        let run = serde_json::json!({
            "gateway": gateway, "boot_id": boot_id, "time_ms": time_ms, "host": host, "pid": pid
        });
        Entry { kind: Kind::Boot, payload: run.to_string().into_bytes() }
    }

    pub(crate) fn record(&mut self, body: EventBody) -> EventRecord {
        self.seq += 1;
        self.time_ms += 1000;
        let first = self.boot_id.bytes().fold(1, |sum: u8, octet| sum.wrapping_mul(31).wrapping_add(octet));
        EventRecord {
            v: 1,
            ulid: self.ulids.next(self.time_ms, || [first; 10]),
            time: Rfc3339(self.time_ms),
            gateway: self.gateway.clone(),
            boot_id: self.boot_id.clone(),
            seq: self.seq,
            body,
        }
    }

    /// An event, a second after the one before.
    pub(crate) fn told(&mut self, body: EventBody) -> Entry {
        Entry { kind: Kind::Record, payload: serde_json::to_vec(&self.record(body)).unwrap() }
    }

    /// One whole life of a child: up, `rekeys` times rekeyed, closed. Each generation carries 1000 octets each way.
    pub(crate) fn life(&mut self, connection: &str, child: &str, first: u32, rekeys: u32) -> Vec<Entry> {
        let ike = || Box::new(ike_sa(connection, first));
        let sa = |generation: u32, bytes| Box::new(child_sa(child, first + generation, generation, bytes));
        let mut entries = vec![
            self.told(EventBody::IkeSaEstablished { ike: ike() }),
            self.told(EventBody::ChildSaInstalled { ike: ike(), child: sa(0, 0) }),
        ];
        for generation in 0..rekeys {
            let (old, new) = (sa(generation, 1000), sa(generation + 1, 0));
            entries.push(self.told(EventBody::ChildSaRekeyed { ike: ike(), old, new }));
        }
        let cause = Cause::new(CauseKind::Operator, "terminated by command");
        entries.push(self.told(EventBody::ChildSaClosed { ike: ike(), child: sa(rekeys, 1000), cause: cause.clone() }));
        entries.push(self.told(EventBody::IkeSaClosed { ike: ike(), cause }));
        entries
    }
}

pub(crate) fn ike_sa(connection: &str, unique_id: u32) -> IkeSaSnapshot {
    let end = |last, id: &str| (([192, 0, 2, last], 4500).into(), Identity::Fqdn(id.into()));
    IkeSaSnapshot {
        initiator_spi: 0xFEDC_BA98_7654_3210,
        responder_spi: unique_id.into(),
        nat_remote: true,
        algorithms: Some(IkeAlgorithms {
            encryption: 20,
            key_bits: Some(256),
            integrity: None,
            prf: 5,
            key_exchange: 31,
        }),
        established_seconds: Some(0),
        ..IkeSaSnapshot::plain(connection, unique_id, end(1, "a.example"), end(2, "b.example"))
    }
}

/// `bytes` went each way, in packets of 100; the generations before carried 1000 each.
pub(crate) fn child_sa(name: &str, unique_id: u32, generation: u32, bytes: u64) -> ChildSaSnapshot {
    let traffic = Traffic { bytes, packets: bytes / 100, idle_seconds: None };
    let sum = u64::from(generation) * 1000 + bytes;
    let total = Carried { bytes: sum, packets: sum / 100 };
    let selector = |text: &str| TrafficSelector::prefix(text.parse().unwrap(), 16).unwrap();
    ChildSaSnapshot {
        reqid: Reqid(7),
        encap: true,
        spi_in: Spi::new(0xC000_0000 + unique_id),
        spi_out: Spi::new(0xD000_0000 + unique_id),
        algorithms: Some(EspAlgorithms {
            encryption: 20,
            key_bits: Some(128),
            integrity: None,
            key_exchange: Some(31),
            esn: true,
        }),
        traffic_in: traffic,
        traffic_out: traffic,
        total_in: total,
        total_out: total,
        limits: ipsec::Limits {
            soft: Volume { time: Some(Duration::from_secs(3300)), bytes: Some(1 << 30), packets: None },
            hard: Volume { time: Some(Duration::from_secs(3600)), bytes: None, packets: Some(u64::MAX) },
        },
        local_ts: vec![selector("10.1.0.0")],
        remote_ts: vec![selector("10.2.0.0")],
        generation,
        offload: ModeInUse { mode: OffloadMode::Packet, device: Some("eth0".into()), simulated: false },
        ..ChildSaSnapshot::plain(name, unique_id)
    }
}
