//! The kernel backend's netlink layer on a kernel that has ESP: states read back as they were asked for, and what the kernel tells of them.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, ensure};
use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{Direction, EspAlgorithm, KeyMaterial, Mark, Reqid, SaMode, Spi, Tags, UdpEncapsulation};
use lab::netns::Namespace;
use lab::process::wait_until;
use lab::topology::{FAMILIES, Family};
use libtest_mimic::Trial;
use offload_host::prefix::Prefix;
use offload_host::xfrm::{PolicyKey, Verdict, Way};
use offload_kernel::netlink::esp::{EspSupport, every_algorithm};
use offload_kernel::netlink::{KernelXfrm, Listener};
use offload_kernel::xfrm::{KernelEvent, KernelLimits, NewState, Policy, State, StateId, Template, Xfrm};

use crate::bench::{Pair, ip, trial};

const REQID: Reqid = Reqid(7);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("netlink::the_kernel_has_all_of_esp", the_kernel_has_all_of_esp),
        trial("netlink::sas_of_every_algorithm_read_back", sas_of_every_algorithm_read_back),
        trial("netlink::sas_with_every_option_read_back", sas_with_every_option_read_back),
        trial("netlink::limits_are_told_soft_then_hard", limits_are_told_soft_then_hard),
        trial("netlink::what_becomes_of_sas_is_told", what_becomes_of_sas_is_told),
        trial("netlink::another_port_of_the_peer_is_told", another_port_of_the_peer_is_told),
        trial("netlink::a_cpu_asks_for_its_own_sa_and_uses_it", a_cpu_asks_for_its_own_sa_and_uses_it),
        trial("netlink::the_kernel_keeps_a_nat_awake", the_kernel_keeps_a_nat_awake),
        trial("netlink::old_sequence_numbers_are_not_received_again", old_sequence_numbers_are_not_received_again),
    ]
}

pub(crate) fn open(place: &Namespace) -> anyhow::Result<KernelXfrm> {
    Ok(place.run(KernelXfrm::open)??)
}

fn listen(place: &Namespace) -> anyhow::Result<Listener> {
    Ok(place.run(Listener::open)??)
}

pub(crate) fn key(algorithm: EspAlgorithm) -> KeyMaterial {
    let octets = |count: usize| (1_u8..=255).cycle().take(count).collect::<Vec<_>>();
    let integrity = algorithm.integrity.map(|integrity| octets(integrity.keymat_octets()));
    KeyMaterial::new(&octets(algorithm.encryption.keymat_octets()), integrity.as_deref())
}

/// An SA of the transport mode from one address to another.
pub(crate) fn sa(
    key: &KeyMaterial,
    [source, destination]: [IpAddr; 2],
    spi: u32,
    direction: Direction,
) -> NewState<'_> {
    let id = StateId { destination, spi: Spi::new(spi).unwrap_or(LEAST), mark: None };
    let mode = SaMode::Transport;
    NewState { mode, ..NewState::plain(id, source, direction, REQID, EspAlgorithm::AES_256_GCM, key) }
}

const LEAST: Spi = match Spi::new(256) {
    Some(spi) => spi,
    None => panic!("the least SPI there is"),
};

pub(crate) fn ends(family: Family) -> [IpAddr; 2] {
    let (a, b) = Pair::addresses(family);
    [a, b]
}

/// A policy that protects everything between two addresses.
fn policy(way: Way, [source, destination]: [IpAddr; 2]) -> Policy {
    let key = PolicyKey::between(way, Prefix::host(source), Prefix::host(destination));
    let template = Template { source, destination, spi: None, reqid: REQID, mode: SaMode::Transport, optional: false };
    let template = Some(template);
    Policy { key, priority: 100, index: 0, verdict: Verdict::Allow, template, device: None, per_cpu: false }
}

fn the_kernel_has_all_of_esp() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let support = EspSupport::ask(&mut xfrm)?;
    ensure!(support.lack().is_none(), "{support:?}");
    ensure!(support.algorithms() == every_algorithm(), "{support:?}");
    ensure!(ip(&pair.a, "xfrm state")?.is_empty(), "what was tried is still there");
    let known = xfrm.attributes()?;
    ensure!(known.direction && known.cpu && known.nat_keepalive, "{known:?}");
    Ok(())
}

/// Adds an SA, and reads it alone, in the list, and after it was deleted.
fn read_back(xfrm: &mut KernelXfrm, state: &NewState<'_>) -> anyhow::Result<()> {
    xfrm.add_state(state).with_context(|| format!("adding {state:?}"))?;
    let found = xfrm.state(&state.id)?.with_context(|| format!("{state:?} is not there"))?;
    let listed = xfrm.states()?;
    ensure!(listed.contains(&found), "the list has no {found:?}: {listed:?}");
    ensure!(xfrm.delete_state(&state.id)?, "{state:?} was gone before it was deleted");
    ensure!(xfrm.state(&state.id)?.is_none() && !xfrm.delete_state(&state.id)?, "{state:?} is still there");
    ensure!(found.added > 0, "the kernel shows no birth of {state:?}");
    let shown = State { added: 0, ..found };
    ensure!(shown == state.shown(), "{shown:?} was to be {:?}", state.shown());
    Ok(())
}

fn sas_of_every_algorithm_read_back() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    for algorithm in every_algorithm() {
        let key = key(algorithm);
        for family in FAMILIES {
            for (direction, esn) in [
                (Direction::Inbound, false),
                (Direction::Inbound, true),
                (Direction::Outbound, false),
                (Direction::Outbound, true),
            ] {
                for mode in [SaMode::Tunnel, SaMode::Transport] {
                    let state = sa(&key, ends(family), 0x1234_5678, direction);
                    read_back(&mut xfrm, &NewState { algorithm, esn, mode, ..state })?;
                }
            }
        }
    }
    ensure!(xfrm.states()?.is_empty(), "SAs stay");
    Ok(())
}

fn sas_with_every_option_read_back() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let state = sa(&key, ends(family), 0xffff_fffe, direction);
            for change in options(family) {
                read_back(&mut xfrm, &change(state.clone()))?;
            }
            // All that go together at once.
            read_back(&mut xfrm, &options(family).into_iter().fold(state.clone(), |state, change| change(state)))?;
        }
        let [source, destination] = ends(family);
        for replay_window in [0, 1, 31, 32, 33, 64, 128, 1024, 4096] {
            for (esn, initial_sequence) in [(false, 0), (false, 77), (true, 0), (true, 0x5_0000_0003)] {
                let inbound = sa(&key, [source, destination], 0x1000, Direction::Inbound);
                let state = NewState { esn, replay_window, initial_sequence, ..inbound };
                if esn && replay_window == 0 {
                    let refusal = xfrm.add_state(&state).err().context("ESN without a window was taken")?;
                    ensure!(refusal.to_string().contains("eplay window"), "{refusal}");
                } else {
                    read_back(&mut xfrm, &state)?;
                }
            }
        }
        for (esn, initial_sequence) in [(false, 4_000_000_000), (true, 0xffff_fffe_0000_0001)] {
            let outbound = sa(&key, [source, destination], 0x1000, Direction::Outbound);
            read_back(&mut xfrm, &NewState { esn, initial_sequence, ..outbound })?;
        }
    }
    Ok(())
}

pub(crate) type Change = Box<dyn Fn(NewState<'_>) -> NewState<'_>>;

/// Everything besides algorithm, window and numbers that an SA can have.
pub(crate) fn options(family: Family) -> Vec<Change> {
    let original: IpAddr = match family {
        Family::V4 => IpAddr::from([10, 0, 0, 9]),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]),
    };
    let limits = KernelLimits {
        soft_bytes: Some(1 << 40),
        hard_bytes: Some(u64::MAX - 1),
        soft_packets: Some(1),
        hard_packets: Some(1 << 33),
        soft_time: Some(Duration::from_millis(3_599_001)),
        hard_time: Some(Duration::from_secs(4_000_000_000)),
    };
    let set_mark = Some(Mark { value: 0x10, mask: 0xf0 });
    let ports = UdpEncapsulation { local_port: 4500, remote_port: 61_234 };
    vec![
        Box::new(|state| NewState { mode: SaMode::Tunnel, ..state }),
        Box::new(|state| NewState { id: StateId { mark: Some(Mark::new(3, 0xff)), ..state.id }, ..state }),
        Box::new(|state| NewState { tags: Tags { if_id: 0x8000_0001, ..state.tags }, ..state }),
        Box::new(move |state| NewState { tags: Tags { set_mark, ..state.tags }, ..state }),
        Box::new(move |state| NewState { limits, ..state }),
        Box::new(move |state| NewState { encapsulation: Some(ports), ..state }),
        Box::new(move |state| NewState { encapsulation: Some(ports), original_source: Some(original), ..state }),
        Box::new(|state| NewState { copy: HeaderCopy { df: false, ..state.copy }, ..state }),
        Box::new(|state| NewState { copy: HeaderCopy { ecn: false, ..state.copy }, ..state }),
        Box::new(|state| NewState { copy: HeaderCopy { dscp: CopyDscp::In, ..state.copy }, ..state }),
        Box::new(|state| NewState { cpu: Some(0), ..state }),
        Box::new(move |state| match state.direction {
            Direction::Outbound => {
                NewState { nat_keepalive: Some(Duration::from_secs(20)), encapsulation: Some(ports), ..state }
            }
            Direction::Inbound | Direction::Forward => state,
        }),
    ]
}

/// Waits until something is told that `wanted` knows, and gives everything told.
fn told(listener: &mut Listener, wanted: impl Fn(&KernelEvent) -> bool) -> anyhow::Result<Vec<KernelEvent>> {
    let mut events = Vec::new();
    let heard = wait_until(Duration::from_secs(5), || {
        listener.drain(|event| events.push(event));
        events.iter().any(&wanted)
    });
    ensure!(heard, "what was to be told is not among {events:?}");
    Ok(events)
}

fn is_hard(event: &KernelEvent) -> bool {
    matches!(event, KernelEvent::Expired { hard: true, .. })
}

/// Sends datagrams from A to B; nobody needs to listen.
fn send(pair: &Pair, family: Family, count: usize) -> anyhow::Result<()> {
    let [a, b] = ends(family);
    pair.a.run(|| {
        let socket = UdpSocket::bind((a, 4_001))?;
        for _ in 0..count {
            // A packet without an SA is refused here.
            let _ = socket.send_to(&[0; 100], (b, 4_000));
        }
        anyhow::Ok(())
    })?
}

fn limits_are_told_soft_then_hard() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let mut listener = listen(&pair.a)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        xfrm.put_policy(&policy(Way::Out, ends(family)), false)?;
        let base = sa(&key, ends(family), 0x1001, Direction::Outbound);
        // A mask that unmarked packets fit.
        let id = StateId { mark: Some(Mark { value: 0, mask: 0xff }), ..base.id };
        let limits = KernelLimits { soft_packets: Some(3), hard_packets: Some(6), ..KernelLimits::default() };
        xfrm.add_state(&NewState { id, limits, ..base.clone() })?;
        send(&pair, family, 10)?;
        let events = told(&mut listener, is_hard)?;
        let expired: Vec<_> = events.into_iter().filter(|event| matches!(event, KernelEvent::Expired { .. })).collect();
        let [soft, hard] = expired.as_slice() else { anyhow::bail!("{expired:?}") };
        for (event, end, least) in [(soft, false, 3), (hard, true, 6)] {
            let KernelEvent::Expired { id: told, hard, bytes, packets } = event else { unreachable!() };
            ensure!((*told, *hard) == (id, end), "{event:?}");
            ensure!((least..least + 2).contains(packets) && *bytes >= 100 * least, "{event:?}");
        }
        ensure!(xfrm.state(&id)?.is_none(), "an SA outlived its hard limit");

        let limits = KernelLimits {
            soft_time: Some(Duration::from_secs(1)),
            hard_time: Some(Duration::from_secs(2)),
            ..KernelLimits::default()
        };
        xfrm.add_state(&NewState { limits, ..base })?;
        let events = told(&mut listener, is_hard)?;
        let softly = |event: &&KernelEvent| matches!(event, KernelEvent::Expired { hard: false, packets: 0, .. });
        ensure!(events.iter().filter(softly).count() == 1, "{events:?}");
    }
    Ok(())
}

fn what_becomes_of_sas_is_told() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let mut listener = listen(&pair.a)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        let state = sa(&key, ends(family), 0x1001, Direction::Outbound);
        let id = StateId { mark: Some(Mark::new(9, 0xf)), ..state.id };
        xfrm.add_state(&NewState { id, ..state })?;
        xfrm.delete_state(&id)?;
        let events = told(&mut listener, |event| matches!(event, KernelEvent::StateDeleted(_)))?;
        ensure!(events == [KernelEvent::StateAdded(id), KernelEvent::StateDeleted(id)], "{events:?}");
    }
    let aead = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";
    ip(&pair.a, &format!("xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode transport {aead}"))?;
    ip(&pair.a, "xfrm state flush")?;
    let events = told(&mut listener, |event| *event == KernelEvent::StatesFlushed)?;
    ensure!(matches!(events.as_slice(), [KernelEvent::StateAdded(_), KernelEvent::StatesFlushed]), "{events:?}");
    Ok(())
}

/// ESP in UDP whose source port changes on the way.
fn another_port_of_the_peer_is_told() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let (mut here, mut there) = (open(&pair.a)?, open(&pair.b)?);
    let mut listener = listen(&pair.b)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        let [a, b] = ends(family);
        let socket = pair.b.run(|| UdpSocket::bind((b, 4500)))??;
        offload_host::sockets::esp_in_udp(&socket)?;
        let encapsulation = Some(UdpEncapsulation { local_port: 4500, remote_port: 4500 });
        let inbound = NewState { encapsulation, ..sa(&key, [a, b], 0x1001, Direction::Inbound) };
        there.add_state(&inbound)?;
        here.put_policy(&policy(Way::Out, [a, b]), false)?;
        for (local_port, initial_sequence) in [(4500, 0), (61_001, 100)] {
            let encapsulation = Some(UdpEncapsulation { local_port, remote_port: 4500 });
            let outbound = sa(&key, [a, b], 0x1001, Direction::Outbound);
            here.add_state(&NewState { encapsulation, initial_sequence, ..outbound })?;
            send(&pair, family, 1)?;
            let arrived = || there.state(&inbound.id).is_ok_and(|state| state.is_some_and(|state| state.packets > 0));
            ensure!(wait_until(Duration::from_secs(5), arrived), "no packet arrived");
            here.delete_state(&inbound.id)?;
        }
        let events = told(&mut listener, |event| matches!(event, KernelEvent::Mapping { .. }))?;
        let mapping = KernelEvent::Mapping { id: inbound.id, remote: (a, 61_001).into() };
        ensure!(events.iter().filter(|event| matches!(event, KernelEvent::Mapping { .. })).count() == 1, "{events:?}");
        ensure!(events.contains(&mapping), "{events:?}");
    }
    Ok(())
}

/// RFC 9611 §3: an SA without a CPU serves all; a CPU asks for one of its own, and uses that once it is there.
fn a_cpu_asks_for_its_own_sa_and_uses_it() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let mut listener = listen(&pair.a)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        xfrm.put_policy(&Policy { per_cpu: true, ..policy(Way::Out, ends(family)) }, false)?;
        let fallback = sa(&key, ends(family), 0x1001, Direction::Outbound);
        xfrm.add_state(&fallback)?;
        send(&pair, family, 1)?;
        let events = told(&mut listener, |event| matches!(event, KernelEvent::Acquire { .. }))?;
        let asks = |event: &&KernelEvent| matches!(event, KernelEvent::Acquire { cpu: Some(0), reqid: 7, .. });
        ensure!(events.iter().filter(asks).count() == 1, "{events:?}");
        let packets = |xfrm: &mut KernelXfrm, id| anyhow::Ok(xfrm.state(id)?.context("an SA is gone")?.packets);
        let by_fallback = packets(&mut xfrm, &fallback.id)?;
        ensure!(by_fallback > 0, "the packet that asked was not sent with the SA of all CPUs");

        let own = NewState { cpu: Some(0), ..sa(&key, ends(family), 0x1002, Direction::Outbound) };
        xfrm.add_state(&own)?;
        send(&pair, family, 5)?;
        let by_own = packets(&mut xfrm, &own.id)?;
        ensure!(by_own >= 5, "{by_own} packets with the SA of the CPU");
        ensure!(packets(&mut xfrm, &fallback.id)? == by_fallback, "the SA of all CPUs is still in use");
    }
    Ok(())
}

fn the_kernel_keeps_a_nat_awake() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let mut xfrm = open(&pair.a)?;
    let key = key(EspAlgorithm::AES_256_GCM);
    for family in FAMILIES {
        let [a, b] = ends(family);
        let socket = pair.b.run(|| UdpSocket::bind((b, 4500)))??;
        socket.set_read_timeout(Some(Duration::from_secs(6)))?;
        let encapsulation = Some(UdpEncapsulation { local_port: 4511, remote_port: 4500 });
        let nat_keepalive = Some(Duration::from_secs(1));
        let outbound = sa(&key, [a, b], 0x1001, Direction::Outbound);
        xfrm.add_state(&NewState { encapsulation, nat_keepalive, ..outbound })?;
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("{family:?}: no keepalive"))?;
        ensure!(buffer.get(..length) == Some(&[0xff]), "{:?}", buffer.get(..length));
        ensure!((from.ip(), from.port()) == (a, 4511), "from {from}");
    }
    Ok(())
}

/// An inbound SA that begins at a number takes the next one and none before it, even one inside its window.
fn old_sequence_numbers_are_not_received_again() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let (mut here, mut there) = (open(&pair.a)?, open(&pair.b)?);
    let key = key(EspAlgorithm::AES_256_GCM);
    let ends = ends(Family::V4);
    here.put_policy(&policy(Way::Out, ends), false)?;
    for (esn, replay_window) in [(false, 32), (false, 64), (true, 32), (true, 128)] {
        let inbound =
            NewState { esn, replay_window, initial_sequence: 1_000, ..sa(&key, ends, 0x1001, Direction::Inbound) };
        there.add_state(&inbound)?;
        // Numbers 991 and 1000 lie inside the window and are old.
        for (already, packets) in [(990, 0), (999, 0), (1_000, 1), (1_005, 2)] {
            let outbound = sa(&key, ends, 0x1001, Direction::Outbound);
            here.add_state(&NewState { esn, initial_sequence: already, ..outbound })?;
            send(&pair, Family::V4, 1)?;
            let mut counted = || there.state(&inbound.id).ok().flatten().map_or(0, |state| state.packets);
            wait_until(Duration::from_millis(300), || counted() > packets);
            ensure!(counted() == packets, "{} packets after number {}, not {packets}", counted(), already + 1);
            here.delete_state(&inbound.id)?;
        }
        there.delete_state(&inbound.id)?;
    }
    Ok(())
}
