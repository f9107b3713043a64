//! What the kernel backend takes for granted of this kernel, shown without the backend: with `ip` and policies of our own making.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, ensure};
use lab::process::wait_until;
use lab::topology::{FAMILIES, Family};
use libtest_mimic::Trial;
use offload_host::netlink::Netlink;
use offload_host::prefix::Prefix;
use offload_host::xfrm::{self, Found, PolicyKey, Verdict, Way};

use crate::bench::{Pair, ip, start, trial};

const NETLINK_XFRM: isize = 6;
/// A key of AES-128 with its salt, for `ip xfrm`.
const AEAD: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("facts::software_esp_carries_both_families", software_esp_carries_both_families),
        trial("facts::policies_of_equal_selectors_differ_by_user", policies_of_equal_selectors_differ_by_user),
        trial("facts::packets_of_an_acquire_wait_without_larval_drop", || packet_of_an_acquire(false)),
        trial("facts::packets_of_an_acquire_are_dropped_by_default", || packet_of_an_acquire(true)),
        trial("facts::direction_of_an_sa_is_kept_and_enforced", direction_of_an_sa_is_kept_and_enforced),
    ]
}

/// An SA of the transport mode in one place, by `ip`; the SPI is that of its direction.
fn add_sa(place: &lab::netns::Namespace, family: Family, from_a: bool, more: &str) -> anyhow::Result<String> {
    let (a, b) = Pair::addresses(family);
    let (source, destination, spi) = if from_a { (a, b, 0x1001) } else { (b, a, 0x1002) };
    ip(
        place,
        &format!(
            "xfrm state add src {source} dst {destination} proto esp spi {spi:#x} reqid 7 mode transport {AEAD} {more}"
        ),
    )
}

fn add_policies(place: &lab::netns::Namespace, family: Family, from_a: &str, from_b: &str) -> anyhow::Result<()> {
    let (a, b) = Pair::addresses(family);
    for (source, destination, way) in [(a, b, from_a), (b, a, from_b)] {
        let template = format!("tmpl src {source} dst {destination} proto esp reqid 7 mode transport");
        ip(place, &format!("xfrm policy add src {source} dst {destination} dir {way} priority 100 {template}"))?;
    }
    Ok(())
}

fn software_esp_carries_both_families() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    for family in FAMILIES {
        for place in [&pair.a, &pair.b] {
            add_sa(place, family, true, "")?;
            add_sa(place, family, false, "")?;
        }
        add_policies(&pair.a, family, "out", "in")?;
        add_policies(&pair.b, family, "in", "out")?;
    }
    let capture = pair.capture()?;
    for family in FAMILIES {
        let answered = pair.ping(family, 5)?;
        ensure!(answered == 5, "{family:?}: {answered} of 5 echo requests answered");
    }
    let captured = pair.finish(capture)?;
    let counts = captured.counts;
    // Unicast neighbour discovery between the addresses is protected like everything else.
    ensure!(counts.esp >= 20 && counts.other == 0, "the link carried {counts:?}");
    Ok(())
}

/// The kernel tells policies apart by the selector's `user` and does not hold it against packets: two stand side by side, and the better
/// priority decides.
fn policies_of_equal_selectors_differ_by_user() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    let (a, b) = Pair::addresses(Family::V4);
    let mut netlink = pair.a.run(|| Netlink::open("xfrm", NETLINK_XFRM))??;
    let key = |user| PolicyKey { user, ..PolicyKey::between(Way::Out, Prefix::host(a), Prefix::host(b)) };
    let mut install = |user, verdict, priority, index| {
        let policy = Found { key: key(user), verdict, priority, index, device: None };
        let refused = xfrm::install(&mut netlink, &policy, false);
        refused.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
    };
    install(0x4347, Verdict::Block, 5_000, Way::Out.index(1))?;
    ensure!(pair.ping(Family::V4, 2)? == 0, "a blocking policy with a user blocks nothing");
    install(0, Verdict::Allow, 4_000, Way::Out.index(2))?;
    ensure!(pair.ping(Family::V4, 2)? == 2, "the better of two policies of equal selectors does not decide");
    ensure!(install(0, Verdict::Allow, 3_000, Way::Out.index(3)).is_err(), "the same user twice was no conflict");
    Ok(())
}

/// A packet that finds a policy and no SA asks for one; with `net.core.xfrm_larval_drop` off the kernel keeps it until the SA is there.
fn packet_of_an_acquire(drops: bool) -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    pair.a.sysctl("net/core/xfrm_larval_drop", if drops { "1" } else { "0" })?;
    let (a, b) = Pair::addresses(Family::V4);
    add_sa(&pair.b, Family::V4, true, "")?;
    add_policies(&pair.b, Family::V4, "in", "out")?;
    add_policies(&pair.a, Family::V4, "out", "in")?;
    let monitor = start(&pair.a, "ip xfrm monitor acquire")?;
    // It says nothing when it is ready: the kernel lists its socket.
    let listens = || pair.a.command("cat", &["/proc/net/netlink"]).is_ok_and(|text| listens_to_xfrm(&text));
    ensure!(wait_until(Duration::from_secs(5), listens), "`ip xfrm monitor` does not listen: {}", monitor.output());

    let receiver = pair.b.run(|| UdpSocket::bind((b, 4_000)))??;
    receiver.set_read_timeout(Some(Duration::from_secs(3)))?;
    let sender = pair.a.run(|| UdpSocket::bind((a, 4_001)))??;
    sender.set_nonblocking(true)?;
    let _ = sender.send_to(b"first", (b, 4_000));
    ensure!(wait_until(Duration::from_secs(5), || monitor.output().contains("acquire")), "no acquire was told");
    add_sa(&pair.a, Family::V4, true, "")?;
    let mut buffer = [0; 16];
    let arrived = receiver.recv(&mut buffer).is_ok();
    ensure!(arrived != drops, "the packet {}", if arrived { "arrived" } else { "was lost" });
    Ok(())
}

/// Whether a socket of family 6 belongs to a process and to groups.
fn listens_to_xfrm(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"6")
            && fields.get(2) != Some(&"0")
            && fields.get(3).is_some_and(|groups| *groups != "00000000")
    })
}

/// `XFRMA_SA_DIR`: kept, shown, and held against what makes no sense in that direction.
fn direction_of_an_sa_is_kept_and_enforced() -> anyhow::Result<()> {
    let pair = Pair::veth()?;
    add_sa(&pair.a, Family::V4, true, "dir out")?;
    add_sa(&pair.a, Family::V4, false, "replay-window 32 dir in")?;
    let states = ip(&pair.a, "-d xfrm state")?;
    ensure!(states.contains("dir out") && states.contains("dir in"), "no direction is shown:\n{states}");
    let refused = add_sa(&pair.a, Family::V6, true, "replay-window 32 dir out");
    let said = refused.err().map(|error| error.to_string()).context("an outbound SA took a replay window")?;
    ensure!(said.contains("eplay window"), "the refusal does not say why: {said}");
    Ok(())
}
