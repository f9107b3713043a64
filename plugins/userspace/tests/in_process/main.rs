//! The datapath without sockets: the rules of the backend contract, allocations, many tunnels.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(unsafe_code)] // a global allocator is unsafe to implement
mod allocations;
mod contract;
mod hold;
mod links;
mod nic;
mod scale;
mod shown;
#[allow(dead_code)] // shared with the hostile packets
mod subject;
mod transport;

use ipsec::{
    Answer, Applied, Installed, ModeInUse, OffloadError, OffloadMode, Op, PolicyHandle, Request, SaSpec, Scope, Shard,
};
use offload_userspace::NoMachine;
use subject::InProcess;

/// What was done at the host is undone too, and a simulated NIC shows as one.
#[test]
fn a_route_that_is_refused_undoes_the_request() {
    let refused = PolicyHandle::new(Shard(0), 1);
    let machine = NoMachine { refused_route: Some(refused), ..NoMachine::default() };
    let subject = InProcess::with(true, machine);
    let (ops, sa) = subject.tunnel();
    let outcome = subject.backend.control.execute(&Request::Apply(ops));
    assert!(matches!(outcome, Err(OffloadError::System { .. })), "{outcome:?}");
    assert_eq!(
        subject.backend.control.execute(&Request::List(Scope::All)),
        Ok(Answer::Installed(Installed::default()))
    );
    let mode = ModeInUse { mode: OffloadMode::Packet, device: Some("cygnet0".into()), simulated: true };
    let sa = SaSpec { offload: OffloadMode::Packet, ..sa };
    let handle = sa.handle;
    let outcome = subject.backend.control.execute(&Request::Apply(vec![Op::InstallSa(Box::new(sa))]));
    assert_eq!(outcome, Ok(Answer::Applied(Applied { modes: vec![(handle, mode)], removed: Vec::new() })));
}
