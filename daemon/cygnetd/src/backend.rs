//! The data path this daemon runs on.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::Context as _;
use ipsec::{OffloadBackend, Reports};
use offload_host::{Family, sockets};
use offload_userspace::{Userspace, UserspaceConfig};
use swanctl_compat::load_conn::offload::OffloadSupport;

use crate::config::{Backend, BackendKind};
use crate::workers::Exempt;

/// Name of the only backend of this build, as shown with every CHILD SA.
pub(crate) const NAME: &str = "userspace";

/// Starts the backend; IKE has these UDP ports.
///
/// # Errors
/// One sentence naming the device, capability, table or file that is missing or taken.
pub(crate) fn start(
    config: &Backend,
    ike_ports: [u16; 2],
    reports: Arc<dyn Reports>,
) -> anyhow::Result<Arc<dyn OffloadBackend>> {
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
        simulate_packet_device: userspace.simulate_packet_device,
    };
    Ok(Userspace::start(config, reports).context("cannot start the userspace backend")?)
}

/// What children may ask of the device.
pub(crate) fn offload(config: &Backend) -> OffloadSupport {
    let reason = "the userspace datapath has no NIC to offload to";
    OffloadSupport {
        crypto: false,
        packet: config.userspace.simulate_packet_device,
        marks: false,
        interface_ids: false,
        device: config.userspace.device.as_str().into(),
        reason,
    }
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
