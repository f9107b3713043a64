//! Why a packet does not arrive: one packet is walked through this gateway, step by step, over facts that others have collected.
//!
//! [`walk`] is pure. What it is told ([`Facts`]) comes from the configuration, the core, the backend and the host kernel; what it says
//! ([`Report`]) are steps in the order in which the packet takes them, and a verdict: the first broken one and what repairs it.
//!
//! ```text
//! outbound:  source ► forwarding ► reverse path ► route ► policy ► outer path ► child ► peer ► SA ► limits ► size ► counters
//! inbound:   outer path ► child ► peer ► SA ► limits ► counters ► policy ► forwarding ► reverse path ► destination
//! ```

mod child;
mod facts;
mod host;
mod policy;
mod report;
mod sa;
mod size;

#[cfg(test)]
mod tests;

use ipsec::PacketSelectors;

pub use facts::{ChildFacts, Drops, Facts, HostFacts, Link, Met, NoWay, Outer, Place, Tunnel, Way};
pub use report::{Code, Direction, Report, State, Step, StepName};
pub use size::largest_inner;

use policy::Match;

/// Walks the packet.
#[must_use]
pub fn walk(facts: &Facts) -> Report {
    let direction = direction(facts);
    let found = policy::find(facts, direction);
    let steps = match direction {
        Direction::Outbound => outbound(facts, &found),
        Direction::Inbound => inbound(facts, &found),
    };
    Report { direction, steps: steps.into_iter().flatten().collect() }
}

fn outbound(facts: &Facts, found: &Match<'_>) -> Vec<Option<Step>> {
    let way = Direction::Outbound;
    let mut steps = vec![host::source(facts), host::forwarding(facts, way), host::reverse_path(facts, way)];
    steps.push(host::route(facts, found));
    steps.push(host::kernel_policy(facts));
    steps.push(Some(policy::step(facts, Direction::Outbound, found)));
    steps.push(host::kernel_entry(facts, found));
    let Some(child) = found.protecting() else { return steps };
    steps.push(host::outer_path(facts, child));
    steps.push(Some(child::step(facts, child)));
    if let Some(sa) = sa::find(facts, child, found.sa()) {
        steps.extend([
            Some(sa::peer(&sa)),
            Some(sa::installed(facts, &sa)),
            sa::limits(&sa),
            size::step(facts, child, &sa),
            sa::outbound_counters(facts, &sa),
        ]);
    }
    steps
}

fn inbound(facts: &Facts, found: &Match<'_>) -> Vec<Option<Step>> {
    let mut steps = Vec::new();
    if let Some(child) = found.protecting() {
        steps.extend([host::outer_path(facts, child), Some(child::step(facts, child))]);
        if let Some(sa) = sa::find(facts, child, found.sa()) {
            steps.extend([
                Some(sa::peer(&sa)),
                Some(sa::installed(facts, &sa)),
                sa::limits(&sa),
                sa::inbound_counters(facts, &sa),
            ]);
        }
    }
    steps.push(Some(policy::step(facts, Direction::Inbound, found)));
    steps.push(host::kernel_entry(facts, found));
    let way = Direction::Inbound;
    steps.extend([host::forwarding(facts, way), host::reverse_path(facts, way), Some(host::destination(facts))]);
    steps
}

/// Which way a packet goes is a matter of the selectors first; where they say nothing, of where its ends are.
fn direction(facts: &Facts) -> Direction {
    let PacketSelectors { source, destination, .. } = facts.packet;
    if policy::find(facts, Direction::Outbound).is_match() {
        return Direction::Outbound;
    }
    if policy::find(facts, Direction::Inbound).is_match() {
        return Direction::Inbound;
    }
    let near = |place: &Place| place.local || place.near.is_some();
    // Nobody covers it: the nearest selectors say which side is meant to be ours.
    let ours = |address| {
        let pairs = facts.children.iter().flat_map(|child| &child.pairs);
        pairs.clone().any(|pair| pair.local.addresses.contains(address))
    };
    let inbound = (near(&facts.host.destination) && !near(&facts.host.source)) || (ours(destination) && !ours(source));
    if inbound { Direction::Inbound } else { Direction::Outbound }
}
