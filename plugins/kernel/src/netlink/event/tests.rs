use netlink_packet_core::Emitable;
use netlink_packet_xfrm::{Id, UserExpire, UserPolicyId, UserSaId, UserTemplate, XFRMA_OFFLOAD_DEV, XFRMA_TMPL};
use offload_host::Family;
use offload_host::xfrm::Way;
use proptest::prelude::*;

use super::*;
use crate::netlink::body::Body;
use crate::netlink::state::{address, mark_attribute};

const MARK: Mark = Mark::new(5, 0xf);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id() -> StateId {
    StateId { destination: ip("2001:db8::2"), spi: Spi::new(0x1234).unwrap(), mark: Some(MARK) }
}

fn fixed() -> UserSaInfo {
    let mut fixed = UserSaInfo {
        id: Id { daddr: address(id().destination), spi: 0x1234, proto: ESP },
        family: Family::V6.number(),
        ..UserSaInfo::default()
    };
    (fixed.lifetime_cur.bytes, fixed.lifetime_cur.packets) = (1000, 10);
    fixed
}

fn sa_id() -> UserSaId {
    UserSaId { daddr: address(id().destination), spi: 0x1234, family: Family::V6.number(), proto: ESP }
}

fn octets(emitable: &impl Emitable) -> Vec<u8> {
    offload_host::netlink::octets(emitable)
}

fn key() -> PolicyKey {
    PolicyKey { mark: Some(MARK), if_id: 4, user: 1, ..PolicyKey::everything(Way::Out, Family::V4) }
}

fn policy_info() -> UserPolicyInfo {
    UserPolicyInfo { selector: key().selector(), direction: 1, index: 9, ..UserPolicyInfo::default() }
}

fn with_key_attributes(mut body: Body) -> Body {
    key().attributes().iter().for_each(|attribute| body.attribute(attribute));
    body
}

fn an_acquire(family: Family, proto: u8, sport: u16, dport: u16) -> Body {
    let (source, destination) = match family {
        Family::V4 => ("10.0.0.1", "10.0.0.2"),
        Family::V6 => ("fd00::1", "fd00::2"),
    };
    let mut acquire = UserAcquire { policy: policy_info(), seq: 77, ..UserAcquire::default() };
    acquire.id.proto = ESP;
    acquire.selector.family = family.number();
    (acquire.selector.saddr, acquire.selector.daddr) = (address(ip(source)), address(ip(destination)));
    (acquire.selector.proto, acquire.selector.sport, acquire.selector.dport) = (proto, sport, dport);
    let mut body = Body::of(&acquire);
    body.value(XFRMA_TMPL, &[&octets(&UserTemplate { reqid: 12, ..UserTemplate::default() })]);
    body
}

fn the_packet(body: &Body) -> PacketSelectors {
    match read_event(XFRM_MSG_ACQUIRE, body.octets()) {
        Ok(Some(KernelEvent::Acquire { packet, .. })) => packet,
        other => panic!("{other:?}"),
    }
}

/// One well-formed message of each kind and its event.
fn all() -> Vec<(u16, Body, KernelEvent)> {
    let mut expire = Body::of(&UserExpire { state: fixed(), hard: 1 });
    let mut new = Body::of(&fixed());
    let mut deleted = Body::of(&sa_id());
    deleted.value(XFRMA_SA, &[&octets(&fixed())]);
    for body in [&mut expire, &mut new, &mut deleted] {
        body.attribute(&mark_attribute(MARK));
    }
    let mut deleted_policy = Body::of(&UserPolicyId { index: 9, ..UserPolicyId::default() });
    deleted_policy.value(XFRMA_POLICY, &[&octets(&policy_info())]);
    let mut flushed = Body::empty();
    flushed.value(XFRMA_POLICY_TYPE, &[&[0, 0, 0, 0, 0, 0]]);
    let mapping =
        UserMapping { id: sa_id(), new_saddr: address(ip("2001:db8::7")), new_sport: 61_000, ..UserMapping::default() };
    let mut acquire = an_acquire(Family::V4, 6, 40_000, 443);
    acquire.value(XFRMA_OFFLOAD_DEV, &[&3_i32.to_ne_bytes(), &[4, 0, 0, 0]]);
    acquire.value(XFRMA_SA_PCPU, &[&1_u32.to_ne_bytes()]);
    let packet = PacketSelectors {
        source: ip("10.0.0.1"),
        destination: ip("10.0.0.2"),
        protocol: 6,
        ports: Some((40_000, 443)),
    };
    let heard = KernelEvent::Acquire { index: 9, reqid: 12, packet, sequence: 77, device: Some(3), cpu: Some(1) };
    vec![
        (XFRM_MSG_ACQUIRE, acquire, heard),
        (XFRM_MSG_EXPIRE, expire, KernelEvent::Expired { id: id(), hard: true, bytes: 1000, packets: 10 }),
        (XFRM_MSG_NEWSA, new, KernelEvent::StateAdded(id())),
        (XFRM_MSG_DELSA, deleted, KernelEvent::StateDeleted(id())),
        (XFRM_MSG_NEWPOLICY, with_key_attributes(Body::of(&policy_info())), KernelEvent::PolicyChanged(key())),
        (XFRM_MSG_DELPOLICY, with_key_attributes(deleted_policy), KernelEvent::PolicyDeleted(key())),
        (
            XFRM_MSG_POLEXPIRE,
            with_key_attributes(Body::of(&UserPolicyExpire { pol: policy_info(), hard: 1 })),
            KernelEvent::PolicyDeleted(key()),
        ),
        (XFRM_MSG_FLUSHPOLICY, flushed, KernelEvent::PoliciesFlushed),
        (
            XFRM_MSG_MAPPING,
            Body::of(&mapping),
            KernelEvent::Mapping {
                id: StateId { mark: None, ..id() },
                remote: SocketAddr::new(ip("2001:db8::7"), 61_000),
            },
        ),
    ]
}

#[test]
fn each_message_is_heard() {
    for (kind, body, event) in all() {
        assert_eq!(read_event(kind, body.octets()), Ok(Some(event)));
    }
}

#[test]
fn a_message_that_is_cut_short_is_told_apart_from_one_that_tells_nothing() {
    for (kind, body, event) in all() {
        for cut in 0..body.octets().len() {
            match read_event(kind, &body.octets()[..cut]) {
                Err(error) => assert_eq!(error, Malformed(kind)),
                // What is missing is an attribute at the end.
                Ok(Some(heard)) => assert_eq!(std::mem::discriminant(&heard), std::mem::discriminant(&event)),
                Ok(None) => panic!("{kind:#x} cut to {cut} octets tells nothing"),
            }
        }
    }
    assert_eq!(read_event(XFRM_MSG_FLUSHSA, &[]), Err(Malformed(XFRM_MSG_FLUSHSA)));
}

#[test]
fn flushes_of_other_protocols_and_types_are_not_ours() {
    for (protocol, flushed) in [(0, true), (ESP, true), (255, true), (51, false)] {
        let event = flushed.then_some(KernelEvent::StatesFlushed);
        assert_eq!(read_event(XFRM_MSG_FLUSHSA, &[protocol]), Ok(event));
    }
    let mut sub = Body::empty();
    sub.value(XFRMA_POLICY_TYPE, &[&[1, 0, 0, 0, 0, 0]]);
    assert_eq!(read_event(XFRM_MSG_FLUSHPOLICY, sub.octets()), Ok(None));
    let soft = with_key_attributes(Body::of(&UserPolicyExpire { pol: policy_info(), hard: 0 }));
    assert_eq!(read_event(XFRM_MSG_POLEXPIRE, soft.octets()), Ok(None));
}

#[test]
fn the_packet_of_an_acquire_is_as_selectors_want_it() {
    let cases = [
        (Family::V4, 1, (8, 0), Some((0x0800, 0x0800))),
        (Family::V4, 1, (0, 0), Some((0, 0))),
        (Family::V6, 58, (128, 3), Some((0x8003, 0x8003))),
        (Family::V6, 17, (500, 4500), Some((500, 4500))),
        (Family::V4, 17, (0, 0), None),
        (Family::V4, 47, (1, 2), None),
    ];
    for (family, protocol, (sport, dport), ports) in cases {
        let packet = the_packet(&an_acquire(family, protocol, sport, dport));
        assert_eq!((packet.protocol, packet.ports), (protocol, ports));
        assert_eq!(packet.source.is_ipv4(), family == Family::V4);
    }
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic(kind in 0x0f_u16..0x2a, octets in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = read_event(kind, &octets);
    }

    #[test]
    fn no_change_of_a_message_makes_the_reader_panic(which in 0_usize..9, at: prop::sample::Index, octet: u8) {
        let (kind, body, _) = all().swap_remove(which);
        let mut octets = body.octets().to_vec();
        let at = at.index(octets.len());
        octets[at] = octet;
        let _ = read_event(kind, &octets);
    }
}
