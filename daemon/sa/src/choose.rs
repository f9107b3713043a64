//! Choosing the connection for a peer: by addresses in IKE_SA_INIT, by identities in IKE_AUTH.

use std::net::IpAddr;
use std::sync::Arc;

use ike_model::config::AuthMethod;
use ike_model::identity::IdentityMatch;
use ike_model::{CauseKind, ConfigSnapshot, Connection, HostSpec, Identity};
use ipsec::Path;

use crate::error::Error;
use crate::suite::IkeSuite;

/// How exactly an address specification names an address; higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AddressMatch {
    /// `%any`, or a name that says nothing before it is resolved.
    Any,
    /// A range or network.
    Range,
    /// The address itself.
    Host,
}

fn match_address(specs: &[HostSpec], address: IpAddr) -> Option<AddressMatch> {
    let one = |spec: &HostSpec| match spec {
        // Names resolve only where something may wait; the identity decides then.
        HostSpec::Any | HostSpec::Name(_) => Some(AddressMatch::Any),
        HostSpec::Address(host) => (*host == address).then_some(AddressMatch::Host),
        HostSpec::Range(range) => range.contains(address).then_some(AddressMatch::Range),
    };
    if specs.is_empty() { Some(AddressMatch::Any) } else { specs.iter().filter_map(one).max() }
}

/// Whether an address is among those specified.
pub(crate) fn allows(specs: &[HostSpec], address: IpAddr) -> bool {
    match_address(specs, address).is_some()
}

/// Connections that may serve a peer on this way, the best match first: host over range over `%any`, the peer's address before ours.
pub(crate) fn by_addresses(config: &ConfigSnapshot, path: Path) -> Vec<Arc<Connection>> {
    let mut found: Vec<_> = config
        .connections
        .values()
        .filter_map(|connection| {
            let remote = match_address(&connection.remote_addrs, path.remote.ip())?;
            let local = match_address(&connection.local_addrs, path.local.ip())?;
            Some(((remote, local), connection.clone()))
        })
        .collect();
    // Stable, so equal matches stay in the order of their names.
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found.into_iter().map(|(_, connection)| connection).collect()
}

/// Our identity below a connection: configured, or our address.
pub(crate) fn local_identity(connection: &Connection, path: Path) -> Identity {
    match connection.local.first().map(|round| &round.id) {
        Some(id) if id.is_concrete() => id.clone(),
        Some(_) | None => Identity::Address(path.local.ip()),
    }
}

/// The identity we expect of the peer.
pub(crate) fn remote_pattern(connection: &Connection) -> Identity {
    connection.remote.first().map_or(Identity::Any, |round| round.id.clone())
}

fn uses_psk(connection: &Connection) -> bool {
    let psk = |round: Option<&ike_model::AuthRound>| {
        round.is_none_or(|round| match round.method {
            AuthMethod::Psk | AuthMethod::Any => true,
        })
    };
    psk(connection.local.first()) && psk(connection.remote.first())
}

/// The candidate that fits the identities best, with our identity below it. `wanted` is the identity that the peer expects of us (IDr). Between
/// connections with the same identities the one decides that `serves` the child which the peer asks for.
pub(crate) fn by_identities(
    candidates: &[Arc<Connection>],
    path: Path,
    suite: IkeSuite,
    remote: &Identity,
    wanted: Option<&Identity>,
    serves: impl Fn(&Connection) -> bool,
) -> Result<(Arc<Connection>, Identity), Error> {
    let mut best: Option<((IdentityMatch, bool), &Arc<Connection>, Identity)> = None;
    for connection in candidates {
        let local = local_identity(connection, path);
        let fits = wanted.is_none_or(|wanted| local.match_against(wanted) == IdentityMatch::Exact);
        let rank = remote_pattern(connection).match_against(remote);
        let usable =
            fits && rank > IdentityMatch::None && uses_psk(connection) && suite.allowed_by(&connection.proposals);
        let rank = (rank, usable && serves(connection));
        // The first of equals wins: candidates come with the best address match first.
        if usable && best.as_ref().is_none_or(|(known, _, _)| rank > *known) {
            best = Some((rank, connection, local));
        }
    }
    let Some((_, connection, local)) = best else {
        let names: Vec<_> = candidates.iter().map(|connection| connection.name.as_str()).collect();
        let wanted = wanted.map_or_else(String::new, |wanted| format!(" that wants '{wanted}' of us"));
        return Err(Error::AuthenticationFailed {
            kind: CauseKind::NoConfiguration,
            text: format!(
                "no connection for peer '{remote}'{wanted} among those for {} ... {}: {}",
                path.local.ip(),
                path.remote.ip(),
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
        });
    };
    Ok((connection.clone(), local))
}

/// The pre-shared key for a pair of identities.
pub(crate) fn psk<'c>(
    config: &'c ConfigSnapshot,
    local: &Identity,
    remote: &Identity,
) -> Result<&'c ike_model::SharedSecret, Error> {
    ike_model::secret::select(config.secrets.iter().map(Arc::as_ref), local, remote).ok_or_else(|| {
        Error::AuthenticationFailed {
            kind: CauseKind::NoSecret,
            text: format!("no pre-shared key for '{local}' - '{remote}'"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_beats_range_beats_any() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let range = ipsec::AddressRange::prefix("192.0.2.0".parse().unwrap(), 24).unwrap();
        let specs = [HostSpec::Any, HostSpec::Range(range), HostSpec::Address(address)];
        assert_eq!(match_address(&specs, address), Some(AddressMatch::Host));
        assert_eq!(match_address(&specs[..2], address), Some(AddressMatch::Range));
        assert_eq!(match_address(&specs[..1], address), Some(AddressMatch::Any));
        assert_eq!(match_address(&specs[1..2], "198.51.100.1".parse().unwrap()), None);
        assert_eq!(match_address(&[], address), Some(AddressMatch::Any));
    }
}
