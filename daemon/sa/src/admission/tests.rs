//! Limits and cookies over time.

use std::net::IpAddr;
use std::time::Duration;

use ike_crypto::{SystemRandom, ring_provider};

use super::*;

struct Ground {
    settings: IkeSettings,
    admission: Admission,
}

impl Ground {
    fn new(settings: IkeSettings) -> Self {
        Self { settings, admission: Admission::new() }
    }

    fn gate(&self, seconds: u64) -> Gate<'_> {
        let now = Instant::new(Duration::from_secs(seconds));
        Gate { now, rng: &SystemRandom, provider: ring_provider(), settings: &self.settings }
    }

    fn decide(&self, seconds: u64, peer: &str, proven: bool) -> Decision {
        self.admission.decide(&self.gate(seconds), address(peer), proven, 0)
    }

    fn enter(&self, seconds: u64, peer: &str, proven: bool) {
        self.admission.enter(&self.gate(seconds), address(peer), proven);
    }

    fn leave(&self, seconds: u64, peer: &str) {
        self.admission.leave(self.gate(seconds).now, address(peer));
    }

    fn cookie(&self, seconds: u64, binding: Binding<'_>) -> Vec<u8> {
        let answer = self.admission.demand(&self.gate(seconds), binding).unwrap();
        let message = ike_wire::Message::parse(&answer).unwrap();
        message.payloads.notify(NotifyType::COOKIE).unwrap().data.to_vec()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn binding<'a>(nonce: &'a [u8], peer: &str, spi: u64) -> Binding<'a> {
    Binding { nonce, address: address(peer), spi: IkeSpi(spi) }
}

//= RFC 7296 §2.6: cookies are asked for when there are many half-open IKE SAs
#[test]
fn thresholds_count_all_and_each_peer() {
    let ground = Ground::new(IkeSettings::default());
    for number in 0..3 {
        assert_eq!(ground.decide(1, "192.0.2.1", false), Decision::Begin, "{number}");
        ground.enter(1, "192.0.2.1", false);
    }
    assert_eq!(ground.decide(1, "192.0.2.1", false), Decision::AskCookie);
    assert_eq!(ground.decide(1, "192.0.2.2", false), Decision::Begin);
    assert_eq!(ground.decide(1, "192.0.2.1", true), Decision::Begin);
    ground.enter(1, "192.0.2.1", true);
    ground.enter(1, "192.0.2.1", true);
    assert!(matches!(ground.decide(1, "192.0.2.1", true), Decision::Refuse(_)), "block_threshold");
    for host in 10..35 {
        ground.enter(1, &format!("192.0.2.{host}"), false);
    }
    assert_eq!(ground.admission.half_open(), 30);
    assert_eq!(ground.decide(1, "192.0.2.200", false), Decision::AskCookie);
    ground.leave(1, "192.0.2.10");
    assert_eq!(ground.decide(1, "192.0.2.200", false), Decision::Begin);
}

#[test]
fn an_ipv6_peer_is_its_network() {
    let ground = Ground::new(IkeSettings::default());
    for host in 1..=3 {
        ground.enter(1, &format!("2001:db8:0:1::{host}"), false);
    }
    assert_eq!(ground.decide(1, "2001:db8:0:1:ffff::9", false), Decision::AskCookie);
    assert_eq!(ground.decide(1, "2001:db8:0:2::1", false), Decision::Begin);
}

/// What is forged in a peer's name uses up nothing of what that peer may do once it shows a cookie.
#[test]
fn rates_of_proven_and_unproven_requests_are_apart() {
    let ground = Ground::new(IkeSettings { init_rate_ip: 2, ..IkeSettings::default() });
    for _ in 0..10 {
        assert_eq!(ground.decide(1, "192.0.2.1", false), Decision::Begin);
        ground.enter(1, "192.0.2.1", false);
        ground.leave(1, "192.0.2.1");
    }
    assert_eq!(ground.decide(1, "192.0.2.1", false), Decision::AskCookie);
    for _ in 0..10 {
        assert_eq!(ground.decide(1, "192.0.2.1", true), Decision::Begin);
        ground.enter(1, "192.0.2.1", true);
        ground.leave(1, "192.0.2.1");
    }
    assert!(matches!(ground.decide(1, "192.0.2.1", true), Decision::Refuse(_)));
    assert_eq!(ground.decide(2, "192.0.2.1", true), Decision::Begin);
    assert_eq!(ground.decide(60, "192.0.2.1", false), Decision::Begin);
}

#[test]
fn limits_hold_for_all() {
    let ground = Ground::new(IkeSettings { half_open_limit: 2, ikesa_limit: 5, ..IkeSettings::default() });
    let gate = ground.gate(1);
    assert_eq!(ground.admission.decide(&gate, address("192.0.2.1"), true, 4), Decision::Begin);
    assert!(matches!(ground.admission.decide(&gate, address("192.0.2.1"), true, 5), Decision::Refuse(_)));
    ground.enter(1, "192.0.2.1", false);
    ground.enter(1, "192.0.2.2", false);
    assert!(matches!(ground.decide(1, "192.0.2.3", true), Decision::Refuse(_)));
}

/// Without any limit set, the tables still have an end.
#[test]
fn tables_are_bounded_whatever_the_settings_say() {
    let open =
        IkeSettings { cookie_threshold: 0, cookie_threshold_ip: 0, block_threshold: 0, ..IkeSettings::default() };
    let ground = Ground::new(open);
    for number in 0..HALF_OPEN {
        let peer = IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        assert_eq!(ground.admission.decide(&ground.gate(1), peer, false, 0), Decision::Begin);
        ground.admission.enter(&ground.gate(1), peer, false);
    }
    assert!(matches!(ground.decide(1, "192.0.2.1", true), Decision::Refuse(_)));
    for number in 0..HALF_OPEN {
        ground.admission.leave(ground.gate(1).now, IpAddr::from(u32::try_from(number).unwrap().to_be_bytes()));
    }
    assert_eq!(ground.admission.half_open(), 0);
    assert_eq!(ground.admission.lock().peers.len(), HALF_OPEN, "their rates are remembered");
    ground.enter(100, "192.0.2.1", false);
    assert_eq!(ground.admission.lock().peers.len(), 1, "and swept out when there are many");
}

//= RFC 7296 §2.6: a cookie made with the secret before the current one is still accepted
#[test]
fn the_previous_secret_is_still_valid() {
    let ground = Ground::new(IkeSettings::default());
    let bound = binding(&[7; 32], "192.0.2.1", 1);
    let valid = |seconds, bound, cookie: &[u8]| ground.admission.is_valid(&ground.gate(seconds), bound, cookie);
    let first = ground.cookie(0, bound);
    assert!(first.len() <= 64);
    assert!(valid(119, bound, &first));
    let second = ground.cookie(121, bound);
    assert_ne!(first, second);
    assert!(valid(122, bound, &first) && valid(122, bound, &second), "after a rotation both");
    assert!(!valid(241, bound, &first) && valid(241, bound, &second), "then only the later one");
    let third = ground.cookie(242, bound);
    assert!(!valid(243, bound, &first) && valid(243, bound, &third));
}

//= RFC 7296 §2.6: Cookie = <VersionIDofSecret> | Hash(Ni | IPi | SPIi | <secret>)
#[test]
fn a_cookie_is_bound_to_nonce_address_and_spi() {
    let ground = Ground::new(IkeSettings::default());
    let cookie = ground.cookie(0, binding(&[7; 32], "192.0.2.1", 1));
    let valid = |bound| ground.admission.is_valid(&ground.gate(1), bound, &cookie);
    assert!(valid(binding(&[7; 32], "192.0.2.1", 1)));
    assert!(!valid(binding(&[8; 32], "192.0.2.1", 1)));
    assert!(!valid(binding(&[7; 32], "192.0.2.2", 1)));
    assert!(!valid(binding(&[7; 32], "192.0.2.1", 2)));
}

fn request(cookie: Option<&[u8]>) -> Vec<u8> {
    let flags = Flags { initiator: true, version: false, response: false };
    let header = Header::new(IkeSpi(1), IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, MessageId(0));
    let cookie = cookie.map(|cookie| Payload::Notify(Notify::new(NotifyType::COOKIE, cookie.to_vec())));
    let nonce = Payload::Nonce(ike_wire::Nonce::new(vec![7; 32]));
    encode(&header, &cookie.into_iter().chain([nonce]).collect::<Vec<_>>()).unwrap()
}

/// A receiving thread decides as a shard would, from the octets alone.
#[test]
fn screening_answers_drops_or_passes() {
    let ground = Ground::new(IkeSettings { cookie_threshold: 1, ..IkeSettings::default() });
    let path = Path { local: "192.0.2.9:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    let screen = |octets: &[u8]| ground.admission.screen(&ground.gate(1), path, octets);
    assert_eq!(screen(&request(None)), Screened::Pass { proven: false });
    ground.enter(1, "192.0.2.2", false);
    let Screened::Answer(answer) = screen(&request(None)) else { panic!("must ask for a cookie") };
    assert!(answer.len() < request(None).len() + 64);
    let cookie = ground.cookie(1, binding(&[7; 32], "192.0.2.1", 1));
    assert_eq!(screen(&request(Some(&cookie))), Screened::Pass { proven: true });
    assert!(matches!(screen(&request(Some(&cookie[1..]))), Screened::Answer(_)));
    let whole = request(Some(&cookie));
    for cut in 0..whole.len() {
        assert!(!matches!(screen(&whole[..cut]), Screened::Pass { .. }), "cut to {cut}");
    }
    assert_eq!(screen(&[0; 300]), Screened::Drop);
    let tally = ground.admission.tally();
    let cookies = tally.so_far(Tallied::CookieDemanded);
    let malformed = tally.so_far(Tallied::Dropped(Dropped::Malformed));
    let refused = 3 + whole.len() as u64;
    assert_eq!(tally.so_far(Tallied::Received), refused, "whatever does not pass is counted once");
    assert_eq!(cookies + malformed, refused + 1, "and one cookie was asked for by the test");
    let newer = Screened::Pass { proven: false };
    assert_eq!(screen(&[0xff; 300]), newer, "to be told that its version is another");
}

//= RFC 7296 §2.21: errors outside of an IKE SA are rate-limited
#[test]
fn errors_have_a_rate() {
    let ground = Ground::new(IkeSettings::default());
    let told = |seconds| (0..100).filter(|_| ground.admission.may_tell_error(&ground.gate(seconds))).count();
    assert_eq!((told(1), told(1), told(2)), (10, 0, 10));
    let silent = Ground::new(IkeSettings { error_rate: 0, ..IkeSettings::default() });
    assert!(!silent.admission.may_tell_error(&silent.gate(1)));
}
