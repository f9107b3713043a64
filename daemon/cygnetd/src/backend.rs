//! The data path this daemon runs on.

#[cfg(feature = "kernel")]
mod kernel;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::Context as _;
use ipsec::{DeviceTable, OffloadBackend, Reports};
use offload_host::{Family, sockets};
use offload_userspace::{Userspace, UserspaceConfig, nic};
use swanctl_compat::load_conn::offload::Devices;

use crate::config::{self, BackendKind, Config};
use crate::workers::Exempt;

/// Which data path, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our own, behind a TUN device.
    Userspace,
    /// The Linux kernel's.
    #[cfg(feature = "kernel")]
    Kernel,
}

/// A running backend.
pub(crate) struct Started {
    /// The backend.
    pub(crate) backend: Arc<dyn OffloadBackend>,
    /// The same where it simulates NICs, for orders to them.
    pub(crate) simulator: Option<Arc<Userspace>>,
    /// What is particular to it.
    pub(crate) nature: Nature,
}

/// What a backend does to the host, and what it is to those who look.
#[derive(Clone, Debug)]
pub(crate) struct Nature {
    /// Which it is.
    pub(crate) kind: Kind,
    /// Its tunnel device.
    pub(crate) tunnel: Option<String>,
    /// Routing table of ours.
    pub(crate) table: u32,
    /// Priority of the rule that leads there.
    pub(crate) rule_priority: u32,
    /// Mark of our outer packets; 0 = none.
    pub(crate) mark: u32,
    /// We keep routes.
    pub(crate) install_routes: bool,
    /// What it cannot do without and does not have, in one sentence.
    pub(crate) lacks: Option<String>,
}

impl Kind {
    /// Name, as shown with every CHILD SA.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            #[cfg(feature = "kernel")]
            Self::Kernel => "kernel",
        }
    }
}

impl Nature {
    /// Whether the kernel is the data path.
    pub(crate) fn is_kernel(&self) -> bool {
        match self.kind {
            Kind::Userspace => false,
            #[cfg(feature = "kernel")]
            Kind::Kernel => true,
        }
    }

    /// Of a backend with these settings.
    pub(crate) fn of(kind: Kind, config: &config::Backend) -> Self {
        match kind {
            Kind::Userspace => {
                let config::Userspace { device, table, rule_priority, mark, install_routes, .. } = &config.userspace;
                let (table, rule_priority, mark) = (*table, *rule_priority, *mark);
                let tunnel = Some(device.clone());
                Self { kind, tunnel, table, rule_priority, mark, install_routes: *install_routes, lacks: None }
            }
            #[cfg(feature = "kernel")]
            Kind::Kernel => {
                let config::Kernel { table, rule_priority, mark, install_routes, .. } = config.kernel;
                // Without routes of ours there is nothing that our own packets are to be kept out of.
                let mark = if install_routes { mark } else { 0 };
                Self { kind, tunnel: None, table, rule_priority, mark, install_routes, lacks: None }
            }
        }
    }
}

/// Which data path to use.
pub(crate) fn choose(config: &config::Backend) -> Kind {
    match config.kind {
        BackendKind::Userspace => Kind::Userspace,
        #[cfg(feature = "kernel")]
        BackendKind::Kernel => Kind::Kernel,
        // The settings refuse it.
        #[cfg(not(feature = "kernel"))]
        BackendKind::Kernel => Kind::Userspace,
        BackendKind::Auto => {
            let (kind, reason) = best(config);
            tracing::info!("backend.kind = \"auto\": using the {} backend: {reason}", kind.name());
            kind
        }
    }
}

/// The best there is, and why.
#[cfg(feature = "kernel")]
fn best(config: &config::Backend) -> (Kind, String) {
    if config.userspace.simulate_packet_device {
        return (Kind::Userspace, "a NIC is to be simulated".into());
    }
    match kernel::lacks() {
        None => (Kind::Kernel, "this kernel has ESP".into()),
        Some(lacks) => (Kind::Userspace, lacks),
    }
}

#[cfg(not(feature = "kernel"))]
fn best(_config: &config::Backend) -> (Kind, String) {
    (Kind::Userspace, "this build does not have the kernel backend".into())
}

/// Starts the backend.
///
/// # Errors
/// One sentence naming the device, capability, table or file that is missing or taken.
pub(crate) fn start(kind: Kind, config: &Config, reports: Arc<dyn Reports>) -> anyhow::Result<Started> {
    match kind {
        Kind::Userspace => userspace(config, reports),
        #[cfg(feature = "kernel")]
        Kind::Kernel => kernel::start(config, reports),
    }
}

fn userspace(config: &Config, reports: Arc<dyn Reports>) -> anyhow::Result<Started> {
    let userspace = &config.backend.userspace;
    let settings = UserspaceConfig {
        device: userspace.device.clone(),
        threads: userspace.threads,
        mtu: userspace.mtu.into(),
        table: userspace.table,
        rule_priority: userspace.rule_priority,
        mark: userspace.mark,
        install_routes: userspace.install_routes,
        ike_ports: ike_ports(config),
        simulation: userspace.simulate_packet_device.then(|| userspace.simulation.clone()),
    };
    let simulates = settings.simulation.is_some();
    let backend = Userspace::start(settings, reports).context("cannot start the userspace backend")?;
    let nature = Nature::of(Kind::Userspace, &config.backend);
    Ok(Started { simulator: simulates.then(|| Arc::clone(&backend)), backend, nature })
}

/// UDP ports of IKE.
fn ike_ports(config: &Config) -> [u16; 2] {
    [config.ike.settings.port, config.ike.settings.nat_port]
}

/// What children are held against while no backend runs: the devices that it would have if it were started now. What the kernel and its links
/// can do is known once they were asked, so of them nothing is.
pub(crate) fn expected_devices(kind: Option<Kind>, config: &Config) -> Devices {
    let userspace = &config.backend.userspace;
    let simulation = userspace.simulate_packet_device.then_some(&userspace.simulation);
    let (table, may_appear) = match kind {
        Some(Kind::Userspace) => (nic::expected_devices(&userspace.device, simulation), false),
        #[cfg(feature = "kernel")]
        Some(Kind::Kernel) => (DeviceTable::default(), true),
        None => (DeviceTable::default(), true),
    };
    Devices { table: table.into(), replay_window: config.ike.settings.replay_window, may_appear }
}

/// Which data path it will be, as far as the settings alone say.
pub(crate) fn configured(config: &config::Backend) -> Option<Kind> {
    match config.kind {
        BackendKind::Auto if config.userspace.simulate_packet_device => Some(Kind::Userspace),
        BackendKind::Auto => None,
        BackendKind::Userspace | BackendKind::Kernel => Some(choose(config)),
    }
}

/// Takes sockets out of what the backend routes, protects and guards.
pub(crate) fn exemption(nature: &Nature) -> Arc<Exempt> {
    let mark = nature.mark;
    Arc::new(move |socket: BorrowedFd<'_>, v6: bool| {
        const NEEDS: &str = "cannot exempt an IKE socket from routing and guards: is the capability NET_ADMIN missing?";
        let family = if v6 { Family::V6 } else { Family::V4 };
        if mark != 0 {
            sockets::set_mark(socket, mark).context(NEEDS)?;
        }
        sockets::socket_bypass(socket, family).context(NEEDS)?;
        Ok(())
    })
}
