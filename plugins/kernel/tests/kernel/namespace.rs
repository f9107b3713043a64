//! A network namespace that lives as long as one thread, and policies to put there.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::thread;

use ipsec::{Reqid, SaMode};
use offload_host::prefix::Prefix;
use offload_host::xfrm::{PolicyKey, Verdict, Way};
use offload_kernel::xfrm::{Policy, Template};

/// Runs `work` in a new namespace with a loopback device, and a link over which 192.0.2.2 and 2001:db8::2 would be reached.
pub(crate) fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let enter = || {
        // SAFETY: geteuid has no preconditions.
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests make network namespaces and need root");
        // SAFETY: only this thread moves.
        let outcome = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(outcome, 0, "{}", io::Error::last_os_error());
        ip("link set lo up");
        ip("link add left type veth peer name right");
        for device in ["left", "right"] {
            ip(&format!("link set {device} up"));
        }
        ip("addr add 192.0.2.1/24 dev left");
        ip("addr add 2001:db8::1/64 dev left nodad");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev left");
        ip("neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev left");
        work()
    };
    thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(output.status.success(), "ip {words}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), length.parse().unwrap())
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A policy in clear between two prefixes.
pub(crate) fn allow(way: Way, source: &str, destination: &str) -> Policy {
    Policy {
        key: PolicyKey::between(way, prefix(source), prefix(destination)),
        priority: 1000,
        index: 0,
        verdict: Verdict::Allow,
        template: None,
        device: None,
        per_cpu: false,
    }
}

/// A tunnel-mode template.
pub(crate) fn tunnel(source: &str, destination: &str, reqid: u32) -> Template {
    Template {
        source: address(source),
        destination: address(destination),
        spi: None,
        reqid: Reqid(reqid),
        mode: SaMode::Tunnel,
        optional: false,
    }
}
