//! Datagrams between the gateways of a world: sent, lost, held, delivered, injected.

use ike_sa::{Input, Transmit, route};
use ike_wire::Header;
use ipsec::Path;

use super::text::letter;
use super::{Due, Flying, World};
use crate::journal::{Happening, Sent};
use crate::link::{Fate, Sending};
use crate::meaning::meaning;
use crate::{Who, clear, oracle};

/// Datagrams.
impl World {
    pub(super) fn transmit(&mut self, from: Who, transmit: Transmit) {
        let Transmit { path, octets, .. } = transmit;
        let header = match Header::parse(&octets) {
            Ok(header) => header,
            Err(error) => self.fail(&format!("{} sends a malformed message: {error}", letter(from))),
        };
        let again = self.oracle.borrow().was_sent(from, &header, &octets);
        let octets = self.sabotaged_datagram(again, &header, octets);
        if !self.quiet {
            self.insist(self.oracle.borrow_mut().sent(from, &header, &octets, self.now));
        }
        let n = self.gateways[from].sent.len();
        self.gateways[from].sent.push((self.now, path, if self.quiet { Vec::new() } else { octets.clone() }));
        let source = self.gateways[from].nat.as_mut().map_or(path.local, |nat| nat.outward(path.local));
        let mut flying = Flying { from, source, destination: path.remote, number: None, octets };
        let to = self.gateways.iter().position(|gateway| gateway.arrival(flying.destination).is_some());
        if self.journal.is_some() {
            let meaning = meaning(&header, &flying.octets);
            flying.number = Some(self.say(Sent { number: 0, from, to, header, meaning, again }));
        }
        let sending = Sending { from, n, at: self.now, path, octets: &flying.octets, header };
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let leaves = self.gateways[from].addresses.contains(&local) && !self.link.dead.contains(&(local, remote));
        let fate = match to.filter(|_| leaves) {
            Some(to) => self.link.fate(&sending, to, &mut self.dice),
            None => Fate::Lost,
        };
        let line = match self.keeps_trace() {
            true => format!("{} > {} {}{}", letter(from), path.remote, oracle::describe(&header), self.words(&flying)),
            false => String::new(),
        };
        match fate {
            Fate::Lost => self.note(format!("{line} LOST")),
            Fate::Held => {
                self.note(format!("{line} held"));
                self.held.push(flying);
            }
            Fate::Delivered(times) => {
                self.note(if times.len() > 1 { format!("{line} twice") } else { line });
                for time in times {
                    self.schedule(self.now + time, Due::Datagram(flying.clone()));
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, flying: &Flying) {
        let to = (0..self.gateways.len()).find_map(|who| Some((who, self.gateways[who].arrival(flying.destination)?)));
        let Some((to, local)) = to.filter(|(to, _)| !self.gateways[*to].asleep) else { return };
        self.record(|| Happening::Arrived { to, number: flying.number });
        let sent = flying.number.and_then(|number| self.datagrams.get(number)).cloned();
        if let Some(sent) = &sent {
            self.oracle.borrow_mut().heard(self.now, to, sent);
            self.sabotaged_arrival(to, sent);
        }
        let path = Path { local, remote: flying.source };
        let changed = self.ignores(sent.as_ref()).then(|| clear::emptied(&flying.octets)).flatten();
        self.inject(to, path, changed.as_deref().unwrap_or(&flying.octets));
        self.hurry_on();
    }

    /// Remembers what was sent. Gives its number.
    fn say(&mut self, sent: Sent) -> usize {
        let number = self.datagrams.len();
        let sent = Sent { number, ..sent };
        self.insist(self.oracle.borrow_mut().said(self.now, &sent));
        self.datagrams.push(sent);
        self.record(|| Happening::Sent(number));
        number
    }

    fn words(&self, flying: &Flying) -> String {
        let sent = flying.number.and_then(|number| self.datagrams.get(number));
        sent.map(|sent| format!(" {:?}", sent.meaning)).unwrap_or_default()
    }

    /// Hands a datagram to a gateway.
    pub fn inject(&mut self, to: Who, path: Path, octets: &[u8]) {
        if let Ok(header) = Header::parse(octets) {
            if self.keeps_trace() {
                self.note(format!("{} < {} {}", letter(to), path.remote, oracle::describe(&header)));
            }
            self.oracle.borrow_mut().arrived(to, &header, octets, self.now);
        }
        let shard = route(octets, path.remote, self.gateways[to].shard_count());
        self.turn(to, shard, Input::Datagram { path, octets });
        self.settle(to);
    }

    /// What rules have held, oldest first.
    pub fn held(&self) -> &[Flying] {
        &self.held
    }

    /// Lets the first held datagram that fits arrive now.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn let_go(&mut self, fits: impl Fn(&Flying) -> bool) {
        match self.held.iter().position(fits) {
            Some(at) => {
                let flying = self.held.remove(at);
                self.deliver(&flying);
            }
            None => self.fail("no held datagram fits"),
        }
    }

    /// Loses the first held datagram that fits.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn lose(&mut self, fits: impl Fn(&Flying) -> bool) {
        match self.held.iter().position(fits) {
            Some(at) => drop(self.held.remove(at)),
            None => self.fail("no held datagram fits"),
        }
    }

    /// Lets one held datagram arrive now, counted round from the oldest. False when nothing is held.
    pub fn let_go_nth(&mut self, nth: usize) -> bool {
        let Some(at) = nth.checked_rem(self.held.len()) else { return false };
        let flying = self.held.remove(at);
        self.deliver(&flying);
        true
    }

    /// Forgets one held datagram, counted round from the oldest.
    pub fn lose_held_nth(&mut self, nth: usize) {
        if let Some(at) = nth.checked_rem(self.held.len()) {
            self.held.remove(at);
        }
    }

    /// Lets everything held arrive now, in order.
    pub fn let_all_go(&mut self) {
        for flying in std::mem::take(&mut self.held) {
            self.deliver(&flying);
        }
    }

    /// Forgets everything held.
    pub fn lose_held(&mut self) {
        self.held.clear();
    }
}
