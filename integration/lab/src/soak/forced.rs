//! Rekeying by command: A, B, or both in the same moment, once a second.

use std::thread;
use std::time::{Duration, Instant};

use lab::peer::Daemon;

/// Between two forced rekeys.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rekeys all children once a second. What is refused shows in the number of rekeys.
pub(super) fn every_second([a, b]: &[Daemon<'_>; 2], children: &[&str], time: Duration) {
    let started = Instant::now();
    let rekey = |daemon: &Daemon<'_>| {
        for child in children {
            let _ = daemon.swanctl(&["--rekey", "--child", child]);
        }
    };
    for tick in 1_u32.. {
        thread::sleep((INTERVAL * tick).saturating_sub(started.elapsed()));
        if started.elapsed() >= time {
            return;
        }
        let (by_a, by_b) = match tick % 3 {
            0 => (true, true),
            1 => (true, false),
            _ => (false, true),
        };
        thread::scope(|scope| {
            if by_b {
                scope.spawn(|| rekey(b));
            }
            if by_a {
                rekey(a);
            }
        });
    }
}
