//! Clocks that jump, and devices that lose what they held.

use std::time::Duration;

use ipsec::{DeviceId, Event, SaHandle};

use super::World;
use super::text::letter;
use crate::Who;

impl World {
    /// The clock of a gateway jumps ahead of the world's.
    pub fn jump(&mut self, who: Who, span: Duration) {
        self.note(format!("the clock of {} jumps by {span:?}", letter(who)));
        self.gateways[who].skew += span;
        self.oracle.borrow_mut().unsettled(who);
    }

    /// Whether a gateway sleeps.
    pub fn sleeps(&self, who: Who) -> bool {
        self.gateways[who].asleep
    }

    /// Wakes a gateway before its time.
    pub fn wake_up(&mut self, who: Who) {
        if self.sleeps(who) {
            self.wake(who, Duration::from_secs(1));
        }
    }

    /// The device of a gateway has lost its tables. It comes back with empty ones, or is gone.
    pub fn lose_device(&mut self, who: Who, gone: bool) {
        let device = DeviceId(0);
        self.oracle.borrow_mut().unsettled(who);
        self.oracle.borrow_mut().shaken(who);
        self.gateways[who].backend.lose_all();
        if gone {
            return self.backend_event(who, Event::DeviceGone(device));
        }
        self.backend_event(who, Event::DeviceDown(device));
        self.backend_event(who, Event::DeviceUp(device));
    }

    /// The device of a gateway has lost one SA.
    pub fn lose_sa(&mut self, who: Who, sa: SaHandle) {
        self.oracle.borrow_mut().unsettled(who);
        self.oracle.borrow_mut().shaken(who);
        self.gateways[who].backend.lose(sa);
        self.backend_event(who, Event::StateLost { sa });
    }
}
