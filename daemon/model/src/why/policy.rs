//! The SPD entry that a packet meets (RFC 4301 §4.4.1), or why it meets none.

use ipsec::{Direction as Of, PacketSelectors, PolicyAction, PolicySpec, SelectorPair, TrafficSelector};

use super::facts::{ChildFacts, Facts};
use super::report::{Code, Direction, Step, StepName};
use crate::ChildMode;
use crate::snapshot::ConfiguredState;
use crate::specs::{ChildSpecs, Origin};

/// What covers a packet.
pub(super) enum Match<'a> {
    /// An SPD entry.
    Entry {
        /// Whose it is.
        specs: &'a ChildSpecs,
        /// The entry.
        policy: &'a PolicySpec,
        /// The configured child, for what protects.
        child: Option<&'a ChildFacts>,
        /// The protecting entry that would be met next.
        behind: Option<&'a PolicySpec>,
    },
    /// A configured child, of which nothing is installed that the packet meets.
    Configured(&'a ChildFacts),
    /// A configured child that is up, but the peer has agreed to less than is configured.
    Narrowed(&'a ChildFacts, Vec<SelectorPair>),
    /// Nothing.
    Nothing,
}

//= RFC 4301 §4.4.1: the SPD is an ordered list, and the first entry that matches counts
/// Finds it.
pub(super) fn find(facts: &Facts, direction: Direction) -> Match<'_> {
    let mut entries: Vec<_> = facts
        .specs
        .iter()
        .flat_map(|specs| specs.policies.iter().map(move |policy| (specs, policy)))
        .filter(|(_, policy)| of(direction) == policy.direction && matches(&policy.selectors, &facts.packet, direction))
        .collect();
    // Among equals the one that was installed last.
    entries.reverse();
    entries.sort_by_key(|(_, policy)| policy.priority);
    let narrowed = narrowed(facts, direction);
    match (entries.first(), narrowed) {
        (None | Some((_, PolicySpec { action: PolicyAction::Trap { .. }, .. })), Some(narrowed)) => narrowed,
        (Some((specs, policy)), _) => {
            let child = facts.children.iter().find(|child| child.is(&specs.connection, &specs.child));
            let behind = entries.iter().map(|(_, policy)| *policy).find(|policy| protects(policy));
            Match::Entry { specs, policy, child, behind }
        }
        (None, None) => {
            let mut fitting: Vec<_> = facts.children.iter().filter(|child| covers(child, facts, direction)).collect();
            fitting.sort_by_key(|child| child.status.state != ConfiguredState::Up);
            fitting.first().map_or(Match::Nothing, |child| Match::Configured(child))
        }
    }
}

/// A child that is up and configured for the packet, none of whose SAs takes it.
fn narrowed(facts: &Facts, direction: Direction) -> Option<Match<'_>> {
    let is_up = |child: &&ChildFacts| child.status.state == ConfiguredState::Up;
    let up: Vec<_> = facts.children.iter().filter(is_up).filter(|child| covers(child, facts, direction)).collect();
    let agreed = |child: &ChildFacts| -> Vec<SelectorPair> {
        let mine = facts.specs.iter().filter(|specs| child.is(&specs.connection, &specs.child));
        let of_sas = mine.filter(|specs| matches!(specs.origin, Origin::Sa(_)));
        of_sas.flat_map(|specs| &specs.sas).flat_map(|sa| sa.selectors.iter().copied()).collect()
    };
    let takes = |pairs: &[SelectorPair]| pairs.iter().any(|pair| matches(pair, &facts.packet, direction));
    let all: Vec<_> =
        up.into_iter().map(|child| (child, agreed(child))).filter(|(_, pairs)| !pairs.is_empty()).collect();
    if all.iter().any(|(_, pairs)| takes(pairs)) {
        return None;
    }
    all.into_iter().next().map(|(child, mut pairs)| {
        pairs.dedup();
        Match::Narrowed(child, pairs)
    })
}

fn covers(child: &ChildFacts, facts: &Facts, direction: Direction) -> bool {
    protecting(child) && child.pairs.iter().any(|pair| matches(pair, &facts.packet, direction))
}

fn protecting(child: &ChildFacts) -> bool {
    matches!(child.child.mode, ChildMode::Tunnel | ChildMode::Transport)
}

fn protects(policy: &PolicySpec) -> bool {
    matches!(policy.action, PolicyAction::Protect { .. } | PolicyAction::Trap { .. })
}

fn of(direction: Direction) -> Of {
    match direction {
        Direction::Outbound => Of::Outbound,
        Direction::Inbound => Of::Inbound,
    }
}

fn matches(pair: &SelectorPair, packet: &PacketSelectors, direction: Direction) -> bool {
    match direction {
        Direction::Outbound => pair.matches_outbound(packet),
        Direction::Inbound => pair.matches_inbound(packet),
    }
}

impl<'a> Match<'a> {
    /// Whether anything covers the packet.
    pub(super) fn is_match(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// The child whose SAs are to carry it.
    pub(super) fn protecting(&self) -> Option<&'a ChildFacts> {
        match self {
            Self::Entry { policy, child, .. } if protects(policy) => *child,
            Self::Configured(child) => Some(child),
            Self::Entry { .. } | Self::Narrowed(..) | Self::Nothing => None,
        }
    }

    /// The CHILD SA that the entry belongs to.
    pub(super) fn sa(&self) -> Option<u32> {
        match self {
            Self::Entry { specs: ChildSpecs { origin: Origin::Sa(id), .. }, .. } => Some(*id),
            Self::Entry { .. } | Self::Configured(_) | Self::Narrowed(..) | Self::Nothing => None,
        }
    }

    /// Whether an entry is installed that routing has to follow.
    pub(super) fn is_installed(&self) -> bool {
        matches!(self, Self::Entry { .. })
    }

    /// Whether routing has to lead the packet into the tunnel device.
    pub(super) fn is_led_into_tunnel(&self) -> bool {
        match self {
            Self::Entry { policy, .. } => policy.action != PolicyAction::Bypass,
            Self::Configured(_) | Self::Narrowed(..) | Self::Nothing => false,
        }
    }
}

/// What the packet meets.
pub(super) fn step(facts: &Facts, direction: Direction, found: &Match<'_>) -> Step {
    const NAME: StepName = StepName::Policy;
    match found {
        Match::Entry { policy, behind, .. } => {
            let PolicySpec { selectors, priority, name, .. } = policy;
            let what = format!("{selectors}, priority {priority}");
            match &policy.action {
                PolicyAction::Protect { .. } => Step::ok(NAME, format!("{name} protects it: {what}")),
                PolicyAction::Trap { .. } => {
                    Step::ok(NAME, format!("the trap of {name} takes it: {what}; a packet asks for the child"))
                }
                PolicyAction::Bypass => {
                    Step::note(NAME, format!("the pass shunt {name} lets it pass in clear: {what}{}", before(*behind)))
                }
                PolicyAction::Discard => {
                    let text = format!("the drop shunt {name} discards it: {what}{}", before(*behind));
                    Step::broken(
                        NAME,
                        Code::DropShunt,
                        text,
                        "remove the shunt, narrow it, or give it a worse priority",
                    )
                }
            }
        }
        Match::Configured(child) => {
            let pair = child.pairs.iter().find(|pair| matches(pair, &facts.packet, direction));
            let pair = pair.map(ToString::to_string).unwrap_or_default();
            Step::ok(NAME, format!("{} is configured for it: {pair}", child.name()))
        }
        Match::Narrowed(child, agreed) => narrowed_step(facts, direction, child, agreed),
        Match::Nothing => nothing(facts, direction),
    }
}

fn before(behind: Option<&PolicySpec>) -> String {
    behind.map_or_else(String::new, |policy| format!(", before {} (priority {})", policy.name, policy.priority))
}

fn narrowed_step(facts: &Facts, direction: Direction, child: &ChildFacts, agreed: &[SelectorPair]) -> Step {
    let agreed: Vec<_> = agreed.iter().map(ToString::to_string).collect();
    let text = format!("the peer has agreed to {} of {} only", agreed.join(", "), child.name());
    let (far, near) = match direction {
        Direction::Outbound => (facts.packet.destination, facts.packet.source),
        Direction::Inbound => (facts.packet.source, facts.packet.destination),
    };
    let fix = format!(
        "let the peer's selectors hold {far} (its local_ts) and {near} (its remote_ts), and establish the child again"
    );
    Step::broken(StepName::Policy, Code::Narrowed, text, fix)
}

fn nothing(facts: &Facts, direction: Direction) -> Step {
    let PacketSelectors { source, destination, .. } = facts.packet;
    let none = format!("no connection covers {source} to {destination}");
    let candidates = facts.children.iter().filter(|child| protecting(child));
    let misses =
        candidates.flat_map(|child| child.pairs.iter().map(move |pair| (child, Miss::of(pair, facts, direction))));
    let nearest = misses.min_by_key(|(_, miss)| miss.weight());
    let Some((child, miss)) = nearest.filter(|(_, miss)| miss.weight() < Miss::FAR) else {
        let fix = "configure a child whose local_ts and remote_ts hold them";
        return Step::broken(StepName::Policy, Code::NoPolicy, none, fix);
    };
    let text = format!("{none}; nearest is {}, {}", child.name(), miss.words.join(" and "));
    let keys = miss.keys.join(" and ");
    let fix = format!("widen {keys} of {} at both ends, or configure a child for it", child.name());
    Step::broken(StepName::Policy, Code::NoPolicy, text, fix)
}

/// How a packet misses a pair of selectors.
struct Miss {
    addresses: u32,
    upper: u32,
    words: Vec<String>,
    keys: Vec<&'static str>,
}

impl Miss {
    /// From here on nothing is near about it: neither address is inside.
    const FAR: u32 = 2 * Self::ADDRESS;
    const ADDRESS: u32 = 4;

    fn of(pair: &SelectorPair, facts: &Facts, direction: Direction) -> Self {
        let PacketSelectors { source, destination, protocol, ports } = facts.packet;
        let (from, to) = ports.map_or((None, None), |(from, to)| (Some(from), Some(to)));
        let (ours, theirs) = match direction {
            Direction::Outbound => ((source, from), (destination, to)),
            Direction::Inbound => ((destination, to), (source, from)),
        };
        let mut miss = Self { addresses: 0, upper: 0, words: Vec::new(), keys: Vec::new() };
        for (key, selector, (address, port)) in [("local_ts", &pair.local, ours), ("remote_ts", &pair.remote, theirs)] {
            miss.side(key, selector, address, protocol, port);
        }
        miss
    }

    fn side(
        &mut self,
        key: &'static str,
        selector: &TrafficSelector,
        address: std::net::IpAddr,
        protocol: u8,
        port: Option<u16>,
    ) {
        let what = if !selector.addresses.contains(address) {
            self.addresses += 1;
            address.to_string()
        } else if selector.protocol != 0 && selector.protocol != protocol {
            self.upper += 1;
            format!("protocol {protocol}")
        } else if !selector.ports.matches(port) {
            self.upper += 1;
            port.map_or_else(|| "a packet without ports".to_owned(), |port| format!("port {port}"))
        } else {
            return;
        };
        self.words.push(format!("whose {key} {selector} does not hold {what}"));
        self.keys.push(key);
    }

    fn weight(&self) -> u32 {
        self.addresses * Self::ADDRESS + self.upper
    }
}
