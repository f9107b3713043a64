//! What the kernel has of a child, read from the kernel.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use ike_model::specs::ChildSpecs;
use ipsec::{Direction, PolicyAction, PolicySpec, SaSpec};
use offload_host::policy_keys;
use offload_host::xfrm::{PROTECTING, PolicyKey, Way};
use offload_kernel::commands;
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{Policy, StateId, Xfrm, XfrmError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use swanctl_compat::explain::Held;

/// The kernel's tables, for one child after the other.
pub(super) struct Tables {
    xfrm: KernelXfrm,
    policies: Vec<Policy>,
    socket: Option<OwnedFd>,
}

impl Tables {
    /// Reads the kernel's policies; SAs are read when they are asked for.
    ///
    /// # Errors
    /// The kernel refuses to show them.
    pub(super) fn read() -> Result<Self, XfrmError> {
        let mut xfrm = KernelXfrm::open()?;
        let all = xfrm.policies()?.into_iter();
        let policies = all.filter(|policy| PROTECTING.contains(&policy.index)).collect();
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok();
        Ok(Self { xfrm, policies, socket })
    }

    /// The SAs and policies of a child as commands.
    ///
    /// # Errors
    /// The kernel refuses to show them.
    pub(super) fn held(&mut self, specs: &ChildSpecs) -> Result<Held, XfrmError> {
        let names = |link: u32| name(self.socket.as_ref(), link);
        let mut held = Held::default();
        for sa in &specs.sas {
            if let Some(state) = self.xfrm.state(&id(sa))? {
                held.sas.insert(sa.handle, commands::state(&state, &names));
            }
        }
        for spec in &specs.policies {
            let keys = keys(spec);
            let mine = self.policies.iter().filter(|policy| serves(policy, spec, &keys));
            held.policies.insert(spec.handle, mine.map(|policy| commands::policy(policy, &names)).collect());
        }
        Ok(held)
    }
}

/// Whether a kernel policy is, or is a part of, what a policy became. In devices those of different groups stand beside each other.
fn serves(policy: &Policy, spec: &PolicySpec, keys: &BTreeSet<PolicyKey>) -> bool {
    let group = match spec.action {
        PolicyAction::Protect { reqid, .. } => reqid.0,
        PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => 0,
    };
    let beside = policy.key.user != 0 && policy.template.is_none_or(|template| template.reqid.0 != group);
    !beside && keys.contains(&PolicyKey { user: 0, ..policy.key })
}

fn id(sa: &SaSpec) -> StateId {
    let destination = match sa.direction {
        Direction::Inbound | Direction::Forward => sa.outer.local,
        Direction::Outbound => sa.outer.remote,
    };
    StateId { destination, spi: sa.spi, mark: sa.tags.mark }
}

/// The kernel policies that a policy consists of.
fn keys(policy: &PolicySpec) -> BTreeSet<PolicyKey> {
    let way = match policy.direction {
        Direction::Inbound => Way::In,
        Direction::Outbound => Way::Out,
        Direction::Forward => Way::Forward,
    };
    // The kernel shows no mark of which no bit counts.
    let (mark, if_id) = (policy.tags.mark.filter(|mark| mark.mask != 0), policy.tags.if_id);
    let keys = policy_keys(&policy.selectors).into_iter().filter(|key| key.way == way);
    keys.map(|key| PolicyKey { mark, if_id, ..key }).collect()
}

fn name(socket: Option<&OwnedFd>, link: u32) -> String {
    let found = socket.and_then(|socket| netdevice::index_to_name(socket, link).ok());
    found.unwrap_or_else(|| format!("link {link}"))
}
