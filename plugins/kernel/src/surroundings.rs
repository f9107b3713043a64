//! What the backend needs done around the kernel's IPsec, and what it is driven by: seams for whoever tries it without a kernel.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ipsec::{GuardSpec, Instant, OffloadError, OnStop, PolicySpec};
use offload_host::devices::Link;

use crate::xfrm::Xfrm;

/// Guard, routes, bypasses of IKE, and sockets of a host whose kernel does ESP. Called by one thread.
pub trait Surroundings: Send {
    /// Puts up the guard for a selector. Counted by its name.
    ///
    /// # Errors
    /// The system's refusal.
    fn install_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError>;
    /// Takes the guard down.
    ///
    /// # Errors
    /// The system's refusal.
    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError>;
    /// Prepares the host for an outbound policy and its inbound halves, before it is installed: traffic that is protected finds a route and a source
    /// address inside the local selector, and what must pass beside the policy does. Counted.
    ///
    /// # Errors
    /// The system's refusal; the policy must not be installed then.
    fn install_route(&mut self, policy: &PolicySpec, link: Option<u32>) -> Result<(), OffloadError>;
    /// Undoes one [`Self::install_route`], after the policy has gone.
    ///
    /// # Errors
    /// The system's refusal.
    fn remove_route(&mut self, policy: &PolicySpec, link: Option<u32>) -> Result<(), OffloadError>;
    /// Lets our own IKE pass beside the policies that this link looks up by itself. Called before the first policy in a device, and again before
    /// the first one after its link came up; once more changes nothing.
    ///
    /// # Errors
    /// The system's refusal.
    fn bypass_ike(&mut self, link: &Link) -> Result<(), OffloadError>;
    /// A link is down or gone, and with it all that was in the device, bypasses too.
    fn device_lost(&mut self, link: u32);
    /// Has the kernel take ESP out of what arrives at the NAT-T sockets (UDP_ENCAP). The daemon goes on reading the rest.
    ///
    /// # Errors
    /// The system's refusal.
    fn adopt_nat_sockets(&mut self, sockets: Vec<OwnedFd>) -> io::Result<()>;
    /// Follows changes of the host's addresses and links. Gives what somebody else had taken away and stands again, in words.
    ///
    /// # Errors
    /// The system's refusal.
    fn refresh(&mut self) -> Result<Vec<String>, OffloadError>;
    /// What an earlier run left in force and nobody has claimed since, in words.
    fn leftovers(&self) -> Vec<String>;
    /// Takes that back.
    ///
    /// # Errors
    /// The system's refusal.
    fn drop_leftovers(&mut self) -> Result<(), OffloadError>;
    /// Takes back what must not outlive the process; the guard as `on_stop` says.
    ///
    /// # Errors
    /// The system's refusal.
    fn stop(&mut self, on_stop: OnStop) -> Result<(), OffloadError>;
}

/// Tells the link whose device does the work for packets between two outer addresses, where there is exactly one.
pub type Egress = Arc<dyn Fn(IpAddr, IpAddr) -> Option<u32> + Send + Sync>;

/// Says whether the driver of a link, by its name, does some ESP.
pub type EspFeature = Box<dyn Fn(&str) -> bool + Send>;

/// The clocks.
#[derive(Clone)]
pub struct Clock {
    /// Time since the start of the machine, suspended time included (CLOCK_BOOTTIME): what limits follow.
    pub boottime: Arc<dyn Fn() -> Instant + Send + Sync>,
    /// Seconds since 1970, as the kernel stamps its SAs. It may step.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    /// The machine's own.
    pub fn system() -> Self {
        Self { boottime: Arc::new(boottime), wall: Arc::new(wall) }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &(self.boottime)()).finish_non_exhaustive()
    }
}

fn boottime() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Instant::new(std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

fn wall() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Everything the backend stands on.
pub struct Parts {
    /// SAs and policies of the kernel.
    pub xfrm: Box<dyn Xfrm>,
    /// Guard, routes, bypasses, sockets.
    pub surroundings: Box<dyn Surroundings>,
    /// Clocks.
    pub clock: Clock,
    /// Routes.
    pub egress: Egress,
    /// Drivers.
    pub esp_feature: EspFeature,
    /// Keys the choice of SPIs.
    pub random: [u8; ipsec::spi::KEY_OCTETS],
    /// Journal, see [`crate::KernelConfig::journal`].
    pub journal: Option<PathBuf>,
    /// The kernel's counters of refused packets (`/proc/net/xfrm_stat`); `None` = nobody looks.
    pub statistics: Option<PathBuf>,
    /// Settings of the kernel's IPsec (`/proc/sys/net/core`); `None` = they are left alone.
    pub settings: Option<PathBuf>,
}
