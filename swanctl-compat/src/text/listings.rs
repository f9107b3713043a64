//! `--list-algs`, `--list-pools`, `--list-authorities`, `--counters`.

use std::fmt::Write as _;

use super::{field, optional, printable, show};
use crate::vici::{Element, Message};

/// Kinds of algorithms, and below each what is there and who provides it.
#[must_use]
pub fn algorithms(reply: &Message) -> String {
    let mut out = String::new();
    for (kind, algorithms) in reply.sections() {
        let _ = writeln!(out, "{}:", printable(kind));
        for element in algorithms.elements() {
            if let Element::KeyValue(name, provider) = element {
                let _ = writeln!(out, "  {}[{}]", printable(name), show(provider));
            }
        }
    }
    out
}

/// Pools with how many of their addresses are online, offline and there at all, and their leases where the daemon tells them.
#[must_use]
pub fn pools(reply: &Message) -> String {
    let mut out = String::new();
    for (name, pool) in reply.sections() {
        let f = |key: &str| field(pool, key);
        let usage = format!("{} / {} / {}", f("online"), f("offline"), f("size"));
        let _ = writeln!(out, "{:<20} {:<30} {usage:>16}", printable(name), f("base"));
        for (_, lease) in pool.get_section("leases").map(Message::sections).into_iter().flatten() {
            let f = |key: &str| field(lease, key);
            let _ = writeln!(out, "  {:<30} {:<8} '{}'", f("address"), f("status"), f("identity"));
        }
    }
    out
}

/// The certification authorities of one event.
#[must_use]
pub fn list_authority(event: &Message) -> String {
    let mut out = String::new();
    for (name, authority) in event.sections() {
        let _ = writeln!(out, "{}:", printable(name));
        if let Some(subject) = optional(authority, "cacert") {
            let _ = writeln!(out, "  cacert: {subject}");
        }
        for (key, title) in [("crl_uris", "crl_uris: "), ("ocsp_uris", "ocsp_uris:")] {
            for (index, uri) in authority.get_list(key).unwrap_or_default().iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                let _ = writeln!(out, "  {title:<10} {}", show(uri));
            }
        }
        if let Some(base) = optional(authority, "cert_uri_base") {
            let _ = writeln!(out, "  cert_uri_base: {base}");
        }
    }
    out
}

/// Counters of messages and rekeyings: of all connections together, or by connection.
#[must_use]
pub fn counters(reply: &Message) -> String {
    let mut out = String::new();
    for (name, counters) in reply.get_section("counters").map(Message::sections).into_iter().flatten() {
        let _ = writeln!(out, "{}:", if name.is_empty() { "global".into() } else { printable(name) });
        for element in counters.elements() {
            if let Element::KeyValue(counter, value) = element {
                let _ = writeln!(out, "  {:<22}: {}", printable(counter), show(value));
            }
        }
    }
    out
}
