//! What is doubtful about a gateway, whatever packet one thinks of: facts in, findings out.
//!
//! [`examine`] is pure; [`Facts`] come from the configuration, the backend and the host kernel. Every line says how it stands and, unless it is
//! well, what to do.

mod config;
mod device;
mod host;
mod kernel;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use ipsec::{DeviceTable, OffloadMode};

use crate::why::Link;

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may not be what is wanted.
    Warning,
    /// Something cannot work.
    Error,
}

impl Level {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is about, one word: `device`, `child`, `port`, `privilege`, `host`, `route`, `guard`, `path`, `vici`, `file`, `clock`.
    pub area: &'static str,
    /// How bad.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do, unless it is well.
    pub fix: String,
}

impl Check {
    fn ok(area: &'static str, text: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, text: text.into(), fix: String::new() }
    }

    fn warning(area: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { area, level: Level::Warning, text: text.into(), fix: fix.into() }
    }

    fn error(area: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { area, level: Level::Error, text: text.into(), fix: fix.into() }
    }
}

/// Everything that is looked at.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Devices of the backend.
    pub devices: DeviceTable,
    /// Where there is a tunnel device: its name, and the device as the kernel shows it.
    pub tunnel: Option<(String, Option<Link>)>,
    /// `/dev/net/tun` can be opened.
    pub tun_usable: bool,
    /// What there is to know where the kernel is the data path.
    pub kernel: Option<KernelFacts>,
    /// Configured children against their devices.
    pub children: Vec<ChildFit>,
    /// Children that are refused, each with the reason.
    pub refused: Vec<(String, String)>,
    /// UDP ports of IKE.
    pub ports: Vec<Port>,
    /// What the process may do.
    pub privileges: Privileges,
    /// Files and directories that it cannot reach and will want to: what, and what to do.
    pub unreachable: Vec<(String, String)>,
    /// Links other than loopback and the tunnel device.
    pub links: Vec<Link>,
    /// Packets that reverse path filters have dropped.
    pub reverse_path_drops: u64,
    /// `send_redirects` of these links by name, where it is on.
    pub redirects: Vec<String>,
    /// Packets are forwarded: IPv4, IPv6.
    pub forwards: (bool, bool),
    /// Families that some child forwards for.
    pub needs_forwarding: (bool, bool),
    /// The kernel has XFRM.
    pub xfrm: bool,
    /// Policies in the kernel that are not ours.
    pub foreign_policies: Vec<String>,
    /// Guard policies of ours that no loaded connection claims.
    pub unclaimed_guards: Vec<String>,
    /// Our routing table, with routes in it that are not ours.
    pub table: (u32, Vec<String>),
    /// Priority of our rule, with rules of others at or just beside it, and those before it that lead everything elsewhere.
    pub rules: (u32, Vec<String>, Vec<String>),
    /// We keep routes.
    pub install_routes: bool,
    /// Ways to peers: connection, peer, what the path carries, and the largest packet inside.
    pub paths: Vec<Path>,
    /// The VICI socket.
    pub vici: Option<Socket>,
    /// Keys of SAs are kept and can be given out.
    pub exports_keys: bool,
    /// Findings of the configuration files: it is an error, and the sentence with its place.
    pub files: Vec<(bool, String, String)>,
    /// Seconds since the epoch, and seconds asleep since the machine was started.
    pub clock: (u64, u64),
}

/// As whom the daemon runs, with which capabilities (capabilities(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Name of the user.
    pub user: String,
    /// Of NET_ADMIN, NET_RAW and NET_BIND_SERVICE, which it has.
    pub needed: Vec<(&'static str, bool)>,
    /// How many others it has.
    pub others: u32,
}

/// The kernel as the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// What it lacks for any SA, in one sentence.
    pub lacks: Option<String>,
    /// Settings by which IPsec does not concern a link.
    pub switched_off: Vec<String>,
    /// Settings of its IPsec, each with its value.
    pub settings: Vec<(String, u32)>,
    /// Links whose drivers say that they do ESP, and that are no devices here.
    pub idle: Vec<String>,
    /// Devices with policies in them: name, how many protect, how many let IKE pass.
    pub held: Vec<(String, usize, usize)>,
    /// Packets refused by its IPsec, by reason.
    pub drops: Vec<(String, u64)>,
}

/// A child against its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildFit {
    /// `connection/child`.
    pub name: String,
    /// What the configuration asks for.
    pub wanted: OffloadMode,
    /// The device, or why there is none.
    pub device: Result<Arc<str>, String>,
    /// Rungs that can carry it, best first.
    pub fits: Vec<OffloadMode>,
    /// Why others cannot.
    pub rejected: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// A UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number; 0 = off.
    pub number: u16,
    /// We hold it.
    pub ours: bool,
    /// Others that hold it too.
    pub others: Vec<String>,
}

/// A way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Connection.
    pub connection: String,
    /// Peer.
    pub remote: IpAddr,
    /// What the path carries.
    pub mtu: u32,
    /// Largest packet that a child of it carries inside.
    pub inner: u32,
    /// A child of it is for IPv6.
    pub inner_v6: bool,
}

/// The VICI socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Number of its group.
    pub group: u32,
}

/// Looks at everything.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut checks = device::devices(facts);
    checks.extend(kernel::checks(facts));
    checks.extend(config::children(facts));
    checks.extend(config::files(facts));
    checks.extend(host::privileges(facts));
    checks.extend(host::ports(facts));
    checks.extend(host::forwarding(facts));
    checks.extend(host::links(facts));
    checks.extend(host::routing(facts));
    checks.extend(host::policies(facts));
    checks.extend(host::paths(facts));
    checks.extend(host::vici(facts));
    checks.extend(host::clock(facts));
    checks
}
