//! Agreeing on a CHILD SA: what we offer, what we accept, what we answer (RFC 7296 §1.2, §1.3.1, §2.7, §2.9).
//!
//! Shared by IKE_AUTH, CREATE_CHILD_SA and the rekeying of CHILD SAs. The caller adds nonces and key exchange.

use std::sync::Arc;

use ike_model::{Child, ChildMode, Connection, DrawnTags};
use ike_wire::ids::{KeyExchangeId, NotifyType};
use ike_wire::{Notify, Payload, Payloads, Proposal, SecurityAssociation, TrafficSelectors};
use ipsec::selector::narrow;
use ipsec::{
    Device, DeviceId, DeviceState, OuterAddresses, PacketSelectors, Reqid, SaMode, SelectorPair, Spi, TrafficSelector,
};

use crate::admission::Claim;
use crate::children::{Agreement, ChildSa};
use crate::core::Core;
use crate::directory::Wish;
use crate::error::Error;
use crate::ladder;
use crate::say::say;
use crate::selectors;
use crate::suite::{self, ChildKeyExchange, Chosen, EspSuite};
use crate::transport::{self, Seen};
use crate::turn::{Turn, device_for};

/// A child that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct ChildRequest {
    /// Configuration.
    pub(crate) child: Arc<Child>,
    /// The packet that asked for it.
    pub(crate) packet: Option<PacketSelectors>,
    /// A command or a packet has asked for it; otherwise only its configuration does.
    pub(crate) asked: bool,
    /// The group of its trap, where there is one.
    pub(crate) reqid: Option<Reqid>,
    /// Marks and interface ids of its trap, where there is one.
    pub(crate) tags: Option<DrawnTags>,
}

impl ChildRequest {
    /// The child of this CHILD SA once more.
    pub(crate) fn again(sa: &ChildSa) -> Self {
        Self { child: sa.config.clone(), packet: None, asked: false, reqid: Some(sa.reqid), tags: None }
    }

    /// Who asks for it, should it be asked for anew.
    pub(crate) fn wish(&self) -> Wish {
        if self.asked { Wish::Again } else { Wish::Configured }
    }

    /// Whether only a start action has asked for it, which the child has not any more as it is configured now.
    pub(crate) fn lapses(&self, now: &Child) -> bool {
        !self.asked && self.child.start_action.start && !now.start_action.start
    }

    /// The same child as it is configured now; `Err` = it is not configured any more.
    pub(crate) fn renewed(mut self, connection: &ike_model::Connection) -> Result<Self, Self> {
        match connection.child(&self.child.name) {
            Some(current) => {
                self.child = current.clone();
                Ok(self)
            }
            None => Err(self),
        }
    }
}

/// Local and remote selectors.
type Pair = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// What we have offered.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) request: ChildRequest,
    /// Of the CHILD SA that it may become.
    unique_id: u32,
    reqid: Reqid,
    device: DeviceId,
    spi: Spi,
    proposals: Vec<Proposal>,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    mode: SaMode,
    exchange: ChildKeyExchange,
    /// Entries of the device that it is going to take; passes to what is agreed on.
    claim: Option<Claim>,
}

/// What we have agreed to as responder.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The agreement.
    pub(crate) agreed: Agreement,
    /// Number of the proposal chosen.
    pub(crate) number: u8,
}

fn device(turn: &Turn<'_>, core: &Core) -> Result<DeviceId, Error> {
    let found = device_for(turn.context, core.path)
        .ok_or_else(|| Error::NoAdditionalSas(format!("no device carries traffic to {}", core.path.remote.ip())))?;
    match turn.context.devices.get(found).and_then(not_up) {
        Some(why) => Err(Error::DeviceDown(why)),
        None => Ok(found),
    }
}

/// Why a device carries nothing now, if it does not.
pub(crate) fn not_up(device: &Device) -> Option<String> {
    match device.state {
        DeviceState::Up => None,
        DeviceState::Down => Some(format!("device {} is down", device.name)),
        DeviceState::Gone => Some(format!("device {} was removed", device.name)),
    }
}

fn reserve(turn: &Turn<'_>, device: DeviceId) -> Result<Spi, Error> {
    turn.context.spis.reserve_spi(device).map_err(|full| Error::NoAdditionalSas(full.to_string()))
}

impl Offer {
    /// What we offer for a child; when it replaces one, with the selectors of that one.
    pub(crate) fn new(
        turn: &mut Turn<'_>,
        core: &Core,
        request: ChildRequest,
        rekeys: Option<&ChildSa>,
        exchange: ChildKeyExchange,
    ) -> Result<Self, Error> {
        let device = device(turn, core)?;
        //= RFC 7296 §1.3.3: a rekeyed CHILD SA has the mode and the selectors of the old one
        let (mode, (local, remote)) = match rekeys {
            Some(old) => (old.mode, (old.local_ts.to_vec(), old.remote_ts.to_vec())),
            None => {
                let mode = transport::mode(&request.child);
                (mode, offered_selectors(core, &request, mode)?)
            }
        };
        let child = &request.child;
        let pairs = match rekeys {
            Some(old) => old.pairs.to_vec(),
            None => ladder::pairs_between(child, mode, transport::outer(core.path)),
        };
        let wanted = ladder::wanted(turn, core, device, child, (mode, &pairs), rekeys)?;
        let (rungs, provider) = (wanted.capabilities(), turn.context.provider);
        let spi = reserve(turn, device)?;
        let proposals = suite::offer_esp(&child.esp_proposals, &rungs, provider, spi, exchange);
        if proposals.is_empty() {
            turn.context.spis.release_spi(device, spi);
            let theirs = "what this build can do".to_owned();
            let ours = suite::describe_esp(&child.esp_proposals, &rungs, provider, exchange);
            return Err(Error::NoProposal { ours, theirs, difference: String::new() });
        }
        let fixed = request.reqid.or(child.reqid.map(Reqid));
        let reqid = rekeys.map(|old| old.reqid).or(fixed).unwrap_or_else(|| turn.ids.reqid());
        let claim = Some(wanted.claim);
        let unique_id = turn.ids.child();
        Ok(Self { unique_id, reqid, device, spi, proposals, local, remote, mode, exchange, request, claim })
    }

    /// Tells that it is offered.
    pub(crate) fn say_begun(&self, core: &Core) {
        say!(TRACE, "CFG 2", core, "proposing traffic selectors: {}", describe_pair(&self.local, &self.remote));
        say!(TRACE, "CFG 2", core, "configured proposals: {}", suite::describe(&self.proposals));
        say!(DEBUG, "IKE 0", core, "establishing CHILD_SA {}{{{}}}", self.request.child.name, self.unique_id);
    }

    /// SA payload.
    pub(crate) fn sa(&self) -> Payload<'static> {
        Payload::Sa(SecurityAssociation::new(self.proposals.clone()))
    }

    /// TSi, TSr and what goes with them.
    pub(crate) fn selectors(&self) -> Vec<Payload<'static>> {
        let mut payloads = vec![
            Payload::TsInitiator(selectors::to_wire(&self.local)),
            Payload::TsResponder(selectors::to_wire(&self.remote)),
        ];
        if self.mode == SaMode::Transport {
            payloads.push(Payload::Notify(Notify::plain(NotifyType::USE_TRANSPORT_MODE)));
        }
        payloads
    }

    /// Our SPI.
    pub(crate) fn spi(&self) -> Spi {
        self.spi
    }

    /// Nothing came of it.
    pub(crate) fn release(self, turn: &Turn<'_>) -> ChildRequest {
        turn.context.spis.release_spi(self.device, self.spi);
        self.request
    }

    /// What the responder's answer agrees to. Can be asked once.
    pub(crate) fn accept(&mut self, turn: &Turn<'_>, core: &Core, payloads: &Payloads<'_>) -> Result<Agreement, Error> {
        let (sa, ts_i, ts_r) = child_payloads(payloads)?;
        let [proposal] = sa.proposals.as_slice() else {
            return Err(Error::PeerMisbehaved("the answer does not hold exactly one ESP proposal"));
        };
        let chosen = self.choose(turn, std::slice::from_ref(proposal), None);
        say!(TRACE, "CFG 2", core, "received proposals: {}", suite::describe(&sa.proposals));
        let chosen = chosen.ok_or_else(|| self.no_proposal(&sa.proposals))?;
        say!(DEBUG, "CFG 1", core, "selected proposal: {proposal}");
        let transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        let Seen { local, remote, peer_view } = self.answered(core, transport, ts_i, ts_r)?;
        if !selectors::is_subset(&local, &self.local) || !selectors::is_subset(&remote, &self.remote) {
            return Err(Error::SelectorsUnacceptable {
                ours: describe_pair(&self.local, &self.remote),
                theirs: describe_pair(&local, &remote),
                difference: "; the answer may only narrow what was offered".into(),
            });
        }
        let (local_ts, remote_ts) = (narrow(&local, &self.local), narrow(&remote, &self.remote));
        say!(TRACE, "CFG 2", core, "selected traffic selectors: {}", describe_pair(&local_ts, &remote_ts));
        let mut claim = self.claim.take().ok_or(Error::PeerMisbehaved("a second answer to one offer"))?;
        let what = (self.mode, chosen.suite, &*SelectorPair::product(&local_ts, &remote_ts));
        let ladder = ladder::agreed(turn, core, self.device, &self.request.child, what, &mut claim)?;
        Ok(Agreement {
            unique_id: self.unique_id,
            child: self.request.child.clone(),
            reqid: self.reqid,
            device: self.device,
            spi_in: self.spi,
            spi_out: chosen.spi,
            suite: chosen.suite,
            local_ts,
            remote_ts,
            mode: self.mode,
            peer_view,
            tags: self.request.tags,
            ladder,
            claim,
        })
    }

    /// The selectors of the answer as we see them, if its mode is the one offered.
    //= RFC 7296 §1.3.1: without USE_TRANSPORT_MODE in the answer it is tunnel mode; what is not acceptable is deleted
    fn answered(
        &self,
        core: &Core,
        transport: bool,
        ts_i: &TrafficSelectors,
        ts_r: &TrafficSelectors,
    ) -> Result<Seen, Error> {
        let (local, remote) = (selectors::from_wire(ts_i), selectors::from_wire(ts_r));
        let name = &self.request.child.name;
        match (self.mode, transport) {
            (SaMode::Tunnel, false) => Ok(Seen { local, remote, peer_view: None }),
            (SaMode::Transport, true) => transport::seen(&local, &remote, core.path, core.nat)
                .ok_or(Error::PeerMisbehaved("the answer in transport mode names more than one host at an end")),
            (SaMode::Transport, false) => Err(Error::ModeRefused(format!(
                "the peer declines transport mode for '{name}', and mode = transport accepts no tunnel"
            ))),
            (SaMode::Tunnel, true) => {
                Err(Error::ModeRefused(format!("the peer answers in transport mode, '{name}' was offered as a tunnel")))
            }
        }
    }

    /// Whether a method is among those we have offered, or would be.
    pub(crate) fn offers_method(&self, method: KeyExchangeId) -> bool {
        self.request.child.esp_proposals.iter().any(|proposal| proposal.key_exchange.contains(&method))
    }

    fn choose(
        &self,
        turn: &Turn<'_>,
        offered: &[Proposal],
        preferred: Option<KeyExchangeId>,
    ) -> Option<Chosen<EspSuite, Spi>> {
        let child = &self.request.child;
        let rungs: Vec<_> = ladder::rungs(turn.context, self.device, child.hw_offload).collect();
        suite::choose_esp(&child.esp_proposals, &rungs, turn.context.provider, offered, self.exchange, preferred)
    }

    fn no_proposal(&self, theirs: &[Proposal]) -> Error {
        let ours = suite::describe(&self.proposals);
        let difference = suite::difference(&self.proposals, theirs);
        Error::NoProposal { ours, theirs: suite::describe(theirs), difference }
    }

    /// Our selectors in words, for causes.
    pub(crate) fn describe_selectors(&self) -> String {
        describe_pair(&self.local, &self.remote)
    }

    /// Our proposals in words, for causes.
    pub(crate) fn describe_proposals(&self) -> String {
        suite::describe(&self.proposals)
    }
}

fn offered_selectors(core: &Core, request: &ChildRequest, mode: SaMode) -> Result<Pair, Error> {
    let outer = transport::outer(core.path);
    let (local, remote) = transport::allowed(&request.child, mode, outer);
    if local.is_empty() || remote.is_empty() {
        return Err(Error::NotHostToHost {
            hosts: format!("{} and {}", outer.local, outer.remote),
            configured: describe_child(core, &request.child, SaMode::Tunnel),
        });
    }
    // In transport mode there is room for packets of these two hosts only.
    let fits = |packet: &&PacketSelectors| {
        mode == SaMode::Tunnel || (packet.source, packet.destination) == (outer.local, outer.remote)
    };
    let (source, destination) = match request.packet.as_ref().filter(fits).map(selectors::of_packet) {
        Some((source, destination)) => (Some(source), Some(destination)),
        None => (None, None),
    };
    Ok((selectors::with_packet(source, local), selectors::with_packet(destination, remote)))
}

/// SA, TSi and TSr of a message.
fn child_payloads<'p>(
    payloads: &'p Payloads<'_>,
) -> Result<(&'p SecurityAssociation, &'p TrafficSelectors, &'p TrafficSelectors), Error> {
    let (mut sa, mut ts_i, mut ts_r) = (None, None, None);
    for payload in payloads {
        #[expect(clippy::wildcard_enum_match_arm, reason = "looks for three kinds among all")]
        match payload {
            Payload::Sa(found) if sa.is_none() => sa = Some(found),
            Payload::TsInitiator(found) if ts_i.is_none() => ts_i = Some(found),
            Payload::TsResponder(found) if ts_r.is_none() => ts_r = Some(found),
            Payload::Sa(_) | Payload::TsInitiator(_) | Payload::TsResponder(_) => {
                return Err(Error::PeerMisbehaved("SA, TSi or TSr twice in one message"));
            }
            _ => {}
        }
    }
    match (sa, ts_i, ts_r) {
        (Some(sa), Some(ts_i), Some(ts_r)) => Ok((sa, ts_i, ts_r)),
        _ => Err(Error::PeerMisbehaved("SA, TSi or TSr is missing")),
    }
}

/// Whether a connection has a child for what a request asks, if it asks for one.
pub(crate) fn serves(core: &Core, connection: &Connection, payloads: &Payloads<'_>) -> bool {
    let Ok((_, ts_i, ts_r)) = child_payloads(payloads) else { return true };
    let (remote, local) = (selectors::from_wire(ts_i), selectors::from_wire(ts_r));
    let outer = transport::outer(core.path);
    connection.children.iter().any(|child| {
        let (allowed_local, allowed_remote) = transport::allowed(child, SaMode::Tunnel, outer);
        !narrow(&local, &allowed_local).is_empty() && !narrow(&remote, &allowed_remote).is_empty()
    })
}

/// What we answer a request for a CHILD SA as responder. `children` are those it may become, `rekeys` the one it is to replace.
pub(crate) fn answer(
    turn: &mut Turn<'_>,
    core: &Core,
    payloads: &Payloads<'_>,
    children: &[Arc<Child>],
    rekeys: Option<&ChildSa>,
    exchange: ChildKeyExchange,
    preferred: Option<KeyExchangeId>,
) -> Result<Answer, Error> {
    let (sa, ts_i, ts_r) = child_payloads(payloads)?;
    let device = device(turn, core)?;
    let carries = |child: &Child| ladder::rungs(turn.context, device, child.hw_offload).any(|rung| rung.transport);
    let (remote, local) = (selectors::from_wire(ts_i), selectors::from_wire(ts_r));
    let transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
    let found = match rekeys {
        Some(old) => find_rekeyed(core, children, old, transport, &local, &remote),
        None => find_new(core, children, transport, carries, &local, &remote),
    }?;
    let pairs = SelectorPair::product(&found.local, &found.remote);
    let wanted = ladder::wanted(turn, core, device, &found.child, (found.mode, &pairs), rekeys)?;
    let (rungs, mut claim) = (wanted.capabilities(), wanted.claim);
    let ours = &found.child.esp_proposals;
    let provider = turn.context.provider;
    let chosen = suite::choose_esp(ours, &rungs, provider, &sa.proposals, exchange, preferred);
    let chosen = chosen.ok_or_else(|| Error::NoProposal {
        ours: suite::describe_esp(ours, &rungs, provider, exchange),
        theirs: suite::describe(&sa.proposals),
        difference: suite::esp_difference(ours, &rungs, provider, exchange, &sa.proposals),
    })?;
    let what = (found.mode, chosen.suite, &*pairs);
    let ladder = ladder::agreed(turn, core, device, &found.child, what, &mut claim)?;
    let spi_in = reserve(turn, device)?;
    let fixed = found.child.reqid.map(Reqid);
    let reqid = rekeys.map(|old| old.reqid).or(fixed).unwrap_or_else(|| turn.ids.reqid());
    say!(TRACE, "CFG 2", core, "received proposals: {}", suite::describe(&sa.proposals));
    say!(DEBUG, "CFG 1", core, "selected proposal: {}", chosen.suite.proposal(chosen.number, spi_in));
    say!(TRACE, "CFG 2", core, "selected traffic selectors: {}", describe_pair(&found.local, &found.remote));
    let agreed = Agreement {
        unique_id: turn.ids.child(),
        child: found.child,
        reqid,
        device,
        spi_in,
        spi_out: chosen.spi,
        suite: chosen.suite,
        local_ts: found.local,
        remote_ts: found.remote,
        mode: found.mode,
        peer_view: found.peer_view,
        tags: None,
        ladder,
        claim,
    };
    Ok(Answer { agreed, number: chosen.number })
}

struct Found {
    child: Arc<Child>,
    mode: SaMode,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    peer_view: Option<OuterAddresses>,
}

/// The child that a request for a new CHILD SA is for.
//= RFC 7296 §2.23.1: with transport mode asked for, first the addresses as seen here and transport mode, then those received and tunnel mode
fn find_new(
    core: &Core,
    children: &[Arc<Child>],
    transport: bool,
    carries: impl Fn(&Child) -> bool,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Result<Found, Error> {
    let of = |mode: ChildMode| children.iter().filter(move |child| child.mode == mode);
    let seen = if transport { transport::seen(local, remote, core.path, core.nat) } else { None };
    let as_transport = |children: &mut dyn Iterator<Item = &Arc<Child>>| {
        let seen = seen.as_ref()?;
        let found = find_child(core, children, SaMode::Transport, &seen.local, &seen.remote)?;
        Some(Found { peer_view: seen.peer_view, ..found })
    };
    // What the device cannot carry is taken last: why it cannot is said by whoever looks closer.
    let found = as_transport(&mut of(ChildMode::Transport).filter(|child| carries(child)))
        .or_else(|| find_child(core, of(ChildMode::Tunnel), SaMode::Tunnel, local, remote))
        .or_else(|| as_transport(&mut of(ChildMode::Transport)));
    found.ok_or_else(|| {
        let close = |child: &&Arc<Child>| {
            let (ours, theirs) = transport::allowed(child, SaMode::Tunnel, transport::outer(core.path));
            !narrow(local, &ours).is_empty() && !narrow(remote, &theirs).is_empty()
        };
        match of(ChildMode::Transport).find(close) {
            Some(child) if !transport => Error::ModeRefused(format!(
                "the peer asks for tunnel mode, '{}' is configured with mode = transport",
                child.name
            )),
            Some(_) | None => unacceptable(core, children, local, remote),
        }
    })
}

/// The child that a rekeying is for: of the mode that the old CHILD SA has.
fn find_rekeyed(
    core: &Core,
    children: &[Arc<Child>],
    old: &ChildSa,
    transport: bool,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Result<Found, Error> {
    match (old.mode, transport) {
        (SaMode::Transport, false) => {
            return Err(Error::ModeRefused(format!("the peer rekeys '{}' without transport mode", old.config.name)));
        }
        (SaMode::Transport, true) | (SaMode::Tunnel, false | true) => {}
    }
    let found = match old.mode {
        SaMode::Tunnel => find_child(core, children.iter(), SaMode::Tunnel, local, remote),
        SaMode::Transport => transport::seen(local, remote, core.path, core.nat).and_then(|seen| {
            let found = find_child(core, children.iter(), SaMode::Transport, &seen.local, &seen.remote)?;
            Some(Found { peer_view: seen.peer_view, ..found })
        }),
    };
    found.ok_or_else(|| unacceptable(core, children, local, remote))
}

fn unacceptable(core: &Core, children: &[Arc<Child>], local: &[TrafficSelector], remote: &[TrafficSelector]) -> Error {
    let ours = children.iter().map(|child| describe_child(core, child, transport::mode(child)));
    Error::SelectorsUnacceptable {
        ours: ours.collect::<Vec<_>>().join(", "),
        theirs: describe_pair(local, remote),
        difference: children.first().map(|child| difference(core, child, local, remote)).unwrap_or_default(),
    }
}

/// The first child whose selectors allow all that was offered, else the first that allows the first of each side, else the first that allows
/// a part of it.
fn find_child<'c>(
    core: &Core,
    children: impl Iterator<Item = &'c Arc<Child>>,
    mode: SaMode,
    offered_local: &[TrafficSelector],
    offered_remote: &[TrafficSelector],
) -> Option<Found> {
    let (mut first, mut partial) = (None, None);
    for child in children {
        let (allowed_local, allowed_remote) = transport::allowed(child, mode, transport::outer(core.path));
        let local = narrow(offered_local, &allowed_local);
        let remote = narrow(offered_remote, &allowed_remote);
        if local.is_empty() || remote.is_empty() {
            continue;
        }
        let whole = selectors::is_subset(offered_local, &local) && selectors::is_subset(offered_remote, &remote);
        //= RFC 7296 §2.9: the subset must include the initiator's first choices: they are those of the packet that asked for the SA
        let includes = |offered: &[TrafficSelector], narrowed: &[TrafficSelector]| {
            offered.first().is_some_and(|choice| narrowed.iter().any(|selector| selector.contains(choice)))
        };
        let firsts = includes(offered_local, &local) && includes(offered_remote, &remote);
        let found = Found { child: child.clone(), mode, local, remote, peer_view: None };
        if whole {
            return Some(found);
        }
        if firsts {
            first.get_or_insert(found)
        } else {
            partial.get_or_insert(found)
        };
    }
    first.or(partial)
}

impl Answer {
    /// SA payload.
    pub(crate) fn sa(&self) -> Payload<'static> {
        let proposal = self.agreed.suite.proposal(self.number, self.agreed.spi_in);
        Payload::Sa(SecurityAssociation::new(vec![proposal]))
    }

    /// TSi, TSr and what goes with them.
    pub(crate) fn selectors(&self) -> Vec<Payload<'static>> {
        let mut payloads = vec![
            Payload::TsInitiator(selectors::to_wire(&self.agreed.remote_ts)),
            Payload::TsResponder(selectors::to_wire(&self.agreed.local_ts)),
        ];
        if self.agreed.mode == SaMode::Transport {
            payloads.push(Payload::Notify(Notify::plain(NotifyType::USE_TRANSPORT_MODE)));
        }
        payloads
    }
}

fn describe_pair(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    format!("{} === {}", selectors::describe(local), selectors::describe(remote))
}

fn describe_child(core: &Core, child: &Child, mode: SaMode) -> String {
    let (local, remote) = transport::allowed(child, mode, transport::outer(core.path));
    let shown = if mode == SaMode::Transport { " in transport mode" } else { "" };
    format!("{} ({}{shown})", describe_pair(&local, &remote), child.name)
}

/// The first side of a child that has nothing in common with what was offered.
fn difference(core: &Core, child: &Child, local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let (ours, theirs) = transport::allowed(child, transport::mode(child), transport::outer(core.path));
    let (side, ours, theirs) =
        if narrow(local, &ours).is_empty() { ("our", ours, local) } else { ("the peer's", theirs, remote) };
    let (ours, theirs) = (selectors::describe(&ours), selectors::describe(theirs));
    format!("; {side} side differs first: {ours} against {theirs} ({})", child.name)
}

/// The error that an answer's notifications report, with both sides' words where we know them.
pub(crate) fn refusal(payloads: &Payloads<'_>) -> Option<NotifyType> {
    payloads.notifies().map(|notify| notify.kind).find(|kind| kind.is_error())
}
