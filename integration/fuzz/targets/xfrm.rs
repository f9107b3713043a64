//! What the kernel says of its IPsec: type of a notification, then its body; the body is also taken for a state and for a policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offload_kernel::netlink::{read_event, read_policy, read_state};
use offload_kernel::xfrm::KernelEvent;

fuzz_target!(|message: &[u8]| {
    let Some((kind, body)) = message.split_first_chunk() else { return };
    if let Ok(Some(event)) = read_event(u16::from_le_bytes(*kind), body) {
        check(&event);
    }
    if let Some(state) = read_state(body) {
        assert_eq!(state.source.is_ipv4(), state.id.destination.is_ipv4());
    }
    if let Some(policy) = read_policy(body) {
        assert_eq!(policy.key.source.family(), policy.key.destination.family());
    }
});

fn check(event: &KernelEvent) {
    match event {
        KernelEvent::Acquire { packet, .. } => {
            assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
        }
        KernelEvent::Mapping { id, remote } => assert_eq!(id.destination.is_ipv4(), remote.is_ipv4()),
        KernelEvent::Lost => panic!("a message that was read is not lost"),
        KernelEvent::Expired { .. }
        | KernelEvent::StateAdded(_)
        | KernelEvent::StateDeleted(_)
        | KernelEvent::StatesFlushed
        | KernelEvent::PolicyChanged(_)
        | KernelEvent::PolicyDeleted(_)
        | KernelEvent::PoliciesFlushed => {}
    }
}
