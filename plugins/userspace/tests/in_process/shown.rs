//! Packets that are shown to a tap: what goes in and out, whole, in order, and with the reason where one was dropped.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ipsec::conformance::udp_v4;
use ipsec::{Direction, Shown, Side, Tap};

use crate::subject::{Carrier, InProcess, connect};

/// One that wants the packets of one child, and keeps them.
#[derive(Default)]
struct Album {
    wanted: &'static str,
    pictures: Mutex<Vec<Picture>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Picture {
    side: Side,
    direction: Direction,
    sequence: Option<u64>,
    dropped: Option<&'static str>,
    octets: Vec<u8>,
}

impl Tap for Album {
    fn wants(&self, name: &str) -> bool {
        name == self.wanted
    }

    fn show(&self, packet: &Shown<'_>) {
        let Shown { side, direction, sequence, dropped, octets, .. } = *packet;
        assert_eq!(&**packet.name, "net/child");
        self.pictures.lock().unwrap().push(Picture { side, direction, sequence, dropped, octets: octets.concat() });
    }
}

fn shown_to(subject: &InProcess, wanted: &'static str) -> Arc<Album> {
    let album = Arc::new(Album { wanted, ..Album::default() });
    subject.backend.control.shared().show_packets(Some(Arc::<Album>::clone(&album)));
    album
}

fn packet(octets: usize) -> Vec<u8> {
    udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, 2), octets, false)
}

fn taken(album: &Album) -> Vec<Picture> {
    std::mem::take(&mut album.pictures.lock().unwrap())
}

#[test]
fn both_sides_of_every_packet_are_shown_in_order() {
    let mut subject = connect();
    let album = shown_to(&subject, "net/child");
    let clear = [packet(100), packet(7)];
    let sealed = subject.seal(&clear);
    subject.open(&mut sealed.clone(), &mut Carrier::default());
    let pictures = taken(&album);
    let seen: Vec<_> = pictures.iter().map(|p| (p.side, p.direction, p.sequence, p.dropped)).collect();
    let (inner, outer) = (Side::Inner, Side::Outer);
    let (out, back) = (Direction::Outbound, Direction::Inbound);
    let first = [(inner, out, Some(1), None), (outer, out, Some(1), None)];
    let second = [(inner, out, Some(2), None), (outer, out, Some(2), None)];
    let opened = [(outer, back, Some(1), None), (inner, back, Some(1), None)];
    let last = [(outer, back, Some(2), None), (inner, back, Some(2), None)];
    assert_eq!(seen, [first, second, opened, last].concat());
    let octets = |at: usize| &pictures[at].octets[..];
    assert_eq!(
        (octets(0), octets(2), octets(5), octets(7)),
        (&clear[0][..], &clear[1][..], &clear[0][..], &clear[1][..])
    );
    for (at, sealed, ends) in [(1, &sealed[0], [1, 2]), (4, &sealed[0], [2, 1]), (3, &sealed[1], [1, 2])] {
        let outer = octets(at);
        assert_eq!(&outer[20..], &sealed[..], "ESP as it was on the wire, before it was opened in place");
        let length = usize::from(u16::from_be_bytes([outer[2], outer[3]]));
        assert_eq!((outer[0], outer[9], length), (0x45, 50, outer.len()));
        assert_eq!((outer[15], outer[19]), (ends[0], ends[1]));
    }
}

#[test]
fn what_is_dropped_is_shown_with_its_reason() {
    let mut subject = connect();
    let album = shown_to(&subject, "net/child");
    let sealed = subject.seal(&[packet(10)]);
    taken(&album);
    let mut carrier = Carrier::default();
    subject.open(&mut sealed.clone(), &mut carrier);
    subject.open(&mut sealed.clone(), &mut carrier);
    let mut forged = sealed.clone();
    forged[0][7] = 200;
    subject.open(&mut forged, &mut carrier);
    let mut large = packet(1_500);
    // It may not be fragmented.
    large[6] = 0x40;
    assert!(subject.seal(&[large.clone()]).is_empty());
    let seen: Vec<_> = taken(&album).iter().map(|p| (p.side, p.direction, p.dropped)).collect();
    let outer = |dropped| (Side::Outer, Direction::Inbound, dropped);
    assert_eq!(
        seen,
        [
            outer(None),
            (Side::Inner, Direction::Inbound, None),
            outer(Some("replay")),
            outer(Some("integrity")),
            (Side::Inner, Direction::Outbound, Some("too-big")),
        ]
    );
    assert_eq!(carrier.delivered, 1);
}

#[test]
fn others_are_not_shown_and_nobody_is_after_the_end() {
    let mut subject = connect();
    let album = shown_to(&subject, "net/other");
    let mut carrier = Carrier::default();
    subject.carry(&[packet(10)], &mut carrier);
    assert!(taken(&album).is_empty());
    let album = shown_to(&subject, "net/child");
    subject.carry(&[packet(10)], &mut carrier);
    assert_eq!(taken(&album).len(), 4);
    subject.backend.control.shared().show_packets(None);
    subject.carry(&[packet(10)], &mut carrier);
    assert!(taken(&album).is_empty());
    assert_eq!((carrier.delivered, Arc::strong_count(&album)), (3, 1));
}

/// What looking costs those at whom nobody looks, in one run: while nobody looks at all there is less to do than that, one comparison for each batch.
#[test]
#[ignore = "a measurement: cargo test --release -p offload-userspace --test in-process shown -- --ignored --nocapture"]
fn cost() {
    const ROUNDS: usize = 60;
    const BATCHES: usize = 400;
    let packets: Vec<Vec<u8>> = (0..50).map(|_| packet(1_000)).collect();
    let mut subject = connect();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (times, wanted) in times.iter_mut().zip([None, Some("net/other"), Some("net/child")]) {
            subject.backend.control.shared().show_packets(None);
            let album = wanted.map(|wanted| shown_to(&subject, wanted));
            let began = Instant::now();
            for _ in 0..BATCHES {
                subject.carry(&packets, &mut Carrier::default());
                if let Some(album) = &album {
                    album.pictures.lock().unwrap().clear();
                }
            }
            times.push(began.elapsed().as_nanos());
        }
    }
    let median = |times: &mut Vec<u128>| {
        times.sort_unstable();
        times[ROUNDS / 2] as f64 / (BATCHES * packets.len()) as f64
    };
    let [off, others, wanted] = &mut times;
    let (off, others, wanted) = (median(off), median(others), median(wanted));
    let check = check() / packets.len() as f64;
    println!(
        "nobody looks {off:.0} ns a packet, of which the look whether somebody does {check:.3} ({:.6}); at others {others:.0} ({:.3}), at these \
         {wanted:.0} ({:.3})",
        check / off,
        others / off,
        wanted / off
    );
}

/// Nanoseconds of what each batch does while nobody looks: a look at an empty place through a cache.
fn check() -> f64 {
    const LOOKS: u32 = 10_000_000;
    let place = Arc::new(arc_swap::ArcSwapOption::<Arc<dyn Tap>>::empty());
    let mut cache = arc_swap::Cache::new(place);
    let began = Instant::now();
    for _ in 0..LOOKS {
        std::hint::black_box(std::hint::black_box(&mut cache).load());
    }
    began.elapsed().as_nanos() as f64 / f64::from(LOOKS)
}
