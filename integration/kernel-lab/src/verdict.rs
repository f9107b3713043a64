//! What the kernel's messages and the tests' output say about a run.

/// Beginnings of what the kernel says when something is wrong with itself or with a module.
const TROUBLE: [&str; 11] = [
    "BUG:",
    "kernel BUG at",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "refcount_t:",
    "unregister_netdevice: waiting for",
    "UBSAN:",
    "list_del corruption",
    "list_add corruption",
];

/// The line with which the guest's first process closes.
const CLOSING: &str = "guest: ended with ";

/// The first message of the kernel that must not be there.
pub(crate) fn trouble(console: &str) -> Option<&str> {
    console.lines().map(message).find(|text| TROUBLE.iter().any(|start| text.starts_with(start)))
}

/// A kernel message without its time stamp.
fn message(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(line, |(_, text)| text)
}

/// The exit code of the guest program, once it has ended.
pub(crate) fn exit_code(output: &str) -> Option<i32> {
    output.lines().rev().find_map(|line| line.strip_prefix(CLOSING))?.trim().parse().ok()
}

/// Whether a line of the output tells how one test ended.
pub(crate) fn is_progress(line: &str) -> bool {
    line.starts_with("test ") && !line.starts_with("test result")
}

/// Whether a line is the guest program's account to its host, and of no interest to people.
pub(crate) fn is_closing(line: &str) -> bool {
    line.starts_with(CLOSING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_troubles_are_found_behind_their_time_stamps() {
        let console = "[    0.1] Linux version\n[   12.5] WARNING: CPU: 0 PID: 7 at net/xfrm/xfrm_state.c:771\n";
        assert_eq!(trouble(console), Some("WARNING: CPU: 0 PID: 7 at net/xfrm/xfrm_state.c:771"));
        assert_eq!(trouble("[    0.1] loading out-of-tree module taints kernel.\n"), None);
        assert!(trouble("[    9.0] Oops: 0000 [#1] PREEMPT SMP NOPTI\n").is_some());
    }

    #[test]
    fn only_the_closing_line_tells_the_exit_code() {
        assert_eq!(exit_code("test a ... ok\nguest: ended with 101\n"), Some(101));
        assert_eq!(exit_code("test a ... ok\n"), None);
    }
}
