//! Whether the devices of the running backend can carry what the children of a connection ask.
//!
//! A file says what is wanted; only the daemon knows its devices. What no device could ever carry as asked is refused when its connection is
//! loaded, with the key and the reason, and not when traffic waits for it. Which device it will be follows from the route, and whether there is
//! NAT from the peer: both are looked at when a child is initiated, trapped or answered.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ike_model::{Child, Connection, HostSpec, InterfaceIds};
use ipsec::preflight::{Asks, Entries, Note, Plan, PolicyKind, Refusal, hidden, ladder_plan, words};
use ipsec::{Device, DeviceState, DeviceTable, LimitUnit, OffloadMode, OuterAddresses, SelectorPair, TrafficSelector};

use super::finding::{Finding, FindingKind, Rejected};

/// What children are held against.
#[derive(Debug, Clone)]
pub struct Devices {
    /// The devices of the backend.
    pub table: Arc<DeviceTable>,
    /// Replay window of children without one of their own.
    pub replay_window: u32,
    /// Others may appear of which nothing is known yet, so that an offload which none of these has is no mistake.
    pub may_appear: bool,
}

/// What the devices have to say to a connection: errors about keys that ask for what none of them can carry, and notes.
#[must_use]
pub fn findings(connection: &Connection, devices: &Devices) -> Vec<Finding> {
    let outer = outer(connection);
    let of_child = |child: &Arc<Child>| {
        let subject = Subject { connection, child, outer };
        let asks = child.asks(connection, devices.replay_window, outer);
        subject.findings(&asks, devices)
    };
    let mut found: Vec<Finding> = Vec::new();
    for finding in connection.children.iter().flat_map(of_child) {
        // A key of the connection is found with each of its children.
        if !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

/// What is to be said of pass and drop shunts that stay in software beside children that a device may protect: the device is asked first. Each
/// with the name of its connection.
#[must_use]
pub fn hidden_shunts(connections: &[&Connection], devices: &Devices) -> Vec<(String, Finding)> {
    let may = devices.table.devices.iter().any(|device| device.rung(OffloadMode::Packet).is_some());
    if !may && !devices.may_appear {
        return Vec::new();
    }
    let children =
        connections.iter().flat_map(|connection| connection.children.iter().map(|child| (*connection, child)));
    let all: Vec<Placed<'_>> = children.map(|(connection, child)| Placed::of(connection, child, devices)).collect();
    let (shunts, others): (Vec<_>, Vec<_>) = all.iter().partition(|placed| placed.kind == PolicyKind::Shunt);
    let of_shunt = |shunt: &&Placed<'_>| {
        let taken = |other: &&Placed<'_>| hidden(&shunt.pairs, &other.pairs).map(|pair| (other.name(), pair));
        let (by, pair) = others.iter().filter(|other| other.in_device).find_map(taken)?;
        let path = format!("connections.{}.children.{}.hw_offload", shunt.connection.name, shunt.child.name);
        let text = format!(
            "this shunt stays in software, and a device that protects {by} is asked first: it takes {pair}. Set hw_offload = packet here too"
        );
        let finding = Finding::new(FindingKind::Doubtful("hw_offload".to_owned()), path).because(text);
        Some((shunt.connection.name.clone(), finding))
    };
    shunts.iter().filter(|shunt| !shunt.in_device).filter_map(of_shunt).collect()
}

/// A child, and whether its policies may be in a device.
struct Placed<'c> {
    connection: &'c Connection,
    child: &'c Child,
    kind: PolicyKind,
    pairs: Vec<SelectorPair>,
    in_device: bool,
}

impl<'c> Placed<'c> {
    fn of(connection: &'c Connection, child: &'c Child, devices: &Devices) -> Self {
        let outer = outer(connection);
        let Asks { kind, selectors: pairs, .. } = child.asks(connection, devices.replay_window, outer);
        let known = |pair: &SelectorPair| {
            let address = |side: &TrafficSelector| {
                !side.addresses.start().is_unspecified() || side.addresses.prefix_length() == Some(0)
            };
            address(&pair.local) && address(&pair.remote)
        };
        let may = || devices.table.devices.iter().any(|device| device.rung(OffloadMode::Packet).is_some());
        let in_device = match child.hw_offload {
            OffloadMode::Packet => true,
            OffloadMode::Auto => may(),
            OffloadMode::No | OffloadMode::Crypto => false,
        };
        Self { connection, child, kind, pairs: pairs.into_iter().filter(known).collect(), in_device }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.connection.name, self.child.name)
    }
}

/// The notes on a connection that can be used.
///
/// # Errors
/// All keys that ask for what no device can carry, at least one.
pub fn check(connection: &Connection, devices: &Devices) -> Result<Vec<Finding>, Rejected> {
    let (errors, notes): (Vec<_>, Vec<_>) = findings(connection, devices).into_iter().partition(Finding::is_error);
    if errors.is_empty() { Ok(notes) } else { Err(Rejected { errors, notes }) }
}

/// The outer addresses as far as they are configured.
fn outer(connection: &Connection) -> OuterAddresses {
    let address = |specs: &[HostSpec]| {
        specs.iter().find_map(|spec| match spec {
            HostSpec::Address(address) => Some(*address),
            HostSpec::Any | HostSpec::Range(_) | HostSpec::Name(_) => None,
        })
    };
    let (local, remote) = (address(&connection.local_addrs), address(&connection.remote_addrs));
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    OuterAddresses { local: local.or(remote).unwrap_or(none), remote: remote.or(local).unwrap_or(none) }
}

struct Subject<'c> {
    connection: &'c Connection,
    child: &'c Child,
    outer: OuterAddresses,
}

impl Subject<'_> {
    fn findings(&self, asks: &Asks, devices: &Devices) -> Vec<Finding> {
        // What is down may come up.
        let there = |device: &&Device| device.state != DeviceState::Gone;
        let up = |device: &Device| Device { state: DeviceState::Up, ..device.clone() };
        let all: Vec<Device> = devices.table.devices.iter().filter(there).map(up).collect();
        let mut found = self.of_kind(asks, &all, devices);
        let protects = asks.kind == PolicyKind::Protect;
        if protects && self.child.start_action.trap && !found.iter().any(Finding::is_error) {
            let trap = Asks { kind: PolicyKind::Trap, ..asks.clone() };
            found.extend(self.of_kind(&trap, &all, devices).into_iter().filter(Finding::is_error));
        }
        found
    }

    /// One plan per device: the best of them decides, for the route may lead there.
    fn of_kind(&self, asks: &Asks, all: &[Device], devices: &Devices) -> Vec<Finding> {
        let plan = |device| ladder_plan(device, self.child.hw_offload, asks, |_| Entries::default());
        let plans: Vec<(&Device, Plan<'_>)> = all.iter().map(|device| (device, plan(device))).collect();
        let able = plans.iter().filter(|(_, plan)| !plan.rungs.is_empty()).min_by_key(|(_, plan)| plan.rejected.len());
        if let Some((device, plan)) = able {
            return self.notes(device, plan, asks.kind);
        }
        let closest = plans.iter().min_by_key(|(_, plan)| plan.rejected.last().map_or(0, |last| last.refusals.len()));
        let Some((device, plan)) = closest else { return Vec::new() };
        // The last rung is the one that can do most.
        let Some(last) = plan.rejected.last() else { return Vec::new() };
        let refused = |refusal: &Refusal| {
            let sentence = refusal.sentence(&device.name, last.mode);
            if devices.may_appear && matches!(refusal, Refusal::Rung { .. }) {
                return vec![self.doubtful("hw_offload", format!("{sentence}, unless a device comes that has it"))];
            }
            self.keys(refusal)
                .into_iter()
                .map(move |(path, key)| {
                    Finding::new(FindingKind::Unsupported(key.to_owned()), format!("{path}.{key}")).because(&*sentence)
                })
                .collect::<Vec<_>>()
        };
        last.refusals.iter().flat_map(refused).collect()
    }

    fn notes(&self, device: &Device, plan: &Plan<'_>, kind: PolicyKind) -> Vec<Finding> {
        let mut notes = Vec::new();
        let mode = plan.rungs.first().map_or(OffloadMode::No, |rung| rung.mode.mode);
        let auto = self.child.hw_offload == OffloadMode::Auto && kind == PolicyKind::Protect;
        // Where there is nothing better, `auto` gets all that there is.
        if auto
            && mode != OffloadMode::Packet
            && let Some(reason) = plan.reason(OffloadMode::Packet)
        {
            notes.push(self.doubtful("hw_offload", format!("`auto` will be {}: {reason}", words::rung(mode))));
        }
        for note in &plan.notes {
            let Note::Emulated(unit) = note;
            let key = match unit {
                // The daemon keeps time itself.
                LimitUnit::Time => continue,
                LimitUnit::Bytes => "life_bytes",
                LimitUnit::Packets => "life_packets",
            };
            notes.push(self.doubtful(key, note.sentence(&device.name, mode)));
        }
        notes
    }

    fn doubtful(&self, key: &str, text: String) -> Finding {
        Finding::new(FindingKind::Doubtful(key.to_owned()), format!("{}.{key}", self.path())).because(text)
    }

    fn top(&self) -> String {
        format!("connections.{}", self.connection.name)
    }

    fn path(&self) -> String {
        format!("{}.children.{}", self.top(), self.child.name)
    }

    /// The keys that ask for what is refused, each with the path of its section.
    fn keys(&self, refusal: &Refusal) -> Vec<(String, String)> {
        let child = |key: &str| vec![(self.path(), key.to_owned())];
        match refusal {
            Refusal::AddressRange(pair) => self.selector(pair, |side| side.addresses.prefix_length().is_none()),
            Refusal::Ports(pair) => self.selector(pair, TrafficSelector::needs_ports),
            Refusal::Protocol { pair, offers } => {
                self.selector(pair, |side| side.protocol != 0 && !offers.contains(&side.protocol))
            }
            Refusal::UdpEncapsulation { .. } => vec![(self.top(), "encap".to_owned())],
            Refusal::Marks => self.marks().into_iter().map(|key| (self.path(), key.to_owned())).collect(),
            Refusal::InterfaceIds => self.interface_ids(),
            Refusal::PolicyKind(PolicyKind::Shunt | PolicyKind::Protect) => child("hw_offload"),
            Refusal::Down
            | Refusal::Gone
            | Refusal::Rung { .. }
            | Refusal::Cipher { .. }
            | Refusal::KeyLength { .. }
            | Refusal::IcvLength { .. }
            | Refusal::Esn
            | Refusal::Mode(_)
            | Refusal::ReplayWindow { .. }
            | Refusal::PolicyKind(PolicyKind::Trap)
            | Refusal::SaTable { .. }
            | Refusal::PolicyTable { .. } => child(refusal.key().unwrap_or("hw_offload")),
        }
    }

    /// The configured selector that a refused pair has its fault from.
    fn selector(&self, pair: &SelectorPair, wrong: impl Fn(&TrafficSelector) -> bool) -> Vec<(String, String)> {
        let (key, configured, address, side) = if wrong(&pair.local) {
            ("local_ts", &self.child.local_ts, self.outer.local, &pair.local)
        } else {
            ("remote_ts", &self.child.remote_ts, self.outer.remote, &pair.remote)
        };
        let at = configured.iter().position(|selector| selector.resolve(address) == *side);
        vec![(self.path(), at.map_or_else(|| key.to_owned(), |at| format!("{key}[{at}]")))]
    }

    fn marks(&self) -> Vec<&'static str> {
        let tags = &self.child.tags;
        let keys = [
            ("mark_in", tags.mark_in.is_some()),
            ("mark_out", tags.mark_out.is_some()),
            ("set_mark_in", tags.set_mark_in.is_some()),
            ("set_mark_out", tags.set_mark_out.is_some()),
        ];
        keys.into_iter().filter(|(_, set)| *set).map(|(key, _)| key).collect()
    }

    fn interface_ids(&self) -> Vec<(String, String)> {
        let none = InterfaceIds::default();
        let set = |path: String, ids: InterfaceIds| {
            let keys = [("if_id_in", ids.inbound != none.inbound), ("if_id_out", ids.outbound != none.outbound)];
            let keys = keys.into_iter().filter(|(_, set)| *set);
            keys.map(|(key, _)| (path.clone(), key.to_owned())).collect::<Vec<_>>()
        };
        [set(self.top(), self.connection.interface), set(self.path(), self.child.tags.interface)].concat()
    }
}
