//! Shared secrets and choosing the one for a pair of identities.

use std::fmt;

use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityMatch};

/// Secret octets: wiped on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes a copy of `octets`.
    pub fn new(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.into()))
    }

    /// The octets; for cryptography only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A pre-shared key and whom it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSecret {
    /// Unique id: the section name in the file, or the id a VICI client gave; empty when it gave none.
    pub id: String,
    /// Owners; none = anybody.
    pub owners: Vec<Identity>,
    /// The key.
    pub secret: Secret,
}

impl SharedSecret {
    /// Rank of this secret for a pair of identities; `None` when it does not serve them.
    fn rank(&self, local: &Identity, remote: &Identity) -> Option<Rank> {
        let best = |identity: &Identity| {
            let owners = self.owners.iter().map(|owner| owner.match_against(identity));
            if self.owners.is_empty() { IdentityMatch::Any } else { owners.max().unwrap_or(IdentityMatch::None) }
        };
        let (local, remote) = (best(local), best(remote));
        let named = usize::from(local > IdentityMatch::Any) + usize::from(remote > IdentityMatch::Any);
        (local.max(remote) > IdentityMatch::None).then_some(Rank { named, remote, local })
    }
}

/// Order of preference: how many ends are named, then how well the peer's identity fits, then our own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    named: usize,
    remote: IdentityMatch,
    local: IdentityMatch,
}

/// The best secret for this pair of identities: both ends named over one over none; the first loaded
/// among equals.
pub fn select<'a>(
    secrets: impl IntoIterator<Item = &'a SharedSecret>,
    local: &Identity,
    remote: &Identity,
) -> Option<&'a SharedSecret> {
    let mut best = None;
    for secret in secrets {
        if let Some(rank) = secret.rank(local, remote)
            && best.is_none_or(|(known, _)| rank > known)
        {
            best = Some((rank, secret));
        }
    }
    best.map(|(_, secret)| secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(id: &str, owners: &[&str]) -> SharedSecret {
        SharedSecret {
            id: id.into(),
            owners: owners
                .iter()
                .map(|name| if *name == "%any" { Identity::Any } else { Identity::Fqdn((*name).into()) })
                .collect(),
            secret: Secret::new(id.as_bytes()),
        }
    }

    #[test]
    fn both_owners_beat_one_and_one_beats_none() {
        let all = [secret("open", &[]), secret("one", &["b"]), secret("both", &["a", "b"])];
        let (a, b) = (Identity::Fqdn("a".into()), Identity::Fqdn("b".into()));
        let chosen = |count: usize| select(all.iter().take(count), &a, &b).map(|s| s.id.as_str());
        assert_eq!([chosen(3), chosen(2), chosen(1), chosen(0)], [Some("both"), Some("one"), Some("open"), None]);
        assert_eq!(select(&[secret("x", &["c"])], &a, &b), None);
    }

    #[test]
    fn debug_shows_nothing() {
        assert!(!format!("{:?}", secret("marker", &[])).contains("6d"));
        assert!(format!("{:?}", Secret::new(b"marker")).contains("redacted"));
    }
}
