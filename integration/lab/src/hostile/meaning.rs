//! Mutations of meaning: payloads that parse and say something nobody says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ike_wire::ids::{
    AttributeType, AuthMethod, CertEncoding, ConfigurationAttributeType, ConfigurationType, IdType, KeyExchangeId,
    NotifyType, PayloadType, ProtocolId, TransformType, TsType,
};
use ike_wire::{
    Attribute, AttributeValue, Authentication, Certificate, Configuration, ConfigurationAttribute, Delete,
    Identification, KeyExchange, Nonce, Notify, OtherSelector, Payload, Proposal, SecurityAssociation, SelectorRange,
    TrafficSelector, TrafficSelectors, Transform, UnknownPayload,
};

use super::dice::Dice;

/// Changes what the payloads say. Those whose index `keep` names stay.
pub fn payloads(dice: &mut Dice, payloads: &mut Vec<Payload<'static>>, keep: &[PayloadType]) {
    for _ in 0..dice.between(1, 3) {
        let index = dice.below(payloads.len());
        match dice.below(8) {
            0 => payloads.insert(index, stray(dice)),
            1 => {
                let free = payloads.get(index).is_some_and(|payload| !keep.contains(&payload.kind()));
                if free && dice.one_in(3) {
                    payloads.remove(index);
                }
            }
            2 => payloads.reverse(),
            _ => {
                if let Some(payload) = payloads.get_mut(index)
                    && !keep.contains(&payload.kind())
                {
                    change(dice, payload);
                }
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is replaced")]
fn change(dice: &mut Dice, payload: &mut Payload<'static>) {
    match payload {
        Payload::Sa(sa) => security_association(dice, sa),
        Payload::KeyExchange(ke) => key_exchange(dice, ke),
        Payload::IdInitiator(id) | Payload::IdResponder(id) => *id = identification(dice),
        Payload::Auth(auth) => authentication(dice, auth),
        Payload::Nonce(nonce) => nonce_of(dice, nonce),
        Payload::Notify(notify) => *notify = notification(dice, notify),
        Payload::Delete(delete) => *delete = deletion(dice, delete),
        Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => traffic_selectors(dice, selectors),
        other => *other = stray(dice),
    }
}

fn security_association(dice: &mut Dice, sa: &mut SecurityAssociation) {
    let count = sa.proposals.len();
    match dice.below(6) {
        0 => {
            let again = sa.proposals.clone();
            let times = dice.between(1, 60);
            sa.proposals.extend(again.into_iter().cycle().take(times.min(63_usize.saturating_sub(count))));
            if dice.one_in(2) {
                for (number, proposal) in (1..=u8::MAX).zip(&mut sa.proposals) {
                    proposal.number = number;
                }
            }
        }
        1 => sa.proposals.reverse(),
        _ => {
            let index = dice.below(count);
            if let Some(proposal) = sa.proposals.get_mut(index) {
                change_proposal(dice, proposal);
            }
        }
    }
}

fn change_proposal(dice: &mut Dice, proposal: &mut Proposal) {
    let count = proposal.transforms.len();
    let index = dice.below(count);
    match dice.below(9) {
        0 => proposal.number = dice.octet(),
        1 => proposal.protocol = ProtocolId(dice.below(5) as u8),
        2 => {
            let octets = dice.pick(&[0_usize, 4, 8]).unwrap_or(4);
            proposal.spi = dice.octets(octets);
        }
        3 => proposal.spi = vec![0; proposal.spi.len()],
        4 if count > 0 => drop(proposal.transforms.remove(index)),
        5 => {
            let many = dice.between(1, 120);
            let drawn: Vec<Transform> = (0..many).map(|_| transform(dice)).collect();
            proposal.transforms.extend(drawn);
            proposal.transforms.truncate(255);
        }
        6 => proposal.transforms.insert(index, transform(dice)),
        _ => {
            let drawn = transform(dice);
            if let Some(old) = proposal.transforms.get_mut(index) {
                match dice.below(3) {
                    0 => old.key_length = drawn.key_length,
                    1 => old.id = drawn.id,
                    _ => *old = drawn,
                }
            }
        }
    }
}

fn transform(dice: &mut Dice) -> Transform {
    let kind = TransformType(dice.between(0, 13) as u8);
    let id = if dice.one_in(5) { dice.next_u64() as u16 } else { dice.below(40) as u16 };
    let mut transform = Transform::new(kind, id);
    if dice.one_in(2) {
        transform.key_length =
            dice.pick(&[Some(0), Some(1), Some(128), Some(192), Some(256), Some(0xffff), None]).flatten();
    }
    if dice.one_in(6) {
        let value = if dice.one_in(2) {
            AttributeValue::Short(dice.next_u64() as u16)
        } else {
            AttributeValue::Long(dice.octets(9))
        };
        transform.attributes.push(Attribute { kind: AttributeType(dice.between(1, 40) as u16), value });
    }
    transform
}

fn key_exchange(dice: &mut Dice, ke: &mut KeyExchange<'static>) {
    if dice.one_in(2) {
        ke.method = KeyExchangeId(dice.below(40) as u16);
    }
    let length = ke.data.len();
    match dice.below(5) {
        0 => ke.data = vec![0; length].into(),
        1 => ke.data = vec![0xff; length].into(),
        2 => {
            ke.data = dice
                .pick(&[0_usize, 1, 31, 33, 64, 96, 256, 384, 1_568])
                .map_or_else(Vec::new, |count| dice.octets(count))
                .into()
        }
        // The point of order two, and others of small order on Curve25519.
        3 => {
            let mut octets = vec![0; length];
            if let Some(first) = octets.first_mut() {
                *first = 1;
            }
            ke.data = octets.into();
        }
        _ => ke.data = dice.octets(length).into(),
    }
}

fn identification(dice: &mut Dice) -> Identification<'static> {
    let length = dice.pick(&[0_usize, 1, 4, 5, 16, 17, 255, 2_000]).unwrap_or(4);
    let data = match dice.below(4) {
        0 => b"%any*?\x1b[31m\n\0gw-b.example".to_vec(),
        1 => vec![0x30; length],
        _ => dice.octets(length),
    };
    let mut id = Identification::new(IdType(dice.below(14) as u8), data);
    if dice.one_in(4) {
        id.reserved = [dice.octet(), dice.octet(), dice.octet()];
    }
    id
}

fn authentication(dice: &mut Dice, auth: &mut Authentication<'static>) {
    if dice.one_in(2) {
        auth.method = AuthMethod(dice.below(16) as u8);
    }
    let length = dice.pick(&[0_usize, 1, 20, 32, 33, 64, 512]).unwrap_or(32);
    auth.data = dice.octets(length).into();
}

fn nonce_of(dice: &mut Dice, nonce: &mut Nonce<'static>) {
    let length = dice.between(16, 256);
    nonce.data = if dice.one_in(4) { vec![0; length].into() } else { dice.octets(length).into() };
}

fn notify_kind(dice: &mut Dice) -> NotifyType {
    NotifyType(match dice.below(8) {
        0 => dice.next_u64() as u16,
        // Errors close things; a few are enough.
        1 => dice.between(1, 48) as u16,
        _ => dice.between(16_384, 16_450) as u16,
    })
}

fn notification(dice: &mut Dice, old: &Notify<'static>) -> Notify<'static> {
    let length = dice.pick(&[0_usize, 1, 2, 4, 8, 20, 64, 1_000]).unwrap_or(4);
    match dice.below(5) {
        0 => Notify::new(notify_kind(dice), dice.octets(length)),
        1 => Notify::about(old.kind, ProtocolId(dice.below(5) as u8), dice.next_u64() as u32),
        2 => Notify { data: dice.octets(length).into(), ..old.clone() },
        3 => Notify { protocol: ProtocolId(dice.octet()), ..old.clone() },
        _ => Notify { kind: notify_kind(dice), ..old.clone() },
    }
}

fn deletion(dice: &mut Dice, old: &Delete<'static>) -> Delete<'static> {
    let protocol =
        dice.pick(&[ProtocolId::ESP, ProtocolId::AH]).filter(|_| !dice.one_in(20)).unwrap_or(ProtocolId::IKE);
    match dice.below(6) {
        0 => Delete { protocol, ..old.clone() },
        1 => Delete { protocol, spi_size: 4, octets: old.octets.repeat(dice.between(2, 40)).into() },
        2 if dice.one_in(20) => {
            let many: Vec<u32> = (0..14_000).map(|_| dice.next_u64() as u32).collect();
            Delete::child_sas(protocol, &many)
        }
        3 => Delete::child_sas(protocol, &[]),
        4 => Delete::child_sas(protocol, &[0, 1, 255, u32::MAX]),
        _ => Delete::child_sas(protocol, &[dice.next_u64() as u32]),
    }
}

fn traffic_selectors(dice: &mut Dice, selectors: &mut TrafficSelectors) {
    match dice.below(6) {
        0 => selectors.selectors.clear(),
        1 => {
            let many = dice.between(1, 254);
            selectors.selectors = (0..many).map(|_| selector(dice)).collect();
        }
        2 => selectors.selectors.push(selector(dice)),
        3 => selectors.selectors.insert(0, selector(dice)),
        _ => {
            let index = dice.below(selectors.selectors.len());
            if let Some(TrafficSelector::Range(range)) = selectors.selectors.get_mut(index) {
                change_range(dice, range);
            }
        }
    }
}

fn change_range(dice: &mut Dice, range: &mut SelectorRange) {
    match dice.below(4) {
        0 => range.protocol = dice.octet(),
        1 => (range.start_port, range.end_port) = (u16::MAX, 0),
        2 => (range.start_port, range.end_port) = (dice.next_u64() as u16, dice.next_u64() as u16),
        _ => {
            if let Some(TrafficSelector::Range(other)) = Some(selector(dice)) {
                range.addresses = other.addresses;
            }
        }
    }
}

fn selector(dice: &mut Dice) -> TrafficSelector {
    if dice.one_in(12) {
        let length = dice.below(40);
        return TrafficSelector::Other(OtherSelector {
            kind: TsType(dice.between(9, 20) as u8),
            protocol: dice.octet(),
            body: dice.octets(length),
        });
    }
    let address = |dice: &mut Dice, v6: bool| -> IpAddr {
        match (dice.below(4), v6) {
            (0, false) => Ipv4Addr::UNSPECIFIED.into(),
            (1, false) => Ipv4Addr::BROADCAST.into(),
            (2, false) => Ipv4Addr::new(10, dice.below(3) as u8, 0, dice.octet()).into(),
            (_, false) => Ipv4Addr::from(dice.next_u64() as u32).into(),
            (0, true) => Ipv6Addr::UNSPECIFIED.into(),
            (1, true) => Ipv6Addr::from(u128::MAX).into(),
            (_, true) => Ipv6Addr::from((u128::from(dice.next_u64()) << 64) | u128::from(dice.next_u64())).into(),
        }
    };
    let v6 = dice.one_in(3);
    let (start, end) = (address(dice, v6), address(dice, v6));
    let ports = if dice.one_in(2) { (0, u16::MAX) } else { (dice.next_u64() as u16, dice.next_u64() as u16) };
    let protocol = dice.pick(&[0_u8, 1, 6, 17, 58, 255]).unwrap_or(0);
    let any = || TrafficSelector::Other(OtherSelector { kind: TsType::TS_SECLABEL, protocol: 0, body: Vec::new() });
    TrafficSelector::range(protocol, ports.0, ports.1, start, end).unwrap_or_else(any)
}

/// A payload that nobody asked for.
fn stray(dice: &mut Dice) -> Payload<'static> {
    let length = dice.below(64);
    match dice.below(9) {
        0 => Payload::Delete(deletion(dice, &Delete::child_sas(ProtocolId::ESP, &[1]))),
        1 => Payload::Certificate(Certificate::new(CertEncoding(dice.below(16) as u8), dice.octets(length))),
        2 => {
            let attributes = (0..dice.below(20))
                .map(|_| ConfigurationAttribute {
                    kind: ConfigurationAttributeType(dice.below(32) as u16),
                    value: dice.octets(dice.clone().below(20)).into(),
                })
                .collect();
            Payload::Configuration(Configuration { kind: ConfigurationType(dice.below(6) as u8), attributes })
        }
        3 => Payload::Unknown(UnknownPayload {
            kind: PayloadType(dice.between(54, 255) as u8),
            critical: dice.one_in(5),
            body: dice.octets(length).into(),
        }),
        4 => Payload::IdResponder(identification(dice)),
        5 => {
            let count = dice.below(4);
            Payload::TsInitiator(TrafficSelectors::new((0..count).map(|_| selector(dice)).collect()))
        }
        _ => Payload::Notify(Notify::new(notify_kind(dice), dice.octets(length))),
    }
}
