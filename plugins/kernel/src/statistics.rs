//! The kernel's counters of packets that its IPsec refused, by reason (`/proc/net/xfrm_stat`, Documentation/networking/xfrm/xfrm_proc.rst).
//!
//! They are of the network namespace since it was made; told is what was added since the start of the backend.

use std::fs;
use std::path::PathBuf;

/// The kernel's counters and what they are told as: in the words of other backends where they mean the same, else in the kernel's own. Counters
/// that are not named here are not told.
const REASONS: [(&str, &str); 32] = [
    ("XfrmInError", "XfrmInError"),
    ("XfrmInBufferError", "XfrmInBufferError"),
    ("XfrmInHdrError", "malformed-esp"),
    ("XfrmInNoStates", "unknown-spi"),
    ("XfrmInStateProtoError", "integrity"),
    ("XfrmInStateModeError", "XfrmInStateModeError"),
    ("XfrmInStateSeqError", "replay"),
    ("XfrmInStateExpired", "expired"),
    ("XfrmInStateMismatch", "selector-mismatch"),
    ("XfrmInStateInvalid", "XfrmInStateInvalid"),
    ("XfrmInTmplMismatch", "selector-mismatch"),
    ("XfrmInNoPols", "selector-mismatch"),
    ("XfrmInPolBlock", "discard"),
    ("XfrmInPolError", "XfrmInPolError"),
    ("XfrmOutError", "XfrmOutError"),
    ("XfrmOutBundleGenError", "XfrmOutBundleGenError"),
    ("XfrmOutBundleCheckError", "XfrmOutBundleCheckError"),
    ("XfrmOutNoStates", "no-outbound-sa"),
    ("XfrmOutStateProtoError", "XfrmOutStateProtoError"),
    ("XfrmOutStateModeError", "XfrmOutStateModeError"),
    ("XfrmOutStateSeqError", "XfrmOutStateSeqError"),
    ("XfrmOutStateExpired", "expired"),
    ("XfrmOutPolBlock", "discard"),
    ("XfrmOutPolDead", "XfrmOutPolDead"),
    ("XfrmOutPolError", "XfrmOutPolError"),
    ("XfrmFwdHdrError", "XfrmFwdHdrError"),
    ("XfrmOutStateInvalid", "XfrmOutStateInvalid"),
    ("XfrmAcquireError", "XfrmAcquireError"),
    ("XfrmOutStateDirError", "XfrmOutStateDirError"),
    ("XfrmInStateDirError", "XfrmInStateDirError"),
    ("XfrmInIptfsError", "XfrmInIptfsError"),
    ("XfrmOutNoQueueSpace", "hold-full"),
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
    let mut counters: Vec<(&'static str, u64)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(count))) = (words.next(), words.next().map(str::parse::<u64>)) else { continue };
        let Some((_, reason)) = REASONS.iter().find(|(kernel, _)| *kernel == name) else { continue };
        match counters.iter_mut().find(|(other, _)| other == reason) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => counters.push((reason, count)),
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_since_the_start_and_once_when_they_leave_zero() {
        let directory = crate::tests::scratch("statistics");
        let path = directory.join("xfrm_stat");
        let write = |no_pols: u64, block: u64| {
            let text = format!(
                "XfrmInNoPols            \t{no_pols}\nXfrmInTmplMismatch 1\nXfrmOutPolBlock \t{block}\nXfrmNew 7\nrubbish\n"
            );
            fs::write(&path, text).unwrap();
        };
        write(5, 0);
        let mut statistics = Statistics::new(Some(path.clone()));
        assert_eq!(statistics.read().unwrap().left_zero, []);
        write(7, 1);
        let drops = statistics.read().unwrap();
        assert_eq!(drops.counters, [("selector-mismatch", 2), ("discard", 1)]);
        assert_eq!(drops.left_zero, drops.counters);
        write(9, 1);
        assert_eq!(statistics.read().unwrap().left_zero, []);
        assert_eq!(Statistics::new(Some(directory.join("none"))).read(), None);
    }
}
