//! Keys for those who may have them: nothing is kept without the operator's leave; with it both ends show the same, over rekeyings.

use std::collections::BTreeMap;
use std::time::Duration;

use ike_model::KeyExport;
use scenarios::{A, B, Who, World};

const LEAVE: KeyExport = KeyExport::permitted_in_settings();

/// Two gateways after a rekeying of the CHILD SA and one of the IKE SA.
fn rekeyed(leave: Option<KeyExport>) -> World {
    let mut world = World::pair(1);
    for who in [A, B] {
        world.gateway_mut(who).config.settings.key_export = leave;
    }
    world.establish();
    world.rekey_child(A, "net");
    world.run_for(Duration::from_millis(500));
    world.rekey_ike(B, "gw");
    world.run_for(Duration::from_millis(500));
    world.check_one_tunnel(A, B);
    world
}

/// Keys by what names their SAs: of IKE in the order of SK_ei, SK_er, SK_ai, SK_ar.
fn exported(world: &World, who: Who) -> BTreeMap<String, Vec<Vec<u8>>> {
    let all = world.gateway(who).export_keys(LEAVE, "gw");
    let ike = all.ike.iter().map(|sa| {
        let keys = [&sa.sk_ei, &sa.sk_er, &sa.sk_ai, &sa.sk_ar].map(|key| key.to_vec());
        (format!("{} {}", sa.spis.0, sa.spis.1), keys.into())
    });
    let esp = all
        .esp
        .iter()
        .map(|sa| (format!("{} {} {}", sa.source, sa.destination, sa.spi), vec![sa.key.encryption.to_vec()]));
    ike.chain(esp).collect()
}

#[test]
fn without_leave_nothing_is_kept() {
    let world = rekeyed(None);
    for who in [A, B] {
        assert!(exported(&world, who).is_empty());
    }
}

#[test]
fn both_ends_show_the_same_keys_of_old_and_new_sas() {
    let world = rekeyed(Some(LEAVE));
    let (a, b) = (exported(&world, A), exported(&world, B));
    assert_eq!(a, b);
    // The IKE SA and the one before, which still answers; two SAs of each generation of the CHILD SA, of which the first lingers.
    assert_eq!(a.len(), 2 + 4, "{:?}", a.keys());
    for sa in world.gateway(A).tables().sas.values() {
        assert!(
            a.values().flatten().any(|key| **key == **sa.key.encryption),
            "the installed SA {} is among them",
            sa.spi
        );
    }
    let shown = format!("{:?}", world.gateway(A).export_keys(LEAVE, "gw"));
    assert!(shown.contains("[redacted]") && !shown.contains("sk_ei"), "{shown}");
    assert!(world.gateway(A).export_keys(LEAVE, "other").esp.is_empty());
}
