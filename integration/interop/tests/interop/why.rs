//! `cygnet why`: in gateways that are broken in one way each it names the first broken step, and in a sound one it says so.
//!
//! The cases of one trial share a lab: each breaks it, asks, mends it, and asks again, so that what is said is said because of what is broken.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::peer::Daemon;
use lab::peer::conf::{Child, Tunnel};
use lab::peer::cygnet::Cygnet;
use lab::topology::{Family, Lab, Middle, Side};
use lab::traffic::ping;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Pair, trial};
use crate::life;

/// Requests are repeated soon, so that a silent peer is seen as one.
const IMPATIENT: &str = "[ike]\nretransmit_timeout = \"500ms\"\n";
/// Host A to host B.
const OUT: [&str; 2] = ["10.1.0.10", "10.2.0.10"];
/// Host B to host A.
const BACK: [&str; 2] = ["10.2.0.10", "10.1.0.10"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("why::tunnel_that_is_up", tunnel_that_is_up),
        trial("why::tunnel_that_is_not_up", tunnel_that_is_not_up),
        trial("why::without_our_routes", without_our_routes),
    ]
}

type Change = fn(&Lab, &mut Pair<'_>) -> Result<()>;

/// A way to break a gateway, and what is to be said of it.
struct Broken {
    name: &'static str,
    breaks: Change,
    mends: Change,
    asks: &'static [&'static str],
    step: &'static str,
    code: &'static str,
    says: &'static [&'static str],
}

/// Exit code and the answer as JSON; the answer as text has the same sentence.
fn why(daemon: &Daemon<'_>, asks: &[&str]) -> Result<(i32, Value)> {
    let run = |more: &[&str]| daemon.cygnet(&[&["why"], asks, more].concat());
    let output = run(&["--json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = serde_json::from_str(&text)
        .with_context(|| format!("no JSON: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().unwrap_or(-1), answer))
}

fn is_delivered(daemon: &Daemon<'_>, asks: &[&str]) -> Result<()> {
    let (code, answer) = why(daemon, asks)?;
    ensure!(code == 0 && answer.get("delivered") == Some(&Value::Bool(true)), "{asks:?} ends with {code}: {answer:#}");
    Ok(())
}

fn check(lab: &Lab, pair: &mut Pair<'_>, case: &Broken) -> Result<()> {
    (case.breaks)(lab, pair).with_context(|| format!("breaking: {}", case.name))?;
    let outcome = life::settle("the reason is told", || expect(&pair.a, case).map(|()| true));
    (case.mends)(lab, pair).with_context(|| format!("mending: {}", case.name))?;
    outcome.with_context(|| case.name.to_owned())
}

fn expect(daemon: &Daemon<'_>, case: &Broken) -> Result<()> {
    let (code, answer) = why(daemon, case.asks)?;
    ensure!(code == 1, "ends with {code}: {answer:#}");
    let said = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    ensure!((said("broken"), said("code")) == (case.step, case.code), "{answer:#}");
    let sentence = said("sentence");
    for piece in case.says {
        ensure!(sentence.contains(piece), "no '{piece}' in: {sentence}");
    }
    let text = daemon.cygnet(&[&["why"], case.asks].concat())?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    ensure!(last.starts_with(&format!("Broken at {}: ", case.step)), "the text ends with: {last}");
    Ok(())
}

fn start<'lab>(lab: &'lab Lab, extra: &str, tunnel: impl Fn(Side) -> Tunnel) -> Result<Pair<'lab>> {
    let cygnet = Cygnet { extra: extra.into(), log: String::new() };
    Pair::start(lab, [&cygnet, &cygnet], tunnel)
}

fn pings(lab: &Lab, count: u16) -> Result<u16> {
    let (from, to) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    ping::ping(&lab.a.host, from, to, count, Duration::from_millis(300))
}

fn carries(lab: &Lab) -> Result<bool> {
    let (from, to) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
    Ok(ping::ping(&lab.a.host, from, to, 3, ping::PATIENCE)? == 3)
}

fn nothing(_: &Lab, _: &mut Pair<'_>) -> Result<()> {
    Ok(())
}

fn a(lab: &Lab, arguments: &str) -> Result<()> {
    lab.a.gateway.ip(&arguments.split_whitespace().collect::<Vec<_>>()).map(drop)
}

fn tunnel_that_is_up() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let mut pair = start(&lab, IMPATIENT, |side| {
        let mut tunnel = Tunnel::between(&lab, side, Family::V4);
        if side == Side::A {
            tunnel.options.push("dpd_delay = 1s".into());
        }
        tunnel
    })?;
    pair.check(|pair| {
        life::establish(pair, Side::A)?;
        ensure!(carries(&lab)?, "the tunnel does not carry traffic to begin with");
        for asks in [&OUT[..], &BACK, &["10.1.0.1", "10.2.0.10", "tcp:443"], &["2001:db8:1::10", "2001:db8:2::10"]] {
            is_delivered(&pair.a, asks)?;
        }
        for case in &UP {
            check(&lab, pair, case)?;
            if case.name != "the outer link is down" {
                is_delivered(&pair.a, &OUT).with_context(|| format!("after: {}", case.name))?;
            }
        }
        Ok(())
    })
}

const UP: [Broken; 12] = [
    Broken {
        name: "no forwarding",
        breaks: |lab, _| lab.a.gateway.sysctl("net/ipv4/ip_forward", "0"),
        mends: |lab, _| lab.a.gateway.sysctl("net/ipv4/ip_forward", "1"),
        asks: &OUT,
        step: "forwarding",
        code: "forwarding-off",
        says: &["lan0", "net.ipv4.ip_forward = 1"],
    },
    Broken {
        name: "no forwarding of IPv6",
        breaks: |lab, _| lab.a.gateway.sysctl("net/ipv6/conf/all/forwarding", "0"),
        mends: |lab, _| lab.a.gateway.sysctl("net/ipv6/conf/all/forwarding", "1"),
        asks: &["2001:db8:1::10", "2001:db8:2::10"],
        step: "forwarding",
        code: "forwarding-off",
        says: &["net.ipv6.conf.all.forwarding = 1"],
    },
    Broken {
        name: "a strict reverse path filter",
        breaks: |lab, _| {
            lab.a.gateway.sysctl("net/ipv4/conf/lan0/rp_filter", "1")?;
            a(lab, "route add 10.1.0.10/32 dev wan0")
        },
        mends: |lab, _| {
            a(lab, "route del 10.1.0.10/32 dev wan0")?;
            lab.a.gateway.sysctl("net/ipv4/conf/lan0/rp_filter", "0")
        },
        asks: &OUT,
        step: "reverse-path",
        code: "reverse-path",
        says: &["lan0 has a strict reverse path filter", "wan0"],
    },
    Broken {
        name: "selectors that do not hold the destination",
        breaks: nothing,
        mends: nothing,
        asks: &["10.1.0.10", "10.9.0.10"],
        step: "policy",
        code: "no-policy",
        says: &["site/net4", "remote_ts 10.2.0.0/24 does not hold 10.9.0.10"],
    },
    Broken {
        name: "a rule of somebody else that leads past the tunnel",
        breaks: |lab, _| {
            a(lab, "route add 10.2.0.0/24 via 192.0.2.2 table 99")?;
            a(lab, "rule add to 10.2.0.0/24 lookup 99 priority 100")
        },
        mends: |lab, _| {
            a(lab, "rule del to 10.2.0.0/24 lookup 99 priority 100")?;
            a(lab, "route flush table 99")
        },
        asks: &OUT,
        step: "route",
        code: "route-elsewhere",
        says: &["wan0 via 192.0.2.2 (table 99)", "instead of into cygnet0"],
    },
    Broken {
        name: "a route that refuses",
        breaks: |lab, _| {
            a(lab, "route add blackhole 10.2.0.0/24 table 99")?;
            a(lab, "rule add to 10.2.0.0/24 lookup 99 priority 100")
        },
        mends: |lab, _| {
            a(lab, "rule del to 10.2.0.0/24 lookup 99 priority 100")?;
            a(lab, "route flush table 99")
        },
        asks: &OUT,
        step: "route",
        code: "route-refuses",
        says: &["blackhole"],
    },
    Broken {
        name: "a kernel policy of somebody else",
        breaks: |lab, _| a(lab, "xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir fwd action block priority 1"),
        mends: |lab, _| a(lab, "xfrm policy del src 10.1.0.0/24 dst 10.2.0.0/24 dir fwd"),
        asks: &OUT,
        step: "kernel-policy",
        code: "foreign-policy",
        says: &["src 10.1.0.0/24 dst 10.2.0.0/24 dir fwd"],
    },
    Broken {
        name: "a drop shunt in the way",
        breaks: |lab, pair| {
            let mut shunts = Tunnel::between(lab, Side::A, Family::V4);
            shunts.name = "shunts".into();
            let (local_ts, remote_ts) = ("10.1.0.0/24".into(), "10.2.0.10/32".into());
            let options = vec!["mode = drop".into(), "start_action = trap".into()];
            let esp_proposals = "aes128gcm16".into();
            shunts.children = vec![Child { name: "no".into(), local_ts, remote_ts, esp_proposals, options }];
            let mut tunnel = Tunnel::between(lab, Side::A, Family::V4);
            tunnel.options.push("dpd_delay = 1s".into());
            pair.a.write_tunnels(&[tunnel, shunts])?;
            pair.a.load().map(drop)
        },
        mends: |lab, pair| {
            let mut tunnel = Tunnel::between(lab, Side::A, Family::V4);
            tunnel.options.push("dpd_delay = 1s".into());
            pair.a.write_tunnels(&[tunnel])?;
            pair.a.load().map(drop)
        },
        asks: &OUT,
        step: "policy",
        code: "drop-shunt",
        says: &["the drop shunt shunts/no", "before site/net4"],
    },
    Broken {
        name: "a path that is too narrow",
        breaks: |lab, _| a(lab, "link set wan0 mtu 1300"),
        mends: |lab, _| a(lab, "link set wan0 mtu 1500"),
        asks: &["10.1.0.10", "10.2.0.10", "--size", "1400"],
        step: "size",
        code: "too-large",
        says: &["1400 octets do not fit, 1246 is the most", "1300"],
    },
    Broken {
        name: "ESP of the peer is blocked",
        breaks: |lab, pair| {
            let rules = lab.directory().join("block.nft");
            fs::write(
                &rules,
                "table ip block {\n chain input {\n  type filter hook input priority 0;\n  ip protocol esp drop\n }\n}\n",
            )?;
            lab.a.gateway.command("nft", &["-f", &rules.to_string_lossy()])?;
            // New SAs begin to count at zero.
            life::rekey_child(pair, Side::A, "net4")?;
            ensure!(pings(lab, 4)? == 0, "ESP is not blocked");
            Ok(())
        },
        mends: |lab, _| {
            lab.a.gateway.command("nft", &["delete", "table", "ip", "block"])?;
            ensure!(carries(lab)?, "ESP is still blocked");
            Ok(())
        },
        asks: &OUT,
        step: "counters",
        code: "one-way",
        says: &["in 0 packets", "IP protocol 50"],
    },
    Broken {
        name: "the peer is down",
        breaks: |_, pair| {
            pair.b.process().signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(1_500));
            Ok(())
        },
        mends: |lab, pair| {
            pair.b.process().signal(Signal::CONT)?;
            life::settle("the peer answers again", || {
                let (code, _) = why(&pair.a, &OUT)?;
                Ok(pings(lab, 1)? == 1 && code == 0)
            })
        },
        asks: &OUT,
        step: "peer",
        code: "peer-unreachable",
        says: &["192.0.2.2 was last heard", "UDP 500 and 4500"],
    },
    Broken {
        name: "the outer link is down",
        breaks: |lab, _| a(lab, "link set wan0 down"),
        mends: |lab, _| a(lab, "link set wan0 up"),
        asks: &OUT,
        step: "outer-path",
        code: "outer-link-down",
        says: &["wan0 is down", "bring wan0 up"],
    },
];

/// Both ends with their tunnel, B's changed.
fn load(lab: &Lab, pair: &mut Pair<'_>, change: impl Fn(Side, &mut Tunnel)) -> Result<()> {
    for side in [Side::A, Side::B] {
        let mut tunnel = Tunnel::between(lab, side, Family::V4);
        change(side, &mut tunnel);
        pair.side(side).write_tunnels(&[tunnel])?;
        pair.side(side).load()?;
    }
    Ok(())
}

/// As they were.
fn reload(lab: &Lab, pair: &mut Pair<'_>) -> Result<()> {
    load(lab, pair, |_, _| ())
}

fn initiate(pair: &Pair<'_>) -> bool {
    pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "4"]).is_ok()
}

fn refused(lab: &Lab, pair: &mut Pair<'_>, change: impl Fn(Side, &mut Tunnel)) -> Result<()> {
    load(lab, pair, change)?;
    ensure!(!initiate(pair), "it came up");
    Ok(())
}

fn first(tunnel: &mut Tunnel) -> Result<&mut Child> {
    tunnel.children.first_mut().context("a child")
}

fn tunnel_that_is_not_up() -> Result<()> {
    let lab = Lab::new(&Middle::Router)?;
    let extra = format!("{IMPATIENT}retransmit_tries = 1\n");
    let mut pair = start(&lab, &extra, |side| Tunnel::between(&lab, side, Family::V4))?;
    pair.check(|pair| {
        for case in &NOT_UP {
            check(&lab, pair, case)?;
        }
        Ok(())
    })
}

const NOT_UP: [Broken; 8] = [
    Broken {
        name: "nothing starts it",
        breaks: nothing,
        mends: nothing,
        asks: &OUT,
        step: "child",
        code: "not-started",
        says: &["site/net4", "swanctl --initiate --child net4"],
    },
    Broken {
        name: "no answer from the peer",
        breaks: |_, pair| {
            pair.b.process().signal(Signal::STOP)?;
            ensure!(!initiate(pair), "a stopped peer answered");
            Ok(())
        },
        mends: |_, pair| pair.b.process().signal(Signal::CONT),
        asks: &OUT,
        step: "child",
        code: "peer-unreachable",
        says: &["198.51.100.1", "UDP 500 and 4500"],
    },
    Broken {
        name: "no route to the peer",
        breaks: |lab, _| a(lab, "route del default"),
        mends: |lab, _| a(lab, "route add default via 192.0.2.254"),
        asks: &OUT,
        step: "outer-path",
        code: "no-route-to-peer",
        says: &["198.51.100.1", "no route"],
    },
    Broken {
        name: "another secret",
        breaks: |lab, pair| {
            refused(lab, pair, |side, tunnel| {
                if side == Side::B {
                    tunnel.secret = "something else".into();
                }
            })
        },
        mends: reload,
        asks: &OUT,
        step: "child",
        code: "authentication-failed",
        says: &["the same secret", "gw-a.example and gw-b.example"],
    },
    Broken {
        name: "no proposal in common",
        breaks: |lab, pair| {
            refused(lab, pair, |side, tunnel| {
                if side == Side::B {
                    tunnel.proposals = "aes256-sha384-prfsha384-ecp384".into();
                }
            })
        },
        mends: reload,
        asks: &OUT,
        step: "child",
        code: "no-proposal",
        says: &["esp_proposals"],
    },
    Broken {
        name: "no selectors in common",
        breaks: |lab, pair| {
            refused(lab, pair, |side, tunnel| {
                if let (Side::B, Ok(child)) = (side, first(tunnel)) {
                    child.local_ts = "10.77.0.0/24".into();
                }
            })
        },
        mends: reload,
        asks: &OUT,
        step: "child",
        code: "selectors-unacceptable",
        says: &["mirror each other"],
    },
    Broken {
        name: "narrowed by the peer",
        breaks: |lab, pair| {
            load(lab, pair, |side, tunnel| {
                if let (Side::B, Ok(child)) = (side, first(tunnel)) {
                    child.local_ts = "10.2.0.77/32".into();
                }
            })?;
            ensure!(initiate(pair), "it did not come up");
            is_delivered(&pair.a, &["10.1.0.10", "10.2.0.77"])
        },
        mends: |lab, pair| {
            // B may have a half-open IKE SA of the time when it was stopped.
            pair.a.swanctl(&["--terminate", "--ike", "site", "--timeout", "30"])?;
            reload(lab, pair)
        },
        asks: &OUT,
        step: "policy",
        code: "narrowed",
        says: &["10.2.0.77/32", "let the peer's selectors hold 10.2.0.10"],
    },
    Broken {
        name: "a hard limit",
        breaks: |lab, pair| {
            load(lab, pair, |side, tunnel| {
                if let (Side::A, Ok(child)) = (side, first(tunnel)) {
                    child.options.extend(["life_packets = 5".into(), "rekey_packets = 0".into()]);
                }
            })?;
            ensure!(initiate(pair), "it did not come up");
            ensure!(pings(lab, 8)? < 8, "the limit was not reached");
            life::settle("the child is gone", || Ok(pair.a.sas()?.iter().all(|sa| sa.installed("net4").is_none())))
        },
        mends: reload,
        asks: &OUT,
        step: "child",
        code: "hard-expired",
        says: &["limit", "rekey_packets"],
    },
];

/// Whoever asks for no routes has to make them.
fn without_our_routes() -> Result<()> {
    let lab = Lab::new(&Middle::Direct)?;
    let extra = "[backend.userspace]\ninstall_routes = false\n";
    let mut pair = start(&lab, extra, |side| Tunnel::between(&lab, side, Family::V4))?;
    pair.check(|pair| {
        life::establish(pair, Side::A)?;
        for case in &NO_ROUTES {
            check(&lab, pair, case)?;
        }
        a(&lab, "route add 10.2.0.0/24 dev cygnet0")?;
        is_delivered(&pair.a, &OUT)
    })
}

const NO_ROUTES: [Broken; 2] = [
    Broken {
        name: "the default route",
        breaks: nothing,
        mends: nothing,
        asks: &OUT,
        step: "route",
        code: "route-elsewhere",
        says: &["wan0 via 192.0.2.2 (table main)", "install_routes = false"],
    },
    Broken {
        name: "no route at all",
        breaks: |lab, _| a(lab, "route del default"),
        mends: |lab, _| a(lab, "route add default via 192.0.2.2"),
        asks: &OUT,
        step: "route",
        code: "no-route",
        says: &["there is no route"],
    },
];
