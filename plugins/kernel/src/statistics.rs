//! The kernel's counters of packets that its IPsec refused, by reason (`/proc/net/xfrm_stat`, Documentation/networking/xfrm/xfrm_proc.rst).
//!
//! They are of the network namespace since it was made; told is what was added since the start of the backend.

use std::fs;
use std::path::PathBuf;

/// The counters there are, in the kernel's words and order. Others are not told.
const REASONS: [&str; 32] = [
    "XfrmInError",
    "XfrmInBufferError",
    "XfrmInHdrError",
    "XfrmInNoStates",
    "XfrmInStateProtoError",
    "XfrmInStateModeError",
    "XfrmInStateSeqError",
    "XfrmInStateExpired",
    "XfrmInStateMismatch",
    "XfrmInStateInvalid",
    "XfrmInTmplMismatch",
    "XfrmInNoPols",
    "XfrmInPolBlock",
    "XfrmInPolError",
    "XfrmOutError",
    "XfrmOutBundleGenError",
    "XfrmOutBundleCheckError",
    "XfrmOutNoStates",
    "XfrmOutStateProtoError",
    "XfrmOutStateModeError",
    "XfrmOutStateSeqError",
    "XfrmOutStateExpired",
    "XfrmOutPolBlock",
    "XfrmOutPolDead",
    "XfrmOutPolError",
    "XfrmFwdHdrError",
    "XfrmOutStateInvalid",
    "XfrmAcquireError",
    "XfrmOutStateDirError",
    "XfrmInStateDirError",
    "XfrmInIptfsError",
    "XfrmOutNoQueueSpace",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Statistics {
    path: Option<PathBuf>,
    before: Option<Vec<(&'static str, u64)>>,
    last: Vec<(&'static str, u64)>,
}

/// One reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drops {
    pub(crate) counters: Vec<(&'static str, u64)>,
    /// Those that were zero at the last reading and are not any more.
    pub(crate) left_zero: Vec<(&'static str, u64)>,
}

impl Statistics {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        let mut statistics = Self { path, before: None, last: Vec::new() };
        statistics.before = statistics.counters();
        statistics
    }

    fn counters(&self) -> Option<Vec<(&'static str, u64)>> {
        self.path.as_ref().and_then(|path| fs::read_to_string(path).ok()).map(|text| parse(&text))
    }

    /// Packets refused since the start; nothing where the kernel does not count them.
    pub(crate) fn read(&mut self) -> Option<Drops> {
        let now = self.counters()?;
        let before = self.before.get_or_insert_with(Vec::new);
        let at = |counters: &[(&'static str, u64)], reason: &str| {
            counters.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
        };
        let counters: Vec<_> =
            now.iter().map(|(reason, count)| (*reason, count.saturating_sub(at(before, reason)))).collect();
        let left_zero = counters.iter().filter(|(reason, count)| *count > 0 && at(&self.last, reason) == 0);
        let left_zero = left_zero.copied().collect();
        self.last.clone_from(&counters);
        Some(Drops { counters, left_zero })
    }
}

fn parse(text: &str) -> Vec<(&'static str, u64)> {
    let counter = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, count) = (words.next()?, words.next()?.parse().ok()?);
        Some((*REASONS.iter().find(|reason| **reason == name)?, count))
    };
    text.lines().filter_map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_since_the_start_and_once_when_they_leave_zero() {
        let directory = crate::tests::scratch("statistics");
        let path = directory.join("xfrm_stat");
        let write = |no_pols: u64, block: u64| {
            let text = format!("XfrmInNoPols            \t{no_pols}\nXfrmOutPolBlock \t{block}\nXfrmNew 7\nrubbish\n");
            fs::write(&path, text).unwrap();
        };
        write(5, 0);
        let mut statistics = Statistics::new(Some(path.clone()));
        assert_eq!(statistics.read().unwrap().left_zero, []);
        write(7, 1);
        let drops = statistics.read().unwrap();
        assert_eq!(drops.counters, [("XfrmInNoPols", 2), ("XfrmOutPolBlock", 1)]);
        assert_eq!(drops.left_zero, drops.counters);
        write(9, 1);
        assert_eq!(statistics.read().unwrap().left_zero, []);
        assert_eq!(Statistics::new(Some(directory.join("none"))).read(), None);
    }
}
