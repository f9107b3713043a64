//! Network devices as the kernel shows them: which one a packet to a peer leaves through, and what becomes of them.
//!
//! The device of an SA is the egress of its outer packets, which a route says and an address does not: an address on `lo` or a dummy link,
//! several uplinks, a rule for a source address. The lookup carries our mark, so that protected routes play no part. From the link of the
//! route the way goes down to the device that does the work: VLAN to its lower link, bond, team and bridge to their port in use. Where there is
//! more than one (several next hops, several ports in use) there is no single device, and [`NoDevice`] says so in words.
//!
//! [`Devices::egress`] keeps its answers until the kernel tells of a change of links, addresses, routes, rules or next hops, so the usual call
//! asks nobody. [`LinkWatch`] listens on a thread of its own and tells of links that go down, come up, vanish or change their name, and that ways
//! have changed, within milliseconds; when the kernel had to drop messages everything is read again and the differences are told.

mod feature;
mod link;
mod lookup;
mod path;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::error::HostError;
use super::netlink::{Heard, Netlink};

pub use self::feature::has_esp_offload;
pub(super) use self::link::read;
pub use self::link::{Link, LinkChange, LinkKind, Links};
pub use self::path::{Egress, NoDevice};
pub use self::watch::LinkWatch;

/// Answers that are kept at most; one more and all are asked again.
const KEPT: usize = 65_536;

/// The links of one network namespace, followed. See the module.
#[derive(Debug)]
pub struct Devices {
    mark: u32,
    state: Mutex<State>,
    route: Mutex<Netlink>,
    changes: Mutex<Netlink>,
}

#[derive(Debug, Default)]
struct State {
    links: Arc<Links>,
    known: BTreeMap<(IpAddr, IpAddr), Result<Arc<Egress>, NoDevice>>,
    /// Counts what makes answers obsolete, also one that is being looked up meanwhile.
    age: u64,
}

impl Devices {
    /// Reads all links, and listens from now on, in the network namespace of the calling thread. `mark` is on our outer packets.
    ///
    /// # Errors
    /// [`HostError`] when the kernel refuses.
    pub fn open(mark: u32) -> Result<Arc<Self>, HostError> {
        // Listening comes first: what changes between the two is told twice rather than never.
        let changes = watch::listen()?;
        let mut route = Netlink::open("route", NETLINK_ROUTE)?;
        let links = Arc::new(link::read(&mut route)?);
        let state = Mutex::new(State { links, ..State::default() });
        Ok(Arc::new(Self { mark, state, route: Mutex::new(route), changes: Mutex::new(changes) }))
    }

    /// All links as last told.
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.state().links)
    }

    /// The device that carries packets from `local` to `remote`; an unspecified `local` leaves the source to the route. Asks the kernel only
    /// when nothing is known since the last change.
    ///
    /// # Errors
    /// [`NoDevice`], why there is not exactly one.
    pub fn egress(&self, local: IpAddr, remote: IpAddr) -> Result<Arc<Egress>, NoDevice> {
        let (age, links) = {
            let state = self.state();
            if let Some(known) = state.known.get(&(local, remote)) {
                return known.clone();
            }
            (state.age, Arc::clone(&state.links))
        };
        let found = {
            let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
            lookup::links_to(&mut route, local, remote, self.mark)
        };
        let answer = found.and_then(|found| path::resolve(&links, remote, &found)).map(Arc::new);
        let mut state = self.state();
        if state.age == age {
            if state.known.len() >= KEPT {
                state.known.clear();
            }
            state.known.insert((local, remote), answer.clone());
        }
        answer
    }

    /// Takes in what the kernel has told since the last call. [`LinkWatch`] does so by itself.
    pub fn follow(&self) -> Vec<LinkChange> {
        let mut told = Vec::new();
        let mut lost = false;
        let mut stale = false;
        // Held to the end, so that changes are applied in the order in which they were told.
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = self.links();
        changes.drain(|heard| match heard {
            Heard::Message(kind, body) => match link::change(kind, body) {
                Some(change) => link::apply(Arc::make_mut(&mut links), change, &mut told),
                None => stale |= watch::concerns_routes(kind, body),
            },
            Heard::Lost => lost = true,
        });
        if lost {
            self.resynchronise(&mut links, &mut told);
        }
        let mut state = self.state();
        if stale || lost || *state.links != *links {
            state.links = links;
            state.known.clear();
            state.age += 1;
        }
        drop(state);
        if stale {
            told.push(LinkChange::Rerouted);
        }
        told
    }

    /// The kernel had to drop messages: everything is read again. A link that went down and came up between two looks shows nothing of it, so
    /// whoever holds state in devices is told to compare.
    fn resynchronise(&self, links: &mut Arc<Links>, told: &mut Vec<LinkChange>) {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        match link::read(&mut route) {
            Ok(now) => {
                told.extend(links.differences(&now));
                *links = Arc::new(now);
            }
            Err(error) => tracing::warn!(%error, "cannot read the links of this host again"),
        }
        told.push(LinkChange::Resynchronised);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
