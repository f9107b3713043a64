//! A spool over runs, torn tails and full disks.

use std::fs;
use std::io::Write as _;

use ike_model::history::NotRecorded;
use ike_model::{EventBody, EventRecord, Recorder, Rfc3339, Ulids};

use super::*;
use crate::scratch::Scratch;

fn options(scratch: &Scratch, size: u64) -> Options {
    Options { directory: scratch.path().join("spool"), size, fsync: false }
}

fn records(range: std::ops::RangeInclusive<u64>) -> Vec<EventRecord> {
    let mut ulids = Ulids::default();
    let record = |seq| EventRecord {
        v: 1,
        ulid: ulids.next(seq, || [7; 10]),
        time: Rfc3339(seq),
        gateway: "gw".into(),
        boot_id: "b".into(),
        seq,
        body: EventBody::ConfigLoaded { connection: format!("conn-{seq}") },
    };
    range.map(record).collect()
}

/// The numbers of all events that are there to read.
fn numbers(reader: &mut Reader) -> Vec<u64> {
    let entries = reader.read(usize::MAX).unwrap();
    let seq = |entry: &Entry| serde_json::from_slice::<serde_json::Value>(&entry.payload).unwrap()["seq"].as_u64();
    entries.iter().filter(|entry| entry.kind == Kind::Record).filter_map(seq).collect()
}

fn files(options: &Options) -> Vec<(u64, u64)> {
    segments(&options.directory).unwrap()
}

#[test]
fn what_is_taken_down_is_read_in_order_and_then_gone() {
    let scratch = Scratch::new();
    let options = options(&scratch, 64 << 10);
    let (spool, mut reader) = open(&options).unwrap();
    spool.boot("gw", "b", 5).unwrap();
    for record in records(1..=100) {
        spool.record(&[record]).unwrap();
    }
    spool.record(&records(101..=103)).unwrap();
    assert!(files(&options).len() > 3, "several segments");
    assert_eq!(spool.fill().0, files(&options).iter().map(|(_, length)| length).sum::<u64>());
    assert_eq!(spool.waiting(), 104);
    assert_eq!(reader.read(1).unwrap()[0].kind, Kind::Boot);
    assert_eq!(spool.oldest().unwrap().map(|first| first.kind), Some(Kind::Boot), "until it is taken over");
    reader.taken_over().unwrap();
    assert_eq!(spool.oldest().unwrap().map(|first| first.kind), Some(Kind::Record));
    assert_eq!(spool.waiting(), 103);
    assert_eq!(numbers(&mut reader), (1..=103).collect::<Vec<_>>());
    reader.taken_over().unwrap();
    assert_eq!(files(&options).len(), 1);
    assert_eq!((spool.waiting(), spool.oldest().unwrap()), (0, None));
    spool.record(&records(104..=104)).unwrap();
    assert_eq!(numbers(&mut reader), [104]);
}

#[test]
fn a_run_that_died_is_read_on_by_the_next() {
    let scratch = Scratch::new();
    let options = options(&scratch, 1 << 20);
    let (spool, mut reader) = open(&options).unwrap();
    spool.record(&records(1..=4)).unwrap();
    assert_eq!(reader.read(2).unwrap().len(), 2);
    reader.taken_over().unwrap();
    let read_again = reader.position();
    assert_eq!(numbers(&mut reader), [3, 4]);
    // Taken over, but the position was not noted down any more.
    drop((spool, reader));
    let (spool, mut reader) = open(&options).unwrap();
    assert_eq!(reader.position(), read_again);
    spool.record(&records(5..=5)).unwrap();
    assert_eq!(numbers(&mut reader), [3, 4, 5]);
    reader.start_over();
    assert_eq!(numbers(&mut reader), [3, 4, 5], "until it is taken over");
    reader.taken_over().unwrap();
    drop((spool, reader));
    let (_spool, mut reader) = open(&options).unwrap();
    assert!(numbers(&mut reader).is_empty());
}

#[test]
fn a_torn_tail_costs_nothing_but_itself() {
    let whole = {
        let mut octets = Vec::new();
        let record = &records(3..=3)[0];
        assert!(frame::encode(Kind::Record, &mut octets, |octets| serde_json::to_writer(octets, record).is_ok()));
        octets
    };
    for cut in 0..whole.len() {
        let scratch = Scratch::new();
        let options = options(&scratch, 1 << 20);
        let (spool, reader) = open(&options).unwrap();
        spool.record(&records(1..=2)).unwrap();
        drop((spool, reader));
        let mut file = fs::OpenOptions::new().append(true).open(segment_path(&options.directory, 1)).unwrap();
        file.write_all(&whole[..cut]).unwrap();
        let (spool, mut reader) = open(&options).unwrap();
        spool.record(&records(4..=4)).unwrap();
        assert_eq!(numbers(&mut reader), [1, 2, 4], "cut at {cut}");
        reader.taken_over().unwrap();
        assert_eq!(files(&options).len(), 1);
    }
}

#[test]
fn a_flipped_bit_is_noticed() {
    let mut octets = Vec::new();
    assert!(frame::encode(Kind::Record, &mut octets, |octets| octets.write_all(b"{\"seq\":1}").is_ok()));
    for bit in 0..octets.len() * 8 {
        let mut bad = octets.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(frame::decode(&bad), frame::Decoded::Frame(..)), "bit {bit}");
    }
}

#[test]
fn a_full_spool_refuses_and_has_room_again_once_it_was_read() {
    let scratch = Scratch::new();
    let options = options(&scratch, 8 << 10);
    let (spool, mut reader) = open(&options).unwrap();
    let mut taken = 0;
    let mut warned_at = None;
    let refusal = records(1..=1000).into_iter().find_map(|record| {
        let outcome = spool.record(&[record]).err();
        taken += u64::from(outcome.is_none());
        if !spool.has_room() {
            warned_at.get_or_insert(taken);
        }
        outcome
    });
    assert_eq!(refusal, Some(NotRecorded::Full));
    assert!(warned_at.is_some_and(|at| at < taken), "new handshakes stop first: {warned_at:?} of {taken}");
    assert!(files(&options).iter().map(|(_, length)| length).sum::<u64>() <= options.size);
    assert_eq!(numbers(&mut reader), (1..=taken).collect::<Vec<_>>());
    reader.taken_over().unwrap();
    assert!(spool.has_room());
    spool.record(&records(1..=1)).unwrap();
}

#[test]
fn a_run_begins_in_a_full_spool() {
    let scratch = Scratch::new();
    let options = options(&scratch, 8 << 10);
    let (spool, reader) = open(&options).unwrap();
    let taken = records(1..=1000).into_iter().take_while(|record| spool.record(std::slice::from_ref(record)).is_ok());
    let taken = taken.count() as u64;
    // As after kill -9.
    drop((spool, reader));
    let (spool, mut reader) = open(&options).unwrap();
    spool.boot("gw", "b2", 5).unwrap();
    assert!(!spool.has_room(), "but no handshake does");
    assert_eq!(spool.record(&records(1..=1)), Err(NotRecorded::Full));
    let entries = reader.read(usize::MAX).unwrap();
    assert_eq!(entries.len() as u64, taken + 1);
    assert_eq!(entries.last().unwrap().kind, Kind::Boot);
    reader.taken_over().unwrap();
    assert!(spool.has_room());
}

#[test]
fn only_one_process_has_it() {
    let scratch = Scratch::new();
    let options = options(&scratch, 1 << 20);
    let both = open(&options).unwrap();
    let refused = open(&options).map(drop).unwrap_err().to_string();
    let named = format!("in use by another process, {} on ", std::process::id());
    assert!(refused.contains(&named) && refused.contains(" since 2"), "{refused}");
    drop(both.0);
    assert!(matches!(open(&options), Err(OpenError::InUse(..))));
    drop(both.1);
    open(&options).unwrap();
}

#[test]
fn what_is_read_while_it_is_written_has_no_gap() {
    let scratch = Scratch::new();
    let options = options(&scratch, 16 << 20);
    let (spool, mut reader) = open(&options).unwrap();
    let writing = std::thread::spawn(move || {
        for record in records(1..=5000) {
            spool.record(&[record]).unwrap();
        }
        spool
    });
    let mut seen = Vec::new();
    while seen.len() < 5000 {
        seen.extend(numbers(&mut reader));
        reader.taken_over().unwrap();
    }
    assert!(seen.iter().copied().eq(1..=5000));
    drop(writing.join().unwrap());
}
