//! The rules of the kernel, ours and those of others, as `ip rule` writes them.

use netlink_packet_core::Parseable;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::super::links::address_family;
use super::super::netlink::{Netlink, Refusal, octets};
use super::super::prefix::Family;
use super::{OURS, RTM_GETRULE, RTM_NEWRULE};

/// A rule of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRule {
    /// Its family.
    pub family: Family,
    /// Lower is looked at first.
    pub priority: u32,
    /// One of ours.
    pub ours: bool,
    /// The table that it leads to, if it leads to one.
    pub table: Option<u32>,
    /// As `ip` takes it.
    pub text: String,
}

/// All rules in order.
pub(in super::super) fn seen(route: &mut Netlink) -> Result<Vec<SeenRule>, Refusal> {
    let mut all = Vec::new();
    for family in Family::ALL {
        let mut request = RuleMessage::default();
        request.header.family = address_family(family);
        for message in route.dump(RTM_GETRULE, &octets(&request))? {
            if message.kind == RTM_NEWRULE && message.body.len() >= 12 {
                all.extend(RuleMessage::parse(&message.body).ok().map(|rule| read(family, &rule)));
            }
        }
    }
    all.sort_by_key(|rule| (rule.family, rule.priority));
    Ok(all)
}

fn read(family: Family, rule: &RuleMessage) -> SeenRule {
    let (mut priority, mut ours, mut table) = (0, false, u32::from(rule.header.table));
    let (mut from, mut to, mut mark, mut mask) = (None, None, None, None);
    let (mut words, mut target, mut protocol) = (Vec::new(), None, None);
    for attribute in &rule.attributes {
        if let RuleAttribute::Priority(value) = attribute {
            priority = *value;
        } else if let RuleAttribute::Protocol(value) = attribute {
            ours = *value == OURS;
            protocol = Some(u8::from(*value));
        } else if let RuleAttribute::Table(value) = attribute {
            table = *value;
        } else if let RuleAttribute::Source(address) = attribute {
            from = Some(*address);
        } else if let RuleAttribute::Destination(address) = attribute {
            to = Some(*address);
        } else if let RuleAttribute::FwMark(value) = attribute {
            mark = Some(*value);
        } else if let RuleAttribute::FwMask(value) = attribute {
            mask = Some(*value);
        } else if let RuleAttribute::Iifname(name) = attribute {
            words.push(format!("iif {name}"));
        } else if let RuleAttribute::Oifname(name) = attribute {
            words.push(format!("oif {name}"));
        } else if let RuleAttribute::IpProtocol(protocol) = attribute {
            words.push(format!("ipproto {}", i32::from(*protocol)));
        } else if let RuleAttribute::SourcePortRange(range) = attribute {
            words.push(format!("sport {}-{}", range.start, range.end));
        } else if let RuleAttribute::DestinationPortRange(range) = attribute {
            words.push(format!("dport {}-{}", range.start, range.end));
        } else if let RuleAttribute::Goto(priority) = attribute {
            target = Some(*priority);
        }
    }
    let side = |address: Option<std::net::IpAddr>, length: u8| {
        address.map_or_else(|| "all".to_owned(), |address| format!("{address}/{length}"))
    };
    let mut text = format!("{} rule add", if family == Family::V4 { "-4" } else { "-6" });
    if rule.header.flags.contains(RuleFlags::Invert) {
        text.push_str(" not");
    }
    text.push_str(&format!(" from {} to {}", side(from, rule.header.src_len), side(to, rule.header.dst_len)));
    if let Some(mark) = mark {
        text.push_str(&format!(" fwmark {mark:#x}"));
        text.push_str(&mask.map(|mask| format!("/{mask:#x}")).unwrap_or_default());
    }
    for word in words {
        text.push(' ');
        text.push_str(&word);
    }
    text.push_str(&action(rule.header.action, table, target));
    text.push_str(&format!(" priority {priority}"));
    text.push_str(&protocol.map(|protocol| format!(" protocol {protocol}")).unwrap_or_default());
    let leads = rule.header.action == RuleAction::ToTable;
    SeenRule { family, priority, ours, table: leads.then_some(table), text }
}

fn action(action: RuleAction, table: u32, target: Option<u32>) -> String {
    for (word, of) in [
        (" blackhole", RuleAction::Blackhole),
        (" unreachable", RuleAction::Unreachable),
        (" prohibit", RuleAction::Prohibit),
        (" nop", RuleAction::Nop),
    ] {
        if action == of {
            return word.to_owned();
        }
    }
    match target {
        Some(target) => format!(" goto {target}"),
        None => format!(" lookup {table}"),
    }
}
