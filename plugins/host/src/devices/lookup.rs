//! The route lookup: which links a packet of ours may leave through.

use std::net::IpAddr;

use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use super::super::links::{address_family, out_links};
use super::super::netlink::{Netlink, Refusal, octets};
use super::super::prefix::Family;
use super::path::NoDevice;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// The links of all next hops of the route from `local` to `remote`.
pub(super) fn links_to(route: &mut Netlink, local: IpAddr, remote: IpAddr, mark: u32) -> Result<Vec<u32>, NoDevice> {
    if remote.is_unspecified() {
        return Err(NoDevice::NoRoute { remote, reason: "the peer's address is not known".to_owned() });
    }
    let source = Some(local).filter(|local| !local.is_unspecified() && local.is_ipv4() == remote.is_ipv4());
    let answer = match ask(route, source, remote, mark) {
        // The kernel looks up nothing for a source that is not an address of this host, as one that is yet to come.
        Err(refusal) if source.is_some() && refusal.is_any(&[libc::EINVAL, libc::ENETUNREACH, libc::EADDRNOTAVAIL]) => {
            ask(route, None, remote, mark)
        }
        answer => answer,
    };
    answer.map_err(|refusal| NoDevice::NoRoute { remote, reason: refusal.to_string() })
}

/// The matching entry itself, not the hop that one packet would take: there may be several.
fn ask(route: &mut Netlink, source: Option<IpAddr>, remote: IpAddr, mark: u32) -> Result<Vec<u32>, Refusal> {
    let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
    let length = if remote.is_ipv4() { 32 } else { 128 };
    let mut request = RouteMessage::default();
    request.header.address_family = address_family(family);
    request.header.destination_prefix_length = length;
    request.header.flags = RouteFlags::FibMatch;
    request.attributes.push(RouteAttribute::Destination(remote.into()));
    request.attributes.push(RouteAttribute::Mark(mark));
    if let Some(source) = source {
        request.header.source_prefix_length = length;
        request.attributes.push(RouteAttribute::Source(source.into()));
    }
    let answers = route.ask(RTM_GETROUTE, &octets(&request))?;
    let mut links = Vec::new();
    for answer in answers.iter().filter(|answer| answer.kind == RTM_NEWROUTE && answer.body.len() >= 12) {
        if let Ok(message) = RouteMessage::parse(&answer.body) {
            links.extend(out_links(&message));
        }
    }
    Ok(links)
}
