//! Keys for whoever captures: only with the operator's leave, only over the Unix socket, each time told to everybody.

use std::collections::HashSet;
use std::time::Instant;

use ike_model::{EventBody, ExportedSa, KeyExport};
use ike_sa::{EspSaKeys, IkeSaKeys};
use ipsec::Direction;
use swanctl_compat::capture::keys::{self, Keys, Transforms};
use swanctl_compat::request::WantedCapture;
use zeroize::Zeroizing;

use super::{HEARTBEAT, Stream};
use crate::core::Core;
use crate::subscribers::{Client, Peer};

const EVENT: &str = "cygnet-keys";

/// SAs whose keys go into one event: with the longest keys and names that there are they fit into one packet.
const TOGETHER: usize = 256;

/// What a client has of a connection's keys.
pub(super) struct Handing {
    leave: KeyExport,
    peer: (u32, Option<i32>),
    /// SAs whose keys it has.
    known: HashSet<String>,
    asked: Option<Instant>,
}

impl Handing {
    /// Whether a client may have keys.
    ///
    /// # Errors
    /// Why not, and what would have to be done.
    pub(super) fn new(core: &Core, client: &Client) -> Result<Self, String> {
        let leave = core.config.ike.settings.key_export.ok_or(
            "keys are not given out: set export_keys = true in the table [debug] of cygnetd.toml and restart cygnetd \
             (from then on whoever may use the VICI socket can have them)",
        )?;
        let peer = match client.peer() {
            Some(Peer::Process { uid, pid }) => (*uid, *pid),
            Some(Peer::Elsewhere(_)) | None => {
                return Err("keys are given out over the Unix socket only, never over the network".into());
            }
        };
        if client.registrations(EVENT) == 0 {
            return Err(format!("nobody listens: register for {EVENT} first"));
        }
        Ok(Self { leave, peer, known: HashSet::new(), asked: None })
    }

    /// Hands out keys that the client does not have yet, if there may be some: `news` says that messages or packets of unknown SAs came. `false` when
    /// the client takes nothing.
    pub(super) async fn more(&mut self, core: &Core, wanted: &WantedCapture, stream: &Stream<'_>, news: bool) -> bool {
        if !news && self.asked.is_some_and(|asked| asked.elapsed() < HEARTBEAT) {
            return true;
        }
        self.asked = Some(Instant::now());
        let all = core.keys_of(self.leave, &wanted.connection).await;
        let ike = all.ike.iter().filter(|_| wanted.ike).map(|keys| (told_ike(keys), of_ike(keys)));
        let is_wanted = |keys: &&EspSaKeys| wanted.child.as_ref().is_none_or(|child| *child == *keys.child);
        let esp = all.esp.iter().filter(is_wanted).map(|keys| (told_esp(keys), of_esp(keys)));
        let mut new = ike.chain(esp).filter(|(sa, _)| self.known.insert(format!("{} {}", sa.protocol, sa.spi)));
        let (uid, pid) = self.peer;
        loop {
            let (sas, keys): (Vec<ExportedSa>, Vec<Keys>) = new.by_ref().take(TOGETHER).unzip();
            if keys.is_empty() {
                return true;
            }
            // It is known to everybody before anybody has them.
            core.shared.events.publish(EventBody::KeysExported {
                connection: wanted.connection.clone(),
                uid,
                pid,
                sas,
            });
            if !stream.send(EVENT, keys::message(&keys)).await {
                return false;
            }
        }
    }
}

fn told_ike(keys: &IkeSaKeys) -> ExportedSa {
    let (initiator, responder) = keys.spis;
    ExportedSa { protocol: "ike", child: None, spi: format!("{initiator}_i {responder}_r") }
}

fn told_esp(keys: &EspSaKeys) -> ExportedSa {
    let way = if keys.direction == Direction::Outbound { 'o' } else { 'i' };
    ExportedSa { protocol: "esp", child: Some(keys.child.to_string()), spi: format!("{}_{way}", keys.spi) }
}

fn of_ike(keys: &IkeSaKeys) -> Keys {
    let secret = |key: &Zeroizing<Box<[u8]>>| Zeroizing::new(key.to_vec());
    Keys::Ike {
        initiator: keys.spis.0.to_string(),
        responder: keys.spis.1.to_string(),
        transforms: Transforms {
            encryption: keys.encryption.id.0,
            key_bits: keys.encryption.key_bits,
            integrity: keys.integrity.map(|id| id.0),
        },
        encryption: [secret(&keys.sk_ei), secret(&keys.sk_er)],
        integrity: [secret(&keys.sk_ai), secret(&keys.sk_ar)],
    }
}

fn of_esp(keys: &EspSaKeys) -> Keys {
    Keys::Esp {
        child: keys.child.to_string(),
        spi: keys.spi.to_string(),
        source: keys.source,
        destination: keys.destination,
        transforms: Transforms {
            encryption: keys.algorithm.encryption.id(),
            key_bits: keys.algorithm.encryption.key_bits(),
            integrity: keys.algorithm.integrity.map(|integrity| integrity.id()),
        },
        esn: keys.esn,
        encryption: Zeroizing::new(keys.key.encryption.to_vec()),
        integrity: Zeroizing::new(keys.key.integrity.as_ref().map(|key| key.to_vec()).unwrap_or_default()),
    }
}
