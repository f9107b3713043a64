//! Packets that a hostile sender could make: nothing panics, nothing altered arrives, and the tunnel still carries traffic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ike_crypto::{EspKey, ring_provider};
use ipsec::conformance::udp_v4;
use offload_userspace::esp;

use crate::subject::{Carrier, KEY, connect};

const MILLION: u64 = 1_000_000;
const WARM_UP: u64 = 100_000;
/// Octets that the datapath may hold more than after the warm-up.
const GROWTH: isize = 64 << 10;

struct Counting;

thread_local! {
    /// Octets that this thread has allocated and not freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(octets: isize) {
    // Threads that end free too; they are not counted.
    let _ = HELD.try_with(|held| held.set(held.get() + octets));
}

// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// splitmix64: the same packets every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn mutate(packet: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(packet.len());
        match numbers.below(6) {
            0 | 1 => {
                if let Some(octet) = packet.get_mut(at) {
                    *octet ^= 1 << numbers.below(8);
                }
            }
            2 => packet.truncate(at),
            3 => packet.extend((0..numbers.below(100)).map(|_| 0xff)),
            4 => {
                // Sequence numbers that jump.
                if let Some(field) = packet.get_mut(4..8) {
                    field.copy_from_slice(&(numbers.next() as u32).to_be_bytes());
                }
            }
            _ => {
                let length = numbers.below(120);
                *packet = (0..length).map(|_| numbers.next() as u8).collect();
            }
        }
    }
}

/// A peer that holds the keys and encrypts what it likes.
struct Insider {
    key: Box<dyn EspKey>,
    spi: u32,
    sequence: u64,
}

impl Insider {
    fn seal(&mut self, inner: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut out = vec![0; inner.len() + 100];
        self.sequence += 1;
        let next_header = [4, 4, 4, 41, 59, 17][numbers.below(6)];
        let length = esp::seal(&*self.key, self.spi, self.sequence, false, next_header, inner, &mut out).unwrap();
        out.truncate(length);
        out
    }
}

/// What an insider encrypts: whatever is delivered is inside the selectors.
fn mutated_inside(count: u64, seed: u64) {
    let subject = &mut connect();
    let aes =
        ring_provider().esp_ciphers.iter().find(|cipher| cipher.key_len_with_salt() == 36 && cipher.iv_len() == 8);
    let key = aes.unwrap().key(&KEY, &[]).unwrap();
    let mut insider = Insider { key, spi: subject.spi(), sequence: 0 };
    let mut numbers = Numbers(seed);
    let (mut delivered, mut carrier) = (0, Carrier::default());
    for round in 0..count {
        let mut inner = udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, 2), numbers.below(200), false);
        mutate(&mut inner, &mut numbers);
        if !inner.is_empty() && numbers.below(4) == 0 {
            inner[0] = 0x60;
        }
        let mut sealed = vec![insider.seal(&inner, &mut numbers)];
        delivered += subject.open_and(&mut sealed, &mut carrier, |inner| {
            let inside = inner[12..14] == [10, 1] && inner[16..18] == [10, 2];
            assert!(inner[0] >> 4 == 4 && inside, "{inner:x?} arrived; seed {seed:#x}, round {round}");
        });
    }
    println!("{count} packets of an insider, seed {seed:#x}, {delivered} harmless enough to be delivered");
    assert!(delivered > count as usize / 50 && delivered < count as usize, "{delivered} of {count} were delivered");
}

fn mutated(count: u64, seed: u64) {
    let mut subject = connect();
    let mut carrier = Carrier::default();
    let mut numbers = Numbers(seed);
    let good: Vec<Vec<u8>> = (0..8)
        .map(|at| udp_v4([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), (1, at), usize::from(at) * 90, false))
        .collect();
    let mut held = HELD.get();
    for round in 0..count / 8 {
        if round * 8 == WARM_UP {
            held = HELD.get();
        }
        let originals = subject.seal(&good);
        let mut altered = originals.clone();
        altered.iter_mut().for_each(|packet| mutate(packet, &mut numbers));
        // An even number of changes may cancel out: what is as it was may pass.
        altered.retain(|packet| !originals.contains(packet));
        let before = carrier.delivered;
        subject.open(&mut altered, &mut carrier);
        assert_eq!(carrier.delivered, before, "an altered packet arrived; seed {seed:#x}, round {round}");
        // Packets of the protected side are hostile too.
        let mut inner = good.clone();
        inner.iter_mut().for_each(|packet| mutate(packet, &mut numbers));
        subject.seal(&inner);
    }
    let grown = HELD.get() - held;
    println!("{count} mutated packets, seed {seed:#x}, {grown} octets are held more");
    assert!(grown <= GROWTH, "{grown} octets are held more");
    let before = carrier.delivered;
    let mut sealed = subject.seal(&good);
    subject.open(&mut sealed, &mut carrier);
    assert_eq!(carrier.delivered - before, good.len(), "the tunnel does not carry traffic any more");
}

#[test]
fn a_million_mutated_packets_harm_nothing() {
    mutated(MILLION, 0x5eed_0001);
}

#[test]
fn a_million_packets_of_an_insider_harm_nothing() {
    mutated_inside(MILLION, 0x5eed_0002);
}
