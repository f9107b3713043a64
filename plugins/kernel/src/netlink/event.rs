//! What the kernel tells by itself, out of the octets of one message.

use std::net::{IpAddr, SocketAddr};

use ipsec::{Mark, PacketSelectors, Spi};
use netlink_packet_xfrm::{
    Selector, UserAcquire, UserMapping, UserPolicyExpire, UserPolicyInfo, UserSaInfo, XFRM_MSG_ACQUIRE,
    XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_FLUSHPOLICY, XFRM_MSG_FLUSHSA, XFRM_MSG_MAPPING,
    XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_MSG_POLEXPIRE, XFRM_MSG_UPDPOLICY, XFRM_MSG_UPDSA, XFRM_POLICY_TYPE_MAIN,
    XFRM_USER_ACQUIRE_LEN, XFRM_USER_MAPPING_LEN, XFRM_USER_POLICY_EXPIRE_LEN, XFRM_USER_POLICY_ID_LEN,
    XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_ID_LEN, XFRM_USER_SA_INFO_LEN, XFRMA_POLICY, XFRMA_POLICY_TYPE, XFRMA_SA,
    XfrmAttrs,
};
use offload_host::netlink::u32_of;
use offload_host::xfrm::{PolicyKey, attribute, unpadded};

use super::ESP;
use super::attributes::{ExpireMessage, XFRMA_SA_PCPU};
use super::policy::group;
use super::state::{family, read_offload, state_id};
use crate::xfrm::{KernelEvent, StateId};

/// IPSEC_PROTO_ANY.
const EVERY_PROTOCOL: u8 = 255;

/// A message of a known type that makes no sense: cut short, or with values that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an XFRM notification of type {0:#x} makes no sense")]
pub struct Malformed(pub u16);

/// The event in a message; `None` for messages that tell nothing of ESP states and of policies.
///
/// A mapping names its state without the mark, because the kernel does not tell it.
///
/// # Errors
/// The message is cut short or its values make no sense.
pub fn read_event(kind: u16, body: &[u8]) -> Result<Option<KernelEvent>, Malformed> {
    match kind {
        XFRM_MSG_ACQUIRE => acquire(body),
        XFRM_MSG_EXPIRE => expire(body),
        XFRM_MSG_NEWSA | XFRM_MSG_UPDSA => state(body).map(|fixed| named(&fixed).map(KernelEvent::StateAdded)),
        XFRM_MSG_DELSA => deleted_state(body),
        XFRM_MSG_FLUSHSA => flushed_states(body),
        XFRM_MSG_NEWPOLICY | XFRM_MSG_UPDPOLICY => {
            policy(body, XFRM_USER_POLICY_INFO_LEN).map(|key| key.map(KernelEvent::PolicyChanged))
        }
        XFRM_MSG_DELPOLICY => deleted_policy(body),
        XFRM_MSG_POLEXPIRE => expired_policy(body),
        XFRM_MSG_FLUSHPOLICY => Some(flushed_policies(body)),
        XFRM_MSG_MAPPING => mapping(body).map(Some),
        _ => Some(None),
    }
    .ok_or(Malformed(kind))
}

/// A state's fixed part with the attributes after it.
type Fixed<'m> = (UserSaInfo, &'m [u8]);

fn state(body: &[u8]) -> Option<Fixed<'_>> {
    let (fixed, attributes) = body.split_at_checked(XFRM_USER_SA_INFO_LEN)?;
    Some((UserSaInfo::parse(fixed).ok()?, attributes))
}

fn named((fixed, attributes): &Fixed<'_>) -> Option<StateId> {
    state_id(fixed, attributes)
}

/// DELSA has the whole state in an attribute.
fn deleted_state(body: &[u8]) -> Option<Option<KernelEvent>> {
    let attributes = body.get(XFRM_USER_SA_ID_LEN..)?;
    let fixed = UserSaInfo::parse(attribute(attributes, XFRMA_SA)?.get(..XFRM_USER_SA_INFO_LEN)?).ok()?;
    Some(state_id(&fixed, attributes).map(KernelEvent::StateDeleted))
}

fn flushed_states(body: &[u8]) -> Option<Option<KernelEvent>> {
    let protocol = *body.first()?;
    Some([0, ESP, EVERY_PROTOCOL].contains(&protocol).then_some(KernelEvent::StatesFlushed))
}

fn expire(body: &[u8]) -> Option<Option<KernelEvent>> {
    let ExpireMessage { expire, nlas } = ExpireMessage::parse(body).ok()?;
    let mark = nlas.iter().find_map(|attribute| {
        let XfrmAttrs::Mark(mark) = attribute else { return None };
        Some(Mark { value: mark.value, mask: mark.mask })
    });
    let id = state_id(&expire.state, &[]);
    let counters = expire.state.lifetime_cur;
    Some(id.map(|id| KernelEvent::Expired {
        id: StateId { mark, ..id },
        hard: expire.hard != 0,
        bytes: counters.bytes,
        packets: counters.packets,
    }))
}

fn acquire(body: &[u8]) -> Option<Option<KernelEvent>> {
    let (fixed, attributes) = body.split_at_checked(XFRM_USER_ACQUIRE_LEN)?;
    let fixed = UserAcquire::parse(fixed).ok()?;
    if fixed.id.proto != ESP {
        return Some(None);
    }
    Some(Some(KernelEvent::Acquire {
        index: fixed.policy.index,
        reqid: group(attributes),
        packet: packet(&fixed.selector)?,
        sequence: fixed.seq,
        device: read_offload(attributes).map(|device| device.link),
        cpu: attribute(attributes, XFRMA_SA_PCPU).and_then(u32_of),
    }))
}

/// The packet that a selector of one flow describes. For ICMP the kernel has the type as the source port and the code as the destination port.
///
/// A fragment shows no ports, which the kernel says as two zeros; an ICMP echo reply is of type 0 and code 0.
fn packet(selector: &Selector) -> Option<PacketSelectors> {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMP_V6: u8 = 58;
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;
    let family = family(selector.family)?;
    let ports = match selector.proto {
        ICMP | ICMP_V6 => {
            let both = selector.sport.wrapping_shl(8) | (selector.dport & 0xff);
            Some((both, both))
        }
        TCP | UDP | SCTP | UDP_LITE => Some((selector.sport, selector.dport)).filter(|ports| *ports != (0, 0)),
        _ => None,
    };
    Some(PacketSelectors {
        source: unpadded(family, selector.saddr.addr),
        destination: unpadded(family, selector.daddr.addr),
        protocol: selector.proto,
        ports,
    })
}

fn mapping(body: &[u8]) -> Option<KernelEvent> {
    let mapping = UserMapping::parse(body.get(..XFRM_USER_MAPPING_LEN)?).ok()?;
    let family = family(mapping.id.family)?;
    let address = |address: netlink_packet_xfrm::Address| -> IpAddr { unpadded(family, address.addr) };
    Some(KernelEvent::Mapping {
        id: StateId { destination: address(mapping.id.daddr), spi: Spi::new(mapping.id.spi)?, mark: None },
        remote: SocketAddr::new(address(mapping.new_saddr), mapping.new_sport),
    })
}

/// The key of the policy at the beginning of `body`, with the attributes after `length` octets; `None` inside = that of a single socket.
fn policy(body: &[u8], length: usize) -> Option<Option<PolicyKey>> {
    let fixed = UserPolicyInfo::parse(body.get(..XFRM_USER_POLICY_INFO_LEN)?).ok()?;
    Some(PolicyKey::read(&fixed.selector, fixed.direction, body.get(length..)?))
}

/// DELPOLICY has the whole policy in an attribute: its fixed part says only the index when it was deleted by that.
fn deleted_policy(body: &[u8]) -> Option<Option<KernelEvent>> {
    let attributes = body.get(XFRM_USER_POLICY_ID_LEN..)?;
    let fixed = UserPolicyInfo::parse(attribute(attributes, XFRMA_POLICY)?.get(..XFRM_USER_POLICY_INFO_LEN)?).ok()?;
    Some(PolicyKey::read(&fixed.selector, fixed.direction, attributes).map(KernelEvent::PolicyDeleted))
}

/// Only the hard limit deletes a policy.
fn expired_policy(body: &[u8]) -> Option<Option<KernelEvent>> {
    let expired = UserPolicyExpire::parse(body.get(..XFRM_USER_POLICY_EXPIRE_LEN)?).ok()?;
    let key = policy(body, XFRM_USER_POLICY_EXPIRE_LEN)?;
    Some(key.filter(|_| expired.hard != 0).map(KernelEvent::PolicyDeleted))
}

/// Policies of the other type (sub-policies) are none of ours.
fn flushed_policies(body: &[u8]) -> Option<KernelEvent> {
    let kind = attribute(body, XFRMA_POLICY_TYPE).and_then(<[u8]>::first).copied();
    kind.is_none_or(|kind| kind == XFRM_POLICY_TYPE_MAIN).then_some(KernelEvent::PoliciesFlushed)
}

#[cfg(test)]
mod tests;
