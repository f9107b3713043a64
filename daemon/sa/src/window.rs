//! Message IDs, the request that waits for its response, and the last response for repetition.
//!
//! Implements RFC 7296 §2.1-2.3 with a window of one in each direction. A repeated request is answered with the very same octets, in
//! as many fragments as the first time. When to repeat our own request is decided in [`crate::retry`].

use ike_wire::MessageId;

use crate::datagrams::Datagrams;

/// Both directions of the message ID space of one IKE SA.
#[derive(Debug, Default)]
pub(crate) struct Window {
    next: u32,
    outstanding: Option<Outstanding>,
    expected: u32,
    processing: bool,
    last_response: Option<Datagrams>,
}

/// Our request that waits for its response.
#[derive(Debug)]
struct Outstanding {
    id: u32,
    datagrams: Datagrams,
    repeats: u32,
}

/// How a request of the peer fits the window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit<'a> {
    /// The next one: to be processed.
    New,
    /// The previous one again: send this.
    Repeated(&'a Datagrams),
    /// The one being processed again: its response is still to come.
    Processing,
    /// None of these.
    Outside,
}

impl Window {
    /// The ID of our next request, when none waits.
    pub(crate) fn free_id(&self) -> Option<MessageId> {
        self.outstanding.is_none().then_some(MessageId(self.next))
    }

    /// Remembers the request that goes out under [`Self::free_id`].
    pub(crate) fn sent(&mut self, datagrams: Datagrams) {
        self.outstanding = Some(Outstanding { id: self.next, datagrams, repeats: 0 });
        self.next = self.next.saturating_add(1);
    }

    /// Puts other octets in place of the request, which keeps its ID (IKE_SA_INIT with COOKIE or another key exchange method).
    pub(crate) fn replace(&mut self, datagrams: Datagrams) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.datagrams = datagrams;
            outstanding.repeats = 0;
        }
    }

    /// Our request for one more repetition, with the number of repetitions before this one.
    pub(crate) fn repeat(&mut self) -> Option<(u32, &Datagrams)> {
        let outstanding = self.outstanding.as_mut()?;
        let before = outstanding.repeats;
        outstanding.repeats = before.saturating_add(1);
        Some((before, &outstanding.datagrams))
    }

    /// Our request once more, with all its repetitions before it again.
    pub(crate) fn again(&mut self) -> Option<&Datagrams> {
        let outstanding = self.outstanding.as_mut()?;
        outstanding.repeats = 0;
        Some(&outstanding.datagrams)
    }

    /// Whether a response with this ID is the one we wait for.
    pub(crate) fn awaits(&self, id: MessageId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.id == id.0)
    }

    /// Whether any response is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// The ID of the request that waits.
    pub(crate) fn waiting_id(&self) -> u32 {
        self.outstanding.as_ref().map_or(0, |outstanding| outstanding.id)
    }

    /// Whether the request that waits was repeated.
    pub(crate) fn was_repeated(&self) -> bool {
        self.repeats() > 0
    }

    /// Repetitions of the request that waits.
    pub(crate) fn repeats(&self) -> u32 {
        self.outstanding.as_ref().map_or(0, |outstanding| outstanding.repeats)
    }

    /// The response has come, or nobody waits for it any more.
    pub(crate) fn answered(&mut self) {
        self.outstanding = None;
    }

    /// Starts again at zero: another first request is to be made.
    pub(crate) fn restart(&mut self) {
        self.outstanding = None;
        self.next = 0;
    }

    //= RFC 7296 §2.2: message IDs count up from zero in each direction; 2.3 allows one outstanding request
    //= RFC 7296 §2.2, §2.3: message IDs count up from zero in each direction, and one request is outstanding at most
    /// How a request of the peer with this ID fits.
    pub(crate) fn fit(&self, id: MessageId) -> Fit<'_> {
        if id.0 == self.expected {
            return if self.processing { Fit::Processing } else { Fit::New };
        }
        match (&self.last_response, id.0.checked_add(1) == Some(self.expected)) {
            (Some(datagrams), true) => Fit::Repeated(datagrams),
            _ => Fit::Outside,
        }
    }

    /// The request under the expected ID is being processed.
    pub(crate) fn processing(&mut self) -> MessageId {
        self.processing = true;
        MessageId(self.expected)
    }

    /// The response to the request being processed.
    pub(crate) fn responded(&mut self, datagrams: Datagrams) {
        self.processing = false;
        self.last_response = Some(datagrams);
        self.expected = self.expected.saturating_add(1);
    }

    /// The request being processed is to be forgotten: it was not authentic after all.
    pub(crate) fn forget_request(&mut self) {
        self.processing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(all: &[&str]) -> Datagrams {
        all.iter().map(|octets| octets.as_bytes().to_vec()).collect()
    }

    //= RFC 7296 §2.1: the responder must remember each response until it receives a request with a higher ID
    #[test]
    fn repeated_request_gets_the_same_octets() {
        let mut window = Window::default();
        assert_eq!(window.fit(MessageId(0)), Fit::New);
        assert_eq!(window.processing(), MessageId(0));
        assert_eq!(window.fit(MessageId(0)), Fit::Processing);
        window.responded(datagrams(&["first"]));
        assert_eq!(window.fit(MessageId(0)), Fit::Repeated(&datagrams(&["first"])));
        assert_eq!(window.fit(MessageId(1)), Fit::New);
        assert_eq!(window.fit(MessageId(2)), Fit::Outside);
        window.processing();
        window.responded(datagrams(&["second", "in fragments"]));
        assert_eq!(window.fit(MessageId(0)), Fit::Outside);
        //= RFC 7383 §2.6.1: a fragmented response is repeated as a whole
        assert_eq!(window.fit(MessageId(1)), Fit::Repeated(&datagrams(&["second", "in fragments"])));
    }

    //= RFC 7296 §2.3: window size of one
    #[test]
    fn one_request_at_a_time() {
        let mut window = Window::default();
        assert_eq!(window.free_id(), Some(MessageId(0)));
        window.sent(datagrams(&["request"]));
        assert_eq!(window.free_id(), None);
        assert!(window.awaits(MessageId(0)) && !window.awaits(MessageId(1)));
        assert_eq!(window.repeat(), Some((0, &datagrams(&["request"]))));
        assert_eq!(window.repeat(), Some((1, &datagrams(&["request"]))));
        window.answered();
        assert!(!window.awaits(MessageId(0)));
        assert_eq!(window.free_id(), Some(MessageId(1)));
    }

    //= RFC 7296 §2.6: the request with a COOKIE has the message ID of the one without
    #[test]
    fn other_octets_under_the_same_id() {
        let mut window = Window::default();
        window.replace(datagrams(&["nothing waits"]));
        assert!(!window.is_waiting());
        window.sent(datagrams(&["request"]));
        assert!(window.is_waiting() && !window.was_repeated());
        window.repeat();
        assert!(window.was_repeated());
        window.replace(datagrams(&["with a cookie"]));
        assert!(window.awaits(MessageId(0)) && !window.was_repeated());
        assert_eq!(window.repeat(), Some((0, &datagrams(&["with a cookie"]))));
        assert_eq!(window.again(), Some(&datagrams(&["with a cookie"])));
        assert_eq!(window.repeat(), Some((0, &datagrams(&["with a cookie"]))));
        window.restart();
        assert_eq!((window.free_id(), window.is_waiting()), (Some(MessageId(0)), false));
    }

    #[test]
    fn a_forgotten_request_is_new_again() {
        let mut window = Window::default();
        window.processing();
        window.forget_request();
        assert_eq!(window.fit(MessageId(0)), Fit::New);
        window.processing();
        window.responded(datagrams(&["response"]));
        assert_eq!(window.processing(), MessageId(1));
    }

    #[test]
    fn ids_never_wrap() {
        let mut window = Window { next: u32::MAX, expected: u32::MAX, ..Window::default() };
        window.sent(Vec::new().into());
        window.answered();
        assert_eq!(window.free_id(), Some(MessageId(u32::MAX)));
        assert_eq!(window.fit(MessageId(0)), Fit::Outside);
    }
}
