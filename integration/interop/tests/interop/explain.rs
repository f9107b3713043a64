//! `cygnet explain`: what it prints is what is installed, and `ip` takes every line of it.

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::peer::Daemon;
use lab::topology::{Lab, Middle, Side};
use libtest_mimic::Trial;

use crate::harness::{Pair, trial, with_pair};
use crate::{life, peers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("explain::ip_takes_every_line", || {
        with_pair(&Middle::Direct, peers::ours()?, |_, tunnel| tunnel, ip_takes_every_line)
    })]
}

fn explain(daemon: &Daemon<'_>, arguments: &[&str]) -> Result<String> {
    let output = daemon.cygnet(&[&["explain"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

fn ip_takes_every_line(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    let unknown = pair.a.cygnet(&["explain", "nobody"])?;
    ensure!(unknown.status.code() == Some(2), "an unknown connection ends with {}", unknown.status);
    let table = Table::new()?;
    let planned = explain(&pair.a, &["site", "net4"])?;
    ensure!(
        planned.contains("planned") && planned.contains("spi <spi-in> ") && planned.contains("action block"),
        "{planned}"
    );
    table.takes(&planned.replace("<spi-in>", "0x1001").replace("<spi-out>", "0x1002"))?;
    life::establish(pair, Side::A)?;
    for child in life::CHILDREN {
        let text = explain(&pair.a, &["site", child])?;
        let sa = life::installed(pair, Side::A, child)?;
        for spi in [&sa.spi_in, &sa.spi_out] {
            ensure!(text.contains(&format!(" spi 0x{spi} ")), "SPI {spi} of {child} is missing:\n{text}");
        }
        ensure!(text.contains("aead rfc4106(gcm(aes)) <key> 128") && text.contains("installed"), "{text}");
        table.takes(&text)?;
        stands_in_the_kernel(lab, &text)?;
    }
    let json = explain(&pair.a, &["site", "--json"])?;
    let blocks: serde_json::Value = serde_json::from_str(&json)?;
    let blocks = blocks.as_array().context("no array")?;
    ensure!(blocks.len() >= 12 && blocks.iter().all(|block| block.get("commands").is_some()), "{json}");
    Ok(())
}

/// A namespace with links of the gateway's names, in which lines are tried.
struct Table(Namespace);

impl Table {
    fn new() -> Result<Self> {
        let place = Namespace::new("explained")?;
        for (link, address) in [("lan0", "10.1.0.1/24"), ("wan0", "192.0.2.1/24"), ("cygnet0", "192.0.2.77/32")] {
            place.ip(&["link", "add", link, "type", "veth", "peer", "name", &format!("{link}-end")])?;
            place.ip(&["link", "set", link, "up"])?;
            place.ip(&["address", "add", address, "dev", link])?;
        }
        place.ip(&["-6", "address", "add", "2001:db8:1::1/64", "dev", "lan0"])?;
        Ok(Self(place))
    }

    /// Every line is a comment or a command that `ip` understands; what it asks of the kernel is done, except for SAs where the kernel has no ESP.
    fn takes(&self, text: &str) -> Result<()> {
        let mut tried = 0;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
            let command = line.strip_prefix("ip ").with_context(|| format!("no command: {line}"))?;
            // 128 bits of key and 32 of salt.
            let command = command.replace("<key>", &format!("0x{}", "0".repeat(40)));
            let outcome = self.0.ip(&command.split(' ').collect::<Vec<_>>());
            let words = outcome.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            // The kernel has no ESP or no such cipher; what `ip` does not understand it calls an argument that is wrong.
            let by_kernel = words.contains("RTNETLINK answers") || words.contains("algorithm not found");
            // A rule of the last round may be there already, and no kernel has two policies with one selector.
            let there = words.contains("File exists");
            ensure!(
                outcome.is_ok() || there || (command.starts_with("xfrm state") && by_kernel),
                "ip refuses: {line}\n{words}"
            );
            tried += 1;
        }
        ensure!(tried >= 10, "only {tried} commands in:\n{text}");
        self.0.ip(&["xfrm", "policy", "flush"])?;
        Ok(())
    }
}

/// The guard, rules and routes that are printed are those of the kernel.
fn stands_in_the_kernel(lab: &Lab, text: &str) -> Result<()> {
    let gateway = &lab.a.gateway;
    let policies = gateway.ip(&["xfrm", "policy", "list", "nosock"])?;
    let blocks = text.lines().filter(|line| line.contains("action block"));
    let mut found = 0;
    for line in blocks {
        let priority = line.split(" priority ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let priority = priority.with_context(|| format!("no priority: {line}"))?;
        ensure!(policies.contains(&format!("priority {priority}")), "not in the kernel: {line}\n{policies}");
        found += 1;
    }
    ensure!(found >= 3, "{found} blocks in:\n{text}");
    let family = if text.contains("ip -6 route") { "-6" } else { "-4" };
    let routes = gateway.ip(&[family, "route", "show", "table", "220"])?;
    let route = text.lines().find(|line| line.contains("route add") && line.contains("dev cygnet0"));
    let prefix = route.and_then(|line| line.split_whitespace().nth(4)).context("no route into the tunnel device")?;
    ensure!(routes.contains(prefix), "{prefix} is not in:\n{routes}");
    ensure!(text.contains("rule add not from all to all fwmark 0x4347"), "no rule:\n{text}");
    Ok(())
}
