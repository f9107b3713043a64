//! IKE fragmentation (RFC 7383): who sends fragments, how many, what happens when they are lost, doubled or forged.

use std::time::Duration;

use ike_model::{ConfiguredSelector, Connection, Fragmentation, Identity};
use ike_wire::ids::{ExchangeType, NotifyType};
use ike_wire::{Header, Message};
use scenarios::{A, B, Verdict, Who, World, config};

use Fragmentation::{Accept, Force, No, Yes};

/// Selectors of A's network: enough to make three or four fragments of every message that lists them.
const NETWORKS: u8 = 31;
/// Octets of an IP datagram that make it so.
const SMALL: u16 = 300;

fn networks(who: Who) -> Vec<ConfiguredSelector> {
    (0..NETWORKS).map(|number| ConfiguredSelector::Fixed(config::lan(who, number))).collect()
}

fn connection(local: Who, remote: Who, fragmentation: Fragmentation) -> Connection {
    let mut connection = config::with_child(config::connection("gw", local, remote), |child| {
        if local == A { child.local_ts = networks(A) } else { child.remote_ts = networks(A) }
    });
    connection.fragmentation = fragmentation;
    connection
}

fn world(fragmentation: [Fragmentation; 2], size: u16, shards: [u8; 2]) -> World {
    let mut world = World::with_shards(1, &shards);
    for (who, fragmentation) in [A, B].into_iter().zip(fragmentation) {
        world.gateway_mut(who).config.settings.fragment_size = size;
        world.configure(who, connection(who, A + B - who, fragmentation));
    }
    world
}

fn small() -> World {
    world([Yes, Yes], SMALL, [1, 1])
}

/// Number and total of the fragment that a datagram holds.
fn part(octets: &[u8]) -> Option<(u16, u16)> {
    Message::parse(octets).unwrap().fragment().map(|fragment| (fragment.number, fragment.total))
}

/// What a gateway sent: number and total of fragments, `None` for whole messages.
fn parts(world: &World, who: Who) -> Vec<Option<(u16, u16)>> {
    world.gateway(who).sent.iter().map(|(_, _, octets)| part(octets)).collect()
}

/// All fragments of a message of `total`.
fn all(total: u16) -> impl Iterator<Item = Option<(u16, u16)>> {
    (1..=total).map(move |number| Some((number, total)))
}

fn announces(world: &World, who: Who) -> bool {
    let first = Message::parse(&world.gateway(who).sent[0].2).unwrap();
    first.payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some()
}

//= RFC 7383 §2.3: fragments go only where both have announced that they can
//= RFC 7383 §2.5: each fragment is a message of its own
#[test]
fn both_must_want_it() {
    for shards in [[1, 1], [2, 7], [7, 2]] {
        for a in [Yes, Accept, No, Force] {
            for b in [Yes, Accept, No, Force] {
                let mut world = world([a, b], SMALL, shards);
                world.establish();
                let case = format!("{a:?} and {b:?}, shards {shards:?}");
                assert_eq!(world.elapsed(), Duration::from_millis(540), "{case}");
                // The responder keeps silent where the initiator does.
                assert_eq!((announces(&world, A), announces(&world, B)), (a != No, a != No && b != No), "{case}");
                let request = matches!(a, Yes | Force) && b != No;
                let response = matches!(b, Yes | Force) && a != No;
                let expected = |fragments: bool, total: u16| -> Vec<_> {
                    if fragments { [None].into_iter().chain(all(total)).collect() } else { vec![None, None] }
                };
                assert_eq!(parts(&world, A), expected(request, 4), "{case}");
                assert_eq!(parts(&world, B), expected(response, 3), "{case}");
            }
        }
    }
}

/// A responder with several connections for the peer's address announces it when one of them would, and sends as the chosen one says.
#[test]
fn candidates_decide_together() {
    for (chosen, other, announced, sends) in
        [(Yes, No, true, true), (No, Yes, true, false), (Accept, No, true, false), (No, No, false, false)]
    {
        let mut world = world([Yes, chosen], SMALL, [1, 1]);
        let mut further = connection(B, A, other);
        further.name = "another".into();
        further.remote[0].id = Identity::Fqdn("x.example".into());
        world.configure(B, further);
        world.establish();
        assert_eq!(announces(&world, B), announced, "{chosen:?} and {other:?}");
        assert_eq!(parts(&world, A).len(), if announced { 5 } else { 2 });
        assert_eq!(parts(&world, B).len(), if sends { 4 } else { 2 }, "{chosen:?} and {other:?}");
    }
}

//= RFC 7383 §2.5.1: what fits into one datagram is sent whole
#[test]
fn messages_up_to_the_limit_stay_whole() {
    let mut whole = world([No, No], SMALL, [1, 1]);
    whole.establish();
    let lengths = [A, B].map(|who| whole.gateway(who).sent[1].2.len());
    // IPv4 and UDP headers.
    let size = |who: Who, more: i32| u16::try_from(i32::try_from(lengths[who] + 28).unwrap() + more).unwrap();
    for who in [A, B] {
        for (more, count) in [(1, 1), (0, 1), (-1, 2)] {
            let mut world = small();
            world.gateway_mut(who).config.settings.fragment_size = size(who, more);
            world.establish();
            assert_eq!(parts(&world, who).len() - 1, count, "{who} {more}");
        }
    }
}

#[test]
fn no_datagram_is_longer_than_it_may_be() {
    for (size, v4, v6) in [(0, 548, 1232), (256, 228, 208), (300, 272, 252), (576, 548, 528), (1280, 1252, 1232)] {
        for over_v6 in [false, true] {
            let mut world = World::with_shards(1, &[1, 1]);
            for who in [A, B] {
                world.set_addresses(who, &[config::address(who), config::address_v6(who)]);
                let base = connection(who, A + B - who, Yes);
                let v6 = config::connection_v6("gw", who, A + B - who);
                let addresses = if over_v6 { v6 } else { base.clone() };
                let (local_addrs, remote_addrs) = (addresses.local_addrs, addresses.remote_addrs);
                world.gateway_mut(who).config.settings.fragment_size = size;
                world.configure(who, Connection { local_addrs, remote_addrs, ..base });
            }
            world.establish();
            world.rekey_child(A, "net");
            world.run_for(Duration::from_secs(10));
            world.check_one_tunnel(A, B);
            let limit = if over_v6 { v6 } else { v4 };
            for who in [A, B] {
                // The first exchange is never divided.
                let sent = world.gateway(who).sent.iter().skip(1);
                let longest = sent.clone().map(|(_, _, octets)| octets.len()).max().unwrap();
                let divided = sent.filter(|(_, _, octets)| part(octets).is_some()).count();
                assert!(longest <= limit, "{longest} of {limit}");
                assert_eq!(divided > 0, limit < 650, "{size} {over_v6}");
            }
        }
    }
}

/// Behind NAT the non-ESP marker counts too.
#[test]
fn the_marker_counts() {
    let mut world = small();
    for who in [A, B] {
        let mut forced = connection(who, A + B - who, Yes);
        forced.encap = true;
        world.configure(who, forced);
    }
    world.establish();
    let longest = world.gateway(A).sent.iter().skip(1).map(|(_, _, octets)| octets.len()).max();
    assert_eq!(longest, Some(usize::from(SMALL) - 28 - 4));
}

#[test]
fn the_first_exchange_is_never_divided() {
    let mut world = world([Yes, Yes], 64, [1, 1]);
    world.establish();
    for who in [A, B] {
        let (_, _, octets) = &world.gateway(who).sent[0];
        assert!(octets.len() > 200 && part(octets).is_none());
    }
}

/// What is lost of a message of A or B in the handshake, and what is sent for it: datagrams without IKE_SA_INIT.
struct Loss {
    from: Who,
    /// Number of the datagram of that gateway, IKE_SA_INIT not counted.
    nth: usize,
    sent: [usize; 2],
}

//= RFC 7383 §2.6.1: the whole message is repeated, and the response only for the first fragment
#[test]
fn each_lost_fragment_is_made_good_by_a_repetition() {
    // Four fragments of the request, three of the response.
    let requests = (0..4).map(|nth| Loss { from: A, nth, sent: [8, 3] });
    let responses = (0..3).map(|nth| Loss { from: B, nth, sent: [8, 6] });
    for loss in requests.chain(responses) {
        let mut world = small();
        let (from, nth) = (loss.from, loss.nth + 1);
        world.link.drop_if(move |who, n| who == from && n == nth);
        let ticket = world.initiate(A, "gw", "net");
        assert!(world.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some()));
        assert_eq!(world.elapsed(), Duration::from_millis(4_040), "{from} {nth}");
        world.run_for(Duration::from_secs(300));
        world.check_one_tunnel(A, B);
        assert_eq!([A, B].map(|who| world.sent(who) - 1), loss.sent, "{from} {nth}");
        // Octet for octet the same set again.
        for (who, total) in [(A, 4), (B, 3)] {
            let octets: Vec<_> = world.gateway(who).sent.iter().skip(1).map(|(_, _, octets)| octets).collect();
            assert!(octets.iter().enumerate().all(|(at, one)| *one == octets[at % total]), "{who}");
        }
    }
}

/// Fragments of two repetitions make one message: each time another one is lost.
#[test]
fn repetitions_fill_each_others_gaps() {
    let mut world = small();
    // IKE_SA_INIT is number 0; then four fragments, and four again.
    world.link.drop_if(|who, n| who == A && (n == 2 || n == 7));
    let ticket = world.initiate(A, "gw", "net");
    assert!(world.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some()));
    assert_eq!(world.elapsed(), Duration::from_millis(4_040));
    assert_eq!((world.sent(A), world.sent(B)), (9, 4));
}

#[test]
fn doubled_fragments_count_once() {
    let mut world = small();
    world.link.duplicates = 1_000;
    world.establish();
    world.run_for(Duration::from_secs(300));
    world.check_one_tunnel(A, B);
    // The second copy of the last fragment comes after the answer, and it is not the first fragment: no further answer. The second copy of
    // IKE_SA_INIT is answered again.
    assert_eq!((world.sent(A), world.sent(B)), (5, 5));
}

#[test]
fn any_order_will_do() {
    for order in [[0, 3, 6, 9], [9, 6, 3, 0], [5, 0, 9, 2], [3, 9, 0, 6]] {
        let mut world = small();
        world.link.rule(move |sending| match part(sending.octets) {
            Some((number, _)) => Verdict::Delay(Duration::from_millis(order[usize::from(number) - 1])),
            None => Verdict::Pass,
        });
        let ticket = world.initiate(A, "gw", "net");
        assert!(world.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some()));
        let slowest = order.iter().max().unwrap() + order[..3].iter().max().unwrap();
        assert_eq!(world.elapsed(), Duration::from_millis(40 + slowest));
        world.run_for(Duration::from_secs(300));
        world.check_one_tunnel(A, B);
        assert_eq!((world.sent(A), world.sent(B)), (5, 4), "{order:?}");
    }
}

/// Another limit applies to further messages, not to the repetition of one that is under way; the oracle compares the octets.
#[test]
fn a_changed_limit_does_not_change_repetitions() {
    let mut world = small();
    world.link.drop_if(|who, n| who == A && n == 2);
    let ticket = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(1));
    for who in [A, B] {
        world.gateway_mut(who).config.settings.fragment_size = 200;
        world.configure(who, connection(who, A + B - who, No));
    }
    assert!(world.run_until(Duration::from_secs(60), |world| world.reply(A, ticket).is_some()));
    assert_eq!(parts(&world, A)[1..], all(4).chain(all(4)).collect::<Vec<_>>());
    world.check_one_tunnel(A, B);
}

fn rekey_in_fragments(lost: Option<(Who, usize)>) {
    // IKE SA and CHILD SA under a limit that divides both.
    let mut world = world([Yes, Yes], 200, [1, 1]);
    world.establish();
    world.traffic_every = Some(Duration::from_millis(50));
    for (round, who) in [A, B, A, B].into_iter().enumerate() {
        let before = [world.sent(A), world.sent(B)];
        world.link.clear_rules();
        if let Some((from, nth)) = lost {
            world.link.drop_if(move |sender, n| sender == from && n == before[from] + nth);
        }
        if round < 2 {
            world.rekey_child(who, "net")
        } else {
            world.rekey_ike(who, "gw")
        };
        world.run_for(Duration::from_secs(60));
        world.check_one_tunnel(A, B);
        let sent = [A, B].map(|who| parts(&world, who)[before[who]..].to_vec());
        assert!(sent.iter().all(|parts| parts.iter().any(Option::is_some)), "round {round}");
    }
    let rekeyed = |event| [A, B].map(|who| world.gateway(who).count(event));
    assert_eq!((rekeyed("child-sa.rekeyed"), rekeyed("ike-sa.rekeyed")), ([2, 2], [2, 2]));
    assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
}

/// A rekeyed IKE SA goes on with fragments, under its own message IDs.
#[test]
fn rekeying_in_fragments() {
    rekey_in_fragments(None);
    for who in [A, B] {
        (0..2).for_each(|nth| rekey_in_fragments(Some((who, nth))));
    }
}

/// Both rekey at once, in fragments, with losses and reordering: exactly one tunnel is left.
#[test]
fn collisions_in_fragments() {
    for seed in 0..10 {
        let mut world = World::with_shards(seed, &[1, 1]);
        for who in [A, B] {
            world.gateway_mut(who).config.settings.fragment_size = 200;
            world.configure(who, connection(who, A + B - who, Yes));
        }
        world.establish();
        world.strict(false);
        world.traffic_every = Some(Duration::from_secs(2));
        world.link.loss = 50;
        world.link.jitter = Duration::from_millis(20);
        for what in 0..4 {
            for who in [A, B] {
                if what % 2 == 0 {
                    world.rekey_child(who, "net")
                } else {
                    world.rekey_ike(who, "gw")
                };
            }
            world.run_for(Duration::from_secs(400));
        }
        world.link.loss = 0;
        world.run_for(Duration::from_secs(400));
        world.check_one_tunnel(A, B);
        assert_eq!([A, B].map(|who| world.gateway(who).counts().ike_sas), [1, 1], "seed {seed}");
    }
}

/// Changes in a fragment that nobody without the keys can hide.
fn forgeries(octets: &[u8]) -> Vec<Vec<u8>> {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = octets.to_vec();
        change(&mut octets);
        octets
    };
    let (number, total) = part(octets).unwrap();
    // Behind IKE header and payload header.
    let numbers = |number: u16, total: u16| {
        changed(&|octets| {
            octets[32..34].copy_from_slice(&number.to_be_bytes());
            octets[34..36].copy_from_slice(&total.to_be_bytes());
        })
    };
    let mut all = vec![
        // Another ICV, another ciphertext, another IV.
        changed(&|octets| *octets.last_mut().unwrap() ^= 1),
        changed(&|octets| octets[50] ^= 1),
        changed(&|octets| octets[36] ^= 1),
        // Numbers that do not exist.
        numbers(0, total),
        numbers(number, 0),
        numbers(total + 1, total),
        numbers(1, 129),
        numbers(255, 255),
        numbers(u16::MAX, u16::MAX),
        // Another division: would start over, would end at once, would be the last one missing.
        numbers(number, total + 1),
        numbers(1, 1),
        numbers(number % total + 1, total),
        // The message as a whole, another exchange, another first payload, another direction.
        changed(&|octets| octets[16] = 46),
        changed(&|octets| octets[18] = ExchangeType::INFORMATIONAL.0),
        changed(&|octets| octets[28] ^= 0x20),
        changed(&|octets| octets[19] ^= 0x20),
    ];
    // A payload in front of the fragment: an empty Vendor ID.
    all.push(changed(&|octets| {
        octets[16] = 43;
        octets.splice(28..28, [53, 0, 0, 4]);
        let length = u32::try_from(octets.len()).unwrap();
        octets[24..28].copy_from_slice(&length.to_be_bytes());
    }));
    all
}

//= RFC 7383 §2.6: a fragment whose ICV is wrong is dropped, and nothing is stored of it
/// Before and after each fragment comes every forgery of it, and the next fragments forged as well: the handshake and the rekeyings go on as if
/// nothing had been.
#[test]
fn forged_fragments_change_nothing() {
    let mut world = world([Yes, Yes], 200, [1, 1]);
    world.link.rule(|sending| if part(sending.octets).is_some() { Verdict::Hold } else { Verdict::Pass });
    let mut forged = 0;
    let ticket = world.initiate(A, "gw", "net");
    for stage in 0..3 {
        if stage == 1 {
            world.rekey_child(B, "net");
        } else if stage == 2 {
            world.rekey_ike(A, "gw");
        }
        world.run_for(Duration::from_secs(1));
        while !world.held().is_empty() {
            // All that is on the way, forged, before the first one of it arrives.
            let flying: Vec<_> = world.held().iter().map(|flying| (flying.from, flying.octets.clone())).collect();
            for (from, octets) in flying {
                let path = world.gateway(from).sent.iter().find(|(_, _, sent)| *sent == octets).unwrap().1;
                let path = ipsec::Path { local: path.remote, remote: path.local };
                let before = (world.sent(A), world.sent(B));
                for forgery in forgeries(&octets) {
                    world.inject(A + B - from, path, &forgery);
                    forged += 1;
                }
                assert_eq!((world.sent(A), world.sent(B)), before, "nothing is answered");
            }
            world.let_go(|_| true);
            world.run_for(Duration::from_millis(100));
        }
        world.run_for(Duration::from_millis(900));
    }
    assert!(world.reply(A, ticket).is_some_and(|done| done.is_ok()));
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    for who in [A, B] {
        assert_eq!(world.gateway(who).count("child-sa.rekeyed"), 1);
        assert_eq!(world.gateway(who).count("ike-sa.rekeyed"), 1);
        // Nothing had to be repeated.
        let mut sent: Vec<_> = world.gateway(who).sent.iter().map(|(_, _, octets)| octets).collect();
        let count = sent.len();
        sent.sort();
        sent.dedup();
        assert_eq!(sent.len(), count, "{who}");
    }
    assert!(forged > 500, "{forged}");
}

/// A fragment of a request that was answered asks for nothing.
#[test]
fn stray_fragments_are_not_answered() {
    let mut world = small();
    world.establish();
    // The last fragment of a rekeying does not come until A repeats it for the third time.
    world.link.rule(move |sending| match part(sending.octets) {
        Some((number, total)) if sending.from == A && number == total => Verdict::Drop,
        Some(_) | None => Verdict::Pass,
    });
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(20));
    let (_, path, octets) = world.gateway(A).sent.last().unwrap().clone();
    world.link.clear_rules();
    world.run_for(Duration::from_secs(300));
    world.check_one_tunnel(A, B);
    assert_eq!(world.gateway(B).count("child-sa.rekeyed"), 1);
    // A stray fragment of that request, long after: no answer, as it is not the first.
    let before = world.sent(B);
    world.inject(B, ipsec::Path { local: path.remote, remote: path.local }, &octets);
    assert_eq!(world.sent(B), before);
    assert!(part(&octets).is_some_and(|(number, _)| number > 1) && !Header::parse(&octets).unwrap().flags.response);
}

/// Half of an IKE_AUTH request and nothing more: it is forgotten with the half-open IKE SA.
#[test]
fn half_a_request_ages_with_its_half_open_ike_sa() {
    let mut world = small();
    world.link.drop_if(|who, n| who == A && n >= 3);
    world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.gateway(B).counts().half_open, 1);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.gateway(B).counts().ike_sas, 0);
    assert_eq!(world.sent(B), 1);
}
