//! `cygnet doctor`: collects what [`ike_model::doctor`] judges, from configuration, backend and host.

mod host;

use std::sync::Arc;

use ike_model::doctor::{Check, ChildFit, Facts, Path, examine};
use ike_model::snapshot::ConfiguredState;
use ike_model::why::largest_inner;
use ike_model::{Child, ChildMode, ConfiguredChildStatus, Connection, IkeSaSnapshot};
use ipsec::preflight::{Asks, Entries, Note, PolicyKind, ladder_plan};
use ipsec::{DeviceTable, LimitUnit, OffloadBackend, OuterAddresses, SelectorPair};

use crate::config;
use crate::core::Core;
use crate::why::ends;
use host::{Question, Seen};

/// Looks at everything.
///
/// # Errors
/// The host could not be asked.
pub(crate) async fn doctor(core: &Core) -> Result<(Arc<DeviceTable>, Vec<Check>), String> {
    let devices = core.shared.backend.devices();
    let ike_sas = core.ike_sas().await;
    let connections = core.store.connections(None);
    let children: Vec<(&Connection, &Child)> = connections
        .iter()
        .flat_map(|connection| connection.children.iter().map(move |child| (&**connection, &**child)))
        .collect();
    let outer = |connection: &Connection| ends(connection, &ike_sas).addresses();
    let mut pairs: Vec<SelectorPair> =
        children.iter().flat_map(|(connection, child)| configured(child, outer(connection))).collect();
    pairs.extend(core.specs().await.iter().flat_map(|specs| &specs.guards).map(|guard| guard.selectors));
    let question = Question {
        config: core.config.clone(),
        account: core.account.clone(),
        settings: config::files(core.settings_file.as_deref()),
        nature: core.nature.clone(),
        devices: devices.devices.iter().map(|device| device.name.to_string()).collect(),
        pairs,
        peers: connections.iter().map(|connection| (connection.name.clone(), outer(connection))).collect(),
    };
    let asked = tokio::task::spawn_blocking(move || host::look(&question)).await.map_err(|error| error.to_string())?;
    let Seen { facts, mtus } = asked.map_err(|error| format!("the host kernel cannot be asked: {error}"))?;
    let facts = Facts {
        devices: (*devices).clone(),
        children: children.iter().map(|(connection, child)| fit(core, &devices, connection, child, &ike_sas)).collect(),
        refused: core.configured(None).await.into_iter().filter_map(refused).collect(),
        paths: connections.iter().filter_map(|connection| path(core, connection, &ike_sas, &mtus)).collect(),
        ..facts
    };
    Ok((devices, examine(&facts)))
}

fn refused(status: ConfiguredChildStatus) -> Option<(String, String)> {
    match status.state {
        ConfiguredState::Refused(reason) => Some((format!("{}/{}", status.connection, status.child), reason)),
        ConfiguredState::Up
        | ConfiguredState::Connecting
        | ConfiguredState::Trapped
        | ConfiguredState::Shunt
        | ConfiguredState::RetryIn(_)
        | ConfiguredState::Down => None,
    }
}

fn configured(child: &Child, outer: OuterAddresses) -> Vec<SelectorPair> {
    ike_sa::configured_pairs(child, outer).unwrap_or_default()
}

/// A child held against its device, by the same check that it meets before it is negotiated.
fn fit(
    core: &Core,
    devices: &DeviceTable,
    connection: &Connection,
    child: &Child,
    ike_sas: &[IkeSaSnapshot],
) -> ChildFit {
    let outer = ends(connection, ike_sas).addresses();
    let name = format!("{}/{}", connection.name, child.name);
    let wanted = child.hw_offload;
    let backend: &dyn OffloadBackend = &*core.shared.backend;
    let device = backend.device_for(outer.local, outer.remote).and_then(|device| devices.get(device));
    let Some(device) = device else {
        let device = Err(format!("no device carries traffic to {}", outer.remote));
        return ChildFit { name, wanted, device, fits: Vec::new(), rejected: Vec::new(), notes: Vec::new() };
    };
    let asks = child.asks(connection, core.config.ike.settings.replay_window, outer);
    let kind = match child.mode {
        ChildMode::Tunnel | ChildMode::Transport => asks.kind,
        ChildMode::Pass | ChildMode::Drop => PolicyKind::Shunt,
    };
    let asks = Asks { kind, selectors: if child.policies { configured(child, outer) } else { Vec::new() }, ..asks };
    let plan = ladder_plan(device, wanted, &asks, |_| Entries::default());
    ChildFit {
        name,
        wanted,
        device: Ok(device.name.clone()),
        fits: plan.rungs.iter().map(|rung| rung.mode.mode).collect(),
        rejected: plan.rejected.iter().map(ToString::to_string).collect(),
        notes: plan.notes.iter().map(|note| noted(*note)).collect(),
    }
}

fn noted(note: Note) -> String {
    let Note::Emulated(unit) = note;
    let unit = match unit {
        LimitUnit::Time => "time",
        LimitUnit::Bytes => "octets",
        LimitUnit::Packets => "packets",
    };
    format!("the device watches no limits in {unit}: cygnetd does by its counters")
}

/// The way to a peer, with the largest packet that every child of the connection carries.
fn path(core: &Core, connection: &Connection, ike_sas: &[IkeSaSnapshot], mtus: &[(String, u32)]) -> Option<Path> {
    let outer = ends(connection, ike_sas).addresses();
    let mtu = mtus.iter().find(|(name, _)| *name == connection.name).map(|(_, mtu)| *mtu)?;
    let settings = &core.config.ike.settings;
    let plans = connection
        .children
        .iter()
        .filter_map(|child| ike_sa::planned(connection, child, settings, ipsec::DeviceId(0), outer).ok());
    let sas: Vec<_> = plans.filter_map(|plan| plan.sas.into_iter().next()).collect();
    let udp = ike_sas.iter().filter(|ike| *ike.connection == *connection.name).flat_map(|ike| &ike.children);
    let udp = udp.clone().any(|child| child.encap);
    let v4 = outer.remote.is_ipv4();
    let inner = sas.iter().map(|sa| largest_inner(sa.algorithm, sa.mode, udp || sa.encapsulation.is_some(), v4, mtu));
    let inner_v6 = sas.iter().flat_map(|sa| sa.selectors.iter()).any(|pair| !pair.local.addresses.is_ipv4());
    Some(Path { connection: connection.name.clone(), remote: outer.remote, mtu, inner: inner.min()?, inner_v6 })
}
