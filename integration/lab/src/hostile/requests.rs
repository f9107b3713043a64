//! Well-formed requests below SK: what mutation starts from.

use anyhow::Result;
use ike_crypto::StartedKeyExchange;
use ike_wire::ids::{ConfigurationType, ExchangeType, KeyExchangeId, NotifyType, ProtocolId};
use ike_wire::{Configuration, Delete, IkeSpi, KeyExchange, Nonce, Notify, Payload, SecurityAssociation, VendorId};

use super::dice::Dice;
use super::peer::{IkeSa, Profile, draw_spi, esp_proposal, ike_proposal, start_key_exchange};

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// IKE_SA_INIT.
    Init,
    /// IKE_AUTH.
    Auth,
    /// CREATE_CHILD_SA for a further CHILD SA.
    CreateChild,
    /// CREATE_CHILD_SA that rekeys a CHILD SA.
    RekeyChild,
    /// CREATE_CHILD_SA that rekeys the IKE SA.
    RekeyIke,
    /// INFORMATIONAL.
    Informational,
    /// Answers to requests of the daemon.
    Answer,
}

impl Purpose {
    /// All, in the order of the report.
    pub const ALL: [Purpose; 7] = [
        Purpose::Init,
        Purpose::Auth,
        Purpose::CreateChild,
        Purpose::RekeyChild,
        Purpose::RekeyIke,
        Purpose::Informational,
        Purpose::Answer,
    ];

    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Init => "IKE_SA_INIT",
            Purpose::Auth => "IKE_AUTH",
            Purpose::CreateChild => "CREATE_CHILD_SA (new child)",
            Purpose::RekeyChild => "CREATE_CHILD_SA (rekey child)",
            Purpose::RekeyIke => "CREATE_CHILD_SA (rekey IKE SA)",
            Purpose::Informational => "INFORMATIONAL",
            Purpose::Answer => "answers to the daemon's requests",
        }
    }

    /// The exchange it belongs to.
    #[must_use]
    pub fn exchange(self) -> ExchangeType {
        match self {
            Purpose::Init => ExchangeType::IKE_SA_INIT,
            Purpose::Auth => ExchangeType::IKE_AUTH,
            Purpose::CreateChild | Purpose::RekeyChild | Purpose::RekeyIke => ExchangeType::CREATE_CHILD_SA,
            Purpose::Informational | Purpose::Answer => ExchangeType::INFORMATIONAL,
        }
    }
}

/// A request before it is mutated.
#[derive(Debug)]
pub struct Request {
    /// What it wants.
    pub purpose: Purpose,
    /// Its payloads.
    pub payloads: Vec<Payload<'static>>,
    /// The key exchange under way, where it has one.
    pub started: Option<Box<dyn StartedKeyExchange>>,
}

/// Draws a request that an established IKE SA may carry.
///
/// # Errors
/// No randomness.
pub fn draw(ike: &IkeSa, profile: &Profile, dice: &mut Dice) -> Result<Request> {
    match dice.below(10) {
        0..=1 => create_child(profile, dice, None),
        2..=4 => {
            let old = dice.pick(&ike.children.iter().map(|child| child.ours).collect::<Vec<_>>());
            let old = old.unwrap_or_else(|| draw_spi(dice));
            create_child(profile, dice, Some(old))
        }
        5 => rekey_ike(dice),
        _ => Ok(Request { purpose: Purpose::Informational, payloads: informational(ike, dice), started: None }),
    }
}

fn create_child(profile: &Profile, dice: &mut Dice, rekeys: Option<u32>) -> Result<Request> {
    let started = if dice.one_in(2) { Some(start_key_exchange()?) } else { None };
    let mut payloads = Vec::new();
    if let Some(old) = rekeys {
        payloads.push(Payload::Notify(Notify::about(NotifyType::REKEY_SA, ProtocolId::ESP, old)));
    }
    let proposal = esp_proposal(draw_spi(dice), started.is_some());
    payloads.push(Payload::Sa(SecurityAssociation::new(vec![proposal])));
    payloads.push(Payload::Nonce(Nonce::new(dice.octets(32))));
    if let Some(started) = &started {
        let public = started.public_value().to_vec();
        payloads.push(Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, public)));
    }
    payloads.extend(profile.selectors());
    let purpose = if rekeys.is_some() { Purpose::RekeyChild } else { Purpose::CreateChild };
    Ok(Request { purpose, payloads, started })
}

fn rekey_ike(dice: &mut Dice) -> Result<Request> {
    let started = start_key_exchange()?;
    let proposal = ike_proposal().with_ike_spi(IkeSpi(dice.next_u64() | 1));
    let payloads = vec![
        Payload::Sa(SecurityAssociation::new(vec![proposal])),
        Payload::Nonce(Nonce::new(dice.octets(32))),
        Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, started.public_value().to_vec())),
    ];
    Ok(Request { purpose: Purpose::RekeyIke, payloads, started: Some(started) })
}

fn informational(ike: &IkeSa, dice: &mut Dice) -> Vec<Payload<'static>> {
    let child = dice.pick(&ike.children.iter().map(|child| child.ours).collect::<Vec<_>>());
    let spi = child.unwrap_or_else(|| draw_spi(dice));
    match dice.below(8) {
        0 => Vec::new(),
        1 => vec![Payload::Delete(Delete::child_sas(ProtocolId::ESP, &[spi]))],
        2 => {
            let count = dice.below(64);
            let spis: Vec<u32> = (0..count).map(|_| draw_spi(dice)).chain([spi]).collect();
            vec![Payload::Delete(Delete::child_sas(ProtocolId::ESP, &spis))]
        }
        3 => vec![Payload::Notify(Notify::plain(NotifyType::INITIAL_CONTACT))],
        4 => vec![
            Payload::Notify(Notify::plain(NotifyType::UPDATE_SA_ADDRESSES)),
            Payload::Notify(Notify::new(NotifyType::COOKIE2, dice.octets(16))),
            Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, dice.octets(20))),
        ],
        5 => {
            vec![Payload::Configuration(Configuration { kind: ConfigurationType::CFG_REQUEST, attributes: Vec::new() })]
        }
        6 => vec![
            Payload::VendorId(VendorId::new(dice.octets(16))),
            Payload::Delete(Delete::child_sas(ProtocolId::AH, &[spi])),
        ],
        _ => vec![Payload::Notify(Notify::about(NotifyType::INVALID_SELECTORS, ProtocolId::ESP, spi))],
    }
}
