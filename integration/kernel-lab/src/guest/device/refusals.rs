//! What the device refuses, and that the kernel passes its words on.

use anyhow::{Result, ensure};
use lab::topology::{Family, Side};
use libtest_mimic::Trial;

use crate::bench::{ip, trial};
use crate::nic::Mode;
use crate::wired::{By, DEVICE, Shape, Wired};

const SHAPE: Shape = Shape::Transport(Family::V4);
const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("nic::refusals::states", states),
        trial("nic::refusals::policies", policies),
        trial("nic::refusals::full_tables", full_tables),
        trial("nic::refusals::the_next_install", the_next_install),
        trial("nic::refusals::modes_of_the_device", modes_of_the_device),
    ]
}

/// Fails unless a line of `ip` is refused with these words.
fn refused(wired: &Wired, line: &str, words: &str) -> Result<()> {
    let said = match ip(&wired.a, line) {
        Ok(_) => anyhow::bail!("accepted: {line}"),
        Err(error) => error.to_string(),
    };
    ensure!(said.contains(words), "`{line}` was refused otherwise: {said}");
    Ok(())
}

/// An inbound SA in the device; the parts that are to be refused are the caller's.
fn state(reqid: u32, aead: &str, more: &str) -> String {
    format!(
        "xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1 reqid {reqid} mode transport {aead} {more} offload packet dev \
         {DEVICE} dir in"
    )
}

fn states() -> Result<()> {
    let wired = Wired::new()?;
    let gcm = format!("aead rfc4106(gcm(aes)) {KEY} 128");
    let window = "replay-window 32";
    let cases = [
        (state(0, &gcm, window), "needs a reqid"),
        (state(7, &gcm, "replay-window 16"), "replay windows of 32, 64, 128 or 256"),
        (state(7, &gcm, "replay-window 512 flag esn"), "replay windows of 32, 64, 128 or 256"),
        (state(7, &format!("aead rfc4106(gcm(aes)) {KEY} 96"), window), "ICV of 16 octets"),
        (state(7, &format!("aead rfc4106(gcm(aes)) {KEY}1415161718191a1b 128"), window), "keys of 128 or 256 bits"),
        (
            state(7, &format!("aead rfc7539esp(chacha20,poly1305) {KEY}1415161718191a1b1c1d1e1f20212223 128"), window),
            "AES-GCM",
        ),
        (
            state(
                7,
                "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth hmac(sha256) 0x000102030405060708090a0b0c0d0e0f",
                window,
            ),
            "integrity algorithm",
        ),
        (
            state(7, &gcm, &format!("{window} limit byte-soft 1000 limit byte-hard 2000")),
            "byte limits are not supported",
        ),
        (state(7, &gcm, &format!("{window} limit packet-soft 10 limit packet-hard 10")), "must be above the soft one"),
        (state(7, &gcm, &format!("{window} limit packet-soft 0 limit packet-hard 10")), "limit of 0"),
    ];
    for (line, words) in &cases {
        refused(&wired, line, words)?;
    }
    for (knob, value, more, words) in [
        ("no_esn", "Y", "replay-window 64 flag esn", "extended sequence numbers are not supported"),
        (
            "packet_limits",
            "N",
            "replay-window 32 limit packet-soft 10 limit packet-hard 20",
            "packet limits are not supported",
        ),
        ("udp_encap", "N", "replay-window 32 encap espinudp 4500 4500 0.0.0.0", "encapsulation is not supported"),
    ] {
        wired.nic.turn(Side::A, knob, value)?;
        refused(&wired, &state(7, &gcm, more), words)?;
    }
    let refusals = wired.counter(Side::A, "sa_refused")?;
    ensure!(refusals == cases.len() as u64 + 3, "{refusals} refusals were counted");
    Ok(())
}

fn policies() -> Result<()> {
    let wired = Wired::new()?;
    let template = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel";
    let policy = |selector: &str, more: &str| format!("xfrm policy add {selector} offload packet dev {DEVICE} {more}");
    for (line, words) in [
        (policy("src 10.0.1.0/24 dst 10.0.2.0/24 dir fwd", template), "forward policies are not supported"),
        (
            policy("src 10.0.1.0/24 dst 10.0.2.0/24 dir out", "tmpl proto esp mode transport"),
            "a template needs a reqid",
        ),
        (policy("src 10.0.1.0/24 dst 10.0.2.0/24 dir out", &format!("{template} {template}")), "one template at most"),
        (
            policy("src 10.0.1.0/24 dst 10.0.2.0/24 dir out", "tmpl proto ah reqid 7 mode transport"),
            "templates of ESP only",
        ),
        (policy("src 10.0.2.0/24 dst 10.0.1.0/24 dir in", &format!("{template} level use")), "optional templates"),
        (policy("src 10.0.1.0/24 dst 10.0.2.0/24 proto 1 dir out", template), "TCP, UDP or any protocol"),
        (policy("src 0.0.0.0/0 dst 0.0.0.0/0 dir out", ""), "needs an address or a protocol"),
        (policy("src 10.0.1.0/24 dst 10.0.2.0/24 dir out priority 4294967295", template), "out of range"),
    ] {
        refused(&wired, &line, words)?;
    }
    ensure!(wired.counter(Side::A, "policy_refused")? == 8, "not every refusal was counted");
    wired.nic.turn(Side::A, "any_protocol", "Y")?;
    ip(&wired.a, &policy("src 10.0.1.0/24 dst 10.0.2.0/24 proto 1 dir out", template)).map(drop)
}

fn full_tables() -> Result<()> {
    let wired = Wired::new()?;
    wired.nic.turn(Side::A, "sa_table_size", "1")?;
    wired.nic.turn(Side::A, "policy_table_size", "1")?;
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "")?;
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    let full = wired.add_sa(Side::A, Side::B, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(full.as_ref().is_some_and(|said| said.contains("the SA table is full")), "a second SA: {full:?}");
    let full = wired.add_policy(Side::A, Side::B, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(full.as_ref().is_some_and(|said| said.contains("the policy table is full")), "a second policy: {full:?}");
    // What is deleted leaves room.
    wired.clear()?;
    wired.add_sa(Side::A, Side::B, SHAPE, By::Packet, "")?;
    wired.add_policy(Side::A, Side::B, SHAPE, By::Packet, "").map(drop)
}

fn the_next_install() -> Result<()> {
    let wired = Wired::new()?;
    wired.nic.turn(Side::A, "refuse_next", "no more today")?;
    let said = wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(said.as_ref().is_some_and(|said| said.contains("no more today")), "the policy: {said:?}");
    wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "")?;
    wired.nic.turn(Side::A, "refuse_next", "nor tomorrow")?;
    let said = wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(said.as_ref().is_some_and(|said| said.contains("nor tomorrow")), "the SA: {said:?}");
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "").map(drop)
}

/// Crypto offload only, as most hardware has; and none, where the kernel falls back to software without a word for crypto offload.
fn modes_of_the_device() -> Result<()> {
    let wired = Wired::new()?;
    wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "")?;
    ensure!(wired.nic.turn(Side::A, "mode", "crypto").is_err(), "the mode changed under an SA");
    wired.clear()?;
    wired.nic.to_mode(Side::A, Mode::Crypto)?;
    let said = wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(said.as_ref().is_some_and(|said| said.contains("packet offload is not supported")), "an SA: {said:?}");
    let said = wired.add_policy(Side::A, Side::A, SHAPE, By::Packet, "").err().map(|error| error.to_string());
    ensure!(said.as_ref().is_some_and(|said| said.contains("Policy offload is not supported")), "a policy: {said:?}");
    wired.protect(SHAPE, [By::Crypto, By::Software])?;
    wired.expect(SHAPE, 2, 2, "crypto offload")?;
    wired.clear()?;
    wired.nic.to_mode(Side::A, Mode::None)?;
    ensure!(wired.add_sa(Side::A, Side::A, SHAPE, By::Packet, "").is_err(), "a plain device took an SA");
    wired.protect(SHAPE, [By::Crypto, By::Software])?;
    let states = ip(&wired.a, "xfrm state")?;
    ensure!(!states.contains("offload"), "a plain device offloads:\n{states}");
    wired.expect(SHAPE, 2, 2, "in software")
}
