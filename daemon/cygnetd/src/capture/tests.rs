use ipsec::{DeviceId, DeviceTable, NatReader, OnStop, Request, SaHandle, Shard, Spi, TableFull, Tag};

use super::queue::{OCTETS, PACKETS};
use super::*;

/// A data path that only shows packets, or does not.
#[derive(Default)]
pub(crate) struct Showing {
    blind: bool,
    tap: Mutex<Option<Arc<dyn Tap>>>,
}

impl OffloadBackend for Showing {
    fn devices(&self) -> Arc<DeviceTable> {
        Arc::default()
    }
    fn device_for(&self, _: std::net::IpAddr, _: std::net::IpAddr) -> Option<DeviceId> {
        None
    }
    fn reserve_spi(&self, _: DeviceId) -> Result<Spi, TableFull> {
        Err(TableFull)
    }
    fn release_spi(&self, _: DeviceId, _: Spi) {}
    fn submit(&self, _: Tag, _: Request) {}
    fn show_packets(&self, tap: Option<Arc<dyn Tap>>) -> Result<View, String> {
        if self.blind {
            return Err("it sees nothing".into());
        }
        *self.tap.lock().unwrap() = tap;
        Ok(View { inner: "all".into(), outer: "all".into() })
    }
    fn adopt_nat_sockets(&self, _: Vec<std::os::fd::OwnedFd>) -> std::io::Result<NatReader> {
        Ok(NatReader::Daemon)
    }
    fn shut_down(&self, _: OnStop) {}
}

pub(crate) fn begin(
    captures: &Arc<Captures>,
    backend: &Arc<Showing>,
    wanted: WantedCapture,
) -> Result<Watching, String> {
    let backend = Arc::<Showing>::clone(backend) as Arc<dyn OffloadBackend>;
    captures.begin(&backend, wanted)
}

pub(crate) fn wanted(child: Option<&str>, ike: bool) -> WantedCapture {
    WantedCapture { connection: "site".into(), child: child.map(str::to_owned), ike, ike_alone: false, keys: false }
}

fn show(backend: &Showing, name: &str, side: Side, octets: &[u8]) -> bool {
    let tap = backend.tap.lock().unwrap().clone();
    let Some(tap) = tap.filter(|tap| tap.wants(name)) else { return false };
    let (sa, name) = (SaHandle::new(Shard(0), 7), name.into());
    let (spi, direction) = (Spi::new(0x1000).unwrap(), Direction::Outbound);
    tap.show(&Shown {
        sa,
        name: &name,
        spi,
        direction,
        side,
        sequence: Some(9),
        dropped: None,
        octets: [&[1], octets],
    });
    true
}

#[test]
fn packets_go_to_those_who_want_them() {
    let (captures, backend) = (Arc::<Captures>::default(), Arc::<Showing>::default());
    let all = begin(&captures, &backend, wanted(None, true)).unwrap();
    let one = begin(&captures, &backend, wanted(Some("b"), false)).unwrap();
    assert!(show(&backend, "site/a", Side::Inner, &[2, 3]) && show(&backend, "site/b", Side::Outer, &[4]));
    for stranger in ["site2/a", "site", "other/b", "site/b/c"] {
        assert!(!show(&backend, stranger, Side::Inner, &[5]), "{stranger}");
    }
    let seen = |watching: &Watching| {
        let (batch, lost) = watching.capture.take(Batch::default());
        assert_eq!(lost, [0, 0]);
        batch.packets().map(|(record, octets)| (record.side, octets.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(seen(&all), [(Side::Inner, vec![1, 2, 3]), (Side::Outer, vec![1, 4])]);
    assert_eq!(seen(&one), [(Side::Outer, vec![1, 4])]);
    drop(all);
    assert!(!show(&backend, "site/a", Side::Inner, &[]) && show(&backend, "site/b", Side::Inner, &[]));
    drop(one);
    assert!(backend.tap.lock().unwrap().is_none(), "nobody looks any more");
}

#[tokio::test]
async fn a_reader_that_stalls_loses_packets_with_a_count_and_memory_is_bounded() {
    let (captures, backend) = (Arc::<Captures>::default(), Arc::<Showing>::default());
    let watching = begin(&captures, &backend, wanted(None, false)).unwrap();
    let capture = &watching.capture;
    let long = vec![0; 1_499];
    for _ in 0..OCTETS / 1_500 + 100 {
        assert!(show(&backend, "site/a", Side::Inner, &long));
    }
    show(&backend, "site/a", Side::Outer, &long);
    capture.ready().await;
    let (batch, lost) = capture.take(Batch::default());
    assert_eq!((batch.packets().count(), lost), (OCTETS / 1_500, [100, 1]));
    for _ in 0..PACKETS + 5 {
        show(&backend, "site/a", Side::Outer, &[]);
    }
    capture.ready().await;
    let (batch, lost) = capture.take(batch.emptied());
    assert_eq!((batch.packets().count(), lost), (PACKETS, [100, 6]));
    show(&backend, "site/a", Side::Inner, &[]);
    assert_eq!(capture.take(batch.emptied()).0.packets().count(), 1, "what is read makes room");
}

#[tokio::test]
async fn a_capture_is_told_to_end_by_its_number() {
    let (captures, backend) = (Arc::<Captures>::default(), Arc::<Showing>::default());
    let watching = begin(&captures, &backend, wanted(None, false)).unwrap();
    assert!(!captures.end(watching.capture.number + 1) && !watching.capture.is_ending());
    assert!(captures.end(watching.capture.number));
    watching.capture.ready().await;
    assert!(watching.capture.is_ending());
}

#[test]
fn there_is_a_bound_and_a_reason() {
    let (captures, backend) = (Arc::<Captures>::default(), Arc::<Showing>::default());
    let some: Vec<_> = (0..MOST).map(|_| begin(&captures, &backend, wanted(None, false)).unwrap()).collect();
    assert!(begin(&captures, &backend, wanted(None, false)).err().unwrap().contains("under way already"));
    drop(some);
    assert!(begin(&captures, &backend, wanted(None, false)).is_ok());
    let blind = Arc::new(Showing { blind: true, ..Showing::default() });
    let error = begin(&Arc::default(), &blind, wanted(None, true)).err().unwrap();
    assert_eq!(error, "it sees nothing; `--ike` captures IKE messages alone");
    let alone = WantedCapture { ike_alone: true, ..wanted(None, true) };
    assert_eq!(begin(&Arc::default(), &blind, alone).unwrap().view.inner, "nothing: it sees nothing");
}

#[test]
fn ike_messages_are_put_into_packets() {
    let (captures, backend) = (Arc::<Captures>::default(), Arc::<Showing>::default());
    assert!(!captures.wants_ike());
    let without = begin(&captures, &backend, wanted(Some("a"), false)).unwrap();
    assert!(!captures.wants_ike());
    let with = begin(&captures, &backend, wanted(None, true)).unwrap();
    assert!(captures.wants_ike());
    let path = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4501".parse().unwrap() };
    let (direction, nat, dscp) = (Direction::Inbound, true, 46);
    let message = IkeMessage { connection: "site", path, direction, nat, dscp, octets: b"IKE" };
    captures.ike(&message);
    captures.ike(&IkeMessage { connection: "other", ..message });
    captures.ike(&IkeMessage { direction: Direction::Outbound, nat: false, ..message });
    let (batch, _) = with.capture.take(Batch::default());
    let all: Vec<_> = batch.packets().collect();
    let [(first, inbound), (second, outbound)] = all[..] else { panic!("{all:?}") };
    assert_eq!((&first.origin, first.side, first.direction), (&Origin::Ike, Side::Outer, Direction::Inbound));
    assert_eq!((&inbound[12..24], inbound[1]), (&[192, 0, 2, 2, 192, 0, 2, 1, 0x11, 0x95, 0x11, 0x94][..], 46 << 2));
    assert_eq!(&inbound[28..], b"\0\0\0\0IKE", "on the port of ESP it is marked");
    assert_eq!(
        (second.direction, &outbound[12..16], &outbound[28..]),
        (Direction::Outbound, &[192, 0, 2, 1][..], &b"IKE"[..])
    );
    assert_eq!(without.capture.take(Batch::default()).0.packets().count(), 0);
}
