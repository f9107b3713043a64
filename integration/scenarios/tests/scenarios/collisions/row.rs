//! A row of a collision table: what happens in which order, and what must come of it.

use std::time::Duration;

use ike_model::Connection;
use ike_wire::ids::KeyExchangeId;
use scenarios::{A, B, Who};

/// A message, by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Its CREATE_CHILD_SA request.
    Ask(Who),
    /// Its response to one.
    Answer(Who),
    /// Its INFORMATIONAL request: a DELETE.
    Delete(Who),
    /// Its response to one.
    Deleted(Who),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The operator rekeys the child `net`.
    RekeyChild(Who),
    /// The operator rekeys the IKE SA.
    RekeyIke(Who),
    /// The operator closes this child.
    Close(Who, &'static str),
    /// The operator closes the child `net` without telling the peer.
    ForgetChild(Who),
    /// The operator closes the IKE SA.
    CloseIke(Who),
    /// The operator wants this child.
    Initiate(Who, &'static str),
    /// The operator loads the same configuration again.
    Reload(Who),
    /// The first message of this kind that is held arrives.
    Arrives(Message),
    /// Another copy of the last message of this kind that was sent arrives.
    Again(Message),
    /// The first message of this kind that is held is lost.
    Lost(Message),
    /// From now on all messages of this kind are lost.
    Swallowed(Message),
    /// Milliseconds pass.
    Pass(u64),
    /// From now on nothing is held any more, and what was held arrives.
    Flows,
    /// Nothing passes between the ends.
    Cut,
    /// Everything passes again.
    Mended,
    /// A soft limit of the CHILD SA that stood at the beginning is reached.
    SoftLimit(Who),
    /// A hard limit of the CHILD SA that stood at the beginning is reached.
    HardLimit(Who),
    /// The backend refuses the next install.
    Refuses(Who),
    /// The device loses everything it holds.
    Flushed(Who),
    /// From now on only these key exchange methods can be computed.
    Computes(Who, &'static [KeyExchangeId]),
    /// The CHILD SA that stood at the beginning is in use at both ends.
    OldStands,
}

/// What must come of it.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) children: usize,
    pub(super) ikes: usize,
    pub(super) events: [Vec<&'static str>; 2],
    pub(super) any_order: bool,
    pub(super) asks: [usize; 2],
    pub(super) deletes: [usize; 2],
    pub(super) refusals: [usize; 2],
    pub(super) within: Duration,
}

/// See the module.
pub(super) struct Row {
    /// Its scenario.
    pub(super) scenario: &'static str,
    /// Which variant of it.
    pub(super) variant: String,
    pub(super) connection: fn(Who, Connection) -> Connection,
    pub(super) begins_up: bool,
    pub(super) delays: [Option<u64>; 2],
    pub(super) lowest: Option<usize>,
    pub(super) steps: Vec<Step>,
    pub(super) gaps: Option<&'static str>,
    pub(super) outcome: Outcome,
}

/// A row. Unless it says otherwise, the tunnel is up at the beginning, one CHILD SA is there at the end, nothing is told, no packet is lost.
pub(super) fn row(scenario: &'static str, variant: impl Into<String>, steps: Vec<Step>) -> Row {
    Row {
        scenario,
        variant: variant.into(),
        connection: |_, connection| connection,
        begins_up: true,
        delays: [None, None],
        lowest: None,
        steps,
        gaps: None,
        outcome: Outcome {
            children: 1,
            ikes: 1,
            events: [Vec::new(), Vec::new()],
            any_order: false,
            asks: [0, 0],
            deletes: [0, 0],
            refusals: [0, 0],
            within: Duration::from_secs(1),
        },
    }
}

/// The four nonces of two crossing exchanges.
pub(super) const PLACES: [&str; 4] = ["A's request", "B's response", "B's request", "A's response"];

/// The end whose exchange wins when the lowest nonce is at this place.
pub(super) fn winner(place: usize) -> Who {
    if place < 2 { B } else { A }
}

impl Row {
    /// The connection is changed so, for each part.
    pub(super) fn configured(mut self, connection: fn(Who, Connection) -> Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Nothing is up at the beginning.
    pub(super) fn nothing_up(mut self) -> Self {
        self.begins_up = false;
        self
    }

    /// Arithmetic takes so many milliseconds at A and B.
    pub(super) fn slow(mut self, a: u64, b: u64) -> Self {
        self.delays = [Some(a), Some(b)];
        self
    }

    /// Where the lowest of the four nonces is, as an index of [`PLACES`].
    pub(super) fn lowest(mut self, place: usize) -> Self {
        self.lowest = Some(place);
        self
    }

    /// Packets may find no SA on one side, for this reason.
    pub(super) fn gaps(mut self, reason: &'static str) -> Self {
        self.gaps = Some(reason);
        self
    }

    /// CHILD SAs and IKE SAs at the end.
    pub(super) fn leaves(mut self, children: usize, ikes: usize) -> Self {
        (self.outcome.children, self.outcome.ikes) = (children, ikes);
        self
    }

    /// What A and B tell, in order.
    pub(super) fn tells(mut self, a: &[&'static str], b: &[&'static str]) -> Self {
        self.outcome.events = [a.to_vec(), b.to_vec()];
        self
    }

    /// In any order, because chance decides it.
    pub(super) fn in_any_order(mut self) -> Self {
        self.outcome.any_order = true;
        self
    }

    /// How many CREATE_CHILD_SA requests A and B make, repetitions not counted.
    pub(super) fn asks(mut self, a: usize, b: usize) -> Self {
        self.outcome.asks = [a, b];
        self
    }

    /// How many INFORMATIONAL requests A and B make, repetitions not counted.
    pub(super) fn deletes(mut self, a: usize, b: usize) -> Self {
        self.outcome.deletes = [a, b];
        self
    }

    /// How many requests of A and B are refused with TEMPORARY_FAILURE or another plain Notify.
    pub(super) fn refused(mut self, a: usize, b: usize) -> Self {
        self.outcome.refusals = [a, b];
        self
    }

    /// After so many seconds nothing is sent any more.
    pub(super) fn within(mut self, seconds: u64) -> Self {
        self.outcome.within = Duration::from_secs(seconds);
        self
    }
}
