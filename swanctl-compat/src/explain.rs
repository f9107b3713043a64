//! `cygnet explain`: what is or would be installed for a child, as the `ip xfrm` commands that would do the same.
//!
//! Pure: specifications in, lines out. Keys are never there to be shown: a command says `<key>` in their place. What `ip` cannot write becomes
//! a comment, never a command that says something else.

mod policy;
mod state;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ike_model::specs::{ChildSpecs, Origin};
use ipsec::{DeviceId, Direction, ModeInUse, PolicyAction, PolicyHandle, PolicySpec, SaHandle, SaSpec};

/// Commands with a word about why they are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `connection/child`.
    pub of: String,
    /// `installed` or `planned`.
    pub state: &'static str,
    /// Why they are there, one sentence.
    pub about: String,
    /// Commands, or comments that begin with `#`.
    pub commands: Vec<String>,
}

/// What a kernel backend holds, as commands written from what the kernel shows.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Policies: several where ranges are split, none where the kernel has lost it.
    pub policies: BTreeMap<PolicyHandle, Vec<String>>,
    /// SAs that are there.
    pub sas: BTreeMap<SaHandle, String>,
}

/// What the specifications do not say themselves.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The backend, as shown.
    pub backend: &'static str,
    /// Names of devices.
    pub devices: BTreeMap<DeviceId, Arc<str>>,
    /// Modes of installed SAs, read back.
    pub modes: BTreeMap<SaHandle, ModeInUse>,
    /// UDP ports of IKE; 0 = none.
    pub ike_ports: [u16; 2],
    /// Guard policies of the kernel that concern the child, as `ip xfrm` takes them; `Err` for those it cannot write.
    pub guard: Vec<Result<String, String>>,
    /// Rules and routes that lead traffic into the tunnel device, or choose its source, as `ip` takes them.
    pub routing: Vec<String>,
    /// What is in the kernel, where that is the data path and something is installed.
    pub held: Option<Held>,
}

/// The blocks of one CHILD SA, trap, shunt or plan, in the order of installation.
#[must_use]
pub fn blocks(specs: &ChildSpecs, around: &Surroundings) -> Vec<Block> {
    let of = format!("{}/{}", specs.connection, specs.child);
    let state = if specs.origin == Origin::Planned { "planned" } else { "installed" };
    let mut blocks = Vec::new();
    let mut block = |about: String, commands: Vec<String>| {
        if !commands.is_empty() {
            blocks.push(Block { of: of.clone(), state, about, commands });
        }
    };
    let protects = matches!(
        specs.policies.first().map(|policy| &policy.action),
        Some(PolicyAction::Protect { .. } | PolicyAction::Trap { .. })
    );
    if protects {
        block(GUARD.into(), around.guard.iter().map(|one| written("ip xfrm policy add ", one)).collect());
        block(
            bypass_about(around),
            specs.policies.first().map(|policy| policy::bypass(policy, around)).unwrap_or_default(),
        );
    }
    let routing = if around.backend == USERSPACE { ROUTING } else { SOURCES };
    block(routing.into(), around.routing.iter().map(|line| format!("ip {line}")).collect());
    let held = around.held.as_ref().filter(|_| specs.origin != Origin::Planned);
    let policy = |policy: &PolicySpec| match held {
        Some(held) => held_policy(policy, held),
        None => policy::commands(policy, outbound_sa(policy, specs), around),
    };
    let of_direction = |wanted: &[Direction]| {
        let some = specs.policies.iter().filter(|policy| wanted.contains(&policy.direction));
        some.flat_map(policy).collect::<Vec<_>>()
    };
    let sa = |sa: &SaSpec| match held {
        Some(held) => held.sas.get(&sa.handle).cloned().unwrap_or_else(|| format!("# the kernel has no SA {}", sa.spi)),
        None => state::command(sa, specs.origin, around),
    };
    block(about(specs, around, INBOUND), of_direction(&[Direction::Inbound, Direction::Forward]));
    block(about(specs, around, STATES), specs.sas.iter().map(sa).collect());
    block(about(specs, around, OUTBOUND), of_direction(&[Direction::Outbound]));
    blocks
}

fn held_policy(policy: &PolicySpec, held: &Held) -> Vec<String> {
    match held.policies.get(&policy.handle) {
        Some(commands) if !commands.is_empty() => commands.clone(),
        _ => vec![format!("# the kernel has no policy for {}", policy.selectors)],
    }
}

const USERSPACE: &str = "userspace";
const KERNEL: &str = "kernel";
const GUARD: &str =
    "The fail-closed guard: blocks in the kernel that outlive the daemon, and the exemptions beside them";
const ROUTING: &str =
    "What leads the traffic into the tunnel device, where the userspace data path takes it, and what leads around it";
const SOURCES: &str = "What has this host send from inside the local selector, and what leads around that";
const INBOUND: &str = "Policies for what arrives, for this host (in) and for others behind it (fwd)";
const STATES: &str = "SAs, inbound first: the peer may send as soon as it has our answer";
const OUTBOUND: &str = "The policy for what leaves comes last, when its SA is ready";

fn about(specs: &ChildSpecs, around: &Surroundings, text: &str) -> String {
    let whose = match (specs.origin, specs.policies.first().map(|policy| &policy.action)) {
        (_, Some(PolicyAction::Bypass)) => "pass shunt".to_owned(),
        (_, Some(PolicyAction::Discard)) => "drop shunt".to_owned(),
        (Origin::Sa(number), _) => format!("CHILD SA {number}"),
        (Origin::Trap, _) => "trap".to_owned(),
        (Origin::Planned, _) => "not up: with its first proposal and all its selectors".to_owned(),
    };
    let by = if around.backend == USERSPACE { ", held by the userspace data path" } else { "" };
    format!("{text} ({whose}{by})")
}

fn bypass_about(around: &Surroundings) -> String {
    let more =
        if around.backend == USERSPACE { " and marked so that routing leads them past the tunnel device" } else { "" };
    format!(
        "IKE and our own ESP pass: the daemon's sockets carry policies of their own{more}; as policies for all they would be"
    )
}

fn written(command: &str, one: &Result<String, String>) -> String {
    match one {
        Ok(text) => format!("{command}{text}"),
        Err(text) => format!("# ip cannot write it (masks of ports): {text}"),
    }
}

/// The outbound SA that a protecting policy uses.
fn outbound_sa<'a>(policy: &PolicySpec, specs: &'a ChildSpecs) -> Option<&'a SaSpec> {
    match &policy.action {
        PolicyAction::Protect { sa, .. } => specs.sas.iter().find(|spec| Some(spec.handle) == *sa),
        PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
    }
}
