//! Policy routing rules: `not fwmark MARK lookup TABLE`, and those that lead around it.
//!
//! Three neighbouring priorities are ours. In the middle the rule that sends everything unmarked to our table. Before it rules that jump over
//! it, for pass shunts that a route cannot express and for outer addresses. After it the (empty) rule where they land.

mod seen;

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};

use super::error::HostError;
use super::links::{address_family, header_table};
use super::netlink::{Netlink, Refusal, octets};
use super::prefix::{Family, Prefix};

pub use seen::SeenRule;
pub(super) use seen::seen;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const ESP: u8 = 50;
const UDP: u8 = 17;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// The routing protocol number on our routes and rules, by which they are known; not assigned to anything else.
pub(super) const OURS: RouteProtocol = RouteProtocol::Other(67);

/// The numbers in `[backend.userspace]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) table: u32,
    pub(super) priority: u32,
    pub(super) mark: u32,
    /// UDP ports of IKE, one of which carries ESP too.
    pub(super) ike_ports: [u16; 2],
}

/// A rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// Everything without the mark looks into our table.
    Lookup(Family),
    /// Where jumps land.
    Landing(Family),
    /// These packets go around our table.
    Around(Around),
}

/// Packets that go around our table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Around {
    pub(super) from: Prefix,
    pub(super) to: Prefix,
    pub(super) protocol: u8,
    pub(super) source_ports: Option<(u16, u16)>,
    pub(super) destination_ports: Option<(u16, u16)>,
    /// Only packets of this host, and the check of the way back to a sender (rp_filter), which looks like one.
    pub(super) own: bool,
}

impl Around {
    /// Everything from one prefix to another.
    pub(super) fn all(from: Prefix, to: Prefix) -> Self {
        Self { from, to, protocol: 0, source_ports: None, destination_ports: None, own: false }
    }

    /// The way between an outer address of ours and a peer's.
    pub(super) fn outer(local: IpAddr, remote: IpAddr) -> Self {
        Self { own: true, ..Self::all(Prefix::host(local), Prefix::host(remote)) }
    }
}

impl Around {
    /// IKE and ESP between two hosts: protocol 50, and UDP from our ports. Narrow, because everything else between them is to be protected; also for
    /// packets that are not of this host, because a rule for those alone is not shown their ports.
    pub(super) fn keying(local: IpAddr, remote: IpAddr, ports: [u16; 2]) -> impl Iterator<Item = Self> {
        let all = Self::all(Prefix::host(local), Prefix::host(remote));
        let udp = move |port| Self { protocol: UDP, source_ports: Some((port, port)), ..all };
        [Self { protocol: ESP, ..all }].into_iter().chain(ports.into_iter().filter(|port| *port != 0).map(udp))
    }
}

impl Rule {
    fn family(&self) -> Family {
        match self {
            Self::Lookup(family) | Self::Landing(family) => *family,
            Self::Around(around) => around.from.family(),
        }
    }

    fn message(&self, numbers: &Numbers) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = address_family(self.family());
        message.attributes.push(RuleAttribute::Protocol(OURS));
        match self {
            Self::Lookup(_) => {
                message.header.action = RuleAction::ToTable;
                message.header.table = header_table(numbers.table);
                message.header.flags = RuleFlags::Invert;
                message.attributes.extend([
                    RuleAttribute::Priority(numbers.priority),
                    RuleAttribute::FwMark(numbers.mark),
                    RuleAttribute::FwMask(u32::MAX),
                    RuleAttribute::Table(numbers.table),
                ]);
            }
            Self::Landing(_) => {
                message.header.action = RuleAction::Nop;
                message.attributes.push(RuleAttribute::Priority(numbers.priority + 1));
            }
            Self::Around(around) => {
                message.header.action = RuleAction::Goto;
                message.header.src_len = around.from.length();
                message.header.dst_len = around.to.length();
                message
                    .attributes
                    .extend([RuleAttribute::Priority(numbers.priority - 1), RuleAttribute::Goto(numbers.priority + 1)]);
                message.attributes.extend(around.attributes());
            }
        }
        message
    }
}

impl Around {
    fn attributes(&self) -> Vec<RuleAttribute> {
        let range = |(start, end)| RulePortRange { start, end };
        let address = |prefix: Prefix| (!prefix.is_any()).then_some(prefix.address());
        [
            address(self.from).map(RuleAttribute::Source),
            address(self.to).map(RuleAttribute::Destination),
            (self.protocol != 0).then(|| RuleAttribute::IpProtocol(IpProtocol::from(i32::from(self.protocol)))),
            self.source_ports.map(|ports| RuleAttribute::SourcePortRange(range(ports))),
            self.destination_ports.map(|ports| RuleAttribute::DestinationPortRange(range(ports))),
            self.own.then(|| RuleAttribute::Iifname("lo".to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lookup(family) => write!(f, "{family:?} not fwmark lookup"),
            Self::Landing(family) => write!(f, "{family:?} landing"),
            Self::Around(around) => {
                write!(f, "from {} to {} proto {} goto", around.from, around.to, around.protocol)
            }
        }
    }
}

/// Adds a rule; one that is there already is no error. Gives whether it was not there.
pub(super) fn add(route: &mut Netlink, rule: &Rule, numbers: &Numbers) -> Result<bool, HostError> {
    match route.request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &octets(&rule.message(numbers))) {
        Err(refusal) if refusal.is_any(&[libc::EEXIST]) => Ok(false),
        answer => answer.map(|()| true).map_err(|refusal| refusal.on("add rule", rule)),
    }
}

/// Deletes a rule; one that is gone is no error.
pub(super) fn delete(route: &mut Netlink, rule: &Rule, numbers: &Numbers) -> Result<(), HostError> {
    remove(route, &rule.message(numbers)).map_err(|refusal| refusal.on("delete rule", rule))
}

/// Deletes the rules of ours that are not in `keep`: leftovers of a run that crashed or had other settings.
pub(super) fn clean(route: &mut Netlink, keep: &[Rule], numbers: &Numbers) -> Result<(), HostError> {
    let listed = |refusal: Refusal| refusal.on("list", "rules");
    let keep: Vec<_> = keep.iter().map(|rule| essence(&rule.message(numbers))).collect();
    for family in Family::ALL {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        for message in route.dump(RTM_GETRULE, &octets(&request)).map_err(listed)? {
            if message.kind != RTM_NEWRULE || message.body.len() < 12 {
                continue;
            }
            let Ok(mut rule) = RuleMessage::parse(&message.body) else { continue };
            if !rule.attributes.contains(&RuleAttribute::Protocol(OURS)) || keep.contains(&essence(&rule)) {
                continue;
            }
            rule.header.flags &= RuleFlags::Invert;
            remove(route, &rule).map_err(|refusal| refusal.on("delete rule", "of an earlier run"))?;
        }
    }
    Ok(())
}

/// What tells our basic rules apart.
fn essence(rule: &RuleMessage) -> (u8, u8, Option<u32>, Option<u32>, Option<u32>) {
    let mut essence = (rule.header.family.into(), rule.header.action.into(), None, None, None);
    for attribute in &rule.attributes {
        if let RuleAttribute::Priority(priority) = attribute {
            essence.2 = Some(*priority);
        } else if let RuleAttribute::FwMark(mark) = attribute {
            essence.3 = Some(*mark);
        } else if let RuleAttribute::Table(table) = attribute {
            // The kernel shows table 0 on rules that look nothing up.
            essence.4 = (*table != 0).then_some(*table);
        }
    }
    essence
}

fn remove(route: &mut Netlink, rule: &RuleMessage) -> Result<(), Refusal> {
    match route.request(RTM_DELRULE, 0, &octets(rule)) {
        Err(refusal) if refusal.is_any(&[libc::ENOENT]) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefix::tests::prefix;
    use super::*;

    const NUMBERS: Numbers = Numbers { table: 1220, priority: 220, mark: 0x4347, ike_ports: [500, 4500] };

    #[test]
    fn the_lookup_rule_is_inverted_and_names_a_table_beyond_255() {
        let message = Rule::Lookup(Family::V6).message(&NUMBERS);
        assert_eq!(message.header.flags, RuleFlags::Invert);
        assert_eq!(message.header.table, 0);
        assert!(message.attributes.contains(&RuleAttribute::Table(1220)));
        assert!(message.attributes.contains(&RuleAttribute::FwMark(0x4347)));
    }

    #[test]
    fn rules_around_the_table_jump_over_the_lookup() {
        let around = Around {
            from: prefix("10.1.0.0/16"),
            to: prefix("0.0.0.0/0"),
            protocol: 6,
            source_ports: None,
            destination_ports: Some((80, 88)),
            own: false,
        };
        let message = Rule::Around(around).message(&NUMBERS);
        assert_eq!((message.header.src_len, message.header.dst_len), (16, 0));
        let has = |attribute| message.attributes.contains(&attribute);
        assert!(has(RuleAttribute::Priority(219)) && has(RuleAttribute::Goto(221)));
        assert!(has(RuleAttribute::IpProtocol(IpProtocol::Tcp)));
        assert!(has(RuleAttribute::DestinationPortRange(RulePortRange { start: 80, end: 88 })));
        assert!(!message.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::Destination(_))));
    }

    #[test]
    fn basic_rules_differ_in_essence() {
        let of = |rule: Rule| essence(&rule.message(&NUMBERS));
        assert_ne!(of(Rule::Lookup(Family::V4)), of(Rule::Landing(Family::V4)));
        assert_ne!(of(Rule::Lookup(Family::V4)), of(Rule::Lookup(Family::V6)));
        let other = Numbers { mark: 1, ..NUMBERS };
        assert_ne!(of(Rule::Lookup(Family::V4)), essence(&Rule::Lookup(Family::V4).message(&other)));
    }
}
