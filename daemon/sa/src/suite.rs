//! Proposals: what is offered, what is chosen (RFC 7296 §2.7, §3.3).
//!
//! The chooser's own order decides, as configured; what neither the provider nor any rung of the device can do is never offered and never chosen.

use std::fmt::Write as _;

use ike_crypto::CryptoProvider;
use ike_model::proposal::{EspAlgorithms, IkeAlgorithms};
use ike_model::{Encryption, EspProposal, IkeProposal};
use ike_wire::ids::{EncryptionId, EsnId, IntegrityId, KeyExchangeId, PrfId, ProtocolId, TransformType};
use ike_wire::{IkeSpi, Proposal, Transform};
use ipsec::preflight::{self, Suite};
use ipsec::{Capabilities, EspAlgorithm, Spi};

/// Algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IkeSuite {
    /// Cipher.
    pub(crate) encryption: Encryption,
    /// Integrity, where the cipher is no AEAD.
    pub(crate) integrity: Option<IntegrityId>,
    /// Pseudorandom function.
    pub(crate) prf: PrfId,
    /// Key exchange method.
    pub(crate) method: KeyExchangeId,
}

/// Algorithms of a CHILD SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EspSuite {
    /// Cipher and integrity.
    pub(crate) algorithm: EspAlgorithm,
    /// Key exchange method of its own.
    pub(crate) method: Option<KeyExchangeId>,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
}

/// A choice out of the peer's proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen<S, I> {
    /// The algorithms.
    pub(crate) suite: S,
    /// Number of the proposal.
    pub(crate) number: u8,
    /// The peer's SPI.
    pub(crate) spi: I,
}

impl IkeSuite {
    /// As shown to users.
    pub(crate) fn shown(self) -> IkeAlgorithms {
        IkeAlgorithms {
            encryption: self.encryption.id.0,
            key_bits: self.encryption.key_bits,
            integrity: self.integrity.map(|id| id.0),
            prf: self.prf.0,
            key_exchange: self.method.0,
        }
    }

    /// As the one proposal of an answer.
    pub(crate) fn proposal(self, number: u8, spi: Option<IkeSpi>) -> Proposal {
        let mut transforms = vec![Transform::encryption(self.encryption.id, self.encryption.key_bits)];
        transforms.extend(self.integrity.map(Transform::integrity));
        transforms.push(Transform::prf(self.prf));
        transforms.push(Transform::key_exchange(self.method));
        let proposal = Proposal::new(number, ProtocolId::IKE, transforms);
        match spi {
            Some(spi) => proposal.with_ike_spi(spi),
            None => proposal,
        }
    }

    /// Whether a configuration would allow it.
    pub(crate) fn allowed_by(self, proposals: &[IkeProposal]) -> bool {
        proposals.iter().any(|proposal| {
            proposal.encryption.contains(&self.encryption)
                && self.integrity.is_none_or(|id| proposal.integrity.contains(&id))
                && proposal.prf.contains(&self.prf)
                && proposal.key_exchange.contains(&self.method)
        })
    }
}

impl EspSuite {
    /// As shown to users.
    pub(crate) fn shown(self) -> EspAlgorithms {
        EspAlgorithms {
            encryption: self.algorithm.encryption.id(),
            key_bits: self.algorithm.encryption.key_bits(),
            integrity: self.algorithm.integrity.map(|integrity| integrity.id()),
            key_exchange: self.method.map(|method| method.0),
            esn: self.esn,
        }
    }

    /// As the one proposal of an answer.
    pub(crate) fn proposal(self, number: u8, spi: Spi) -> Proposal {
        let encryption = self.algorithm.encryption;
        let mut transforms = vec![Transform::encryption(EncryptionId(encryption.id()), encryption.key_bits())];
        transforms.extend(self.algorithm.integrity.map(|integrity| Transform::integrity(IntegrityId(integrity.id()))));
        transforms.extend(self.method.map(Transform::key_exchange));
        transforms.push(Transform::esn(if self.esn { EsnId::EXT_SEQ } else { EsnId::NO_EXT_SEQ }));
        Proposal::new(number, ProtocolId::ESP, transforms).with_spi(spi.get())
    }
}

/// What we can do of a configured IKE proposal, or nothing when a whole kind of transform is left empty.
fn usable_ike(proposal: &IkeProposal, provider: &CryptoProvider) -> Option<IkeProposal> {
    let mut usable = proposal.clone();
    usable.encryption.retain(|e| provider.ike_cipher(e.id, e.key_bits).is_some());
    usable.integrity.retain(|id| provider.integrity(*id).is_some());
    usable.prf.retain(|id| provider.prf(*id).is_some());
    usable.key_exchange.retain(|id| provider.key_exchange(*id).is_some());
    let aead = usable.encryption.first().is_some_and(|e| is_aead(e.id));
    if aead {
        usable.integrity.clear();
    }
    let whole = !usable.encryption.is_empty()
        && (aead || !usable.integrity.is_empty())
        && !usable.prf.is_empty()
        && !usable.key_exchange.is_empty();
    whole.then_some(usable)
}

/// What one rung can do of a configured ESP proposal.
fn usable_on(proposal: &EspProposal, rung: &Capabilities, provider: &CryptoProvider) -> Option<EspProposal> {
    let mut usable = proposal.clone();
    let can = |e: &Encryption, integrity: Option<IntegrityId>| {
        EspAlgorithm::from_ids(e.id.0, e.key_bits, integrity.map(|id| id.0))
            .is_some_and(|algorithm| rung.algorithms.contains(&algorithm))
    };
    if usable.encryption.first().is_some_and(|e| is_aead(e.id)) {
        usable.integrity.clear();
        usable.encryption.retain(|e| can(e, None));
    } else {
        usable.encryption.retain(|e| proposal.integrity.iter().any(|id| can(e, Some(*id))));
        usable.integrity.retain(|id| proposal.encryption.iter().any(|e| can(e, Some(*id))));
        if usable.integrity.is_empty() {
            return None;
        }
    }
    usable.esn.retain(|esn| *esn != EsnId::EXT_SEQ || rung.esn);
    usable.key_exchange.retain(|id| *id == KeyExchangeId::NONE || provider.key_exchange(*id).is_some());
    let exchange = proposal.key_exchange.is_empty() || !usable.key_exchange.is_empty();
    (!usable.encryption.is_empty() && !usable.esn.is_empty() && exchange).then_some(usable)
}

/// What of a configured ESP proposal any of the rungs can do: one proposal where a rung does all that the others do, else one for each, so that no
/// combination is offered that no rung can carry as a whole.
fn usable_esp(proposal: &EspProposal, rungs: &[&Capabilities], provider: &CryptoProvider) -> Vec<EspProposal> {
    let mut usable: Vec<EspProposal> = Vec::new();
    for on_rung in rungs.iter().filter_map(|rung| usable_on(proposal, rung, provider)) {
        if !usable.iter().any(|other| covers(other, &on_rung)) {
            usable.retain(|other| !covers(&on_rung, other));
            usable.push(on_rung);
        }
    }
    usable
}

/// Whether everything that `part` allows is allowed by `whole` too.
fn covers(whole: &EspProposal, part: &EspProposal) -> bool {
    part.encryption.iter().all(|e| whole.encryption.contains(e))
        && part.integrity.iter().all(|id| whole.integrity.contains(id))
        && part.esn.iter().all(|esn| whole.esn.contains(esn))
}

fn is_aead(id: EncryptionId) -> bool {
    matches!(id, EncryptionId::AES_GCM_16 | EncryptionId::CHACHA20_POLY1305)
}

/// Which key exchange transforms an ESP proposal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildKeyExchange {
    /// None: in IKE_AUTH the keys come from the IKE SA.
    Absent,
    /// As configured.
    Configured,
}

/// The proposals of an IKE_SA_INIT or IKE rekey request.
pub(crate) fn offer_ike(configured: &[IkeProposal], provider: &CryptoProvider, spi: Option<IkeSpi>) -> Vec<Proposal> {
    let usable = configured.iter().filter_map(|proposal| usable_ike(proposal, provider));
    let numbered = (1..=u8::MAX).zip(usable);
    numbered
        .map(|(number, proposal)| {
            let mut transforms: Vec<_> =
                proposal.encryption.iter().map(|e| Transform::encryption(e.id, e.key_bits)).collect();
            transforms.extend(proposal.integrity.iter().copied().map(Transform::integrity));
            transforms.extend(proposal.prf.iter().copied().map(Transform::prf));
            transforms.extend(proposal.key_exchange.iter().copied().map(Transform::key_exchange));
            let offered = Proposal::new(number, ProtocolId::IKE, transforms);
            match spi {
                Some(spi) => offered.with_ike_spi(spi),
                None => offered,
            }
        })
        .collect()
}

/// The proposals of a request for a CHILD SA.
pub(crate) fn offer_esp(
    configured: &[EspProposal],
    rungs: &[&Capabilities],
    provider: &CryptoProvider,
    spi: Spi,
    exchange: ChildKeyExchange,
) -> Vec<Proposal> {
    let usable = configured.iter().flat_map(|proposal| usable_esp(proposal, rungs, provider));
    let numbered = (1..=u8::MAX).zip(usable);
    numbered
        .map(|(number, proposal)| {
            let mut transforms: Vec<_> =
                proposal.encryption.iter().map(|e| Transform::encryption(e.id, e.key_bits)).collect();
            transforms.extend(proposal.integrity.iter().copied().map(Transform::integrity));
            if exchange == ChildKeyExchange::Configured {
                transforms.extend(proposal.key_exchange.iter().copied().map(Transform::key_exchange));
            }
            transforms.extend(proposal.esn.iter().copied().map(Transform::esn));
            Proposal::new(number, ProtocolId::ESP, transforms).with_spi(spi.get())
        })
        .collect()
}

/// Our first preference of a method for a CHILD SA's own key exchange.
pub(crate) fn first_child_method(configured: &[EspProposal], provider: &CryptoProvider) -> Option<KeyExchangeId> {
    let first = configured.first()?.key_exchange.iter().copied();
    first.into_iter().find(|id| provider.key_exchange(*id).is_some())
}

/// Our first preference of a method for an IKE SA.
pub(crate) fn first_ike_method(configured: &[IkeProposal], provider: &CryptoProvider) -> Option<KeyExchangeId> {
    let usable = configured.iter().find_map(|proposal| usable_ike(proposal, provider))?;
    usable.key_exchange.first().copied()
}

/// Chooses the first of our IKE proposals that one of the peer's meets. `preferred` is the method whose KE payload came: it wins over our
/// order within a proposal, so that no round trip is spent on a matter of taste.
pub(crate) fn choose_ike(
    configured: &[IkeProposal],
    provider: &CryptoProvider,
    offered: &[Proposal],
    preferred: Option<KeyExchangeId>,
) -> Option<Chosen<IkeSuite, Option<IkeSpi>>> {
    configured.iter().filter_map(|proposal| usable_ike(proposal, provider)).find_map(|ours| {
        offered.iter().filter(|theirs| theirs.protocol == ProtocolId::IKE).find_map(|theirs| {
            let suite = match_ike(&ours, theirs, preferred)?;
            Some(Chosen { suite, number: theirs.number, spi: theirs.ike_spi() })
        })
    })
}

fn match_ike(ours: &IkeProposal, theirs: &Proposal, preferred: Option<KeyExchangeId>) -> Option<IkeSuite> {
    only_kinds(theirs, &[TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE])?;
    let encryption = pick_encryption(&ours.encryption, theirs)?;
    let integrity = pick_integrity(&ours.integrity, theirs)?;
    let prf = pick(&ours.prf, theirs, TransformType::PRF, |id| id.0)?;
    let method = preferred
        .filter(|id| ours.key_exchange.contains(id) && has(theirs, TransformType::KE, id.0))
        .or_else(|| pick(&ours.key_exchange, theirs, TransformType::KE, |id| id.0))?;
    Some(IkeSuite { encryption, integrity, prf, method })
}

/// Chooses the first of our ESP proposals that one of the peer's meets. What stands in one proposal is equally good: of that the best rung decides
/// which can carry something of it.
pub(crate) fn choose_esp(
    configured: &[EspProposal],
    rungs: &[&Capabilities],
    provider: &CryptoProvider,
    offered: &[Proposal],
    exchange: ChildKeyExchange,
    preferred: Option<KeyExchangeId>,
) -> Option<Chosen<EspSuite, Spi>> {
    let on_rungs = configured
        .iter()
        .flat_map(|proposal| rungs.iter().filter_map(|rung| Some((rung, usable_on(proposal, rung, provider)?))));
    on_rungs.into_iter().find_map(|(rung, ours)| {
        offered.iter().filter(|theirs| theirs.protocol == ProtocolId::ESP).find_map(|theirs| {
            let suite = match_esp(&ours, theirs, exchange, preferred)?;
            let carried = preflight::carries(rung, Suite { algorithm: suite.algorithm, esn: suite.esn });
            Some(Chosen { suite, number: theirs.number, spi: Spi::new(theirs.spi_u32()?)? }).filter(|_| carried)
        })
    })
}

fn match_esp(
    ours: &EspProposal,
    theirs: &Proposal,
    exchange: ChildKeyExchange,
    preferred: Option<KeyExchangeId>,
) -> Option<EspSuite> {
    only_kinds(theirs, &[TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN])?;
    let encryption = pick_encryption(&ours.encryption, theirs)?;
    let integrity = pick_integrity(&ours.integrity, theirs)?;
    let method = match exchange {
        ChildKeyExchange::Absent => None,
        ChildKeyExchange::Configured => pick_child_method(&ours.key_exchange, theirs, preferred)?,
    };
    //= RFC 7296 §3.3.3: ESN is mandatory for ESP; a peer that leaves it out means 32-bit sequence numbers
    let esn = if theirs.transforms_of(TransformType::ESN).next().is_none() {
        ours.esn.contains(&EsnId::NO_EXT_SEQ).then_some(EsnId::NO_EXT_SEQ)?
    } else {
        pick(&ours.esn, theirs, TransformType::ESN, |id| id.0)?
    };
    let algorithm = EspAlgorithm::from_ids(encryption.id.0, encryption.key_bits, integrity.map(|id| id.0))?;
    Some(EspSuite { algorithm, method, esn: esn == EsnId::EXT_SEQ })
}

/// The method of a CHILD SA's own key exchange: outer `None` = no agreement, inner `None` = none is made.
fn pick_child_method(
    ours: &[KeyExchangeId],
    theirs: &Proposal,
    preferred: Option<KeyExchangeId>,
) -> Option<Option<KeyExchangeId>> {
    let offers_none = theirs.transforms_of(TransformType::KE).next().is_none()
        || has(theirs, TransformType::KE, KeyExchangeId::NONE.0);
    let without = (ours.is_empty() || ours.contains(&KeyExchangeId::NONE)) && offers_none;
    let preferred = preferred.filter(|id| ours.contains(id) && has(theirs, TransformType::KE, id.0));
    let method = preferred.or_else(|| {
        let named = ours.iter().copied().filter(|id| *id != KeyExchangeId::NONE);
        named.into_iter().find(|id| has(theirs, TransformType::KE, id.0))
    });
    match method {
        Some(method) => Some(Some(method)),
        None => without.then_some(None),
    }
}

/// Nothing when a kind of transform is offered that must be chosen but is not known here.
fn only_kinds(theirs: &Proposal, known: &[TransformType]) -> Option<()> {
    theirs.transforms.iter().all(|transform| known.contains(&transform.kind)).then_some(())
}

fn has(theirs: &Proposal, kind: TransformType, id: u16) -> bool {
    theirs.transforms_of(kind).any(|t| t.id == id && t.key_length.is_none() && t.is_understood())
}

//= RFC 7296 §3.3.6: what is not understood is not chosen; one of each type is
fn pick<T: Copy>(ours: &[T], theirs: &Proposal, kind: TransformType, number: impl Fn(T) -> u16) -> Option<T> {
    ours.iter().copied().find(|id| has(theirs, kind, number(*id)))
}

fn pick_encryption(ours: &[Encryption], theirs: &Proposal) -> Option<Encryption> {
    ours.iter().copied().find(|e| {
        theirs
            .transforms_of(TransformType::ENCR)
            .any(|t| t.id == e.id.0 && t.key_length == e.key_bits && t.is_understood())
    })
}

/// Outer `None` = no agreement, inner `None` = none is needed.
fn pick_integrity(ours: &[IntegrityId], theirs: &Proposal) -> Option<Option<IntegrityId>> {
    if ours.is_empty() {
        let absent = theirs.transforms_of(TransformType::INTEG).next().is_none();
        return (absent || has(theirs, TransformType::INTEG, IntegrityId::NONE.0)).then_some(None);
    }
    pick(ours, theirs, TransformType::INTEG, |id| id.0).map(Some)
}

/// Proposals in words, for logs and causes.
pub(crate) fn describe(proposals: &[Proposal]) -> String {
    let mut text = String::new();
    for (index, proposal) in proposals.iter().take(16).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{proposal}");
    }
    if text.is_empty() { "nothing".into() } else { text }
}

/// The first kind of transform in which the closest pair of proposals has nothing in common, as the end of a sentence.
pub(crate) fn difference(ours: &[Proposal], theirs: &[Proposal]) -> String {
    let pairs = ours.iter().flat_map(|a| theirs.iter().filter(move |b| a.protocol == b.protocol).map(move |b| (a, b)));
    let closest = pairs.filter_map(|(a, b)| first_difference(a, b)).max_by_key(|(at, _)| *at);
    closest.map_or_else(String::new, |(_, text)| format!("; first difference: {text}"))
}

/// Kinds in the order in which they are compared.
const KINDS: [TransformType; 5] =
    [TransformType::ENCR, TransformType::INTEG, TransformType::PRF, TransformType::KE, TransformType::ESN];

fn first_difference(ours: &Proposal, theirs: &Proposal) -> Option<(usize, String)> {
    let named = |proposal: &Proposal, kind: TransformType| -> Vec<String> {
        proposal.transforms_of(kind).map(ToString::to_string).collect()
    };
    KINDS.into_iter().enumerate().find_map(|(at, kind)| {
        let (ours, theirs) = (named(ours, kind), named(theirs, kind));
        let differs =
            ours.is_empty() != theirs.is_empty() || !ours.is_empty() && !ours.iter().any(|t| theirs.contains(t));
        let shown = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join("/") };
        differs.then(|| (at, format!("{kind} {} configured, {} received", shown(ours), shown(theirs))))
    })
}

/// [`difference`] between IKE proposals as configured and those received.
pub(crate) fn ike_difference(configured: &[IkeProposal], provider: &CryptoProvider, theirs: &[Proposal]) -> String {
    difference(&offer_ike(configured, provider, None), theirs)
}

/// [`difference`] between ESP proposals as configured and those received.
pub(crate) fn esp_difference(
    configured: &[EspProposal],
    rungs: &[&Capabilities],
    provider: &CryptoProvider,
    exchange: ChildKeyExchange,
    theirs: &[Proposal],
) -> String {
    match Spi::new(256) {
        Some(spi) => difference(&offer_esp(configured, rungs, provider, spi, exchange), theirs),
        None => String::new(),
    }
}

/// IKE proposals as configured, in words.
pub(crate) fn describe_ike(configured: &[IkeProposal], provider: &CryptoProvider) -> String {
    describe(&offer_ike(configured, provider, None))
}

/// ESP proposals as configured and carried by a rung, in words.
pub(crate) fn describe_esp(
    configured: &[EspProposal],
    rungs: &[&Capabilities],
    provider: &CryptoProvider,
    exchange: ChildKeyExchange,
) -> String {
    match Spi::new(256) {
        Some(spi) => describe(&offer_esp(configured, rungs, provider, spi, exchange)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
