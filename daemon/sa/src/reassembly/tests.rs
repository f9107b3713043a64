//! Fragments in every order, twice, of other divisions and of messages that are too long.

use std::borrow::Cow;

use ike_wire::ids::{ExchangeType, PayloadType};
use ike_wire::{EncryptedFragment, Flags, Header, IkeSpi, MAX_FRAGMENTS, MessageId};

use super::*;

fn header(id: u32, response: bool) -> Header {
    let flags = Flags { initiator: true, version: false, response };
    Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::IKE_AUTH, flags, MessageId(id))
}

fn fragment(number: u16, total: u16) -> EncryptedFragment<'static> {
    let first = if number == 1 { PayloadType::ID_INITIATOR } else { PayloadType::NO_NEXT_PAYLOAD };
    EncryptedFragment { first, number, total, body: Cow::Borrowed(&[]) }
}

/// Offers fragment `number` of `total` of a request; its piece is its number.
fn offer(parts: &mut Reassembly, id: u32, number: u16, total: u16) -> Result<Option<Chain>, &'static str> {
    let (header, fragment) = (header(id, false), fragment(number, total));
    parts.admits(&header, &fragment)?;
    parts.store(&header, &fragment, &[u8::try_from(number).unwrap()], MOST_OCTETS)
}

fn octets(whole: Result<Option<Chain>, &'static str>) -> Vec<u8> {
    let chain = whole.unwrap().unwrap();
    assert_eq!(chain.first, PayloadType::ID_INITIATOR);
    chain.octets
}

//= RFC 7383 §2.6: the pieces are joined in the order of their numbers, whatever order they come in
#[test]
fn any_order_gives_the_message() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let mut parts = Reassembly::default();
        assert_eq!(offer(&mut parts, 1, order[0], 3), Ok(None));
        assert_eq!(offer(&mut parts, 1, order[1], 3), Ok(None));
        assert_eq!(octets(offer(&mut parts, 1, order[2], 3)), [1, 2, 3], "{order:?}");
        assert!(parts.request.is_none());
    }
}

//= RFC 7383 §2.6: replayed fragments are discarded
#[test]
fn a_fragment_counts_once() {
    let mut parts = Reassembly::default();
    assert_eq!(offer(&mut parts, 1, 2, 2), Ok(None));
    assert_eq!(offer(&mut parts, 1, 2, 2), Err("fragment that is there already"));
    // Admitted at the same time, say by two threads: the second one still changes nothing.
    assert_eq!(parts.store(&header(1, false), &fragment(2, 2), &[9], MOST_OCTETS), Ok(None));
    assert_eq!(octets(offer(&mut parts, 1, 1, 2)), [1, 2]);
}

//= RFC 7383 §2.6: a larger total starts over, a smaller one is discarded
#[test]
fn the_finer_division_wins() {
    let mut parts = Reassembly::default();
    assert_eq!(offer(&mut parts, 1, 1, 2), Ok(None));
    assert_eq!(offer(&mut parts, 1, 2, 3), Ok(None));
    assert_eq!(offer(&mut parts, 1, 2, 2), Err("fragment of a division with fewer fragments"));
    assert_eq!(offer(&mut parts, 1, 3, 3), Ok(None));
    assert_eq!(octets(offer(&mut parts, 1, 1, 3)), [1, 2, 3]);
}

#[test]
fn directions_and_message_ids_do_not_mix() {
    let mut parts = Reassembly::default();
    assert_eq!(offer(&mut parts, 1, 1, 2), Ok(None));
    assert_eq!(parts.store(&header(1, true), &fragment(2, 2), &[7], MOST_OCTETS), Ok(None));
    // The window has moved on: what is left of the message before goes.
    assert_eq!(offer(&mut parts, 2, 2, 2), Ok(None));
    assert_eq!(octets(offer(&mut parts, 2, 1, 2)), [1, 2]);
    assert!(parts.request.is_none() && parts.response.is_some());
    parts.forget_response();
    assert!(parts.response.is_none());
}

#[test]
fn one_message_is_of_one_exchange() {
    let mut parts = Reassembly::default();
    assert_eq!(offer(&mut parts, 1, 1, 2), Ok(None));
    let other = Header { exchange: ExchangeType::INFORMATIONAL, ..header(1, false) };
    assert_eq!(parts.admits(&other, &fragment(2, 2)), Err("fragment of another exchange"));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut parts = Reassembly::default();
    let piece = vec![0; MOST_OCTETS / usize::from(MAX_FRAGMENTS)];
    for number in 1..MAX_FRAGMENTS {
        let stored = parts.store(&header(1, false), &fragment(number, MAX_FRAGMENTS), &piece, MOST_OCTETS);
        assert_eq!(stored, Ok(None));
    }
    let kept = |parts: &Reassembly| parts.request.as_ref().map_or(0, |partial| partial.octets);
    let before = kept(&parts);
    let longer = vec![0; MOST_OCTETS - before + 1];
    let last = fragment(MAX_FRAGMENTS, MAX_FRAGMENTS);
    let refused = parts.store(&header(1, false), &last, &longer, MOST_OCTETS);
    assert_eq!(refused, Err("fragments of a message that is too long"));
    assert_eq!(kept(&parts), before);
    let whole = parts.store(&header(1, false), &last, &longer[1..], MOST_OCTETS).unwrap().unwrap();
    assert_eq!(whole.octets.len(), MOST_OCTETS);
    // A single piece that is too long does not even begin.
    assert!(parts.store(&header(1, false), &fragment(1, 2), &[0; 9], 8).is_err() && parts.request.is_none());
}

#[test]
fn nothing_is_kept_at_rest() {
    assert_eq!(size_of::<Reassembly>(), 16);
}
