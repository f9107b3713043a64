//! A CHILD SA against what the backend holds of it.

use ipsec::{Direction, OffloadMode, Op, PolicyHandle, SelectorPair};

use super::{ChildSa, Outbound};
use crate::listing::{Held, HeldPolicy, Touched};
use crate::switch::Switches;
use crate::turn::Ids;

/// What came of the comparison.
#[derive(Debug)]
pub(crate) enum Finding {
    /// All is as it should be, or is just being changed.
    Whole,
    /// An SA is not there, or not as it was installed: keys are never installed twice, so there is nothing to repair.
    Lost(&'static str),
    /// Policies are not as they should be, both SAs are.
    Policies {
        /// What makes them so.
        ops: Vec<Op>,
        /// What is wrong, in words.
        text: String,
    },
}

impl ChildSa {
    /// Looks up everything it should have.
    pub(crate) fn compare(&self, ids: &Ids, held: &mut Held, touched: &Touched, switches: &Switches) -> Finding {
        let inbound = self.find_sa(ids, Direction::Inbound, held);
        let outbound = self.find_sa(ids, Direction::Outbound, held);
        let policies = self.find_policies(held);
        if self.installed_at.is_none() || self.is_touched(ids, touched) {
            return Finding::Whole;
        }
        let needed = [(!self.deaf).then_some(inbound), (self.outbound != Outbound::Removed).then_some(outbound)];
        if let Some(text) = needed.into_iter().flatten().find_map(|found| self.missing(found)) {
            return Finding::Lost(text);
        }
        let sa = ids.sa(self.unique_id, Direction::Outbound);
        let in_use = (self.outbound == Outbound::Active).then_some(sa);
        // What is to use it and waits for that is as it will be with the switch.
        let found = policies.into_iter().filter(|policy| {
            !(policy.direction == Direction::Outbound && in_use.is_some_and(|sa| switches.is_waiting(sa)))
        });
        self.flaws(found, in_use)
    }

    fn find_sa(&self, ids: &Ids, direction: Direction, held: &mut Held) -> Option<crate::listing::HeldSa> {
        held.sa(ids.sa(self.unique_id, direction))
    }

    fn missing(&self, found: Option<crate::listing::HeldSa>) -> Option<&'static str> {
        match found {
            None => Some("the device does not hold it any more"),
            Some(held) if held.device != self.device => Some("another device holds it"),
            Some(held) if held.mode != self.offload.mode => {
                Some("it is offloaded in another way than it was installed")
            }
            Some(_) => None,
        }
    }

    fn find_policies(&self, held: &mut Held) -> Vec<Found> {
        let mut all = Vec::new();
        for (entry, pair) in self.policies.iter().zip(self.pairs.iter()) {
            let inward = [(entry.inbound, Direction::Inbound), (entry.forward, Direction::Forward)];
            for (policy, direction) in inward.into_iter().chain([(entry.outbound, Direction::Outbound)]) {
                all.push(Found { policy, direction, pair: *pair, held: held.policy(policy) });
            }
        }
        all
    }

    fn is_touched(&self, ids: &Ids, touched: &Touched) -> bool {
        let sas = [Direction::Inbound, Direction::Outbound].map(|direction| ids.sa(self.unique_id, direction));
        let mut policies = self.policies.iter().flat_map(|entry| [entry.inbound, entry.forward, entry.outbound]);
        sas.into_iter().any(|sa| touched.sa(sa)) || policies.any(|policy| touched.policy(policy))
    }

    /// Inbound and forward policies come before outbound ones, and those before the switch to the SA.
    fn flaws(&self, found: impl Iterator<Item = Found>, in_use: Option<ipsec::SaHandle>) -> Finding {
        let (mut inward, mut outward) = (Vec::new(), Vec::new());
        let (mut gone, mut changed) = (0_u32, 0_u32);
        for policy in found {
            let outbound = policy.direction == Direction::Outbound;
            let ops = if outbound { &mut outward } else { &mut inward };
            // Only packet offload looks policies up in the device.
            let looked_up = |mode: OffloadMode| mode == OffloadMode::Packet;
            let place = |held: &HeldPolicy| {
                held.device == self.device && (!outbound || looked_up(held.mode) == looked_up(self.offload.mode))
            };
            let spec = match policy.direction {
                Direction::Outbound => self.outbound_policy(policy.policy, policy.pair, in_use),
                Direction::Inbound | Direction::Forward => self.policy(policy.policy, policy.direction, policy.pair),
            };
            let install = Op::InstallPolicy(spec);
            let activate = in_use.filter(|_| outbound).map(|sa| Op::Activate { policy: policy.policy, sa });
            match policy.held {
                None => {
                    gone += 1;
                    ops.push(install);
                }
                Some(held) if !place(&held) => {
                    changed += 1;
                    ops.extend([Op::RemovePolicy(policy.policy), install]);
                }
                Some(held) if outbound && held.sa != in_use => {
                    changed += 1;
                    if in_use.is_none() {
                        ops.extend([Op::RemovePolicy(policy.policy), install]);
                    }
                }
                Some(_) => continue,
            }
            ops.extend(activate);
        }
        inward.append(&mut outward);
        match (gone, changed) {
            (0, 0) => Finding::Whole,
            (gone, changed) => Finding::Policies { ops: inward, text: in_words(gone, changed) },
        }
    }
}

#[derive(Debug)]
struct Found {
    policy: PolicyHandle,
    direction: Direction,
    pair: SelectorPair,
    held: Option<HeldPolicy>,
}

/// How many policies had vanished and how many were not as they should be.
pub(crate) fn in_words(gone: u32, changed: u32) -> String {
    let count = |number: u32| if number == 1 { "1 policy".to_owned() } else { format!("{number} policies") };
    match (gone, changed) {
        (gone, 0) => format!("{} had vanished from the device", count(gone)),
        (0, changed) => format!("{} had been changed by somebody else", count(changed)),
        (gone, changed) => format!(
            "{} had vanished from the device and {} had been changed by somebody else",
            count(gone),
            count(changed)
        ),
    }
}
