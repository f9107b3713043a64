//! What a backend lists against what was asked of it: the books of one comparison.
//!
//! A list shows what all requests before it have done and nothing of those after it, and it is compared when the answer has come. What was
//! asked in between is noted here and left out of the comparison: a change under way is neither a loss nor a stranger.

use std::collections::{BTreeMap, BTreeSet};

use ipsec::{DeviceId, Installed, OffloadMode, Op, PolicyHandle, PolicyStatus, SaHandle, SaStatus};

/// Whether a list is asked for, and what has been asked since.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// A list is under way.
    open: bool,
    /// Something happened since it was asked for: another one is wanted.
    again: bool,
    sas: BTreeSet<SaHandle>,
    policies: BTreeSet<PolicyHandle>,
    /// Repairs under way, with what was wrong.
    pub(crate) repairs: BTreeMap<Subject, String>,
}

/// What a repair is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A CHILD SA, by its unique id.
    Child(u32),
    /// The trap or shunt of a configured child, by the number of its keeper.
    Trap(u32),
}

impl Listing {
    /// Whether a list may be asked for now; if not, another one is once this is done.
    pub(crate) fn begin(&mut self) -> bool {
        self.again = self.open;
        !std::mem::replace(&mut self.open, true)
    }

    /// A list is under way.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// These operations are asked for.
    pub(crate) fn note(&mut self, ops: &[Op]) {
        if !self.open {
            return;
        }
        for op in ops {
            match op {
                Op::InstallSa(spec) => drop(self.sas.insert(spec.handle)),
                Op::UpdateSa { sa, .. } | Op::RemoveSa(sa) => drop(self.sas.insert(*sa)),
                Op::InstallPolicy(spec) | Op::UpdatePolicy(spec) => drop(self.policies.insert(spec.handle)),
                Op::RemovePolicy(policy) => drop(self.policies.insert(*policy)),
                Op::Activate { policy, sa } => {
                    self.policies.insert(*policy);
                    self.sas.insert(*sa);
                }
                Op::InstallGuard(_) | Op::RemoveGuard(_) | Op::Flush => {}
            }
        }
    }

    /// The list has come. Gives what was touched since, and whether another one is wanted.
    pub(crate) fn end(&mut self) -> (Touched, bool) {
        self.open = false;
        let touched = Touched { sas: std::mem::take(&mut self.sas), policies: std::mem::take(&mut self.policies) };
        (touched, std::mem::take(&mut self.again))
    }
}

/// SAs and policies that something was asked about since the list.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    sas: BTreeSet<SaHandle>,
    policies: BTreeSet<PolicyHandle>,
}

impl Touched {
    pub(crate) fn sa(&self, sa: SaHandle) -> bool {
        self.sas.contains(&sa)
    }

    pub(crate) fn policy(&self, policy: PolicyHandle) -> bool {
        self.policies.contains(&policy)
    }
}

/// What a backend holds, looked up by handle; what nobody looks up belongs to nobody.
#[derive(Debug)]
pub(crate) struct Held {
    sas: Vec<(SaStatus, bool)>,
    policies: Vec<(PolicyStatus, bool)>,
}

/// An SA as it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldSa {
    pub(crate) device: DeviceId,
    pub(crate) mode: OffloadMode,
}

/// A policy as it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldPolicy {
    pub(crate) device: DeviceId,
    pub(crate) mode: OffloadMode,
    pub(crate) sa: Option<SaHandle>,
}

impl Held {
    pub(crate) fn new(installed: Installed) -> Self {
        let mut sas: Vec<_> = installed.sas.into_iter().map(|status| (status, false)).collect();
        let mut policies: Vec<_> = installed.policies.into_iter().map(|status| (status, false)).collect();
        // Backends list in this order, as a rule.
        sas.sort_unstable_by_key(|(status, _)| status.sa);
        policies.sort_unstable_by_key(|(status, _)| status.policy);
        Self { sas, policies }
    }

    /// An SA that somebody owns.
    pub(crate) fn sa(&mut self, sa: SaHandle) -> Option<HeldSa> {
        let at = self.sas.binary_search_by_key(&sa, |(status, _)| status.sa).ok()?;
        let (status, owned) = self.sas.get_mut(at)?;
        *owned = true;
        Some(HeldSa { device: status.device, mode: status.mode.mode })
    }

    /// A policy that somebody owns.
    pub(crate) fn policy(&mut self, policy: PolicyHandle) -> Option<HeldPolicy> {
        let at = self.policies.binary_search_by_key(&policy, |(status, _)| status.policy).ok()?;
        let (status, owned) = self.policies.get_mut(at)?;
        *owned = true;
        Some(HeldPolicy { device: status.device, mode: status.mode.mode, sa: status.sa })
    }

    /// The SAs that have reached a limit, with their state.
    pub(crate) fn expired(&self) -> impl Iterator<Item = &SaStatus> {
        let all = self.sas.iter().map(|(status, _)| status);
        all.filter(|status| status.soft_expired.is_some() || status.hard_expired.is_some())
    }

    /// Operations that take out what nobody owns: policies before SAs.
    pub(crate) fn strangers(&self, touched: &Touched) -> Vec<Op> {
        let policies = self.policies.iter().filter(|(status, owned)| !owned && !touched.policy(status.policy));
        let sas = self.sas.iter().filter(|(status, owned)| !owned && !touched.sa(status.sa));
        let policies = policies.map(|(status, _)| Op::RemovePolicy(status.policy));
        policies.chain(sas.map(|(status, _)| Op::RemoveSa(status.sa))).collect()
    }

    /// Entries of both tables.
    pub(crate) fn len(&self) -> usize {
        self.sas.len() + self.policies.len()
    }
}

#[cfg(test)]
mod tests {
    use ipsec::{ModeInUse, Shard, Spi};

    use super::*;

    fn sa(number: u64) -> SaHandle {
        SaHandle::new(Shard(0), number)
    }

    fn policy(number: u64) -> PolicyHandle {
        PolicyHandle::new(Shard(0), number)
    }

    fn held() -> Held {
        let status = |number| SaStatus {
            sa: sa(number),
            device: DeviceId(0),
            spi: Spi::new(0x1000).unwrap(),
            bytes: 0,
            packets: 0,
            idle_seconds: None,
            sequence: 0,
            soft_expired: None,
            hard_expired: None,
            mode: ModeInUse::SOFTWARE,
        };
        let policies = [4, 2].map(|number| PolicyStatus {
            policy: policy(number),
            device: DeviceId(0),
            sa: None,
            mode: ModeInUse::SOFTWARE,
        });
        Held::new(Installed { sas: [7, 5, 6].map(status).into(), policies: policies.into() })
    }

    #[test]
    fn what_nobody_asks_for_is_a_stranger() {
        let mut held = held();
        assert!(held.sa(sa(5)).is_some() && held.sa(sa(8)).is_none() && held.policy(policy(2)).is_some());
        let ops = held.strangers(&Touched::default());
        assert!(matches!(ops.as_slice(), [Op::RemovePolicy(p), Op::RemoveSa(a), Op::RemoveSa(b)]
            if (*p, *a, *b) == (policy(4), sa(6), sa(7))));
        assert_eq!(held.len(), 5);
    }

    #[test]
    fn what_was_asked_about_since_is_left_out() {
        let mut listing = Listing::default();
        listing.note(&[Op::RemoveSa(sa(5))]); // before the list: shown by it
        assert!(listing.begin() && listing.is_open());
        listing.note(&[
            Op::RemoveSa(sa(6)),
            Op::RemovePolicy(policy(4)),
            Op::Activate { policy: policy(2), sa: sa(7) },
        ]);
        let (touched, again) = listing.end();
        assert!(!again && touched.sa(sa(6)) && touched.policy(policy(2)) && !touched.sa(sa(5)));
        let ops = held().strangers(&touched);
        assert!(matches!(ops.as_slice(), [Op::RemoveSa(only)] if *only == sa(5)));
        assert!(!listing.is_open() && !listing.end().0.sa(sa(6)));
    }

    #[test]
    fn one_list_at_a_time_and_one_more_when_something_happened_meanwhile() {
        let mut listing = Listing::default();
        assert!(listing.begin());
        assert!(!listing.begin() && !listing.begin());
        assert!(listing.end().1);
        assert!(listing.begin());
        assert!(!listing.end().1);
    }
}
