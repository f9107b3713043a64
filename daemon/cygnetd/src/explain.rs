//! `cygnet explain`: collects what [`swanctl_compat::explain`] writes down, from core, backend and host kernel.

#[cfg(feature = "kernel")]
mod kernel;

use std::net::IpAddr;

use ike_model::specs::{ChildSpecs, Origin};
use ike_model::{ChildMode, Connection, config::FailClosed};
use ipsec::{AddressRange, DeviceId, SelectorPair};
use offload_host::HostError;
use offload_host::probe::{KernelPolicy, OwnAddress, Probe, SeenRule, TableRoute};
use swanctl_compat::explain::{Block, Surroundings, blocks};

use crate::backend::Nature;
use crate::core::Core;
use crate::why::ends;

#[cfg(feature = "kernel")]
use self::kernel::Tables;

/// The blocks of a connection, child by child.
///
/// # Errors
/// The host could not be asked.
pub(crate) async fn explain(core: &Core, connection: &Connection, only: Option<&str>) -> Result<Vec<Block>, String> {
    let around = Surroundings {
        backend: core.nature.kind.name(),
        devices: core.shared.backend.devices().devices.iter().map(|device| (device.id, device.name.clone())).collect(),
        modes: core.list().await.unwrap_or_default().into_iter().map(|status| (status.sa, status.mode)).collect(),
        ike_ports: [core.config.ike.settings.port, core.config.ike.settings.nat_port],
        ..Surroundings::default()
    };
    let nature = core.nature.clone();
    let asked = tokio::task::spawn_blocking(move || Host::read(nature)).await.map_err(|error| error.to_string())?;
    let mut host = asked.map_err(|error| format!("the host kernel cannot be asked: {error}"))?;
    let all = core.specs().await;
    let mut out = Vec::new();
    for child in connection.children.iter().filter(|child| only.is_none_or(|only| only == child.name)) {
        let mine = |specs: &&ChildSpecs| *specs.connection == *connection.name && *specs.child == *child.name;
        let mut found: Vec<ChildSpecs> = all.iter().filter(mine).cloned().collect();
        let shunt = matches!(child.mode, ChildMode::Pass | ChildMode::Drop);
        // A trap alone does not say what comes of it.
        let is_complete = |specs: &ChildSpecs| shunt || matches!(specs.origin, Origin::Sa(_));
        if !found.iter().any(is_complete) {
            let outer = ends(connection, &core.ike_sas().await).addresses();
            let device = core.shared.backend.device_for(outer.local, outer.remote).unwrap_or(DeviceId(0));
            match ike_sa::planned(connection, child, &core.config.ike.settings, device, outer) {
                Ok(plan) => found.push(plan),
                Err(reason) => out.push(cannot(connection, &child.name, &reason)),
            }
        }
        for specs in &found {
            let guarded = core.config.ike.settings.fail_closed != FailClosed::Off;
            out.extend(blocks(specs, &host.around(specs, around.clone(), guarded)));
        }
    }
    Ok(out)
}

fn cannot(connection: &Connection, child: &str, reason: &str) -> Block {
    let of = format!("{}/{child}", connection.name);
    let about = "What would be installed is not known before the peer is".to_owned();
    Block { of, state: "planned", about, commands: vec![format!("# {reason}")] }
}

const HIDDEN: &str = "the kernel does not show its SAs and policies";

/// What the host kernel holds of ours.
struct Host {
    nature: Nature,
    tables: Option<Tables>,
    probe: Probe,
    guard: Vec<KernelPolicy>,
    rules: Vec<SeenRule>,
    routes: Vec<TableRoute>,
    addresses: Vec<OwnAddress>,
}

impl Host {
    fn read(nature: Nature) -> Result<Self, HostError> {
        let mut probe = Probe::open()?;
        let mut guard: Vec<_> = probe.policies()?.into_iter().filter(|policy| policy.ours).collect();
        guard.sort_by_key(KernelPolicy::order);
        let (rules, routes) = (probe.rules()?, probe.routes(nature.table)?);
        let addresses = probe.addresses()?;
        let tables = tables(&nature);
        Ok(Self { nature, tables, probe, guard, rules, routes, addresses })
    }

    /// What concerns one child.
    fn around(&mut self, specs: &ChildSpecs, around: Surroundings, guarded: bool) -> Surroundings {
        let mut pairs: Vec<SelectorPair> = specs.policies.iter().map(|policy| policy.selectors).collect();
        pairs.sort();
        pairs.dedup();
        let guards: Vec<_> = specs.guards.iter().map(|guard| guard.selectors).collect();
        let standing = self.guard.iter().filter(|policy| guards.iter().any(|pair| policy.concerns(pair)));
        let mut guard: Vec<KernelPolicy> = standing.cloned().collect();
        if specs.origin == Origin::Planned && guarded && guard.is_empty() {
            let Nature { tunnel, mark, install_routes, .. } = self.nature.clone();
            let tunnel = tunnel.as_deref().map(|tunnel| (tunnel, mark));
            let planned = guards.iter().filter_map(|pair| self.probe.guard_of(pair, tunnel, install_routes).ok());
            guard = planned.flatten().collect();
        }
        let tables = self.tables.as_mut().filter(|_| specs.origin != Origin::Planned);
        let held = tables.and_then(|all| all.held(specs).inspect_err(|error| tracing::warn!(%error, "{HIDDEN}")).ok());
        let guard = guard.iter().map(|one| if one.is_writable() { Ok(one.to_string()) } else { Err(one.to_string()) });
        Surroundings { guard: guard.collect(), routing: self.routing(&pairs), held, ..around }
    }

    /// Rules first, then routes; those that are not there yet as they would be.
    fn routing(&self, pairs: &[SelectorPair]) -> Vec<String> {
        if !self.nature.install_routes {
            return Vec::new();
        }
        let v4 = |family| family == offload_host::Family::V4;
        let concerns =
            |rule: &&SeenRule| rule.ours && pairs.iter().any(|pair| pair.remote.addresses.is_ipv4() == v4(rule.family));
        let mut lines: Vec<String> = self.rules.iter().filter(concerns).map(|rule| rule.text.clone()).collect();
        for pair in pairs {
            for (address, length) in pair.remote.addresses.prefixes() {
                let there: Vec<_> = self.routes.iter().filter(|route| route.destination == (address, length)).collect();
                match there.is_empty() {
                    false => lines.extend(there.into_iter().map(|route| route.text.clone())),
                    true => lines.extend(self.route((address, length), pair.local.addresses)),
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        lines.retain(|line| seen.insert(line.clone()));
        lines
    }

    /// The route that would be made; none where there is no tunnel device: what it is then depends on the peer's.
    fn route(&self, (address, length): (IpAddr, u8), local: AddressRange) -> Option<String> {
        let Nature { tunnel, table, .. } = &self.nature;
        let device = tunnel.as_ref()?;
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let source = self.addresses.iter().find(|own| local.contains(own.address) && !is_link_local(own.address));
        let source = source.map(|own| format!(" src {}", own.address)).unwrap_or_default();
        Some(format!("{family} route add {address}/{length} dev {device}{source} table {table} proto 67"))
    }
}

/// The kernel's tables, where they are the backend's.
#[cfg(feature = "kernel")]
fn tables(nature: &Nature) -> Option<Tables> {
    let tables = nature.is_kernel().then(Tables::read)?;
    tables.inspect_err(|error| tracing::warn!(%error, "{HIDDEN}")).ok()
}

#[cfg(not(feature = "kernel"))]
fn tables(_nature: &Nature) -> Option<Tables> {
    None
}

/// No other backend keeps anything in the kernel.
#[cfg(not(feature = "kernel"))]
enum Tables {}

#[cfg(not(feature = "kernel"))]
impl Tables {
    fn held(&mut self, _specs: &ChildSpecs) -> Result<swanctl_compat::explain::Held, HostError> {
        match *self {}
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
