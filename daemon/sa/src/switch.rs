//! When the responder of a new CHILD SA begins to send on it.
//!
//! A responder may use a new CHILD SA as soon as it has answered (RFC 7296 §2.8), but its initiator can receive only once it has seen the answer,
//! checked it and installed its half; until then packets are lost. Where there is nothing else to send on, that is so. But an equal CHILD SA of
//! another IKE SA, as there is while a peer is authenticated afresh, still works: traffic stays there until the first packet comes on the
//! new one, or the other one goes, or some time has passed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipsec::{Op, PolicyHandle, SaHandle, SelectorPair};

/// Traffic stays on the other CHILD SA this long at most. A slow initiator needs less, and the other one is received on until it is deleted.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// Outbound SAs in use, and those that wait to take the place of another one.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    in_use: BTreeMap<Arc<str>, Vec<InUse>>,
    names: BTreeMap<SaHandle, Arc<str>>,
    waiting: BTreeMap<SaHandle, Waiting>,
}

/// An outbound SA with the selectors that it protects.
type InUse = (SaHandle, Arc<[SelectorPair]>);

#[derive(Debug)]
struct Waiting {
    other: SaHandle,
    ops: Vec<Op>,
}

impl Waiting {
    /// Whether traffic of this policy is to pass.
    fn leads(&self, policy: PolicyHandle) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Activate { policy: led, .. } if *led == policy))
    }
}

impl Switches {
    /// Traffic of a child takes this outbound SA.
    pub(crate) fn takes(&mut self, sa: SaHandle, name: &Arc<str>, pairs: &Arc<[SelectorPair]>) {
        self.in_use.entry(name.clone()).or_default().push((sa, pairs.clone()));
        self.names.insert(sa, name.clone());
    }

    /// The outbound SA that traffic of a child with these selectors took last.
    pub(crate) fn in_use(&self, name: &str, pairs: &[SelectorPair]) -> Option<SaHandle> {
        let all = self.in_use.get(name)?;
        all.iter().rev().find(|(_, found)| **found == *pairs).map(|(sa, _)| *sa)
    }

    /// These operations wait: they let traffic pass from `other` to `sa`.
    pub(crate) fn defer(&mut self, sa: SaHandle, other: SaHandle, ops: Vec<Op>) {
        self.waiting.insert(sa, Waiting { other, ops });
    }

    /// Whether operations wait for this SA.
    pub(crate) fn is_waiting(&self, sa: SaHandle) -> bool {
        self.waiting.contains_key(&sa)
    }

    /// The operations that wait for this SA.
    pub(crate) fn take(&mut self, sa: SaHandle) -> Option<Vec<Op>> {
        self.waiting.remove(&sa).map(|waiting| waiting.ops)
    }

    /// The SAs whose switch has to come before these operations, because they take out or change what it is about. Forgets what goes.
    pub(crate) fn before(&mut self, ops: &[Op]) -> Vec<SaHandle> {
        let mut due = Vec::new();
        for op in ops {
            let (sa, policy) = match op {
                Op::RemoveSa(sa) | Op::UpdateSa { sa, .. } => (sa, None),
                // A successor inherits the policy: what waits would take it away again.
                Op::Activate { sa, policy } => (sa, Some(*policy)),
                Op::InstallSa(_)
                | Op::InstallPolicy(_)
                | Op::UpdatePolicy(_)
                | Op::RemovePolicy(_)
                | Op::InstallGuard(_)
                | Op::RemoveGuard(_)
                | Op::Flush => continue,
            };
            let concerns = |new: &SaHandle, waiting: &Waiting| {
                new == sa || waiting.other == *sa || policy.is_some_and(|policy| waiting.leads(policy))
            };
            due.extend(self.waiting.iter().filter(|(new, waiting)| concerns(new, waiting)).map(|(new, _)| *new));
            if let Op::RemoveSa(sa) = op {
                self.forget(*sa);
            }
        }
        due
    }

    fn forget(&mut self, sa: SaHandle) {
        let Some(name) = self.names.remove(&sa) else { return };
        if let Some(all) = self.in_use.get_mut(&name) {
            all.retain(|(other, _)| *other != sa);
            if all.is_empty() {
                self.in_use.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ipsec::Shard;

    use super::*;

    fn sa(number: u64) -> SaHandle {
        SaHandle::new(Shard(0), number)
    }

    fn switches() -> (Switches, Arc<str>, Arc<[SelectorPair]>) {
        let (name, pairs): (Arc<str>, Arc<[SelectorPair]>) = ("gw/net".into(), Vec::new().into());
        let mut switches = Switches::default();
        switches.takes(sa(1), &name, &pairs);
        (switches, name, pairs)
    }

    #[test]
    fn the_last_one_in_use_is_found_until_it_is_removed() {
        let (mut switches, name, pairs) = switches();
        switches.takes(sa(3), &name, &pairs);
        assert_eq!(switches.in_use(&name, &pairs), Some(sa(3)));
        assert_eq!(switches.in_use("gw/other", &pairs), None);
        assert!(switches.before(&[Op::RemoveSa(sa(3))]).is_empty());
        assert_eq!(switches.in_use(&name, &pairs), Some(sa(1)));
        switches.before(&[Op::RemoveSa(sa(1))]);
        assert_eq!(switches.in_use(&name, &pairs), None);
        assert!(switches.in_use.is_empty() && switches.names.is_empty());
    }

    #[test]
    fn what_touches_either_comes_after_the_switch() {
        for touched in [1, 3] {
            let (mut switches, ..) = switches();
            switches.defer(sa(3), sa(1), vec![Op::Flush]);
            assert!(switches.before(&[Op::RemoveSa(sa(5)), Op::Flush]).is_empty());
            assert_eq!(switches.before(&[Op::RemoveSa(sa(touched))]), [sa(3)]);
            assert!(matches!(switches.take(sa(3)).as_deref(), Some([Op::Flush])));
            assert!(switches.take(sa(3)).is_none());
        }
    }

    #[test]
    fn a_successor_takes_the_policy_after_the_switch() {
        let (mut switches, ..) = switches();
        let policy = |number| PolicyHandle::new(Shard(0), number);
        switches.defer(sa(3), sa(1), vec![Op::Activate { policy: policy(1), sa: sa(3) }]);
        assert!(switches.before(&[Op::Activate { policy: policy(2), sa: sa(5) }]).is_empty());
        assert_eq!(switches.before(&[Op::Activate { policy: policy(1), sa: sa(5) }]), [sa(3)]);
    }
}
