//! The datapath without sockets: the rules of the backend contract, allocations, many tunnels.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(unsafe_code)] // a global allocator is unsafe to implement
mod allocations;
mod nic;
mod scale;
#[allow(dead_code)] // shared with the hostile packets
mod subject;
mod transport;

use ipsec::conformance::{Verdict, run};
use ipsec::{Answer, Installed, ModeInUse, OffloadError, OffloadMode, Op, PolicyHandle, Request, SaSpec, Scope, Shard};
use offload_userspace::NoMachine;
use offload_userspace::nic::{NicLimits, Preset, Simulation};
use subject::InProcess;

/// On the datapath itself, and on each rung of simulated NICs: one without limits and one like an mlx5 that does crypto offload too.
#[test]
fn every_rule_of_the_contract_is_kept() {
    let nic = |limits| Some(Simulation { limits, each_link: false });
    let unlimited = nic(NicLimits::default());
    let mlx5 = nic(NicLimits { crypto: Some(true), ..NicLimits::like(Preset::Mlx5) });
    let native_only = [
        "both_forms_are_accepted_and_the_peers_is_told",
        "a_new_mapping_is_told_once_and_only_for_an_authentic_new_packet",
        "a_moved_sa_sends_to_its_new_address",
        "a_moved_sa_keeps_sequence_window_and_counters",
    ];
    let mlx5_only = [
        "transport_mode_is_bound_to_its_hosts_and_selectors",
        "transport_mode_limits_count_payloads",
        "byte_limits_are_told_once_and_end_the_sa",
    ];
    let mlx5_only = [&native_only[..], &mlx5_only[..]].concat();
    let cases: [(Option<Simulation>, OffloadMode, &[&str]); 6] = [
        (None, OffloadMode::No, &[]),
        (unlimited.clone(), OffloadMode::No, &[]),
        (unlimited, OffloadMode::Packet, &[]),
        (mlx5.clone(), OffloadMode::No, &[]),
        (mlx5.clone(), OffloadMode::Crypto, &native_only),
        (mlx5, OffloadMode::Packet, &mlx5_only),
    ];
    for (simulation, rung, not_claimed) in cases {
        let (unclaimed, broken): (Vec<_>, Vec<_>) =
            run(|| InProcess::posing(simulation.clone(), NoMachine::default()), rung)
                .into_iter()
                .partition(|(_, verdict)| *verdict == Verdict::NotClaimed);
        assert_eq!(broken, [], "{rung:?} of {simulation:?}");
        let unclaimed: Vec<&str> = unclaimed.iter().map(|(name, _)| *name).collect();
        assert_eq!(unclaimed, not_claimed, "{rung:?} of {simulation:?}");
    }
}

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
    assert_eq!(outcome, Ok(Answer::Applied(vec![(handle, mode)])));
}
