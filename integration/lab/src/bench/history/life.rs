//! The events of a daemon whose tunnels come up, rekey and end.

use std::time::Duration;

use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::snapshot::{Carried, Traffic};
use ike_model::{Cause, CauseKind, ChildSaSnapshot, EventBody, EventRecord, Identity, IkeSaSnapshot, Rfc3339, Ulids};
use ipsec::{ModeInUse, OffloadMode, Reqid, Spi, TrafficSelector, Volume};

/// Rekeys of each CHILD SA.
const REKEYS: u32 = 10;
/// Connections that take turns.
const CONNECTIONS: u32 = 100;

/// One run of a daemon.
pub(super) struct Run {
    gateway: String,
    boot_id: String,
    seq: u64,
    time_ms: u64,
    ulids: Ulids,
    next: u32,
}

impl Run {
    pub(super) fn new(gateway: &str, boot_id: &str, time_ms: u64) -> Self {
        Self { gateway: gateway.into(), boot_id: boot_id.into(), seq: 0, time_ms, ulids: Ulids::default(), next: 1 }
    }

    /// One whole life of a tunnel: up, ten times rekeyed with the last counters of each generation, closed.
    pub(super) fn life(&mut self, records: &mut Vec<EventRecord>) {
        let first = self.next;
        self.next += REKEYS + 1;
        let connection = format!("site{}", first / (REKEYS + 1) % CONNECTIONS);
        let ike = || Box::new(ike_sa(&connection, first));
        let sa = |generation, bytes| Box::new(child_sa(first + generation, generation, bytes));
        let cause = || Cause::new(CauseKind::Operator, "terminated by command");
        records.push(self.record(EventBody::IkeSaEstablished { ike: ike() }));
        records.push(self.record(EventBody::ChildSaInstalled { ike: ike(), child: sa(0, 0) }));
        for generation in 0..REKEYS {
            let (old, new) = (sa(generation, 1_000_000), sa(generation + 1, 0));
            let successor = Some(new.unique_id);
            records.push(self.record(EventBody::ChildSaRekeyed { ike: ike(), old, new }));
            let child = sa(generation, 1_001_000);
            records.push(self.record(EventBody::ChildSaRemoved { ike: ike(), child, successor }));
        }
        records.push(self.record(EventBody::ChildSaClosed { ike: ike(), child: sa(REKEYS, 500), cause: cause() }));
        records.push(self.record(EventBody::IkeSaClosed { ike: ike(), cause: cause() }));
    }

    fn record(&mut self, body: EventBody) -> EventRecord {
        self.seq += 1;
        self.time_ms += 10;
        EventRecord {
            v: 1,
            ulid: self.ulids.next(self.time_ms, || [7; 10]),
            time: Rfc3339(self.time_ms),
            gateway: self.gateway.clone(),
            boot_id: self.boot_id.clone(),
            seq: self.seq,
            body,
        }
    }
}

fn ike_sa(connection: &str, unique_id: u32) -> IkeSaSnapshot {
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

fn child_sa(unique_id: u32, generation: u32, bytes: u64) -> ChildSaSnapshot {
    let traffic = Traffic { bytes, packets: bytes / 1000, idle_seconds: None };
    let sum = u64::from(generation) * 1_000_000 + bytes;
    let total = Carried { bytes: sum, packets: sum / 1000 };
    let selector = |third| TrafficSelector::prefix(std::net::Ipv4Addr::new(10, third, 0, 0).into(), 16);
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
            hard: Volume { time: Some(Duration::from_secs(3600)), bytes: None, packets: Some(1 << 40) },
        },
        local_ts: selector(1).into_iter().collect(),
        remote_ts: selector(2).into_iter().collect(),
        generation,
        offload: ModeInUse { mode: OffloadMode::Packet, device: Some("eth0".into()), simulated: false },
        ..ChildSaSnapshot::plain("net", unique_id)
    }
}
