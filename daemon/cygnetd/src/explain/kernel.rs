//! What the kernel has of a child, read from the kernel.

use std::os::fd::OwnedFd;

use ike_model::specs::ChildSpecs;
use ipsec::{Direction, PolicySpec, SaSpec};
use offload_host::policy_keys;
use offload_host::xfrm::{PolicyKey, Way};
use offload_kernel::commands;
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{StateId, Xfrm, XfrmError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use swanctl_compat::explain::Held;

/// The SAs and policies of a child as commands.
///
/// # Errors
/// The kernel refuses to show them.
pub(super) fn held(specs: &ChildSpecs) -> Result<Held, XfrmError> {
    let mut xfrm = KernelXfrm::open()?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok();
    let names = |link: u32| name(socket.as_ref(), link);
    let mut held = Held::default();
    for sa in &specs.sas {
        if let Some(state) = xfrm.state(&id(sa))? {
            held.sas.insert(sa.handle, commands::state(&state, &names));
        }
    }
    for policy in &specs.policies {
        let found = keys(policy).map(|key| xfrm.policy(&key)).collect::<Result<Vec<_>, _>>()?;
        let written = found.iter().flatten().map(|found| commands::policy(found, &names)).collect();
        held.policies.insert(policy.handle, written);
    }
    Ok(held)
}

fn id(sa: &SaSpec) -> StateId {
    let destination = match sa.direction {
        Direction::Inbound | Direction::Forward => sa.outer.local,
        Direction::Outbound => sa.outer.remote,
    };
    StateId { destination, spi: sa.spi, mark: sa.tags.mark }
}

/// The kernel policies that a policy consists of.
fn keys(policy: &PolicySpec) -> impl Iterator<Item = PolicyKey> + use<> {
    let way = match policy.direction {
        Direction::Inbound => Way::In,
        Direction::Outbound => Way::Out,
        Direction::Forward => Way::Forward,
    };
    let tags = policy.tags;
    let keys = policy_keys(&policy.selectors).into_iter().filter(move |key| key.way == way);
    keys.map(move |key| PolicyKey { mark: tags.mark, if_id: tags.if_id, ..key })
}

fn name(socket: Option<&OwnedFd>, link: u32) -> String {
    let found = socket.and_then(|socket| netdevice::index_to_name(socket, link).ok());
    found.unwrap_or_else(|| format!("link {link}"))
}
