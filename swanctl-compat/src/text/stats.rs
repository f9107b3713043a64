//! `--stats` and `--version --daemon`.

use std::fmt::Write as _;

use super::{field, joined};
use crate::vici::Message;

/// The figures of the daemon.
#[must_use]
pub fn stats(reply: &Message) -> String {
    let mut out = String::new();
    let section = |name: &str| reply.get_section(name).cloned().unwrap_or_default();
    let (uptime, workers, ike_sas) = (section("uptime"), section("workers"), section("ikesas"));
    let active = workers.get_section("active").cloned().unwrap_or_default();
    let _ = writeln!(out, "uptime: {}, since {}", field(&uptime, "running"), field(&uptime, "since"));
    let (total, idle) = (field(&workers, "total"), field(&workers, "idle"));
    let _ = writeln!(out, "worker threads: {total} total, {idle} idle, working: {}", priorities(&active));
    let _ = writeln!(out, "job queues: {}", priorities(&section("queues")));
    let _ = writeln!(out, "jobs scheduled: {}", field(reply, "scheduled"));
    let (total, half_open) = (field(&ike_sas, "total"), field(&ike_sas, "half-open"));
    let _ = writeln!(out, "IKE_SAs: {total} total, {half_open} half-open");
    if let Some(memory) = reply.get_section("mem") {
        let (total, allocations) = (field(memory, "total"), field(memory, "allocs"));
        let _ = writeln!(out, "memory usage: {total} bytes, {allocations} allocations");
    }
    if let Some(m) = reply.get_section("mallinfo") {
        let figures = [
            ("sbrk", field(m, "sbrk")),
            ("mmap", field(m, "mmap")),
            ("used", field(m, "used")),
            ("free", field(m, "free")),
        ];
        let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(out, "mallinfo: {}", figures.join(", "));
    }
    let _ = writeln!(out, "loaded plugins: {}", joined(reply, "plugins").unwrap_or_default());
    out
}

fn priorities(message: &Message) -> String {
    ["critical", "high", "medium", "low"].map(|name| field(message, name)).join("/")
}

/// Who the daemon is.
#[must_use]
pub fn version(reply: &Message) -> String {
    let f = |key: &str| field(reply, key);
    let product = if f("daemon").starts_with("charon") { "strongSwan" } else { "Cygnet" };
    format!("{product} {} {} ({}, {}, {})\n", f("version"), f("daemon"), f("sysname"), f("release"), f("machine"))
}
