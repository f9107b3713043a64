//! States, as far as a kernel lets us.

use ipsec::Spi;
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::netlink::esp::{EspSupport, Support};
use offload_kernel::xfrm::{StateId, Xfrm};

use crate::namespace::{address, inside, ip};

#[test]
fn there_are_no_states_in_a_new_namespace() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let id = StateId { destination: address("192.0.2.2"), spi: Spi::new(0x1000).unwrap(), mark: None };
        assert_eq!(xfrm.states().unwrap(), []);
        assert_eq!(xfrm.state(&id).unwrap(), None);
        assert!(!xfrm.delete_state(&id).unwrap());
    });
}

/// Whether `ip` can add a state: without the trials that are tested.
fn ip_adds_a_state(ends: &str) -> bool {
    let transforms = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth-trunc hmac(sha256) \
        0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f 128";
    let words = format!("xfrm state add {ends} proto esp spi 0x1001 reqid 1 mode tunnel {transforms}");
    std::process::Command::new("ip").args(words.split_whitespace()).output().unwrap().status.success()
}

#[test]
fn what_the_kernel_has_of_esp_is_found_out_and_leaves_nothing_behind() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let support = EspSupport::ask(&mut xfrm).unwrap();
        assert_eq!(xfrm.states().unwrap(), []);
        assert_eq!(ip("xfrm state"), "");
        let cases = [("src 192.0.2.1 dst 192.0.2.2", &support.v4), ("src 2001:db8::1 dst 2001:db8::2", &support.v6)];
        for (ends, support) in cases {
            assert_eq!(*support != Support::Absent, ip_adds_a_state(ends), "{ends}: {support:?}");
        }
        if support.v4 == Support::Absent {
            let words = support.lack().unwrap();
            for part in ["no ESP", "CONFIG_INET_ESP", "module esp4", "backend.kind = \"userspace\""] {
                assert!(words.contains(part), "{words}");
            }
        }
    });
}

#[test]
fn the_newer_attributes_are_known_where_the_kernel_is_new_enough() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    inside(move || {
        let known = KernelXfrm::open().unwrap().attributes().unwrap();
        // Distributions take some of them back into older kernels, and none out.
        assert!(known.direction || version < (6, 10));
        assert!(known.nat_keepalive || version < (6, 11));
        assert!(known.cpu || version < (6, 13));
        assert!(!known.cpu || known.direction, "the one came after the other");
    });
}
