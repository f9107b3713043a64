//! Putting a message together from its fragments (RFC 7383 §2.6).
//!
//! Only what has passed the integrity check gets in here, and there is one message in the making for each direction: the window is one. How
//! much is kept is bounded by the number of fragments ([`ike_wire::MAX_FRAGMENTS`]) and by the octets of all together. Each fragment has its
//! place from the start, so nothing is searched or sorted. It is all forgotten when the message is whole, when another message with the same
//! or a higher message ID was processed, and with the IKE SA.

use ike_wire::ids::{ExchangeType, PayloadType};
use ike_wire::{Chain, EncryptedFragment, Header, MAX_MESSAGE, MessageId};

/// Octets that all fragments of a message may hold together.
pub(crate) const MOST_OCTETS: usize = MAX_MESSAGE;
/// The same while the peer is not authenticated. Chains of certificates fit; and many who only pretend to begin do not hold much.
pub(crate) const MOST_OCTETS_BEFORE_AUTHENTICATION: usize = 32 * 1024;

/// Fragments of the message that comes next in each direction.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    request: Option<Box<Partial>>,
    response: Option<Box<Partial>>,
}

/// Fragments of one message.
struct Partial {
    id: MessageId,
    exchange: ExchangeType,
    first: PayloadType,
    /// Octets of all pieces.
    octets: usize,
    missing: usize,
    /// By fragment number less one.
    pieces: Box<[Option<Box<[u8]>>]>,
}

/// Shows no octets: they are decrypted.
impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial")
            .field("id", &self.id)
            .field("total", &self.pieces.len())
            .field("missing", &self.missing)
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

impl Reassembly {
    fn of(&mut self, header: &Header) -> &mut Option<Box<Partial>> {
        if header.flags.response { &mut self.response } else { &mut self.request }
    }

    /// Whether a fragment is of use, as far as can be told before its integrity is checked.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn admits(&mut self, header: &Header, fragment: &EncryptedFragment<'_>) -> Result<(), &'static str> {
        let Some(partial) = self.of(header).as_deref().filter(|partial| partial.id == header.message_id) else {
            return Ok(());
        };
        if partial.exchange != header.exchange {
            return Err("fragment of another exchange");
        }
        let total = usize::from(fragment.total);
        //= RFC 7383 §2.6: fewer fragments than those stored belong to a division that the sender has given up
        if total < partial.pieces.len() {
            return Err("fragment of a division with fewer fragments");
        }
        //= RFC 7383 §2.6: a fragment that is there already is a replay
        let there = partial.pieces.get(place(fragment.number)).is_some_and(Option::is_some);
        if total == partial.pieces.len() && there { Err("fragment that is there already") } else { Ok(()) }
    }

    /// Takes in the decrypted piece of a fragment that was admitted and has passed the integrity check, and gives the message once it is
    /// whole.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn store(
        &mut self,
        header: &Header,
        fragment: &EncryptedFragment<'_>,
        piece: &[u8],
        most: usize,
    ) -> Result<Option<Chain>, &'static str> {
        let slot = self.of(header);
        let total = usize::from(fragment.total);
        //= RFC 7383 §2.6: more fragments than those stored are a new division, and what is stored belongs to the old one
        let stays =
            slot.as_deref().is_some_and(|partial| partial.id == header.message_id && partial.pieces.len() == total);
        let kept = if stays { slot.as_deref().map_or(0, |partial| partial.octets) } else { 0 };
        if kept.saturating_add(piece.len()) > most {
            return Err("fragments of a message that is too long");
        }
        if !stays {
            *slot = Some(Box::new(Partial::new(header, total)));
        }
        let Some(partial) = slot.as_deref_mut() else { return Ok(None) };
        partial.put(fragment, piece);
        if partial.missing > 0 {
            return Ok(None);
        }
        Ok(slot.take().map(|whole| whole.join()))
    }

    /// A request was processed, or is being processed: fragments of it are of no use any more.
    pub(crate) fn forget_request(&mut self) {
        self.request = None;
    }

    /// The response that was waited for is there, or nobody waits for it.
    pub(crate) fn forget_response(&mut self) {
        self.response = None;
    }
}

impl Partial {
    fn new(header: &Header, total: usize) -> Self {
        Self {
            id: header.message_id,
            exchange: header.exchange,
            first: PayloadType::NO_NEXT_PAYLOAD,
            octets: 0,
            missing: total,
            pieces: (0..total).map(|_| None).collect(),
        }
    }

    fn put(&mut self, fragment: &EncryptedFragment<'_>, piece: &[u8]) {
        let Some(slot @ None) = self.pieces.get_mut(place(fragment.number)) else { return };
        *slot = Some(piece.into());
        self.octets = self.octets.saturating_add(piece.len());
        self.missing = self.missing.saturating_sub(1);
        //= RFC 7383 §2.5: the first fragment names the first payload of the message
        if fragment.number == 1 {
            self.first = fragment.first;
        }
    }

    fn join(self) -> Chain {
        let mut octets = Vec::with_capacity(self.octets);
        self.pieces.iter().flatten().for_each(|piece| octets.extend_from_slice(piece));
        Chain { first: self.first, octets }
    }
}

/// Fragments are counted from one.
fn place(number: u16) -> usize {
    usize::from(number).wrapping_sub(1)
}

#[cfg(test)]
mod tests;
