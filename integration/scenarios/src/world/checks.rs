//! What tests ask of a world, and what it asks of itself after every step.

use std::time::Duration;

use ike_model::snapshot::IkeSaState;
use ike_model::{ChildSaSnapshot, IkeSaSnapshot};
use ipsec::Spi;
use ipsec::recording::Tables;

use super::World;
use super::text::letter;
use crate::Who;
use crate::oracle;
use crate::oracle::reception::{self, InUse};
use crate::packets::{Way, ways};

impl World {
    /// After every input: nothing without an owner; once strict, what one sends the other receives.
    pub(super) fn look(&self, who: Who) {
        let ike_sas = self.gateways[who].ike_sas(self.now);
        // While a backend keeps requests, what it holds lags behind what the core has asked for.
        if !self.gateways[who].held {
            let owned = self.gateways[who].with_tables(|tables| oracle::installed(tables, &ike_sas));
            self.insist(owned.map_err(|why| format!("{}: {why}", letter(who))));
        }
        let story = self.oracle.borrow().stories_agree(who, &ike_sas);
        self.insist(story.map_err(|why| format!("{}: {why}", letter(who))));
        if self.strict {
            self.check_sas();
            self.check_flight();
        }
        if self.watched {
            self.oracle.borrow_mut().reception.owned(who, &ike_sas);
            self.check_reception(who, &ike_sas);
        }
    }

    /// From now on, unless an end has a good reason, it receives on what the other sends.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// Something has changed at `who`: at what it sends on, or at what it receives on.
    #[track_caller]
    fn check_reception(&self, who: Who, ike_sas: &[IkeSaSnapshot]) {
        for sender in 0..self.gateways.len() {
            let sound = self.gateways[sender].with_tables(|tables| {
                reception::in_use(tables)?
                    .iter()
                    .try_for_each(|used| self.check_used(sender, tables, used, who, ike_sas))
            });
            self.insist(sound.map_err(|why| format!("{} {why}", letter(sender))));
        }
    }

    fn check_used(
        &self,
        sender: Who,
        tables: &Tables,
        used: &InUse<'_>,
        changed: Who,
        ike_sas: &[IkeSaSnapshot],
    ) -> Result<(), String> {
        let remote = used.sa.outer.remote;
        let Some(receiver) = self.gateways.iter().position(|peer| peer.public_address() == remote) else {
            return Ok(());
        };
        if ![sender, receiver].contains(&changed) || [sender, receiver].iter().any(|who| self.gateways[*who].held) {
            return Ok(());
        }
        let receives = |handle| {
            let outbound = tables.sas.get(&handle);
            let fits = |outbound| {
                let receives = |tables: &Tables| tables.sas.values().any(|inbound| oracle::receives(inbound, outbound));
                self.gateways[receiver].with_tables(receives)
            };
            outbound.is_some_and(fits)
        };
        let alive = |ike| match receiver == changed {
            true => lives(ike_sas, ike),
            false => lives(&self.gateways[receiver].ike_sas(self.now), ike),
        };
        self.oracle.borrow_mut().reception.used((sender, receiver), used, receives, alive)
    }

    /// A packet came to `who` for which there is no SA.
    #[track_caller]
    pub(super) fn check_missed(&self, who: Who, spi: Spi) {
        if self.watched {
            let ike_sas = self.gateways[who].ike_sas(self.now);
            let outcome = self.oracle.borrow().reception.missed(who, spi, |ike| lives(&ike_sas, ike));
            self.insist(outcome.map_err(|why| format!("{}: {why}", letter(who))));
        }
    }

    /// Whether everything that an end sends on, or sent on so lately that packets may still be under way, is received at the other.
    fn check_flight(&self) {
        let mut oracle = self.oracle.borrow_mut();
        for sender in &self.gateways {
            sender.with_tables(|tables| {
                let sas = ways(tables).into_iter().filter_map(|way| tables.sas.get(&way.sa?));
                sas.for_each(|sa| oracle.flight.takes(sender.who, sa, self.now));
            });
        }
        let travel = self.link.latency + self.link.jitter;
        for (who, outbound) in oracle.flight.may_arrive(travel, self.now) {
            let Some(peer) = self.gateways.iter().find(|peer| peer.public_address() == outbound.outer.remote) else {
                continue;
            };
            if !peer.with_tables(|tables| tables.sas.values().any(|inbound| oracle::receives(inbound, outbound))) {
                self.fail(&format!(
                    "packets of {} on SPI {} may be under way, and {} does not receive them any more",
                    letter(who),
                    outbound.spi,
                    letter(peer.who)
                ));
            }
        }
    }

    /// From now on a request that was refused for now must not come again sooner than in six seconds.
    pub fn paced(&self) {
        self.oracle.borrow_mut().paced();
    }

    /// How many CREATE_CHILD_SA requests of a gateway were refused with a Notify without data, as TEMPORARY_FAILURE.
    pub fn refusals(&self, who: Who) -> usize {
        self.oracle.borrow().refusals(who)
    }

    /// Whether every SA in use has its counterpart at the peer.
    ///
    /// # Panics
    /// When one has not.
    #[track_caller]
    pub fn check_sas(&self) {
        for sender in &self.gateways {
            let sound =
                sender.with_tables(|tables| ways(tables).iter().try_for_each(|way| self.check_way(tables, way)));
            self.insist(sound.map_err(|why| format!("{} {why}", letter(sender.who))));
        }
    }

    fn check_way(&self, tables: &Tables, way: &Way) -> Result<(), String> {
        let Some(handle) = way.sa else { return Ok(()) };
        let Some(outbound) = tables.sas.get(&handle) else {
            return Err(format!("has a policy of {} that uses an SA which is not there", way.name));
        };
        let peer = self.gateways.iter().find(|peer| peer.answers_at(outbound.outer.remote));
        let Some(peer) = peer else { return Ok(()) };
        if peer.with_tables(|tables| tables.sas.values().any(|inbound| oracle::receives(inbound, outbound))) {
            return Ok(());
        }
        Err(format!("sends {} on SPI {}, which {} does not receive", way.name, outbound.spi, letter(peer.who)))
    }

    /// The CHILD SAs that both gateways list as live, with the SPIs crossed: name and both SPIs as `one` sees them.
    pub fn tunnels(&self, one: Who, other: Who) -> Vec<(String, Spi, Spi)> {
        let spis = |child: &ChildSaSnapshot| Some((child.spi_in?, child.spi_out?));
        let there: Vec<_> = self.gateways[other].live_children(self.now).iter().filter_map(spis).collect();
        let here = self.gateways[one].live_children(self.now);
        let crossed = here.iter().filter_map(|child| {
            let (spi_in, spi_out) = spis(child)?;
            there.contains(&(spi_out, spi_in)).then(|| (child.name.to_string(), spi_in, spi_out))
        });
        crossed.collect()
    }

    /// Between these gateways stands exactly one usable CHILD SA, the same at both, and traffic takes it; nothing else is left.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn check_one_tunnel(&self, one: Who, other: Who) {
        self.check_tunnels(one, other, 1);
    }

    /// The same for `count` CHILD SAs.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn check_tunnels(&self, one: Who, other: Who, count: usize) {
        let tunnels = self.tunnels(one, other);
        let counts = [one, other].map(|who| self.gateways[who].live_children(self.now).len());
        if tunnels.len() != count || counts != [count, count] {
            let list = |who: Who| {
                let children = self.gateways[who].children(self.now);
                let text = |child: &ChildSaSnapshot| {
                    format!(
                        "{}{{{}}} {:?} {:?}/{:?}",
                        child.name, child.unique_id, child.state, child.spi_in, child.spi_out
                    )
                };
                children.iter().map(text).collect::<Vec<_>>().join(", ")
            };
            self.fail(&format!(
                "{count} CHILD SAs wanted; {} has [{}], {} has [{}]",
                letter(one),
                list(one),
                letter(other),
                list(other)
            ));
        }
        self.check_sas();
        for (who, spi_out) in [(one, 2), (other, 1)] {
            let tables = self.gateways[who].tables();
            let sending: Vec<_> =
                ways(&tables).iter().filter_map(|way| tables.sas.get(&way.sa?)).map(|sa| sa.spi).collect();
            for tunnel in &tunnels {
                let wanted = if spi_out == 2 { tunnel.2 } else { tunnel.1 };
                self.check(sending.contains(&wanted), &format!("{} does not send on {wanted}", letter(who)));
            }
        }
    }

    /// Neither gateway has anything left: no SA, no protecting policy.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn check_nothing_left(&self) {
        for gateway in &self.gateways {
            let tables = gateway.tables();
            let counts = gateway.counts();
            let left = (counts.ike_sas, counts.children, tables.sas.len(), ways(&tables).len());
            self.check(
                left == (0, 0, 0, 0),
                &format!("{}: IKE SAs, CHILD SAs, SAs, policies left: {left:?}", letter(gateway.who)),
            );
        }
        self.insist(self.oracle.borrow().stories_are_complete());
    }

    /// How many datagrams a gateway has sent.
    pub fn sent(&self, who: Who) -> usize {
        self.gateways[who].sent.len()
    }

    /// When a gateway sent its datagrams, since the start of the world.
    pub fn sent_at(&self, who: Who) -> Vec<Duration> {
        let start = ipsec::Instant::START + Duration::from_secs(1);
        self.gateways[who].sent.iter().map(|(at, _, _)| at.saturating_since(start)).collect()
    }
}

/// Whether an IKE SA is there and not about to go.
fn lives(ike_sas: &[IkeSaSnapshot], unique_id: u32) -> bool {
    let ending = |state| matches!(state, IkeSaState::Deleting | IkeSaState::Rekeyed);
    ike_sas.iter().any(|ike| ike.unique_id == unique_id && !ending(ike.state))
}
