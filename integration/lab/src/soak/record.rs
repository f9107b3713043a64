//! What a soak leaves behind for whoever looks into it: the logs of both daemons, the IKE messages that the path saw, and the packets in
//! clear, all with the same wall clock.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use lab::capture::Captured;
use lab::classify::Class;
use lab::peer::Daemon;
use lab::relay::IkeSeen;

/// The exchanges by name (RFC 7296 §3.1).
const EXCHANGES: [(u8, &str); 4] =
    [(34, "IKE_SA_INIT"), (35, "IKE_AUTH"), (36, "CREATE_CHILD_SA"), (37, "INFORMATIONAL")];

/// Writes `A.log`, `B.log`, `ike.txt`, `A.pcap` and `B.pcap`.
pub(super) fn write(
    directory: &Path,
    daemons: &[Daemon<'_>; 2],
    seen: &[IkeSeen],
    captured: &[Captured],
) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    for (name, daemon) in ["A", "B"].iter().zip(daemons) {
        std::fs::write(directory.join(format!("{name}.log")), daemon.log())?;
    }
    let mut text = String::new();
    let wall = wall_clock();
    for message in seen {
        let _ = writeln!(text, "{}", line(message, wall));
    }
    std::fs::write(directory.join("ike.txt"), text)?;
    for (name, captured) in ["A", "B"].iter().zip(captured) {
        captured.write_pcap(&directory.join(format!("{name}.pcap")))?;
        let clear = captured.frames.iter().filter(|frame| frame.class == Class::Clear);
        let times: String = clear.map(|frame| format!("{} {} octets\n", time(frame.time), frame.length)).collect();
        std::fs::write(directory.join(format!("{name}.clear")), times)?;
    }
    Ok(())
}

/// What to add to the age of an instant: now on both clocks.
fn wall_clock() -> (Instant, Duration) {
    (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn line(message: &IkeSeen, (now, wall): (Instant, Duration)) -> String {
    let at = wall.saturating_sub(now.saturating_duration_since(message.at));
    let exchange = EXCHANGES.iter().find(|(number, _)| *number == message.exchange);
    format!(
        "{} {} {:016x} {:016x} {} {} {}{}",
        time(at),
        if message.from_left { "A->B" } else { "B->A" },
        message.spis.0,
        message.spis.1,
        exchange.map_or("?", |(_, name)| name),
        message.message_id,
        if message.is_response { "response" } else { "request" },
        if message.lost { " LOST" } else { "" }
    )
}

/// The time of day, UTC, with milliseconds.
fn time(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60, since_epoch.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let now = Instant::now();
        let message = IkeSeen {
            at: now - Duration::from_millis(1_500),
            from_left: false,
            spis: (1, 0xab),
            exchange: 36,
            is_response: true,
            message_id: 7,
            content: 0,
            lost: true,
        };
        let wall = Duration::from_secs(86_400 * 3 + 3_661);
        let expected = "01:00:59.500 B->A 0000000000000001 00000000000000ab CREATE_CHILD_SA 7 response LOST";
        assert_eq!(line(&message, (now, wall)), expected);
    }
}
