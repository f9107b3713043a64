//! Answers to what the daemon asks: right in form, wrong in content.

use anyhow::Result;
use ike_wire::ids::{ExchangeType, ProtocolId};
use ike_wire::{
    Chain, IkeSpi, KeyExchange, Nonce, Payload, Payloads, Proposal, SecurityAssociation, Transform, encode_chain,
    parse_chain,
};

use super::dice::Dice;
use super::keys::provider;
use super::peer::{Asked, IkeSa, draw_spi, polite};
use super::{meaning, mutate};

/// A mutated answer; now and then a polite one.
///
/// # Errors
/// The cryptography refused.
pub fn mutated(dice: &mut Dice, ike: &IkeSa, asked: &Asked) -> Result<Chain> {
    let payloads = match parse_chain(asked.chain.first, &asked.chain.octets, 0) {
        Ok(payloads) if asked.exchange == ExchangeType::CREATE_CHILD_SA => agreeing(dice, &payloads),
        Ok(_) | Err(_) => Some(Vec::new()),
    };
    let Some(mut payloads) = payloads else { return polite(ike, asked) };
    let valid = encode_chain(&payloads)?;
    match dice.below(4) {
        0 => Ok(valid),
        1 => Ok(mutate::chain(dice, &valid)),
        _ => {
            meaning::payloads(dice, &mut payloads, &[]);
            Ok(encode_chain(&payloads).unwrap_or(valid))
        }
    }
}

/// What a responder that agrees would say; `None` when the request holds too little.
fn agreeing(dice: &mut Dice, asked: &Payloads<'_>) -> Option<Vec<Payload<'static>>> {
    let offered = asked.sa()?.proposals.first()?;
    let chosen = Proposal::new(offered.number, offered.protocol, one_of_each(&offered.transforms));
    let chosen = if offered.protocol == ProtocolId::IKE {
        chosen.with_ike_spi(IkeSpi(dice.next_u64() | 1))
    } else {
        chosen.with_spi(draw_spi(dice))
    };
    let mut payloads =
        vec![Payload::Sa(SecurityAssociation::new(vec![chosen])), Payload::Nonce(Nonce::new(dice.octets(32)))];
    if let Some(ke) = asked.key_exchange() {
        let method = provider().key_exchange(ke.method)?;
        let (public, _) = method.respond(provider().random, &ke.data).ok()?;
        payloads.push(Payload::KeyExchange(KeyExchange::new(ke.method, public)));
    }
    if let (Some(ts_i), Some(ts_r)) = (asked.ts_initiator(), asked.ts_responder()) {
        payloads.push(Payload::TsInitiator(ts_i.clone()));
        payloads.push(Payload::TsResponder(ts_r.clone()));
    }
    Some(payloads)
}

fn one_of_each(transforms: &[Transform]) -> Vec<Transform> {
    let mut chosen: Vec<Transform> = Vec::new();
    for transform in transforms {
        if chosen.iter().all(|other| other.kind != transform.kind) {
            chosen.push(transform.clone());
        }
    }
    chosen
}
