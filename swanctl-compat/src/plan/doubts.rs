//! What is legal but doubtful across connections: identity pairs without a key, overlapping selectors.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ike_model::{Child, ChildMode, ConfiguredSelector, Connection, HostSpec, Identity, SharedSecret};
use ipsec::TrafficSelector;

use super::Plan;
use crate::settings::{Diagnostic, Settings, Severity, Span};

/// Overlaps reported before the rest is left unsaid.
const MAX_OVERLAPS: usize = 20;

pub(super) fn check(settings: &Settings, plan: &mut Plan) {
    let mut found = Vec::new();
    let owners = Owners::of(plan.pre_shared_keys());
    let unread = plan.findings.iter().any(|f| f.severity == Severity::Error && in_secrets(f));
    for planned in plan.connections.iter().filter(|_| !unread) {
        if let Some(connection) = &planned.connection {
            let span = planned.spans.find(&format!("connections.{}", planned.name));
            found.extend(missing_key(connection, &owners, span));
        }
    }
    found.extend(overlaps(plan));
    found.retain(|finding| finding.span.is_none_or(|span| !settings.sources().is_sensitive(span)));
    plan.findings.extend(found);
}

fn in_secrets(finding: &Diagnostic) -> bool {
    finding.path.as_deref().is_some_and(|path| path.starts_with("secrets."))
}

/// A warning if no pre-shared key serves the connection's identities, as far as they are known from the configuration.
fn missing_key(connection: &Connection, owners: &Owners, span: Option<Span>) -> Option<Diagnostic> {
    let local = side(connection.local.first().map(|round| &round.id), &connection.local_addrs);
    let remote = side(connection.remote.first().map(|round| &round.id), &connection.remote_addrs);
    let served = match (&local, &remote) {
        (Some(local), Some(remote)) => owners.serve(local) || owners.serve(remote),
        // Only one end is known: a key with several owners may still serve the other end.
        (Some(one), None) | (None, Some(one)) => owners.serve(one) || owners.pairs,
        (None, None) => owners.any_key,
    };
    if served {
        return None;
    }
    let (local, remote) = (show(local.as_ref()), show(remote.as_ref()));
    let name = &connection.name;
    let message =
        format!("no pre-shared key for connection `{name}`: local identity {local}, remote identity {remote}");
    let help = format!(
        "add to `secrets`: ike-{name} {{ id-1 = {local}; id-2 = {remote}; secret = ... }}, one setting per line"
    );
    Some(Diagnostic::warning("no-secret", span, message).with_help(help).with_path(format!("connections.{name}")))
}

/// Whom the keys belong to, for many questions about it. A key serves a pair as soon as it names one end, as [`ike_model::secret::select`] has it.
#[derive(Default)]
struct Owners {
    /// Owners without wildcards, names in lower case.
    exact: BTreeSet<Identity>,
    /// The others.
    patterns: Vec<Identity>,
    /// A key without owners serves everybody.
    everybody: bool,
    /// A key has several owners.
    pairs: bool,
    /// There is a key.
    any_key: bool,
}

impl Owners {
    fn of<'a>(secrets: impl Iterator<Item = &'a SharedSecret>) -> Self {
        let mut owners = Self::default();
        for secret in secrets {
            owners.any_key = true;
            owners.everybody |= secret.owners.is_empty();
            owners.pairs |= secret.owners.len() > 1;
            for owner in &secret.owners {
                if owner.is_concrete() {
                    owners.exact.insert(lower_case(owner));
                } else {
                    owners.patterns.push(owner.clone());
                }
            }
        }
        owners
    }

    fn serve(&self, identity: &Identity) -> bool {
        self.everybody
            || self.exact.contains(&lower_case(identity))
            || self.patterns.iter().any(|pattern| pattern.matches(identity))
    }
}

fn lower_case(identity: &Identity) -> Identity {
    match identity {
        Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
        Identity::Rfc822(name) => Identity::Rfc822(name.to_ascii_lowercase()),
        Identity::Any
        | Identity::Address(_)
        | Identity::DistinguishedName(_)
        | Identity::KeyId(_)
        | Identity::Other(..) => identity.clone(),
    }
}

/// The identity of one end: as configured, or its address, if there is one of these.
fn side(id: Option<&Identity>, addresses: &[HostSpec]) -> Option<Identity> {
    if let Some(id) = id.filter(|id| id.is_concrete()) {
        return Some(id.clone());
    }
    let pattern = id.is_some_and(|id| *id != Identity::Any);
    match addresses {
        [HostSpec::Address(address)] if !pattern => Some(Identity::Address(*address)),
        _ => None,
    }
}

fn show(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "%any".to_owned(), Identity::to_string)
}

/// One pair of selectors of a child that protects traffic.
struct Pair<'a> {
    connection: &'a str,
    child: &'a Child,
    local: TrafficSelector,
    remote: TrafficSelector,
    span: Option<Span>,
}

/// Warnings for children whose selectors overlap without being equal. Equal ones of two connections are a primary and a backup.
fn overlaps(plan: &Plan) -> Vec<Diagnostic> {
    let mut pairs = pairs(plan);
    pairs.sort_by_key(|pair| (pair.remote.addresses.start(), pair.remote.addresses.end()));
    let mut out: Vec<Diagnostic> = Vec::new();
    let mut open: Vec<&Pair<'_>> = Vec::new();
    for pair in &pairs {
        open.retain(|earlier| ends_after(earlier, pair.remote.addresses.start()));
        for earlier in &open {
            if out.len() >= MAX_OVERLAPS {
                return out;
            }
            out.extend(overlap(earlier, pair));
        }
        open.push(pair);
    }
    out
}

fn ends_after(pair: &Pair<'_>, start: IpAddr) -> bool {
    pair.remote.addresses.end() >= start
}

fn pairs(plan: &Plan) -> Vec<Pair<'_>> {
    let mut out = Vec::new();
    for planned in &plan.connections {
        let Some(connection) = &planned.connection else { continue };
        for child in connection.children.iter().filter(|child| matches!(child.mode, ChildMode::Tunnel)) {
            let path = format!("connections.{}.children.{}", connection.name, child.name);
            for local in fixed(&child.local_ts) {
                for remote in fixed(&child.remote_ts) {
                    let span = planned.spans.find(&format!("{path}.remote_ts"));
                    out.push(Pair { connection: &connection.name, child, local, remote, span });
                }
            }
        }
    }
    out
}

fn fixed(selectors: &[ConfiguredSelector]) -> impl Iterator<Item = TrafficSelector> {
    selectors.iter().filter_map(|selector| match selector {
        ConfiguredSelector::Fixed(ts) => Some(*ts),
        ConfiguredSelector::Dynamic { .. } => None,
    })
}

fn overlap(a: &Pair<'_>, b: &Pair<'_>) -> Option<Diagnostic> {
    let same_child = a.connection == b.connection && a.child.name == b.child.name;
    let equal = a.local == b.local && a.remote == b.remote && a.connection != b.connection;
    if same_child || equal || a.local.intersection(&b.local).is_none() || a.remote.intersection(&b.remote).is_none() {
        return None;
    }
    // The later place in the files is the one to look at.
    let (first, second) = if a.span <= b.span { (a, b) } else { (b, a) };
    let name = |pair: &Pair<'_>| format!("{}/{}", pair.connection, pair.child.name);
    let message = format!(
        "traffic selectors of {} ({} === {}) overlap those of {} ({} === {})",
        name(second),
        second.local,
        second.remote,
        name(first),
        first.local,
        first.remote
    );
    let help = "the more specific selector takes the traffic that both match; set `priority` to decide otherwise";
    let path = format!("connections.{}.children.{}", second.connection, second.child.name);
    Some(Diagnostic::warning("overlap", second.span, message).with_help(help).with_path(path))
}
