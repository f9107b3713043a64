//! A mark on packets that come out of the TUN device and are for this host itself.
//!
//! IPv4 leaves such packets out of the policy check because of `disable_policy` on the TUN device. IPv6 asks that setting of the interface that
//! owns the destination address instead, and shows no ingress interface to the policies: without the mark a guard would drop what the tunnel
//! brings for our own addresses. One netfilter table of ours with one rule sets it, at the local input hook, behind all routing.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::error::HostError;
use super::netlink::{Netlink, frame};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NFPROTO_IPV6: u8 = 10;
const NF_INET_LOCAL_IN: u32 = 1;
/// Before everything that filters.
const PRIORITY: i32 = -300;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const REGISTER: u32 = 1;
const CHAIN: &str = "input";

/// Marks what arrives for us on `device`, in place of an earlier rule of ours.
pub(super) fn set(device: &str, mark: u32) -> Result<(), HostError> {
    let table = table(device);
    let chain = [
        text(1, &table),
        text(3, CHAIN),
        nest(4, &[word(1, NF_INET_LOCAL_IN), word(2, u32::from_ne_bytes(PRIORITY.to_ne_bytes()))]),
        text(7, "filter"),
    ];
    let rule = [text(1, &table), text(2, CHAIN), nest(4, &expressions(device, mark))];
    run(
        "mark packets out of",
        device,
        &[
            (NEW_TABLE, NLM_F_CREATE, vec![text(1, &table)]),
            (DELETE_TABLE, 0, vec![text(1, &table)]),
            (NEW_TABLE, NLM_F_CREATE, vec![text(1, &table)]),
            (NEW_CHAIN, NLM_F_CREATE, chain.to_vec()),
            (NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, rule.to_vec()),
        ],
    )
}

/// Takes the rule away, if it is there.
pub(super) fn remove(device: &str) -> Result<(), HostError> {
    let table = table(device);
    let steps = [(NEW_TABLE, NLM_F_CREATE, vec![text(1, &table)]), (DELETE_TABLE, 0, vec![text(1, &table)])];
    run("unmark packets out of", device, &steps)
}

fn table(device: &str) -> String {
    format!("cygnet_{device}")
}

/// `iifname DEVICE meta mark set MARK`.
fn expressions(device: &str, mark: u32) -> Vec<DefaultNla> {
    let mut name = device.as_bytes().to_vec();
    name.resize(16, 0);
    let data = |kind, value: Vec<u8>| nest(kind, &[DefaultNla::new(1, value)]);
    vec![
        expression("meta", &[word(1, REGISTER), word(2, META_IIFNAME)]),
        expression("cmp", &[word(1, REGISTER), word(2, 0), data(3, name)]),
        expression("immediate", &[word(1, REGISTER), data(2, mark.to_ne_bytes().to_vec())]),
        expression("meta", &[word(2, META_MARK), word(3, REGISTER)]),
    ]
}

fn expression(name: &str, attributes: &[DefaultNla]) -> DefaultNla {
    nest(1, &[text(1, name), nest(2, attributes)])
}

fn text(kind: u16, value: &str) -> DefaultNla {
    DefaultNla::new(kind, [value.as_bytes(), &[0]].concat())
}

fn word(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn nest(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, attributes(inner))
}

fn attributes(list: &[DefaultNla]) -> Vec<u8> {
    let mut out = vec![0; list.buffer_len()];
    list.emit(&mut out);
    out
}

/// Runs all steps or none.
fn run(action: &'static str, device: &str, steps: &[(u16, u16, Vec<DefaultNla>)]) -> Result<(), HostError> {
    let mut netfilter = Netlink::open("netfilter", NETLINK_NETFILTER)?;
    let header = |family: u8, resource: u16| {
        let [high, low] = resource.to_be_bytes();
        [family, 0, high, low]
    };
    let first = netfilter.next_sequence();
    let mut last = first;
    let mut octets = frame(BATCH_BEGIN, NLM_F_REQUEST, first, &header(0, NFTABLES));
    for (position, (kind, flags, list)) in steps.iter().enumerate() {
        last = netfilter.next_sequence();
        let acknowledged = if position + 1 == steps.len() { NLM_F_ACK } else { 0 };
        let body = [&header(NFPROTO_IPV6, 0)[..], &attributes(list)].concat();
        octets.extend(frame(NFTABLES << 8 | kind, NLM_F_REQUEST | flags | acknowledged, last, &body));
    }
    let end = netfilter.next_sequence();
    octets.extend(frame(BATCH_END, NLM_F_REQUEST, end, &header(0, NFTABLES)));
    netfilter.batch(&octets, first, last).map_err(|refusal| refusal.on(action, device))
}
