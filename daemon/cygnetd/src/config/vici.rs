//! `[vici]`: where clients connect, and who may.
//!
//! VICI has no authentication of its own: whoever can connect controls the daemon. A socket file is guarded by its owner, group and mode, a port of
//! this machine by nothing but the machine, and any other port only by whatever stands around it, so that one has to be asked for by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use swanctl_compat::vici::endpoint::{Endpoint, EndpointError};
use toml::de::DeValue;

use super::keys::Set;
use super::value::{boolean, duration, text};
use super::{Config, file::Deferred};

const SOCKET: &str = "vici.socket";

/// Long enough for somebody who pages through a listing.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) const KEYS: &[(&str, Set)] = &[
    (SOCKET, |c, v| places(v).map(|places| c.vici.places = places)),
    ("vici.user", |c, v| text(v).map(|user| c.vici.access.user = user.into())),
    ("vici.group", |c, v| text(v).map(|group| c.vici.access.group = group.into())),
    ("vici.mode", |c, v| mode(v).map(|mode| c.vici.access.mode = mode)),
    ("vici.allow_remote", |c, v| boolean(v).map(|yes| c.vici.allow_remote = yes)),
    ("vici.answer_timeout", |c, v| duration(v).map(|time| c.vici.patience = Some(time).filter(|time| !time.is_zero()))),
];

/// `[vici]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vici {
    /// Where to listen, at least one place.
    pub(crate) places: Vec<Place>,
    /// Who may use the socket files.
    pub(crate) access: Access,
    /// Ports that other machines can reach are meant.
    pub(crate) allow_remote: bool,
    /// How long an answer waits for a client that takes nothing of it; `None` = for ever.
    pub(crate) patience: Option<Duration>,
}

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A socket file.
    Unix(PathBuf),
    /// A port.
    Tcp(SocketAddr),
}

/// Whose the socket files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Owner, by name or number; empty = whoever runs the daemon.
    pub(crate) user: String,
    /// Group, by name or number.
    pub(crate) group: String,
    /// Permissions.
    pub(crate) mode: u32,
}

impl Default for Vici {
    fn default() -> Self {
        let access = Access { user: String::new(), group: "root".into(), mode: 0o660 };
        Self {
            places: vec![Place::Unix("/run/charon.vici".into())],
            access,
            allow_remote: false,
            patience: Some(PATIENCE),
        }
    }
}

impl Vici {
    /// The socket files among the places.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().filter_map(Place::file)
    }
}

impl Place {
    /// The socket file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }

    /// Whether other machines can reach it.
    pub(crate) fn is_remote(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// What is wrong with a key's value unless others, maybe in other files, say that it is meant; with the place of each.
pub(super) fn unless_allowed(key: &str, value: &toml::Spanned<DeValue<'_>>) -> Vec<(std::ops::Range<usize>, String)> {
    if key != SOCKET {
        return Vec::new();
    }
    let items = value.get_ref().as_array().map_or_else(|| vec![value], |items| items.iter().collect());
    let remote = |item: &&toml::Spanned<DeValue<'_>>| {
        item.get_ref().as_str().and_then(|text| place(text).ok()).filter(Place::is_remote)
    };
    let finding = |item: &toml::Spanned<DeValue<'_>>, place: Place| {
        let reason = "other machines can reach it, and whoever connects controls the daemon";
        let text = format!("`{SOCKET}` holds {place}: {reason}; if that is meant, set allow_remote = true in [vici]");
        (item.span(), text)
    };
    items.into_iter().filter_map(|item| remote(&item).map(|place| finding(item, place))).collect()
}

/// Whether what [`unless_allowed`] found counts.
pub(super) const REMOTE: Deferred = Deferred { key: SOCKET, counts: |config: &Config| !config.vici.allow_remote };

/// One place or a list of them.
fn places(value: &DeValue<'_>) -> Result<Vec<Place>, String> {
    let Some(items) = value.as_array() else { return Ok(vec![place(text(value)?)?]) };
    let places = items.iter().map(|item| place(text(item.get_ref())?)).collect::<Result<Vec<_>, String>>()?;
    if places.is_empty() {
        return Err("must hold at least one place: swanctl and cygnet reach the daemon by no other way".into());
    }
    match places.iter().enumerate().find(|(number, place)| places.iter().take(*number).any(|before| before == *place)) {
        Some((_, twice)) => Err(format!("holds {twice} twice")),
        None => Ok(places),
    }
}

fn place(given: &str) -> Result<Place, String> {
    const EXPECTED: &str =
        "must be `unix://` and an absolute path of less than 108 octets, or `tcp://` and an address with a port";
    let wrong = || format!("{EXPECTED}, not `{given}`");
    // Before there were ports, the path alone was enough.
    let uri = if given.starts_with('/') { format!("unix://{given}") } else { given.to_owned() };
    match Endpoint::parse(&uri) {
        Ok(Endpoint::Unix(path)) if path.is_absolute() => Ok(Place::Unix(path)),
        Ok(Endpoint::Tcp { host, port }) => {
            let address = if host == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse() };
            address.map(|address| Place::Tcp(SocketAddr::new(address, port))).map_err(|_| wrong())
        }
        Err(error @ EndpointError::Transport(_)) => Err(format!("cannot be `{given}`: {error}")),
        Ok(Endpoint::Unix(_)) | Err(EndpointError::Form | EndpointError::TooLong) => Err(wrong()),
    }
}

/// Permissions as `chmod` takes them: a string of octal digits, or a number written as octal.
fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    const EXPECTED: &str = "must be permissions in octal digits, such as \"0660\"";
    let digits = match value.as_str() {
        Some(digits) => Some(digits),
        None => value.as_integer().filter(|number| number.radix() == 8).map(|number| number.as_str()),
    };
    let digits = digits.filter(|digits| digits.len() <= 5 && digits.chars().all(|c| c.is_digit(8)));
    let mode = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok()).filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or(EXPECTED)?;
    if mode & 0o200 == 0 {
        return Err(format!(
            "is {mode:04o}, with which not even the owner could connect: that takes the right to write"
        ));
    }
    Ok(mode)
}
