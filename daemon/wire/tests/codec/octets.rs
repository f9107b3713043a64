//! Octets written by hand.

use ike_wire::ids::PayloadType;

/// Reads hexadecimal digits; white space is skipped.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    assert!(odd.is_empty(), "an even number of digits");
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A payload with a right generic header.
pub(crate) fn payload(next: PayloadType, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap();
    [&[next.0, 0], &length.to_be_bytes()[..], body].concat()
}

/// An IKE_SA_INIT request with a right header around `body`.
pub(crate) fn datagram(first: PayloadType, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 28).unwrap();
    let mut octets = hex("0102030405060708 0000000000000000 00 20 22 08 00000000");
    octets[16] = first.0;
    octets.extend_from_slice(&length.to_be_bytes());
    octets.extend_from_slice(body);
    octets
}
