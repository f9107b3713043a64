//! The install is one transaction on one rung after the other.

use ipsec::{Direction, OffloadError, Op};

use super::*;

fn unsupported() -> OffloadError {
    OffloadError::Unsupported { device: "eth0".into(), what: "an SA".into(), reason: "of its firmware".into() }
}

fn full() -> OffloadError {
    OffloadError::Full { device: "eth0".into(), table: "SAD", size: 2 }
}

/// What the device refuses goes to the next rung, whatever the other end is doing; only `auto` has one.
#[test]
fn refused_rungs_are_climbed_down() {
    for (error, text) in [
        (unsupported(), "device eth0 cannot carry an SA: of its firmware"),
        (full(), "device eth0 is full: SAD holds 2 entries"),
    ] {
        for initiator in [A, B] {
            for (closed, expected) in [(vec![Packet], Crypto), (vec![Packet, Crypto], No)] {
                let mut world = world(nic(), Auto, |_| {});
                closed.iter().for_each(|mode| world.gateway(A).backend.refuse_rung(*mode, Some(error.clone())));
                up(&mut world, initiator);
                assert_eq!(rung(&world), expected);
                let told = vec![text; closed.len()].join("; ");
                assert_eq!(degraded(&world), [(expected, told)]);
                // The next generation begins at the top again.
                world.gateway(A).backend.refuse_nothing();
                world.traffic_every = Some(Duration::from_millis(20));
                world.rekey_child(initiator, "net");
                world.run_for(Duration::from_secs(20));
                world.check_one_tunnel(A, B);
                assert_eq!(rung(&world), Packet);
                assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
                assert_eq!(degraded(&world).len(), 1);
            }
        }
    }
}

/// A change of rung at a rekey: the new CHILD SA brings policies of its own, and nothing of the old ones is left.
#[test]
fn a_rekey_changes_the_rung_without_losing_a_packet() {
    for initiator in [A, B] {
        let mut world = world(nic(), Auto, |_| {});
        up(&mut world, initiator);
        world.traffic_every = Some(Duration::from_millis(20));
        for (closed, expected) in
            [(vec![Packet], Crypto), (vec![Packet, Crypto], No), (Vec::new(), Packet), (vec![Packet, Crypto], No)]
        {
            world.gateway(A).backend.refuse_nothing();
            closed.iter().for_each(|mode| world.gateway(A).backend.refuse_rung(*mode, Some(full())));
            world.rekey_child(initiator, "net");
            world.run_for(Duration::from_secs(20));
            world.check_one_tunnel(A, B);
            assert_eq!(rung(&world), expected);
            let policies = world.gateway(A).tables().policies.len();
            assert_eq!(policies, 3, "inbound, forward and outbound of the new one alone");
        }
        assert_eq!((world.traffic.lost, world.traffic.blocked), (0, 0));
        let modes: Vec<_> = degraded(&world).into_iter().map(|(mode, _)| mode).collect();
        assert_eq!(modes, [Crypto, No, No]);
    }
}

/// A step of an install, and its operations.
type Step = (&'static str, fn(&Op) -> bool);

/// The steps of an install, in order.
const STEPS: [Step; 5] = [
    ("inbound policy", |op| matches!(op, Op::InstallPolicy(policy) if policy.direction == Direction::Inbound)),
    ("forward policy", |op| matches!(op, Op::InstallPolicy(policy) if policy.direction == Direction::Forward)),
    ("inbound SA", |op| matches!(op, Op::InstallSa(sa) if sa.direction == Direction::Inbound)),
    ("outbound SA", |op| matches!(op, Op::InstallSa(sa) if sa.direction == Direction::Outbound)),
    ("outbound policy", |op| matches!(op, Op::InstallPolicy(policy) if policy.direction == Direction::Outbound)),
];

/// Full at each step: `packet` leaves nothing at either end, `auto` goes on with the next rung.
#[test]
fn a_full_device_at_each_step_of_the_first_install() {
    for (step, pick) in STEPS {
        for initiator in [A, B] {
            let mut alone = world(nic(), Packet, |_| {});
            alone.gateway(A).backend.refuse_next(pick, full());
            let told = refusal(&mut alone, initiator, "net");
            let expected =
                if initiator == A { "device eth0 is full: SAD holds 2 entries" } else { "NO_ADDITIONAL_SAS" };
            assert!(told.contains(expected), "{step}: {told}");
            assert_eq!(alone.gateway(A).count("child-sa.install-failed"), 1);
            assert_eq!(alone.gateway(A).count("child-sa.installed"), 0);
            for who in [A, B] {
                let tables = alone.gateway(who).tables();
                alone.check(tables.sas.is_empty() && tables.policies.is_empty(), &format!("{step}: left at {who}"));
                assert_eq!(alone.gateway(who).live_children(alone.now()).len(), 0);
            }
            // The IKE SA stands, and the next attempt succeeds.
            up(&mut alone, initiator);
            assert_eq!((rung(&alone), alone.gateway(A).counts().ike_sas), (Packet, 1));

            let mut auto = world(nic(), Auto, |_| {});
            auto.gateway(A).backend.refuse_next(pick, full());
            up(&mut auto, initiator);
            assert_eq!((rung(&auto), auto.gateway(A).tables().policies.len()), (Crypto, 3), "{step}");
        }
    }
}

/// Full at each step of a rekey: the old CHILD SA stays untouched, the peer closes its half, and a later attempt succeeds.
//= RFC 7296 §1.3: a responder that has no room answers NO_ADDITIONAL_SAS
#[test]
fn a_full_device_at_each_step_of_a_rekey() {
    // Policies are inherited, so the rekey of an unchanged child has two steps.
    for (step, pick) in STEPS.into_iter().filter(|(step, _)| step.ends_with("SA")) {
        for initiator in [A, B] {
            let mut world = world(nic(), Packet, |_| {});
            up(&mut world, A);
            world.traffic_every = Some(Duration::from_millis(20));
            let before = (world.tunnels(A, B), world.gateway(A).tables().policies);
            world.gateway(A).backend.refuse_next(pick, full());
            world.rekey_child(initiator, "net");
            world.run_for(Duration::from_secs(3));
            world.check_one_tunnel(A, B);
            let after = (world.tunnels(A, B), world.gateway(A).tables().policies);
            assert_eq!(after, before, "{step} at {initiator}");
            for who in [A, B] {
                assert_eq!(world.gateway(who).tables().sas.len(), 2, "{step}: the new one is closed at {who}");
            }
            assert_eq!(world.gateway(initiator).count("child-sa.rekey-failed"), 1);
            assert_eq!(world.gateway(A).count("child-sa.install-failed"), 1);
            world.run_for(Duration::from_secs(60));
            world.check_one_tunnel(A, B);
            assert_ne!(world.tunnels(A, B), before.0);
            assert_eq!((rung(&world), world.traffic.lost, world.traffic.blocked), (Packet, 0, 0));
        }
    }
}

/// While a rekey fails again and again the attempts come ever more slowly.
#[test]
fn failed_rekeys_back_off() {
    let mut world = world(nic(), Packet, |_| {});
    up(&mut world, A);
    world.gateway(A).backend.refuse_rung(Packet, Some(full()));
    world.rekey_child(A, "net");
    world.run_for(Duration::from_secs(3_600));
    let failed = |world: &World| world.gateway(A).count("child-sa.rekey-failed");
    let in_an_hour = failed(&world);
    world.check((10..=20).contains(&in_an_hour), &format!("{in_an_hour} attempts in an hour"));
    world.gateway(A).backend.refuse_nothing();
    world.run_for(Duration::from_secs(310));
    world.check_one_tunnel(A, B);
    assert_eq!(failed(&world), in_an_hour);
    assert_eq!(world.gateway(A).count("child-sa.rekeyed"), 1);
}

/// A device that says yes and does something else: it is taken out again, and what was promised is not pretended.
#[test]
fn what_reads_back_as_something_else_is_no_success() {
    for initiator in [A, B] {
        let mut alone = world(nic(), Packet, |_| {});
        alone.gateway(A).backend.misreport(Packet, No);
        let told = refusal(&mut alone, initiator, "net");
        let expected = "device eth0 cannot carry a CHILD SA with packet offload: it reads back as software";
        assert!(told.contains(if initiator == A { expected } else { "NO_ADDITIONAL_SAS" }), "{told}");
        assert_eq!(alone.gateway(A).last_cause().unwrap().text, expected);
        for who in [A, B] {
            let tables = alone.gateway(who).tables();
            assert!(tables.sas.is_empty() && tables.policies.is_empty());
        }

        let mut auto = world(nic(), Auto, |_| {});
        auto.gateway(A).backend.misreport(Packet, No);
        up(&mut auto, initiator);
        assert_eq!((rung(&auto), auto.gateway(A).tables().policies.len()), (Crypto, 3));
        assert_eq!(degraded(&auto), [(Crypto, expected.to_owned())]);
        // The last rung fails for another reason: what was installed on the first is not left behind.
        let mut failing = world(device("eth0", [(Packet, packet()), (No, able())]), Auto, |_| {});
        failing.gateway(A).backend.misreport(Packet, No);
        failing.gateway(A).backend.refuse_rung(No, Some(full()));
        refusal(&mut failing, initiator, "net");
        let tables = failing.gateway(A).tables();
        assert!(tables.sas.is_empty() && tables.policies.is_empty());
    }
}

/// Only what the device says of its abilities leads to another rung: an operating system that fails is no reason to do without offload.
#[test]
fn other_errors_are_errors() {
    let error = OffloadError::System { action: "install SA".into(), reason: "out of memory".into() };
    let mut world = world(nic(), Auto, |_| {});
    world.gateway(A).backend.refuse_next_install(error);
    assert_eq!(refusal(&mut world, A, "net"), "install SA: out of memory");
    assert_eq!(degraded(&world), []);
}

/// The child ends while the next rung is being tried.
#[test]
fn closed_while_climbing_down() {
    for closer in [A, B] {
        let mut world = world(nic(), Auto, |_| {});
        world.gateway(A).backend.refuse_rung(Packet, Some(full()));
        up(&mut world, A);
        world.strict(false);
        world.gateway_mut(A).report_delay = Some(Duration::from_millis(300));
        world.rekey_child(A, "net");
        // The first answer has come, the second one not.
        world.run_for(Duration::from_millis(450));
        world.terminate_ike(closer, "gw");
        world.run_for(Duration::from_secs(200));
        world.check_nothing_left();
    }
}
