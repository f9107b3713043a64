//! `cygnet why`: collects what [`ike_model::why`] reasons about, from configuration, core, backend and host kernel.
//!
//! The data path is looked at twice, a moment apart, so that it shows what moves; the host is asked meanwhile.

pub(crate) mod host;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ike_model::why::{ChildFacts, Drops, Facts, Report, walk};
use ike_model::{ConfiguredChildStatus, Connection, HostSpec, IkeSaSnapshot};
use ipsec::{OuterAddresses, SaStatus};
use offload_host::probe;
use swanctl_compat::request::WhyQuestion;

use crate::core::Core;
use host::{HostQuestion, Peer};

/// Between the two looks at the data path.
const SAMPLE: Duration = Duration::from_millis(200);

/// Walks one packet.
///
/// # Errors
/// The host could not be asked.
pub(crate) async fn why(core: &Core, question: &WhyQuestion) -> Result<Report, String> {
    let started = Instant::now();
    let before = statuses(core).await;
    let drops = drops(core);
    let ike_sas = core.ike_sas().await;
    let connections = core.store.connections(None);
    let ends = connections.iter().map(|connection| (connection.name.clone(), ends(connection, &ike_sas)));
    let ends: BTreeMap<String, Ends> = ends.collect();
    let peers =
        ends.iter().map(|(name, ends)| Peer { connection: name.clone(), local: ends.local, remote: ends.remote });
    let host = HostQuestion {
        packet: question.packet,
        arrival: question.arrival.clone(),
        tunnel: core.nature.tunnel.clone(),
        mark: core.nature.mark,
        peers: peers.collect(),
    };
    let answer = tokio::task::spawn_blocking(move || host::ask(&host)).await.map_err(|error| error.to_string())?;
    let (host, outer) = answer.map_err(|error| format!("the host kernel cannot be asked: {error}"))?;
    tokio::time::sleep(SAMPLE.saturating_sub(started.elapsed())).await;
    let statuses_of = core.configured(None).await;
    let children = connections.iter().flat_map(|connection| {
        connection.children.iter().map(|child| ChildFacts {
            connection: connection.clone(),
            child: child.clone(),
            pairs: ends.get(&connection.name).map(|ends| ends.pairs(child)).unwrap_or_default(),
            status: status_of(&statuses_of, &connection.name, &child.name),
        })
    });
    let facts = Facts {
        packet: question.packet,
        size: question.size,
        host,
        children: children.collect(),
        specs: core.specs().await,
        ike_sas: core.ike_sas().await,
        devices: (*core.shared.backend.devices()).clone(),
        before,
        after: statuses(core).await,
        sampled_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        outer,
        drops: moved(&drops, self::drops(core)),
    };
    Ok(walk(&facts))
}

/// What the data path holds; one that does not answer holds nothing as far as we can see.
async fn statuses(core: &Core) -> Vec<SaStatus> {
    core.list().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the backend does not say what is installed");
        Vec::new()
    })
}

/// What the data path has dropped: the kernel's own counters as they are now, where it is that.
pub(crate) fn drops(core: &Core) -> Vec<(String, u64)> {
    if core.nature.is_kernel() {
        return probe::ipsec_drops();
    }
    core.shared.backend.drops().into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

fn moved(before: &[(String, u64)], after: Vec<(String, u64)>) -> Vec<Drops> {
    let before_of = |reason: &str| before.iter().find(|(name, _)| name == reason).map_or(0, |(_, count)| *count);
    let drops = after.into_iter().filter(|(_, count)| *count > 0);
    drops.map(|(reason, after)| Drops { before: before_of(&reason), reason, after }).collect()
}

fn status_of(all: &[ConfiguredChildStatus], connection: &str, child: &str) -> ConfiguredChildStatus {
    let found = all.iter().find(|status| status.connection == connection && status.child == child);
    found.cloned().unwrap_or_else(|| ConfiguredChildStatus {
        connection: connection.to_owned(),
        child: child.to_owned(),
        state: ike_model::snapshot::ConfiguredState::Down,
        offload: None,
        failures: 0,
        last_cause: None,
    })
}

/// Outer addresses of a connection: those of its IKE SA, else what the configuration fixes.
pub(crate) struct Ends {
    pub(crate) local: Option<IpAddr>,
    pub(crate) remote: Option<IpAddr>,
    v4: bool,
}

impl Ends {
    /// With unspecified addresses where none is known.
    pub(crate) fn addresses(&self) -> OuterAddresses {
        let none = if self.v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        OuterAddresses { local: self.local.unwrap_or(none), remote: self.remote.unwrap_or(none) }
    }

    /// What is configured, as far as it can be said.
    fn pairs(&self, child: &ike_model::Child) -> Vec<ipsec::SelectorPair> {
        ike_sa::configured_pairs(child, self.addresses()).unwrap_or_default()
    }
}

/// The outer addresses of a connection.
pub(crate) fn ends(connection: &Connection, ike_sas: &[IkeSaSnapshot]) -> Ends {
    if let Some(ike) = ike_sas.iter().rev().find(|ike| *ike.connection == *connection.name) {
        let known = |address: IpAddr| (!address.is_unspecified()).then_some(address);
        let (local, remote) = (known(ike.local.ip()), known(ike.remote.ip()));
        return Ends { local, remote, v4: ike.remote.is_ipv4() };
    }
    let fixed = |specs: &[HostSpec]| {
        specs.iter().find_map(|spec| match spec {
            HostSpec::Address(address) => Some(*address).filter(|address| !address.is_unspecified()),
            HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
        })
    };
    let (local, remote) = (fixed(&connection.local_addrs), fixed(&connection.remote_addrs));
    let v4 = remote.or(local).is_none_or(|address| address.is_ipv4());
    Ends { local: local.filter(|address| address.is_ipv4() == v4), remote, v4 }
}
