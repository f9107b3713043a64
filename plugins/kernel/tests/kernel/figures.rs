//! How long many policies take: `cargo test -p offload-kernel --test kernel -- --ignored --nocapture figures`.

use std::time::Instant;

use offload_host::prefix::Prefix;
use offload_host::xfrm::{PolicyKey, Way};
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{Policy, Xfrm};

use crate::namespace::{allow, inside, prefix, tunnel};

const COUNT: u32 = 50_000;
/// The kernel walks all policies that are no pair of addresses when it replaces one of them, so fewer are replaced.
const REPLACED: u32 = 500;

/// Policies of road warriors: one address each, protected.
fn policy(number: u32) -> Policy {
    let host = std::net::Ipv4Addr::from(0x0a80_0000 + number);
    let template = Some(tunnel("192.0.2.1", "192.0.2.2", 1 + number));
    let any = allow(Way::Out, "0.0.0.0/0", "0.0.0.0/0");
    let key = PolicyKey::between(Way::Out, prefix("10.1.0.0/16"), Prefix::host(host.into()));
    Policy { key, template, index: Way::Out.index(number), ..any }
}

#[test]
#[ignore = "a figure, not a check: takes a while"]
fn figures_of_fifty_thousand_policies() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let start = Instant::now();
        (0..COUNT).for_each(|number| xfrm.put_policy(&policy(number), false).unwrap());
        tell("put", COUNT, start);
        let start = Instant::now();
        let listed = xfrm.policies().unwrap();
        tell("list", COUNT, start);
        assert_eq!(listed.len(), usize::try_from(COUNT).unwrap());
        let start = Instant::now();
        let other = |number| Policy { priority: 5, ..policy(number * (COUNT / REPLACED)) };
        (0..REPLACED).for_each(|number| xfrm.put_policy(&other(number), true).unwrap());
        tell("replace", REPLACED, start);
        let start = Instant::now();
        for number in 0..COUNT {
            let policy = policy(number);
            assert!(xfrm.delete_policy(&policy.key, policy.index).unwrap());
        }
        tell("delete", COUNT, start);
        assert_eq!(xfrm.policies().unwrap(), []);
    });
}

fn tell(what: &str, count: u32, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    println!("{what} {count} policies: {took:.2} s, {:.1} us each", took * 1e6 / f64::from(count));
}
