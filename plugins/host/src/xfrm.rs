//! Template-less XFRM policies (allow and block) in the kernel's SPD, and the marker by which ours are known.
//!
//! Ours have an index inside [`INDEXES`] *and* a priority inside [`PRIORITIES`] or a `user` of ours. The kernel hands out indexes from below, so
//! no foreign policy gets one of ours by chance, and the kernel's own table is the journal: a daemon that starts after a crash finds its
//! leftovers there. We delete by index only, so a policy that somebody put in the place of ours is never touched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipsec::Mark;
use netlink_packet_core::DefaultNla;
use netlink_packet_xfrm::policy::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{Selector, UserPolicyId, UserPolicyInfo, XFRM_USER_POLICY_INFO_LEN, XfrmAttrs};

use super::netlink::{Netlink, Refusal, attributes, octets, u32_of};
use super::prefix::{Family, Prefix};

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_DELPOLICY: u16 = 0x14;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
const XFRM_MSG_FLUSHPOLICY: u16 = 0x1d;
const XFRMA_TMPL: u16 = 5;
const XFRMA_POLICY: u16 = 7;
const XFRMA_MARK: u16 = 21;
const XFRMA_OFFLOAD_DEV: u16 = 28;
const XFRMA_IF_ID: u16 = 31;

/// Indexes of our policies; the low three bits are the direction.
pub const INDEXES: RangeInclusive<u32> = 0x4300_0000..=0x43ff_ffff;
/// Indexes of the policies by which the kernel backend protects traffic.
pub const PROTECTING: RangeInclusive<u32> = 0x4400_0000..=0x44ff_ffff;
/// Priorities of our policies: the worst there are.
pub const PRIORITIES: RangeInclusive<u32> = 0xffff_0000..=0xffff_0fff;

/// The `user` of the guard's policies and of the exemptions beside protecting ones.
pub const USER: u32 = 0x4347;
/// With an interface index in the other bits, the `user` of exemptions that a device holds.
const IN_DEVICE: u32 = 1 << 31;
/// XFRM_OFFLOAD_PACKET.
const PACKET: u8 = 4;

/// Which packets a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Delivered to this host.
    In,
    /// Leaving this host, forwarded or its own.
    Out,
    /// Forwarded.
    Forward,
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Let pass, or apply the templates.
    Allow,
    /// Drop.
    Block,
}

/// Ports as the kernel compares them: `port & mask == value`. For ICMP the source port is the type, the destination port the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMask {
    /// What the bits of the mask are.
    pub value: u16,
    /// Bits that count; 0 = any port.
    pub mask: u16,
}

/// What the kernel tells policies apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Which packets are looked at.
    pub way: Way,
    /// Source addresses.
    pub source: Prefix,
    /// Destination addresses.
    pub destination: Prefix,
    /// IP protocol; 0 = any.
    pub protocol: u8,
    /// Source ports, or the ICMP type.
    pub source_port: PortMask,
    /// Destination ports, or the ICMP code.
    pub destination_port: PortMask,
    /// Egress interface; 0 = any. (The kernel compares the egress also for `Forward`, and loopback for `In`.)
    pub link: u32,
    /// Packet mark.
    pub mark: Option<Mark>,
    /// Interface id; 0 = none.
    pub if_id: u32,
    /// The selector's `user`: the kernel compares it between policies but never with packets, so policies of equal selectors that differ in it
    /// stand beside each other.
    pub user: u32,
}

/// A policy found in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Selector.
    pub key: PolicyKey,
    /// What it does.
    pub verdict: Verdict,
    /// The lowest number is looked at first.
    pub priority: u32,
    /// The kernel's number for it.
    pub index: u32,
    /// Interface index of the device that holds it.
    pub device: Option<u32>,
}

impl Way {
    /// The kernel's number for it.
    pub const fn number(self) -> u8 {
        match self {
            Self::In => 0,
            Self::Out => 1,
            Self::Forward => 2,
        }
    }

    /// From the kernel's number; policies of single sockets have others.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::In),
            1 => Some(Self::Out),
            2 => Some(Self::Forward),
            _ => None,
        }
    }

    /// The index number `count` of this direction.
    pub fn index(self, count: u32) -> u32 {
        let span = INDEXES.end() - INDEXES.start();
        INDEXES.start() | ((count << 3) & span) | u32::from(self.number())
    }
}

impl PolicyKey {
    /// All packets between two prefixes.
    pub fn between(way: Way, source: Prefix, destination: Prefix) -> Self {
        let port = PortMask::default();
        Self {
            way,
            source,
            destination,
            protocol: 0,
            source_port: port,
            destination_port: port,
            link: 0,
            mark: None,
            if_id: 0,
            user: 0,
        }
    }

    /// The same beside those of other owners: as one of ours, held by software or by the device of this index.
    #[must_use]
    pub const fn owned(self, device: Option<u32>) -> Self {
        let user = match device {
            Some(device) => IN_DEVICE | device,
            None => USER,
        };
        Self { user, ..self }
    }

    /// The device that holds it, as far as it is one of ours.
    pub const fn device(&self) -> Option<u32> {
        if self.user & IN_DEVICE == 0 { None } else { Some(self.user & !IN_DEVICE) }
    }

    /// Everything of a family.
    pub fn everything(way: Way, family: Family) -> Self {
        Self::between(way, Prefix::any(family), Prefix::any(family))
    }

    /// Address family.
    pub const fn family(&self) -> Family {
        self.source.family()
    }

    /// Its selector in a message.
    pub fn selector(&self) -> Selector {
        let mut selector = Selector {
            dport: self.destination_port.value,
            dport_mask: self.destination_port.mask,
            sport: self.source_port.value,
            sport_mask: self.source_port.mask,
            family: self.family().number(),
            prefixlen_d: self.destination.length(),
            prefixlen_s: self.source.length(),
            proto: self.protocol,
            ifindex: i32::try_from(self.link).unwrap_or_default(),
            user: self.user,
            ..Selector::default()
        };
        selector.saddr.addr = padded(self.source.address());
        selector.daddr.addr = padded(self.destination.address());
        selector
    }

    /// The attributes that go with the selector: mark and interface id.
    pub fn attributes(&self) -> Vec<XfrmAttrs> {
        let other = |kind, value: &[u8]| XfrmAttrs::Other(DefaultNla::new(kind, value.to_vec()));
        let mark =
            self.mark.map(|mark| other(XFRMA_MARK, &[mark.value.to_ne_bytes(), mark.mask.to_ne_bytes()].concat()));
        let if_id = (self.if_id != 0).then(|| other(XFRMA_IF_ID, &self.if_id.to_ne_bytes()));
        mark.into_iter().chain(if_id).collect()
    }

    /// The key in a message: its selector, its direction, and the attributes after the fixed part. `None` for what has no such key, as the
    /// policies of single sockets.
    pub fn read(selector: &Selector, direction: u8, attributes: &[u8]) -> Option<Self> {
        let family = match selector.family {
            2 => Family::V4,
            10 => Family::V6,
            _ => return None,
        };
        Some(Self {
            way: Way::from_number(direction)?,
            source: Prefix::new(unpadded(family, selector.saddr.addr), selector.prefixlen_s),
            destination: Prefix::new(unpadded(family, selector.daddr.addr), selector.prefixlen_d),
            protocol: selector.proto,
            source_port: PortMask { value: selector.sport, mask: selector.sport_mask },
            destination_port: PortMask { value: selector.dport, mask: selector.dport_mask },
            link: u32::try_from(selector.ifindex).ok()?,
            mark: mark(attributes),
            if_id: attribute(attributes, XFRMA_IF_ID).and_then(u32_of).unwrap_or(0),
            user: selector.user,
        })
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::In => "in",
            Way::Out => "out",
            Way::Forward => "fwd",
        };
        write!(f, "{way} {} -> {}", self.source, self.destination)?;
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        for (name, port) in [("sport", self.source_port), ("dport", self.destination_port)] {
            if port.mask != 0 {
                write!(f, " {name} {}/{:#x}", port.value, port.mask)?;
            }
        }
        if self.link != 0 {
            write!(f, " link {}", self.link)?;
        }
        if let Some(mark) = self.mark {
            write!(f, " mark {mark}")?;
        }
        if self.if_id == 0 { Ok(()) } else { write!(f, " if_id {:#x}", self.if_id) }
    }
}

/// Adds a policy; `replace` takes the place of the one with the same key.
pub fn install(xfrm: &mut Netlink, policy: &Found, replace: bool) -> Result<(), Refusal> {
    let Found { key, verdict, priority, index, device } = policy;
    let mut message = ModifyMessage { user_policy_info: information(key, *verdict), nlas: key.attributes() };
    message.user_policy_info.priority = *priority;
    message.user_policy_info.index = *index;
    message.nlas.extend(device.map(offload));
    let kind = if replace { XFRM_MSG_UPDPOLICY } else { XFRM_MSG_NEWPOLICY };
    xfrm.request(kind, 0, &octets(&message))
}

/// `struct xfrm_user_offload`: interface index, flags, padding.
fn offload(device: u32) -> XfrmAttrs {
    let [a, b, c, d] = device.to_ne_bytes();
    XfrmAttrs::Other(DefaultNla::new(XFRMA_OFFLOAD_DEV, vec![a, b, c, d, PACKET, 0, 0, 0]))
}

/// The policy with this key and index as the kernel has it, if it has it.
pub fn get(xfrm: &mut Netlink, key: &PolicyKey, index: u32) -> Result<Option<Found>, Refusal> {
    let user_policy_id = UserPolicyId { selector: key.selector(), index, direction: key.way.number() };
    let message = DelGetMessage { user_policy_id, nlas: key.attributes() };
    match xfrm.ask(XFRM_MSG_GETPOLICY, &octets(&message)) {
        Err(refusal) if refusal.is_any(&[libc::ENOENT]) => Ok(None),
        answer => Ok(answer?.iter().find(|answer| answer.kind == XFRM_MSG_NEWPOLICY).and_then(|one| found(&one.body))),
    }
}

/// Deletes our policy with this key and index; one that is gone is no error.
pub fn delete(xfrm: &mut Netlink, key: &PolicyKey, index: u32) -> Result<(), Refusal> {
    let user_policy_id = UserPolicyId { selector: key.selector(), index, direction: key.way.number() };
    let message = DelGetMessage { user_policy_id, nlas: key.attributes() };
    match xfrm.request(XFRM_MSG_DELPOLICY, 0, &octets(&message)) {
        Err(refusal) if refusal.is_any(&[libc::ENOENT]) => Ok(()),
        answer => answer,
    }
}

/// Our policies in the kernel.
pub fn ours(xfrm: &mut Netlink) -> Result<Vec<Found>, Refusal> {
    Ok(all(xfrm)?.into_iter().map(|(found, _)| found).filter(Found::is_ours).collect())
}

/// All policies in the kernel, and whether they have templates, so that the kernel's own IPsec serves them. Policies of single sockets are
/// not shown.
pub fn all(xfrm: &mut Netlink) -> Result<Vec<(Found, bool)>, Refusal> {
    let request = octets(&DelGetMessage::default());
    let messages = xfrm.dump(XFRM_MSG_GETPOLICY, &request)?;
    let policies = messages.iter().filter(|message| message.kind == XFRM_MSG_NEWPOLICY);
    let read = |body: &[u8]| {
        let templates =
            attribute(body.get(XFRM_USER_POLICY_INFO_LEN..)?, XFRMA_TMPL).is_some_and(|all| !all.is_empty());
        Some((found(body)?, templates))
    };
    Ok(policies.filter_map(|message| read(&message.body)).collect())
}

/// Whether the kernel tells that a policy with an index of ours went or was changed, or cannot tell which.
pub fn concerns_ours(kind: u16, body: &[u8]) -> bool {
    /// `struct xfrm_userpolicy_id`.
    const ID: usize = 64;
    let information = match kind {
        XFRM_MSG_FLUSHPOLICY => return true,
        XFRM_MSG_UPDPOLICY => body.get(..XFRM_USER_POLICY_INFO_LEN),
        XFRM_MSG_DELPOLICY => body.get(ID..).and_then(|rest| attribute(rest, XFRMA_POLICY)),
        _ => return false,
    };
    let information = information.and_then(|octets| octets.get(..XFRM_USER_POLICY_INFO_LEN));
    information.and_then(|octets| UserPolicyInfo::parse(octets).ok()).is_none_or(|info| INDEXES.contains(&info.index))
}

/// The octets of a policy that lets everything of a family pass on one socket, for `way` in or out.
pub fn socket_policy(family: Family, way: Way) -> Vec<u8> {
    octets(&information(&PolicyKey::everything(way, family), Verdict::Allow))
}

impl Found {
    /// Whether it carries the marker of ours.
    pub fn is_ours(&self) -> bool {
        let user = self.key.user == USER || self.key.device().is_some();
        INDEXES.contains(&self.index) && (user || PRIORITIES.contains(&self.priority))
    }
}

fn information(key: &PolicyKey, verdict: Verdict) -> UserPolicyInfo {
    UserPolicyInfo {
        selector: key.selector(),
        direction: key.way.number(),
        action: match verdict {
            Verdict::Allow => 0,
            Verdict::Block => 1,
        },
        ..UserPolicyInfo::default()
    }
}

/// The policy in a message, unless it is one we never make (templates do not show here, but our marker does).
fn found(body: &[u8]) -> Option<Found> {
    let information = UserPolicyInfo::parse(body.get(..XFRM_USER_POLICY_INFO_LEN)?).ok()?;
    let attributes = body.get(XFRM_USER_POLICY_INFO_LEN..)?;
    let key = PolicyKey::read(&information.selector, information.direction, attributes)?;
    let verdict = match information.action {
        0 => Verdict::Allow,
        1 => Verdict::Block,
        _ => return None,
    };
    let UserPolicyInfo { priority, index, .. } = information;
    Some(Found { key, verdict, priority, index, device: attribute(attributes, XFRMA_OFFLOAD_DEV).and_then(held_by) })
}

/// The device in an offload attribute that says packet offload.
fn held_by(octets: &[u8]) -> Option<u32> {
    u32_of(octets).filter(|_| octets.get(4).is_some_and(|flags| flags & PACKET != 0))
}

/// The mark attribute, if there is one. The kernel shows none of mask 0.
pub fn mark(octets: &[u8]) -> Option<Mark> {
    let value = attribute(octets, XFRMA_MARK)?;
    Some(Mark { value: u32_of(value)?, mask: u32_of(value.get(4..)?)? })
}

/// The octets of the first attribute of a kind.
pub fn attribute(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(octets).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// An address as the kernel's structures hold it.
pub fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut out = [0; 16];
            for (slot, octet) in out.iter_mut().zip(v4.octets()) {
                *slot = octet;
            }
            out
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address in one of the kernel's structures.
pub fn unpadded(family: Family, octets: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::prefix::tests::prefix;
    use super::*;

    fn key() -> PolicyKey {
        PolicyKey {
            protocol: 6,
            destination_port: PortMask { value: 80, mask: 0xffff },
            link: 5,
            mark: Some(Mark::new(0x4347, u32::MAX)),
            if_id: 3,
            user: 0x4347,
            ..PolicyKey::between(Way::Forward, prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))
        }
    }

    #[test]
    fn what_is_installed_is_recognised_again() {
        for key in [key(), PolicyKey::everything(Way::In, Family::V6)] {
            let mut message =
                ModifyMessage { user_policy_info: information(&key, Verdict::Block), nlas: key.attributes() };
            message.user_policy_info.priority = *PRIORITIES.start();
            message.user_policy_info.index = key.way.index(3);
            let body = octets(&message);
            let again = found(&body).unwrap();
            assert_eq!((again.key, again.verdict), (key, Verdict::Block));
            assert!(again.is_ours());
            for cut in 0..XFRM_USER_POLICY_INFO_LEN {
                assert_eq!(found(&body[..cut]), None);
            }
        }
    }

    #[test]
    fn the_device_that_holds_a_policy_is_in_its_key_and_its_attribute() {
        assert_eq!((key().device(), key().owned(Some(3)).device(), key().owned(None).device()), (None, Some(3), None));
        let key = key().owned(Some(0x0102_0304));
        let mut message = ModifyMessage { user_policy_info: information(&key, Verdict::Allow), nlas: key.attributes() };
        message.nlas.extend(key.device().map(offload));
        let mut body = octets(&message);
        assert_eq!(found(&body).unwrap().device, Some(0x0102_0304));
        let flags = body.len() - 4;
        body[flags] = 0;
        assert_eq!(found(&body).unwrap().device, None, "crypto offload holds no policy");
    }

    /// Protecting policies change with every rekey: that is nothing to look at ours for.
    #[test]
    fn changes_of_others_are_told_from_those_of_ours() {
        let body = |index| {
            let mut message =
                ModifyMessage { user_policy_info: information(&key(), Verdict::Block), nlas: key().attributes() };
            message.user_policy_info.index = index;
            octets(&message)
        };
        let deleted = |index| {
            let id = UserPolicyId { selector: key().selector(), index: 0, direction: 1 };
            let policy =
                XfrmAttrs::Other(DefaultNla::new(XFRMA_POLICY, body(index)[..XFRM_USER_POLICY_INFO_LEN].to_vec()));
            octets(&DelGetMessage { user_policy_id: id, nlas: vec![policy] })
        };
        let (ours, other) = (Way::Out.index(5), *PROTECTING.start() | 1);
        assert!(concerns_ours(XFRM_MSG_UPDPOLICY, &body(ours)) && !concerns_ours(XFRM_MSG_UPDPOLICY, &body(other)));
        assert!(
            concerns_ours(XFRM_MSG_DELPOLICY, &deleted(ours)) && !concerns_ours(XFRM_MSG_DELPOLICY, &deleted(other))
        );
        assert!(!concerns_ours(XFRM_MSG_NEWPOLICY, &body(ours)) && concerns_ours(XFRM_MSG_FLUSHPOLICY, &[]));
        let whole = deleted(other);
        for cut in 0..whole.len() {
            let _ = concerns_ours(XFRM_MSG_DELPOLICY, &whole[..cut]);
        }
        assert!(concerns_ours(XFRM_MSG_DELPOLICY, &whole[..70]), "what cannot be read may be ours");
    }

    #[test]
    fn both_halves_of_the_marker_are_needed() {
        let key = PolicyKey { user: 0, ..key() };
        let mut found = Found { key, verdict: Verdict::Block, priority: 1, index: Way::In.index(0), device: None };
        assert!(!found.is_ours());
        found.key = key.owned(Some(7));
        assert!(found.is_ours());
        found.key = key;
        found.priority = *PRIORITIES.end();
        assert!(found.is_ours());
        found.index = 8;
        assert!(!found.is_ours());
    }

    #[test]
    fn indexes_stay_in_their_range_and_carry_the_direction() {
        for count in [0, 1, 0x1f_ffff, 0x20_0000, u32::MAX] {
            for way in [Way::In, Way::Out, Way::Forward] {
                assert!(INDEXES.contains(&way.index(count)));
                assert_eq!(way.index(count) & 7, u32::from(way.number()));
            }
        }
    }

    #[test]
    fn keys_print_what_matters() {
        assert_eq!(
            key().to_string(),
            "fwd 10.1.0.0/16 -> 10.2.0.0/16 proto 6 dport 80/0xffff link 5 mark 0x00004347/0xffffffff if_id 0x3"
        );
    }
}
