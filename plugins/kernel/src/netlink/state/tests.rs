use ipsec::{EspAlgorithm, KeyMaterial, Reqid, Tags};
use proptest::prelude::*;

use super::*;
use crate::netlink::read_policy;

const ALGORITHMS: [(u16, Option<u16>, Option<u16>); 16] = [
    (20, Some(128), None),
    (20, Some(192), None),
    (20, Some(256), None),
    (28, None, None),
    (12, Some(128), Some(12)),
    (12, Some(192), Some(12)),
    (12, Some(256), Some(12)),
    (12, Some(128), Some(13)),
    (12, Some(192), Some(13)),
    (12, Some(256), Some(13)),
    (12, Some(128), Some(14)),
    (12, Some(192), Some(14)),
    (12, Some(256), Some(14)),
    (20, Some(128), Some(0)),
    (28, Some(256), None),
    (20, Some(256), Some(0)),
];

fn algorithms() -> impl Strategy<Value = EspAlgorithm> {
    prop::sample::select(ALGORITHMS.to_vec())
        .prop_map(|(encryption, bits, integrity)| EspAlgorithm::from_ids(encryption, bits, integrity).unwrap())
}

fn key(algorithm: EspAlgorithm) -> KeyMaterial {
    let integrity = algorithm.integrity.map(|integrity| vec![0x5a; integrity.keymat_octets()]);
    KeyMaterial::new(&vec![0xa5; algorithm.encryption.keymat_octets()], integrity.as_deref())
}

fn a_state(key: &KeyMaterial, algorithm: EspAlgorithm, direction: Direction) -> NewState<'_> {
    let destination = "192.0.2.2".parse().unwrap();
    let id = StateId { destination, spi: Spi::new(0xc000_0001).unwrap(), mark: Some(Mark::new(7, 0xff)) };
    let source = "192.0.2.1".parse().unwrap();
    NewState { replay_window: 0, ..NewState::plain(id, source, direction, Reqid(9), algorithm, key) }
}

fn limits() -> impl Strategy<Value = KernelLimits> {
    let volume = || prop::option::of(0..u64::MAX);
    let time = || prop::option::of((0..4_000_000_000_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)));
    (volume(), volume(), volume(), volume(), time(), time()).prop_map(
        |(soft_bytes, hard_bytes, soft_packets, hard_packets, soft_time, hard_time)| KernelLimits {
            soft_bytes,
            hard_bytes,
            soft_packets,
            hard_packets,
            soft_time,
            hard_time,
        },
    )
}

fn copies(outbound: bool) -> impl Strategy<Value = HeaderCopy> {
    let dscp = if outbound { [CopyDscp::Out, CopyDscp::No] } else { [CopyDscp::Out, CopyDscp::Yes] };
    (any::<bool>(), any::<bool>(), prop::sample::select(dscp.to_vec())).prop_map(move |(df, ecn, dscp)| HeaderCopy {
        df: df || !outbound,
        ecn,
        dscp,
    })
}

#[derive(Clone, Copy, Debug)]
struct Options {
    /// ESN, transport mode, IPv6, ESP in UDP, NAT in front of the peer.
    switches: [bool; 5],
    window: u32,
    sequence: u64,
    set_mark: Option<(u32, u32)>,
    if_id: u32,
    offload: Option<(u32, bool)>,
    cpu: Option<u32>,
    nat_keepalive: Option<u32>,
}

fn options() -> impl Strategy<Value = Options> {
    let window = prop::sample::select(vec![1_u32, 32, 33, 64, 128, 1024, 4096]);
    let offload = prop::option::of((1_u32..1 << 30, any::<bool>()));
    let rest = (any::<Option<(u32, u32)>>(), any::<u32>(), any::<Option<u32>>(), prop::option::of(1_u32..100_000));
    (any::<[bool; 5]>(), window, any::<u64>(), offload, rest).prop_map(
        |(switches, window, sequence, offload, (set_mark, if_id, cpu, nat_keepalive))| Options {
            switches,
            window,
            sequence,
            set_mark,
            if_id,
            offload,
            cpu,
            nat_keepalive,
        },
    )
}

impl Options {
    fn applied(self, state: NewState<'_>) -> NewState<'_> {
        let [esn, transport, v6, encapsulated, nat] = self.switches;
        let address = |v4: &str, in_v6: &str| -> IpAddr { if v6 { in_v6 } else { v4 }.parse().unwrap() };
        NewState {
            id: StateId { destination: address("192.0.2.2", "2001:db8::2"), ..state.id },
            source: address("192.0.2.1", "2001:db8::1"),
            mode: if transport { SaMode::Transport } else { SaMode::Tunnel },
            esn,
            replay_window: if state.direction == Direction::Inbound { self.window } else { 0 },
            initial_sequence: if esn { self.sequence } else { self.sequence & u64::from(u32::MAX) },
            encapsulation: encapsulated.then_some(UdpEncapsulation { local_port: 4500, remote_port: 61_234 }),
            original_source: nat.then(|| address("10.0.0.9", "2001:db8::9")),
            tags: Tags {
                set_mark: self.set_mark.map(|(value, mask)| Mark { value, mask }),
                if_id: self.if_id,
                mark: None,
            },
            offload: self.offload.map(|(link, packet)| DeviceOffload { link, packet }),
            cpu: self.cpu,
            nat_keepalive: self.nat_keepalive.map(|seconds| Duration::from_secs(seconds.into())),
            ..state
        }
    }
}

proptest! {
    #[test]
    fn what_is_sent_reads_back(
        algorithm in algorithms(), options in options(), limits in limits(),
        (outbound, copy) in any::<bool>().prop_flat_map(|out| (Just(out), copies(out))),
    ) {
        let key = key(algorithm);
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        let state = NewState { copy, limits, ..options.applied(a_state(&key, algorithm, direction)) };
        let body = new_state(&state, true);
        prop_assert_eq!(read_state(body.octets()), Some(state.shown()));
        for cut in 0..XFRM_USER_SA_INFO_LEN {
            prop_assert_eq!(read_state(&body.octets()[..cut]), None);
        }
        for cut in XFRM_USER_SA_INFO_LEN..body.octets().len() {
            let _ = read_state(&body.octets()[..cut]);
        }
    }

    #[test]
    fn no_octets_make_a_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..900)) {
        let _ = (read_state(&octets), read_policy(&octets));
    }

    #[test]
    fn no_attributes_make_the_reader_of_states_panic(octets in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u16..40) {
        let key = key(EspAlgorithm::AES_128_GCM);
        let mut body = new_state(&a_state(&key, EspAlgorithm::AES_128_GCM, Direction::Inbound), false);
        // A copy of an attribute that is there already would not be looked at.
        let fixed = body.octets().get(..XFRM_USER_SA_INFO_LEN).unwrap().to_vec();
        body = Body::of(&UserSaInfo::parse(&fixed).unwrap());
        body.value(kind, &[&octets]);
        body.value(18, &[&[0; 72]]);
        let _ = read_state(body.octets());
    }
}

#[test]
fn no_limit_is_all_ones_and_a_short_time_is_a_second() {
    let key = key(EspAlgorithm::AES_128_GCM);
    let soft_time = Some(Duration::from_millis(1));
    let limits = KernelLimits { soft_time, hard_bytes: Some(0), ..KernelLimits::default() };
    let state = NewState { limits, ..a_state(&key, EspAlgorithm::AES_128_GCM, Direction::Outbound) };
    let fixed = fixed(&state, 0);
    assert_eq!(fixed.lifetime_cfg.soft_byte_limit, u64::MAX);
    assert_eq!(fixed.lifetime_cfg.hard_byte_limit, 0);
    assert_eq!((fixed.lifetime_cfg.soft_add_expires_seconds, fixed.lifetime_cfg.hard_add_expires_seconds), (1, 0));
}

#[test]
fn each_direction_has_only_flags_of_its_own() {
    let key = key(EspAlgorithm::AES_128_GCM);
    let copy = HeaderCopy { df: false, ecn: false, dscp: CopyDscp::In };
    let of = |direction| {
        let state = NewState { copy, ..a_state(&key, EspAlgorithm::AES_128_GCM, direction) };
        let body = new_state(&state, true);
        let attributes = body.octets()[XFRM_USER_SA_INFO_LEN..].to_vec();
        (flags(&state) & !XFRM_STATE_AF_UNSPEC, attribute(&attributes, XFRMA_SA_EXTRA_FLAGS).is_some())
    };
    assert_eq!(of(Direction::Outbound), (XFRM_STATE_NOECN | XFRM_STATE_NOPMTUDISC, true));
    assert_eq!(of(Direction::Inbound), (XFRM_STATE_NOECN | XFRM_STATE_DECAP_DSCP, false));
}

#[test]
fn numbers_received_before_are_not_received_again() {
    let key = key(EspAlgorithm::AES_128_GCM);
    for (esn, replay_window) in [(false, 32), (false, 64), (true, 64)] {
        let inbound = a_state(&key, EspAlgorithm::AES_128_GCM, Direction::Inbound);
        let state = NewState { esn, replay_window, initial_sequence: 500, ..inbound };
        let received = match replay::write(&state, true).attribute {
            Some(XfrmAttrs::ReplayState(short)) => Some((short.seq, vec![short.bitmap])),
            Some(XfrmAttrs::ReplayStateEsn(long)) => Some((long.seq, long.bmp)),
            _ => None,
        };
        let words = usize::try_from(replay_window / 32).unwrap();
        assert_eq!(received, Some((500, vec![u32::MAX; words])));
    }
}

#[test]
fn kernels_without_directions_get_a_window_for_outbound_esn() {
    let key = key(EspAlgorithm::AES_128_GCM);
    let state = NewState { esn: true, ..a_state(&key, EspAlgorithm::AES_128_GCM, Direction::Outbound) };
    let body = new_state(&state, false);
    let attributes = &body.octets()[XFRM_USER_SA_INFO_LEN..];
    assert_eq!(replay::read(attributes).unwrap().window, Some(32));
    assert!(attribute(attributes, XFRMA_SA_DIR).is_none());
    assert_eq!(read_state(body.octets()).unwrap().direction, None);
}

#[test]
fn larval_states_and_other_protocols_are_left_out() {
    let key = key(EspAlgorithm::AES_128_GCM);
    let state = a_state(&key, EspAlgorithm::AES_128_GCM, Direction::Outbound);
    let body = new_state(&state, true);
    assert!(read_state(body.octets()).is_some());
    let (fixed_part, attributes) = body.octets().split_at(XFRM_USER_SA_INFO_LEN);
    assert_eq!(read_state(fixed_part), None, "no transforms");
    for (spi, proto) in [(0, ESP), (0xc000_0001, 51)] {
        let mut other = fixed(&state, 0);
        (other.id.spi, other.id.proto) = (spi, proto);
        let octets = [Body::of(&other).octets(), attributes].concat();
        assert_eq!(read_state(&octets), None, "SPI {spi:#x} of protocol {proto}");
    }
}
