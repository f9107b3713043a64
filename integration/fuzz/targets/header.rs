//! The IKE header: any octets, and a header that is accepted describes the datagram.
#![no_main]

use ike_wire::{Header, ParseError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| match Header::parse(datagram) {
    Ok(header) => assert_eq!(usize::try_from(header.length), Ok(datagram.len())),
    Err(ParseError::MajorVersion(header)) => assert!(header.version.major > 2),
    Err(ParseError::Malformed(malformed)) => assert!(malformed.offset <= datagram.len()),
});
