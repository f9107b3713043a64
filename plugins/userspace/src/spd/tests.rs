use ipsec::{AddressRange, PortRange, Shard, TrafficSelector};
use proptest::prelude::*;

use super::*;

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let prefix = (0_u8..4, prop::sample::select(vec![0_u8, 8, 16, 24, 31, 32]))
        .prop_map(|(net, length)| AddressRange::prefix(IpAddr::from([10, net, 0, net]), length).unwrap());
    let range = (0_u8..3, 0_u8..3).prop_map(|(from, more)| {
        AddressRange::new(IpAddr::from([10, from, 0, 0]), IpAddr::from([10, from + more, 0, 9])).unwrap()
    });
    let v6 = (0_u16..3, prop::sample::select(vec![0_u8, 16, 64, 128]))
        .prop_map(|(net, length)| AddressRange::prefix(IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, 1]), length).unwrap());
    let ports = prop_oneof![Just(PortRange::ANY), Just(PortRange::single(80)), Just(PortRange::OPAQUE)];
    (prop_oneof![4 => prefix, 1 => range, 1 => v6], prop::sample::select(vec![0_u8, 6]), ports)
        .prop_map(|(addresses, protocol, ports)| TrafficSelector { addresses, protocol, ports })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (0_u8..4, 0_u8..4).prop_map(|(net, host)| IpAddr::from([10, net, 0, host])),
        1 => (0_u16..3).prop_map(|net| IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, 1])),
    ]
}

proptest! {
    /// Against a look at every entry.
    #[test]
    fn lookup_agrees_with_a_scan(
        entries in prop::collection::vec((selector(), selector(), 0_u32..4, any::<bool>()), 1..300),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        packets in prop::collection::vec((address(), address(), prop::option::of(Just((80_u16, 80_u16)))), 1..40),
    ) {
        let mut spd = Spd::new([1, 2, 3, 4]);
        let mut model: Vec<Arc<Policy>> = Vec::new();
        for (count, (local, remote, priority, in_device)) in (0_u64..).zip(entries) {
            let policy = Arc::new(Policy {
                handle: PolicyHandle::new(Shard(0), count), name: "p".into(), selectors: SelectorPair { local, remote }, in_device, priority,
                order: count, serial: count, action: Action::Discard, gateway: None,
            });
            spd.insert(Arc::clone(&policy));
            model.push(policy);
        }
        let kept = spd.clone();
        for index in removed {
            if !model.is_empty() {
                let policy = model.remove(index.index(model.len()));
                spd.remove(&policy);
            }
        }
        let mut cache = FlowCache::new([5, 6, 7, 8]);
        for (source, destination, ports) in packets {
            let packet = PacketSelectors { source, destination, protocol: 6, ports };
            let expected = model.iter().filter(|policy| policy.selectors.matches_outbound(&packet)).min_by_key(|policy| rank(policy));
            let handle = |policy: Option<&Arc<Policy>>| policy.map(|policy| policy.handle);
            prop_assert_eq!(handle(spd.find_outbound(&packet)), handle(expected));
            for _ in 0..2 {
                prop_assert_eq!(handle(cache.find(&spd, &packet)), handle(expected));
            }
            let turned = PacketSelectors { source: destination, destination: source, ..packet };
            prop_assert_eq!(handle(spd.find_inbound(&turned)), handle(expected));
        }
        // Copies are independent.
        prop_assert!(kept.tuples.iter().map(|tuple| tuple.count).sum::<usize>() + kept.ranges.len() >= model.len());
    }
}
