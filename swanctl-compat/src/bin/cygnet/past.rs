//! Which part of the past: options that `cygnet history` and `cygnet events` share.

use std::time::{SystemTime, UNIX_EPOCH};

use ike_model::Rfc3339;
use swanctl_compat::units;
use swanctl_compat::vici::Message;

/// The options.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Part {
    /// Only this connection.
    #[arg(long, value_name = "CONN")]
    connection: Option<String>,
    /// Only children of this name.
    #[arg(long)]
    child: Option<String>,
    /// Of another gateway that keeps its history in the same database.
    #[arg(long)]
    gateway: Option<String>,
    /// What was there at this time or later: a time such as 2026-01-31T12:00:00Z, a date, or how long ago, such as 90s, 15m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Rfc3339>,
    /// What was there before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Rfc3339>,
    /// At most so many, the newest; 0 = as many as the daemon gives at once.
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl Part {
    /// What to ask the daemon.
    pub(crate) fn request(&self) -> Message {
        let mut request = Message::new();
        for (key, value) in [("ike", &self.connection), ("child", &self.child), ("gateway", &self.gateway)] {
            if let Some(value) = value {
                request.set(key, value.as_str());
            }
        }
        for (key, value) in [("since", self.since), ("until", self.until)] {
            if let Some(Rfc3339(ms)) = value {
                request.set_display(key, ms);
            }
        }
        request.set_display("limit", self.limit);
        request
    }

    /// Whether an event that comes now is asked for.
    pub(crate) fn takes(&self, connection: Option<&str>, child: Option<&str>) -> bool {
        let fits =
            |wanted: &Option<String>, has: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == has);
        fits(&self.connection, connection) && fits(&self.child, child)
    }

    /// A part of the past is asked for by time.
    pub(crate) fn has_since(&self) -> bool {
        self.since.is_some()
    }
}

/// A time, or how long ago it is.
fn moment(text: &str) -> Result<Rfc3339, String> {
    if let Some(time) = Rfc3339::parse(text) {
        return Ok(time);
    }
    let ago = text.starts_with(|c: char| c.is_ascii_digit()).then(|| units::seconds(text)).flatten();
    let ago =
        ago.ok_or("expected a time such as 2026-01-31T12:00:00Z, a date, or how long ago, such as 15m, 2h or 7d")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(Rfc3339(u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(ago.saturating_mul(1000))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(moment("1970-01-02"), Ok(Rfc3339(86_400_000)));
        let (hour, minute) = (moment("1h").unwrap(), moment("1m").unwrap());
        let apart = minute.0 - hour.0;
        assert!((3_540_000..3_541_000).contains(&apart), "{apart}");
        assert!(moment("yesterday").is_err() && moment("").is_err() && moment("-5").is_err());
    }
}
