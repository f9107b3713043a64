//! The pre-flight check: whether a rung of a device can carry what a child asks, found out before anything is negotiated or installed.
//!
//! [`check`] holds what is asked against one rung and gives every reason against it, not only the first. [`ladder_plan`] does so for all rungs that
//! the configuration allows and leaves those that can be tried, best first. Both look at nothing but their arguments: whoever knows less (a file
//! that is being loaded knows neither the route nor whether there is NAT on it) asks less.

use std::fmt;
use std::sync::Arc;

use crate::algorithm::{EspAlgorithm, EspEncryption};
use crate::capability::{Capabilities, Device, DeviceState, LimitUnits, ReplayWindows, Rung};
use crate::sa::{OffloadMode, SaMode};
use crate::selector::SelectorPair;

pub mod words;

#[cfg(test)]
mod tests;

/// Transforms that an SA may run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suite {
    /// Encryption and integrity.
    pub algorithm: EspAlgorithm,
    /// 64-bit sequence numbers.
    pub esn: bool,
}

/// What policies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Traffic of a CHILD SA.
    Protect,
    /// Traffic that asks for one.
    Trap,
    /// Traffic that passes in clear or is dropped.
    Shunt,
}

/// Whether ESP goes in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// It is not known yet whether there is NAT on the way.
    Unknown,
    /// It does not.
    Native,
    /// NAT was found on the way.
    Nat,
    /// The configuration wants it (`encap = yes`).
    Forced,
}

/// Table entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entries {
    /// In the SAD.
    pub sas: u32,
    /// In the SPD.
    pub policies: u32,
}

/// What a child asks of a device, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// What its policies are for. Only [`PolicyKind::Protect`] asks for SAs too.
    pub kind: PolicyKind,
    /// Tunnel or transport.
    pub mode: SaMode,
    /// Transforms in order of preference: one of them has to be carried.
    pub suites: Vec<Suite>,
    /// Replay window of the inbound SA in packets; 0 = none.
    pub replay_window: u32,
    /// ESP in UDP.
    pub encapsulation: Encapsulation,
    /// Selectors of the policies; empty while unknown, or where no policies are installed.
    pub selectors: Vec<SelectorPair>,
    /// Units in which limits are configured.
    pub limits: LimitUnits,
    /// Marks.
    pub marks: bool,
    /// Interface ids.
    pub interface_ids: bool,
    /// Entries it takes.
    pub entries: Entries,
}

/// Why a rung cannot carry what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The device is down.
    Down,
    /// The device was removed.
    Gone,
    /// The device has no such rung.
    Rung {
        /// Those that it has.
        offers: Vec<OffloadMode>,
    },
    /// None of the ciphers.
    Cipher {
        /// Asked for.
        asked: Vec<EspAlgorithm>,
        /// Carried.
        offers: Vec<EspAlgorithm>,
    },
    /// One of the ciphers, with another key length.
    KeyLength {
        /// Asked for, in bits.
        asked: Vec<u16>,
        /// Carried with the same cipher.
        offers: Vec<u16>,
    },
    /// One of the ciphers, with an integrity check value of another length.
    IcvLength {
        /// Asked for, in bits.
        asked: Vec<u16>,
        /// Carried with the same cipher.
        offers: Vec<u16>,
    },
    /// Extended sequence numbers only are asked for.
    Esn,
    /// Tunnel or transport mode.
    Mode(SaMode),
    /// The replay window.
    ReplayWindow {
        /// Asked for.
        asked: u32,
        /// Carried.
        offers: ReplayWindows,
    },
    /// ESP in UDP.
    UdpEncapsulation {
        /// The configuration wants it; otherwise NAT was found.
        forced: bool,
    },
    /// Addresses that are no prefix.
    AddressRange(SelectorPair),
    /// Ports, or ICMP type and code.
    Ports(SelectorPair),
    /// A protocol.
    Protocol {
        /// The selectors that name it.
        pair: SelectorPair,
        /// Carried besides any.
        offers: Vec<u8>,
    },
    /// Bypass, discard or trap policies.
    PolicyKind(PolicyKind),
    /// Packet marks.
    Marks,
    /// Interface ids.
    InterfaceIds,
    /// The SAD has no room.
    SaTable {
        /// Entries it holds at most.
        size: u32,
        /// Entries in use, or kept free.
        held: u32,
        /// Entries that are needed.
        needs: u32,
    },
    /// The SPD has no room.
    PolicyTable {
        /// Entries it holds at most.
        size: u32,
        /// Entries in use.
        held: u32,
        /// Entries that are needed.
        needs: u32,
    },
}

/// What works, but in another way than one might think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The device raises no limits of this unit: they are watched from its counters.
    Emulated(crate::LimitUnit),
}

/// One rung held against what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Reasons against it; none = it can carry it.
    pub refusals: Vec<Refusal>,
    /// What else is worth knowing.
    pub notes: Vec<Note>,
}

/// A rung that cannot be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The device.
    pub device: Arc<str>,
    /// The rung.
    pub mode: OffloadMode,
    /// Why, at least one.
    pub refusals: Vec<Refusal>,
}

/// Which rungs to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'d> {
    /// Rungs to try in this order.
    pub rungs: Vec<&'d Rung>,
    /// Rungs that the configuration allows and that cannot carry what is asked, best first.
    pub rejected: Vec<Rejected>,
    /// What is worth knowing of the first rung to be tried.
    pub notes: Vec<Note>,
}

impl Plan<'_> {
    /// Every reason against every rejected rung, in words.
    pub fn reasons(&self) -> String {
        self.rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// The reasons against a rung, in words.
    pub fn reason(&self, mode: OffloadMode) -> Option<String> {
        self.rejected.iter().find(|rejected| rejected.mode == mode).map(ToString::to_string)
    }
}

/// The rungs of `device` to try for `wanted` (`hw_offload`) in order, and why each of the others is out. `held` says what a rung holds already,
/// with what is to be kept free there.
pub fn ladder_plan<'d>(
    device: &'d Device,
    wanted: OffloadMode,
    asks: &Asks,
    held: impl Fn(OffloadMode) -> Entries,
) -> Plan<'d> {
    let mut plan = Plan { rungs: Vec::new(), rejected: Vec::new(), notes: Vec::new() };
    let mut reject = |mode, refusals| plan.rejected.push(Rejected { device: Arc::clone(&device.name), mode, refusals });
    for rung in device.ladder(wanted) {
        let mode = rung.mode.mode;
        let out = match device.state {
            DeviceState::Up => None,
            DeviceState::Down => Some(Refusal::Down),
            DeviceState::Gone => Some(Refusal::Gone),
        };
        if let Some(out) = out {
            reject(mode, vec![out]);
            continue;
        }
        let found = check(&rung.capabilities, asks, held(mode));
        if !found.refusals.is_empty() {
            reject(mode, found.refusals);
            continue;
        }
        if plan.rungs.is_empty() {
            plan.notes = found.notes;
        }
        plan.rungs.push(rung);
    }
    if wanted != OffloadMode::Auto && device.rung(wanted).is_none() {
        let offers = device.rungs.iter().map(|rung| rung.mode.mode).collect();
        reject(wanted, vec![Refusal::Rung { offers }]);
    }
    plan
}

/// Holds what is asked against what one rung can carry, of which `held` is in use.
pub fn check(rung: &Capabilities, asks: &Asks, held: Entries) -> Findings {
    let mut refusals = Vec::new();
    if asks.kind == PolicyKind::Protect {
        refusals.extend(suites(rung, &asks.suites));
        refusals.extend(mode(rung, asks.mode));
        refusals.extend(replay_window(rung, asks.replay_window));
        refusals.extend(encapsulation(rung, asks.encapsulation));
    } else if !rung.all_policy_kinds {
        refusals.push(Refusal::PolicyKind(asks.kind));
    }
    refusals.extend(selectors(rung, &asks.selectors));
    if asks.marks && !rung.marks {
        refusals.push(Refusal::Marks);
    }
    if asks.interface_ids && !rung.interface_ids {
        refusals.push(Refusal::InterfaceIds);
    }
    refusals.extend(tables(rung, asks.entries, held));
    let protects = asks.kind == PolicyKind::Protect;
    Findings { refusals, notes: if protects { emulated(rung.limits, asks.limits) } else { Vec::new() } }
}

/// The traffic of `shunts`, which are looked up in software, that never reaches them because policies in a device, `offloaded`, take it: a device
/// is asked first, whatever the priorities.
pub fn hidden(shunts: &[SelectorPair], offloaded: &[SelectorPair]) -> Option<SelectorPair> {
    let both = |shunt: &SelectorPair, taken: &SelectorPair| {
        let (local, remote) = (shunt.local.intersection(&taken.local)?, shunt.remote.intersection(&taken.remote)?);
        Some(SelectorPair { local, remote })
    };
    shunts.iter().find_map(|shunt| offloaded.iter().find_map(|taken| both(shunt, taken)))
}

/// Whether a rung can carry an SA with these transforms.
pub fn carries(rung: &Capabilities, suite: Suite) -> bool {
    rung.algorithms.contains(&suite.algorithm) && (rung.esn || !suite.esn)
}

fn suites(rung: &Capabilities, asked: &[Suite]) -> Option<Refusal> {
    // Nothing named is nothing known yet.
    if asked.is_empty() || asked.iter().any(|suite| carries(rung, *suite)) {
        return None;
    }
    if asked.iter().any(|suite| rung.algorithms.contains(&suite.algorithm)) {
        return Some(Refusal::Esn);
    }
    let same_cipher = |ours: &&EspAlgorithm| {
        let close = |suite: &Suite| cipher(suite.algorithm.encryption) == cipher(ours.encryption);
        asked.iter().any(close)
    };
    let offered: Vec<&EspAlgorithm> = rung.algorithms.iter().filter(same_cipher).collect();
    let is_close =
        |suite: &&Suite| offered.iter().any(|ours| cipher(suite.algorithm.encryption) == cipher(ours.encryption));
    let close: Vec<&EspAlgorithm> = asked.iter().filter(is_close).map(|suite| &suite.algorithm).collect();
    if close.is_empty() {
        let mut algorithms: Vec<EspAlgorithm> = asked.iter().map(|suite| suite.algorithm).collect();
        algorithms.dedup();
        return Some(Refusal::Cipher { asked: algorithms, offers: rung.algorithms.clone() });
    }
    let bits = |all: &[&EspAlgorithm]| distinct(all.iter().filter_map(|one| one.encryption.key_bits()));
    let (asked_bits, offered_bits) = (bits(&close), bits(&offered));
    if asked_bits.iter().any(|bits| offered_bits.contains(bits)) {
        let icv = |all: &[&EspAlgorithm]| distinct(all.iter().map(|one| one.icv_bits()));
        Some(Refusal::IcvLength { asked: icv(&close), offers: icv(&offered) })
    } else {
        Some(Refusal::KeyLength { asked: asked_bits, offers: offered_bits })
    }
}

/// A cipher whatever its key length, by its IANA transform id.
fn cipher(encryption: EspEncryption) -> u16 {
    encryption.id()
}

fn distinct(numbers: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut all: Vec<u16> = numbers.collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn mode(rung: &Capabilities, asked: SaMode) -> Option<Refusal> {
    let carried = match asked {
        SaMode::Tunnel => rung.tunnel,
        SaMode::Transport => rung.transport,
    };
    (!carried).then_some(Refusal::Mode(asked))
}

fn replay_window(rung: &Capabilities, asked: u32) -> Option<Refusal> {
    let offers = &rung.replay_windows;
    (!offers.allow(asked)).then(|| Refusal::ReplayWindow { asked, offers: offers.clone() })
}

fn encapsulation(rung: &Capabilities, asked: Encapsulation) -> Option<Refusal> {
    match asked {
        _ if rung.udp_encapsulation => None,
        Encapsulation::Unknown | Encapsulation::Native => None,
        Encapsulation::Nat => Some(Refusal::UdpEncapsulation { forced: false }),
        Encapsulation::Forced => Some(Refusal::UdpEncapsulation { forced: true }),
    }
}

/// Each kind of selector that cannot be had once, with the first pair that needs it.
fn selectors(rung: &Capabilities, asked: &[SelectorPair]) -> Vec<Refusal> {
    let support = &rung.selectors;
    let first = |needs: &dyn Fn(&crate::TrafficSelector) -> bool| {
        asked.iter().copied().find(|pair| needs(&pair.local) || needs(&pair.remote))
    };
    let mut refusals = Vec::new();
    if !support.ranges {
        refusals.extend(first(&|side| side.addresses.prefix_length().is_none()).map(Refusal::AddressRange));
    }
    if !support.ports {
        refusals.extend(first(&|side| side.needs_ports()).map(Refusal::Ports));
    }
    if let Some(protocols) = &support.protocols {
        let other = first(&|side| side.protocol != 0 && !protocols.contains(&side.protocol));
        refusals.extend(other.map(|pair| Refusal::Protocol { pair, offers: protocols.clone() }));
    }
    refusals
}

fn tables(rung: &Capabilities, needs: Entries, held: Entries) -> Vec<Refusal> {
    let full =
        |size: Option<u32>, held: u32, needs: u32| size.filter(|size| needs > 0 && held.saturating_add(needs) > *size);
    let sas = full(rung.sa_table, held.sas, needs.sas);
    let policies = full(rung.policy_table, held.policies, needs.policies);
    let sas = sas.map(|size| Refusal::SaTable { size, held: held.sas, needs: needs.sas });
    let policies = policies.map(|size| Refusal::PolicyTable { size, held: held.policies, needs: needs.policies });
    sas.into_iter().chain(policies).collect()
}

fn emulated(raised: LimitUnits, asked: LimitUnits) -> Vec<Note> {
    use crate::LimitUnit;
    let units = [
        (LimitUnit::Time, asked.time && !raised.time),
        (LimitUnit::Bytes, asked.bytes && !raised.bytes),
        (LimitUnit::Packets, asked.packets && !raised.packets),
    ];
    units.into_iter().filter(|(_, emulated)| *emulated).map(|(unit, _)| Note::Emulated(unit)).collect()
}

impl Refusal {
    /// The key of a child, or of its connection, in swanctl.conf that asks for it; none where no key does.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Down | Self::Gone | Self::SaTable { .. } => None,
            Self::Rung { .. } => Some("hw_offload"),
            Self::Cipher { .. } | Self::KeyLength { .. } | Self::IcvLength { .. } | Self::Esn => Some("esp_proposals"),
            Self::Mode(_) => Some("mode"),
            Self::ReplayWindow { .. } => Some("replay_window"),
            Self::UdpEncapsulation { forced } => forced.then_some("encap"),
            Self::AddressRange(_) | Self::Ports(_) | Self::Protocol { .. } | Self::PolicyTable { .. } => {
                Some("remote_ts")
            }
            Self::PolicyKind(PolicyKind::Trap) => Some("start_action"),
            Self::PolicyKind(PolicyKind::Shunt | PolicyKind::Protect) => Some("mode"),
            Self::Marks => Some("mark_out"),
            Self::InterfaceIds => Some("if_id_out"),
        }
    }

    /// One word for it, the same whatever the numbers in it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Gone => "gone",
            Self::Rung { .. } => "rung",
            Self::Cipher { .. } => "cipher",
            Self::KeyLength { .. } => "key-length",
            Self::IcvLength { .. } => "icv-length",
            Self::Esn => "esn",
            Self::Mode(_) => "mode",
            Self::ReplayWindow { .. } => "replay-window",
            Self::UdpEncapsulation { .. } => "udp-encapsulation",
            Self::AddressRange(_) => "address-range",
            Self::Ports(_) => "ports",
            Self::Protocol { .. } => "protocol",
            Self::PolicyKind(_) => "policy-kind",
            Self::Marks => "marks",
            Self::InterfaceIds => "interface-ids",
            Self::SaTable { .. } => "sa-table",
            Self::PolicyTable { .. } => "policy-table",
        }
    }

    /// Whether it may be gone after a while without anything being changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Down
            | Self::Gone
            | Self::SaTable { .. }
            | Self::PolicyTable { .. }
            | Self::UdpEncapsulation { forced: false } => true,
            Self::Rung { .. }
            | Self::Cipher { .. }
            | Self::KeyLength { .. }
            | Self::IcvLength { .. }
            | Self::Esn
            | Self::Mode(_)
            | Self::ReplayWindow { .. }
            | Self::UdpEncapsulation { forced: true }
            | Self::AddressRange(_)
            | Self::Ports(_)
            | Self::Protocol { .. }
            | Self::PolicyKind(_)
            | Self::Marks
            | Self::InterfaceIds => false,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.refusals.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}", refusal.sentence(&self.device, self.mode))?;
        }
        Ok(())
    }
}
