//! The host around the daemon: privileges, ports, forwarding, links, routes, policies, paths, socket and clock.

use super::{Check, Facts, Path, Port, Privileges};

pub(super) fn privileges(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "privilege";
    let Privileges { user, needed, others } = &facts.privileges;
    let names =
        |held: bool| -> Vec<&str> { needed.iter().filter(|(_, has)| *has == held).map(|(name, _)| *name).collect() };
    let missing = names(false);
    let held = match (names(true).join(", "), others) {
        (held, 0) if held.is_empty() => "no capability".to_owned(),
        (held, 0) => format!("{held} and no other capability"),
        (held, others) if held.is_empty() => format!("{others} capabilities, but none of those it needs"),
        (held, others) => format!("{held} and {others} other capabilities"),
    };
    let mut checks = vec![match missing.is_empty() {
        true => Check::ok(AREA, format!("the daemon runs as user {user} with {held}")),
        false => {
            let text = format!("the daemon lacks {}: it runs as user {user} with {held}", missing.join(" and "));
            Check::error(AREA, text, "start it as root or give it the capabilities")
        }
    }];
    checks.extend(facts.unreachable.iter().map(|(text, fix)| Check::warning(AREA, text, fix)));
    checks
}

pub(super) fn ports(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "port";
    let of = |port: &Port| {
        let Port { number, ours, others } = port;
        match (number, ours, others.is_empty()) {
            (0, ..) => {
                Check::warning(AREA, "one of the two IKE ports is off", "set port and nat_port unless that is meant")
            }
            (_, false, _) => Check::error(
                AREA,
                format!("UDP port {number} is not held by the daemon"),
                "see the log of its start and restart it",
            ),
            (_, true, false) => {
                let text = format!("UDP port {number} is also held by {}", others.join(" and "));
                Check::error(AREA, text, "stop the other one: each gets a part of the packets")
            }
            (_, true, true) => Check::ok(AREA, format!("UDP port {number} is ours alone")),
        }
    };
    facts.ports.iter().map(of).collect()
}

pub(super) fn forwarding(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "host";
    let (v4, v6) = facts.forwards;
    let (needs_v4, needs_v6) = facts.needs_forwarding;
    let all = [(needs_v4, v4, "IPv4", "net.ipv4.ip_forward"), (needs_v6, v6, "IPv6", "net.ipv6.conf.all.forwarding")];
    let of = |(_, forwards, family, setting): (bool, bool, &str, &str)| match forwards {
        true => Check::ok(AREA, format!("{family} is forwarded")),
        false => {
            let text = format!("children have {family} selectors wider than this host, and {family} is not forwarded");
            Check::warning(AREA, text, format!("set {setting} = 1, unless only this host is to use the tunnel"))
        }
    };
    all.into_iter().filter(|(needs, ..)| *needs).map(of).collect()
}

//= RFC 4301 §5.2: what arrives protected need not have its way back by the link that ESP came in on
pub(super) fn links(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "host";
    let mut checks = Vec::new();
    let tunnel = facts.tunnel.iter().filter_map(|(_, link)| link.as_ref());
    let all = facts.links.iter().chain(tunnel);
    let strict: Vec<&str> = all.filter(|link| link.reverse_path == 1).map(|link| link.name.as_str()).collect();
    if !strict.is_empty() {
        let links = strict.join(", ");
        checks.push(match facts.reverse_path_drops {
            0 => Check::ok(AREA, format!("strict reverse path filters ({links}) have dropped nothing so far")),
            drops => {
                let text = format!("strict reverse path filters ({links}): {drops} packets came from where routing does not lead back, and were dropped");
                Check::warning(AREA, text, "set net.ipv4.conf.LINK.rp_filter (and that of all) to 2 where ways differ")
            }
        });
    }
    if !facts.redirects.is_empty() {
        let text = format!(
            "this host sends ICMP redirects on {}: hosts may be told to go around the tunnel",
            facts.redirects.join(", ")
        );
        checks.push(Check::warning(AREA, text, "set net.ipv4.conf.LINK.send_redirects (and that of all) to 0"));
    }
    if checks.is_empty() {
        checks.push(Check::ok(AREA, "no strict reverse path filter and no redirects"));
    }
    checks
}

pub(super) fn routing(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "route";
    if !facts.install_routes && facts.kernel.is_some() {
        let text =
            "install_routes = false: this host itself may send from an address outside local_ts, past its tunnels";
        return vec![Check::ok(AREA, text)];
    }
    if !facts.install_routes {
        let fix = "route what is protected into the tunnel device yourself";
        return vec![Check::warning(AREA, "install_routes = false: nothing leads traffic into the tunnel device", fix)];
    }
    let mut checks = Vec::new();
    let (table, foreign) = &facts.table;
    for route in foreign {
        let text = format!("table {table} is ours and holds a route that is not: {route}");
        checks.push(Check::error(AREA, text, "remove it or set another `table` of the backend"));
    }
    let (priority, beside, before) = &facts.rules;
    for rule in beside {
        let text = format!("a rule that is not ours is at our priority {priority} or beside it: {rule}");
        checks.push(Check::error(AREA, text, "give it another priority or set another `rule_priority` of the backend"));
    }
    for rule in before {
        let text = format!("a rule before ours leads everything elsewhere: {rule}");
        checks.push(Check::warning(AREA, text, format!("give it a priority behind {priority}")));
    }
    if checks.is_empty() {
        checks.push(Check::ok(AREA, format!("table {table} and the rules around priority {priority} are ours alone")));
    }
    checks
}

pub(super) fn policies(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "guard";
    let mut checks = Vec::new();
    if !facts.xfrm {
        let text = "the kernel has no XFRM: the guard is made of unreachable routes and does not cover forged packets";
        checks.push(Check::warning(AREA, text, "use a kernel with XFRM, or drop forged packets with a firewall"));
    }
    for policy in &facts.foreign_policies {
        let text = format!("the kernel holds a policy that is not ours: {policy}");
        checks.push(Check::warning(
            AREA,
            text,
            "stop the program that made it, or remove it with `ip xfrm policy delete`",
        ));
    }
    for guard in &facts.unclaimed_guards {
        let text = format!("a guard stands that no loaded connection claims, and its traffic is blocked: {guard}");
        checks.push(Check::warning(
            AREA,
            text,
            "load the connection, or remove it with `ip xfrm policy delete` if its traffic may flow in clear",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::ok(AREA, "every policy in the kernel belongs to a connection that is loaded"));
    }
    checks
}

/// Every IPv6 link carries this (RFC 8200 §5).
const IPV6_MINIMUM: u32 = 1280;

pub(super) fn paths(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "path";
    let of = |path: &Path| {
        let Path { connection, remote, mtu, inner, inner_v6 } = path;
        let text = format!("{connection}: the path to {remote} carries {mtu} octets, {inner} of them inside");
        if *inner_v6 && *inner < IPV6_MINIMUM {
            let text = format!("{text}, less than every IPv6 packet of {IPV6_MINIMUM} needs: ESP goes in fragments");
            return Check::warning(AREA, text, "raise the MTU of the path");
        }
        Check::ok(AREA, text)
    };
    facts.paths.iter().map(of).collect()
}

pub(super) fn vici(facts: &Facts) -> Vec<Check> {
    let mut checks = socket(facts);
    if facts.exports_keys {
        let text = "keys of all SAs are kept, and whoever may use the VICI socket can have them (debug.export_keys)";
        checks.push(Check::warning("vici", text, "set export_keys = false in the table [debug] and restart cygnetd"));
    }
    checks
}

fn socket(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "vici";
    let Some(socket) = &facts.vici else {
        let fix = "somebody has removed it: restart cygnetd";
        return vec![Check::warning(AREA, "the VICI socket cannot be looked at", fix)];
    };
    let (path, mode) = (&socket.path, socket.mode & 0o777);
    if mode & 0o006 != 0 {
        let text = format!("{path} can be used by everybody (mode {mode:o})");
        return vec![Check::error(AREA, text, format!("chmod o= {path}"))];
    }
    vec![Check::ok(AREA, format!("{path} can be used by its owner and group {} (mode {mode:o})", socket.group))]
}

/// No clock that is set shows a time before this: 2024.
const PLAUSIBLE: u64 = 1_704_067_200;

pub(super) fn clock(facts: &Facts) -> Vec<Check> {
    const AREA: &str = "clock";
    let (now, asleep) = facts.clock;
    let mut checks = Vec::new();
    if now < PLAUSIBLE {
        checks.push(Check::warning(
            AREA,
            "the clock is not set: times in events and causes are wrong",
            "set it, by NTP for example",
        ));
    }
    if asleep > 0 {
        let text = format!("this machine was asleep for {asleep} s since it was started; lifetimes go on meanwhile");
        checks.push(Check::ok(AREA, text));
    }
    if checks.is_empty() {
        checks.push(Check::ok(AREA, "the clock is set and the machine has not slept"));
    }
    checks
}
