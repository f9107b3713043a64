//! Refusals in words: which device, what it cannot carry, what it offers instead, and which key of swanctl.conf changes it.

use std::fmt::Display;

use super::{Note, PolicyKind, Refusal};
use crate::backend::LimitUnit;
use crate::capability::ReplayWindows;
use crate::sa::{OffloadMode, SaMode};

/// A mode of offload as people call it.
pub fn rung(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::Packet => "packet offload",
        OffloadMode::Crypto => "crypto offload",
        OffloadMode::No => "software",
        OffloadMode::Auto => "whatever it offers",
    }
}

/// `a, b or c`.
fn list<T: Display>(all: &[T]) -> String {
    match all {
        [] => "nothing".into(),
        [one] => one.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            format!("{} or {last}", first.join(", "))
        }
    }
}

fn rungs(all: &[OffloadMode]) -> String {
    list(&all.iter().map(|mode| rung(*mode)).collect::<Vec<_>>())
}

fn windows(offers: &ReplayWindows) -> String {
    match offers {
        ReplayWindows::Range(least, most) => format!("{least} to {most} packets, or 0"),
        ReplayWindows::Only(windows) => format!("{} packets", list(windows)),
    }
}

impl Refusal {
    /// The refusal in one sentence without its end.
    pub fn sentence(&self, device: &str, mode: OffloadMode) -> String {
        let on = format!("device {device} with {}", rung(mode));
        match self {
            Self::Down => format!("device {device} is down"),
            Self::Gone => format!("device {device} was removed"),
            Self::Rung { offers } => {
                format!(
                    "device {device} has no {}, only {}: set `hw_offload` to one of these",
                    rung(mode),
                    rungs(offers)
                )
            }
            Self::Cipher { asked, offers } => {
                format!("{on} carries {}, not {}: change `esp_proposals`", list(offers), list(asked))
            }
            Self::KeyLength { asked, offers } => {
                let (asked, offers) = (list(asked), list(offers));
                format!("{on} carries this cipher with keys of {offers} bits, not {asked}: change `esp_proposals`")
            }
            Self::IcvLength { asked, offers } => {
                let (asked, offers) = (list(asked), list(offers));
                format!("{on} carries this cipher with an ICV of {offers} bits, not {asked}: change `esp_proposals`")
            }
            Self::Esn => {
                format!("{on} carries no extended sequence numbers, only 32-bit ones: add `noesn` to `esp_proposals`")
            }
            Self::Mode(SaMode::Transport) => format!("{on} carries tunnel mode only: set `mode = tunnel`"),
            Self::Mode(SaMode::Tunnel) => format!("{on} carries transport mode only: set `mode = transport`"),
            Self::ReplayWindow { asked, offers } => {
                format!("{on} has replay windows of {}, not {asked}: change `replay_window`", windows(offers))
            }
            Self::UdpEncapsulation { forced: true } => {
                format!("{on} carries no ESP in UDP, only native ESP: unset `encap`")
            }
            Self::UdpEncapsulation { forced: false } => format!(
                "{on} carries no ESP in UDP, only native ESP, and there is NAT on the way to the peer: set `hw_offload = auto`"
            ),
            Self::AddressRange(pair) => {
                format!("{on} carries prefixes only, not {pair}: change `local_ts` or `remote_ts`")
            }
            Self::Ports(pair) => {
                format!(
                    "{on} looks at no ports, only at addresses and protocols, and cannot carry {pair}: change `local_ts` or `remote_ts`"
                )
            }
            Self::Protocol { pair, offers } => {
                let offers = match offers.as_slice() {
                    [] => "all protocols together only".to_owned(),
                    some => format!("all protocols together or protocol {} alone", list(some)),
                };
                format!("{on} carries {offers}, not {pair}: change `local_ts` or `remote_ts`")
            }
            Self::PolicyKind(PolicyKind::Trap) => {
                format!("{on} has no trap policies: take `trap` out of `start_action`")
            }
            Self::PolicyKind(PolicyKind::Shunt | PolicyKind::Protect) => {
                format!("{on} has protecting policies only, no shunts: set `hw_offload = no`")
            }
            Self::Marks => {
                format!("{on} cannot match or set packet marks: unset `mark_in`, `mark_out` and `set_mark_*`")
            }
            Self::InterfaceIds => format!("{on} knows no interface ids: unset `if_id_in` and `if_id_out`"),
            Self::SaTable { size, held, needs } => format!(
                "{on} is full: of {size} SAs {held} are in use or kept for rekeying and {needs} more are needed: set `hw_offload = auto` or use fewer children"
            ),
            Self::PolicyTable { size, held, needs } => format!(
                "{on} is full: of {size} policies {held} are in use and {needs} more are needed: set `hw_offload = auto` or use fewer selectors"
            ),
        }
    }
}

impl Note {
    /// The note in one sentence without its end.
    pub fn sentence(self, device: &str, mode: OffloadMode) -> String {
        let Self::Emulated(unit) = self;
        let unit = match unit {
            LimitUnit::Time => "time",
            LimitUnit::Bytes => "byte",
            LimitUnit::Packets => "packet",
        };
        format!("device {device} with {} raises no {unit} limits: they are watched from its counters", rung(mode))
    }
}
