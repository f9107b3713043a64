//! The rungs of a device that a CHILD SA may run on: found before it is negotiated, narrowed by what was agreed on, climbed down at the install.
//!
//! Every question to the pre-flight check of [`ipsec::preflight`] goes through here. What is asked becomes more precise on the way: before
//! IKE_SA_INIT nobody knows whether there is NAT ([`check_early`]), before the peer has answered any of our transforms may come of it
//! ([`wanted`]), and then there is one set of transforms and selectors ([`agreed`]).

use ike_model::{Child, ChildMode, Connection};
use ike_wire::ids::NotifyType;
use ipsec::preflight::{Asks, Encapsulation, Entries, Plan, PolicyKind, Refusal, Suite, ladder_plan};
use ipsec::{Capabilities, Device, DeviceId, OffloadError, OffloadMode, OuterAddresses, Path, SaMode, SelectorPair};

use crate::admission::{Claim, TableSpace};
use crate::children::ChildSa;
use crate::core::Core;
use crate::error::Error;
use crate::io::Context;
use crate::negotiation::ChildRequest;
use crate::suite::EspSuite;
use crate::transport;
use crate::turn::Turn;

/// SAs of a CHILD SA.
const PAIR: u32 = 2;
/// SAs that a further CHILD SA must leave free, so that what is up can be rekeyed make-before-break.
pub(crate) const SPARE: u32 = 2;

/// Rungs that an agreed CHILD SA is tried on, and why others are out.
#[derive(Debug, Default)]
pub(crate) struct Ladder {
    /// Rungs to try, best first.
    rungs: Vec<OffloadMode>,
    /// Rungs that are out.
    out: Vec<Out>,
}

/// Why a rung is out.
#[derive(Debug)]
struct Out {
    mode: OffloadMode,
    kind: String,
    text: String,
}

/// Why a CHILD SA is not on the best rung of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortfall {
    /// The same for the same reasons, whatever the numbers in them.
    pub(crate) kind: Box<str>,
    /// In words.
    pub(crate) text: Box<str>,
}

impl Ladder {
    fn of(plan: &Plan<'_>) -> Self {
        let rungs = plan.rungs.iter().map(|rung| rung.mode.mode).collect();
        let out = plan.rejected.iter().map(|rejected| Out {
            mode: rejected.mode,
            kind: rejected.refusals.iter().map(Refusal::kind).collect::<Vec<_>>().join(" "),
            text: rejected.to_string(),
        });
        Self { rungs, out: out.collect() }
    }

    /// The next rung to try.
    pub(crate) fn step(&mut self) -> Option<OffloadMode> {
        (!self.rungs.is_empty()).then(|| self.rungs.remove(0))
    }

    /// Whether there is another rung to try.
    pub(crate) fn has_more(&self) -> bool {
        !self.rungs.is_empty()
    }

    /// The device has refused a rung.
    pub(crate) fn refused(&mut self, mode: OffloadMode, error: &OffloadError) {
        let kind = match error {
            OffloadError::Full { .. } => "full",
            OffloadError::Unsupported { .. } => "unsupported",
            OffloadError::Exists(_)
            | OffloadError::Missing(_)
            | OffloadError::Unavailable(_)
            | OffloadError::System { .. }
            | OffloadError::Invalid(_) => "failed",
        };
        self.out.push(Out { mode, kind: kind.to_owned(), text: error.to_string() });
    }

    /// What keeps a CHILD SA on this rung from a better one.
    pub(crate) fn shortfall(&self, mode: OffloadMode) -> Option<Shortfall> {
        let better: Vec<&Out> = self.out.iter().filter(|out| rank(out.mode) < rank(mode)).collect();
        let join = |part: fn(&Out) -> String, separator| {
            better.iter().map(|out| part(out)).collect::<Vec<_>>().join(separator)
        };
        (!better.is_empty()).then(|| Shortfall {
            kind: join(|out| format!("{:?} {}", out.mode, out.kind), ", ").into(),
            text: join(|out| out.text.clone(), "; ").into(),
        })
    }
}

/// Better rungs come first.
fn rank(mode: OffloadMode) -> u8 {
    match mode {
        OffloadMode::Packet => 0,
        OffloadMode::Crypto => 1,
        OffloadMode::No => 2,
        OffloadMode::Auto => 3,
    }
}

/// How entries of a device are reckoned.
#[derive(Clone, Copy, Default)]
struct Reckoning {
    /// Entries that are claimed already.
    own: Option<(OffloadMode, Entries)>,
    /// The rung of the predecessor, and the policies that it leaves.
    predecessor: Option<(OffloadMode, u32)>,
    /// SAs that are to stay free for the rekeying of what is up, except on the rung of the predecessor, whose own rekeying it is.
    spare: u32,
}

impl Reckoning {
    fn of(rekeys: Option<&ChildSa>, pairs: &[SelectorPair]) -> Self {
        let predecessor = rekeys.map(|old| (old.rung(), if *old.pairs == *pairs { policies(pairs) } else { 0 }));
        Self { own: None, predecessor, spare: SPARE }
    }

    /// What counts as held on a rung.
    fn held(self, mode: OffloadMode, held: Entries) -> Entries {
        let own = self.own.filter(|(rung, _)| *rung == mode).map_or(Entries::default(), |(_, entries)| entries);
        let predecessor = self.predecessor.filter(|(rung, _)| *rung == mode);
        let inherited = predecessor.map_or(0, |(_, policies)| policies);
        let spare = if predecessor.is_some() { 0 } else { self.spare };
        Entries {
            sas: held.sas.saturating_sub(own.sas).saturating_add(spare),
            policies: held.policies.saturating_sub(own.policies).saturating_sub(inherited),
        }
    }
}

/// Policies of a device for these selectors: forward policies are a matter of software.
fn policies(pairs: &[SelectorPair]) -> u32 {
    u32::try_from(pairs.len()).unwrap_or(u32::MAX).saturating_mul(2)
}

/// The same for the trap or shunt of a child in this mode: a trap waits for what leaves only.
pub(crate) fn policies_of(mode: ChildMode, pairs: &[SelectorPair]) -> u32 {
    match mode {
        ChildMode::Tunnel | ChildMode::Transport => policies(pairs) / 2,
        ChildMode::Pass | ChildMode::Drop => policies(pairs),
    }
}

fn plan<'c>(
    context: &Context<'c>,
    tables: &TableSpace,
    device: DeviceId,
    child: &Child,
    asks: &Asks,
    reckoning: Reckoning,
) -> Result<Plan<'c>, Error> {
    let device = context.devices.get(device).ok_or_else(|| Error::NoAdditionalSas("the device is not known".into()))?;
    let held = |mode| reckoning.held(mode, tables.held(device.id, mode));
    let plan = ladder_plan(device, child.hw_offload, asks, held);
    if plan.rungs.is_empty() { Err(unfit(child, &plan)) } else { Ok(plan) }
}

/// Nothing of what is asked can be carried. The last rung is the one that can do most: what is missing there decides what a peer is told.
fn unfit(child: &Child, plan: &Plan<'_>) -> Error {
    let last = plan.rejected.last().and_then(|rejected| rejected.refusals.first());
    let notify = last.map_or(NotifyType::NO_ADDITIONAL_SAS, |refusal| match refusal {
        Refusal::Cipher { .. }
        | Refusal::KeyLength { .. }
        | Refusal::IcvLength { .. }
        | Refusal::Esn
        | Refusal::Mode(_) => NotifyType::NO_PROPOSAL_CHOSEN,
        Refusal::AddressRange(_) | Refusal::Ports(_) | Refusal::Protocol { .. } => NotifyType::TS_UNACCEPTABLE,
        Refusal::Down
        | Refusal::Gone
        | Refusal::Rung { .. }
        | Refusal::ReplayWindow { .. }
        | Refusal::UdpEncapsulation { .. }
        | Refusal::PolicyKind(_)
        | Refusal::Marks
        | Refusal::InterfaceIds
        | Refusal::SaTable { .. }
        | Refusal::PolicyTable { .. } => NotifyType::NO_ADDITIONAL_SAS,
    });
    Error::Unfit { child: child.name.clone(), text: plan.reasons(), notify }
}

/// What a child asks now that it is known whether there is NAT on the way.
fn asks(turn: &Turn<'_>, core: &Core, child: &Child, mode: SaMode, pairs: &[SelectorPair]) -> Asks {
    let window = turn.context.config.settings.replay_window;
    let asks = child.asks(&core.connection, window, transport::outer(core.path));
    let encapsulation = match (core.connection.encap, core.nat.encapsulates()) {
        (true, _) => Encapsulation::Forced,
        (false, true) => Encapsulation::Nat,
        (false, false) => Encapsulation::Native,
    };
    let selectors = if child.policies { pairs.to_vec() } else { Vec::new() };
    let entries = Entries { sas: PAIR, policies: policies(&selectors) };
    Asks { mode, encapsulation, selectors, entries, ..asks }
}

/// The rungs on which a CHILD SA that is still to be negotiated may end, and the table entries that it is going to take.
pub(crate) struct Wanted<'c> {
    plan: Plan<'c>,
    /// Entries of the best rung, counted from now on.
    pub(crate) claim: Claim,
}

impl<'c> Wanted<'c> {
    /// What the rungs can carry, best first.
    pub(crate) fn capabilities(&self) -> Vec<&'c Capabilities> {
        self.plan.rungs.iter().map(|rung| &rung.capabilities).collect()
    }
}

/// Holds what a child asks against its device, before anything of it is negotiated.
///
/// # Errors
/// No rung that the configuration allows can carry it.
pub(crate) fn wanted<'c>(
    turn: &Turn<'c>,
    core: &Core,
    device: DeviceId,
    child: &Child,
    (mode, pairs): (SaMode, &[SelectorPair]),
    rekeys: Option<&ChildSa>,
) -> Result<Wanted<'c>, Error> {
    let asks = asks(turn, core, child, mode, pairs);
    let reckoning = Reckoning::of(rekeys, pairs);
    let plan = plan(turn.context, &turn.registry.tables, device, child, &asks, reckoning)?;
    let best = plan.rungs.first().map_or(OffloadMode::No, |rung| rung.mode.mode);
    let inherited = reckoning.predecessor.filter(|(mode, _)| *mode == best).map_or(0, |(_, policies)| policies);
    let claimed = Entries { policies: asks.entries.policies.saturating_sub(inherited), ..asks.entries };
    let claim = turn.registry.tables.claim(device, best, claimed);
    Ok(Wanted { plan, claim })
}

/// The rungs that can carry what was agreed on.
///
/// # Errors
/// There is none: the peer has narrowed it in a way that no rung can carry.
pub(crate) fn agreed(
    turn: &Turn<'_>,
    core: &Core,
    device: DeviceId,
    child: &Child,
    (mode, suite, pairs): (SaMode, EspSuite, &[SelectorPair]),
    claim: &mut Claim,
) -> Result<Ladder, Error> {
    let suites = vec![Suite { algorithm: suite.algorithm, esn: suite.esn }];
    let asks = Asks { suites, ..asks(turn, core, child, mode, pairs) };
    let inherited = asks.entries.policies.saturating_sub(claim.entries().policies);
    let reckoning = Reckoning {
        own: Some((claim.mode(), claim.entries())),
        predecessor: Some((claim.mode(), inherited)),
        spare: SPARE,
    };
    let plan = plan(turn.context, &turn.registry.tables, device, child, &asks, reckoning)?;
    if let Some(best) = plan.rungs.first().map(|rung| rung.mode.mode).filter(|best| *best != claim.mode()) {
        claim.move_to(best);
    }
    Ok(Ladder::of(&plan))
}

/// What the rungs that the configuration allows can carry, best first.
pub(crate) fn rungs<'c>(
    context: &Context<'c>,
    device: DeviceId,
    wanted: OffloadMode,
) -> impl Iterator<Item = &'c Capabilities> + use<'c> {
    let found = context.devices.get(device).into_iter();
    found.flat_map(move |device| device.ladder(wanted)).map(|rung| &rung.capabilities)
}

/// Which of the children that wait for an IKE SA cannot be carried on `path`, whatever the peer will say: found out before the first message.
pub(crate) fn check_early(
    turn: &Turn<'_>,
    connection: &Connection,
    path: Path,
    request: &ChildRequest,
) -> Result<(), Error> {
    let outer = transport::outer(path);
    let Some(device) = turn.context.spis.device_for(outer.local, outer.remote) else { return Ok(()) };
    let child = &request.child;
    let window = turn.context.config.settings.replay_window;
    let mut asks = child.asks(connection, window, outer);
    let mode = transport::mode(child);
    asks.selectors = if child.policies { pairs_between(child, mode, outer) } else { Vec::new() };
    asks.entries = Entries { sas: PAIR, policies: policies(&asks.selectors) };
    let reckoning = Reckoning { spare: SPARE, ..Reckoning::default() };
    plan(turn.context, &turn.registry.tables, device, child, &asks, reckoning).map(|_| ())
}

/// The selectors that a child is configured with between two outer addresses.
pub(crate) fn pairs_between(child: &Child, mode: SaMode, outer: OuterAddresses) -> Vec<SelectorPair> {
    let (local, remote) = transport::allowed(child, mode, outer);
    SelectorPair::product(&local, &remote)
}

/// The rungs for the trap of a configured child, plainest first, or for its shunt, best first.
///
/// # Errors
/// Why there is none, or why the child itself could never be carried.
pub(crate) fn for_policies(
    context: &Context<'_>,
    tables: &TableSpace,
    device: &Device,
    (connection, child): (&Connection, &Child),
    outer: OuterAddresses,
    pairs: &[SelectorPair],
) -> Result<Ladder, String> {
    let asks = child.asks(connection, context.config.settings.replay_window, outer);
    let asks = Asks { selectors: pairs.to_vec(), ..asks };
    let held = |mode| tables.held(device.id, mode);
    let kind = match child.mode {
        ChildMode::Tunnel | ChildMode::Transport => {
            let plan = ladder_plan(device, child.hw_offload, &asks, held);
            // What may pass is for the time when traffic comes.
            let lasting = |refusal: &Refusal| !refusal.may_pass();
            let never = plan.rejected.iter().all(|rejected| rejected.refusals.iter().any(lasting));
            if plan.rungs.is_empty() && never {
                return Err(plan.reasons());
            }
            PolicyKind::Trap
        }
        ChildMode::Pass | ChildMode::Drop => PolicyKind::Shunt,
    };
    let entries = Entries { sas: 0, policies: policies_of(child.mode, pairs) };
    let mut plan = ladder_plan(device, child.hw_offload, &Asks { kind, entries, ..asks }, held);
    // A device's policies are looked up before software's: a trap in the device would hide the policy of a child that ended up in software.
    if kind == PolicyKind::Trap {
        plan.rungs.reverse();
    }
    if plan.rungs.is_empty() { Err(plan.reasons()) } else { Ok(Ladder::of(&plan)) }
}
