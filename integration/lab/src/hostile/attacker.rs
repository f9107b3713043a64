//! The attacker: one sequence of mutated messages towards one daemon, with as many IKE SAs as that takes.

use std::time::Duration;

use anyhow::{Context, Result};
use ike_crypto::StartedKeyExchange;
use ike_wire::ids::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use ike_wire::{Chain, Delete, IkeSpi, Nonce, Payload, Payloads, Proposal, encode, encode_chain, parse_chain};

use super::answers;
use super::carrier::Carrier;
use super::dice::Dice;
use super::peer::{self, HalfOpen, IkeSa, Profile, Reply};
use super::requests::{self, Purpose, Request};
use super::tally::Tally;
use super::{meaning, mutate};

/// Messages kept to mutate as octets.
const CORPUS: usize = 24;
/// Messages on one IKE SA before it is closed and another one made, so that what piles up at the daemon is bounded.
const PER_SA: usize = 60;

/// One attacker.
pub struct Attacker<C> {
    /// The way to the daemon.
    pub carrier: C,
    /// Counts so far.
    pub tally: Tally,
    profile: Profile,
    dice: Dice,
    ike: Option<IkeSa>,
    left: usize,
    corpus: Vec<Vec<u8>>,
    /// What was sent last, for whoever looks for the cause of a finding.
    pub last: Vec<u8>,
}

/// What becomes of the IKE SA after a mutated request.
enum Fate {
    GoesOn,
    Over,
    Replaced(Box<IkeSa>),
}

impl<C: Carrier> Attacker<C> {
    /// An attacker that has sent nothing yet.
    pub fn new(carrier: C, profile: Profile, dice: Dice) -> Self {
        let tally = Tally::default();
        Attacker { carrier, tally, profile, dice, ike: None, left: 0, corpus: Vec::new(), last: Vec::new() }
    }

    /// The IKE SA in use.
    pub fn ike(&self) -> Option<&IkeSa> {
        self.ike.as_ref()
    }

    /// Makes sure that there is an IKE SA; false when the daemon refused.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn ready(&mut self) -> Result<bool> {
        if self.ike.is_none() {
            self.ike = self.establish()?;
        }
        Ok(self.ike.is_some())
    }

    /// Sends one mutated message, and waits for what comes of it where something must.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn step(&mut self) -> Result<()> {
        match self.dice.below(100) {
            0..=38 => self.raw(),
            39..=42 => self.init(),
            43..=48 => self.auth(),
            _ => self.below(),
        }
    }

    /// Closes what is open.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn finish(&mut self) -> Result<()> {
        if let Some(mut ike) = self.ike.take() {
            ike.close(&mut self.carrier)?;
        }
        Ok(())
    }

    /// Waits for what the daemon asks, and answers it.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn listen(&mut self, wait: Duration) -> Result<()> {
        let Some(mut ike) = self.ike.take() else { return Ok(()) };
        let mut dice = self.dice.fork();
        let before = ike.answered;
        let mut answerer = |ike: &IkeSa, asked: &peer::Asked| answers::mutated(&mut dice, ike, asked);
        ike.await_response(&mut self.carrier, wait, &mut answerer)?;
        self.note_answers(before, ike.answered);
        self.ike = Some(ike);
        Ok(())
    }

    fn note_answers(&mut self, before: u32, after: u32) {
        let count = u64::from(after.saturating_sub(before));
        if count > 0 {
            *self.tally.sent.entry(Purpose::Answer).or_default() += count;
        }
    }

    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        self.last = message;
        self.carrier.send(&self.last)
    }

    fn remember(&mut self, message: Vec<u8>) {
        if self.corpus.len() < CORPUS {
            self.corpus.push(message);
        } else {
            let index = self.dice.below(CORPUS);
            if let Some(old) = self.corpus.get_mut(index) {
                *old = message;
            }
        }
    }

    /// A datagram changed outside of any encryption, or one that only its form makes wrong.
    fn raw(&mut self) -> Result<()> {
        self.tally.raw += 1;
        if let Some(odd) = self.odd()? {
            return self.send(odd);
        }
        let mut message = match self.corpus.get(self.dice.below(self.corpus.len())) {
            Some(message) => message.clone(),
            None => self.init_request(false)?,
        };
        mutate::datagram(&mut self.dice, &mut message, &self.corpus);
        self.send(message)
    }

    /// Authentic messages in forms that are not expected: fragments, payloads in front of SK, flags, exchange types, message IDs.
    fn odd(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(ike) = &self.ike else { return Ok(None) };
        if !self.dice.one_in(12) {
            return Ok(None);
        }
        let dice = &mut self.dice;
        let request = requests::draw(ike, &self.profile, dice)?;
        let chain = encode_chain(&request.payloads)?;
        let exchange = request.purpose.exchange();
        let mut header = peer::header(ike.spis, exchange, dice.one_in(4), ike.next.wrapping_add(dice.below(4) as u32));
        Ok(Some(match dice.below(3) {
            0 => {
                let total = dice.between(1, 130) as u16;
                let number = dice.between(1, usize::from(total)) as u16;
                let length = dice.below(chain.octets.len());
                let piece = chain.octets.get(..length).unwrap_or_default();
                match ike.keys.seal_fragment(&header, chain.first, (number, total), piece) {
                    Ok(octets) => octets,
                    Err(_) => return Ok(None),
                }
            }
            1 => {
                // The ID must not be the expected one, or the daemon's window moves without us.
                header.message_id.0 = ike.next.wrapping_add(2);
                let length = dice.below(40);
                let front = dice.octets(length);
                ike.keys.seal_behind(&header, (PayloadType::VENDOR_ID, &front), &chain)?
            }
            _ => {
                header.exchange = ExchangeType(dice.octet());
                header.message_id.0 = ike.next.wrapping_add(1);
                header.flags.initiator = dice.one_in(2);
                ike.keys.seal(&header, &chain)?
            }
        }))
    }

    fn init_request(&mut self, mutated: bool) -> Result<Vec<u8>> {
        let dice = &mut self.dice;
        let header = peer::header((IkeSpi(dice.next_u64() | 1), IkeSpi(0)), ExchangeType::IKE_SA_INIT, false, 0);
        let nonce = dice.octets(32);
        let public = peer::start_key_exchange()?.public_value().to_vec();
        let valid = peer::init_payloads(self.profile.nat, &nonce, &public);
        let mut payloads = valid.clone();
        if mutated {
            meaning::payloads(dice, &mut payloads, &[]);
        }
        Ok(encode(&header, &payloads).or_else(|_| encode(&header, &valid))?)
    }

    /// IKE_SA_INIT that says something else.
    fn init(&mut self) -> Result<()> {
        let message = self.init_request(true)?;
        *self.tally.sent.entry(Purpose::Init).or_default() += 1;
        let spi = message.get(..8).unwrap_or_default().to_vec();
        self.remember(message.clone());
        self.send(message)?;
        while let Some(answer) = self.carrier.receive(Duration::from_millis(15))? {
            if answer.starts_with(&spi) {
                *self.tally.reached.entry(Purpose::Init).or_default() += 1;
                let agreed = answer.get(8..16).is_some_and(|responder| responder.iter().any(|octet| *octet != 0));
                *self.tally.agreed.entry(Purpose::Init).or_default() += u64::from(agreed);
                break;
            }
        }
        Ok(())
    }

    fn establish(&mut self) -> Result<Option<IkeSa>> {
        self.left = self.dice.between(1, PER_SA);
        let Some(half_open) = HalfOpen::begin(&mut self.carrier, &self.profile, &mut self.dice)? else {
            self.tally.failed += 1;
            return Ok(None);
        };
        self.remember(half_open.request.clone());
        let ike = half_open.authenticate(&mut self.carrier, &self.profile, peer::draw_spi(&mut self.dice))?;
        let counter = if ike.is_some() { &mut self.tally.established } else { &mut self.tally.failed };
        *counter += 1;
        Ok(ike)
    }

    /// IKE_AUTH: sometimes anything is changed, sometimes all but what the daemon authenticates.
    fn auth(&mut self) -> Result<()> {
        let Some(half_open) = HalfOpen::begin(&mut self.carrier, &self.profile, &mut self.dice)? else {
            self.tally.failed += 1;
            return Ok(());
        };
        let spi = peer::draw_spi(&mut self.dice);
        let payloads = half_open.auth_payloads(&self.profile, spi)?;
        let chain = if self.dice.one_in(2) {
            self.mutated(&payloads, &[PayloadType::ID_INITIATOR, PayloadType::AUTH])?
        } else {
            self.mutated(&payloads, &[])?
        };
        let (mut ike, context) = half_open.into_ike_sa();
        *self.tally.sent.entry(Purpose::Auth).or_default() += 1;
        let Some(answer) = self.ask(&mut ike, Purpose::Auth, &chain)? else { return Ok(()) };
        let Ok(payloads) = parse_chain(answer.first, &answer.octets, 0) else { return Ok(()) };
        if context.verify(&ike, &self.profile, &payloads)? {
            *self.tally.agreed.entry(Purpose::Auth).or_default() += 1;
            self.tally.established += 1;
            context.note_child(&mut ike, spi, &payloads)?;
            self.finish()?;
            self.ike = Some(ike);
            self.left = self.dice.between(1, PER_SA);
        }
        Ok(())
    }

    /// A request on an authenticated IKE SA.
    fn below(&mut self) -> Result<()> {
        if !self.ready()? {
            return Ok(());
        }
        let Some(mut ike) = self.ike.take() else { return Ok(()) };
        let request = requests::draw(&ike, &self.profile, &mut self.dice)?;
        let chain = self.mutated(&request.payloads, &[])?;
        *self.tally.sent.entry(request.purpose).or_default() += 1;
        let Some(answer) = self.ask(&mut ike, request.purpose, &chain)? else {
            let probe = encode_chain(&[])?;
            match ike.request(&mut self.carrier, ExchangeType::INFORMATIONAL, &probe, &mut peer::polite)? {
                Reply::Response(_) => self.ike = Some(ike),
                Reply::Silence => self.tally.ended += 1,
            }
            return Ok(());
        };
        match self.fate(&mut ike, request, &chain, &answer)? {
            Fate::GoesOn => self.ike = Some(ike),
            Fate::Over => self.tally.ended += 1,
            Fate::Replaced(successor) => {
                ike.close(&mut self.carrier)?;
                self.ike = Some(*successor);
            }
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.finish()?;
        }
        Ok(())
    }

    /// Sends a mutated chain and gives the chain of the answer.
    fn ask(&mut self, ike: &mut IkeSa, purpose: Purpose, chain: &Chain) -> Result<Option<Chain>> {
        let exchange = purpose.exchange();
        let sealed = ike.seal(exchange, ike.next, false, chain)?;
        self.last.clone_from(&sealed);
        self.remember(sealed);
        if self.dice.one_in(3) {
            self.in_fragments(ike, exchange, chain)?;
        }
        let mut dice = self.dice.fork();
        let before = ike.answered;
        let mut answerer = |ike: &IkeSa, asked: &peer::Asked| answers::mutated(&mut dice, ike, asked);
        let reply =
            ike.request_within(&mut self.carrier, exchange, chain, Duration::from_millis(150), &mut answerer)?;
        self.note_answers(before, ike.answered);
        match reply {
            Reply::Response(answer) => {
                *self.tally.reached.entry(purpose).or_default() += 1;
                Ok(Some(answer))
            }
            Reply::Silence => {
                self.tally.silent += 1;
                Ok(None)
            }
        }
    }

    /// Sends a chain in fragments: in any order, some of them twice, some changed, some of another division, and at times not all. What follows
    /// as a whole is then the request itself or its repetition.
    fn in_fragments(&mut self, ike: &IkeSa, exchange: ExchangeType, chain: &Chain) -> Result<()> {
        let dice = &mut self.dice;
        let (count, other) = (dice.between(2, 9), dice.between(2, 9));
        if chain.octets.len() < 2 {
            return Ok(());
        }
        let mut all = ike.fragments(exchange, chain, count)?;
        if dice.one_in(3) {
            all.extend(ike.fragments(exchange, chain, other)?.into_iter().take(dice.below(4)));
        }
        for _ in 0..dice.below(3) {
            let mut forged = all.get(dice.below(all.len())).cloned().unwrap_or_default();
            // Behind the header: who it is for stays readable.
            let at = dice.between(28, forged.len().saturating_sub(1));
            forged.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= dice.octet());
            all.push(forged);
        }
        for at in 0..all.len() {
            let with = dice.below(all.len());
            all.swap(at, with);
        }
        if dice.one_in(3) {
            all.truncate(dice.between(1, all.len()));
        }
        self.tally.fragmented += 1;
        all.into_iter().try_for_each(|fragment| self.send(fragment))
    }

    /// Payloads as a chain that differs from them.
    fn mutated(&mut self, payloads: &[Payload<'static>], keep: &[PayloadType]) -> Result<Chain> {
        let valid = encode_chain(payloads)?;
        let dice = &mut self.dice;
        let mut out = valid.clone();
        if !keep.is_empty() || dice.one_in(2) {
            let mut changed = payloads.to_vec();
            meaning::payloads(dice, &mut changed, keep);
            out = encode_chain(&changed).unwrap_or(out);
        }
        if out == valid || keep.is_empty() && dice.one_in(6) {
            out = mutate::chain(dice, &out);
        }
        // A chain that would not fit into SK is cut; the cut is one more mutation.
        out.octets.truncate(60_000);
        Ok(out)
    }

    /// What the answer to a mutated request says of the IKE SA.
    fn fate(&mut self, ike: &mut IkeSa, request: Request, sent: &Chain, answer: &Chain) -> Result<Fate> {
        let Ok(answer) = parse_chain(answer.first, &answer.octets, 0) else { return Ok(Fate::Over) };
        let fatal = [NotifyType::INVALID_SYNTAX, NotifyType::AUTHENTICATION_FAILED];
        let closes = |payloads: &Payloads<'_>| payloads.notifies().any(|notify| fatal.contains(&notify.kind));
        let Ok(sent) = parse_chain(sent.first, &sent.octets, 0) else { return Ok(Fate::Over) };
        if closes(&answer) {
            return Ok(Fate::Over);
        }
        if request.purpose == Purpose::Informational {
            let over = sent.deletes().any(Delete::is_ike_sa) || closes(&sent);
            return Ok(if over { Fate::Over } else { Fate::GoesOn });
        }
        let Some(chosen) = answer.sa().and_then(|sa| sa.proposals.first()) else { return Ok(Fate::GoesOn) };
        *self.tally.agreed.entry(request.purpose).or_default() += 1;
        if chosen.protocol == ProtocolId::IKE {
            return Ok(replaced(ike, request.started, &sent, &answer, chosen).unwrap_or(Fate::Over));
        }
        note_child(ike, request.started, &sent, &answer, chosen);
        Ok(Fate::GoesOn)
    }
}

/// Our proposal that the daemon chose.
fn offered<'p>(sent: &'p Payloads<'_>, chosen: &Proposal) -> Option<&'p Proposal> {
    sent.sa()?.proposals.iter().find(|proposal| proposal.number == chosen.number)
}

/// The daemon has rekeyed the IKE SA; a mutation may have hidden from us how.
fn replaced(
    ike: &mut IkeSa,
    started: Option<Box<dyn StartedKeyExchange>>,
    sent: &Payloads<'_>,
    answer: &Payloads<'_>,
    chosen: &Proposal,
) -> Option<Fate> {
    let (ours, theirs) = (offered(sent, chosen)?.ike_spi()?, chosen.ike_spi()?);
    let (nonce_i, nonce_r) = (sent.nonce()?.data.to_vec(), answer.nonce()?.data.to_vec());
    let secret = started?.complete(&answer.key_exchange()?.data).ok()?;
    let successor = ike.successor((ours, theirs), &secret, [&nonce_i, &nonce_r]).ok()?;
    Some(Fate::Replaced(Box::new(successor)))
}

/// The daemon has made a CHILD SA.
fn note_child(
    ike: &mut IkeSa,
    started: Option<Box<dyn StartedKeyExchange>>,
    sent: &Payloads<'_>,
    answer: &Payloads<'_>,
    chosen: &Proposal,
) {
    let known = || -> Option<()> {
        let (ours, theirs) = (offered(sent, chosen)?.spi_u32()?, chosen.spi_u32()?);
        let nonces: [&Nonce<'_>; 2] = [sent.nonce()?, answer.nonce()?];
        let secret = match answer.key_exchange() {
            Some(ke) => Some(started?.complete(&ke.data).ok()?),
            None => None,
        };
        let [nonce_i, nonce_r] = nonces.map(|nonce| nonce.data.to_vec());
        ike.note_child(ours, theirs, secret.as_ref().map(AsRef::as_ref), [&nonce_i, &nonce_r]).ok()
    };
    // A CHILD SA that mutation has hidden from us stays with the daemon until the IKE SA is closed.
    let _ = known();
}

/// Establishes one IKE SA with a CHILD SA as it should be.
///
/// # Errors
/// The daemon does not go along.
pub fn establish(carrier: &mut dyn Carrier, profile: &Profile, dice: &mut Dice) -> Result<IkeSa> {
    let spi = peer::draw_spi(dice);
    establish_as(carrier, profile, dice, spi)
}

/// The same with an SPI given for the CHILD SA.
///
/// # Errors
/// As [`establish`].
pub fn establish_as(carrier: &mut dyn Carrier, profile: &Profile, dice: &mut Dice, spi: u32) -> Result<IkeSa> {
    let half_open = HalfOpen::begin(carrier, profile, dice)?.context("IKE_SA_INIT came to nothing")?;
    let ike = half_open.authenticate(carrier, profile, spi)?.context("IKE_AUTH was refused")?;
    anyhow::ensure!(!ike.children.is_empty(), "IKE_AUTH made no CHILD SA");
    Ok(ike)
}
