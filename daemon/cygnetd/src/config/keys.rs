//! The one table of every key: its name, when a change applies, and how it is set.

use std::path::PathBuf;
use std::time::Duration;

use ike_model::{FailClosed, KeyExport};
use ipsec::OnStop;
use swanctl_compat::settings::did_you_mean;
use toml::de::DeValue;

use super::http;
use super::nic::{self, LIMITS};
use super::privileges;
use super::value::{addresses, boolean, duration, factor, number, text, word};
use super::vici;
use super::{BackendKind, Config, LogFormat};

/// Sets one key of the configuration.
pub(super) type Set = fn(&mut Config, &DeValue<'_>) -> Result<(), String>;

/// Sections this build has.
pub(super) const SECTIONS: [&str; 14] = [
    "gateway",
    "privileges",
    "ike",
    "backend",
    "backend.userspace",
    LIMITS,
    KERNEL,
    "swanctl",
    "updown",
    "vici",
    HISTORY,
    HTTP,
    "log",
    "debug",
];
const KERNEL: &str = "backend.kernel";
const HISTORY: &str = "history";
const HTTP: &str = "http";
/// Not a section but a list of them.
pub(super) const WEBHOOK: &str = "webhook";

/// Sections that belong to parts a build may not have, with the part's name and whether this one has it.
const PARTS: [(&str, &str, bool); 4] = [
    (HISTORY, "the SA history", HAS_HISTORY),
    (WEBHOOK, "webhooks", HAS_WEBHOOK),
    (HTTP, "the HTTP server", HAS_HTTP),
    (KERNEL, "the kernel backend", HAS_KERNEL),
];
const HAS_KERNEL: bool = cfg!(feature = "kernel");
const HAS_HISTORY: bool = cfg!(feature = "history");
const HAS_WEBHOOK: bool = cfg!(feature = "webhook");
const HAS_HTTP: bool = cfg!(feature = "telemetry");

const PORT_MAX: i64 = 65_535;
const U32_MAX: i64 = u32::MAX as i64;
/// Events per second, or at once.
const RATE_MAX: i64 = 1_000_000;
/// Jobs of one shard; each holds some hundred octets.
const JOBS_MAX: i64 = 65_536;
/// Octets of the spool: the events of some hundred rekeys at least.
const SPOOL_MIN: i64 = 1 << 20;
const SPOOL_MAX: i64 = 1 << 40;
const SPI_RANGE: &str = "cannot be set: SPIs are derived from a table of the backend, from the whole range above 255";

/// Every key. All of them apply at restart; connections and secrets, which apply at reload, are not here.
const KEYS: &[(&str, Set)] = &[
    ("gateway.name", |c, v| text(v).map(|name| c.gateway.name = name.into())),
    ("ike.port", |c, v| number(v, 0, PORT_MAX).map(|port| c.ike.settings.port = port)),
    ("ike.nat_port", |c, v| number(v, 0, PORT_MAX).map(|port| c.ike.settings.nat_port = port)),
    ("ike.listen", |c, v| addresses(v).map(|listen| c.ike.listen = listen)),
    ("ike.shards", |c, v| number(v, 1, 64).map(|shards| c.ike.shards = shards)),
    ("ike.retransmit_timeout", |c, v| duration(v).map(|time| c.ike.settings.retransmit_timeout = time)),
    ("ike.retransmit_base", |c, v| factor(v).map(|base| c.ike.settings.retransmit_base = base)),
    ("ike.retransmit_tries", |c, v| number(v, 0, 100).map(|tries| c.ike.settings.retransmit_tries = tries)),
    ("ike.retransmit_jitter", |c, v| number(v, 0, 20).map(|share| c.ike.settings.retransmit_jitter = share)),
    ("ike.half_open_timeout", |c, v| duration(v).map(|time| c.ike.settings.half_open_timeout = time)),
    ("ike.cookie_threshold", |c, v| number(v, 0, U32_MAX).map(|count| c.ike.settings.cookie_threshold = count)),
    ("ike.init_limit_half_open", |c, v| number(v, 0, U32_MAX).map(|count| c.ike.settings.half_open_limit = count)),
    ("ike.cookie_threshold_ip", |c, v| number(v, 0, U32_MAX).map(|count| c.ike.settings.cookie_threshold_ip = count)),
    ("ike.block_threshold", |c, v| number(v, 0, U32_MAX).map(|count| c.ike.settings.block_threshold = count)),
    ("ike.ikesa_limit", |c, v| number(v, 0, U32_MAX).map(|count| c.ike.settings.ikesa_limit = count)),
    ("ike.init_limit_job_load", |c, v| number(v, 1, JOBS_MAX).map(|count| c.ike.settings.job_limit = count)),
    ("ike.init_rate_ip", |c, v| number(v, 0, RATE_MAX).map(|rate| c.ike.settings.init_rate_ip = rate)),
    ("ike.error_rate", |c, v| number(v, 0, RATE_MAX).map(|rate| c.ike.settings.error_rate = rate)),
    ("ike.peer_request_rate", |c, v| number(v, 0, RATE_MAX).map(|rate| c.ike.settings.peer_request_rate = rate)),
    ("ike.peer_request_burst", |c, v| number(v, 1, RATE_MAX).map(|count| c.ike.settings.peer_request_burst = count)),
    ("ike.peer_create_rate", |c, v| number(v, 0, RATE_MAX).map(|rate| c.ike.settings.peer_create_rate = rate)),
    ("ike.peer_create_burst", |c, v| number(v, 1, RATE_MAX).map(|count| c.ike.settings.peer_create_burst = count)),
    ("ike.keep_alive", |c, v| duration(v).map(|time| c.ike.settings.keep_alive = time)),
    ("ike.delete_rekeyed_delay", |c, v| duration(v).map(|time| c.ike.settings.delete_rekeyed_delay = time)),
    ("ike.replay_window", |c, v| number(v, 0, 4096).map(|packets| c.ike.settings.replay_window = packets)),
    ("ike.fragment_size", |c, v| fragment_size(v).map(|octets| c.ike.settings.fragment_size = octets)),
    ("ike.make_before_break", |c, v| boolean(v).map(|yes| c.ike.settings.make_before_break = yes)),
    ("ike.attempts_per_second", |c, v| number(v, 0, 10_000).map(|count| c.ike.settings.attempts_per_second = count)),
    ("ike.spi_min", |_, _| Err(SPI_RANGE.into())),
    ("ike.spi_max", |_, _| Err(SPI_RANGE.into())),
    ("backend.kind", backend_kind),
    ("backend.on_stop", |c, v| {
        word(v, &[("block", OnStop::Block), ("open", OnStop::Open)]).map(|stop| c.backend.on_stop = stop)
    }),
    ("backend.fail_closed", |c, v| {
        let words = [("always", FailClosed::Always), ("once-up", FailClosed::OnceUp), ("off", FailClosed::Off)];
        word(v, &words).map(|when| c.ike.settings.fail_closed = when)
    }),
    ("backend.check_interval", |c, v| duration(v).map(|time| c.ike.settings.check_interval = time)),
    ("backend.userspace.device", |c, v| device(v).map(|name| c.backend.userspace.device = name)),
    ("backend.userspace.threads", |c, v| number(v, 0, 256).map(|count| c.backend.userspace.threads = count)),
    ("backend.userspace.mtu", |c, v| number(v, 0, PORT_MAX).map(|mtu| c.backend.userspace.mtu = mtu)),
    ("backend.userspace.table", |c, v| number(v, 1, U32_MAX).map(|table| c.backend.userspace.table = table)),
    ("backend.userspace.rule_priority", |c, v| {
        number(v, 1, 32_765).map(|priority| c.backend.userspace.rule_priority = priority)
    }),
    ("backend.userspace.mark", |c, v| number(v, 1, U32_MAX).map(|mark| c.backend.userspace.mark = mark)),
    ("backend.userspace.install_routes", |c, v| boolean(v).map(|yes| c.backend.userspace.install_routes = yes)),
    ("backend.userspace.simulate_packet_device", |c, v| {
        boolean(v).map(|yes| c.backend.userspace.simulate_packet_device = yes)
    }),
    ("backend.userspace.simulated_devices", |c, v| {
        let each_link = word(v, &[("one", false), ("links", true)])?;
        c.backend.userspace.simulation.each_link = each_link;
        Ok(())
    }),
    ("backend.kernel.install_routes", |c, v| boolean(v).map(|yes| c.backend.kernel.install_routes = yes)),
    ("backend.kernel.table", |c, v| number(v, 1, U32_MAX).map(|table| c.backend.kernel.table = table)),
    ("backend.kernel.rule_priority", |c, v| {
        number(v, 1, 32_765).map(|priority| c.backend.kernel.rule_priority = priority)
    }),
    ("backend.kernel.mark", |c, v| number(v, 1, U32_MAX).map(|mark| c.backend.kernel.mark = mark)),
    ("backend.kernel.hold_packets", |c, v| boolean(v).map(|yes| c.backend.kernel.hold_packets = yes)),
    ("backend.kernel.journal", |c, v| journal(v).map(|path| c.backend.kernel.journal = path)),
    ("swanctl.directory", |c, v| text(v).map(|path| c.swanctl.directory = path.into())),
    ("swanctl.load", |c, v| boolean(v).map(|yes| c.swanctl.load = yes)),
    ("updown.time_limit", |c, v| script_time(v).map(|time| c.updown.time = time)),
    ("updown.at_once", |c, v| number(v, 1, 256).map(|count| c.updown.at_once = count)),
    ("history.url", |c, v| history_url(v).map(|url| c.history.url = url)),
    ("history.retain_days", |c, v| number(v, 0, 36_500).map(|days| c.history.retain_days = days)),
    ("history.retain_rows", |c, v| number(v, 0, i64::MAX).map(|rows| c.history.retain_rows = rows)),
    ("history.spool", |c, v| text(v).map(|path| c.history.spool = path.into())),
    ("history.spool_size", |c, v| number(v, SPOOL_MIN, SPOOL_MAX).map(|octets| c.history.spool_size = octets)),
    ("history.fsync", |c, v| boolean(v).map(|yes| c.history.fsync = yes)),
    ("debug.export_keys", |c, v| {
        boolean(v).map(|yes| c.ike.settings.key_export = yes.then(KeyExport::permitted_in_settings))
    }),
    ("log.level", |c, v| log_level(v).map(|level| c.log.level = level)),
    ("log.format", |c, v| {
        let formats = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journald", LogFormat::Journald),
        ];
        word(v, &formats).map(|format| c.log.format = format)
    }),
];

/// The setter of a key by its dotted name.
pub(super) fn find(path: &str) -> Option<Set> {
    all().find(|(name, _)| *name == path).map(|(_, set)| *set)
}

/// Dotted names of all keys.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|(name, _)| *name)
}

fn all() -> impl Iterator<Item = &'static (&'static str, Set)> {
    KEYS.iter().chain(privileges::KEYS).chain(nic::KEYS).chain(vici::KEYS).chain(http::KEYS)
}

/// Why a section cannot be used, when it belongs to a part that is not in this build.
pub(super) fn absent(path: &str) -> Option<String> {
    let missing = PARTS.iter().find(|(name, _, there)| *name == path && !there);
    missing.map(|(name, part, _)| format!("[{name}]: this build does not have {part}"))
}

/// What to say of an unknown section.
pub(super) fn unknown_section(path: &str) -> String {
    let hint = did_you_mean(path, SECTIONS).map(|name| format!("; did you mean [{name}]?"));
    let list = did_you_mean(path, [WEBHOOK]).map(|name| format!("; did you mean [[{name}]]?"));
    let hint = hint.or(list).unwrap_or_default();
    format!("unknown section [{path}]{hint}")
}

/// What to say of a key outside of any section.
pub(super) fn stray_key(key: &str) -> String {
    let suffix = format!(".{key}");
    match all().find_map(|(name, _)| name.strip_suffix(&suffix)) {
        Some(section) => format!("`{key}` stands outside of any section; it belongs to [{section}]"),
        None => format!("unknown key `{key}`, and it stands outside of any section"),
    }
}

/// What to say of an unknown key in a known section.
pub(super) fn unknown_key(section: &str, key: &str) -> String {
    let prefix = format!("{section}.");
    let known = all().filter_map(|(name, _)| name.strip_prefix(&prefix)).filter(|name| !name.contains('.'));
    let hint = did_you_mean(key, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("unknown key `{key}` in [{section}]{hint}")
}

/// What only several keys together can get wrong.
pub(super) fn cross_check(config: &Config) -> Result<(), String> {
    let settings = &config.ike.settings;
    let (port, nat_port) = (settings.port, settings.nat_port);
    if port == 0 && nat_port == 0 {
        return Err("ike.port and ike.nat_port are both off: nothing could ever be negotiated".into());
    }
    if port == nat_port {
        return Err(format!("ike.port and ike.nat_port are both {port}: IKE needs two different ports"));
    }
    if config.has_webhooks() && config.history.url.is_empty() {
        return Err(
            "[[webhook]] needs the history, where messages wait until they are delivered, but history.url is empty"
                .into(),
        );
    }
    if config.backend.kind == BackendKind::Kernel && config.backend.userspace.simulate_packet_device {
        return Err(
            "backend.userspace.simulate_packet_device needs backend.kind = \"userspace\": the kernel has real devices"
                .into(),
        );
    }
    http::cross_check(&config.http)?;
    nic::cross_check(config)
}

fn backend_kind(config: &mut Config, value: &DeValue<'_>) -> Result<(), String> {
    let kinds = [("userspace", BackendKind::Userspace), ("kernel", BackendKind::Kernel), ("auto", BackendKind::Auto)];
    let kind = word(value, &kinds)?;
    if kind == BackendKind::Kernel && !HAS_KERNEL {
        return Err("cannot be `kernel`: this build does not have the kernel backend".into());
    }
    config.backend.kind = kind;
    Ok(())
}

/// An absolute path, or nothing.
fn journal(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    if path.is_empty() || path.starts_with('/') {
        return Ok(path.into());
    }
    Err(format!("must be an absolute path, or empty for none, not `{path}`"))
}

/// Smallest IP datagram in which a fragment says anything worth its headers, whatever the cipher.
const FRAGMENT_MIN: i64 = 256;

fn fragment_size(value: &DeValue<'_>) -> Result<u16, String> {
    number(value, 0, PORT_MAX)
        .ok()
        .filter(|octets| *octets == 0 || i64::from(*octets) >= FRAGMENT_MIN)
        .ok_or_else(|| format!("must be 0 or a whole number from {FRAGMENT_MIN} to {PORT_MAX}"))
}

fn script_time(value: &DeValue<'_>) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(3_600);
    let time = duration(value)?;
    if (Duration::from_millis(100)..=LONGEST).contains(&time) {
        return Ok(time);
    }
    Err("must be a time from \"100ms\" to \"1h\"".into())
}

/// An interface name as the kernel takes it.
fn device(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.chars().all(fits) {
        return Err(format!("is no interface name: `{name}` (1 to 15 printable characters, no blank, `/` or `:`)"));
    }
    Ok(name.into())
}

/// Empty = no history.
fn history_url(value: &DeValue<'_>) -> Result<String, String> {
    let url = text(value)?;
    #[cfg(feature = "history")]
    if !url.is_empty() {
        sa_history::check_url(url)?;
    }
    Ok(url.into())
}

fn log_level(value: &DeValue<'_>) -> Result<String, String> {
    let level = text(value)?;
    tracing_subscriber::EnvFilter::builder()
        .parse(level)
        .map(|_| level.into())
        .map_err(|error| format!("is no log filter: {error}; such as `info` or `info,ike_sa=debug`"))
}
