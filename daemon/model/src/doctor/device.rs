//! Devices of the backend: whether they carry traffic, and how.

use ipsec::preflight::words;
use ipsec::{Capabilities, Device, DeviceState, OffloadMode, ReplayWindows, Rung};

use super::{Check, Facts};

const AREA: &str = "device";

pub(super) fn devices(facts: &Facts) -> Vec<Check> {
    let mut checks: Vec<Check> = facts.devices.devices.iter().map(device).collect();
    if checks.is_empty() {
        checks.push(Check::error(AREA, "the backend has no device", "see the log of cygnetd's start"));
    }
    if let Some((name, link)) = &facts.tunnel {
        checks.push(match link {
            None => Check::error(
                AREA,
                format!("the tunnel device {name} is not there"),
                "cygnetd makes it again; if it does not, see its log",
            ),
            Some(link) if !link.up => {
                Check::error(AREA, format!("the tunnel device {name} is down"), format!("bring {name} up"))
            }
            Some(link) => Check::ok(AREA, format!("the tunnel device {name} is up, its MTU is {}", link.mtu)),
        });
        if !facts.tun_usable {
            let fix = "load the module tun, or let this container have the device";
            checks.push(Check::warning(
                AREA,
                "/dev/net/tun cannot be opened: a lost tunnel device could not be made again",
                fix,
            ));
        }
    }
    checks
}

fn device(device: &Device) -> Check {
    let name = &device.name;
    match device.state {
        DeviceState::Up if device.rungs.is_empty() => Check::ok(AREA, format!("{name} is up")),
        DeviceState::Up => {
            let rungs: Vec<String> = device.rungs.iter().map(rung).collect();
            Check::ok(AREA, format!("{name} is up: {}", rungs.join("; ")))
        }
        DeviceState::Down => {
            Check::error(AREA, format!("{name} is down and carries nothing"), format!("bring {name} up"))
        }
        DeviceState::Gone => {
            Check::error(AREA, format!("{name} was removed"), "bring the device back or restart cygnetd without it")
        }
    }
}

/// What a rung carries; of software, which carries everything there is, its name says enough.
fn rung(rung: &Rung) -> String {
    let name = words::rung(rung.mode.mode);
    let simulated = if rung.mode.simulated { " (simulated)" } else { "" };
    if rung.mode.mode == OffloadMode::No {
        return name.to_owned();
    }
    format!("{name}{simulated} of {}", carried(&rung.capabilities))
}

fn carried(can: &Capabilities) -> String {
    let names: Vec<String> = can.algorithms.iter().map(ToString::to_string).collect();
    let mut parts = vec![names.join(" ")];
    parts.push(
        match (can.tunnel, can.transport) {
            (true, true) => "tunnel and transport mode",
            (true, false) => "tunnel mode only",
            (false, true) => "transport mode only",
            (false, false) => "no mode",
        }
        .to_owned(),
    );
    parts.push(if can.esn { "ESN" } else { "no ESN" }.to_owned());
    parts.push(match &can.replay_windows {
        ReplayWindows::Range(_, most) => format!("replay windows to {most}"),
        ReplayWindows::Only(windows) => {
            let sizes: Vec<String> = windows.iter().map(ToString::to_string).collect();
            format!("replay windows of {}", sizes.join(" "))
        }
    });
    parts.push(if can.udp_encapsulation { "ESP in UDP" } else { "no ESP in UDP" }.to_owned());
    let units = [("packets", can.limits.packets), ("octets", can.limits.bytes)];
    let raised: Vec<&str> = units.into_iter().filter(|(_, raised)| *raised).map(|(unit, _)| unit).collect();
    parts.push(if raised.is_empty() { "no limits".to_owned() } else { format!("limits of {}", raised.join(" and ")) });
    parts.extend(can.sa_table.map(|size| format!("{size} SAs")));
    parts.extend(can.policy_table.map(|size| format!("{size} policies")));
    parts.join(", ")
}
