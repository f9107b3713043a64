//! Policies in messages: NEWPOLICY and UPDPOLICY, and what GETPOLICY and the events carry.

use std::net::IpAddr;

use ipsec::{Reqid, SaMode, Spi};
use netlink_packet_xfrm::{
    Id, UserOffloadDev, UserPolicyId, UserPolicyInfo, UserTemplate, XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL,
    XFRM_POLICY_ALLOW, XFRM_POLICY_BLOCK, XFRM_USER_POLICY_INFO_LEN, XFRM_USER_TEMPLATE_LEN, XFRMA_TMPL, XfrmAttrs,
};
use offload_host::Family;
use offload_host::xfrm::{PolicyKey, Verdict, attribute, unpadded};

use super::ESP;
use super::attributes::{XFRM_OFFLOAD_PACKET, XFRM_POLICY_CPU_ACQUIRE};
use super::body::Body;
use super::state::{address, family, read_offload};
use crate::xfrm::{Policy, Template};

/// The body of NEWPOLICY and UPDPOLICY.
pub(super) fn new_policy(policy: &Policy) -> Body {
    let mut body = Body::of(&UserPolicyInfo {
        selector: policy.key.selector(),
        priority: policy.priority,
        index: policy.index,
        direction: policy.key.way.number(),
        action: match policy.verdict {
            Verdict::Allow => XFRM_POLICY_ALLOW,
            Verdict::Block => XFRM_POLICY_BLOCK,
        },
        flags: if policy.per_cpu { XFRM_POLICY_CPU_ACQUIRE } else { 0 },
        ..UserPolicyInfo::default()
    });
    let template = policy.template.map(|template| XfrmAttrs::Template(vec![user_template(&template)]));
    let device = policy.device.map(device);
    template.into_iter().chain(policy.key.attributes()).chain(device).for_each(|attribute| body.attribute(&attribute));
    body
}

/// The body of GETPOLICY and DELPOLICY; index 0 = by the key alone.
pub(super) fn id(key: &PolicyKey, index: u32) -> Body {
    let mut body = Body::of(&UserPolicyId { selector: key.selector(), index, direction: key.way.number() });
    key.attributes().iter().for_each(|attribute| body.attribute(attribute));
    body
}

fn user_template(template: &Template) -> UserTemplate {
    UserTemplate {
        id: Id { daddr: address(template.destination), spi: template.spi.map_or(0, Spi::get), proto: ESP },
        family: Family::of(template.destination).number(),
        saddr: address(template.source),
        reqid: template.reqid.0,
        mode: match template.mode {
            SaMode::Tunnel => XFRM_MODE_TUNNEL,
            SaMode::Transport => XFRM_MODE_TRANSPORT,
        },
        optional: template.optional.into(),
        ..UserTemplate::default()
    }
}

/// The flags of a policy's device say packet offload and nothing else: its direction is known.
fn device(link: u32) -> XfrmAttrs {
    let ifindex = i32::try_from(link).unwrap_or_default();
    XfrmAttrs::OffloadDevice(UserOffloadDev { ifindex, flags: XFRM_OFFLOAD_PACKET })
}

/// The policy in a NEWPOLICY message from the kernel.
///
/// `None` for what is cut short, and for policies that a [`Policy`] cannot say: those of single sockets and those whose templates are several or
/// not of ESP in tunnel or transport mode.
pub fn read_policy(body: &[u8]) -> Option<Policy> {
    let (fixed, attributes) = body.split_at_checked(XFRM_USER_POLICY_INFO_LEN)?;
    let fixed = UserPolicyInfo::parse(fixed).ok()?;
    let template = match attribute(attributes, XFRMA_TMPL) {
        None | Some([]) => None,
        Some(octets) => Some(read_template(octets)?),
    };
    Some(Policy {
        key: PolicyKey::read(&fixed.selector, fixed.direction, attributes)?,
        priority: fixed.priority,
        index: fixed.index,
        verdict: match fixed.action {
            XFRM_POLICY_ALLOW => Verdict::Allow,
            XFRM_POLICY_BLOCK => Verdict::Block,
            _ => return None,
        },
        template,
        device: read_offload(attributes).filter(|device| device.packet).map(|device| device.link),
        per_cpu: fixed.flags & XFRM_POLICY_CPU_ACQUIRE != 0,
    })
}

fn read_template(octets: &[u8]) -> Option<Template> {
    (octets.len() == XFRM_USER_TEMPLATE_LEN).then_some(())?;
    let template = UserTemplate::parse(octets).ok()?;
    (template.id.proto == ESP).then_some(())?;
    let family = family(template.family)?;
    let unpadded = |address: netlink_packet_xfrm::Address| -> IpAddr { unpadded(family, address.addr) };
    Some(Template {
        source: unpadded(template.saddr),
        destination: unpadded(template.id.daddr),
        spi: Spi::new(template.id.spi),
        reqid: Reqid(template.reqid),
        mode: match template.mode {
            XFRM_MODE_TUNNEL => SaMode::Tunnel,
            XFRM_MODE_TRANSPORT => SaMode::Transport,
            _ => return None,
        },
        optional: template.optional != 0,
    })
}

/// Group of the first template, whatever it is; 0 = none.
pub(super) fn group(attributes: &[u8]) -> u32 {
    let first = attribute(attributes, XFRMA_TMPL).and_then(|octets| octets.get(..XFRM_USER_TEMPLATE_LEN));
    first.and_then(|octets| UserTemplate::parse(octets).ok()).map_or(0, |template| template.reqid)
}
