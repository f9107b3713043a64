//! `cygnet-log`: more lines of the log for a while, of one connection or all, of one group or all.

use std::time::Duration;

use super::{RequestError, refuse, text};
use crate::units;
use crate::vici::Message;

/// The parts of an IKE daemon that lines of its log come from, as VICI clients know them.
pub const GROUPS: [&str; 18] = [
    "DMN", "MGR", "IKE", "CHD", "JOB", "CFG", "KNL", "NET", "ASN", "ENC", "TNC", "IMC", "IMV", "PTS", "TLS", "APP",
    "ESP", "LIB",
];

/// The longest time for which lines can be had.
pub const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// For how long when nothing is said.
pub const USUAL: Duration = Duration::from_secs(600);

/// How much more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Up to a level of VICI: 0 what an operator wants to see, 1 the course of things, 2 to 4 ever more details.
    Level(u8),
    /// Up to a level of the daemon's own log.
    Error,
    /// The same.
    Warn,
    /// The same.
    Info,
    /// The same.
    Debug,
    /// The same.
    Trace,
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Of one connection; `None` = of all, and of none.
    pub connection: Option<String>,
    /// Of one of [`GROUPS`].
    pub group: Option<&'static str>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOrder {
    /// Only a list of what is raised.
    List,
    /// More lines.
    Raise {
        /// Which.
        part: Part,
        /// How much more.
        detail: Detail,
        /// For how long.
        time: Duration,
    },
    /// As the settings say, from now on.
    Drop(Part),
}

impl Detail {
    /// Words for all of them.
    pub const FORMS: &str = "-1 to 4, error, warn, info, debug, trace or off";
    const NAMES: [(Self, &str); 5] = [
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];

    /// `Some(None)` = nothing more than usual, `None` = no such level.
    fn parse(text: &str) -> Option<Option<Self>> {
        if matches!(text, "off" | "-1") {
            return Some(None);
        }
        let named = Self::NAMES.iter().find(|(_, name)| *name == text).map(|(detail, _)| *detail);
        let level = || units::u32(text).and_then(|level| u8::try_from(level).ok()).filter(|level| *level <= 4);
        named.or_else(|| level().map(Self::Level)).map(Some)
    }
}

impl std::fmt::Display for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::Level(level) = self {
            return write!(f, "{level}");
        }
        let name = Self::NAMES.iter().find(|(detail, _)| detail == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// Keys: `connection` (a name, or `*`), `level` ([`Detail::FORMS`]), `group`, `seconds`. Without a connection: the list alone.
pub(super) fn parse(message: &Message) -> Result<LogOrder, RequestError> {
    let Some(connection) = text(message, "connection") else { return Ok(LogOrder::List) };
    let group = text(message, "group").map(|name| {
        let known = GROUPS.iter().find(|group| group.eq_ignore_ascii_case(&name)).copied();
        known.ok_or_else(|| refuse(&format!("invalid value for: group, expected one of {}", GROUPS.join(", "))))
    });
    let part = Part { connection: Some(connection).filter(|name| name != "*"), group: group.transpose()? };
    let invalid = || refuse(&format!("invalid value for: level, expected {}", Detail::FORMS));
    let Some(detail) = Detail::parse(&super::required(message, "level", "missing level")?).ok_or_else(invalid)? else {
        return Ok(LogOrder::Drop(part));
    };
    let time = match text(message, "seconds") {
        None => USUAL,
        Some(text) => {
            let seconds = units::u64(&text).map(Duration::from_secs);
            let usable = seconds.filter(|time| !time.is_zero() && *time <= LONGEST);
            usable.ok_or_else(|| refuse(&format!("invalid value for: seconds, expected 1 to {}", LONGEST.as_secs())))?
        }
    };
    Ok(LogOrder::Raise { part, detail, time })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(pairs: &[(&str, &str)]) -> Result<LogOrder, String> {
        let message = pairs.iter().fold(Message::new(), |message, &(key, value)| message.with(key, value));
        parse(&message).map_err(|error| match error {
            RequestError::Refused(answer) => answer.get_str("errmsg").unwrap_or_default().to_owned(),
            RequestError::Unknown => "unknown".into(),
        })
    }

    #[test]
    fn levels_groups_and_times_are_understood_or_refused() {
        assert_eq!(order(&[]), Ok(LogOrder::List));
        let part = |connection: Option<&str>, group| Part { connection: connection.map(str::to_owned), group };
        let raise = |part, detail, time| Ok(LogOrder::Raise { part, detail, time });
        let usual = order(&[("connection", "site"), ("level", "2")]);
        assert_eq!(usual, raise(part(Some("site"), None), Detail::Level(2), USUAL));
        let all = order(&[("connection", "*"), ("level", "trace"), ("group", "enc"), ("seconds", "90")]);
        assert_eq!(all, raise(part(None, Some("ENC")), Detail::Trace, Duration::from_secs(90)));
        for off in ["off", "-1"] {
            let dropped = order(&[("connection", "site"), ("level", off)]);
            assert_eq!(dropped, Ok(LogOrder::Drop(part(Some("site"), None))));
        }
        for wrong in ["5", "-2", "", "loud"] {
            assert!(order(&[("connection", "site"), ("level", wrong)]).unwrap_err().contains("level"), "{wrong}");
        }
        assert!(order(&[("connection", "site"), ("level", "1"), ("group", "abc")]).unwrap_err().contains("group"));
        for wrong in ["0", "604801", "x"] {
            let refused = order(&[("connection", "site"), ("level", "1"), ("seconds", wrong)]);
            assert!(refused.unwrap_err().contains("seconds"), "{wrong}");
        }
    }
}
