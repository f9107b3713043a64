//! What is known of each configured child, and of its trap or shunt.

use std::collections::BTreeMap;
use std::sync::Arc;

use ike_model::snapshot::PolicySnapshot;
use ike_model::{Cause, CauseKind, Child, Connection, DrawnTags};
use ipsec::{DeviceId, Instant, PolicyHandle, PolicySpec, Reqid, SelectorPair};

use crate::admission::Claim;
use crate::ladder::Ladder;

/// A configured child.
#[derive(Debug)]
pub(in crate::endpoint) struct Keeper {
    pub(in crate::endpoint) connection: Arc<Connection>,
    pub(in crate::endpoint) child: Arc<Child>,
    /// It is to be up.
    pub(in crate::endpoint) wanted: bool,
    /// Failures in a row.
    pub(in crate::endpoint) failures: u32,
    /// Failures before it came up: they count again should it not last.
    pub(super) failures_before: u32,
    /// Since when it is up.
    pub(super) up_since: Option<Instant>,
    /// Traffic does not ask for it again before this.
    pub(in crate::endpoint) not_before: Option<Instant>,
    /// Its deadline is a place in the pace of attempts, not a wait after a failure.
    pub(super) placed: bool,
    pub(in crate::endpoint) last_cause: Option<(u64, Cause)>,
    /// How often it is up in other shards.
    pub(in crate::endpoint) up_elsewhere: u32,
    pub(in crate::endpoint) trap: Trap,
    /// Group of its trap.
    pub(in crate::endpoint) reqid: Option<Reqid>,
    /// Marks and interface ids of its trap.
    pub(in crate::endpoint) tags: Option<DrawnTags>,
}

/// The trap or shunt of a configured child.
#[derive(Debug, Default)]
pub(in crate::endpoint) enum Trap {
    /// There is none.
    #[default]
    Absent,
    /// It is installed, or being installed.
    Present {
        /// Its policies, as they were installed.
        policies: Vec<PolicySpec>,
        /// What they match.
        pairs: Vec<SelectorPair>,
        /// The backend has said yes.
        confirmed: bool,
        /// Where it is.
        rungs: Box<Rungs>,
    },
    /// The backend refused it.
    Refused(String),
    /// Its device is not there; it is installed when one is.
    Waiting(String),
}

impl Keeper {
    /// Whether it is to be up and its last attempt failed for one of these reasons.
    pub(in crate::endpoint) fn waits_because_of(&self, causes: &[CauseKind]) -> bool {
        self.wanted && !self.placed && self.failed_because_of(causes)
    }

    /// Failures for one of these reasons say nothing about the next attempt. Gives whether there were any.
    pub(in crate::endpoint) fn begin_anew(&mut self, causes: &[CauseKind]) -> bool {
        let anew = self.failed_because_of(causes);
        if anew {
            self.failures = 0;
            self.not_before = None;
        }
        anew
    }

    fn failed_because_of(&self, causes: &[CauseKind]) -> bool {
        self.last_cause.as_ref().is_some_and(|(_, cause)| causes.contains(&cause.kind))
    }
}

/// The device that a trap or shunt is installed on.
#[derive(Debug)]
pub(in crate::endpoint) struct Rungs {
    pub(in crate::endpoint) device: DeviceId,
    /// Rungs that are left to try.
    pub(in crate::endpoint) ladder: Ladder,
    /// The rung in use, and the entries that are taken there.
    pub(in crate::endpoint) claim: Claim,
}

/// All configured children whose connections have their home here.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Keepers {
    pub(in crate::endpoint) by_number: BTreeMap<u32, Keeper>,
    numbers: BTreeMap<(String, String), u32>,
    pub(in crate::endpoint) by_policy: BTreeMap<PolicyHandle, u32>,
    next: u32,
}

impl Keepers {
    /// The number of a child's keeper, which is made when there is none.
    pub(in crate::endpoint) fn number(&mut self, connection: &Arc<Connection>, child: &Arc<Child>) -> u32 {
        let key = (connection.name.clone(), child.name.clone());
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        self.next = self.next.saturating_add(1);
        let keeper = Keeper {
            connection: connection.clone(),
            child: child.clone(),
            wanted: false,
            failures: 0,
            failures_before: 0,
            up_since: None,
            not_before: None,
            placed: false,
            last_cause: None,
            up_elsewhere: 0,
            trap: Trap::Absent,
            reqid: None,
            tags: None,
        };
        self.numbers.insert(key, self.next);
        self.by_number.insert(self.next, keeper);
        self.next
    }

    /// The number of a child's keeper, if there is one.
    pub(in crate::endpoint) fn find(&self, connection: &str, child: &str) -> Option<u32> {
        self.numbers.get(&(connection.to_owned(), child.to_owned())).copied()
    }

    /// The numbers of the keepers of a connection's children.
    pub(in crate::endpoint) fn of(&self, connection: &str) -> impl Iterator<Item = u32> {
        let first = (connection.to_owned(), String::new());
        self.numbers.range(first..).take_while(move |((name, _), _)| name == connection).map(|(_, number)| *number)
    }

    /// Forgets a child.
    pub(in crate::endpoint) fn forget(&mut self, connection: &str, child: &str) -> Option<Keeper> {
        let number = self.numbers.remove(&(connection.to_owned(), child.to_owned()))?;
        let keeper = self.by_number.remove(&number)?;
        if let Trap::Present { policies, .. } = &keeper.trap {
            for policy in policies {
                self.by_policy.remove(&policy.handle);
            }
        }
        Some(keeper)
    }

    /// Traps and shunts for users.
    pub(in crate::endpoint) fn policies(&self) -> Vec<PolicySnapshot> {
        let shown = |(number, keeper): (&u32, &Keeper)| match &keeper.trap {
            Trap::Present { pairs, confirmed: true, .. } => Some(PolicySnapshot {
                number: *number,
                connection: keeper.connection.name.as_str().into(),
                child: keeper.child.name.as_str().into(),
                mode: keeper.child.mode,
                local_ts: unique(pairs.iter().map(|pair| pair.local)),
                remote_ts: unique(pairs.iter().map(|pair| pair.remote)),
            }),
            Trap::Present { .. } | Trap::Absent | Trap::Refused(_) | Trap::Waiting(_) => None,
        };
        self.by_number.iter().filter_map(shown).collect()
    }
}

fn unique(selectors: impl Iterator<Item = ipsec::TrafficSelector>) -> Vec<ipsec::TrafficSelector> {
    let mut out = Vec::new();
    selectors.for_each(|selector| {
        if !out.contains(&selector) {
            out.push(selector);
        }
    });
    out
}
