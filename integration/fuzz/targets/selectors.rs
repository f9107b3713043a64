//! TS payloads: the body of one, behind a right generic header.
#![no_main]

use ike_wire::ids::PayloadType;
use ike_wire::{Payload, parse_chain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(length) = u16::try_from(body.len() + 4) else { return };
    let payload = [&[0, 0][..], &length.to_be_bytes(), body].concat();
    let Ok(payloads) = parse_chain(PayloadType::TS_INITIATOR, &payload, 0) else { return };
    let [Payload::TsInitiator(ts)] = payloads.as_slice() else { panic!("one payload went in") };
    assert_eq!(body.first().copied().map(usize::from), Some(ts.selectors.len()));
    for range in ts.ranges() {
        assert_eq!(range.start().is_ipv4(), range.end().is_ipv4());
        assert!(!range.is_ordered() || range.start() <= range.end());
    }
});
