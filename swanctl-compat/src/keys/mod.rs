//! The one table of every key of swanctl.conf: its type, default and what becomes of it.
//!
//! A key is supported, accepted without effect for a stated reason, or refused for a stated reason; nothing is silent. The file checker, the daemon's
//! parser and the documentation (`KEYS.md`) read the same rows.

mod connection;
mod credentials;
mod kind;

#[cfg(test)]
mod tests;

pub use kind::{Kind, Misfit};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Supported,
    /// It works with a device that can carry it; with another one the connection is refused when it is loaded.
    ByDevice,
    /// Any legal value is taken, none has an effect.
    NoEffect {
        /// Values that ask for what happens anyway; not worth a word.
        quiet: &'static [&'static str],
        /// Why nothing else has an effect.
        reason: &'static str,
    },
    /// Refused unless it has one of these harmless values; why.
    Refused {
        /// Values that ask for nothing.
        harmless: &'static [&'static str],
        /// Why anything else is refused.
        reason: &'static str,
    },
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// Whether it is a list: separated by commas in files, a list in VICI messages.
    pub list: bool,
    /// The default, as documentation shows it.
    pub default: &'static str,
    /// What becomes of it.
    pub status: Status,
}

/// The kinds of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `connections.<conn>`
    Connection,
    /// `connections.<conn>.local*`
    Local,
    /// `connections.<conn>.remote*`
    Remote,
    /// `connections.<conn>.children.<child>`
    Child,
    /// `secrets.ike*`
    IkeSecret,
    /// `secrets.eap*`, `secrets.xauth*`, `secrets.ntlm*`, `secrets.ppk*`
    OtherSecret,
    /// `secrets.private*`, `secrets.rsa*`, `secrets.ecdsa*`, `secrets.pkcs8*`, `secrets.pkcs12*`
    KeyFile,
    /// `secrets.token*`
    Token,
    /// `pools.<name>`
    Pool,
    /// `authorities.<name>`
    Authority,
}

impl Scope {
    /// All scopes in the order of documentation.
    pub const ALL: [Self; 10] = [
        Self::Connection,
        Self::Local,
        Self::Remote,
        Self::Child,
        Self::IkeSecret,
        Self::OtherSecret,
        Self::KeyFile,
        Self::Token,
        Self::Pool,
        Self::Authority,
    ];

    /// The section's path pattern.
    #[must_use]
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Connection => "connections.<conn>",
            Self::Local => "connections.<conn>.local<suffix>",
            Self::Remote => "connections.<conn>.remote<suffix>",
            Self::Child => "connections.<conn>.children.<child>",
            Self::IkeSecret => "secrets.ike<suffix>",
            Self::OtherSecret => "secrets.eap<suffix>, xauth<suffix>, ntlm<suffix>, ppk<suffix>",
            Self::KeyFile => "secrets.private<suffix>, rsa<suffix>, ecdsa<suffix>, pkcs8<suffix>, pkcs12<suffix>",
            Self::Token => "secrets.token<suffix>",
            Self::Pool => "pools.<name>",
            Self::Authority => "authorities.<name>",
        }
    }

    /// The keys of such a section.
    #[must_use]
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Connection => connection::CONNECTION,
            Self::Local => connection::LOCAL,
            Self::Remote => connection::REMOTE,
            Self::Child => connection::CHILD,
            Self::IkeSecret => credentials::IKE_SECRET,
            Self::OtherSecret => credentials::OTHER_SECRET,
            Self::KeyFile => credentials::KEY_FILE,
            Self::Token => credentials::TOKEN,
            Self::Pool => credentials::POOL,
            Self::Authority => credentials::AUTHORITY,
        }
    }

    /// The row of key `name`. In secrets, `id`, `secret` may carry a suffix.
    #[must_use]
    pub fn key(self, name: &str) -> Option<&'static Key> {
        let exact = self.keys().iter().find(|key| key.name == name);
        exact.or_else(|| {
            self.keys().iter().find(|key| key.name.strip_suffix('*').is_some_and(|stem| name.starts_with(stem)))
        })
    }

    /// Subsections that such a section may hold, as names to suggest.
    #[must_use]
    pub fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Connection => &["local", "remote", "children"],
            Self::Local => &["cert"],
            Self::Remote => &["cert", "cacert"],
            Self::Child
            | Self::IkeSecret
            | Self::OtherSecret
            | Self::KeyFile
            | Self::Token
            | Self::Pool
            | Self::Authority => &[],
        }
    }

    /// The scope of a section of `secrets`, by the beginning of its name.
    #[must_use]
    pub fn of_secret(name: &str) -> Option<Self> {
        // `pkcs12` before `pkcs8` does not matter, but `ike` must not catch another word.
        let prefixes = [
            ("ike", Self::IkeSecret),
            ("eap", Self::OtherSecret),
            ("xauth", Self::OtherSecret),
            ("ntlm", Self::OtherSecret),
            ("ppk", Self::OtherSecret),
            ("private", Self::KeyFile),
            ("rsa", Self::KeyFile),
            ("ecdsa", Self::KeyFile),
            ("pkcs8", Self::KeyFile),
            ("pkcs12", Self::KeyFile),
            ("token", Self::Token),
        ];
        prefixes.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, scope)| *scope)
    }
}

/// Names that sections of `secrets` may begin with.
pub const SECRET_PREFIXES: [&str; 11] =
    ["ike", "eap", "xauth", "ntlm", "ppk", "private", "rsa", "ecdsa", "pkcs8", "pkcs12", "token"];

/// Root sections with a meaning.
pub const ROOT_SECTIONS: [&str; 4] = ["connections", "secrets", "pools", "authorities"];

/// The documentation of all keys in Markdown.
#[must_use]
pub fn documentation() -> String {
    use std::fmt::Write as _;
    let mut out = String::from(
        "# Keys of swanctl.conf\n\nGenerated from the key table. A list is separated by commas in files and is a list in VICI messages.\n",
    );
    for scope in Scope::ALL {
        let _ =
            write!(out, "\n## {}\n\n| Key | Value | Default | Effect |\n|---|---|---|---|\n", escape(scope.pattern()));
        for key in scope.keys() {
            let list = if key.list { "list of " } else { "" };
            let value = escape(&format!("{list}{}", key.kind.documentation()));
            let _ = writeln!(
                out,
                "| `{}` | {value} | {} | {} |",
                key.name,
                escape(key.default),
                escape(&effect(key.status))
            );
        }
    }
    out
}

fn effect(status: Status) -> String {
    match status {
        Status::Supported => "supported".to_owned(),
        Status::ByDevice => {
            "supported where the device can carry it, else refused at load: the userspace datapath cannot".to_owned()
        }
        Status::NoEffect { reason, .. } => format!("accepted without effect: {reason}"),
        Status::Refused { harmless: [], reason } => format!("refused: {reason}"),
        Status::Refused { harmless, reason } => format!("refused unless `{}`: {reason}", harmless.join("`, `")),
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('>', "&gt;")
}

/// A row for a single value.
const fn one(name: &'static str, kind: Kind, default: &'static str, status: Status) -> Key {
    Key { name, kind, list: false, default, status }
}

/// A row for a list.
const fn many(name: &'static str, kind: Kind, default: &'static str, status: Status) -> Key {
    Key { name, kind, list: true, default, status }
}
