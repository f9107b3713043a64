//! A peer that holds the session keys: the initiator's side of IKE_SA_INIT, IKE_AUTH and everything after them.
//!
//! It keeps the protocol (message IDs, keys, AUTH) and says nothing of what stands in the payloads: those are the attacker's.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ike_crypto::{SharedSecret, StartedKeyExchange};
use ike_wire::ids::{
    AuthMethod, EncryptionId, EsnId, ExchangeType, IdType, KeyExchangeId, NotifyType, PayloadType, PrfId, ProtocolId,
};
use ike_wire::{
    Authentication, Chain, Delete, Flags, Header, Identification, IkeSpi, KeyExchange, Message, MessageId, Nonce,
    Notify, Payload, Payloads, Proposal, SecurityAssociation, TrafficSelector, TrafficSelectors, Transform, encode,
    encode_chain, parse_chain,
};

use super::carrier::Carrier;
use super::dice::Dice;
use super::keys::{Contributions, Keys, provider};

/// How long an answer may take before the request is sent again.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often a request is sent that has to be answered, however busy the daemon is.
const TRIES: u32 = 20;

/// Who the peer is and what it asks for.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its identity, a domain name.
    pub id: String,
    /// The pre-shared key.
    pub secret: Vec<u8>,
    /// First and last address behind it.
    pub local: [Ipv4Addr; 2],
    /// First and last address behind the daemon.
    pub remote: [Ipv4Addr; 2],
    /// Whether IKE_SA_INIT claims address translation on both ends.
    pub nat: bool,
}

/// An IKE SA after IKE_SA_INIT.
#[derive(Debug)]
pub struct HalfOpen {
    /// SPIs, initiator's first.
    pub spis: (IkeSpi, IkeSpi),
    /// Keys.
    pub keys: Keys,
    /// The request, as AUTH covers it.
    pub request: Vec<u8>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    response: Vec<u8>,
}

/// A CHILD SA, as the peer knows it.
#[derive(Clone, Debug)]
pub struct Child {
    /// SPI of what the daemon sends.
    pub ours: u32,
    /// SPI of what the daemon receives.
    pub theirs: u32,
    /// Key and salt of what the daemon receives.
    pub outbound: Vec<u8>,
}

/// An authenticated IKE SA.
#[derive(Debug)]
pub struct IkeSa {
    /// SPIs, initiator's first.
    pub spis: (IkeSpi, IkeSpi),
    /// Keys.
    pub keys: Keys,
    /// ID of the next request.
    pub next: u32,
    /// CHILD SAs.
    pub children: Vec<Child>,
    /// Requests of the daemon that were answered.
    pub answered: u32,
    last_answer: Option<(u32, Vec<u8>)>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Reply {
    /// An authentic response: its chain.
    Response(Chain),
    /// Nothing came.
    Silence,
}

/// A request of the daemon.
#[derive(Debug)]
pub struct Asked {
    /// Type of the exchange.
    pub exchange: ExchangeType,
    /// Its chain.
    pub chain: Chain,
}

/// What is answered to a request of the daemon.
pub type Answerer<'a> = &'a mut dyn FnMut(&IkeSa, &Asked) -> Result<Chain>;

/// Answers everything with nothing, and offers to create SAs with "no".
///
/// # Errors
/// None.
pub fn polite(_: &IkeSa, asked: &Asked) -> Result<Chain> {
    if asked.exchange == ExchangeType::CREATE_CHILD_SA {
        return Ok(encode_chain(&[Payload::Notify(Notify::plain(NotifyType::NO_ADDITIONAL_SAS))])?);
    }
    Ok(encode_chain(&[])?)
}

/// Starts X25519.
///
/// # Errors
/// No randomness.
pub fn start_key_exchange() -> Result<Box<dyn StartedKeyExchange>> {
    let provider = provider();
    let method = provider.key_exchange(KeyExchangeId::CURVE_25519).context("no X25519")?;
    Ok(method.start(provider.random)?)
}

/// The IKE proposal of this peer.
#[must_use]
pub fn ike_proposal() -> Proposal {
    let transforms = vec![
        Transform::encryption(EncryptionId::AES_GCM_16, Some(128)),
        Transform::prf(PrfId::PRF_HMAC_SHA2_256),
        Transform::key_exchange(KeyExchangeId::CURVE_25519),
    ];
    Proposal::new(1, ProtocolId::IKE, transforms)
}

/// The ESP proposal of this peer, with a key exchange or without.
#[must_use]
pub fn esp_proposal(spi: u32, key_exchange: bool) -> Proposal {
    let mut transforms =
        vec![Transform::encryption(EncryptionId::AES_GCM_16, Some(128)), Transform::esn(EsnId::NO_EXT_SEQ)];
    if key_exchange {
        transforms.insert(1, Transform::key_exchange(KeyExchangeId::CURVE_25519));
    }
    Proposal::new(1, ProtocolId::ESP, transforms).with_spi(spi)
}

impl Profile {
    /// TSi and TSr of a request.
    #[must_use]
    pub fn selectors(&self) -> [Payload<'static>; 2] {
        let range = |[start, end]: [Ipv4Addr; 2]| {
            let range = TrafficSelector::range(0, 0, u16::MAX, start.into(), end.into());
            TrafficSelectors::new(range.into_iter().collect())
        };
        [Payload::TsInitiator(range(self.local)), Payload::TsResponder(range(self.remote))]
    }

    /// The ID payload.
    #[must_use]
    pub fn identification(&self) -> Identification<'static> {
        Identification::new(IdType::ID_FQDN, self.id.as_bytes().to_vec())
    }
}

/// The payloads of IKE_SA_INIT.
#[must_use]
pub fn init_payloads(nat: bool, nonce: &[u8], public: &[u8]) -> Vec<Payload<'static>> {
    let mut payloads = vec![
        Payload::Sa(SecurityAssociation::new(vec![ike_proposal()])),
        Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, public.to_vec())),
        Payload::Nonce(Nonce::new(nonce.to_vec())),
    ];
    if nat {
        // No address has this hash, so both ends look translated.
        for kind in [NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP] {
            payloads.push(Payload::Notify(Notify::new(kind, vec![7; 20])));
        }
    }
    payloads.push(Payload::Notify(Notify::plain(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)));
    payloads
}

/// An SPI for an SA of this peer.
pub fn draw_spi(dice: &mut Dice) -> u32 {
    (dice.next_u64() as u32) | 0x1000
}

impl HalfOpen {
    /// Does IKE_SA_INIT, with a cookie where one is asked for; `None` when the daemon does not go along.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn begin(carrier: &mut dyn Carrier, profile: &Profile, dice: &mut Dice) -> Result<Option<Self>> {
        let started = start_key_exchange()?;
        let nonce_i = dice.octets(32);
        let spi_i = IkeSpi(dice.next_u64() | 1);
        let header = header((spi_i, IkeSpi(0)), ExchangeType::IKE_SA_INIT, false, 0);
        let mut payloads = init_payloads(profile.nat, &nonce_i, started.public_value());
        for _ in 0..4 {
            let request = encode(&header, &payloads)?;
            let Some(response) = initial_answer(carrier, spi_i, &request)? else { return Ok(None) };
            let message = Message::parse(&response).context("the daemon's IKE_SA_INIT response")?;
            if let Some(cookie) = message.payloads.notify(NotifyType::COOKIE) {
                if matches!(payloads.first(), Some(Payload::Notify(_))) {
                    payloads.remove(0);
                }
                payloads.insert(0, Payload::Notify(Notify::new(NotifyType::COOKIE, cookie.data.to_vec())));
                continue;
            }
            let (Some(theirs), Some(nonce)) = (message.payloads.key_exchange(), message.payloads.nonce()) else {
                return Ok(None);
            };
            let nonce_r = nonce.data.to_vec();
            let secret = started.complete(&theirs.data)?;
            let spis = (spi_i, message.header.responder_spi);
            let keys = Keys::initial(contributions(&nonce_i, &nonce_r, spis, &secret))?;
            return Ok(Some(HalfOpen { spis, keys, request, nonce_i, nonce_r, response }));
        }
        Ok(None)
    }

    /// AUTH of this peer for a body of its ID payload.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn auth(&self, secret: &[u8], id: &[u8]) -> Result<Authentication<'static>> {
        let mic = self.keys.auth_of_initiator(secret, &self.request, &self.nonce_r, id)?;
        Ok(Authentication::new(AuthMethod::SHARED_KEY_MIC, mic.as_ref().to_vec()))
    }

    /// The payloads of IKE_AUTH with a first CHILD SA.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn auth_payloads(&self, profile: &Profile, spi: u32) -> Result<Vec<Payload<'static>>> {
        let id = profile.identification();
        let auth = self.auth(&profile.secret, &id.to_octets())?;
        let [ts_i, ts_r] = profile.selectors();
        let proposal = esp_proposal(spi, false);
        Ok(vec![
            Payload::IdInitiator(id),
            Payload::Auth(auth),
            Payload::Sa(SecurityAssociation::new(vec![proposal])),
            ts_i,
            ts_r,
        ])
    }

    /// The IKE SA that IKE_AUTH makes of this. Message ID 1 is the next one until that exchange is over.
    #[must_use]
    pub fn into_ike_sa(self) -> (IkeSa, AuthContext) {
        let Self { spis, keys, nonce_i, nonce_r, response, .. } = self;
        let ike = IkeSa { spis, keys, next: 1, children: Vec::new(), answered: 0, last_answer: None };
        (ike, AuthContext { nonce_i, nonce_r, response })
    }

    /// Does the whole of IKE_AUTH as it should be, with this SPI for the CHILD SA; `None` when the daemon refuses.
    ///
    /// # Errors
    /// There is no way to the daemon, or it answers what it must not.
    pub fn authenticate(self, carrier: &mut dyn Carrier, profile: &Profile, spi: u32) -> Result<Option<IkeSa>> {
        let chain = encode_chain(&self.auth_payloads(profile, spi)?)?;
        let (mut ike, context) = self.into_ike_sa();
        let Reply::Response(answer) =
            ike.repeated(carrier, (ExchangeType::IKE_AUTH, &chain), (PATIENCE, TRIES), &mut polite)?
        else {
            return Ok(None);
        };
        let payloads = parse_chain(answer.first, &answer.octets, 0).context("the daemon's IKE_AUTH response")?;
        if !context.verify(&ike, profile, &payloads)? {
            return Ok(None);
        }
        context.note_child(&mut ike, spi, &payloads)?;
        Ok(Some(ike))
    }
}

/// What IKE_AUTH needs of IKE_SA_INIT once the keys have moved on.
#[derive(Debug)]
pub struct AuthContext {
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    response: Vec<u8>,
}

impl AuthContext {
    /// Whether a response proves that the daemon knows the pre-shared key. False when it refuses.
    ///
    /// # Errors
    /// Its AUTH is wrong.
    pub fn verify(&self, ike: &IkeSa, profile: &Profile, payloads: &Payloads<'_>) -> Result<bool> {
        let (Some(id), Some(auth)) = (payloads.id_responder(), payloads.auth()) else { return Ok(false) };
        let expected = ike.keys.auth_of_responder(&profile.secret, &self.response, &self.nonce_i, &id.to_octets())?;
        anyhow::ensure!(expected.as_ref() == auth.data.as_ref(), "the daemon's AUTH is wrong");
        Ok(true)
    }

    /// Remembers the CHILD SA of a response.
    ///
    /// # Errors
    /// There is no PRF.
    pub fn note_child(&self, ike: &mut IkeSa, ours: u32, payloads: &Payloads<'_>) -> Result<()> {
        let Some(theirs) = payloads.sa().and_then(|sa| sa.proposals.first()).and_then(Proposal::spi_u32) else {
            return Ok(());
        };
        let [outbound, _] = ike.keys.child(None, &self.nonce_i, &self.nonce_r)?;
        ike.children.push(Child { ours, theirs, outbound });
        Ok(())
    }
}

fn contributions<'a>(
    nonce_i: &'a [u8],
    nonce_r: &'a [u8],
    (spi_i, spi_r): (IkeSpi, IkeSpi),
    secret: &'a SharedSecret,
) -> Contributions<'a> {
    Contributions { nonce_i, nonce_r, spi_i, spi_r, secret: secret.as_ref() }
}

/// A header of this peer, which initiated the IKE SA.
#[must_use]
pub fn header((spi_i, spi_r): (IkeSpi, IkeSpi), exchange: ExchangeType, response: bool, id: u32) -> Header {
    Header::new(spi_i, spi_r, exchange, Flags { initiator: true, version: false, response }, MessageId(id))
}

fn initial_answer(carrier: &mut dyn Carrier, spi: IkeSpi, request: &[u8]) -> Result<Option<Vec<u8>>> {
    for _ in 0..TRIES {
        carrier.send(request)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(octets) = carrier.receive(left)? else { break };
            let header = Header::parse(&octets);
            if header.is_ok_and(|header| header.initiator_spi == spi && header.exchange == ExchangeType::IKE_SA_INIT) {
                return Ok(Some(octets));
            }
            if left.is_zero() {
                break;
            }
        }
    }
    Ok(None)
}

impl IkeSa {
    /// A message in SK under this IKE SA.
    ///
    /// # Errors
    /// It is too long for a datagram.
    pub fn seal(&self, exchange: ExchangeType, id: u32, response: bool, chain: &Chain) -> Result<Vec<u8>> {
        self.keys.seal(&header(self.spis, exchange, response, id), chain)
    }

    /// The next request in so many fragments (RFC 7383), or as many as it has octets.
    ///
    /// # Errors
    /// It has no octets, or they are too many.
    pub fn fragments(&self, exchange: ExchangeType, chain: &Chain, count: usize) -> Result<Vec<Vec<u8>>> {
        let header = header(self.spis, exchange, false, self.next);
        let pieces: Vec<&[u8]> = chain.octets.chunks(chain.octets.len().div_ceil(count.max(1)).max(1)).collect();
        let total = u16::try_from(pieces.len())?;
        let seal = |(number, piece)| self.keys.seal_fragment(&header, chain.first, (number, total), piece);
        (1..).zip(pieces).map(seal).collect()
    }

    /// Sends a request and waits for its response, twice at most. Answers what the daemon asks meanwhile.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn request(
        &mut self,
        carrier: &mut dyn Carrier,
        exchange: ExchangeType,
        chain: &Chain,
        answerer: Answerer<'_>,
    ) -> Result<Reply> {
        self.request_within(carrier, exchange, chain, PATIENCE, answerer)
    }

    /// The same with another time to wait before the request is sent again.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn request_within(
        &mut self,
        carrier: &mut dyn Carrier,
        exchange: ExchangeType,
        chain: &Chain,
        wait: Duration,
        answerer: Answerer<'_>,
    ) -> Result<Reply> {
        self.repeated(carrier, (exchange, chain), (wait, 2), answerer)
    }

    /// The same with how often it is sent.
    fn repeated(
        &mut self,
        carrier: &mut dyn Carrier,
        (exchange, chain): (ExchangeType, &Chain),
        (wait, tries): (Duration, u32),
        answerer: Answerer<'_>,
    ) -> Result<Reply> {
        let octets = self.seal(exchange, self.next, false, chain)?;
        for _ in 0..tries {
            carrier.send(&octets)?;
            if let Some(answer) = self.await_response(carrier, wait, answerer)? {
                self.next += 1;
                return Ok(Reply::Response(answer));
            }
        }
        Ok(Reply::Silence)
    }

    /// Waits for the response to the request that is out.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn await_response(
        &mut self,
        carrier: &mut dyn Carrier,
        wait: Duration,
        answerer: Answerer<'_>,
    ) -> Result<Option<Chain>> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(octets) = carrier.receive(left)? else { return Ok(None) };
            if let Some(answer) = self.incoming(carrier, &octets, answerer)? {
                return Ok(Some(answer));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Handles one datagram; gives the chain when it is the response that is waited for.
    fn incoming(&mut self, carrier: &mut dyn Carrier, octets: &[u8], answerer: Answerer<'_>) -> Result<Option<Chain>> {
        let Ok(message) = Message::parse(octets) else { return Ok(None) };
        let header = message.header;
        if (header.initiator_spi, header.responder_spi) != self.spis || header.flags.initiator {
            return Ok(None);
        }
        let Some(opened) = self.keys.open(&message) else { return Ok(None) };
        let chain = Chain { first: opened.first(), octets: opened.plaintext()?.to_vec() };
        if header.flags.response {
            return Ok((header.message_id.0 == self.next).then_some(chain));
        }
        self.answer(carrier, header.message_id.0, Asked { exchange: header.exchange, chain }, answerer)?;
        Ok(None)
    }

    fn answer(&mut self, carrier: &mut dyn Carrier, id: u32, asked: Asked, answerer: Answerer<'_>) -> Result<()> {
        if let Some((last, octets)) = &self.last_answer
            && *last == id
        {
            return carrier.send(octets);
        }
        let chain = answerer(self, &asked)?;
        let octets = self.seal(asked.exchange, id, true, &chain)?;
        carrier.send(&octets)?;
        self.answered += 1;
        self.last_answer = Some((id, octets));
        Ok(())
    }

    /// Closes it with the daemon.
    ///
    /// # Errors
    /// There is no way to the daemon.
    pub fn close(&mut self, carrier: &mut dyn Carrier) -> Result<Reply> {
        let chain = encode_chain(&[Payload::Delete(Delete::ike_sa())])?;
        self.request(carrier, ExchangeType::INFORMATIONAL, &chain, &mut polite)
    }

    /// Remembers a CHILD SA that CREATE_CHILD_SA has made.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn note_child(&mut self, ours: u32, theirs: u32, secret: Option<&[u8]>, nonces: [&[u8]; 2]) -> Result<()> {
        let [nonce_i, nonce_r] = nonces;
        let [outbound, _] = self.keys.child(secret, nonce_i, nonce_r)?;
        self.children.push(Child { ours, theirs, outbound });
        Ok(())
    }

    /// The IKE SA that replaces this one after a rekeying by this peer; the CHILD SAs move there.
    ///
    /// # Errors
    /// The cryptography refused.
    pub fn successor(&mut self, spis: (IkeSpi, IkeSpi), secret: &SharedSecret, nonces: [&[u8]; 2]) -> Result<Self> {
        let [nonce_i, nonce_r] = nonces;
        let keys = self.keys.rekeyed(contributions(nonce_i, nonce_r, spis, secret))?;
        Ok(IkeSa { spis, keys, next: 0, children: std::mem::take(&mut self.children), answered: 0, last_answer: None })
    }
}

/// The type of the first payload of an empty chain.
pub const NOTHING: PayloadType = PayloadType::NO_NEXT_PAYLOAD;
