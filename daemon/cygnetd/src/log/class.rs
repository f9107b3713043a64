//! Which part of an IKE daemon a line comes from and how detailed it is, in the terms that VICI clients know.

use swanctl_compat::request::GROUPS;
use tracing::{Level, Metadata};

/// Group and level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// One of [`GROUPS`].
    pub(super) group: &'static str,
    /// 0 is what one should look at, 1 the course of things, 2 details, 3 and 4 more of them.
    pub(super) level: u8,
}

/// The name of the line that says which IKE SA serves a command.
pub(super) const SERVES: &str = "serves";

/// The name of the line that says which IKE SA takes the place of one that does.
pub(super) const SUCCEEDS: &str = "succeeds";

/// Where lines come from that do not name their group themselves.
const TARGETS: [(&str, &str); 17] = [
    ("cygnetd::events", "IKE"),
    ("cygnetd::net", "NET"),
    ("cygnetd::load", "CFG"),
    ("cygnetd::store", "CFG"),
    ("cygnetd::config", "CFG"),
    ("cygnetd::vici", "CFG"),
    ("cygnetd::workers", "JOB"),
    ("cygnetd::updown", "CHD"),
    ("cygnetd", "DMN"),
    ("ike_sa", "IKE"),
    ("ike_wire", "ENC"),
    ("ike_crypto", "LIB"),
    ("swanctl_compat", "CFG"),
    ("offload_userspace::io", "ESP"),
    ("offload_", "KNL"),
    ("ipsec", "KNL"),
    ("sa_history", "LIB"),
];

impl Class {
    /// The class of all lines of one place in the code, or nothing for what is no part of ours.
    pub(super) fn of(metadata: &Metadata<'_>) -> Option<Self> {
        if matches!(metadata.name(), SERVES | SUCCEEDS) {
            return Some(Self { group: "MGR", level: 2 });
        }
        if let Some(named) = Self::named(metadata.name()) {
            return Some(named);
        }
        let (_, group) = TARGETS.iter().find(|(prefix, _)| metadata.target().starts_with(prefix))?;
        Some(Self { group, level: by_weight(metadata.level()) })
    }

    /// `IKE 1`
    fn named(name: &str) -> Option<Self> {
        let (group, level) = name.split_once(' ')?;
        let level = level.parse().ok().filter(|level| *level <= 4)?;
        GROUPS.iter().find(|known| **known == group).map(|group| Self { group, level })
    }
}

fn by_weight(level: &Level) -> u8 {
    match *level {
        Level::ERROR | Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 2,
        _ => 3,
    }
}
