//! `ip xfrm state add`.

use ike_model::specs::Origin;
use ipsec::sa::CopyDscp;
use ipsec::{Direction, EspAlgorithm, EspEncryption, EspIntegrity, Limits, OffloadMode, SaMode, SaSpec};

use super::policy::mode_word;
use super::{KERNEL, Surroundings};

/// What stands for a key.
const KEY: &str = "<key>";

/// The command of one SA.
pub(super) fn command(sa: &SaSpec, origin: Origin, around: &Surroundings) -> String {
    let (from, to) = match sa.direction {
        Direction::Outbound => (sa.outer.local, sa.outer.remote),
        Direction::Inbound | Direction::Forward => (sa.outer.remote, sa.outer.local),
    };
    let inbound = sa.direction != Direction::Outbound;
    let spi = match (origin, inbound) {
        (Origin::Planned, true) => "<spi-in>".to_owned(),
        (Origin::Planned, false) => "<spi-out>".to_owned(),
        (Origin::Sa(_) | Origin::Trap, _) => format!("0x{}", sa.spi),
    };
    let mut text = format!(
        "ip xfrm state add src {from} dst {to} proto esp spi {spi} {} mode {} reqid {}",
        algorithm(sa.algorithm),
        mode_word(sa.mode),
        sa.reqid.0
    );
    // The window is the receiver's.
    text.push_str(&format!(" replay-window {}", if inbound { sa.replay_window } else { 0 }));
    text.push_str(&flags(sa, inbound, around));
    if let Some(mark) = sa.tags.mark {
        text.push_str(&format!(" mark {:#x} mask {:#x}", mark.value, mark.mask));
    }
    if let Some(udp) = sa.encapsulation {
        let (source, destination) =
            if inbound { (udp.remote_port, udp.local_port) } else { (udp.local_port, udp.remote_port) };
        let any = if sa.outer.local.is_ipv4() { "0.0.0.0" } else { "::" };
        text.push_str(&format!(" encap espinudp {source} {destination} {any}"));
    }
    text.push_str(&limits(sa.limits));
    if let Some(mark) = sa.tags.set_mark {
        text.push_str(&format!(" output-mark {:#x} mask {:#x}", mark.value, mark.mask));
    }
    if sa.tags.if_id != 0 {
        text.push_str(&format!(" if_id {:#x}", sa.tags.if_id));
    }
    let offload = offload(sa, inbound, around);
    // `ip` takes the direction from the device where there is one.
    if around.backend == KERNEL && offload.is_empty() {
        text.push_str(if inbound { " dir in" } else { " dir out" });
    }
    text.push_str(&offload);
    text
}

/// The device that does the work, as read back where the SA is installed.
fn offload(sa: &SaSpec, inbound: bool, around: &Surroundings) -> String {
    let mode = around.modes.get(&sa.handle).map_or(sa.offload, |mode| mode.mode);
    let word = match mode {
        OffloadMode::No | OffloadMode::Auto => return String::new(),
        OffloadMode::Crypto => "",
        OffloadMode::Packet => "packet ",
    };
    let device = around.devices.get(&sa.device).map_or("?", |name| &**name);
    format!(" offload {word}dev {device} dir {}", if inbound { "in" } else { "out" })
}

/// Algorithms as the kernel's crypto layer and `ip` name them.
fn algorithm(algorithm: EspAlgorithm) -> String {
    let cipher = match algorithm.encryption {
        EspEncryption::AesGcm16(_) => return format!("aead rfc4106(gcm(aes)) {KEY} 128"),
        EspEncryption::ChaCha20Poly1305 => return format!("aead rfc7539esp(chacha20,poly1305) {KEY} 128"),
        EspEncryption::AesCbc(_) => format!("enc cbc(aes) {KEY}"),
    };
    let integrity = match algorithm.integrity {
        Some(EspIntegrity::HmacSha2_256_128) => ("hmac(sha256)", 128),
        Some(EspIntegrity::HmacSha2_384_192) => ("hmac(sha384)", 192),
        Some(EspIntegrity::HmacSha2_512_256) => ("hmac(sha512)", 256),
        None => return cipher,
    };
    let (name, bits) = integrity;
    format!("{cipher} auth-trunc {name} {KEY} {bits}")
}

/// What an SA does to header fields; each direction has flags of its own.
fn flags(sa: &SaSpec, inbound: bool, around: &Surroundings) -> String {
    let (inward, outward) = match sa.copy.dscp {
        CopyDscp::Out => (false, true),
        CopyDscp::In => (true, false),
        CopyDscp::Yes => (true, true),
        CopyDscp::No => (false, false),
    };
    let both = around.backend == KERNEL && sa.mode == SaMode::Tunnel;
    let all = [
        (!sa.copy.ecn, "noecn"),
        (inbound && inward, "decap-dscp"),
        (!inbound && !sa.copy.df, "nopmtudisc"),
        (both, "af-unspec"),
        (sa.esn, "esn"),
    ];
    let mut text: String = all.iter().filter(|(set, _)| *set).map(|(_, flag)| format!(" flag {flag}")).collect();
    if !inbound && !outward {
        text.push_str(" extra-flag dont-encap-dscp");
    }
    text
}

fn limits(limits: Limits) -> String {
    let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs());
    let all = [
        ("time-soft", seconds(limits.soft.time)),
        ("time-hard", seconds(limits.hard.time)),
        ("byte-soft", limits.soft.bytes),
        ("byte-hard", limits.hard.bytes),
        ("packet-soft", limits.soft.packets),
        ("packet-hard", limits.hard.packets),
    ];
    let set = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    set.map(|(name, value)| format!(" limit {name} {value}")).collect()
}
