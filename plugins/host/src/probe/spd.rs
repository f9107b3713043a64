//! The kernel's own security policies as a packet meets them: our guard, and what others have left there.

use std::fmt;

use ipsec::{PacketSelectors, SelectorPair};
use netlink_sys::protocols::NETLINK_XFRM;

use super::super::devices::Links;
use super::super::error::HostError;
use super::super::links::Interfaces;
use super::super::netlink::Netlink;
use super::super::policy::{self, Surroundings};
use super::super::xfrm::{self, Found, PolicyKey, PortMask, Verdict, Way};
use super::Probe;

/// Which packets a kernel policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelWay {
    /// Delivered to this host.
    In,
    /// Leaving this host, forwarded or its own.
    Out,
    /// Forwarded.
    Forward,
}

/// What a kernel policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelVerdict {
    /// Lets pass in clear.
    Allow,
    /// Drops.
    Block,
    /// Wants IPsec by the kernel.
    Protect,
}

/// A policy of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPolicy {
    /// What it does.
    pub verdict: KernelVerdict,
    /// One of our guard, or an exemption beside it or beside what protects.
    pub ours: bool,
    /// One by which the kernel backend protects, bypasses or discards traffic.
    pub backend: bool,
    /// Name of the device that holds it.
    pub device: Option<String>,
    found: Found,
    /// Name of its link, where it has one.
    link: Option<String>,
}

impl Probe {
    /// Policies of the kernel in the order in which it looks at them, those that devices hold first; none where the kernel has no XFRM.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn policies(&mut self) -> Result<Vec<KernelPolicy>, HostError> {
        let Ok(mut xfrm) = Netlink::open("xfrm", NETLINK_XFRM) else { return Ok(Vec::new()) };
        let links = self.links()?;
        let all = xfrm::all(&mut xfrm).map_err(|refusal| refusal.on("list", "kernel policies"))?;
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(found, protects)| KernelPolicy {
                verdict: match (protects, found.verdict) {
                    (true, Verdict::Allow) => KernelVerdict::Protect,
                    (false, Verdict::Allow) => KernelVerdict::Allow,
                    (_, Verdict::Block) => KernelVerdict::Block,
                },
                ours: found.is_ours(),
                backend: xfrm::PROTECTING.contains(&found.index),
                device: found.device.map(|device| name(&links, device)),
                link: links.get(found.key.link).map(|link| link.name.to_string()),
                found,
            })
            .collect();
        all.sort_by_key(|policy| (policy.device.is_none(), policy.found.priority));
        Ok(all)
    }
}

fn name(links: &Links, index: u32) -> String {
    links.get(index).map_or_else(|| format!("link {index}"), |link| link.name.to_string())
}

impl Probe {
    /// The policies that the guard of these selectors would consist of now, in the order of their installation. `tunnel` is our device
    /// and the mark of what it brings for this host, where there is one, `routed` whether we lead traffic into it.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn guard_of(
        &mut self,
        pair: &SelectorPair,
        tunnel: Option<(&str, u32)>,
        routed: bool,
    ) -> Result<Vec<KernelPolicy>, HostError> {
        let links = self.links()?;
        let interfaces =
            Interfaces::read(&mut self.route).map_err(|refusal| refusal.on("list", "addresses and routes"))?;
        let tun = tunnel.and_then(|(name, _)| links.by_name(name)).map(|link| link.index);
        let mark = tunnel.map(|(_, mark)| mark);
        let surroundings = Surroundings { interfaces, tun, mark, routed: routed && tunnel.is_some() };
        let items = policy::guard(pair, &surroundings).into_iter();
        Ok(items
            .map(|item| KernelPolicy {
                verdict: if item.verdict == Verdict::Block { KernelVerdict::Block } else { KernelVerdict::Allow },
                ours: true,
                backend: false,
                device: None,
                link: links.get(item.key.link).map(|link| link.name.to_string()),
                found: Found { key: item.key, verdict: item.verdict, priority: item.priority, index: 0, device: None },
            })
            .collect())
    }
}

impl KernelPolicy {
    /// Ours come in the order of their installation.
    pub fn order(&self) -> u32 {
        self.found.index
    }

    /// Whether `ip` can write it: it knows single ports, not the masks that the kernel compares.
    pub fn is_writable(&self) -> bool {
        let key = &self.found.key;
        [key.source_port, key.destination_port].iter().all(|port| matches!(port.mask, 0 | u16::MAX))
    }

    /// Its direction.
    pub fn way(&self) -> KernelWay {
        match self.found.key.way {
            Way::In => KernelWay::In,
            Way::Out => KernelWay::Out,
            Way::Forward => KernelWay::Forward,
        }
    }

    /// Whether an unmarked packet that leaves through `link` meets it.
    pub fn matches(&self, way: KernelWay, packet: &PacketSelectors, link: u32) -> bool {
        let key = &self.found.key;
        let (source, destination) = packet.ports.unwrap_or_default();
        self.way() == way
            && key.mark.is_none()
            && (key.link == 0 || key.link == link)
            && key.source.range().contains(packet.source)
            && key.destination.range().contains(packet.destination)
            && (key.protocol == 0 || key.protocol == packet.protocol)
            && source & key.source_port.mask == key.source_port.value
            && destination & key.destination_port.mask == key.destination_port.value
    }

    /// Whether it lets IKE pass: it is about one UDP port of ours.
    pub fn is_about_ike(&self) -> bool {
        let key = &self.found.key;
        let exact = |port: PortMask| port.mask == u16::MAX;
        self.ours && key.protocol == 17 && (exact(key.source_port) || exact(key.destination_port))
    }

    /// Whether it concerns traffic of a pair of selectors.
    pub fn concerns(&self, pair: &SelectorPair) -> bool {
        let PolicyKey { source, destination, .. } = self.found.key;
        let (near, far) = match self.found.key.way {
            Way::Out => (source, destination),
            Way::In | Way::Forward => (destination, source),
        };
        near.intersects(pair.local.addresses) && far.intersects(pair.remote.addresses)
    }
}

impl fmt::Display for KernelPolicy {
    /// As `ip xfrm policy add` takes it, templates left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.found.key;
        write!(f, "src {} dst {}", key.source, key.destination)?;
        if key.protocol != 0 {
            write!(f, " proto {}", key.protocol)?;
        }
        // `ip` names ports for the protocols that have them, and type and code for ICMP; it cannot say masks.
        let names = if matches!(key.protocol, 1 | 58) { ["type", "code"] } else { ["sport", "dport"] };
        for (name, port) in names.iter().zip([key.source_port, key.destination_port]) {
            if port.mask != 0 {
                write!(f, " {name} {}", port.value)?;
            }
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        let way = match self.way() {
            KernelWay::In => "in",
            KernelWay::Out => "out",
            KernelWay::Forward => "fwd",
        };
        write!(f, " dir {way}")?;
        if let Some(mark) = key.mark {
            write!(f, " mark {:#x} mask {:#x}", mark.value, mark.mask)?;
        }
        if self.found.index != 0 {
            write!(f, " index {}", self.found.index)?;
        }
        let action = if self.verdict == KernelVerdict::Block { "block" } else { "allow" };
        write!(f, " action {action} priority {}", self.found.priority)?;
        if key.if_id != 0 {
            write!(f, " if_id {:#x}", key.if_id)?;
        }
        self.device.as_ref().map_or(Ok(()), |device| write!(f, " offload packet dev {device}"))
    }
}
