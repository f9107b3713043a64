//! Policies put, replaced, read back, listed and deleted.

use ipsec::{Mark, SaMode, Spi};
use offload_host::xfrm::{PolicyKey, PortMask, Verdict, Way};
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{Policy, Template, Xfrm, XfrmError};

use crate::namespace::{allow, inside, ip, tunnel};

/// Policies that differ in everything a policy can have.
fn every_kind() -> Vec<Policy> {
    let plain = allow(Way::Out, "10.1.0.0/16", "10.2.0.0/16");
    let six = allow(Way::In, "2001:db8:2::/64", "2001:db8:1::/64");
    let optional = Template { optional: true, mode: SaMode::Transport, ..tunnel("::", "::", 7) };
    let with_spi = Template { spi: Spi::new(0xc0ff_ee00), ..tunnel("2001:db8::1", "2001:db8::2", 8) };
    let http = PolicyKey {
        protocol: 6,
        source_port: PortMask { value: 0x400, mask: 0xfc00 },
        destination_port: PortMask { value: 80, mask: u16::MAX },
        ..plain.key
    };
    let ping = PolicyKey { protocol: 1, source_port: PortMask { value: 8, mask: u16::MAX }, ..plain.key };
    vec![
        plain,
        Policy { verdict: Verdict::Block, key: PolicyKey { user: 0x4347, ..plain.key }, ..plain },
        Policy { template: Some(tunnel("192.0.2.1", "192.0.2.2", 5)), key: http, ..plain },
        Policy { template: Some(tunnel("0.0.0.0", "0.0.0.0", 5)), key: ping, ..plain },
        Policy { key: PolicyKey { mark: Some(Mark::new(3, 0xff)), ..plain.key }, ..plain },
        Policy { key: PolicyKey { if_id: 42, ..plain.key }, index: Way::Out.index(77), ..plain },
        Policy { key: PolicyKey { link: 1, ..plain.key }, priority: u32::MAX, ..plain },
        Policy { template: Some(optional), ..six },
        Policy { template: Some(with_spi), ..allow(Way::Forward, "2001:db8:2::/64", "::/0") },
        allow(Way::Forward, "0.0.0.0/0", "192.0.2.1/32"),
    ]
}

#[test]
fn policies_of_every_kind_are_read_back_as_they_were_put() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let mut put = Vec::new();
        for policy in every_kind() {
            assert_eq!(xfrm.policy(&policy.key).unwrap(), None);
            xfrm.put_policy(&policy, false).unwrap();
            let read = xfrm.policy(&policy.key).unwrap().expect("it is there");
            assert!(policy.index == 0 || read.index == policy.index);
            assert_eq!(Policy { index: policy.index, ..read }, policy);
            put.push(read);
        }
        let mut listed = xfrm.policies().unwrap();
        listed.sort_by_key(|policy| policy.key);
        put.sort_by_key(|policy| policy.key);
        assert_eq!(listed, put);
        for policy in &put {
            assert!(xfrm.delete_policy(&policy.key, policy.index).unwrap());
            assert!(!xfrm.delete_policy(&policy.key, policy.index).unwrap(), "gone already");
        }
        assert_eq!(xfrm.policies().unwrap(), []);
    });
}

#[test]
fn an_equal_key_is_refused_and_replaced_in_one_step() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        for policy in every_kind() {
            xfrm.put_policy(&policy, false).unwrap();
            let refusal = xfrm.put_policy(&policy, false).unwrap_err();
            assert!(matches!(&refusal, XfrmError::Refused(error) if error.is(libc::EEXIST)), "{refusal}");
            let template = Some(tunnel("192.0.2.1", "192.0.2.2", 99));
            let other = Policy { priority: 7, template, verdict: Verdict::Allow, ..policy };
            xfrm.put_policy(&other, true).unwrap();
            let read = xfrm.policy(&policy.key).unwrap().unwrap();
            assert_eq!(Policy { index: policy.index, ..read }, other);
        }
        assert_eq!(xfrm.policies().unwrap().len(), every_kind().len());
    });
}

#[test]
fn a_policy_is_deleted_by_its_index_even_when_another_has_its_selector() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let policy = Policy { index: Way::Out.index(5), ..allow(Way::Out, "10.1.0.0/16", "10.2.0.0/16") };
        xfrm.put_policy(&Policy { index: 0, ..policy }, false).unwrap();
        assert!(!xfrm.delete_policy(&policy.key, policy.index).unwrap(), "that is the policy of somebody else");
        assert!(xfrm.policy(&policy.key).unwrap().is_some());
        assert!(xfrm.delete_policy(&policy.key, 0).unwrap(), "by its key alone");
    });
}

#[test]
fn policies_of_others_are_seen_and_those_beyond_us_left_out() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let selector = "src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 5";
        ip(&format!("xfrm policy add {selector} tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 16 mode tunnel"));
        ip("xfrm policy add src 10.3.0.0/16 dst 10.4.0.0/16 dir out tmpl proto ah reqid 3 mode transport");
        let seen = xfrm.policies().unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].template, Some(tunnel("192.0.2.1", "192.0.2.2", 16)));
        assert_eq!((seen[0].priority, seen[0].key.way), (5, Way::Out));
    });
}

#[test]
fn what_the_kernel_refuses_is_told_in_its_words() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let nowhere = Policy { device: Some(9999), ..allow(Way::Out, "10.1.0.0/16", "10.2.0.0/16") };
        // A kernel without CONFIG_XFRM_OFFLOAD ignores the device: the read-back shows it.
        match xfrm.put_policy(&nowhere, false) {
            Ok(()) => assert_eq!(xfrm.policy(&nowhere.key).unwrap().unwrap().device, None),
            Err(refusal) => assert!(refusal.to_string().contains("os error"), "{refusal}"),
        }
        let backwards = Policy { key: PolicyKey { way: Way::In, ..nowhere.key }, index: Way::Out.index(1), ..nowhere };
        let refusal = xfrm.put_policy(&Policy { device: None, ..backwards }, false).unwrap_err();
        assert!(matches!(&refusal, XfrmError::Refused(error) if error.is(libc::EINVAL)), "{refusal}");
    });
}
