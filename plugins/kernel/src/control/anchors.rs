//! States that keep SAs in devices findable.
//!
//! The kernel keeps the SAs of a device at the head of a list of its hash table, and for a policy in a device stops looking at the first SA that is
//! none. Linux 6.12 to 7.3 put an SA of software that is the first of its kind in a list at the head: from then on all SAs in devices behind
//! it are invisible, their traffic is dropped. The lists are few (eight at first), and anything of software ends up in one of them: another child's SA,
//! one of another daemon, what is kept for an acquire. Once there is one of software in a list, further ones stay behind what is in devices.
//!
//! So before the first SA in a device between two addresses, of a group, a state of software goes into the same list: for our address, with an SPI and a
//! key that nobody knows, so that nothing ever passes it. It goes with the last of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipsec::{Direction, KeyMaterial, OffloadMode, OuterAddresses, Reqid};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::Control;
use super::sas::Sa;
use crate::xfrm::{NewState, StateId};

/// By what the kernel chooses a list; addresses count alike in both directions.
type Place = (IpAddr, IpAddr, Reqid);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Anchors(BTreeMap<Place, Anchor>);

#[derive(Debug)]
struct Anchor {
    /// The state, unless the kernel would not have it.
    id: Option<StateId>,
    /// SAs in devices that need it.
    users: usize,
}

impl Control {
    /// One more SA in a device is about to be added.
    pub(super) fn anchor(&mut self, outer: OuterAddresses, reqid: Reqid) {
        let place = (outer.local, outer.remote, reqid);
        if let Some(anchor) = self.anchors.0.get_mut(&place) {
            anchor.users += 1;
            return;
        }
        let id = self.make_anchor(outer, reqid);
        self.anchors.0.insert(place, Anchor { id, users: 1 });
    }

    /// An SA is gone.
    pub(super) fn unanchor(&mut self, sa: &Sa) {
        if sa.mode.mode == OffloadMode::Packet {
            self.lift_anchor(sa.outer, sa.reqid);
        }
    }

    /// One less SA in a device.
    pub(super) fn lift_anchor(&mut self, outer: OuterAddresses, reqid: Reqid) {
        let place = (outer.local, outer.remote, reqid);
        let Some(anchor) = self.anchors.0.get_mut(&place) else { return };
        anchor.users -= 1;
        if anchor.users > 0 {
            return;
        }
        let Some(id) = self.anchors.0.remove(&place).and_then(|anchor| anchor.id) else { return };
        match self.xfrm.delete_state(&id) {
            Ok(_) => self.journal.removed(&id),
            Err(error) => {
                tracing::error!(spi = %id.spi, %error, "cannot delete a state that kept SAs of a device findable")
            }
        }
        self.shared.release_spi(id.spi, self.now());
    }

    fn make_anchor(&mut self, outer: OuterAddresses, reqid: Reqid) -> Option<StateId> {
        let algorithm = self.devices.software()?.algorithms.first().copied()?;
        let secret = |octets: usize| {
            let mut key = Zeroizing::new(vec![0; octets]);
            // A short key is no reason to go on with one that can be guessed.
            let drawn = getrandom(key.as_mut_slice(), GetRandomFlags::empty()).ok()?;
            (drawn == octets).then_some(key)
        };
        let encryption = secret(algorithm.encryption.keymat_octets())?;
        let integrity = algorithm.integrity.map(|integrity| secret(integrity.keymat_octets()));
        let key = KeyMaterial::new(&encryption, integrity.flatten().as_ref().map(|key| key.as_slice()));
        let spi = self.shared.reserve_spi(self.now()).ok()?;
        let id = StateId { destination: outer.local, spi, mark: None };
        let state = NewState::plain(id, outer.remote, Direction::Inbound, reqid, algorithm, &key);
        self.journal.added(id, Direction::Inbound, reqid.0);
        match self.xfrm.add_state(&state) {
            Ok(()) => Some(id),
            Err(error) => {
                tracing::warn!(%error, "SAs of software may hide those in a device");
                self.journal.removed(&id);
                self.shared.release_spi(spi, self.now());
                None
            }
        }
    }
}
