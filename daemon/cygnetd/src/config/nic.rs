//! `[backend.userspace.limits]`: what a simulated NIC carries, and what only matters where one is simulated.

use ipsec::{EspAlgorithm, LimitUnits};
use offload_userspace::nic::{NicLimits, Preset, cipher_named, cipher_names};
use toml::de::DeValue;

use super::Config;
use super::file::Deferred;
use super::keys::Set;
use super::value::{boolean, list, number, text, word};

/// Entries of a table at most.
const TABLE_MAX: i64 = u32::MAX as i64;
/// The section.
pub(super) const LIMITS: &str = "backend.userspace.limits";

fn nic(config: &mut Config) -> &mut NicLimits {
    &mut config.backend.userspace.simulation.limits
}

/// Its keys.
pub(super) const KEYS: &[(&str, Set)] = &[
    ("backend.userspace.limits.like", |c, v| {
        word(v, &[("none", Preset::Unlimited), ("mlx5", Preset::Mlx5)]).map(|preset| nic(c).like = preset)
    }),
    ("backend.userspace.limits.packet", |c, v| boolean(v).map(|yes| nic(c).packet = Some(yes))),
    ("backend.userspace.limits.ciphers", |c, v| ciphers(v).map(|list| nic(c).ciphers = Some(list))),
    ("backend.userspace.limits.tunnel", |c, v| boolean(v).map(|yes| nic(c).tunnel = Some(yes))),
    ("backend.userspace.limits.transport", |c, v| boolean(v).map(|yes| nic(c).transport = Some(yes))),
    ("backend.userspace.limits.esn", |c, v| boolean(v).map(|yes| nic(c).esn = Some(yes))),
    ("backend.userspace.limits.replay_windows", |c, v| windows(v).map(|list| nic(c).replay_windows = Some(list))),
    ("backend.userspace.limits.udp_encapsulation", |c, v| boolean(v).map(|yes| nic(c).udp_encapsulation = Some(yes))),
    ("backend.userspace.limits.limits", |c, v| units(v).map(|units| nic(c).limits = Some(units))),
    ("backend.userspace.limits.sa_table", |c, v| number(v, 0, TABLE_MAX).map(|size| nic(c).sa_table = Some(size))),
    ("backend.userspace.limits.policy_table", |c, v| {
        number(v, 0, TABLE_MAX).map(|size| nic(c).policy_table = Some(size))
    }),
    ("backend.userspace.limits.selectors", |c, v| {
        let known = list(v, &["ports", "ranges"])?;
        nic(c).ports = Some(known.contains(&"ports"));
        nic(c).ranges = Some(known.contains(&"ranges"));
        Ok(())
    }),
    ("backend.userspace.limits.protocols", |c, v| protocols(v).map(|list| nic(c).protocols = Some(list))),
    ("backend.userspace.limits.shunts", |c, v| boolean(v).map(|yes| nic(c).shunts = Some(yes))),
    ("backend.userspace.limits.in_place_move", |c, v| boolean(v).map(|yes| nic(c).in_place_move = Some(yes))),
    ("backend.userspace.limits.crypto", |c, v| boolean(v).map(|yes| nic(c).crypto = Some(yes))),
    ("backend.userspace.limits.crypto_ciphers", |c, v| ciphers(v).map(|list| nic(c).crypto_ciphers = Some(list))),
    ("backend.userspace.limits.crypto_sa_table", |c, v| {
        number(v, 0, TABLE_MAX).map(|size| nic(c).crypto_sa_table = Some(size))
    }),
];

/// Why a key says nothing while no NIC is simulated, if it does not.
pub(super) fn needs_simulation(key: &str, value: &DeValue<'_>) -> Option<String> {
    let needs = key.starts_with("backend.userspace.limits.")
        || (key == "backend.userspace.simulated_devices" && value.as_str() != Some("one"));
    needs.then(|| format!("`{key}` is about simulated NICs: it needs simulate_packet_device = true"))
}

/// Whether what [`needs_simulation`] found counts; several keys have findings of this kind, and none is taken back.
pub(super) const SIMULATED: Deferred =
    Deferred { key: "", counts: |config: &Config| !config.backend.userspace.simulate_packet_device };

/// What several keys together get wrong.
pub(super) fn cross_check(config: &Config) -> Result<(), String> {
    let NicLimits { packet, crypto, .. } = config.backend.userspace.simulation.limits;
    if config.backend.userspace.simulate_packet_device && packet == Some(false) && !crypto.unwrap_or(false) {
        return Err(format!("[{LIMITS}]: a NIC with `packet = false` and without `crypto = true` would do nothing"));
    }
    Ok(())
}

fn ciphers(value: &DeValue<'_>) -> Result<Vec<EspAlgorithm>, String> {
    let names = value.as_array().ok_or("must be a list of ciphers, such as [\"aes256gcm16\"]")?;
    let cipher = |name: &str| {
        cipher_named(name).ok_or_else(|| format!("holds `{name}`, but the datapath has {}", cipher_names().join(", ")))
    };
    names.iter().map(|item| text(item.get_ref()).and_then(cipher)).collect()
}

fn windows(value: &DeValue<'_>) -> Result<Vec<u32>, String> {
    let sizes = value.as_array().ok_or("must be a list of packets, such as [32, 64]")?;
    let size = |item: &DeValue<'_>| {
        let size = number(item, 0, 4096).map_err(|expected| format!("holds something that {expected}"))?;
        if size == 0 || size >= 32 {
            Ok(size)
        } else {
            Err(format!("holds {size}, but windows have 32 packets or more"))
        }
    };
    sizes.iter().map(|item| size(item.get_ref())).collect()
}

fn units(value: &DeValue<'_>) -> Result<LimitUnits, String> {
    let units = list(value, &["time", "bytes", "packets"])?;
    Ok(LimitUnits {
        time: units.contains(&"time"),
        bytes: units.contains(&"bytes"),
        packets: units.contains(&"packets"),
    })
}

/// IANA numbers, or the names of the usual ones.
fn protocols(value: &DeValue<'_>) -> Result<Vec<u8>, String> {
    const NAMES: [(&str, u8); 5] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58), ("sctp", 132)];
    const EXPECTED: &str = "must be a list of protocols, such as [\"tcp\", \"udp\", 47]";
    let protocol = |item: &DeValue<'_>| match item.as_str() {
        Some(name) => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("holds `{name}`: use a number from 1 to 255, or one of {}", names.join(", "))
        }),
        None => number(item, 1, 255).map_err(|expected| format!("holds something that {expected}, or a name")),
    };
    value.as_array().ok_or(EXPECTED)?.iter().map(|item| protocol(item.get_ref())).collect()
}
