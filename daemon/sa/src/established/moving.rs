//! Moving an IKE SA and its CHILD SAs to another way: when the network has changed, when a repeated request is answered elsewhere, when the
//! peer or a NAT between has moved.

use std::net::{IpAddr, SocketAddr};

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ipsec::{DeviceId, OuterAddresses, Path, SaMode, UdpEncapsulation};

use crate::core::Core;
use crate::established::{Active, Authenticated, Intent, Standing};
use crate::exchange::mobike::{self, Errand};
use crate::mobility;
use crate::nat::Nat;
use crate::negotiation::ChildRequest;
use crate::notice::Notice;
use crate::turn::{Purpose, Turn, device_for};
use crate::work::Job;

impl Authenticated {
    /// From now on this is the way to the peer. CHILD SAs are left where they are.
    pub(crate) fn switch(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
        if path == core.path {
            return;
        }
        let ike = Box::new(self.snapshot_due(core, turn));
        tracing::info!(conn = core.connection.name, ike = core.unique_id, peer = %path.remote, "IKE SA moves from {} - {} to {} - {}", core.path.local, core.path.remote, path.local, path.remote);
        turn.event(EventBody::IkeSaUpdated { ike, path });
        turn.notices.push_back(Notice::Moved { spi: core.spi().0, from: core.path, to: path });
        self.left = Some(core.path);
        core.path = path;
    }

    /// Moves the CHILD SAs to the way of the IKE SA; `confirmed` = the peer uses it too.
    ///
    /// A backend that cannot move an SA in place would have to install its key again with a sequence that starts over, which no AEAD survives:
    /// there the CHILD SA is rekeyed instead, make-before-break, once the peer can be reached on the new way.
    pub(crate) fn move_children(&mut self, core: &mut Core, turn: &mut Turn<'_>, confirmed: bool) {
        let path = core.path;
        let outer = OuterAddresses { local: path.local.ip(), remote: path.remote.ip() };
        let encapsulation = core.nat.encapsulation(path);
        let device = device_for(turn.context, path);
        let (mut stuck, mut bound) = (Vec::new(), Vec::new());
        for child in &mut self.children {
            if (child.outer, child.encapsulation) == (outer, encapsulation) {
                continue;
            }
            if child.mode == SaMode::Transport && child.outer != outer {
                bound.extend(confirmed.then_some(child.unique_id));
                continue;
            }
            if device == Some(child.device) && can_move(turn, child.device) {
                let ops = child.move_ops(turn.ids, outer, encapsulation);
                turn.apply(ops, Purpose::Move(child.unique_id));
            } else if confirmed && child.state == ChildSaState::Installed {
                stuck.push(child.unique_id);
            }
        }
        for unique_id in stuck {
            self.intend_rekey(unique_id);
        }
        bound.into_iter().for_each(|unique_id| self.make_anew(core, turn, unique_id));
    }

    /// A CHILD SA in transport mode is bound to its addresses: what moves is another one. The end that has noticed makes it, and where both have,
    /// the initiator of the IKE SA.
    fn make_anew(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        let Some(child) = self.child(unique_id).filter(|child| child.is_up() && !child.is_closing()) else { return };
        let request = ChildRequest::again(child);
        let text = "an address has changed, and a CHILD SA in transport mode is bound to its addresses";
        self.close_child(core, turn, unique_id, Cause::new(CauseKind::NoAddress, text));
        let alone = core.nat.local != core.nat.remote && !core.mobility.agreed;
        let initiator = if core.mobility.agreed { core.mobility.decides } else { core.initiator };
        if if alone { core.nat.remote } else { initiator } {
            self.intend(core, turn, Intent::CreateChild(request));
        }
    }

    /// Queues the rekeying of a CHILD SA behind what is to be said about addresses.
    fn intend_rekey(&mut self, unique_id: u32) {
        if !self.intents.iter().any(|intent| matches!(intent, Intent::RekeyChild(id) if *id == unique_id)) {
            self.intents.push_back(Intent::RekeyChild(unique_id));
        }
    }

    //= RFC 4555 §3.5: the IKE SA is updated, then the CHILD SAs, outstanding requests are repeated on the new way, UPDATE_SA_ADDRESSES follows
    /// As the end that decides: uses another way and tells the peer.
    pub(crate) fn move_to(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
        self.switch(core, turn, path);
        if core.mobility.is_verified(path.remote.ip()) {
            self.move_children(core, turn, false);
        }
        self.say_first(Errand::Update);
        core.resend(turn);
    }

    /// Queues what is to be said about addresses before everything else.
    pub(crate) fn say_first(&mut self, errand: Errand) {
        self.intents.retain(|intent| !matches!(intent, Intent::Mobike(other) if *other == errand));
        self.intents.push_front(Intent::Mobike(errand));
    }

    /// A request was answered on this way after it was sent on several: that one works.
    pub(crate) fn answered_on(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
        if core.mobility.agreed && core.mobility.decides && path != core.path {
            self.move_to(core, turn, path);
        }
    }

    //= RFC 4555 §3.11: the initiator finds out that a way has failed and looks for another
    /// The driver says that addresses or routes have changed, or the peer does not answer: which ways are there?
    pub(crate) fn look_for_ways(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if matches!(self.standing, Standing::Undecided | Standing::Redundant) || self.finished {
            return;
        }
        let locals = mobility::ours(core, turn.registry);
        let remotes = mobility::theirs(core);
        core.mobility.refused.clear();
        core.mobility.looking = Some(turn.work(core.spi(), Job::Routes { locals, remotes }));
    }

    /// These pairs of addresses have a route, the best first.
    pub(crate) fn on_ways(&mut self, core: &mut Core, turn: &mut Turn<'_>, pairs: Vec<(IpAddr, IpAddr)>) {
        core.mobility.looking = None;
        core.mobility.pairs = pairs;
        let in_use = (core.path.local.ip(), core.path.remote.ip());
        if core.mobility.pairs.contains(&in_use) {
            let ours = mobility::ours(core, turn.registry);
            if core.mobility.agreed && !mobike::same_addresses(&core.mobility.told, &ours) {
                self.intend(core, turn, Intent::Mobike(Errand::Announce));
            }
            return;
        }
        // Without any way at all the IKE SA waits: the next change of the network may bring one.
        let Some(best) = core.mobility.pairs.first().map(|pair| mobility::way(core.path, *pair)) else { return };
        if self.standing != Standing::Up {
            // All that is still to be said is that it ends.
            core.path = best;
            return core.resend(turn);
        }
        match (core.mobility.agreed, core.mobility.decides) {
            (true, true) => self.move_to(core, turn, best),
            (true, false) => self.lost_address(core, turn, best),
            (false, true) => self.start_over(core, turn, best),
            //= RFC 7296 §2.11: without MOBIKE it is for the initiator to begin afresh
            (false, false) => {}
        }
        self.advance(core, turn);
    }

    //= RFC 4555 §3.5: the one case in which the responder updates by itself: its own address has become unavailable
    fn lost_address(&mut self, core: &mut Core, turn: &mut Turn<'_>, best: Path) {
        self.switch(core, turn, best);
        if core.mobility.is_verified(best.remote.ip()) {
            self.move_children(core, turn, false);
        }
        self.say_first(Errand::Announce);
        core.resend(turn);
    }

    /// Without MOBIKE only a new IKE SA can use the new address; what is said on the old one goes from there too.
    fn start_over(&mut self, core: &mut Core, turn: &mut Turn<'_>, best: Path) {
        core.path = best;
        core.resend(turn);
        turn.notices.push_back(Notice::Reauthenticate { spi: core.spi().0 });
    }

    /// An authentic message or packet came this way: the peer behind a NAT, which alone can change its mapping, is reached there now.
    pub(crate) fn follow_mapping(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
        if path != core.path && core.nat.remote && !core.nat.local && !core.mobility.agreed {
            self.switch(core, turn, path);
            self.move_children(core, turn, true);
            core.resend(turn);
        }
    }

    /// An authentic ESP packet of the peer came from another address or port.
    pub(crate) fn on_mapping_change(&mut self, core: &mut Core, turn: &mut Turn<'_>, remote: SocketAddr) {
        if core.path.remote == remote || !core.nat.remote || core.nat.local {
            return;
        }
        if !core.mobility.agreed {
            return self.follow_mapping(core, turn, Path { remote, ..core.path });
        }
        //= RFC 4555 §3.5: with MOBIKE the initiator decides; it learns of its new mapping by a request that reaches it there
        if !core.mobility.decides && !matches!(self.active, Some(Active::Mobike(_))) {
            self.intents.retain(|intent| !matches!(intent, Intent::Mobike(Errand::Mapping(_))));
            self.intend(core, turn, Intent::Mobike(Errand::Mapping(remote)));
        }
    }

    /// The peer sends ESP in the other form than we do: we follow it, where the backend can.
    pub(crate) fn follow_form(&mut self, turn: &mut Turn<'_>, unique_id: u32, encapsulation: Option<UdpEncapsulation>) {
        let Some(child) = self.child_mut(unique_id) else { return };
        if can_move(turn, child.device) {
            let ops = child.move_ops(turn.ids, child.outer, encapsulation);
            turn.apply(ops, Purpose::Remove);
        }
    }

    /// The peer was reached on this way by whom it replaces.
    pub(crate) fn follow_predecessor(&mut self, core: &mut Core, turn: &mut Turn<'_>, path: Path, nat: Nat) {
        core.nat = nat;
        self.switch(core, turn, path);
        self.move_children(core, turn, true);
        core.resend(turn);
    }

    /// The backend could not move a CHILD SA: it is made again with fresh keys.
    pub(crate) fn move_failed(&mut self, core: &mut Core, turn: &mut Turn<'_>, unique_id: u32) {
        self.rekey_child(core, turn, unique_id);
    }
}

/// Whether a device moves an SA without touching its sequence number and replay window.
fn can_move(turn: &Turn<'_>, device: DeviceId) -> bool {
    turn.context
        .devices
        .get(device)
        .is_some_and(|device| device.rungs.iter().all(|rung| rung.capabilities.in_place_move))
}
