//! What a simulated NIC claims to carry, as configured.

use ipsec::{Capabilities, EspAlgorithm, LimitUnits, ReplayWindows, SelectorSupport};

use crate::crypto;

/// Whose limits are taken where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Nobody's: a NIC carries all that the datapath does.
    #[default]
    Unlimited,
    /// Those of a ConnectX (mlx5) as its driver states them.
    Mlx5,
}

/// The limits of a simulated NIC; `None` leaves it to the preset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicLimits {
    /// The preset.
    pub like: Preset,
    /// Whether it does packet offload at all.
    pub packet: Option<bool>,
    /// ESP algorithms; empty = all.
    pub ciphers: Option<Vec<EspAlgorithm>>,
    /// Tunnel mode.
    pub tunnel: Option<bool>,
    /// Transport mode.
    pub transport: Option<bool>,
    /// Extended sequence numbers.
    pub esn: Option<bool>,
    /// Replay windows in packets, 0 for none; empty = all.
    pub replay_windows: Option<Vec<u32>>,
    /// ESP in UDP.
    pub udp_encapsulation: Option<bool>,
    /// Limits it raises by itself.
    pub limits: Option<LimitUnits>,
    /// SAs it holds; 0 = bounded by memory only.
    pub sa_table: Option<u32>,
    /// Policies it holds; 0 = bounded by memory only.
    pub policy_table: Option<u32>,
    /// Selectors with ports.
    pub ports: Option<bool>,
    /// Selectors with address ranges.
    pub ranges: Option<bool>,
    /// Protocols that selectors may name; empty = all.
    pub protocols: Option<Vec<u8>>,
    /// Bypass, discard and trap policies.
    pub shunts: Option<bool>,
    /// Moving an SA to another path.
    pub in_place_move: Option<bool>,
    /// Whether it does cryptography only where it cannot do all.
    pub crypto: Option<bool>,
    /// ESP algorithms of that; empty = all.
    pub crypto_ciphers: Option<Vec<EspAlgorithm>>,
    /// SAs it holds for that; 0 = bounded by memory only.
    pub crypto_sa_table: Option<u32>,
}

impl NicLimits {
    /// The limits of a preset and no others.
    pub fn like(like: Preset) -> Self {
        Self { like, ..Self::default() }
    }

    /// What it carries as a whole, if it does packet offload. `full` is what the datapath can do.
    pub fn packet_rung(&self, full: &Capabilities) -> Option<Capabilities> {
        if !self.packet.unwrap_or(true) {
            return None;
        }
        let base = match self.like {
            Preset::Unlimited => full.clone(),
            Preset::Mlx5 => mlx5(full),
        };
        let listed = |protocols: &Vec<u8>| (!protocols.is_empty()).then(|| protocols.clone());
        let unlisted = &full.replay_windows;
        Some(Capabilities {
            algorithms: chosen(self.ciphers.as_ref(), &base.algorithms, &full.algorithms),
            tunnel: self.tunnel.unwrap_or(base.tunnel),
            transport: self.transport.unwrap_or(base.transport),
            esn: self.esn.unwrap_or(base.esn),
            replay_windows: self.replay_windows.as_ref().map_or(base.replay_windows, |windows| {
                if windows.is_empty() { unlisted.clone() } else { ReplayWindows::Only(windows.clone()) }
            }),
            selectors: SelectorSupport {
                ranges: self.ranges.unwrap_or(base.selectors.ranges),
                ports: self.ports.unwrap_or(base.selectors.ports),
                protocols: self.protocols.as_ref().map_or(base.selectors.protocols, listed),
            },
            udp_encapsulation: self.udp_encapsulation.unwrap_or(base.udp_encapsulation),
            limits: self.limits.unwrap_or(base.limits),
            sa_table: self.sa_table.filter(|size| *size > 0).or(base.sa_table),
            policy_table: self.policy_table.filter(|size| *size > 0).or(base.policy_table),
            all_policy_kinds: self.shunts.unwrap_or(base.all_policy_kinds),
            in_place_move: self.in_place_move.unwrap_or(base.in_place_move),
            separate_activation: base.separate_activation,
            marks: base.marks,
            interface_ids: base.interface_ids,
        })
    }

    /// What it does the cryptography of, if anything. Headers, windows, limits and policies are the host's then, but no driver takes ESP in UDP.
    pub fn crypto_rung(&self, full: &Capabilities) -> Option<Capabilities> {
        self.crypto.unwrap_or(false).then(|| Capabilities {
            algorithms: chosen(self.crypto_ciphers.as_ref(), &full.algorithms, &full.algorithms),
            udp_encapsulation: false,
            sa_table: self.crypto_sa_table.filter(|size| *size > 0).or(full.sa_table),
            ..full.clone()
        })
    }
}

/// The algorithms asked for; an empty list asks for all.
fn chosen(asked: Option<&Vec<EspAlgorithm>>, base: &[EspAlgorithm], full: &[EspAlgorithm]) -> Vec<EspAlgorithm> {
    match asked {
        None => base.to_vec(),
        Some(asked) if asked.is_empty() => full.to_vec(),
        // In our order of preference.
        Some(asked) => full.iter().filter(|algorithm| asked.contains(algorithm)).copied().collect(),
    }
}

/// AES-GCM with a whole ICV and 128 or 256 bits of key, four windows, no ESP in UDP, selectors of TCP and UDP or of everything. Octets are no unit
/// of its limits, and an SA that moves loses its offload.
fn mlx5(full: &Capabilities) -> Capabilities {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let ciphers = vec![EspAlgorithm::AES_128_GCM, EspAlgorithm::AES_256_GCM];
    Capabilities {
        algorithms: chosen(Some(&ciphers), &full.algorithms, &full.algorithms),
        replay_windows: ReplayWindows::Only(vec![32, 64, 128, 256]),
        selectors: SelectorSupport { ranges: false, ports: true, protocols: Some(vec![TCP, UDP]) },
        udp_encapsulation: false,
        limits: LimitUnits { time: true, bytes: false, packets: true },
        in_place_move: false,
        ..full.clone()
    }
}

/// The algorithm of that name, as in a proposal, if the datapath has it.
pub fn cipher_named(name: &str) -> Option<EspAlgorithm> {
    crypto::algorithms().into_iter().find(|algorithm| algorithm.to_string() == name)
}

/// Names of all algorithms the datapath has, in its order of preference.
pub fn cipher_names() -> Vec<String> {
    crypto::algorithms().iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_wins_over_the_preset_and_empty_means_all() {
        let full = crate::nic::software();
        assert_eq!(NicLimits::default().packet_rung(&full), Some(full.clone()));
        assert_eq!(NicLimits::default().crypto_rung(&full), None);
        let mlx5 = NicLimits::like(Preset::Mlx5).packet_rung(&full).unwrap();
        assert!(!mlx5.udp_encapsulation && !mlx5.limits.bytes && mlx5.esn && !mlx5.replay_windows.allow(0));
        assert_eq!(mlx5.algorithms.len(), 2);
        let said = NicLimits {
            esn: Some(false),
            ciphers: Some(Vec::new()),
            replay_windows: Some(Vec::new()),
            protocols: Some(Vec::new()),
            sa_table: Some(4),
            crypto: Some(true),
            crypto_ciphers: Some(vec![EspAlgorithm::AES_256_GCM]),
            ..NicLimits::like(Preset::Mlx5)
        };
        let packet = said.packet_rung(&full).unwrap();
        assert_eq!((packet.esn, packet.sa_table, &packet.algorithms), (false, Some(4), &full.algorithms));
        assert!(packet.replay_windows.allow(0) && packet.selectors.protocols.is_none() && !packet.udp_encapsulation);
        let crypto = said.crypto_rung(&full).unwrap();
        assert_eq!((crypto.esn, crypto.udp_encapsulation), (true, false));
        assert_eq!(crypto.algorithms, [EspAlgorithm::AES_256_GCM]);
        assert_eq!(NicLimits { packet: Some(false), ..said }.packet_rung(&full), None);
    }

    #[test]
    fn every_algorithm_has_a_name_of_its_own() {
        let all = crypto::algorithms();
        assert!(all.iter().all(|algorithm| cipher_named(&algorithm.to_string()) == Some(*algorithm)));
        assert_eq!(cipher_named("aes128gcm16"), Some(EspAlgorithm::AES_128_GCM));
        assert_eq!(cipher_named("aes"), None);
    }
}
