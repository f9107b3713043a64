//! One link, all links, and what changes about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::error::HostError;
use super::super::netlink::{Netlink, attributes, u32_of};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const HEADER: usize = 16;
const AF_UNSPEC: u8 = 0;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_NEW_NETNSID: u16 = 45;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;

/// What a link is, as far as it matters for who does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Stands on another link and hands its packets on: VLAN, MACVLAN, IPVLAN.
    Upper,
    /// Several ports, one or more of which are in use.
    Bond {
        /// The only one in use, in modes that use one at a time.
        active: Option<u32>,
        /// Whether it spreads packets over all its ports.
        spreads: bool,
    },
    /// Ports, of which software chooses.
    Team,
    /// Ports, of which the destination's address chooses.
    Bridge,
    /// A routing domain.
    Vrf,
    /// Does the work itself: hardware, virtual hardware, tunnels.
    End,
}

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number in this network namespace.
    pub index: u32,
    /// Name.
    pub name: Arc<str>,
    /// Kind as the kernel calls it, for example `vlan`; empty for hardware.
    pub kind_name: Arc<str>,
    /// What that means here.
    pub kind: LinkKind,
    /// The link it stands on or is tied to.
    pub lower: Option<u32>,
    /// That link is in another network namespace.
    pub lower_elsewhere: bool,
    /// The bond, team, bridge or VRF it is a port of.
    pub master: Option<u32>,
    /// Somebody has set it up. What a device holds is lost when it is set down.
    pub up: bool,
    /// Its medium carries.
    pub carrier: bool,
    /// Largest packet.
    pub mtu: u32,
}

/// Something became of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there, up or not.
    Added(Link),
    /// It was set up.
    Up(Link),
    /// It was set down: what it held is lost.
    Down(Link),
    /// Its medium began or ceased to carry; what it holds stays.
    Carrier(Link),
    /// Another name.
    Renamed {
        /// As it is now.
        link: Link,
        /// What it was called.
        before: Arc<str>,
    },
    /// It was removed, or moved to another network namespace.
    Gone {
        /// As it was.
        link: Link,
        /// It is in another network namespace now.
        moved: bool,
    },
    /// No link, but ways: addresses, routes, rules or next hops have changed, and packets may leave through another device than before.
    Rerouted,
    /// Messages were lost: differences have been told, and what a device holds may have been lost unseen.
    Resynchronised,
}

/// All links at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<u32, Link>);

impl Links {
    /// A link by its number.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    /// A link by its name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.0.values().find(|link| *link.name == *name)
    }

    /// All, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }

    /// Ports of a bond, team or bridge.
    pub fn ports(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.0.values().filter(move |link| link.master == Some(master))
    }

    /// What became of links between this moment and `now`.
    pub(super) fn differences(&self, now: &Self) -> Vec<LinkChange> {
        let mut told = Vec::new();
        let mut links = self.clone();
        let gone: Vec<_> = self.0.keys().filter(|index| !now.0.contains_key(index)).copied().collect();
        gone.into_iter().for_each(|index| apply(&mut links, Change::Gone { index, moved: false }, &mut told));
        now.0.values().for_each(|link| apply(&mut links, Change::Seen(link.clone()), &mut told));
        told
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<T: IntoIterator<Item = Link>>(links: T) -> Self {
        Self(links.into_iter().map(|link| (link.index, link)).collect())
    }
}

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Seen(Link),
    Gone { index: u32, moved: bool },
}

/// All links of the network namespace.
pub(in super::super) fn read(route: &mut Netlink) -> Result<Links, HostError> {
    let listed = route.dump(RTM_GETLINK, &[0; HEADER]).map_err(|refusal| refusal.on("list", "links"))?;
    let links = listed.iter().filter(|message| message.kind == RTM_NEWLINK);
    Ok(links.filter_map(|message| parse(&message.body)).collect())
}

/// What a message says about a link; a bridge tells of its ports with messages that look alike and are none.
pub(super) fn change(kind: u16, body: &[u8]) -> Option<Change> {
    match kind {
        RTM_NEWLINK => parse(body).map(Change::Seen),
        RTM_DELLINK if body.first() == Some(&AF_UNSPEC) => {
            let moved = attributes(body.get(HEADER..)?).any(|(kind, _)| kind == IFLA_NEW_NETNSID);
            Some(Change::Gone { index: u32_of(body.get(4..)?)?, moved })
        }
        _ => None,
    }
}

/// Applies a change and tells of it.
pub(super) fn apply(links: &mut Links, change: Change, told: &mut Vec<LinkChange>) {
    match change {
        Change::Gone { index, moved } => {
            told.extend(links.0.remove(&index).map(|link| LinkChange::Gone { link, moved }));
        }
        Change::Seen(now) => {
            let Some(before) = links.0.insert(now.index, now.clone()) else {
                return told.push(LinkChange::Added(now));
            };
            if before.name != now.name {
                told.push(LinkChange::Renamed { link: now.clone(), before: before.name });
            }
            match (before.up, now.up) {
                (true, false) => told.push(LinkChange::Down(now)),
                (false, true) => told.push(LinkChange::Up(now)),
                (true, true) | (false, false) if before.carrier != now.carrier => told.push(LinkChange::Carrier(now)),
                (true, true) | (false, false) => {}
            }
        }
    }
}

fn parse(body: &[u8]) -> Option<Link> {
    if body.first() != Some(&AF_UNSPEC) {
        return None;
    }
    let flags = u32_of(body.get(8..)?)?;
    let mut link = Link {
        index: u32_of(body.get(4..)?)?,
        name: "".into(),
        kind_name: "".into(),
        kind: LinkKind::End,
        lower: None,
        lower_elsewhere: false,
        master: None,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        mtu: 0,
    };
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_of(value)?,
            IFLA_LINK => link.lower = u32_of(value).filter(|lower| *lower != 0),
            IFLA_MASTER => link.master = u32_of(value),
            IFLA_LINK_NETNSID => link.lower_elsewhere = true,
            IFLA_LINKINFO => (link.kind_name, link.kind) = information(value),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn information(value: &[u8]) -> (Arc<str>, LinkKind) {
    let mut name: Arc<str> = "".into();
    let mut data: &[u8] = &[];
    for (kind, value) in attributes(value) {
        match kind {
            IFLA_INFO_KIND => name = text(value),
            IFLA_INFO_DATA => data = value,
            _ => {}
        }
    }
    let kind = match &*name {
        "vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => LinkKind::Upper,
        "bond" => bond(data),
        "team" => LinkKind::Team,
        "bridge" => LinkKind::Bridge,
        "vrf" => LinkKind::Vrf,
        _ => LinkKind::End,
    };
    (name, kind)
}

/// Modes 1 (active-backup), 5 (balance-tlb) and 6 (balance-alb) have an active port; of these only the first sends through it alone.
fn bond(data: &[u8]) -> LinkKind {
    const ACTIVE_BACKUP: u8 = 1;
    let mut mode = None;
    let mut active = None;
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_BOND_MODE => mode = value.first().copied(),
            IFLA_BOND_ACTIVE_SLAVE => active = u32_of(value).filter(|index| *index != 0),
            _ => {}
        }
    }
    LinkKind::Bond { active, spreads: mode != Some(ACTIVE_BACKUP) }
}

fn text(value: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(value.split(|octet| *octet == 0).next().unwrap_or_default()).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A link of these properties; `up` with carrier.
    pub(in super::super) fn link(
        index: u32,
        name: &str,
        kind: LinkKind,
        lower: Option<u32>,
        master: Option<u32>,
    ) -> Link {
        Link {
            index,
            name: name.into(),
            kind_name: "".into(),
            kind,
            lower,
            lower_elsewhere: false,
            master,
            up: true,
            carrier: true,
            mtu: 1500,
        }
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut out = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(index: u32, flags: u32, rest: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0, 0, 1, 0];
        out.extend_from_slice(&index.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        rest.iter().for_each(|attribute| out.extend_from_slice(attribute));
        out
    }

    fn bonded(mode: u8, active: Option<u32>) -> LinkKind {
        let mut data = attribute(IFLA_BOND_MODE, &[mode]);
        data.extend(active.map(|index| attribute(IFLA_BOND_ACTIVE_SLAVE, &index.to_ne_bytes())).unwrap_or_default());
        let information = [attribute(IFLA_INFO_KIND, b"bond\0"), attribute(IFLA_INFO_DATA, &data)].concat();
        let octets = message(4, IFF_UP, &[attribute(IFLA_IFNAME, b"bond0\0"), attribute(IFLA_LINKINFO, &information)]);
        parse(&octets).unwrap().kind
    }

    #[test]
    fn a_vlan_names_its_lower_link() {
        let information = attribute(IFLA_INFO_KIND, b"vlan\0");
        let octets = message(
            7,
            IFF_UP | IFF_LOWER_UP,
            &[
                attribute(IFLA_IFNAME, b"eth0.5\0"),
                attribute(IFLA_MTU, &1496_u32.to_ne_bytes()),
                attribute(IFLA_LINK, &2_u32.to_ne_bytes()),
                attribute(IFLA_LINKINFO | 0x8000, &information),
            ],
        );
        let parsed = parse(&octets).unwrap();
        assert_eq!((&*parsed.name, parsed.lower, &parsed.kind), ("eth0.5", Some(2), &LinkKind::Upper));
        assert_eq!((parsed.up, parsed.carrier, parsed.mtu), (true, true, 1496));
        for cut in 0..octets.len() {
            let _ = parse(&octets[..cut]); // never a panic
        }
    }

    #[test]
    fn a_bond_tells_its_active_port() {
        assert_eq!(bonded(1, Some(3)), LinkKind::Bond { active: Some(3), spreads: false });
        assert_eq!(bonded(1, None), LinkKind::Bond { active: None, spreads: false });
        assert_eq!(bonded(4, None), LinkKind::Bond { active: None, spreads: true });
        assert_eq!(bonded(6, Some(3)), LinkKind::Bond { active: Some(3), spreads: true });
    }

    #[test]
    fn ports_that_leave_a_bridge_are_not_gone() {
        let mut octets = message(3, IFF_UP, &[attribute(IFLA_IFNAME, b"eth0\0")]);
        assert_eq!(change(RTM_DELLINK, &octets), Some(Change::Gone { index: 3, moved: false }));
        octets.extend(attribute(IFLA_NEW_NETNSID, &[0; 4]));
        assert_eq!(change(RTM_DELLINK, &octets), Some(Change::Gone { index: 3, moved: true }));
        octets[0] = 7; // AF_BRIDGE
        assert_eq!(change(RTM_DELLINK, &octets), None);
        assert_eq!(change(RTM_NEWLINK, &octets), None);
    }

    #[test]
    fn each_change_is_told_once_and_in_words_that_fit() {
        let before = link(2, "eth0", LinkKind::End, None, None);
        type Fits = fn(&LinkChange) -> bool;
        let cases: [(&str, Link, Fits); 4] = [
            ("down", Link { up: false, carrier: false, ..before.clone() }, |c| matches!(c, LinkChange::Down(_))),
            ("carrier", Link { carrier: false, ..before.clone() }, |c| matches!(c, LinkChange::Carrier(_))),
            ("name", Link { name: "wan".into(), ..before.clone() }, |c| matches!(c, LinkChange::Renamed { .. })),
            ("other number", Link { index: 9, ..before.clone() }, |c| matches!(c, LinkChange::Added(_))),
        ];
        for (what, now, fits) in cases {
            let mut links: Links = [before.clone()].into_iter().collect();
            let mut told = Vec::new();
            apply(&mut links, Change::Seen(now.clone()), &mut told);
            assert!(told.len() == 1 && told.iter().all(fits), "{what}: {told:?}");
            apply(&mut links, Change::Seen(now), &mut told);
            assert_eq!(told.len(), 1, "{what}: again is nothing new");
        }
    }

    #[test]
    fn differences_between_two_looks_are_told() {
        let links = |all: &[Link]| -> Links { all.iter().cloned().collect() };
        let (a, b) = (link(2, "eth0", LinkKind::End, None, None), link(3, "eth1", LinkKind::End, None, None));
        let down = Link { up: false, ..b.clone() };
        let told = links(&[a.clone(), b]).differences(&links(std::slice::from_ref(&down)));
        assert_eq!(told, [LinkChange::Gone { link: a, moved: false }, LinkChange::Down(down)]);
    }
}
