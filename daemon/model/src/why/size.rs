//! Whether a packet fits through a tunnel.

use ipsec::{EspAlgorithm, EspEncryption, EspIntegrity, SaMode};

use super::facts::{ChildFacts, Facts, Way};
use super::report::{Code, Step, StepName};
use super::sa::Live;

/// Every IPv6 link carries this (RFC 8200 §5).
const IPV6_MINIMUM: u32 = 1280;
/// Every IPv4 host takes this (RFC 791 §3.1).
const IPV4_MINIMUM: u32 = 576;

//= RFC 4303 §2, §3.3.4: ESP's header, IV, padding, trailer and ICV come on top of what it encloses
/// Largest packet that ESP carries over a path with this MTU.
#[must_use]
pub fn largest_inner(algorithm: EspAlgorithm, mode: SaMode, udp: bool, outer_v4: bool, path_mtu: u32) -> u32 {
    let (iv, alignment, icv) = sizes(algorithm);
    let (ip, least) = if outer_v4 { (20, IPV4_MINIMUM) } else { (40, IPV6_MINIMUM) };
    let udp = if udp { 8 } else { 0 };
    let room = path_mtu.max(least).saturating_sub(ip + udp);
    let payload = (room.saturating_sub(8 + iv + icv) / alignment * alignment).saturating_sub(2);
    match mode {
        SaMode::Tunnel => payload,
        SaMode::Transport => payload + ip,
    }
}

/// IV, alignment and ICV in octets.
fn sizes(algorithm: EspAlgorithm) -> (u32, u32, u32) {
    let (iv, alignment) = match algorithm.encryption {
        EspEncryption::AesGcm16(_) | EspEncryption::ChaCha20Poly1305 => (8, 4),
        EspEncryption::AesCbc(_) => (16, 16),
    };
    let icv = match algorithm.integrity {
        None | Some(EspIntegrity::HmacSha2_256_128) => 16,
        Some(EspIntegrity::HmacSha2_384_192) => 24,
        Some(EspIntegrity::HmacSha2_512_256) => 32,
    };
    (iv, alignment, icv)
}

/// Whether the packet fits.
pub(super) fn step(facts: &Facts, child: &ChildFacts, sa: &Live<'_>) -> Option<Step> {
    const NAME: StepName = StepName::Size;
    let spec = sa.spec?;
    let outer = facts.outer.iter().find(|outer| outer.connection == child.connection.name)?;
    let Some(Way::Out { link, mtu, .. }) = &outer.way else { return None };
    let path = mtu.unwrap_or(link.mtu);
    let v4 = spec.outer.remote.is_ipv4();
    let mut largest = largest_inner(spec.algorithm, spec.mode, spec.encapsulation.is_some(), v4, path);
    let inner_v4 = facts.packet.source.is_ipv4();
    if !inner_v4 {
        largest = largest.max(IPV6_MINIMUM);
    }
    let device = facts.host.tunnel.as_ref().and_then(|tunnel| tunnel.link.as_ref());
    let narrow = device.filter(|device| device.mtu < largest);
    largest = narrow.map_or(largest, |device| device.mtu);
    let by = match narrow {
        Some(device) => format!("the MTU of {}", device.name),
        None => format!("the path to the peer takes {path} and ESP needs its share"),
    };
    match facts.size {
        Some(size) if size > largest => {
            let text = format!("{size} octets do not fit, {largest} is the most: {by}");
            let fix = if inner_v4 {
                "send smaller packets or raise the MTU; without DF the packet goes in fragments, with DF its sender is told the size"
            } else {
                "send smaller packets or raise the MTU; its sender is told the size"
            };
            Some(Step::broken(NAME, Code::TooLarge, text, fix))
        }
        Some(size) => Some(Step::ok(NAME, format!("{size} octets fit, {largest} is the most"))),
        None if largest < IPV6_MINIMUM => {
            Some(Step::note(NAME, format!("packets of up to {largest} octets fit: {by}")))
        }
        None => Some(Step::ok(NAME, format!("packets of up to {largest} octets fit"))),
    }
}
