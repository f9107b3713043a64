//! What a configured child asks of a device, for the pre-flight check of [`ipsec::preflight`].

use ipsec::preflight::{Asks, Encapsulation, Entries, PolicyKind, Suite};
use ipsec::{EspAlgorithm, Lifetime, LimitUnits, OuterAddresses, SaMode, SelectorPair, TrafficSelector};

use crate::config::{Child, ChildMode, ConfiguredSelector, Connection};
use crate::proposal::EspProposal;
use ike_wire::ids::EsnId;

impl EspProposal {
    /// Every combination of transforms that it allows and an SA can be made of, in order of preference.
    pub fn suites(&self) -> Vec<Suite> {
        let integrity = || {
            let none = self.integrity.is_empty().then_some(None);
            none.into_iter().chain(self.integrity.iter().map(|id| Some(id.0)))
        };
        let algorithms = self.encryption.iter().flat_map(|encryption| {
            integrity().filter_map(|id| EspAlgorithm::from_ids(encryption.id.0, encryption.key_bits, id))
        });
        let with_esn = |algorithm| self.esn.iter().map(move |esn| Suite { algorithm, esn: *esn == EsnId::EXT_SEQ });
        algorithms.flat_map(with_esn).collect()
    }
}

impl Child {
    /// What it asks of a device between two outer addresses, as far as that follows from the configuration: nothing is known of NAT, and no table
    /// entries are asked for. `replay_window` is the setting for children without one of their own.
    pub fn asks(&self, connection: &Connection, replay_window: u32, outer: OuterAddresses) -> Asks {
        let side = |configured: &[ConfiguredSelector], address| -> Vec<TrafficSelector> {
            configured.iter().map(|selector| selector.resolve(address)).collect()
        };
        let pairs = SelectorPair::product(&side(&self.local_ts, outer.local), &side(&self.remote_ts, outer.remote));
        let kind = match self.mode {
            ChildMode::Tunnel | ChildMode::Transport => PolicyKind::Protect,
            ChildMode::Pass | ChildMode::Drop => PolicyKind::Shunt,
        };
        let limited = |life: Lifetime| life.soft > 0 || life.hard > 0;
        Asks {
            kind,
            mode: if self.mode == ChildMode::Transport { SaMode::Transport } else { SaMode::Tunnel },
            suites: self.esp_proposals.iter().flat_map(EspProposal::suites).collect(),
            replay_window: self.replay_window.unwrap_or(replay_window),
            encapsulation: if connection.encap { Encapsulation::Forced } else { Encapsulation::Unknown },
            selectors: if self.policies { pairs } else { Vec::new() },
            limits: LimitUnits {
                time: limited(self.lifetime.time),
                bytes: limited(self.lifetime.bytes),
                packets: limited(self.lifetime.packets),
            },
            marks: self.tags.has_marks(),
            interface_ids: self.tags.interface.is_any() || connection.interface.is_any(),
            entries: Entries::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ike_wire::ids::{EncryptionId, IntegrityId};

    use super::*;
    use crate::proposal::Encryption;

    #[test]
    fn suites_are_all_combinations_in_order() {
        let cipher = |id, bits| Encryption { id, key_bits: Some(bits) };
        let gcm = EspProposal {
            encryption: vec![cipher(EncryptionId::AES_GCM_16, 256), cipher(EncryptionId::AES_GCM_16, 128)],
            integrity: Vec::new(),
            key_exchange: Vec::new(),
            esn: vec![EsnId::EXT_SEQ, EsnId::NO_EXT_SEQ],
        };
        let text = |proposal: &EspProposal| {
            let shown = |suite: &Suite| format!("{}{}", suite.algorithm, if suite.esn { "-esn" } else { "" });
            proposal.suites().iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(&gcm), "aes256gcm16-esn aes256gcm16 aes128gcm16-esn aes128gcm16");
        let cbc = EspProposal {
            encryption: vec![cipher(EncryptionId::AES_CBC, 128)],
            integrity: vec![IntegrityId(13), IntegrityId(12), IntegrityId(2)],
            esn: vec![EsnId::NO_EXT_SEQ],
            key_exchange: Vec::new(),
        };
        assert_eq!(text(&cbc), "aes128-sha384 aes128-sha256");
    }
}
