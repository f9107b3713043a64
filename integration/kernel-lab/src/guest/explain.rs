//! `cygnet explain` against the real thing: its commands, given to `ip` in an empty place, make the kernel hold what it holds for the daemon; and what
//! `ip xfrm monitor` has told is what is there.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipsec::{Direction, EspAlgorithm};
use lab::life::{self, CHILDREN};
use lab::netns::Namespace;
use lab::pair::{Pair, with_pair};
use lab::peer::Daemon;
use lab::peer::conf::Tunnel;
use lab::peer::cygnet::CygnetOn;
use lab::process::wait_until;
use lab::topology::{FAMILIES, Lab, Middle, OUTER, Side};
use libtest_mimic::Trial;
use offload_kernel::commands;
use offload_kernel::netlink::esp::every_algorithm;
use offload_kernel::xfrm::{NewState, Xfrm};

use crate::bench::{ip, start, trial};
use crate::ground::{Ground, Rung};
use crate::netlink;

const KERNEL: CygnetOn = CygnetOn { backend: "kernel", extra: String::new(), log: String::new() };
/// Indexes of the policies that protect, by their highest octet.
const PROTECTING: u32 = 0x44;
/// What one child has beside the other.
const ADORNED: [&str; 13] = [
    "mark_in = 0x11/0xff",
    "mark_out = 0x12/0xff",
    "set_mark_in = 0x100/0xf00",
    "set_mark_out = 0x200/0xf00",
    "if_id_in = 41",
    "if_id_out = 42",
    "replay_window = 128",
    "copy_df = no",
    "copy_ecn = no",
    "copy_dscp = in",
    "rekey_bytes = 1000000",
    "life_bytes = 2000000",
    "life_packets = 300000",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("explain::its_commands_make_what_the_kernel_holds", || {
            with_pair(&Middle::Direct, [&KERNEL, &KERNEL], configured, its_commands_make_what_the_kernel_holds)
        }),
        trial("explain::offload_is_what_ip_shows::crypto", || offload_is_what_ip_shows(Rung::Crypto)),
        trial("explain::offload_is_what_ip_shows::packet", || offload_is_what_ip_shows(Rung::Packet)),
        trial("explain::commands_of_every_algorithm_and_option", commands_of_every_algorithm_and_option),
    ]
}

fn configured(_: Side, mut tunnel: Tunnel) -> Tunnel {
    for child in tunnel.children.iter_mut().filter(|child| child.name == CHILDREN[0]) {
        child.options.extend(ADORNED.map(str::to_owned));
    }
    tunnel
}

fn its_commands_make_what_the_kernel_holds(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let gateways = [&lab.a.gateway, &lab.b.gateway];
    let monitors = gateways.map(|place| start(place, "ip -s -d xfrm monitor nokeys"));
    let monitors = monitors.into_iter().collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(500));
    life::establish(pair, Side::A)?;
    for ((side, place), monitor) in [Side::A, Side::B].into_iter().zip(gateways).zip(&monitors) {
        let text = explained(pair.side(side), &["site"])?;
        let copy = Namespace::new(&format!("copy-{}", side.letter()))?;
        let (states, policies) = repeat(&copy, &text)?;
        ensure!(
            states == 2 * CHILDREN.len() && policies >= 3 * CHILDREN.len(),
            "{states} SAs, {policies} policies:\n{text}"
        );
        equal("SAs", &self::states(place)?, &self::states(&copy)?, &text)?;
        equal("policies", &self::policies(place)?, &self::policies(&copy)?, &text)?;
        for there in self::states(place)? {
            let told = || blocks(&monitor.output()).contains(&there);
            ensure!(wait_until(Duration::from_secs(2), told), "not told of:\n{there}\n{}", monitor.output());
        }
        for there in self::policies(place)? {
            ensure!(blocks(&monitor.output()).contains(&there), "not told of:\n{there}\n{}", monitor.output());
        }
    }
    Ok(())
}

/// Over the test NIC: device and mode are as `ip` shows them, and without them the commands make the same in software.
fn offload_is_what_ip_shows(rung: Rung) -> Result<()> {
    let ground = Ground::new(rung)?;
    ground.with_pair([&KERNEL, &KERNEL], |_, tunnel| tunnel, offloaded)
}

fn offloaded(ground: &Ground, pair: &mut Pair<'_>) -> Result<()> {
    life::establish_all(pair, Side::A, &CHILDREN[..1])?;
    for (side, place) in [(Side::A, &ground.lab.a.gateway), (Side::B, &ground.lab.b.gateway)] {
        let text = explained(pair.side(side), &["site", CHILDREN[0]])?;
        let word = ground.rung.name();
        let device = format!(" offload {word} dev {OUTER}");
        let of_sas: Vec<&str> = text.lines().filter(|line| line.starts_with("ip xfrm state add ")).collect();
        ensure!(of_sas.len() == 2 && of_sas.iter().all(|line| line.contains(&device)), "{text}");
        let told = |line: &&str| line.split(" spi ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        let spis: Vec<String> = of_sas.iter().filter_map(told).collect();
        // What keeps SAs in devices findable belongs to no child.
        let of_child = |block: &String| spis.iter().any(|spi| block.contains(&format!(" spi {spi}(")));
        let there: BTreeSet<String> = states(place)?.into_iter().filter(of_child).collect();
        for way in ["in", "out"] {
            let shown = format!("dev {OUTER} dir {way} mode {word}");
            ensure!(there.iter().filter(|block| block.contains(&shown)).count() == 1, "no '{shown}' in {there:#?}");
            let written = format!("{device} dir {way}");
            ensure!(of_sas.iter().filter(|line| line.contains(&written)).count() == 1, "no '{written}' in:\n{text}");
        }
        let offloaded =
            policies(place)?.iter().filter(|block| block.contains(&format!("dev {OUTER} mode packet"))).count();
        let lines = text.lines().filter(|line| line.contains("xfrm policy add") && is_protecting(line));
        let written = lines.filter(|line| line.contains(&device)).count();
        let expected = if ground.rung == Rung::Packet { 2 } else { 0 };
        ensure!(
            (offloaded, written) == (expected, expected),
            "{offloaded} policies in a device, {written} written:\n{text}"
        );

        let copy = Namespace::new(&format!("software-{}", side.letter()))?;
        let plain = text.replace(&device, "").replace("# ip cannot write its selector's user: ", "");
        ensure!(repeat(&copy, &plain)? == (2, 3), "{plain}");
        equal("SAs", &in_software(there), &in_software(states(&copy)?), &text)?;
        equal("policies", &in_software(policies(place)?), &in_software(policies(&copy)?), &text)?;
    }
    Ok(())
}

/// Without what only a device or `ip` knows of: where it is done, and the user of a selector.
fn in_software(blocks: BTreeSet<String>) -> BTreeSet<String> {
    let line = |line: &str| line.split(" uid ").next().unwrap_or_default().to_owned();
    let kept = |block: String| {
        let lines = block.lines().filter(|line| !line.contains("offload parameters"));
        lines.map(line).collect::<Vec<_>>().join("\n")
    };
    blocks.into_iter().map(kept).collect()
}

/// The command written for an SA makes one that `ip` shows alike.
fn commands_of_every_algorithm_and_option() -> Result<()> {
    let (place, copy) = (Namespace::new("written")?, Namespace::new("repeated")?);
    let mut xfrm = netlink::open(&place)?;
    let mut compare = |state: &NewState<'_>| {
        xfrm.add_state(state)?;
        let shown = xfrm.state(&state.id)?.context("an SA is gone")?;
        let command = commands::state(&shown, &|link| format!("link{link}"));
        if state.cpu.is_some() || state.nat_keepalive.is_some() {
            ensure!(command.starts_with("# ip cannot write "), "{command}");
        } else {
            let words = with_keys(&command, state.algorithm);
            ip(&copy, words.strip_prefix("ip ").context("a command of ip")?).with_context(|| command.clone())?;
            equal("SAs", &states(&place)?, &states(&copy)?, &command)?;
        }
        for place in [&place, &copy] {
            ip(place, "xfrm state flush")?;
        }
        anyhow::Ok(())
    };
    for family in FAMILIES {
        for direction in [Direction::Inbound, Direction::Outbound] {
            for algorithm in every_algorithm() {
                let key = netlink::key(algorithm);
                compare(&NewState { algorithm, ..netlink::sa(&key, netlink::ends(family), 0x1001, direction) })?;
            }
            let key = netlink::key(EspAlgorithm::AES_256_GCM);
            let state = netlink::sa(&key, netlink::ends(family), 0x1001, direction);
            for change in netlink::options(family) {
                compare(&change(state.clone()))?;
            }
            let replay_window = if direction == Direction::Inbound { 1024 } else { 0 };
            compare(&NewState { esn: true, replay_window, ..state })?;
        }
    }
    Ok(())
}

/// A command with keys of the right lengths.
fn with_keys(command: &str, algorithm: EspAlgorithm) -> String {
    let key = |octets: usize| format!("0x{}", "01".repeat(octets));
    let command = command.replacen("<key>", &key(algorithm.encryption.keymat_octets()), 1);
    match algorithm.integrity {
        Some(integrity) => command.replacen("<key>", &key(integrity.keymat_octets()), 1),
        None => command,
    }
}

fn explained(daemon: &Daemon<'_>, what: &[&str]) -> Result<String> {
    let output = daemon.cygnet(&[&["explain"], what].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.contains("installed"), "{}: {text}", output.status);
    Ok(text)
}

/// Gives the commands of SAs and of policies that protect to `ip`; gives how many there were.
fn repeat(place: &Namespace, text: &str) -> Result<(usize, usize)> {
    let (mut states, mut policies) = (0, 0);
    for line in text.lines() {
        let counter = if line.starts_with("ip xfrm state add ") {
            &mut states
        } else if line.starts_with("ip xfrm policy add ") && is_protecting(line) {
            &mut policies
        } else {
            continue;
        };
        *counter += 1;
        // 128 bits of key and 32 of salt; which ones is hidden.
        let command = line.replace("<key>", &format!("0x{}", "0".repeat(40)));
        ip(place, command.strip_prefix("ip ").context("a command of ip")?).with_context(|| line.to_owned())?;
    }
    Ok((states, policies))
}

fn is_protecting(text: &str) -> bool {
    let index = text.split(" index ").nth(1).and_then(|rest| rest.split_whitespace().next());
    index.and_then(|index| index.parse::<u32>().ok()).is_some_and(|index| index >> 24 == PROTECTING)
}

fn states(place: &Namespace) -> Result<BTreeSet<String>> {
    Ok(blocks(&ip(place, "-s -d xfrm state list nokeys")?))
}

fn policies(place: &Namespace) -> Result<BTreeSet<String>> {
    let all = blocks(&ip(place, "-s -d xfrm policy list nosock")?);
    Ok(all.into_iter().filter(|block| is_protecting(block)).collect())
}

fn equal(what: &str, there: &BTreeSet<String>, copied: &BTreeSet<String>, explained: &str) -> Result<()> {
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>().join("\n\n");
    ensure!(
        there == copied && !there.is_empty(),
        "{what} only of the daemon:\n{}\n\n{what} only of what it explains:\n{}\n\nexplained:\n{explained}",
        only(there, copied),
        only(copied, there)
    );
    Ok(())
}

/// What `ip -s -d xfrm` shows, one text for each SA or policy, without what changes with time and traffic.
fn blocks(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut block: Vec<String> = Vec::new();
    let mut skip = 0;
    let lines = text.lines().map(|line| line.strip_prefix("Updated ").unwrap_or(line));
    for line in lines.chain(["src end"]) {
        if line.starts_with("src ") {
            all.extend((!block.is_empty()).then(|| block.join("\n")));
            block.clear();
            skip = 0;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        skip = match words.first().copied() {
            // A line of counters follows each, of times the first.
            Some("lifetime") if words.get(1) == Some(&"current:") => 3,
            Some("stats:") => 2,
            // What has been sent and received of late.
            Some("lastused" | "seq-hi" | "anti-replay") => 1,
            _ => skip,
        };
        let passing = words.iter().all(|word| word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit()));
        if skip == 0 && !passing {
            block.push(without_key(&words));
        }
        skip = usize::saturating_sub(skip, 1);
    }
    all
}

/// One line as one text. `ip xfrm monitor` shows keys although told not to, and how many bits they have.
fn without_key(words: &[&str]) -> String {
    match words {
        [kind @ ("aead" | "enc" | "auth-trunc"), name, _, _, rest @ ..] => {
            let rest = rest.iter().copied().filter(|word| *word != "bits)");
            [*kind, *name].into_iter().chain(rest).collect::<Vec<_>>().join(" ")
        }
        _ => words.join(" "),
    }
}
