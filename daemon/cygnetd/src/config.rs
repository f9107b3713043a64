//! `cygnetd.toml`: the daemon's own settings, as values after defaults.
//!
//! Connections and secrets are not here: they come from swanctl.conf. [`load`] reads the file and its drop-ins; [`keys`] holds the one
//! table of every key.

mod file;
pub(crate) mod http;
mod keys;
mod nic;
pub(crate) mod privileges;
mod value;
pub(crate) mod vici;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use ike_model::IkeSettings;
use ipsec::OnStop;
use offload_userspace::nic::Simulation;
use serde::Serialize;

use crate::updown::Limits;

pub(crate) use file::{files, load};
pub(crate) use http::Http;
pub(crate) use privileges::Privileges;
pub(crate) use vici::Vici;

/// Where the settings are looked for unless `--config` names a file.
pub(crate) const DEFAULT_PATH: &str = "/etc/cygnet/cygnetd.toml";

/// Where the history is kept unless another place is named.
const HISTORY_URL: &str = "sqlite:///var/lib/cygnet/history.db";

/// All settings of the daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    /// `[gateway]`
    pub(crate) gateway: Gateway,
    /// `[privileges]`
    pub(crate) privileges: Privileges,
    /// `[ike]`
    pub(crate) ike: Ike,
    /// `[backend]`
    pub(crate) backend: Backend,
    /// `[updown]`
    pub(crate) updown: Limits,
    /// `[swanctl]`
    pub(crate) swanctl: Swanctl,
    /// `[vici]`
    pub(crate) vici: Vici,
    /// `[history]`
    pub(crate) history: History,
    /// `[http]`
    pub(crate) http: Http,
    /// `[[webhook]]`
    #[cfg(feature = "webhook")]
    pub(crate) webhooks: Vec<webhook::Webhook>,
    /// `[log]`
    pub(crate) log: Log,
}

impl Config {
    /// There are webhooks, which need a history.
    pub(crate) fn has_webhooks(&self) -> bool {
        #[cfg(feature = "webhook")]
        return !self.webhooks.is_empty();
        #[cfg(not(feature = "webhook"))]
        false
    }
}

/// `[gateway]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Name in every event; empty = host name.
    pub(crate) name: String,
}

/// `[ike]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ike {
    /// What the core is told.
    pub(crate) settings: IkeSettings,
    /// Local addresses; empty = all.
    pub(crate) listen: Vec<IpAddr>,
    /// Endpoints working side by side.
    pub(crate) shards: u8,
}

impl Default for Ike {
    fn default() -> Self {
        let settings = IkeSettings::default();
        Self { settings, listen: Vec::new(), shards: 1 }
    }
}

/// Which data path carries ESP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// Our own, behind a TUN device.
    #[default]
    Userspace,
    /// The Linux kernel's.
    Kernel,
    /// The kernel's where it has ESP and this build knows it, else our own.
    Auto,
}

/// `[backend]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Which data path.
    pub(crate) kind: BackendKind,
    /// What becomes of the guards when the daemon stops.
    pub(crate) on_stop: OnStop,
    /// `[backend.userspace]`
    pub(crate) userspace: Userspace,
    /// `[backend.kernel]`
    pub(crate) kernel: Kernel,
}

/// `[backend.kernel]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Keep routes that choose the source address of protected traffic.
    pub(crate) install_routes: bool,
    /// Routing table for them.
    pub(crate) table: u32,
    /// Preference of the rule that leads there.
    pub(crate) rule_priority: u32,
    /// Mark of our IKE sockets, where there are routes.
    pub(crate) mark: u32,
    /// The kernel keeps packets that wait for an SA.
    pub(crate) hold_packets: bool,
    /// Where it is written down which SAs are ours; empty = nowhere.
    pub(crate) journal: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            install_routes: true,
            table: 220,
            rule_priority: 220,
            mark: 0x4347,
            hold_packets: true,
            journal: "/run/cygnet/kernel.journal".into(),
        }
    }
}

/// `[backend.userspace]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Userspace {
    /// Name of the TUN device.
    pub(crate) device: String,
    /// Threads; 0 = one per core.
    pub(crate) threads: u16,
    /// MTU of the TUN device; 0 = derived.
    pub(crate) mtu: u16,
    /// Routing table for protected routes.
    pub(crate) table: u32,
    /// Preference of the rule that leads there.
    pub(crate) rule_priority: u32,
    /// Mark of our outer sockets.
    pub(crate) mark: u32,
    /// Keep routes for protected traffic.
    pub(crate) install_routes: bool,
    /// Pose as NICs with packet offload; for tests.
    pub(crate) simulate_packet_device: bool,
    /// Which NICs, and `[backend.userspace.limits]`; without meaning unless simulated.
    pub(crate) simulation: Simulation,
}

impl Default for Userspace {
    fn default() -> Self {
        Self {
            device: "cygnet0".into(),
            threads: 0,
            mtu: 0,
            table: 220,
            rule_priority: 220,
            mark: 0x4347,
            install_routes: true,
            simulate_packet_device: false,
            simulation: Simulation::default(),
        }
    }
}

/// `[swanctl]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swanctl {
    /// Directory of `swanctl.conf`.
    pub(crate) directory: PathBuf,
    /// Load it at start and on SIGHUP.
    pub(crate) load: bool,
}

impl Default for Swanctl {
    fn default() -> Self {
        Self { directory: "/etc/swanctl".into(), load: true }
    }
}

/// `[history]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// `sqlite:///PATH` or `postgres://...`; empty = no history.
    pub(crate) url: String,
    /// Days for which what has ended is kept; 0 = for ever.
    pub(crate) retain_days: u32,
    /// Rows of each kind that are kept; 0 = any number.
    pub(crate) retain_rows: u64,
    /// Directory of the spool; empty = beside the SQLite file, and in `/var/lib/cygnet` for PostgreSQL.
    pub(crate) spool: PathBuf,
    /// Octets that the spool may take.
    pub(crate) spool_size: u64,
    /// Have events reach the disk before what they describe is let out.
    pub(crate) fsync: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            url: HISTORY_URL.into(),
            retain_days: 90,
            retain_rows: 0,
            spool: PathBuf::new(),
            spool_size: 64 << 20,
            fsync: false,
        }
    }
}

impl History {
    /// It is somebody's choice: not to be able to use it is an error.
    pub(crate) fn is_chosen(&self) -> bool {
        self.url != HISTORY_URL
    }

    /// Directory of the spool.
    #[cfg(any(feature = "history", test))]
    pub(crate) fn spool(&self) -> PathBuf {
        if !self.spool.as_os_str().is_empty() {
            return self.spool.clone();
        }
        let file = self.url.strip_prefix("sqlite://").map(PathBuf::from);
        let directory = file.and_then(|file| file.parent().map(PathBuf::from));
        directory.unwrap_or_else(|| "/var/lib/cygnet".into()).join("spool")
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// The journal where standard error leads there, else text.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// Entries of the systemd journal, with their fields.
    Journald,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// A tracing filter.
    pub(crate) level: String,
    /// Form of the lines.
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

/// Something wrong in a settings file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The file.
    pub(crate) file: String,
    /// Line from 1; 0 when the file as a whole is meant.
    pub(crate) line: usize,
    /// Column from 1; 0 when the file as a whole is meant.
    pub(crate) column: usize,
    /// What is wrong and what was expected.
    pub(crate) message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: error: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: error: {}", self.file, self.line, self.column, self.message)
    }
}
