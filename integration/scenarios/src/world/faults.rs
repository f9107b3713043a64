//! Where a [`Sabotage`] takes hold.

use std::time::Duration;

use ike_model::{CommandId, EventBody};
use ike_wire::Header;
use ike_wire::ids::{ExchangeType, NotifyType};
use ipsec::{Direction, Op, PolicyAction, Request, SaHandle};

use super::World;
use crate::Who;
use crate::journal::Sent;
use crate::meaning::Meaning;
use crate::sabotage::Sabotage;

/// Of what happens often, every so many.
const EVERY: u64 = 5;

impl World {
    /// Plants a fault.
    pub fn sabotage(&mut self, sabotage: Sabotage) {
        self.sabotage = Some(sabotage);
    }

    fn sabotaged_by(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    pub(super) fn sabotaged_request(&self, who: Who, request: Request) -> Request {
        match (request, self.sabotage) {
            (Request::Apply(ops), Some(Sabotage::DropOldInbound)) => Request::Apply(self.without_old_inbound(who, ops)),
            (Request::Apply(ops), Some(Sabotage::SwitchEarly)) => Request::Apply(self.switched(who, ops)),
            (Request::Apply(mut ops), Some(Sabotage::KeepRemoved)) => {
                ops.retain(|op| !matches!(op, Op::RemoveSa(_)));
                Request::Apply(ops)
            }
            (request, _) => request,
        }
    }

    /// Removes the other inbound SAs of the name whose outbound SA is activated.
    fn without_old_inbound(&self, who: Who, mut ops: Vec<Op>) -> Vec<Op> {
        let activated = ops.iter().find_map(|op| if let Op::Activate { sa, .. } = op { Some(*sa) } else { None });
        let Some(activated) = activated else { return ops };
        let old: Vec<SaHandle> = self.gateways[who].with_tables(|tables| {
            let Some(new) = tables.sas.get(&activated) else { return Vec::new() };
            let inbound = tables.sas.values().filter(|sa| sa.direction == Direction::Inbound && sa.name == new.name);
            let newest = inbound.clone().map(|sa| sa.handle).max();
            inbound.map(|sa| sa.handle).filter(|handle| Some(*handle) != newest).collect()
        });
        ops.extend(old.into_iter().map(Op::RemoveSa));
        ops
    }

    /// Activates what is installed, on the policies of its name.
    fn switched(&self, who: Who, mut ops: Vec<Op>) -> Vec<Op> {
        let outbound = |op: &Op| {
            let Op::InstallSa(sa) = op else { return None };
            (sa.direction == Direction::Outbound).then(|| (sa.handle, sa.name.clone()))
        };
        let installed = ops.iter().find_map(outbound);
        let Some((sa, name)) = installed else { return ops };
        let policies: Vec<_> = self.gateways[who].with_tables(|tables| {
            let outbound = tables.policies.values().filter(|policy| {
                policy.direction == Direction::Outbound
                    && policy.name == name
                    && matches!(policy.action, PolicyAction::Protect { .. })
            });
            outbound.map(|policy| policy.handle).collect()
        });
        ops.extend(policies.into_iter().map(|policy| Op::Activate { policy, sa }));
        ops
    }

    pub(super) fn sabotaged_datagram(&self, again: bool, header: &Header, mut octets: Vec<u8>) -> Vec<u8> {
        if self.sabotaged_by(Sabotage::ChangedRepetition)
            && again
            && header.exchange != ExchangeType::IKE_SA_INIT
            && let Some(last) = octets.last_mut()
        {
            *last ^= 1;
        }
        octets
    }

    pub(super) fn sabotaged_arrival(&mut self, to: Who, sent: &Sent) {
        let refused = Meaning::Refused(NotifyType::TEMPORARY_FAILURE);
        if self.sabotaged_by(Sabotage::NoWait) && sent.meaning == refused {
            self.hurry = Some(to);
        }
    }

    /// After TEMPORARY_FAILURE was handled, the gateway's clock runs ahead.
    pub(super) fn hurry_on(&mut self) {
        if let Some(who) = self.hurry.take() {
            self.gateways[who].skew += Duration::from_secs(16);
        }
    }

    pub(super) fn ignores(&self, sent: Option<&Sent>) -> bool {
        self.sabotaged_by(Sabotage::IgnoreDelete)
            && sent.is_some_and(|sent| !sent.is_response() && matches!(sent.meaning, Meaning::DeleteChildren(_)))
    }

    pub(super) fn times_told(&self, body: &EventBody) -> usize {
        match self.sabotage {
            Some(Sabotage::RepeatEvent) if self.count.is_multiple_of(EVERY) => 2,
            Some(Sabotage::SilentClose) if matches!(body, EventBody::ChildSaClosed { .. }) => 0,
            Some(Sabotage::SilentRemoval) if matches!(body, EventBody::ChildSaRemoved { .. }) => 0,
            Some(_) | None => 1,
        }
    }

    pub(super) fn forgets_reply(&self, id: CommandId) -> bool {
        self.sabotaged_by(Sabotage::ForgetReply) && id.0.is_multiple_of(EVERY)
    }
}
