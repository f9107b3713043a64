//! A peer on strings: it says whatever the test wants, under the right keys, and what comes back is put into words.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ike_crypto::ring_provider;
use ike_wire::ids::{ExchangeType, KeyExchangeId, NotifyType, PayloadType};
use ike_wire::{
    Chain, Flags, Header, IkeSpi, KeyExchange, Message, MessageId, Nonce, Notify, Payload, Payloads, Proposal,
    SecurityAssociation, encode, encode_chain, parse_chain,
};
use ipsec::Path;
use lab::hostile::carrier::Carrier;
use lab::hostile::dice::Dice;
use lab::hostile::keys::{Contributions, Keys};
use lab::hostile::peer::{HalfOpen, Profile, esp_proposal, ike_proposal, start_key_exchange};
use scenarios::{A, B, World, config};

/// SPI of the peer's half of the first CHILD SA.
pub(crate) const FIRST_CHILD: u32 = 0xb000_0001;
/// SPI of what the peer asks for.
pub(crate) const NEW_CHILD: u32 = 0xb000_0002;
/// SPI of nothing.
pub(crate) const UNKNOWN_CHILD: u32 = 0xdead_beef;

/// Silence after which the gateway asks whether the peer is there.
pub(crate) const DPD_DELAY: Duration = Duration::from_secs(10);

/// The gateway under test, which is the only one in its world.
#[derive(Clone)]
pub(crate) struct Loopback(pub(crate) Rc<RefCell<World>>, Rc<RefCell<usize>>);

/// An IKE SA as the puppet knows it.
pub(crate) struct Puppet {
    pub(crate) spis: (IkeSpi, IkeSpi),
    pub(crate) keys: Option<Keys>,
    /// The puppet is the original initiator.
    pub(crate) initiator: bool,
    /// ID of its next request.
    pub(crate) next: u32,
    /// The gateway's request that waits for a response.
    pub(crate) asked: Option<Asked>,
    /// The last request that was answered, with its answer.
    pub(crate) answered: Option<(Vec<u8>, Vec<u8>)>,
}

/// A request of the gateway.
pub(crate) struct Asked {
    pub(crate) exchange: ExchangeType,
    pub(crate) id: u32,
}

pub(crate) fn path() -> Path {
    Path { local: SocketAddr::new(config::address(A), 500), remote: SocketAddr::new(config::address(B), 500) }
}

pub(crate) fn profile() -> Profile {
    let net = |gateway: u8| [Ipv4Addr::new(10, gateway, 0, 0), Ipv4Addr::new(10, gateway, 0, 255)];
    Profile { id: "b.example".into(), secret: b"key of 0 and 1".to_vec(), local: net(2), remote: net(1), nat: false }
}

impl Loopback {
    pub(crate) fn new() -> Self {
        let mut world = World::with_shards(1, &[1]);
        world.gateway_mut(A).provider = ring_provider();
        let mut connection = config::connection("gw", A, B);
        connection.dpd_delay = DPD_DELAY;
        connection.children.push(config::child("other", A, B, 1).into());
        let narrow = |encryption: &mut Vec<ike_model::Encryption>| encryption[0].key_bits = Some(128);
        narrow(&mut connection.proposals[0].encryption);
        for child in &mut connection.children {
            narrow(&mut std::sync::Arc::make_mut(child).esp_proposals[0].encryption);
        }
        world.gateway_mut(A).load_secret(config::secret(A, B));
        world.configure(A, connection);
        Self(Rc::new(RefCell::new(world)), Rc::default())
    }

    /// What the gateway has sent since the last look.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        let world = self.0.borrow();
        let all = &world.gateway(A).sent;
        let seen = std::mem::replace(&mut *self.1.borrow_mut(), all.len());
        all[seen..].iter().map(|(_, _, octets)| octets.clone()).collect()
    }

    /// Hands one datagram in and gives what comes back at once.
    pub(crate) fn exchange(&self, octets: &[u8]) -> Vec<Vec<u8>> {
        self.0.borrow_mut().inject(A, path(), octets);
        self.sent()
    }
}

impl Carrier for Loopback {
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.0.borrow_mut().inject(A, path(), message);
        Ok(())
    }

    fn receive(&mut self, _: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        let world = self.0.borrow();
        let mut seen = self.1.borrow_mut();
        let next = world.gateway(A).sent.get(*seen).map(|(_, _, octets)| octets.clone());
        *seen += usize::from(next.is_some());
        Ok(next)
    }
}

impl Puppet {
    /// IKE_SA_INIT is done; IKE_AUTH is the next request.
    pub(crate) fn half_open(gateway: &mut Loopback) -> Self {
        let begun = HalfOpen::begin(gateway, &profile(), &mut Dice::new(1)).unwrap().unwrap();
        let spis = begun.spis;
        let keys = Some(begun.keys);
        Self { spis, keys, initiator: true, next: 1, asked: None, answered: None }
    }

    /// Both are authenticated, with a CHILD SA; the next ID is 2.
    pub(crate) fn established(gateway: &mut Loopback) -> Self {
        let begun = HalfOpen::begin(gateway, &profile(), &mut Dice::new(1)).unwrap().unwrap();
        let ike = begun.authenticate(gateway, &profile(), FIRST_CHILD).unwrap().unwrap();
        Self { spis: ike.spis, keys: Some(ike.keys), initiator: true, next: ike.next, asked: None, answered: None }
    }

    /// Answers the gateway's own IKE_SA_INIT; the gateway then sends IKE_AUTH.
    pub(crate) fn responder(gateway: &mut Loopback) -> Self {
        let request = gateway.sent().pop().unwrap();
        let message = Message::parse(&request).unwrap();
        let (spi_i, spi_r) = (message.header.initiator_spi, IkeSpi(0x0123_4567_89ab_cdef));
        let method = ring_provider().key_exchange(KeyExchangeId::CURVE_25519).unwrap();
        let theirs = message.payloads.key_exchange().unwrap();
        let (public, secret) = method.respond(ring_provider().random, &theirs.data).unwrap();
        let payloads = [
            Payload::Sa(SecurityAssociation::new(vec![ike_proposal()])),
            Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, public)),
            Payload::Nonce(Nonce::new(vec![9; 32])),
        ];
        let flags = Flags { initiator: false, version: false, response: true };
        let header = Header::new(spi_i, spi_r, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
        let nonce_i = message.payloads.nonce().unwrap().data.to_vec();
        let from = Contributions { nonce_i: &nonce_i, nonce_r: &[9; 32], spi_i, spi_r, secret: secret.as_ref() };
        let keys = Keys::initial(from).unwrap().held_by_responder();
        let mut puppet =
            Self { spis: (spi_i, spi_r), keys: Some(keys), initiator: false, next: 0, asked: None, answered: None };
        let sent = gateway.exchange(&encode(&header, &payloads).unwrap());
        puppet.note_requests(&sent);
        assert_eq!(puppet.asked.as_ref().map(|asked| asked.exchange), Some(ExchangeType::IKE_AUTH));
        puppet
    }

    /// The IKE SA that the puppet makes by rekeying this one.
    pub(crate) fn rekey_ike(&mut self, gateway: &mut Loopback) -> Self {
        let started = start_key_exchange().unwrap();
        let spi = IkeSpi(0x1111_2222_3333_4444);
        let chain = encode_chain(&rekey_ike(spi, started.public_value())).unwrap();
        let request = self.seal(ExchangeType::CREATE_CHILD_SA, self.next, false, &chain);
        let answers = gateway.exchange(&request);
        let answer = self.open(&answers[0]).unwrap();
        self.answered = Some((request, answers[0].clone()));
        self.next += 1;
        let payloads = parse_chain(answer.first, &answer.octets, 0).unwrap();
        let theirs = payloads.sa().and_then(|sa| sa.proposals[0].ike_spi()).unwrap();
        let secret = started.complete(&payloads.key_exchange().unwrap().data).unwrap();
        let nonce_r = payloads.nonce().unwrap().data.to_vec();
        let from =
            Contributions { nonce_i: &NONCE, nonce_r: &nonce_r, spi_i: spi, spi_r: theirs, secret: secret.as_ref() };
        let keys = self.keys.as_ref().unwrap().rekeyed(from).unwrap();
        Self { spis: (spi, theirs), keys: Some(keys), initiator: true, next: 0, asked: None, answered: None }
    }

    /// Looks for a request of the gateway among what it sent.
    pub(crate) fn note_requests(&mut self, sent: &[Vec<u8>]) {
        for octets in sent {
            let message = Message::parse(octets).unwrap();
            if !message.header.flags.response && self.open(octets).is_some() {
                self.asked = Some(Asked { exchange: message.header.exchange, id: message.header.message_id.0 });
            }
        }
    }

    pub(crate) fn header(&self, exchange: ExchangeType, id: u32, response: bool) -> Header {
        let flags = Flags { initiator: self.initiator, version: false, response };
        Header::new(self.spis.0, self.spis.1, exchange, flags, MessageId(id))
    }

    /// A message in SK; before there are keys, in SK under keys that are wrong.
    pub(crate) fn seal(&self, exchange: ExchangeType, id: u32, response: bool, chain: &Chain) -> Vec<u8> {
        let header = self.header(exchange, id, response);
        match &self.keys {
            Some(keys) => keys.seal(&header, chain).unwrap(),
            None => {
                let from = Contributions {
                    nonce_i: &NONCE,
                    nonce_r: &NONCE,
                    spi_i: IkeSpi(1),
                    spi_r: IkeSpi(2),
                    secret: &[1; 32],
                };
                Keys::initial(from).unwrap().seal(&header, chain).unwrap()
            }
        }
    }

    /// Decrypts what the gateway sent under this IKE SA.
    pub(crate) fn open(&self, octets: &[u8]) -> Option<Chain> {
        let message = Message::parse(octets).ok()?;
        let same = (message.header.initiator_spi, message.header.responder_spi) == self.spis;
        let opened = self.keys.as_ref().filter(|_| same)?.open(&message)?;
        Some(Chain { first: opened.first(), octets: opened.plaintext().ok()?.to_vec() })
    }
}

/// The puppet's nonce in CREATE_CHILD_SA.
pub(crate) const NONCE: [u8; 32] = [5; 32];

/// The payloads that ask for another CHILD SA; `rekeys` names the one that it is to replace.
pub(crate) fn create_child(rekeys: Option<u32>) -> Vec<Payload<'static>> {
    let about = |spi| Payload::Notify(Notify::about(NotifyType::REKEY_SA, ike_wire::ids::ProtocolId::ESP, spi));
    let mut payloads: Vec<_> = rekeys.map(about).into_iter().collect();
    payloads.push(Payload::Sa(SecurityAssociation::new(vec![esp_proposal(NEW_CHILD, false)])));
    payloads.push(Payload::Nonce(Nonce::new(NONCE.to_vec())));
    payloads.extend(profile().selectors());
    payloads
}

/// The payloads that ask for another IKE SA.
pub(crate) fn rekey_ike(spi: IkeSpi, public: &[u8]) -> Vec<Payload<'static>> {
    let proposal: Proposal = ike_proposal().with_ike_spi(spi);
    vec![
        Payload::Sa(SecurityAssociation::new(vec![proposal])),
        Payload::Nonce(Nonce::new(NONCE.to_vec())),
        Payload::KeyExchange(KeyExchange::new(KeyExchangeId::CURVE_25519, public.to_vec())),
    ]
}

/// The only error notification of some payloads.
pub(crate) fn error_of(payloads: &Payloads<'_>) -> Option<NotifyType> {
    payloads.notifies().map(|notify| notify.kind).find(|kind| kind.is_error())
}

/// Whether there is a payload of this type.
pub(crate) fn holds(payloads: &Payloads<'_>, kind: PayloadType) -> bool {
    payloads.iter().any(|payload| payload.kind() == kind)
}
