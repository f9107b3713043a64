//! A device goes down, comes back empty, vanishes or refuses, in each phase of a CHILD SA.

use std::time::Duration;

use ike_model::snapshot::ConfiguredState;
use ike_model::{CauseKind, EventBody};
use ipsec::{DeviceState, Op};
use scenarios::{A, B, Who, World, config};

use super::{DEVICE, check_guarded, down, full, kept, kept_up, up};

/// What happens to the device.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Down for a moment: what it held is lost, messages pass.
    Bounce,
    /// Down for a third of a minute, and nothing passes meanwhile.
    Outage,
}

impl Fault {
    fn strike(self, world: &mut World, who: Who) {
        down(world, who);
        match self {
            Self::Bounce => world.run_for(Duration::from_millis(3)),
            Self::Outage => {
                world.link.cut.extend([(A, B), (B, A)]);
                world.run_for(Duration::from_secs(20));
                world.link.cut.clear();
            }
        }
        up(world, who);
    }
}

/// Every fault at every end, this long after a phase was entered.
fn each(steps: impl IntoIterator<Item = u64> + Clone, run: impl Fn(Fault, Who, Duration, Option<Duration>)) {
    for fault in [Fault::Bounce, Fault::Outage] {
        for who in [A, B] {
            for after in steps.clone() {
                for delay in [None, Some(Duration::from_millis(8))] {
                    run(fault, who, Duration::from_millis(after), delay);
                }
            }
        }
    }
}

/// Both ends have the same. A request of the end that was not struck may have waited for an answer all the time: what came up meanwhile is there
/// twice then, at both ends.
#[track_caller]
fn check_whole(world: &World) {
    let count = world.tunnels(A, B).len();
    world.check((1..=2).contains(&count), &format!("{count} CHILD SAs"));
    for who in [A, B] {
        let live = world.gateway(who).live_children(world.now()).len();
        world.check(live == count, &format!("{who} has {live} CHILD SAs, {count} of them with the other"));
    }
    world.check_sas();
}

/// Nothing is under way.
#[test]
fn idle() {
    each([0], |fault, who, _, delay| {
        let mut world = kept_up();
        world.gateway_mut(who).report_delay = delay;
        let before = world.tunnels(A, B);
        fault.strike(&mut world, who);
        check_guarded(&world, who);
        let back = world.run_until(Duration::from_secs(4), |world| {
            let now = world.tunnels(A, B);
            now.len() == 1 && now != before
        });
        world.check(back, &format!("{fault:?} at {who}: not back four seconds after the device"));
        world.run_for(Duration::from_secs(60));
        check_whole(&world);
        check_guarded(&world, who);
        assert_eq!(world.gateway(who).count("offload.state-lost"), 1, "{fault:?} at {who}");
        assert_eq!(world.gateway(who).count("offload.repaired"), 0);
    });
}

/// IKE_SA_INIT, IKE_AUTH and the first install.
#[test]
fn negotiating() {
    each((0..=60).step_by(5), |fault, who, after, delay| {
        let mut world = kept();
        world.gateway_mut(who).report_delay = delay;
        world.run_for(after);
        fault.strike(&mut world, who);
        world.run_for(Duration::from_secs(120));
        world.note(format!("{fault:?} at {who} after {after:?}"));
        check_whole(&world);
        check_guarded(&world, who);
    });
}

/// Each step of a rekeying, begun by either end.
#[test]
fn rekeying() {
    for rekeyer in [A, B] {
        each((0..=45).step_by(5), |fault, who, after, delay| {
            let mut world = kept_up();
            world.gateway_mut(who).report_delay = delay;
            world.rekey_child(rekeyer, "net");
            world.run_for(after);
            fault.strike(&mut world, who);
            check_guarded(&world, who);
            world.run_for(Duration::from_secs(120));
            world.note(format!("{fault:?} at {who} after {after:?}, rekeyed by {rekeyer}"));
            check_whole(&world);
            check_guarded(&world, who);
        });
    }
}

/// The IKE SA is being rekeyed: it does not live in the device, and its CHILD SAs are made again below the new one.
#[test]
fn rekeying_the_ike_sa() {
    each((0..=45).step_by(5), |fault, who, after, delay| {
        let mut world = kept_up();
        world.gateway_mut(who).report_delay = delay;
        world.rekey_ike(A, "gw");
        world.run_for(after);
        fault.strike(&mut world, who);
        world.run_for(Duration::from_secs(120));
        world.note(format!("{fault:?} at {who} after {after:?}"));
        check_whole(&world);
        world.check(world.gateway(A).counts().ike_sas == 1, "the old IKE SA is left");
    });
}

/// What an operator closes stays closed, wherever the device goes meanwhile; the guard stays too.
#[test]
fn deleting() {
    for ike in [false, true] {
        each((0..=30).step_by(5), |fault, who, after, delay| {
            let mut world = kept_up();
            world.gateway_mut(who).report_delay = delay;
            if ike {
                world.terminate_ike(A, "gw");
            } else {
                world.terminate_child(A, "net");
            }
            world.run_for(after);
            fault.strike(&mut world, who);
            world.run_for(Duration::from_secs(300));
            world.note(format!("{fault:?} at {who} after {after:?}, the IKE SA too: {ike}"));
            // The other end may have lost it before it was told, and made it again: then that is whole.
            let again = who == B && !world.gateway(B).children(world.now()).is_empty();
            if again {
                world.check_one_tunnel(A, B);
            }
            for end in [A, B] {
                let left = (world.gateway(end).children(world.now()).len(), world.gateway(end).tables().sas.len());
                world.check(again || left == (0, 0), &format!("CHILD SAs and SAs left: {left:?}"));
                check_guarded(&world, end);
            }
        });
    }
}

/// The peer learns that its half is of no use.
#[test]
fn the_peer_is_told() {
    let mut world = kept_up();
    down(&mut world, A);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.gateway(B).live_children(world.now()).len(), 0);
    let told =
        world.gateway(B).events.iter().rev().find_map(|(_, body)| {
            if let EventBody::ChildSaClosed { cause, .. } = body { Some(cause.kind) } else { None }
        });
    assert_eq!(told, Some(CauseKind::PeerDeleted));
}

/// While it is down: attempts with back-off, and a status that says why; once it is up: at once.
#[test]
fn waiting_for_the_device_is_patient_and_says_so() {
    let mut world = kept_up();
    let asked = world.sent(A);
    down(&mut world, A);
    world.run_for(Duration::from_secs(600));
    // One DELETE; nothing is asked of the peer that could not be installed anyway.
    assert_eq!(world.sent(A) - asked, 1);
    let status = world.gateway(A).configured(world.now()).remove(0);
    assert!(matches!(status.state, ConfiguredState::RetryIn(1..=300)), "{:?}", status.state);
    assert!((9..=13).contains(&status.failures), "1 s doubled up to 300 s: {}", status.failures);
    let (_, cause) = status.last_cause.unwrap();
    assert_eq!((cause.kind, cause.text.as_str()), (CauseKind::DeviceLost, "device recorder is down"));
    check_guarded(&world, A);
    up(&mut world, A);
    let back = world.run_until(Duration::from_millis(500), |world| world.tunnels(A, B).len() == 1);
    world.check(back, "not back at once");
    let status = world.gateway(A).configured(world.now()).remove(0);
    assert_eq!((status.state, status.failures), (ConfiguredState::Up, 0));
}

/// A responder whose device is down refuses for now, and the peer comes back.
#[test]
fn a_responder_without_its_device_refuses() {
    let mut world = kept();
    down(&mut world, B);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.gateway(A).counts().established, 1, "the IKE SA needs no device");
    assert!(world.gateway(A).live_children(world.now()).is_empty());
    let status = world.gateway(A).configured(world.now()).remove(0);
    assert!(status.last_cause.unwrap().1.text.contains("NO_ADDITIONAL_SAS"));
    up(&mut world, B);
    world.run_for(Duration::from_secs(60));
    world.check_one_tunnel(A, B);
}

/// A gateway that does not know where its peer is cannot begin an IKE SA, but it has one.
#[test]
fn a_gateway_that_only_answers_makes_its_child_again() {
    let mut at_b = config::connection("gw", B, A);
    at_b.remote_addrs = vec![ike_model::HostSpec::Any];
    let mut world = World::pair_of(1, config::connection("gw", A, B), at_b);
    world.establish();
    world.strict(false);
    let before = world.tunnels(A, B);
    down(&mut world, B);
    up(&mut world, B);
    world.run_for(Duration::from_secs(10));
    world.check_one_tunnel(A, B);
    assert_ne!(world.tunnels(A, B), before);
    assert_eq!(world.gateway(B).counts().ike_sas, 1);
}

/// A device that went for good: with another one that carries the way the child is made again there, without it is waited for.
#[test]
fn gone() {
    let mut world = kept_up();
    world.set_device(A, DEVICE, DeviceState::Gone);
    world.run_for(Duration::from_secs(30));
    let status = world.gateway(A).configured(world.now()).remove(0);
    assert_eq!(status.last_cause.unwrap().1.text, "device recorder was removed");
    check_guarded(&world, A);
    let second = world.gateway(A).backend.add_device("eth1");
    world.lead_through(A, Some(second));
    world.run_for(Duration::from_secs(2));
    world.check_one_tunnel(A, B);
    assert!(world.gateway(A).tables().sas.values().all(|sa| sa.device == second));
}

/// No room at each step: what stands stands on, what cannot be had is not half there, and the next attempt succeeds.
#[test]
fn full_at_each_step() {
    for who in [A, B] {
        for refused in ["SAs", "policies"] {
            for phase in ["first", "rekeyed by A", "rekeyed by B"] {
                let mut world = if phase == "first" { kept() } else { kept_up() };
                let before = world.tunnels(A, B);
                if refused == "SAs" {
                    world.gateway(who).backend.refuse_next_install(full());
                } else {
                    world.gateway(who).backend.refuse_next(|op| matches!(op, Op::InstallPolicy(_)), full());
                }
                let rekeyer = if phase.ends_with('A') { A } else { B };
                if phase != "first" {
                    world.rekey_child(rekeyer, "net");
                    world.run_for(Duration::from_secs(3));
                    world.check_one_tunnel(A, B);
                    // Policies go over to the new CHILD SA: there is none to be refused.
                    let stays = refused == "SAs";
                    assert_eq!(world.tunnels(A, B) == before, stays, "{phase}, {refused} refused at {who}");
                }
                world.run_for(Duration::from_secs(60));
                world.note(format!("{phase}, {refused} refused at {who}"));
                world.check_one_tunnel(A, B);
                check_guarded(&world, who);
            }
        }
    }
}
