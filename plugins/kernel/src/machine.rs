//! The host that the backend really runs on.

use std::io;
use std::os::fd::OwnedFd;

use ipsec::{GuardSpec, OffloadError, OnStop, PolicyAction, PolicySpec, SaMode};
use offload_host::devices::Link;
use offload_host::{HostError, KernelHost, Routed, Taking, esp_in_udp};

use crate::surroundings::Surroundings;

/// Guard, exemptions, routes and sockets of this machine.
pub(crate) struct Machine {
    host: Option<KernelHost>,
}

impl Machine {
    pub(crate) fn new(host: KernelHost) -> Self {
        Self { host: Some(host) }
    }

    fn change<T>(&mut self, work: impl FnOnce(&mut KernelHost) -> Result<T, HostError>) -> Result<T, OffloadError> {
        let host = self.host.as_mut().ok_or_else(|| OffloadError::Invalid("the backend has stopped".into()))?;
        work(host).map_err(OffloadError::from)
    }
}

/// What a policy takes; nothing where it lets pass.
fn taking(policy: &PolicySpec, device: Option<u32>) -> Option<Taking> {
    // What is bound to an interface id is led into that XFRM interface by routes of the user's own.
    let routes = policy.tags.if_id == 0;
    let routed = match policy.action {
        PolicyAction::Bypass => return None,
        PolicyAction::Protect { mode: SaMode::Tunnel, outer, .. } if routes => Routed::through(outer),
        // A trap does not know its peer.
        PolicyAction::Trap { mode: SaMode::Tunnel, .. } if routes => Routed::ByDestination,
        PolicyAction::Protect { .. } | PolicyAction::Trap { .. } | PolicyAction::Discard => Routed::Plain,
    };
    Some(Taking { pair: policy.selectors, priority: policy.priority, device, routed })
}

impl Surroundings for Machine {
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.change(|host| host.guard(guard))
    }

    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.change(|host| host.unguard(guard))
    }

    fn install_route(&mut self, policy: &PolicySpec, link: Option<u32>) -> Result<(), OffloadError> {
        self.change(|host| match taking(policy, link) {
            Some(taking) => host.protect(&taking),
            None => host.pass(&policy.selectors),
        })
    }

    fn remove_route(&mut self, policy: &PolicySpec, link: Option<u32>) -> Result<(), OffloadError> {
        self.change(|host| match taking(policy, link) {
            Some(taking) => host.unprotect(&taking),
            None => host.unpass(&policy.selectors),
        })
    }

    fn bypass_ike(&mut self, link: &Link) -> Result<(), OffloadError> {
        self.change(|host| {
            // It may have lost what it held before.
            host.device_back(link.index)?;
            host.open_device(link.index)
        })
    }

    fn device_lost(&mut self, link: u32) {
        if let Some(host) = &mut self.host {
            host.device_lost(link);
        }
    }

    fn adopt_nat_sockets(&mut self, sockets: Vec<OwnedFd>) -> io::Result<()> {
        // The option is the socket's, so the daemon's own descriptors of it have it too.
        sockets.iter().try_for_each(|socket| esp_in_udp(socket).map_err(io::Error::other))
    }

    fn refresh(&mut self) -> Result<Vec<String>, OffloadError> {
        self.change(|host| host.follow().map(|followed| followed.restored))
    }

    fn leftovers(&self) -> Vec<String> {
        self.host.as_ref().map(KernelHost::unclaimed).unwrap_or_default()
    }

    fn drop_leftovers(&mut self) -> Result<(), OffloadError> {
        self.change(KernelHost::drop_unclaimed)
    }

    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError> {
        self.host.take().map_or(Ok(()), |host| host.stop(on_stop).map_err(OffloadError::from))
    }
}
