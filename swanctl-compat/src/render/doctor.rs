//! `cygnet-doctor`: devices rung by rung, and every line that was looked at.

use ike_model::doctor::{Check, Level};
use ipsec::{Device, DeviceState, OffloadMode, ReplayWindows, Rung};

use crate::vici::Message;

/// The `cygnet-device` event, one for each rung of each device: `DEVICE/MODE { device, state, mode, simulated, algorithms[], modes[], esn, encap,
/// replay-windows[], selectors[], limits[], sa-table, policy-table, marks, interface-ids }`; the mode is `packet`, `crypto` or `software`, a table
/// without a size is bounded by memory only, and the limits are those that the device watches itself.
#[must_use]
pub fn cygnet_device(device: &Device, rung: &Rung) -> Message {
    let has = &rung.capabilities;
    let mode = match rung.mode.mode {
        OffloadMode::Packet => "packet",
        OffloadMode::Crypto => "crypto",
        OffloadMode::No | OffloadMode::Auto => "software",
    };
    let yes = |value: bool| if value { "yes" } else { "no" };
    let mut m = Message::new();
    m.set("device", &*device.name);
    m.set("state", state(device.state));
    m.set("mode", mode);
    m.set_if("simulated", rung.mode.simulated);
    m.list("algorithms", has.algorithms.iter().map(ToString::to_string));
    m.list("modes", named(&[("tunnel", has.tunnel), ("transport", has.transport)]));
    m.set("esn", yes(has.esn));
    m.set("encap", yes(has.udp_encapsulation));
    m.list("replay-windows", windows(&has.replay_windows));
    let selectors = [
        ("ranges", has.selectors.ranges),
        ("ports", has.selectors.ports),
        ("protocols", has.selectors.protocols.is_none()),
    ];
    m.list("selectors", named(&selectors));
    let limits = [("time", has.limits.time), ("bytes", has.limits.bytes), ("packets", has.limits.packets)];
    m.list("limits", named(&limits));
    for (key, size) in [("sa-table", has.sa_table), ("policy-table", has.policy_table)] {
        if let Some(size) = size {
            m.set_display(key, size);
        }
    }
    m.set("marks", yes(has.marks));
    m.set("interface-ids", yes(has.interface_ids));
    let mut message = Message::new();
    message.section(format!("{}/{mode}", device.name), m);
    message
}

fn state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Up => "up",
        DeviceState::Down => "down",
        DeviceState::Gone => "gone",
    }
}

fn named(all: &[(&'static str, bool)]) -> Vec<&'static str> {
    all.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

fn windows(windows: &ReplayWindows) -> Vec<String> {
    match windows {
        ReplayWindows::Range(least, most) => vec!["0".to_owned(), format!("{least}-{most}")],
        ReplayWindows::Only(only) => only.iter().map(ToString::to_string).collect(),
    }
}

/// The `cygnet-check` event: `AREA { area, level, text, fix }`; the level is `ok`, `warning` or `error`, and only the last two have a `fix`.
#[must_use]
pub fn cygnet_check(check: &Check) -> Message {
    let mut m = Message::new();
    m.set("area", check.area);
    m.set("level", check.level.name());
    m.set("text", check.text.as_str());
    if check.level > Level::Ok {
        m.set("fix", check.fix.as_str());
    }
    let mut message = Message::new();
    message.section(check.area, m);
    message
}

/// The answer: how many `errors` and `warnings`.
#[must_use]
pub fn cygnet_doctor(checks: &[Check]) -> Message {
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let mut m = Message::new().with("success", "yes");
    m.set_display("errors", count(Level::Error));
    m.set_display("warnings", count(Level::Warning));
    m
}
