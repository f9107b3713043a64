//! Requests: one socket, one request at a time.

use netlink_packet_xfrm::policy::DelGetMessage;
use netlink_packet_xfrm::{
    XFRM_MSG_DELPOLICY, XFRM_MSG_DELSA, XFRM_MSG_GETPOLICY, XFRM_MSG_GETSA, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA,
    XFRM_MSG_UPDPOLICY, XFRMA_PROTO,
};
use offload_host::HostError;
use offload_host::netlink::{Message, Netlink, Refusal, octets};
use offload_host::xfrm::PolicyKey;

use super::body::Body;
use super::known::{Attributes, Known};
use super::policy::read_policy;
use super::state::read_state;
use super::{ESP, policy, state};
use crate::xfrm::{NewState, Policy, State, StateId, Xfrm, XfrmError};

/// NETLINK_XFRM.
pub(super) const NETLINK_XFRM: isize = 6;

/// The kernel's states and policies in one network namespace.
#[derive(Debug)]
pub struct KernelXfrm {
    netlink: Netlink,
    known: Known,
}

impl KernelXfrm {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no XFRM, or we have no right to it.
    pub fn open() -> Result<Self, HostError> {
        let mut netlink = Netlink::open("xfrm", NETLINK_XFRM)?;
        let known = Known::ask(&mut netlink).map_err(|refusal| refusal.on("ask", "XFRM"))?;
        Ok(Self { netlink, known })
    }

    /// What this kernel knows of the attributes that others ignore in silence.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn attributes(&mut self) -> Result<Attributes, XfrmError> {
        Ok(self.known.all(&mut self.netlink)?)
    }

    fn refuse_ignored(&mut self, state: &NewState<'_>) -> Result<(), XfrmError> {
        if state.cpu.is_some() && !self.known.cpu(&mut self.netlink)? {
            return Err(XfrmError::Ignored("XFRMA_SA_PCPU"));
        }
        if state.nat_keepalive.is_some() && !self.known.nat_keepalive(&mut self.netlink)? {
            return Err(XfrmError::Ignored("XFRMA_NAT_KEEPALIVE_INTERVAL"));
        }
        Ok(())
    }

    fn delete(&mut self, kind: u16, body: &Body, gone: i32) -> Result<bool, XfrmError> {
        match self.netlink.request(kind, 0, body.octets()) {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.is_any(&[gone]) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn one(&mut self, kind: u16, body: &Body, gone: i32) -> Result<Option<Message>, XfrmError> {
        match self.netlink.ask(kind, body.octets()) {
            Ok(answers) => Ok(answers.into_iter().next()),
            Err(refusal) if refusal.is_any(&[gone]) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

impl From<Refusal> for XfrmError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Kernel(error) => Self::Refused(error),
            Refusal::Socket(error) => Self::Socket(error),
        }
    }
}

impl Xfrm for KernelXfrm {
    fn add_state(&mut self, state: &NewState<'_>) -> Result<(), XfrmError> {
        self.refuse_ignored(state)?;
        let body = state::new_state(state, self.known.direction());
        Ok(self.netlink.request(XFRM_MSG_NEWSA, 0, body.octets())?)
    }

    fn delete_state(&mut self, id: &StateId) -> Result<bool, XfrmError> {
        self.delete(XFRM_MSG_DELSA, &state::id(id), libc::ESRCH)
    }

    fn state(&mut self, id: &StateId) -> Result<Option<State>, XfrmError> {
        let answer = self.one(XFRM_MSG_GETSA, &state::id(id), libc::ESRCH)?;
        Ok(answer.and_then(|message| read_state(&message.body)))
    }

    fn states(&mut self) -> Result<Vec<State>, XfrmError> {
        let mut body = Body::empty();
        body.value(XFRMA_PROTO, &[&[ESP]]);
        let messages = self.netlink.dump(XFRM_MSG_GETSA, body.octets())?;
        let states = messages.iter().filter(|message| message.kind == XFRM_MSG_NEWSA);
        Ok(states.filter_map(|message| read_state(&message.body)).collect())
    }

    fn put_policy(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError> {
        if policy.per_cpu && !self.known.cpu(&mut self.netlink)? {
            return Err(XfrmError::Ignored("XFRM_POLICY_CPU_ACQUIRE"));
        }
        let kind = if replace { XFRM_MSG_UPDPOLICY } else { XFRM_MSG_NEWPOLICY };
        Ok(self.netlink.request(kind, 0, policy::new_policy(policy).octets())?)
    }

    fn delete_policy(&mut self, key: &PolicyKey, index: u32) -> Result<bool, XfrmError> {
        self.delete(XFRM_MSG_DELPOLICY, &policy::id(key, index), libc::ENOENT)
    }

    fn policy(&mut self, key: &PolicyKey) -> Result<Option<Policy>, XfrmError> {
        let answer = self.one(XFRM_MSG_GETPOLICY, &policy::id(key, 0), libc::ENOENT)?;
        Ok(answer.and_then(|message| read_policy(&message.body)))
    }

    fn policies(&mut self) -> Result<Vec<Policy>, XfrmError> {
        let messages = self.netlink.dump(XFRM_MSG_GETPOLICY, &octets(&DelGetMessage::default()))?;
        let policies = messages.iter().filter(|message| message.kind == XFRM_MSG_NEWPOLICY);
        Ok(policies.filter_map(|message| read_policy(&message.body)).collect())
    }
}
