//! `cygnet log`: what of the log is raised, and until when.

use super::table::{Table, Tone};
use super::{field, optional};
use crate::vici::Message;

/// One row for each part; `moment` shows seconds since the epoch.
#[must_use]
pub fn cygnet_raised(events: &[Message], moment: impl Fn(u64) -> String) -> Table {
    let mut table = Table::new(&["CONNECTION", "GROUP", "LEVEL", "UNTIL", "LEFT"]);
    for event in events {
        let until = field(event, "until").parse().map(&moment).unwrap_or_default();
        let left = field(event, "left").parse().map(left).unwrap_or_default();
        let group = optional(event, "group").unwrap_or_else(|| "all".to_owned());
        table.row(Tone::Plain, [field(event, "connection"), group, field(event, "level"), until, left]);
    }
    table
}

fn left(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_stands_with_its_end() {
        let one = Message::new().with("connection", "site").with("level", "2").with("until", "100").with("left", "90");
        let all = Message::new().with("connection", "*").with("group", "ENC").with("level", "trace");
        let all = all.with("until", "9").with("left", "7260");
        let (heading, rows) = cygnet_raised(&[one, all], |at| format!("at {at}")).lines();
        let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
        assert_eq!(heading, "CONNECTION  GROUP  LEVEL  UNTIL   LEFT");
        assert_eq!(rows, ["site        all    2      at 100  1m 30s", "*           ENC    trace  at 9    2h 1m"]);
    }
}
