//! IKE_AUTH with pre-shared keys in both roles, with the first CHILD SA (RFC 7296 §1.2, §2.4, §2.15, §2.16, §2.21.2).

use ike_crypto::{PrfOutput, constant_time_eq};
use ike_model::{Cause, CauseKind, Childless, Connection, EventBody, Identity, IkeSaState, Unique};
use ike_wire::ids::{AuthMethod, ExchangeType, IdType, NotifyType};
use ike_wire::{Authentication, Delete, Identification, Notify, Payload, Payloads};

use crate::choose;
use crate::core::Core;
use crate::counters::Way;
use crate::endpoint::unique::crosses;
use crate::error::Error;
use crate::established::{Authenticated, Intent, Pending};
use crate::exchange::auth_lifetime;
use crate::exchange::ike_sa_init::{Initiating, RespondStep, Responding, Step};
use crate::exchange::mobike;
use crate::key_schedule::{Keys, Role, SignedOctets};
use crate::negotiation::{self, ChildRequest, Offer};
use crate::notice::Notice;
use crate::say::say;
use crate::suite::ChildKeyExchange;
use crate::turn::Turn;

/// An identity as payload body.
fn identification(identity: &Identity) -> Result<Identification<'static>, Error> {
    let (kind, data) = identity.to_wire().ok_or_else(|| Error::AuthenticationFailed {
        kind: CauseKind::NoConfiguration,
        text: format!("'{identity}' is a pattern, not an identity that can be sent"),
    })?;
    Ok(Identification::new(IdType(kind), data))
}

/// IDi, IDr and AUTH of a message.
struct AuthParts<'p, 'a> {
    initiator: Option<&'p Identification<'a>>,
    responder: Option<&'p Identification<'a>>,
    auth: Option<&'p Authentication<'a>>,
    child: bool,
}

impl<'p, 'a> AuthParts<'p, 'a> {
    fn find(payloads: &'p Payloads<'a>) -> Self {
        let mut parts = Self { initiator: None, responder: None, auth: None, child: false };
        for payload in payloads {
            #[expect(clippy::wildcard_enum_match_arm, reason = "looks for four kinds among all")]
            match payload {
                Payload::IdInitiator(id) => parts.initiator = parts.initiator.or(Some(id)),
                Payload::IdResponder(id) => parts.responder = parts.responder.or(Some(id)),
                Payload::Auth(auth) => parts.auth = parts.auth.or(Some(auth)),
                Payload::Sa(_) => parts.child = true,
                _ => {}
            }
        }
        parts
    }
}

fn received(id: &Identification<'_>) -> Identity {
    Identity::from_wire(id.kind.0, &id.data)
}

/// Whether the peer's AUTH is the expected one.
fn check_auth(
    auth: &Authentication<'_>,
    expected: &PrfOutput,
    local: &Identity,
    remote: &Identity,
) -> Result<(), Error> {
    if auth.method != AuthMethod::SHARED_KEY_MIC {
        return Err(Error::AuthenticationFailed {
            kind: CauseKind::AuthenticationFailed,
            text: format!("'{remote}' authenticates by {}, a pre-shared key is configured", auth.method),
        });
    }
    if !constant_time_eq(&auth.data, expected.as_ref()) {
        return Err(Error::AuthenticationFailed {
            kind: CauseKind::AuthenticationFailed,
            text: format!("the pre-shared keys for '{local}' - '{remote}' differ"),
        });
    }
    Ok(())
}

/// Sends the IKE_AUTH request.
pub(crate) fn start(init: &mut Initiating, core: &mut Core, turn: &mut Turn<'_>) -> Result<(), Error> {
    core.local_id = choose::local_identity(&core.connection, core.path);
    let expected = choose::remote_pattern(&core.connection);
    let local = identification(&core.local_id)?;
    // The key may belong to a peer whose identity is known only when it answers; then any owner of ours will do for now.
    let secret = choose::psk(turn.context.config, &core.local_id, &expected_identity(core, &expected))?.secret.clone();
    let (Some(keys), Some(auth)) = (&core.keys, &init.auth) else { return Err(Error::Temporary("no keys")) };
    let octets = SignedOctets { message: &init.request, nonce: &init.peer_nonce, identification: &local.to_octets() };
    let mic = auth.psk(keys.prf, Role::Initiator, secret.expose(), octets);
    say!(DEBUG, "IKE 1", core, "authentication of '{}' (myself) with pre-shared key", core.local_id);
    let mut payloads = vec![Payload::IdInitiator(local)];
    if expected.is_concrete() {
        payloads.push(Payload::IdResponder(identification(&expected)?));
    }
    payloads.push(Payload::Auth(Authentication::new(AuthMethod::SHARED_KEY_MIC, mic.as_ref().to_vec())));
    if sends_initial_contact(core, turn, &expected) {
        payloads.push(Payload::Notify(Notify::plain(NotifyType::INITIAL_CONTACT)));
    }
    payloads.extend(mobike::announcement(core, turn));
    if let Some(offer) = first_offer(init, core, turn)? {
        offer.say_begun(core);
        payloads.push(offer.sa());
        payloads.extend(offer.selectors());
        init.offer = Some(offer);
    }
    core.request(turn, ExchangeType::IKE_AUTH, &payloads)?;
    init.step = Step::AuthSent;
    Ok(())
}

/// The offer of the first child that the device can carry, now that it is known whether there is NAT on the way.
fn first_offer(init: &mut Initiating, core: &Core, turn: &mut Turn<'_>) -> Result<Option<Offer>, Error> {
    loop {
        let Some(request) = first_request(init, core, turn)? else { return Ok(None) };
        match Offer::new(turn, core, request.clone(), None, ChildKeyExchange::Absent) {
            Ok(offer) => return Ok(Some(offer)),
            Err(error) if init.requests.is_empty() => {
                // Whoever asked for the child is told when this attempt ends.
                init.requests.push_front(request);
                return Err(error);
            }
            Err(error) => core.child_failed(turn, request, &error.cause()),
        }
    }
}

/// The child to make first, as it is configured by now.
fn next_request(init: &mut Initiating, core: &Core, turn: &mut Turn<'_>) -> Option<ChildRequest> {
    while let Some(request) = init.requests.pop_front() {
        match request.renewed(&core.connection) {
            Ok(request) => return Some(request),
            Err(gone) => turn.notices.push_back(Notice::ChildFailed {
                connection: core.connection.clone(),
                child: Some(gone.child),
                cause: Cause::new(CauseKind::Reload, "it is not configured any more"),
            }),
        }
    }
    None
}

/// The child that IKE_AUTH asks for, or nothing when it is to do without (RFC 6023); what waits is then asked for by CREATE_CHILD_SA.
fn first_request(init: &mut Initiating, core: &Core, turn: &mut Turn<'_>) -> Result<Option<ChildRequest>, Error> {
    //= RFC 6023 §3: only towards a responder that has announced it
    let childless = core.connection.childless;
    let possible = init.childless && childless != Childless::Never;
    match childless {
        Childless::Force if !possible => {
            let text =
                "the peer does not announce that it does without a first CHILD SA (RFC 6023), and childless = force";
            Err(Error::NotAllowed(text.to_owned()))
        }
        Childless::Prefer | Childless::Force if possible => Ok(None),
        Childless::Allow | Childless::Prefer | Childless::Force | Childless::Never => {
            match next_request(init, core, turn) {
                Some(request) => Ok(Some(request)),
                None if possible => Ok(None),
                None => Err(Error::NotAllowed(if childless == Childless::Never {
                    "an IKE SA without a child cannot be initiated with childless = never; initiate a child".to_owned()
                } else {
                    "the peer does not announce that it does without a first CHILD SA (RFC 6023); initiate a child"
                        .to_owned()
                })),
            }
        }
    }
}

fn expected_identity(core: &Core, pattern: &Identity) -> Identity {
    if pattern.is_concrete() { pattern.clone() } else { Identity::Address(core.path.remote.ip()) }
}

//= RFC 7296 §2.4: INITIAL_CONTACT says that this is the only IKE SA between the two identities
fn sends_initial_contact(core: &Core, turn: &Turn<'_>, expected: &Identity) -> bool {
    let same = |(id, pair): (&u32, &(Identity, Identity))| {
        *id != core.unique_id && pair.0 == core.local_id && pair.1 == *expected
    };
    let connecting = turn.registry.connecting.iter().any(same);
    let known = turn.registry.knows_peer(&core.local_id, expected);
    core.connection.unique != Unique::Never && expected.is_concrete() && !connecting && !known
}

/// The IKE_AUTH response, decrypted. Gives the authenticated IKE SA.
pub(crate) fn on_response(
    init: &mut Initiating,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) -> Result<Authenticated, Error> {
    if let Some(kind) = payloads.unsupported_critical() {
        return Err(Error::UnsupportedCritical(kind));
    }
    let parts = AuthParts::find(payloads);
    let (Some(id), Some(auth)) = (parts.responder, parts.auth) else {
        return Err(refused(init, core, payloads));
    };
    verify_responder(init, core, turn, id, auth)?;
    //= RFC 7296 §2.21.3: INVALID_SYNTAX is fatal to the IKE SA, also beside a good AUTH: the peer has closed it
    if negotiation::refusal(payloads) == Some(NotifyType::INVALID_SYNTAX) {
        return Err(refused(init, core, payloads));
    }
    mobike::take_announcement(core, payloads);
    let mut authenticated = Authenticated::begin(core, turn);
    auth_lifetime::received(core, turn, payloads);
    authenticated.take_requests(&mut init.requests);
    if let Some(offer) = init.offer.take() {
        first_child(&mut authenticated, init, core, turn, offer, payloads);
    }
    Ok(authenticated)
}

fn refused(init: &Initiating, core: &Core, payloads: &Payloads<'_>) -> Error {
    let Some(kind) = negotiation::refusal(payloads) else {
        return Error::PeerMisbehaved("IDr or AUTH is missing in the IKE_AUTH response");
    };
    say!(DEBUG, "IKE 1", core, "received {kind} notify error");
    let offered = match kind {
        NotifyType::TS_UNACCEPTABLE => init.offer.as_ref().map(Offer::describe_selectors),
        NotifyType::NO_PROPOSAL_CHOSEN => init.offer.as_ref().map(Offer::describe_proposals),
        _ => None,
    };
    let pair =
        || format!("our identity '{}' and AUTH for '{}'", core.local_id, choose::remote_pattern(&core.connection));
    Error::PeerRefused { kind, offered: offered.unwrap_or_else(pair) }
}

fn verify_responder(
    init: &Initiating,
    core: &mut Core,
    turn: &Turn<'_>,
    id: &Identification<'_>,
    auth: &Authentication<'_>,
) -> Result<(), Error> {
    let remote = received(id);
    let pattern = choose::remote_pattern(&core.connection);
    if !pattern.matches(&remote) {
        return Err(Error::AuthenticationFailed {
            kind: CauseKind::AuthenticationFailed,
            text: format!("the peer calls itself '{remote}', expected is '{pattern}'"),
        });
    }
    let secret = choose::psk(turn.context.config, &core.local_id, &remote)
        .or_else(|_| choose::psk(turn.context.config, &core.local_id, &expected_identity(core, &pattern)))?;
    let (Some(keys), Some(auth_keys)) = (&core.keys, &init.auth) else { return Err(Error::Temporary("no keys")) };
    let octets = SignedOctets { message: &init.response, nonce: &init.nonce, identification: &id.to_octets() };
    let expected = auth_keys.psk(keys.prf, Role::Responder, secret.secret.expose(), octets);
    check_auth(auth, &expected, &core.local_id, &remote)?;
    say!(DEBUG, "IKE 1", core, "authentication of '{remote}' with pre-shared key successful");
    core.remote_id = remote;
    Ok(())
}

fn first_child(
    authenticated: &mut Authenticated,
    init: &Initiating,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut offer: Offer,
    payloads: &Payloads<'_>,
) {
    let refusal = negotiation::refusal(payloads);
    if let Some(kind) = refusal {
        say!(DEBUG, "IKE 1", core, "received {kind} notify, no CHILD_SA built");
    }
    let agreed = match refusal {
        None => offer.accept(turn, core, payloads),
        Some(kind @ NotifyType::TS_UNACCEPTABLE) => {
            Err(Error::PeerRefused { kind, offered: offer.describe_selectors() })
        }
        Some(kind) => Err(Error::PeerRefused { kind, offered: offer.describe_proposals() }),
    };
    let keyed = agreed.and_then(|agreed| {
        let keys = core.keys.as_ref().ok_or(Error::Temporary("no keys"))?;
        let (out, inbound) = keys.child(agreed.suite.algorithm, None, &init.nonce, &init.peer_nonce)?;
        Ok((agreed, crate::children::ChildKeys { inbound, outbound: out }))
    });
    match keyed {
        Ok((agreed, keys)) => authenticated.install_first(core, turn, agreed, keys),
        Err(error) => {
            if refusal.is_none() {
                //= RFC 7296 §1.3.1: what is not acceptable to the initiator it deletes: the responder has installed its half
                authenticated.intents.push_back(Intent::DeleteSpi(offer.spi()));
            }
            let request = offer.release(turn);
            authenticated.tell_failed(core, turn, Some(&request.child), &error.cause());
            authenticated.child_failed(core, turn, &request.child, &error.cause());
        }
    }
}

//= RFC 7296 §2.21.2: the initiator tells of a failed authentication in an INFORMATIONAL exchange of its own
/// Tells the peer that its AUTH is wrong (RFC 7296 §2.21.2); nobody waits for an answer.
pub(crate) fn tell_failure(core: &mut Core, turn: &mut Turn<'_>) {
    tell(core, turn, Payload::Notify(Notify::plain(NotifyType::AUTHENTICATION_FAILED)));
}

/// Tells the peer that the IKE SA which it may be making just now is not wanted any more; nobody waits for an answer.
pub(crate) fn tell_unwanted(core: &mut Core, turn: &mut Turn<'_>) {
    tell(core, turn, Payload::Delete(Delete::ike_sa()));
}

fn tell(core: &mut Core, turn: &mut Turn<'_>, payload: Payload<'static>) {
    core.answered(turn);
    let payloads = [payload];
    let id = core.window.free_id().unwrap_or_default();
    match core.sealed(turn, ExchangeType::INFORMATIONAL, id, false, &payloads) {
        Ok(datagrams) => {
            core.count_message(turn, ExchangeType::INFORMATIONAL, Way::RequestOut);
            core.transmit(turn, core.path, &datagrams);
        }
        Err(error) => tracing::debug!(ike = core.unique_id, "{error}"),
    }
}

/// The IKE_AUTH request, decrypted. Gives the authenticated IKE SA, which answers now or when its first CHILD SA is installed.
pub(crate) fn on_request(
    responding: &mut Responding,
    core: &mut Core,
    turn: &mut Turn<'_>,
    payloads: &Payloads<'_>,
) -> Result<Authenticated, Error> {
    if responding.step != RespondStep::Auth {
        return Err(Error::Unauthentic("IKE_AUTH before IKE_SA_INIT is answered"));
    }
    if let Some(kind) = payloads.unsupported_critical() {
        return Err(Error::UnsupportedCritical(kind));
    }
    let parts = AuthParts::find(payloads);
    let Some(id) = parts.initiator else { return Err(Error::PeerMisbehaved("IDi is missing in the IKE_AUTH request")) };
    let Some(auth) = parts.auth else {
        return Err(Error::AuthenticationFailed {
            kind: CauseKind::AuthenticationFailed,
            text: format!("'{}' wants to authenticate by EAP, a pre-shared key is configured", received(id)),
        });
    };
    verify_initiator(responding, core, turn, id, parts.responder.map(received).as_ref(), auth, payloads)?;
    check_childless(core, parts.child)?;
    keep_unique(core, turn, payloads)?;
    let moving = mobike::answer_announcement(core, turn, payloads)?;
    let mut answer = own_auth(responding, core, turn)?;
    answer.extend(moving);
    let mut authenticated = Authenticated::begin(core, turn);
    answer.extend(auth_lifetime::announcement(core, turn.now()));
    if parts.child {
        answer_child(&mut authenticated, responding, core, turn, answer, payloads)?;
    } else {
        core.respond(turn, ExchangeType::IKE_AUTH, &answer)?;
    }
    Ok(authenticated)
}

/// Whether the peer may begin with, or without, a child.
fn check_childless(core: &Core, child: bool) -> Result<(), Error> {
    match (core.connection.childless, child) {
        //= RFC 6023 §3: only a peer to which it was announced does without a first CHILD SA
        (Childless::Never, false) => {
            Err(Error::NotAllowed("the peer begins without a first CHILD SA, and childless = never".to_owned()))
        }
        (Childless::Force, true) => {
            Err(Error::NotAllowed("the peer asks for a first CHILD SA in IKE_AUTH, and childless = force".to_owned()))
        }
        (Childless::Allow | Childless::Prefer, _) | (Childless::Force, false) | (Childless::Never, true) => Ok(()),
    }
}

fn verify_initiator(
    responding: &Responding,
    core: &mut Core,
    turn: &Turn<'_>,
    id: &Identification<'_>,
    wanted: Option<&Identity>,
    auth: &Authentication<'_>,
    payloads: &Payloads<'_>,
) -> Result<(), Error> {
    let remote = received(id);
    // Shown in the log and the event should the rest fail.
    core.remote_id = remote.clone();
    let suite = core.suite.ok_or(Error::Temporary("no algorithms"))?;
    // The configuration may have changed since IKE_SA_INIT: what counts is what it says now.
    let candidates = choose::by_addresses(turn.context.config, core.path);
    let serves = |connection: &Connection| negotiation::serves(core, connection, payloads);
    say!(
        DEBUG,
        "CFG 1",
        core,
        "looking for peer configs matching {}[{}]...{}[{remote}]",
        core.path.local.ip(),
        wanted.unwrap_or(&Identity::Any),
        core.path.remote.ip()
    );
    let (connection, local) = choose::by_identities(&candidates, core.path, suite, &remote, wanted, serves)?;
    // What comes of it concerns this connection, also when the peer cannot prove who it is.
    (core.connection, core.chosen, core.local_id) = (connection, true, local);
    say!(DEBUG, "CFG 1", core, "selected peer config '{}'", core.connection.name);
    let secret = choose::psk(turn.context.config, &core.local_id, &remote)?;
    let (Some(keys), Some(auth_keys)) = (&core.keys, &responding.auth) else { return Err(Error::Temporary("no keys")) };
    let octets =
        SignedOctets { message: &responding.request, nonce: &responding.nonce, identification: &id.to_octets() };
    let expected = auth_keys.psk(keys.prf, Role::Initiator, secret.secret.expose(), octets);
    check_auth(auth, &expected, &core.local_id, &remote)?;
    say!(DEBUG, "IKE 1", core, "authentication of '{remote}' with pre-shared key successful");
    Ok(())
}

/// What the uniqueness policy says to a further IKE SA of the same peer.
fn keep_unique(core: &Core, turn: &mut Turn<'_>, payloads: &Payloads<'_>) -> Result<(), Error> {
    let policy = core.connection.unique;
    if policy == Unique::Never {
        return Ok(());
    }
    let mut stale = Vec::new();
    if payloads.notify(NotifyType::INITIAL_CONTACT).is_some() {
        //= RFC 7296 §2.4: other IKE SAs between the two identities are closed without a word; the peer has forgotten them
        stale = turn.registry.stale(&core.local_id, &core.remote_id, core.unique_id, core.begun_at);
        let silently = true;
        turn.notices.extend(stale.iter().map(|unique_id| Notice::Replace { unique_id: *unique_id, silently }));
    }
    if policy == Unique::No {
        return Ok(());
    }
    let twins = turn.registry.twins(&core.connection, &core.local_id, &core.remote_id, core.unique_id);
    // Of those that were begun at once it is decided when both are up.
    let older = twins.into_iter().filter(|twin| !stale.contains(&twin.unique_id) && !crosses(twin, core.begun_at));
    for twin in older {
        // From the same address it is taken for the peer's authenticating afresh.
        if policy == Unique::Keep && twin.remote.ip() != core.path.remote.ip() {
            return Err(Error::AuthenticationFailed {
                kind: CauseKind::Replaced,
                text: format!("'{}' has an IKE SA from {} already and unique = keep", core.remote_id, twin.remote.ip()),
            });
        }
        if policy == Unique::Replace {
            let ike = Box::new(core.snapshot(turn.now(), IkeSaState::Connecting));
            turn.event(EventBody::IkeSaDuplicate { ike, replaces: twin.unique_id });
        }
        turn.notices.push_back(Notice::Supersede { unique_id: twin.unique_id });
    }
    Ok(())
}

/// IDr and AUTH of ours.
fn own_auth(responding: &Responding, core: &Core, turn: &Turn<'_>) -> Result<Vec<Payload<'static>>, Error> {
    let local = identification(&core.local_id)?;
    let secret = choose::psk(turn.context.config, &core.local_id, &core.remote_id)?;
    let (Some(keys), Some(auth_keys)) = (&core.keys, &responding.auth) else { return Err(Error::Temporary("no keys")) };
    let octets = SignedOctets {
        message: &responding.response,
        nonce: &responding.peer_nonce,
        identification: &local.to_octets(),
    };
    let mic = auth_keys.psk(keys.prf, Role::Responder, secret.secret.expose(), octets);
    say!(DEBUG, "IKE 1", core, "authentication of '{}' (myself) with pre-shared key", core.local_id);
    Ok(vec![
        Payload::IdResponder(local),
        Payload::Auth(Authentication::new(AuthMethod::SHARED_KEY_MIC, mic.as_ref().to_vec())),
    ])
}

fn answer_child(
    authenticated: &mut Authenticated,
    responding: &Responding,
    core: &mut Core,
    turn: &mut Turn<'_>,
    mut answer: Vec<Payload<'static>>,
    payloads: &Payloads<'_>,
) -> Result<(), Error> {
    let children = core.connection.children.clone();
    let negotiated = negotiation::answer(turn, core, payloads, &children, None, ChildKeyExchange::Absent, None);
    let keyed = negotiated.and_then(|negotiated| {
        let keys: &Keys = core.keys.as_ref().ok_or(Error::Temporary("no keys"))?;
        let algorithm = negotiated.agreed.suite.algorithm;
        let (inbound, outbound) = keys.child(algorithm, None, &responding.peer_nonce, &responding.nonce)?;
        Ok((negotiated, crate::children::ChildKeys { inbound, outbound }))
    });
    match keyed {
        Ok((negotiated, keys)) => {
            let always = answer.len();
            answer.push(negotiated.sa());
            answer.extend(negotiated.selectors());
            let exchange = ExchangeType::IKE_AUTH;
            let pending = Pending { exchange, payloads: answer, always, rekeys: None };
            authenticated.install_then_answer(core, turn, negotiated.agreed, keys, pending);
            Ok(())
        }
        //= RFC 7296 §1.2: a failed first CHILD SA does not undo the IKE SA
        Err(error) => {
            authenticated.tell_refused(core, turn, &error);
            tracing::warn!(conn = core.connection.name, ike = core.unique_id, peer = %core.path.remote, "CHILD SA refused: {error}");
            answer.extend(error.notify().map(Payload::Notify));
            core.respond(turn, ExchangeType::IKE_AUTH, &answer)
        }
    }
}

/// A child that was asked for while the IKE SA could not be made.
pub(crate) fn all_failed(init: &mut Initiating, core: &Core, turn: &mut Turn<'_>, cause: &Cause) {
    let offered = init.offer.take().map(|offer| offer.release(turn));
    let requests: Vec<ChildRequest> = offered.into_iter().chain(init.requests.drain(..)).collect();
    let notice = |child| Notice::ChildFailed { connection: core.connection.clone(), child, cause: cause.clone() };
    if requests.is_empty() {
        turn.notices.push_back(notice(None));
    }
    turn.notices.extend(requests.into_iter().map(|request| notice(Some(request.child))));
}
