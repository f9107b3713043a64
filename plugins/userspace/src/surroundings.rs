//! The host as the control side sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipsec::{
    AddressRange, GuardSpec, OffloadError, OnStop, PolicyAction, PolicySpec, SaMode, SelectorPair, TrafficSelector,
};

use crate::control::Surroundings;
use crate::io::socket::path_mtu;
use offload_host::{Host, HostError};

/// Path MTU taken for granted when the kernel knows no route yet.
const ETHERNET_MTU: usize = 1500;

/// Routes, guard and addresses of this machine.
pub(crate) struct Machine {
    host: Option<Host>,
    mark: u32,
}

impl Machine {
    pub(crate) fn new(host: Host) -> Self {
        Self { mark: host.config().mark, host: Some(host) }
    }

    fn change<T>(&mut self, work: impl FnOnce(&mut Host) -> Result<T, HostError>) -> Result<T, OffloadError> {
        let host = self.host.as_mut().ok_or_else(|| OffloadError::Invalid("the backend has stopped".into()))?;
        work(host).map_err(OffloadError::from)
    }
}

/// Where the traffic of a policy is led.
enum Way {
    Around,
    Device,
    /// In transport mode.
    DeviceOfHosts,
}

fn way(policy: &PolicySpec) -> Way {
    match policy.action {
        PolicyAction::Bypass => Way::Around,
        PolicyAction::Protect { mode: SaMode::Transport, .. } | PolicyAction::Trap { mode: SaMode::Transport, .. } => {
            Way::DeviceOfHosts
        }
        // What is discarded is led into the device too, where it is counted.
        PolicyAction::Protect { mode: SaMode::Tunnel, .. }
        | PolicyAction::Discard
        | PolicyAction::Trap { mode: SaMode::Tunnel, .. } => Way::Device,
    }
}

impl Surroundings for Machine {
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.change(|host| host.guard(guard))
    }

    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.change(|host| host.unguard(guard))
    }

    fn install_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError> {
        let selectors = &policy.selectors;
        self.change(|host| match way(policy) {
            Way::Around => host.pass(selectors),
            Way::Device => host.protect(selectors),
            Way::DeviceOfHosts => host.protect_hosts(selectors),
        })
    }

    fn remove_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError> {
        let selectors = &policy.selectors;
        self.change(|host| match way(policy) {
            Way::Around => host.unpass(selectors),
            Way::Device | Way::DeviceOfHosts => host.unprotect(selectors),
        })
    }

    fn install_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), OffloadError> {
        self.change(|host| host.outer(local, remote))
    }

    fn remove_outer(&mut self, local: IpAddr, remote: IpAddr) -> Result<(), OffloadError> {
        self.change(|host| host.forget_outer(local, remote))
    }

    fn address_inside(&mut self, selectors: &SelectorPair) -> Option<IpAddr> {
        self.host.as_ref()?.gateway_address(selectors)
    }

    fn addresses(&mut self) -> Vec<IpAddr> {
        let any = |range| {
            let all = TrafficSelector::all(range);
            SelectorPair { local: all, remote: all }
        };
        [AddressRange::ANY_V4, AddressRange::ANY_V6]
            .into_iter()
            .filter_map(|range| self.address_inside(&any(range)))
            .collect()
    }

    fn path_mtu(&mut self, local: IpAddr, remote: IpAddr) -> usize {
        match path_mtu(local, remote, self.mark) {
            Ok(mtu) => mtu,
            Err(error) => {
                tracing::debug!(%local, %remote, %error, "path MTU is unknown");
                ETHERNET_MTU
            }
        }
    }

    fn refresh(&mut self) -> Result<Vec<String>, OffloadError> {
        self.change(|host| host.follow().map(|followed| followed.restored))
    }

    fn leftovers(&self) -> Vec<String> {
        self.host.as_ref().map(Host::unclaimed).unwrap_or_default()
    }

    fn drop_leftovers(&mut self) -> Result<(), OffloadError> {
        self.change(Host::drop_unclaimed)
    }

    fn renew_device(&mut self, ifindex: Option<u32>) -> Result<(), OffloadError> {
        self.change(|host| host.renew_device(ifindex))
    }

    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError> {
        self.host.take().map_or(Ok(()), |host| host.stop(on_stop).map_err(OffloadError::from))
    }
}

/// A machine without routes, guard or links, for a datapath that is fed by hand: packets come and go through the caller.
#[derive(Clone, Debug, Default)]
pub struct NoMachine {
    /// Guards that stand; all clones see the same.
    pub guards: Arc<Mutex<Vec<GuardSpec>>>,
    /// Outbound policies that have a route; all clones see the same.
    pub routes: Arc<Mutex<Vec<PolicySpec>>>,
    /// A route that is refused, to see a request fail halfway.
    pub refused_route: Option<ipsec::PolicyHandle>,
}

impl Surroundings for NoMachine {
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        lock(&self.guards).push(guard.clone());
        Ok(())
    }

    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        let mut guards = lock(&self.guards);
        if let Some(at) = guards.iter().position(|there| there == guard) {
            guards.remove(at);
        }
        Ok(())
    }

    fn install_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError> {
        if self.refused_route == Some(policy.handle) {
            return Err(OffloadError::System { action: "install a route".into(), reason: "refused on request".into() });
        }
        lock(&self.routes).push(policy.clone());
        Ok(())
    }

    fn remove_route(&mut self, policy: &PolicySpec) -> Result<(), OffloadError> {
        let mut routes = lock(&self.routes);
        if let Some(at) = routes.iter().position(|there| there.handle == policy.handle) {
            routes.remove(at);
        }
        Ok(())
    }

    fn install_outer(&mut self, _local: IpAddr, _remote: IpAddr) -> Result<(), OffloadError> {
        Ok(())
    }

    fn remove_outer(&mut self, _local: IpAddr, _remote: IpAddr) -> Result<(), OffloadError> {
        Ok(())
    }

    fn address_inside(&mut self, selectors: &SelectorPair) -> Option<IpAddr> {
        Some(selectors.local.addresses.start())
    }

    fn addresses(&mut self) -> Vec<IpAddr> {
        vec![Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()]
    }

    fn path_mtu(&mut self, _local: IpAddr, _remote: IpAddr) -> usize {
        ETHERNET_MTU
    }

    fn refresh(&mut self) -> Result<Vec<String>, OffloadError> {
        Ok(Vec::new())
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }

    fn drop_leftovers(&mut self) -> Result<(), OffloadError> {
        Ok(())
    }

    fn renew_device(&mut self, _ifindex: Option<u32>) -> Result<(), OffloadError> {
        Ok(())
    }

    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError> {
        lock(&self.routes).clear();
        if on_stop == OnStop::Open {
            lock(&self.guards).clear();
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
