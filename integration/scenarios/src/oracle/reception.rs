//! Whether each end receives on what the other sends, however many commands, losses and failures there are (invariants 2 and 3).
//!
//! An end that has lost its IKE SA (silence of the peer, a restart, its own close) cannot tell the other, so what it received may end. As long
//! as it has the IKE SA, nothing that the other end sends on goes without an exchange, except at a hard limit or with the device.

use std::collections::{BTreeMap, BTreeSet};

use ike_model::{EventBody, IkeSaSnapshot};
use ipsec::recording::Tables;
use ipsec::{Direction, PolicyAction, PolicyHandle, SaHandle, SaSpec, Spi};

use super::Violation;
use crate::Who;

/// What is remembered of who receives what.
#[derive(Default)]
pub(crate) struct Reception {
    /// Outbound SAs that the other end has received on at some time.
    received: BTreeSet<(Who, SaHandle)>,
    /// The SA that an outbound policy used when it was last looked at.
    using: BTreeMap<(Who, PolicyHandle), SaHandle>,
    /// The IKE SA that owns an inbound SA.
    owners: BTreeMap<(Who, Spi), u32>,
    /// Inbound SAs that may go without the other end's knowledge.
    excused: BTreeSet<(Who, Spi)>,
    /// Outbound SAs that may be left for one which the other end does not receive on yet.
    left: BTreeSet<(Who, SaHandle)>,
    /// Inbound SAs whose CHILD SA was rekeyed.
    rekeyed: BTreeSet<(Who, Spi)>,
}

/// An SA that an outbound policy uses.
pub(crate) struct InUse<'t> {
    pub(crate) policy: PolicyHandle,
    pub(crate) sa: &'t SaSpec,
}

/// The SAs that outbound policies use.
pub(crate) fn in_use(tables: &Tables) -> Result<Vec<InUse<'_>>, String> {
    let mut found = Vec::new();
    for policy in tables.policies.values().filter(|policy| policy.direction == Direction::Outbound) {
        let PolicyAction::Protect { sa: Some(handle), .. } = &policy.action else { continue };
        let Some(sa) = tables.sas.get(handle) else {
            return Err(format!("has a policy of {} that uses an SA which is not there", policy.name));
        };
        found.push(InUse { policy: policy.handle, sa });
    }
    Ok(found)
}

impl Reception {
    /// A gateway has lost its memory.
    pub(super) fn restarted(&mut self, who: Who) {
        self.received.retain(|(owner, _)| *owner != who);
        self.using.retain(|(owner, _), _| *owner != who);
        self.owners.retain(|(owner, _), _| *owner != who);
        self.left.retain(|(owner, _)| *owner != who);
    }

    /// An event is told.
    pub(super) fn told(&mut self, who: Who, body: &EventBody) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for the few events that excuse something")]
        match body {
            EventBody::ChildSaHardExpired { child, .. } | EventBody::StateLost { child, .. } => {
                self.excused.extend(child.spi_in.map(|spi| (who, spi)));
                self.left.extend(child.sa_out.map(|sa| (who, sa)));
            }
            EventBody::ChildSaRekeyed { old, .. } => self.rekeyed.extend(old.spi_in.map(|spi| (who, spi))),
            _ => {}
        }
    }

    /// The clock of a gateway has jumped, or its device has lost its tables: nothing that it receives on is certain to stay.
    pub(super) fn unsettled(&mut self, who: Who) {
        self.excused.extend(self.owners.keys().filter(|(owner, _)| *owner == who));
        let using = self.using.iter().filter(|((owner, _), _)| *owner == who);
        self.left.extend(using.map(|((owner, _), sa)| (*owner, *sa)));
    }

    /// What a gateway has at this moment.
    pub(crate) fn owned(&mut self, who: Who, ike_sas: &[IkeSaSnapshot]) {
        for ike in ike_sas {
            for spi in ike.children.iter().filter_map(|child| child.spi_in) {
                self.owners.insert((who, spi), ike.unique_id);
            }
        }
    }

    /// `sender` uses an SA; `receives` says on which SAs the other end receives what the sender would send on it.
    pub(crate) fn used(
        &mut self,
        (sender, receiver): (Who, Who),
        used: &InUse<'_>,
        receives: impl Fn(SaHandle) -> bool,
        alive: impl Fn(u32) -> bool,
    ) -> Violation {
        let handle = used.sa.handle;
        if receives(handle) {
            self.received.insert((sender, handle));
            self.using.insert((sender, used.policy), handle);
            return Ok(());
        }
        if self.received.contains(&(sender, handle)) {
            return match self.must_receive(receiver, used.sa.spi, alive) {
                true => Err(format!("sends {} on SPI {}, which was taken away", used.sa.name, used.sa.spi)),
                false => Ok(()),
            };
        }
        let before = self.using.get(&(sender, used.policy)).copied();
        match before.filter(|old| *old != handle && receives(*old) && !self.left.contains(&(sender, *old))) {
            Some(_) => Err(format!("switches {} to SPI {}, which is not there yet", used.sa.name, used.sa.spi)),
            None => Ok(()),
        }
    }

    /// Whether an inbound SA may not go without the other end's knowledge.
    fn must_receive(&self, who: Who, spi: Spi, alive: impl Fn(u32) -> bool) -> bool {
        !self.excused.contains(&(who, spi)) && self.owners.get(&(who, spi)).is_some_and(|ike| alive(*ike))
    }

    /// A packet came for which there is no SA.
    pub(crate) fn missed(&self, who: Who, spi: Spi, alive: impl Fn(u32) -> bool) -> Violation {
        if self.rekeyed.contains(&(who, spi)) && self.must_receive(who, spi, alive) {
            return Err(format!("a packet on SPI {spi}, whose CHILD SA was rekeyed, is lost"));
        }
        Ok(())
    }
}
