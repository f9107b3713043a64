//! States and policies as the `ip xfrm` commands that would make them.
//!
//! Written from what the kernel shows, not from what was asked of it. Keys are never there: a command says `<key>` in their place. What `ip` has no word
//! for makes the line a comment, never a command that says something else.

use std::fmt::Write as _;
use std::time::Duration;

use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{Direction, EspAlgorithm, EspEncryption, EspIntegrity, SaMode};
use offload_host::xfrm::{PolicyKey, PortMask, Verdict, Way};

use crate::xfrm::{DeviceOffload, KernelLimits, Policy, State, StateDetail};

/// What stands for a key.
const KEY: &str = "<key>";
/// ICMP and ICMPv6, which have types and codes where others have ports.
const ICMP: [u8; 2] = [1, 58];

/// Names of links by their number.
pub type Names<'n> = &'n dyn Fn(u32) -> String;

/// `ip xfrm state add`, or a comment where `ip` has no word for something: transforms that are none of ours, a CPU, NAT keepalives.
pub fn state(state: &State, names: Names<'_>) -> String {
    let detail = &state.detail;
    let wordless = [
        (detail.algorithm.is_none() || state.mode.is_none(), "its transforms"),
        (detail.cpu.is_some(), "its CPU"),
        (detail.nat_keepalive.is_some(), "its NAT keepalives"),
    ];
    comment_where(wordless, written_state(state, names))
}

/// A command, or why it says less than there is.
fn comment_where<const N: usize>(wordless: [(bool, &str); N], command: String) -> String {
    let what: Vec<&str> = wordless.into_iter().filter(|(there, _)| *there).map(|(_, what)| what).collect();
    if what.is_empty() { command } else { format!("# ip cannot write {}: {command}", what.join(" and ")) }
}

fn written_state(state: &State, names: Names<'_>) -> String {
    let detail = &state.detail;
    let mut text = format!(
        "ip xfrm state add src {} dst {} proto esp spi 0x{} {} mode {} reqid {}",
        state.source,
        state.id.destination,
        state.id.spi,
        detail.algorithm.map_or_else(|| "aead <other> <key>".to_owned(), algorithm),
        state.mode.map_or("<other>", mode),
        state.reqid
    );
    put(&mut text, "replay-window", Some(detail.replay_window));
    flags(&mut text, state);
    if let Some(selector) = &detail.selector {
        text.push_str(" sel");
        text.push_str(&self::selector(selector, names));
    }
    if let Some(mark) = state.id.mark {
        let _ = write!(text, " mark {:#x} mask {:#x}", mark.value, mark.mask);
    }
    encapsulation(&mut text, state);
    limits(&mut text, &state.limits);
    if let Some(mark) = detail.set_mark {
        let _ = write!(text, " output-mark {:#x} mask {:#x}", mark.value, mark.mask);
    }
    put(&mut text, "if_id", (state.if_id != 0).then(|| format!("{:#x}", state.if_id)));
    text.push_str(&direction(state, names));
    text
}

fn put(text: &mut String, word: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        let _ = write!(text, " {word} {value}");
    }
}

/// Algorithms as the kernel's crypto layer names them.
fn algorithm(algorithm: EspAlgorithm) -> String {
    let cipher = match algorithm.encryption {
        EspEncryption::AesGcm16(_) => return format!("aead rfc4106(gcm(aes)) {KEY} 128"),
        EspEncryption::ChaCha20Poly1305 => return format!("aead rfc7539esp(chacha20,poly1305) {KEY} 128"),
        EspEncryption::AesCbc(_) => format!("enc cbc(aes) {KEY}"),
    };
    let name = match algorithm.integrity {
        Some(EspIntegrity::HmacSha2_256_128) => "hmac(sha256)",
        Some(EspIntegrity::HmacSha2_384_192) => "hmac(sha384)",
        Some(EspIntegrity::HmacSha2_512_256) => "hmac(sha512)",
        None => return cipher,
    };
    format!("{cipher} auth-trunc {name} {KEY} {}", algorithm.icv_bits())
}

const fn mode(mode: SaMode) -> &'static str {
    match mode {
        SaMode::Tunnel => "tunnel",
        SaMode::Transport => "transport",
    }
}

fn flags(text: &mut String, state: &State) {
    let StateDetail { esn, copy: HeaderCopy { df, ecn, dscp }, selector, .. } = state.detail;
    let (inward, outward) = match dscp {
        CopyDscp::Out => (false, true),
        CopyDscp::In => (true, false),
        CopyDscp::Yes => (true, true),
        CopyDscp::No => (false, false),
    };
    // Only without a family of its own does a tunnel take both.
    let both = state.mode == Some(SaMode::Tunnel) && selector.is_none();
    let all = [(!ecn, "noecn"), (inward, "decap-dscp"), (!df, "nopmtudisc"), (both, "af-unspec"), (esn, "esn")];
    all.into_iter().filter(|(set, _)| *set).for_each(|(_, flag)| put(text, "flag", Some(flag)));
    put(text, "extra-flag", (!outward).then_some("dont-encap-dscp"));
}

fn encapsulation(text: &mut String, state: &State) {
    let Some(udp) = state.detail.encapsulation else { return };
    let (source, destination) = match state.direction {
        Some(Direction::Inbound | Direction::Forward) => (udp.remote_port, udp.local_port),
        Some(Direction::Outbound) | None => (udp.local_port, udp.remote_port),
    };
    let none = if state.source.is_ipv4() { "0.0.0.0" } else { "::" };
    let original = state.detail.original_source.map_or_else(|| none.to_owned(), |address| address.to_string());
    let _ = write!(text, " encap espinudp {source} {destination} {original}");
}

fn limits(text: &mut String, limits: &KernelLimits) {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let all = [
        ("time-soft", seconds(limits.soft_time)),
        ("time-hard", seconds(limits.hard_time)),
        ("byte-soft", limits.soft_bytes),
        ("byte-hard", limits.hard_bytes),
        ("packet-soft", limits.soft_packets),
        ("packet-hard", limits.hard_packets),
    ];
    for (name, value) in all {
        put(text, &format!("limit {name}"), value);
    }
}

/// The direction, and the device where there is one: `ip` takes the direction from there.
fn direction(state: &State, names: Names<'_>) -> String {
    let way = match state.direction {
        Some(Direction::Inbound | Direction::Forward) => "in",
        Some(Direction::Outbound) => "out",
        None => return String::new(),
    };
    match state.offload {
        None => format!(" dir {way}"),
        Some(DeviceOffload { link, packet }) => {
            format!(" offload {} dev {} dir {way}", if packet { "packet" } else { "crypto" }, names(link))
        }
    }
}

/// `ip xfrm policy add`, or a comment where `ip` has no word for something: masks of ports, acquires of each CPU, a selector
/// that differs from others only in its user.
pub fn policy(policy: &Policy, names: Names<'_>) -> String {
    let key = &policy.key;
    let masked = [key.source_port, key.destination_port].iter().any(|port| !matches!(port.mask, 0 | u16::MAX));
    let wordless = [
        (masked, "its masks of ports"),
        (policy.per_cpu, "its acquires of each CPU"),
        (key.user != 0, "its selector's user"),
    ];
    let command = written_policy(policy, names);
    comment_where(wordless, if masked { format!("{command} ({key})") } else { command })
}

fn written_policy(policy: &Policy, names: Names<'_>) -> String {
    let key = &policy.key;
    let way = match key.way {
        Way::In => "in",
        Way::Out => "out",
        Way::Forward => "fwd",
    };
    let mut text = format!("ip xfrm policy add{} dir {way}", selector(key, names));
    if let Some(mark) = key.mark {
        let _ = write!(text, " mark {:#x} mask {:#x}", mark.value, mark.mask);
    }
    put(&mut text, "index", (policy.index != 0).then_some(policy.index));
    put(&mut text, "action", (policy.verdict == Verdict::Block).then_some("block"));
    put(&mut text, "priority", Some(policy.priority));
    put(&mut text, "if_id", (key.if_id != 0).then(|| format!("{:#x}", key.if_id)));
    put(&mut text, "offload packet dev", policy.device.map(names));
    if let Some(template) = &policy.template {
        let _ = write!(text, " tmpl src {} dst {} proto esp", template.source, template.destination);
        put(&mut text, "spi", template.spi.map(|spi| format!("0x{spi}")));
        let _ = write!(text, " reqid {} mode {}", template.reqid.0, mode(template.mode));
        put(&mut text, "level", template.optional.then_some("use"));
    }
    text
}

/// Addresses, protocol, ports (type and code of ICMP) and link.
fn selector(key: &PolicyKey, names: Names<'_>) -> String {
    let mut text = format!(" src {} dst {}", key.source, key.destination);
    put(&mut text, "proto", (key.protocol != 0).then_some(key.protocol));
    let words = if ICMP.contains(&key.protocol) { ["type", "code"] } else { ["sport", "dport"] };
    for (word, port) in words.iter().zip([key.source_port, key.destination_port]) {
        put(&mut text, word, (port != PortMask::default()).then_some(port.value));
    }
    put(&mut text, "dev", (key.link != 0).then(|| names(key.link)));
    text
}

#[cfg(test)]
mod tests;
