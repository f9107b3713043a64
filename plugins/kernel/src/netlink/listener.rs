//! Hearing what the kernel tells: acquires, limits, states and policies of anybody, NAT rebinding.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_xfrm::{XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_MAPPING, XFRMNLGRP_POLICY, XFRMNLGRP_SA};
use offload_host::HostError;
use offload_host::netlink::{Heard, Netlink};

use super::event::read_event;
use super::request::NETLINK_XFRM;
use crate::xfrm::KernelEvent;

const GROUPS: [u32; 5] = [XFRMNLGRP_ACQUIRE, XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY, XFRMNLGRP_MAPPING];

/// Room for messages that wait: some thousands. What is beyond is lost, and told as lost.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket of its own, so that waiting events never hold up an answer. Readable when something was told.
#[derive(Debug)]
pub struct Listener(Netlink);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Begins to listen in the network namespace of the calling thread. While anybody listens, the kernel makes a larval state for each acquire.
    ///
    /// # Errors
    /// The kernel has no XFRM, or we have no right to it.
    pub fn open() -> Result<Self, HostError> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    /// As [`Self::open`], with room for so many octets of messages that wait.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_buffer(octets: usize) -> Result<Self, HostError> {
        let netlink = Netlink::listen("xfrm", NETLINK_XFRM, &GROUPS)?;
        netlink.set_receive_buffer(octets)?;
        Ok(Self(netlink))
    }

    /// Everything told since the last call, in order, without waiting. [`KernelEvent::Lost`] stands where messages were lost.
    pub fn drain(&mut self, mut each: impl FnMut(KernelEvent)) {
        self.0.drain(|heard| match heard {
            Heard::Lost => each(KernelEvent::Lost),
            Heard::Message(kind, body) => match read_event(kind, body) {
                Ok(event) => event.into_iter().for_each(&mut each),
                Err(error) => {
                    tracing::warn!(%error, "looking at everything again");
                    each(KernelEvent::Lost);
                }
            },
        });
    }
}
