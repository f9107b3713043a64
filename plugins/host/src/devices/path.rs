//! From the link that a route names down to the device that does the work.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::link::{Link, LinkKind, Links};

/// Links on top of each other at most; the kernel allows eight.
const DEEPEST: usize = 16;

/// The device that carries packets to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Names from the link of the route down to it, for example `bond0.7`, `bond0`, `eth1`.
    pub chain: Vec<Arc<str>>,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.chain.join(" on "))
    }
}

/// Why there is no single device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDevice {
    /// There is no route, or one that refuses.
    #[error("no route to {remote}: {reason}")]
    NoRoute {
        /// Peer.
        remote: IpAddr,
        /// The kernel's words.
        reason: String,
    },
    /// The route has several next hops on different devices.
    #[error("packets to {remote} are spread over several next hops, on {}", devices.join(" and "))]
    SeveralHops {
        /// Peer.
        remote: IpAddr,
        /// The real devices.
        devices: Vec<Arc<str>>,
    },
    /// Several ports of a bond, team or bridge are in use at once.
    #[error("{link} ({kind}) uses several ports at once: {}", ports.join(", "))]
    SeveralPorts {
        /// Link.
        link: Arc<str>,
        /// What it is.
        kind: Arc<str>,
        /// Its ports in use.
        ports: Vec<Arc<str>>,
    },
    /// A bond, team or bridge has no port in use.
    #[error("{link} ({kind}) has no port in use")]
    NoPort {
        /// Link.
        link: Arc<str>,
        /// What it is.
        kind: Arc<str>,
    },
    /// The link below is not in this network namespace.
    #[error("what {link} stands on is in another network namespace")]
    Elsewhere {
        /// Link.
        link: Arc<str>,
    },
    /// The route leads into another routing domain.
    #[error("the route to {remote} leads into the VRF {link}")]
    Vrf {
        /// Peer.
        remote: IpAddr,
        /// Link.
        link: Arc<str>,
    },
    /// A route names a link that is not (or not yet) known.
    #[error("link {index} is not known")]
    Unknown {
        /// Its number.
        index: u32,
    },
}

/// The one device below all of these links.
pub(super) fn resolve(links: &Links, remote: IpAddr, found: &[u32]) -> Result<Egress, NoDevice> {
    let mut ends: Vec<Egress> = Vec::new();
    for index in found {
        let end = descend(links, remote, *index)?;
        if !ends.iter().any(|known| known.index == end.index) {
            ends.push(end);
        }
    }
    match ends.len() {
        0 => Err(NoDevice::NoRoute { remote, reason: "the route names no link".to_owned() }),
        1 => Ok(ends.swap_remove(0)),
        _ => Err(NoDevice::SeveralHops { remote, devices: ends.into_iter().map(|end| end.name).collect() }),
    }
}

fn descend(links: &Links, remote: IpAddr, index: u32) -> Result<Egress, NoDevice> {
    let known = |index| links.get(index).ok_or(NoDevice::Unknown { index });
    let mut link = known(index)?;
    let mut chain = vec![Arc::clone(&link.name)];
    while chain.len() <= DEEPEST {
        let below = match &link.kind {
            LinkKind::End => break,
            LinkKind::Vrf => return Err(NoDevice::Vrf { remote, link: Arc::clone(&link.name) }),
            LinkKind::Upper if link.lower_elsewhere => {
                return Err(NoDevice::Elsewhere { link: Arc::clone(&link.name) });
            }
            LinkKind::Upper => match link.lower {
                Some(lower) => known(lower)?,
                None => break,
            },
            LinkKind::Bond { active: Some(active), spreads: false } => known(*active)?,
            LinkKind::Bond { .. } | LinkKind::Team | LinkKind::Bridge => only_port(links, link)?,
        };
        chain.push(Arc::clone(&below.name));
        link = below;
    }
    Ok(Egress { index: link.index, name: Arc::clone(&link.name), chain })
}

/// The port that must be taken because there is no other that carries.
fn only_port<'l>(links: &'l Links, link: &Link) -> Result<&'l Link, NoDevice> {
    let ports: Vec<_> = links.ports(link.index).filter(|port| port.up && port.carrier).collect();
    let (name, kind) = (Arc::clone(&link.name), Arc::clone(&link.kind_name));
    match ports.as_slice() {
        [] => Err(NoDevice::NoPort { link: name, kind }),
        [only] => Ok(only),
        several => {
            let ports = several.iter().map(|port| Arc::clone(&port.name)).collect();
            Err(NoDevice::SeveralPorts { link: name, kind, ports })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::tests::link;
    use super::*;

    const SPREADS: LinkKind = LinkKind::Bond { active: None, spreads: true };

    fn active(index: u32) -> LinkKind {
        LinkKind::Bond { active: Some(index), spreads: false }
    }

    /// eth0 and eth1 under bond0, bond0.7 on it, eth2 alone, eth2.5 on it, a bridge with eth3 and tap0, a VLAN whose lower link is elsewhere.
    fn links(bond: LinkKind) -> Links {
        let mut far = link(20, "eth9.3", LinkKind::Upper, Some(1), None);
        far.lower_elsewhere = true;
        let mut named = link(10, "bond0", bond, None, None);
        named.kind_name = "bond".into();
        [
            link(1, "lo", LinkKind::End, None, None),
            link(2, "eth0", LinkKind::End, None, Some(10)),
            link(3, "eth1", LinkKind::End, None, Some(10)),
            link(4, "eth2", LinkKind::End, None, None),
            link(5, "eth3", LinkKind::End, None, Some(12)),
            link(6, "tap0", LinkKind::End, None, Some(12)),
            named,
            link(11, "bond0.7", LinkKind::Upper, Some(10), None),
            link(12, "br0", LinkKind::Bridge, None, None),
            link(13, "eth2.5", LinkKind::Upper, Some(4), None),
            link(14, "red", LinkKind::Vrf, None, None),
            link(15, "eth2.5.6", LinkKind::Upper, Some(13), None),
            link(16, "team0", LinkKind::Team, None, None),
            far,
        ]
        .into_iter()
        .collect()
    }

    fn said(bond: LinkKind, found: &[u32]) -> String {
        match resolve(&links(bond), [198, 51, 100, 1].into(), found) {
            Ok(egress) => egress.to_string(),
            Err(reason) => format!("none: {reason}"),
        }
    }

    #[test]
    fn the_way_goes_down_to_the_device_that_does_the_work() {
        let cases: [(&str, LinkKind, &[u32], &str); 12] = [
            ("hardware", active(3), &[4], "eth2"),
            ("VLAN", active(3), &[13], "eth2.5 on eth2"),
            ("VLAN in VLAN", active(3), &[15], "eth2.5.6 on eth2.5 on eth2"),
            ("VLAN on a bond", active(3), &[11], "bond0.7 on bond0 on eth1"),
            ("the other port", active(2), &[11], "bond0.7 on bond0 on eth0"),
            ("bond that spreads", SPREADS, &[10], "none: bond0 (bond) uses several ports at once: eth0, eth1"),
            ("bridge", active(3), &[12], "none: br0 () uses several ports at once: eth3, tap0"),
            ("no port", active(3), &[16], "none: team0 () has no port in use"),
            ("elsewhere", active(3), &[20], "none: what eth9.3 stands on is in another network namespace"),
            ("VRF", active(3), &[14], "none: the route to 198.51.100.1 leads into the VRF red"),
            ("two hops, one device", active(3), &[13, 4], "eth2.5 on eth2"),
            (
                "two hops",
                active(3),
                &[4, 11],
                "none: packets to 198.51.100.1 are spread over several next hops, on eth2 and eth1",
            ),
        ];
        for (what, bond, found, expected) in cases {
            assert_eq!(said(bond, found), expected, "{what}");
        }
    }

    #[test]
    fn a_spreading_bond_with_one_port_that_carries_has_one_device() {
        let mut all: Vec<Link> = links(SPREADS).iter().cloned().collect();
        all.iter_mut().filter(|link| &*link.name == "eth0").for_each(|link| link.carrier = false);
        let links = all.into_iter().collect();
        assert_eq!(resolve(&links, [198, 51, 100, 1].into(), &[10]).map(|egress| egress.index), Ok(3));
    }

    #[test]
    fn links_on_each_other_in_a_ring_end_somewhere() {
        let ring = [link(1, "a", LinkKind::Upper, Some(2), None), link(2, "b", LinkKind::Upper, Some(1), None)];
        assert!(resolve(&ring.into_iter().collect(), [198, 51, 100, 1].into(), &[1]).is_ok());
    }
}
