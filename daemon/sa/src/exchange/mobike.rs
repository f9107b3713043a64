//! Moving an IKE SA to other addresses (MOBIKE, RFC 4555): what the ends tell each other of their addresses, and how they check them.
//!
//! Policy, where the RFC leaves a choice:
//!
//! | question | answer |
//! |---|---|
//! | when does the initiator move | when the pair in use has no route any more, or a repeated request is answered on another way, or the peer announces or refuses addresses; a better route alone is no reason |
//! | what does the responder accept | any address of a host that the backend can reach, from one of its own `local_addrs`; where `remote_addrs` holds only networks it must lie in one of them |
//! | return routability, initiator | CHILD SAs follow at once to an address that the peer has answered at before, else with the answer, which returns COOKIE2 |
//! | return routability, responder | every new address is checked with COOKIE2; CHILD SAs follow at once where the connection names the peer's identity, after the check where it is a pattern |
//! | NAT | prohibited (NO_NATS_ALLOWED) exactly where the NAT-T port is off |
//!
//! What the driver sees of the network comes in through [`crate::established`]; the lists and pairs of addresses are in [`crate::mobility`].

use std::net::{IpAddr, SocketAddr};

use ike_model::{Cause, CauseKind, HostSpec};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Notify, Payload, Payloads};
use ipsec::Path;

use crate::choose;
use crate::core::Core;
use crate::error::Error;
use crate::established::{Active, Authenticated, Standing};
use crate::mobility;
use crate::nat;
use crate::notice::Notice;
use crate::say::say;
use crate::turn::{Turn, device_for};

/// What an INFORMATIONAL exchange of MOBIKE is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The initiator tells which addresses are to be used from now on.
    Update,
    /// Either end tells which addresses it has.
    Announce,
    /// Does the peer receive at the address in use?
    Check,
    /// A packet of the peer came from here: lets an initiator behind NAT see that its mapping has changed.
    Mapping(SocketAddr),
}

impl Errand {
    /// As users see it.
    pub(crate) const fn name() -> &'static str {
        "IKE_MOBIKE"
    }
}

/// An exchange of ours under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    errand: Errand,
    cookie: [u8; COOKIE_LEN],
    /// The way in use when it began.
    path: Path,
    /// The way before, to go back to.
    before: Path,
}

/// Octets of our COOKIE2; 8 to 64 are allowed.
const COOKIE_LEN: usize = 16;

//= RFC 4555 §3.2: MOBIKE_SUPPORTED and the additional addresses go with the payloads of the first CHILD SA
/// What IKE_AUTH says about moving.
pub(crate) fn announcement(core: &mut Core, turn: &Turn<'_>) -> Vec<Payload<'static>> {
    if !core.connection.mobike {
        return Vec::new();
    }
    let ours = mobility::ours(core, turn.registry);
    let mut payloads = vec![Payload::Notify(Notify::plain(NotifyType::MOBIKE_SUPPORTED))];
    payloads.extend(mobility::additional(&ours));
    if forbids_nat(turn) {
        payloads.push(mobility::no_nats(core.path));
    }
    core.mobility.told = ours;
    payloads
}

/// Without the NAT-T port nothing can be done about NAT: it is taken for an attack.
fn forbids_nat(turn: &Turn<'_>) -> bool {
    turn.context.config.settings.nat_port == 0
}

/// The answer to what the peer's IKE_AUTH request says about moving.
///
/// # Errors
/// [`Error::UnexpectedNat`] when the peer allows no NAT and there is one.
pub(crate) fn answer_announcement(
    core: &mut Core,
    turn: &Turn<'_>,
    payloads: &Payloads<'_>,
) -> Result<Vec<Payload<'static>>, Error> {
    take_announcement(core, payloads);
    if !core.mobility.agreed {
        return Ok(Vec::new());
    }
    //= RFC 4555 §3.9: the first IKE_AUTH request is looked at too
    if mobility::is_translated(payloads, core.reply) {
        return Err(Error::UnexpectedNat);
    }
    Ok(announcement(core, turn))
}

/// Takes what the peer's IKE_AUTH message says about moving.
pub(crate) fn take_announcement(core: &mut Core, payloads: &Payloads<'_>) {
    core.mobility.agreed = core.connection.mobike && payloads.notify(NotifyType::MOBIKE_SUPPORTED).is_some();
    if core.mobility.agreed {
        say!(DEBUG, "IKE 1", core, "peer supports MOBIKE");
        core.mobility.peer = mobility::told_addresses(payloads).unwrap_or_default();
        core.mobility.verify(core.path.remote.ip());
    }
}

/// Begins an exchange.
pub(crate) fn start(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    errand: Errand,
) -> Result<(), Error> {
    if !core.mobility.agreed {
        return Ok(());
    }
    let mut cookie = [0; COOKIE_LEN];
    turn.context.rng.fill(&mut cookie)?;
    let detour = match errand {
        Errand::Mapping(remote) => Some(Path { remote, ..core.path }),
        Errand::Update | Errand::Announce | Errand::Check => None,
    };
    core.mobility.detour = detour;
    let mut payloads = request(core, turn, errand, detour.unwrap_or(core.path));
    //= RFC 4555 §3.7: unpredictable to the other end, so that only who sees the request can answer it
    payloads.push(Payload::Notify(Notify::new(NotifyType::COOKIE2, cookie.to_vec())));
    core.request(turn, ExchangeType::INFORMATIONAL, &payloads)?;
    let left = if errand == Errand::Update { authenticated.left.take() } else { None };
    let before = left.unwrap_or(core.path);
    let exchange = Exchange { errand, cookie, path: core.path, before };
    authenticated.active = Some(Active::Mobike(Box::new(exchange)));
    Ok(())
}

fn request(core: &mut Core, turn: &Turn<'_>, errand: Errand, path: Path) -> Vec<Payload<'static>> {
    let mut payloads = Vec::new();
    let ours = mobility::ours(core, turn.registry);
    match errand {
        Errand::Update => {
            payloads.push(Payload::Notify(Notify::plain(NotifyType::UPDATE_SA_ADDRESSES)));
            if !forbids_nat(turn) {
                payloads.extend(nat::notifies(core.spi_i, core.spi_r, path, core.connection.encap));
            }
            //= RFC 4555 §3.6: the list may go in the same request
            if !same_addresses(&core.mobility.told, &ours) {
                payloads.extend(mobility::address_list(&ours));
                core.mobility.told = ours;
            }
        }
        Errand::Announce => {
            payloads.extend(mobility::address_list(&ours));
            core.mobility.told = ours;
        }
        Errand::Check => {}
        Errand::Mapping(_) => payloads.extend(nat::notifies(core.spi_i, core.spi_r, path, core.connection.encap)),
    }
    //= RFC 4555 §3.9: with every message that can change addresses, unless NAT traversal is enabled
    if forbids_nat(turn) && matches!(errand, Errand::Update | Errand::Announce) {
        payloads.push(mobility::no_nats(path));
    }
    payloads
}

/// Whether the peer would learn nothing new.
pub(crate) fn same_addresses(known: &[IpAddr], present: &[IpAddr]) -> bool {
    known.len() == present.len() && known.iter().all(|address| present.contains(address))
}

/// NAT_DETECTION payloads for a liveness check, where they can show that the mapping has changed.
pub(crate) fn mapping_watch(core: &Core) -> Vec<Payload<'static>> {
    let mobility = &core.mobility;
    //= RFC 4555 §3.8: an initiator behind NAT includes them in its liveness checks
    let watches = mobility.agreed && mobility.decides && core.nat.local;
    let notifies = watches.then(|| nat::notifies(core.spi_i, core.spi_r, core.path, core.connection.encap));
    notifies.into_iter().flatten().collect()
}

//= RFC 4555 §3.8: NAT_DETECTION_DESTINATION_IP differs from what the last response said: the mapping has changed
/// Looks whether the peer sees us at another address or port than before.
pub(crate) fn watch_mapping(authenticated: &mut Authenticated, core: &mut Core, payloads: &Payloads<'_>) {
    let mobility = &mut core.mobility;
    if !(mobility.agreed && mobility.decides && core.nat.local) {
        return;
    }
    if let Some(seen) = mobility::seen_as(payloads)
        && mobility.seen_as.replace(seen) != Some(seen)
    {
        authenticated.say_first(Errand::Update);
    }
}

/// What an INFORMATIONAL request of the peer asks for in the response.
pub(crate) fn on_request(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) -> Vec<Payload<'static>> {
    let mut answer = Vec::new();
    let update = payloads.notify(NotifyType::UPDATE_SA_ADDRESSES).is_some();
    if core.mobility.agreed {
        match examine(authenticated, core, turn, payloads, update) {
            Ok(()) => {}
            Err(kind) => answer.push(Payload::Notify(Notify::plain(kind))),
        }
        //= RFC 4555 §3.8: if the request includes them, so does the response
        if mobility::seen_as(payloads).is_some() {
            answer.extend(nat::notifies(core.spi_i, core.spi_r, core.reply, core.connection.encap));
            watch_mapping(authenticated, core, payloads);
        }
    }
    //= RFC 4555 §3.7: the recipient copies the notification as it is
    let cookie = payloads.notify(NotifyType::COOKIE2).filter(|cookie| (8..=64).contains(&cookie.data.len()));
    answer.extend(cookie.map(|cookie| Payload::Notify(Notify::new(NotifyType::COOKIE2, cookie.data.to_vec()))));
    answer
}

//= RFC 4555 §4.1: UNACCEPTABLE_ADDRESSES and UNEXPECTED_NAT_DETECTED
/// Carries out what a request says about addresses, or gives the reason why not.
fn examine(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
    update: bool,
) -> Result<(), NotifyType> {
    let path = core.reply;
    let list = mobility::told_addresses(payloads);
    if !update && list.is_none() {
        return Ok(());
    }
    if mobility::is_translated(payloads, path) {
        tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %path.remote, "addresses were changed on the way, and NO_NATS_ALLOWED says that they must not be");
        return Err(NotifyType::UNEXPECTED_NAT_DETECTED);
    }
    if update {
        //= RFC 4555 §3.5: the initiator decides what addresses are used
        if core.mobility.decides || !is_acceptable(core, turn, path) {
            tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %path.remote, "address update refused: {} ... {}", path.local.ip(), path.remote.ip());
            return Err(NotifyType::UNACCEPTABLE_ADDRESSES);
        }
        if nat::is_present(payloads) {
            core.nat = nat::detect(payloads, core.spi_i, core.spi_r, path, core.connection.encap);
        }
    }
    if let Some(list) = list {
        core.mobility.peer = list;
        core.mobility.refused.clear();
        consider_announcement(authenticated, core, turn, path);
    }
    if update {
        updated(authenticated, core, turn, path);
    }
    Ok(())
}

//= RFC 4555 §3.5: the pair in the IP header must be acceptable according to local policy
fn is_acceptable(core: &Core, turn: &Turn<'_>, path: Path) -> bool {
    let (local, remote) = (path.local.ip(), path.remote.ip());
    let specs = &core.connection.remote_addrs;
    let only_networks = !specs.is_empty() && specs.iter().all(|spec| matches!(spec, HostSpec::Range(_)));
    mobility::is_host(remote)
        && path.remote.port() != 0
        && choose::allows(&core.connection.local_addrs, local)
        && (!only_networks || choose::allows(specs, remote))
        && device_for(turn.context, path).is_some()
}

/// The peer has other addresses than before: is the one in use still among them?
fn consider_announcement(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
    let used = core.path.remote.ip();
    if !core.mobility.decides
        || authenticated.standing != Standing::Up
        || used == path.remote.ip()
        || core.mobility.peer.contains(&used)
    {
        return;
    }
    authenticated.move_to(core, turn, path);
}

/// The initiator has told us to use the way that its request came on.
fn updated(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, path: Path) {
    let known = core.mobility.is_verified(path.remote.ip());
    authenticated.switch(core, turn, path);
    if authenticated.standing == Standing::Replaced {
        // Its successor has the CHILD SAs; the peer had not heard of that yet.
        let spi = authenticated.successor;
        turn.notices.extend(spi.map(|spi| Notice::MoveSuccessor { spi, path, nat: core.nat }));
        return;
    }
    let trusted = choose::remote_pattern(&core.connection).is_concrete();
    //= RFC 4555 §3.7: the check may come after the move where the peer is expected to be well-behaved
    if known || trusted {
        authenticated.move_children(core, turn, true);
    }
    if !known {
        authenticated.say_first(Errand::Check);
    }
    crate::exchange::liveness::schedule_keepalive(core, turn);
    core.resend(turn);
}

/// The peer has answered. `arrived` is the way on which the answer came; `scattered` says that the request was sent on several.
pub(crate) fn on_response(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    exchange: &Exchange,
    payloads: &Payloads<'_>,
    (arrived, scattered): (Path, bool),
) {
    //= RFC 4555 §3.7: if the values do not match, the IKE SA must be closed
    if payloads.notify(NotifyType::COOKIE2).is_none_or(|cookie| *cookie.data != exchange.cookie) {
        let cause = Cause::new(CauseKind::ProtocolViolation, "the peer did not return COOKIE2 as it was sent");
        return authenticated.close(core, turn, cause);
    }
    //= RFC 4555 §3.5, §3.7: after a further change, or when several ways were tried, the response says nothing about the way in use
    let conclusive = !scattered && exchange.path == core.path;
    match exchange.errand {
        Errand::Mapping(_) | Errand::Announce => {}
        Errand::Update | Errand::Check if !conclusive => {
            authenticated.say_first(exchange.errand);
        }
        Errand::Check => {
            core.mobility.verify(core.path.remote.ip());
            authenticated.move_children(core, turn, true);
        }
        Errand::Update => update_answered(authenticated, core, turn, exchange, payloads, arrived),
    }
}

fn update_answered(
    authenticated: &mut Authenticated,
    core: &mut Core,
    turn: &mut Turn<'_>,
    exchange: &Exchange,
    payloads: &Payloads<'_>,
    arrived: Path,
) {
    let is = |kind: NotifyType| payloads.notify(kind).is_some();
    if is(NotifyType::UNEXPECTED_NAT_DETECTED) {
        return nat_in_the_way(authenticated, core, turn);
    }
    core.mobility.unexpected_nat = 0;
    if is(NotifyType::UNACCEPTABLE_ADDRESSES) {
        return refused(authenticated, core, turn, exchange);
    }
    core.mobility.verify(core.path.remote.ip());
    if nat::is_present(payloads) {
        core.nat = nat::detect(payloads, core.spi_i, core.spi_r, arrived, core.connection.encap);
        core.mobility.seen_as = mobility::seen_as(payloads);
    }
    authenticated.move_children(core, turn, true);
    crate::exchange::liveness::schedule_keepalive(core, turn);
}

//= RFC 4555 §3.9: the operation is retried several times, as somebody who can alter a single packet must not block a way
fn nat_in_the_way(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>) {
    core.mobility.unexpected_nat = core.mobility.unexpected_nat.saturating_add(1);
    if core.mobility.unexpected_nat <= turn.context.config.settings.retransmit_tries {
        authenticated.say_first(Errand::Update);
        return;
    }
    let text = format!("there is NAT on the way to {} and the NAT-T port is off", core.path.remote.ip());
    authenticated.close(core, turn, Cause::new(CauseKind::PeerUnreachable, text));
}

//= RFC 4555 §3.5: after UNACCEPTABLE_ADDRESSES other addresses are tried, or those before are kept, or the IKE SA ends
fn refused(authenticated: &mut Authenticated, core: &mut Core, turn: &mut Turn<'_>, exchange: &Exchange) {
    let pair = |path: Path| (path.local.ip(), path.remote.ip());
    core.mobility.refused.push(pair(exchange.path));
    let next = mobility::other_ways(core).next();
    let before = exchange.before;
    if let Some(next) = next {
        return authenticated.move_to(core, turn, next);
    }
    let still_ours = turn.registry.local_addresses.contains(&before.local.ip());
    if before != core.path && still_ours && !core.mobility.refused.contains(&pair(before)) {
        return authenticated.move_to(core, turn, before);
    }
    let text = format!("the peer accepts none of our addresses, last {}", core.path.local.ip());
    authenticated.close(core, turn, Cause::new(CauseKind::PeerError, text));
}
