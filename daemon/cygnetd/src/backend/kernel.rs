//! The Linux kernel's IPsec.

use std::sync::Arc;

use anyhow::Context as _;
use ipsec::Reports;
use offload_host::KernelHostConfig;
use offload_kernel::{Kernel, KernelConfig};

use super::{Kind, Nature, Started, ike_ports};
use crate::config::{self, Config};

/// What this kernel lacks for ESP, in one sentence; nothing where it has it.
pub(super) fn lacks() -> Option<String> {
    offload_kernel::lacks()
}

/// Starts it. Without ESP it starts too: policies, traps and guards work, and each SA fails with a sentence that says what is missing.
pub(super) fn start(config: &Config, reports: Arc<dyn Reports>) -> anyhow::Result<Started> {
    let config::Kernel { install_routes, table, rule_priority, mark, hold_packets, journal } = &config.backend.kernel;
    let host = KernelHostConfig {
        install_routes: *install_routes,
        table: *table,
        rule_priority: *rule_priority,
        mark: *mark,
        ike_ports: ike_ports(config),
        listen: config.ike.listen.clone(),
    };
    let settings = KernelConfig {
        host,
        journal: Some(journal.clone()).filter(|path| !path.as_os_str().is_empty()),
        hold_packets: *hold_packets,
    };
    let backend = Kernel::start(settings, reports).context("cannot start the kernel backend")?;
    let lacks = backend.lacks();
    Ok(Started { backend, simulator: None, nature: Nature { lacks, ..Nature::of(Kind::Kernel, &config.backend) } })
}
