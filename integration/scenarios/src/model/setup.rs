//! The world of a schedule: who is connected with whom, and how.

use std::sync::Arc;
use std::time::Duration;

use ike_model::{Actions, Connection, HostSpec, Identity, Secret, SharedSecret};
use ike_wire::ids::KeyExchangeId;
use ipsec::TrafficSelector;

use super::schedule::{Change, Setup};
use crate::clear::clear_provider;
use crate::{A, B, C, Nat, Who, World, config};

/// A connection of a world.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Its name, the same at both ends.
    pub name: &'static str,
    /// Its ends.
    pub ends: [Who; 2],
}

/// Children of every connection.
pub const CHILDREN: [&str; 2] = ["net", "other"];

/// The connections of a set-up.
pub fn pairings(setup: &Setup) -> Vec<Pairing> {
    let mut all = vec![Pairing { name: "ab", ends: [A, B] }];
    if setup.second {
        all.push(Pairing { name: "ab2", ends: [A, B] });
    }
    if setup.shards.len() > 2 {
        all.extend([Pairing { name: "ac", ends: [A, C] }, Pairing { name: "bc", ends: [B, C] }]);
    }
    all
}

/// A connection as one end has it.
pub fn connection(setup: &Setup, pairing: &Pairing, who: Who) -> Connection {
    let other = pairing.ends[0] + pairing.ends[1] - who;
    let mut connection = config::connection(pairing.name, who, other);
    let first = if pairing.name == "ab2" { 10 } else { 0 };
    let methods = setup.pfs.as_ref().map(|prefers| two_methods(prefers[who])).unwrap_or_default();
    connection.children = CHILDREN
        .iter()
        .zip(first..)
        .map(|(name, number)| {
            let mut child = config::child(name, who, other, number);
            child.esp_proposals = vec![config::esp_proposal(&methods)];
            if setup.child_rekey > 0 {
                child.lifetime = config::time_limits(setup.child_rekey, setup.child_rekey + 60);
                child.lifetime.time.jitter = setup.child_rekey / 10;
            }
            Arc::new(child)
        })
        .collect();
    let mut ike = vec![KeyExchangeId::ECP_256, KeyExchangeId::CURVE_25519, KeyExchangeId::ECP_384];
    if setup.ike_methods[who] {
        ike.reverse();
    }
    connection.proposals = vec![config::ike_proposal(&ike)];
    connection.dpd_delay = Duration::from_secs(setup.dpd);
    connection.rekey_time = Duration::from_secs(setup.ike_rekey);
    connection.reauth_time = Duration::from_secs(setup.reauth);
    connection.over_time = Duration::from_secs(120);
    connection.rand_time = Duration::from_secs(setup.ike_rekey.max(setup.reauth) / 10);
    if pairing.name == "ab2" {
        connection.local[0].id = second_identity(who);
        connection.remote[0].id = second_identity(other);
    }
    if setup.nat && who != A && pairing.ends.contains(&A) {
        connection.remote_addrs = vec![HostSpec::Any];
    }
    connection
}

fn two_methods(prefers: bool) -> Vec<KeyExchangeId> {
    // What two ends with different preferences guess is refused both ways, and the third method remains.
    let first = if prefers { KeyExchangeId::ECP_384 } else { KeyExchangeId::ECP_256 };
    vec![first, KeyExchangeId::CURVE_25519]
}

fn second_identity(who: Who) -> Identity {
    Identity::Fqdn(format!("second{who}.example"))
}

/// A changed connection; `None` when it goes.
pub fn changed(setup: &Setup, pairing: &Pairing, who: Who, now: &Connection, change: Change) -> Option<Connection> {
    let mut connection = now.clone();
    match change {
        Change::Nothing => {}
        Change::Liveness(seconds) => connection.dpd_delay = Duration::from_secs(seconds),
        Change::Lifetime(seconds) => {
            for child in &mut connection.children {
                Arc::make_mut(child).lifetime = config::time_limits(seconds, seconds + 60);
            }
        }
        Change::Methods => {
            for proposal in &mut connection.proposals {
                proposal.key_exchange.reverse();
            }
        }
        Change::Selectors => {
            let other = pairing.ends[0] + pairing.ends[1] - who;
            let elsewhere = [192, 168, u8::try_from(other).unwrap_or(0), 0];
            if let Some(child) = connection.children.get_mut(1) {
                let elsewhere = TrafficSelector::prefix(elsewhere.into(), 24).unwrap();
                Arc::make_mut(child).remote_ts = vec![ike_model::ConfiguredSelector::Fixed(elsewhere)];
            }
        }
        Change::Removed => return None,
        Change::Restored => connection = self::connection(setup, pairing, who),
    }
    for child in &mut connection.children {
        Arc::make_mut(child).start_action = Actions::NONE;
    }
    Some(connection)
}

/// Makes the world.
pub fn world(setup: &Setup) -> World {
    let mut world = World::with_shards(setup.seed, &setup.shards);
    world.keep_journal();
    world.watch();
    for who in 0..setup.shards.len() {
        let gateway = world.gateway_mut(who);
        gateway.provider = clear_provider();
        if setup.same_spis {
            gateway.count_spis_from(0x1000);
        }
        let settings = &mut gateway.config.settings;
        settings.retransmit_timeout = Duration::from_secs(1);
        settings.retransmit_tries = setup.tries;
        // In some worlds what backends hold is compared while all sorts of things are under way; the oracle hears of every false alarm.
        if setup.seed % 4 == 1 {
            settings.check_interval = Duration::from_millis(700);
        }
        gateway.work_delay = delay(setup.work[who]);
        gateway.report_delay = delay(setup.reports[who]);
        if setup.second && [A, B].contains(&who) {
            gateway.load_secret(SharedSecret {
                id: "second".into(),
                owners: vec![second_identity(A), second_identity(B)],
                secret: Secret::new(b"the second key"),
            });
        }
        for other in (0..setup.shards.len()).filter(|other| *other != who) {
            gateway.load_secret(config::secret(who, other));
        }
    }
    if setup.nat {
        world.behind_nat(A, Nat::new([203, 0, 113, 1].into(), 40_000));
    }
    for pairing in pairings(setup) {
        for who in pairing.ends {
            world.configure(who, connection(setup, &pairing, who));
        }
    }
    world.link.latency = Duration::from_millis(setup.latency);
    world.link.jitter = Duration::from_millis(setup.jitter);
    (world.link.loss, world.link.duplicates) = (setup.loss, setup.duplicates);
    world
}

/// A delay of so many milliseconds; 0 = none.
pub fn delay(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}
