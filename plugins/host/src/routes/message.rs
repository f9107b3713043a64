//! Route messages of our table.

use netlink_packet_route::route::{RouteAttribute, RouteMessage};

use super::super::error::HostError;
use super::super::links;
use super::super::netlink::{Netlink, Refusal, octets};
use super::super::prefix::Prefix;
use super::super::rules::OURS;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

/// A route of ours for `prefix`, of no kind yet.
pub(super) fn blank(table: u32, prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = links::address_family(prefix.family());
    message.header.destination_prefix_length = prefix.length();
    message.header.table = links::header_table(table);
    message.header.protocol = OURS;
    message.attributes.push(RouteAttribute::Table(table));
    if !prefix.is_any() {
        message.attributes.push(RouteAttribute::Destination(prefix.address().into()));
    }
    message
}

/// Adds a route, or replaces the one with the same prefix and metric.
pub(super) fn add(route: &mut Netlink, message: &RouteMessage) -> Result<(), HostError> {
    route
        .request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &octets(message))
        .map_err(|refusal| refusal.on("add route", describe(message)))
}

/// Deletes a route; one that is gone is no error.
pub(super) fn remove(route: &mut Netlink, message: &RouteMessage) -> Result<(), HostError> {
    match route.request(RTM_DELROUTE, 0, &octets(message)) {
        Err(refusal) if refusal.is_any(&[libc::ESRCH, libc::ENODEV]) => Ok(()),
        answer => answer.map_err(|refusal: Refusal| refusal.on("delete route", describe(message))),
    }
}

/// The prefix of a route.
pub(super) fn destination(message: &RouteMessage) -> Option<Prefix> {
    let family = links::family(message.header.address_family)?;
    let address = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(address) = attribute { links::ip(address) } else { None }
    });
    let address = address.unwrap_or(Prefix::any(family).address());
    Some(Prefix::new(address, message.header.destination_prefix_length))
}

/// A route as errors name it.
pub(super) fn describe(message: &RouteMessage) -> String {
    let prefix = destination(message).map_or_else(|| "?".to_owned(), |prefix| prefix.to_string());
    let mut out = format!("{prefix} table {}", links::table(message));
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(link) = attribute {
            out.push_str(&format!(" link {link}"));
        }
    }
    out
}
