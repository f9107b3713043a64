//! Steps that the host kernel takes: source, forwarding, the way back, routing, its own policies, and the way to the peer.

use super::facts::{ChildFacts, Facts, Link, Met, NoWay, Outer, Place, Way};
use super::policy::Match;
use super::report::{Code, Direction, Step, StepName};

/// Where an outbound packet comes from.
pub(super) fn source(facts: &Facts) -> Option<Step> {
    const NAME: StepName = StepName::Source;
    let (place, address) = (&facts.host.source, facts.packet.source);
    if place.local {
        return Some(Step::ok(NAME, format!("{address} is an address of this host")));
    }
    if let Some(link) = &place.near {
        return Some(if link.carries() {
            Step::ok(NAME, format!("{address} is on the subnet of {}", link.name))
        } else {
            let text = format!("{address} is on the subnet of {}, and {}", link.name, link.trouble());
            Step::broken(NAME, Code::SourceLinkDown, text, format!("bring {} up", link.name))
        });
    }
    Some(match &place.way {
        Way::Local => Step::ok(NAME, format!("{address} is an address of this host")),
        Way::Out { link, .. } if is_tunnel(facts, link) => {
            Step::note(NAME, format!("{address} is behind {}: it is on the peer's side", link.name))
        }
        Way::Out { .. } => Step::ok(NAME, format!("{address} is behind {}", place.way.words())),
        Way::Nowhere(_) => {
            let text = format!("the way back to {address} leads {}", place.way.words());
            Step::broken(NAME, Code::SourceUnreachable, text, format!("add a route to {address}"))
        }
    })
}

/// Whether a packet that arrives is passed on.
pub(super) fn forwarding(facts: &Facts, direction: Direction) -> Option<Step> {
    const NAME: StepName = StepName::Forwarding;
    let link = arrival(facts, direction)?;
    if link.forwarding {
        return Some(Step::ok(NAME, format!("what arrives on {} is forwarded", link.name)));
    }
    let (text, fix) = if facts.packet.source.is_ipv4() {
        let setting = format!("net.ipv4.conf.{}.forwarding", link.name);
        (format!("{setting} is 0"), format!("set net.ipv4.ip_forward = 1 (or {setting} alone)"))
    } else {
        let setting = "net.ipv6.conf.all.forwarding";
        (format!("{setting} is 0"), format!("set {setting} = 1"))
    };
    let text = format!("this host does not forward what arrives on {}: {text}", link.name);
    Some(Step::broken(NAME, Code::ForwardingOff, text, fix))
}

/// The check of the way back. IPv6 has none.
pub(super) fn reverse_path(facts: &Facts, direction: Direction) -> Option<Step> {
    const NAME: StepName = StepName::ReversePath;
    let address = facts.packet.source;
    let link = match direction {
        Direction::Outbound if facts.host.source.local => return None,
        Direction::Outbound => behind(&facts.host.source)?,
        Direction::Inbound => tunnel(facts)?,
    };
    if !address.is_ipv4() || link.reverse_path == 0 {
        return None;
    }
    let way = &facts.host.source.way;
    let passes = match way {
        Way::Local => true,
        Way::Out { link: back, .. } => link.reverse_path > 1 || back.name == link.name,
        Way::Nowhere(_) => false,
    };
    let refused = facts.host.way == Way::Nowhere(NoWay::ReversePath);
    let kind = if link.reverse_path > 1 { "loose" } else { "strict" };
    if passes && !refused {
        return Some(Step::ok(NAME, format!("the {kind} filter of {} lets {address} pass", link.name)));
    }
    let text =
        format!("{} has a {kind} reverse path filter and the way back to {address} leads {}", link.name, to(way));
    let fix = format!(
        "route {address} to {0} or set net.ipv4.conf.{0}.rp_filter (and that of all) to {1}",
        link.name,
        if link.reverse_path > 1 { 0 } else { 2 }
    );
    Some(Step::broken(NAME, Code::ReversePath, text, fix))
}

/// Where routing leads an outbound packet.
pub(super) fn route(facts: &Facts, found: &Match<'_>) -> Option<Step> {
    const NAME: StepName = StepName::Route;
    let (way, destination) = (&facts.host.way, facts.packet.destination);
    // The check of the way back has a step of its own.
    if *way == Way::Nowhere(NoWay::ReversePath) {
        return None;
    }
    let leads = format!("routing leads {destination} {}{}", to(way), by(way));
    let Some(expected) = facts.host.tunnel.as_ref().filter(|_| found.is_led_into_tunnel()) else {
        return Some(match way {
            Way::Nowhere(reason) if found.is_installed() => refused(leads, reason),
            Way::Local | Way::Out { .. } | Way::Nowhere(_) if found.is_installed() => Step::ok(NAME, leads),
            Way::Local | Way::Out { .. } | Way::Nowhere(_) => {
                Step::note(NAME, format!("{leads}; nothing is installed that leads it into a tunnel"))
            }
        });
    };
    let Some(device) = expected.link.as_ref().filter(|device| device.up) else {
        let what = if expected.link.is_some() { "is down" } else { "is gone" };
        let text = format!("the tunnel device {} {what}", expected.name);
        let fix = "cygnetd makes it again within a second; if it does not, see its log and restart it";
        return Some(Step::broken(NAME, Code::TunnelDeviceDown, text, fix));
    };
    Some(match way {
        Way::Out { link, .. } if link.name == device.name => Step::ok(NAME, leads),
        Way::Nowhere(reason) => refused(leads, reason),
        Way::Local | Way::Out { .. } => {
            let text = format!("{leads} instead of into {}", device.name);
            let fix = "remove the route or rule that comes before ours (see `ip rule` and `cygnet explain`), or route it into the device where install_routes = false";
            Step::broken(NAME, Code::RouteElsewhere, text, fix)
        }
    })
}

fn refused(leads: String, reason: &NoWay) -> Step {
    match reason {
        NoWay::NoRoute => Step::broken(
            StepName::Route,
            Code::NoRoute,
            leads,
            "add a route to it, or let cygnetd do so (install_routes = true)",
        ),
        NoWay::Unreachable | NoWay::Blackhole | NoWay::Prohibited | NoWay::ReversePath | NoWay::Other(_) => {
            let fix = "remove the route or rule that says so (see `ip route get` and `ip rule`)";
            Step::broken(StepName::Route, Code::RouteRefuses, leads, fix)
        }
    }
}

/// A policy of somebody else in the kernel.
pub(super) fn kernel_policy(facts: &Facts) -> Option<Step> {
    let policy = facts.host.foreign_policy.as_ref()?;
    let text = format!("the kernel holds a policy that is not ours and takes the packet: {policy}");
    let fix = "stop the program that made it or remove it with `ip xfrm policy delete`";
    Some(Step::broken(StepName::KernelPolicy, Code::ForeignPolicy, text, fix))
}

/// What the kernel's SPD has of it, where the kernel is the data path.
pub(super) fn kernel_entry(facts: &Facts, found: &Match<'_>) -> Option<Step> {
    const NAME: StepName = StepName::KernelPolicy;
    let met = facts.host.met.as_ref()?;
    let lost = |text: String| {
        let fix =
            "cygnetd puts it back as soon as it notices; if it does not, see its log and load the connection again";
        Step::broken(NAME, Code::PolicyLost, text, fix)
    };
    Some(match (met, found.is_installed()) {
        (Met::Entry(entry, device), _) => {
            let holder = device.as_ref().map_or_else(String::new, |device| format!(", which {device} holds"));
            Step::ok(NAME, format!("it meets this entry of the kernel's{holder}: {entry}"))
        }
        (Met::Exemption(entry), _) => {
            let text = format!("an exemption beside it lets the packet pass in clear: {entry}");
            let fix = "give the child selectors that are no wider than the subnet or hosts that are meant";
            Step::broken(NAME, Code::Exempt, text, fix)
        }
        (Met::Guard(entry), true) => {
            lost(format!("the kernel's entry for it is gone, and the guard takes the packet: {entry}"))
        }
        (Met::Nothing, true) => {
            lost("the kernel has no entry for it: what should be protected goes in clear".to_owned())
        }
        (Met::Guard(entry), false) => {
            Step::note(NAME, format!("while nothing protects it the guard takes it: {entry}"))
        }
        (Met::Nothing, false) => Step::note(NAME, "the kernel has no entry for it: it passes in clear"),
    })
}

/// The way to the peer outside the tunnel.
pub(super) fn outer_path(facts: &Facts, child: &ChildFacts) -> Option<Step> {
    const NAME: StepName = StepName::OuterPath;
    let outer = facts.outer.iter().find(|outer| outer.connection == child.connection.name)?;
    let Outer { local, remote, link, way, .. } = outer;
    if let Some(link) = link.as_ref().filter(|link| !link.carries()) {
        let text = format!("the link to the peer, {}", link.trouble());
        return Some(Step::broken(NAME, Code::OuterLinkDown, text, format!("bring {} up", link.name)));
    }
    if let Some(local) = local.filter(|_| !outer.local_is_ours) {
        let text = format!("{local}, our end of {}, is no address of this host", child.connection.name);
        let fix = "give this host the address or set local_addrs to one that it has";
        return Some(Step::broken(NAME, Code::AddressGone, text, fix));
    }
    let Some(remote) = remote else {
        let text = format!("{} waits for the peer to come: its address is not known", child.connection.name);
        return Some(Step::note(NAME, text));
    };
    Some(match way {
        None => Step::note(NAME, format!("the peer is {remote}")),
        Some(Way::Local) => {
            let text = format!("{remote}, the peer, is an address of this host");
            Step::broken(NAME, Code::NoRouteToPeer, text, "correct remote_addrs")
        }
        Some(Way::Nowhere(reason)) => {
            let way = Way::Nowhere(reason.clone());
            let text = format!("the way to the peer {remote} leads {}", way.words());
            Step::broken(NAME, Code::NoRouteToPeer, text, format!("add a route to {remote}"))
        }
        Some(way @ Way::Out { link, .. }) if link.carries() => {
            Step::ok(NAME, format!("the peer {remote} is reached through {}", way.words()))
        }
        Some(Way::Out { link, .. }) => {
            let text = format!("the way to the peer {remote} leads through {}, and {}", link.name, link.trouble());
            Step::broken(NAME, Code::OuterLinkDown, text, format!("bring {} up", link.name))
        }
    })
}

/// Where an inbound packet is delivered.
pub(super) fn destination(facts: &Facts) -> Step {
    const NAME: StepName = StepName::Destination;
    let (place, address) = (&facts.host.destination, facts.packet.destination);
    if place.local {
        return Step::ok(NAME, format!("{address} is an address of this host"));
    }
    let unreachable =
        |text| Step::broken(NAME, Code::DestinationUnreachable, text, format!("add a route to {address}"));
    match &place.way {
        Way::Local => Step::ok(NAME, format!("{address} is an address of this host")),
        Way::Nowhere(_) => match place.near.as_ref().filter(|link| !link.carries()) {
            Some(link) => link_down(facts, link),
            None => unreachable(format!("routing leads {address} {}", to(&place.way))),
        },
        Way::Out { link, .. } if is_tunnel(facts, link) => {
            unreachable(format!("routing leads {address} back into {}", link.name))
        }
        Way::Out { link, .. } if !link.carries() => link_down(facts, link),
        Way::Out { .. } => Step::ok(NAME, format!("{address} is reached through {}", place.way.words())),
    }
}

fn link_down(facts: &Facts, link: &Link) -> Step {
    let text = format!("{} is behind {}, and {}", facts.packet.destination, link.name, link.trouble());
    Step::broken(StepName::Destination, Code::DestinationLinkDown, text, format!("bring {} up", link.name))
}

/// The link that a packet to be forwarded arrives on.
fn arrival(facts: &Facts, direction: Direction) -> Option<&Link> {
    match direction {
        Direction::Outbound if facts.host.source.local => None,
        Direction::Outbound => behind(&facts.host.source),
        Direction::Inbound if facts.host.destination.local => None,
        // What the kernel takes out of ESP still is of the link that the ESP came by.
        Direction::Inbound => match &facts.host.tunnel {
            Some(tunnel) => tunnel.link.as_ref(),
            None => behind(&facts.host.source),
        },
    }
}

fn behind(place: &Place) -> Option<&Link> {
    place.near.as_ref().or_else(|| place.way.link())
}

fn tunnel(facts: &Facts) -> Option<&Link> {
    facts.host.tunnel.as_ref()?.link.as_ref()
}

fn is_tunnel(facts: &Facts, link: &Link) -> bool {
    facts.host.tunnel.as_ref().is_some_and(|tunnel| tunnel.name == link.name)
}

/// `to wan0`, `nowhere, ...`.
fn to(way: &Way) -> String {
    match way {
        Way::Nowhere(_) => way.words(),
        Way::Local | Way::Out { .. } => format!("to {}", way.words()),
    }
}

fn by(way: &Way) -> String {
    match way {
        Way::Out { table: table @ 1.., .. } => match table {
            254 => " (table main)".to_owned(),
            255 => " (table local)".to_owned(),
            table => format!(" (table {table})"),
        },
        Way::Out { table: 0, .. } | Way::Local | Way::Nowhere(_) => String::new(),
    }
}
