//! What happened in a world, in order: for whoever wants to know afterwards which situations were met.

use ike_model::Command;
use ike_wire::Header;
use ipsec::{Event, Instant};

use crate::Who;
use crate::meaning::Meaning;

/// One line of the journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The datagram of this number was sent.
    Sent(usize),
    /// The datagram of this number arrived.
    Arrived {
        /// At whom.
        to: Who,
        /// Its number; `None` for one that was made up.
        number: Option<usize>,
    },
    /// An event was told.
    Told(Who, &'static str),
    /// A command was given.
    Asked(Who, Command),
    /// The backend told something.
    Backend(Who, Event),
    /// The backend refused.
    Refused(Who),
    /// Whoever does something to the world says in what situation.
    Mark(&'static str),
    /// A gateway started again.
    Restarted(Who),
}

/// A datagram.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its number, counted over the whole world.
    pub number: usize,
    /// By whom.
    pub from: Who,
    /// To whom, if there is anybody.
    pub to: Option<Who>,
    /// Its header.
    pub header: Header,
    /// What it says.
    pub meaning: Meaning,
    /// It was sent before, octet by octet.
    pub again: bool,
}

impl Sent {
    /// Both SPIs of its IKE SA.
    pub fn ike(&self) -> (u64, u64) {
        (self.header.initiator_spi.0, self.header.responder_spi.0)
    }

    /// Whether it is a response.
    pub fn is_response(&self) -> bool {
        self.header.flags.response
    }
}
