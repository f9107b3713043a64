//! CHILD SAs that their device does not hold any more.

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ipsec::DeviceId;

use crate::core::Core;
use crate::established::Authenticated;
use crate::negotiation::not_up;
use crate::turn::Turn;

impl Authenticated {
    //= RFC 7296 §1.4.1: an SA that one end has not got any more is deleted at the other
    /// The device does not hold a CHILD SA any more: it is closed with the peer and made again with fresh keys. Told once.
    pub(crate) fn state_lost(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child_mut(unique_id).filter(|child| !child.lost) else { return };
        let cause = lost(turn, child.device);
        if child.state == ChildSaState::Installing {
            // Nobody knows whether it was lost or comes after the loss: it goes once the backend has answered.
            child.cause.get_or_insert(cause);
            return;
        }
        child.lost = true;
        if child.state == ChildSaState::Deleted && child.successor.is_some() {
            // Only stragglers could have come on it.
            return self.remove_child(core, turn, unique_id, None);
        }
        let (snapshot, up) = (Box::new(child.snapshot(turn.now(), turn.ids.shard())), child.is_up());
        let ike = Box::new(self.snapshot_due(core, turn));
        turn.event(EventBody::StateLost { ike, child: snapshot });
        // With an IKE SA that is being closed it goes anyway, for another reason.
        if up && self.cause.is_none() {
            self.close_child(core, turn, unique_id, cause);
        }
    }
}

fn lost(turn: &Turn<'_>, device: DeviceId) -> Cause {
    let why = turn.context.devices.get(device).and_then(not_up);
    Cause::new(CauseKind::DeviceLost, why.unwrap_or_else(|| "the device does not hold it any more".to_owned()))
}
