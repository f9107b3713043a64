//! The data path this daemon runs on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::Context as _;
use ipsec::{OffloadBackend, Reports};
use offload_host::{Family, sockets};
use offload_userspace::{Userspace, UserspaceConfig, nic};
use swanctl_compat::load_conn::offload::Devices;

use crate::config::{Backend, BackendKind, Config};
use crate::workers::Exempt;

/// Name of the only backend of this build, as shown with every CHILD SA.
pub(crate) const NAME: &str = "userspace";

/// A running backend.
pub(crate) struct Started {
    /// The backend.
    pub(crate) backend: Arc<dyn OffloadBackend>,
    /// The same where it simulates NICs, for orders to them.
    pub(crate) simulator: Option<Arc<Userspace>>,
}

/// Starts the backend; IKE has these UDP ports.
///
/// # Errors
/// One sentence naming the device, capability, table or file that is missing or taken.
pub(crate) fn start(config: &Backend, ike_ports: [u16; 2], reports: Arc<dyn Reports>) -> anyhow::Result<Started> {
    if config.kind == BackendKind::Auto {
        tracing::info!("backend.kind = \"auto\": using the userspace backend, the only one of this build");
    }
    let userspace = &config.userspace;
    let config = UserspaceConfig {
        device: userspace.device.clone(),
        threads: userspace.threads,
        mtu: userspace.mtu.into(),
        table: userspace.table,
        rule_priority: userspace.rule_priority,
        mark: userspace.mark,
        install_routes: userspace.install_routes,
        ike_ports,
        simulation: userspace.simulate_packet_device.then(|| userspace.simulation.clone()),
    };
    let simulates = config.simulation.is_some();
    let backend = Userspace::start(config, reports).context("cannot start the userspace backend")?;
    Ok(Started { simulator: simulates.then(|| Arc::clone(&backend)), backend })
}

/// What children are held against while no backend runs: the devices that it would have if it were started now.
pub(crate) fn expected_devices(config: &Config) -> Devices {
    let userspace = &config.backend.userspace;
    let simulation = userspace.simulate_packet_device.then_some(&userspace.simulation);
    let table = nic::expected_devices(&userspace.device, simulation).into();
    Devices { table, replay_window: config.ike.settings.replay_window }
}

/// Takes sockets out of what the backend routes and guards.
pub(crate) fn exemption(config: &Backend) -> Arc<Exempt> {
    let mark = config.userspace.mark;
    Arc::new(move |socket: BorrowedFd<'_>, v6: bool| {
        const NEEDS: &str = "cannot exempt an IKE socket from routing and guards: is the capability NET_ADMIN missing?";
        let family = if v6 { Family::V6 } else { Family::V4 };
        sockets::set_mark(socket, mark).context(NEEDS)?;
        sockets::socket_bypass(socket, family).context(NEEDS)?;
        Ok(())
    })
}
