//! No allocation for a packet that passes, either way.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ipsec::conformance::{Subject, Wire, udp_v4};

use crate::subject::{Carrier, InProcess, connect};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Threads that end allocate too; they are not counted.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKETS: usize = 10_000;
const BATCH: usize = 50;

#[test]
fn ten_thousand_packets_allocate_nothing() {
    let to = |at: usize| udp_v4([10, 1, 0, 1].into(), [10, 2, 0, at as u8].into(), (1, 2), at * 20, false);
    allocates_nothing(connect(), (0..BATCH).map(to).collect());
}

/// In transport mode headers are written and options carried besides.
#[test]
fn ten_thousand_packets_of_transport_mode_allocate_nothing() {
    let to = |at: usize| udp_v4([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), (1, 2), at * 20, false);
    let mut packets: Vec<Vec<u8>> = (0..BATCH).map(to).collect();
    for packet in packets.iter_mut().step_by(5) {
        // Four octets of no-operation options.
        packet.splice(20..20, [1; 4]);
        let length = (packet.len() as u16).to_be_bytes();
        packet[0] = 0x46;
        packet[2..4].copy_from_slice(&length);
    }
    allocates_nothing(crate::transport::connect(true, None), packets);
}

fn allocates_nothing(mut subject: InProcess, packets: Vec<Vec<u8>>) {
    let mut carrier = Carrier::default();
    // Caches and thread-local state of the first batch are not per packet.
    subject.carry(&packets, &mut carrier);
    let before = COUNT.get();
    for _ in 0..PACKETS / BATCH {
        subject.carry(&packets, &mut carrier);
    }
    assert_eq!(COUNT.get() - before, 0, "allocations while {PACKETS} packets went out and in");
    assert_eq!(carrier.delivered, PACKETS + BATCH);
    subject.settle();
    assert!(subject.captured_outer().is_empty());
}
