//! What a device can never carry is refused before a word of it is said.

use ike_model::CauseKind;
use ipsec::DeviceState;

use super::*;

fn install_failed(world: &World, who: Who) -> usize {
    world.gateway(who).count("child-sa.install-failed")
}

/// As initiator: nothing leaves, unless only the answer to IKE_SA_INIT shows that there is NAT.
#[test]
fn the_initiator_says_nothing_of_it() {
    for wish in wishes().iter().filter(|wish| wish.rung != Packet) {
        let mut world = world_of(wish, Packet);
        assert_eq!(refusal(&mut world, A, "net"), wish.packet);
        let sent = usize::from(wish.nat);
        assert_eq!((world.sent(A), world.sent(B)), (sent, sent), "{}", wish.packet);
        assert_eq!(world.gateway(A).last_cause().unwrap().kind, CauseKind::OffloadFailed);
        let tables = world.gateway(A).tables();
        assert!(tables.sas.is_empty() && tables.policies.is_empty());
    }
}

/// `auto` where no rung will do: all reasons.
#[test]
fn auto_is_refused_when_no_rung_is_left() {
    let wish = wishes().into_iter().find(|wish| wish.rung == Auto).unwrap();
    let mut world = world_of(&wish, Auto);
    let software =
        "device eth0 with software has replay windows of 32 to 1024 packets, or 0, not 8: change `replay_window`";
    assert_eq!(refusal(&mut world, A, "net"), [wish.packet, wish.crypto, software].join("; "));
    assert_eq!((world.sent(A), world.sent(B)), (0, 0));
}

/// A further child below an IKE SA that stands: no CREATE_CHILD_SA leaves, and the other children go on.
#[test]
fn a_further_child_is_refused_without_create_child_sa() {
    for wish in wishes().iter().filter(|wish| wish.rung != Packet && !wish.nat) {
        let mut world = world(nic(), No, |_| {});
        for (who, other) in [(A, B), (B, A)] {
            let mut connection = config::connection("gw", who, other);
            let mut more = config::child("more", who, other, 1);
            (wish.change)(&mut more);
            more.hw_offload = if who == A { Packet } else { No };
            connection.children.push(more.into());
            world.configure(who, connection);
        }
        up(&mut world, A);
        let before = (world.sent(A), world.sent(B));
        assert_eq!(refusal(&mut world, A, "more"), wish.packet);
        assert_eq!((world.sent(A), world.sent(B)), before);
        assert_eq!(install_failed(&world, A), 1);
        world.check_one_tunnel(A, B);
    }
}

/// As responder: the peer is told in the protocol's words, our own events in ours, and the IKE SA stays.
//= RFC 7296 §1.2: a refused first CHILD SA does not undo the IKE SA
//= RFC 7296 §1.3: no additional SAs
#[test]
fn the_responder_answers_with_the_fitting_error() {
    for wish in wishes().iter().filter(|wish| ![Packet, Auto].contains(&wish.rung) && !wish.nat) {
        let mut world = world_of(wish, Packet);
        let told = refusal(&mut world, B, "net");
        let cipher = ["esn", "esp_proposals", "mode = tunnel"].iter().any(|word| wish.packet.contains(word));
        let expected = if cipher { "NO_PROPOSAL_CHOSEN" } else { "NO_ADDITIONAL_SAS" };
        assert!(told.contains(expected), "{told}: {}", wish.packet);
        assert!(!told.contains("eth0"), "what our device is nobody's business: {told}");
        assert_eq!(world.gateway(A).counts().established, 1, "{}", wish.packet);
        assert_eq!(install_failed(&world, A), 1);
        assert_eq!(world.gateway(A).last_cause().unwrap().text, wish.packet);
        let tables = world.gateway(A).tables();
        assert!(tables.sas.is_empty() && tables.policies.is_empty());
    }
}

/// Selectors as configured, and as the peer narrows them.
//= RFC 7296 §2.9: the responder may narrow
#[test]
fn selectors_that_the_rung_cannot_match() {
    let ports = "device eth0 with packet offload looks at no ports, only at addresses and protocols, and cannot carry \
                 10.1.0.0/24 === 10.2.0.0/24[6/80]: change `local_ts` or `remote_ts`";
    let web = |child: &mut Child| {
        let ike_model::ConfiguredSelector::Fixed(mut remote) = child.remote_ts[0] else { unreachable!() };
        (remote.protocol, remote.ports) = (6, ipsec::PortRange::single(80));
        child.remote_ts = vec![ike_model::ConfiguredSelector::Fixed(remote)];
    };
    let mut local = world(nic(), Packet, |_| {});
    local.configure(
        A,
        config::with_child(config::connection("gw", A, B), |child| {
            web(child);
            child.hw_offload = Packet;
        }),
    );
    assert_eq!(refusal(&mut local, A, "net"), ports);
    assert_eq!(local.sent(A), 0);

    // B narrows what A offers: A cannot install the answer and takes it back at B.
    for wanted in [Packet, Auto] {
        let mut world = world(nic(), wanted, |_| {});
        world.configure(
            B,
            config::with_child(config::connection("gw", B, A), |child| {
                let ike_model::ConfiguredSelector::Fixed(mut own) = child.local_ts[0] else { unreachable!() };
                (own.protocol, own.ports) = (6, ipsec::PortRange::single(80));
                child.local_ts = vec![ike_model::ConfiguredSelector::Fixed(own)];
            }),
        );
        if wanted == Auto {
            up(&mut world, A);
            assert_eq!(rung(&world), Crypto);
            assert_eq!(degraded(&world), [(Crypto, ports.to_owned())]);
            continue;
        }
        assert_eq!(refusal(&mut world, A, "net"), ports);
        for who in [A, B] {
            assert_eq!(world.gateway(who).live_children(world.now()).len(), 0);
            assert!(world.gateway(who).tables().sas.is_empty(), "no half of it is left");
        }
    }
}

/// A rung that the device has not got, and a device that is not there.
#[test]
fn missing_rungs_and_missing_devices() {
    let software = device("eth0", [(No, able())]);
    let mut missing = world(software.clone(), Packet, |_| {});
    let text = "device eth0 has no packet offload, only software: set `hw_offload` to one of these";
    assert_eq!((refusal(&mut missing, A, "net").as_str(), missing.sent(A)), (text, 0));
    let mut auto = world(software, Auto, |_| {});
    up(&mut auto, A);
    assert_eq!((rung(&auto), degraded(&auto)), (No, Vec::new()), "software is the best that it has");
    for (state, text) in [(DeviceState::Down, "device eth0 is down"), (DeviceState::Gone, "device eth0 was removed")] {
        let mut world = world(nic(), Packet, |_| {});
        world.gateway_mut(A).backend.change_device(|device| device.state = state);
        assert_eq!((refusal(&mut world, A, "net").as_str(), world.sent(A)), (text, 0));
        world.gateway_mut(A).backend.change_device(|device| device.state = DeviceState::Up);
        up(&mut world, A);
        assert_eq!(rung(&world), Packet);
    }
}

/// Of several children that wait for one IKE SA those that can be carried come up.
#[test]
fn one_refused_child_does_not_hold_up_the_others() {
    let mut world = world(nic(), Packet, |_| {});
    for (who, other) in [(A, B), (B, A)] {
        let mut connection = config::connection("gw", who, other);
        let mut bad = config::child("bad", who, other, 1);
        (bad.hw_offload, bad.replay_window) = (if who == A { Packet } else { No }, Some(512));
        connection.children.insert(0, bad.into());
        world.configure(who, connection);
    }
    let bad = world.initiate(A, "gw", "bad");
    let good = world.initiate(A, "gw", "net");
    world.run_for(Duration::from_secs(5));
    let told = world.reply(A, bad);
    world.check(matches!(told, Some(Err(_))), &format!("{told:?}"));
    let told = world.reply(A, good);
    world.check(matches!(told, Some(Ok(_))), &format!("{told:?}"));
    world.check_one_tunnel(A, B);
}
