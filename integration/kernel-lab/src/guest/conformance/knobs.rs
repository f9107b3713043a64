//! What somebody else may do to the device and to the kernel's SAs behind the backend's back.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, anyhow};
use ipsec::{Direction, SaSpec, Volume};
use offload_host::netlink::{Netlink, attributes};

use super::bed::{Bed, Link, NIC};
use crate::bench::ip;

const NETLINK_XFRM: isize = 6;
const XFRM_MSG_NEWAE: u16 = 0x1e;
const XFRM_MSG_GETAE: u16 = 0x1f;
const NLM_F_REPLACE: u16 = 0x100;
/// Octets of `struct xfrm_aevent_id`.
const AEVENT_ID: usize = 48;
const XFRMA_LTIME_VAL: u16 = 9;
const XFRMA_REPLAY_VAL: u16 = 10;
const XFRMA_REPLAY_ESN_VAL: u16 = 23;

/// Has the NIC refuse the next SA.
pub(super) fn refuse_next(_bed: &Bed) -> anyhow::Result<bool> {
    fs::write(format!("/sys/kernel/debug/cygnic/{NIC}/refuse_next"), "out of memory")?;
    Ok(true)
}

/// Has the NIC send in clear what it is to protect, or not.
pub(super) fn leak(on: bool) -> anyhow::Result<()> {
    Ok(fs::write(format!("/sys/kernel/debug/cygnic/{NIC}/leak"), if on { "1" } else { "0" })?)
}

/// What the NIC holds and has counted; nothing where there is none.
pub(super) fn shown(bed: &Bed) -> String {
    if bed.link == Link::Plain {
        return String::new();
    }
    let file = |name| fs::read_to_string(format!("/sys/kernel/debug/cygnic/{NIC}/{name}")).unwrap_or_default();
    let counted = file("counters").lines().filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>().join(", ");
    format!("{}counted by the NIC: {counted}", file("tables"))
}

/// Where an SA leads.
fn destination(sa: &SaSpec) -> IpAddr {
    match sa.direction {
        Direction::Outbound => sa.outer.remote,
        Direction::Inbound | Direction::Forward => sa.outer.local,
    }
}

/// Takes an SA out of the kernel, and of a device.
pub(super) fn delete(bed: &Bed, sa: &SaSpec) -> anyhow::Result<()> {
    let (to, spi) = (destination(sa), sa.spi.get());
    ip(&bed.gateway, &format!("xfrm state delete dst {to} proto esp spi {spi:#x}")).map(drop)
}

/// Has an outbound SA that software counts for look as if it had carried so much more, numbers included.
pub(super) fn carried(bed: &Bed, sa: &SaSpec, volume: Volume) -> anyhow::Result<bool> {
    let mut id = [0; AEVENT_ID];
    let (octets, family) = match destination(sa) {
        IpAddr::V4(v4) => (v4.octets().to_vec(), 2_u16),
        IpAddr::V6(v6) => (v6.octets().to_vec(), 10),
    };
    for (at, field) in
        [(0, octets.as_slice()), (16, &sa.spi.get().to_be_bytes()), (20, &family.to_ne_bytes()), (22, &[50])]
    {
        id.get_mut(at..at + field.len()).context("a field of an id")?.copy_from_slice(field);
    }
    bed.gateway.run(|| change(&id, volume))?
}

fn change(id: &[u8], volume: Volume) -> anyhow::Result<bool> {
    let mut xfrm = Netlink::open("xfrm", NETLINK_XFRM)?;
    let refused = |refusal| anyhow!("an SA's counters: {refusal}");
    let told = xfrm.ask(XFRM_MSG_GETAE, id).map_err(refused)?;
    let told = told.iter().find(|message| message.kind == XFRM_MSG_NEWAE).context("no counters were told")?;
    let mut body = id.to_vec();
    for (kind, value) in attributes(told.body.get(AEVENT_ID..).unwrap_or_default()) {
        let mut value = value.to_vec();
        match kind {
            XFRMA_LTIME_VAL => {
                add(&mut value, 0, 8, volume.bytes)?;
                add(&mut value, 8, 8, volume.packets)?;
            }
            XFRMA_REPLAY_VAL => add(&mut value, 0, 4, volume.packets)?,
            // Behind the length of the window.
            XFRMA_REPLAY_ESN_VAL => add(&mut value, 4, 4, volume.packets)?,
            _ => continue,
        }
        body.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.append(&mut value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    xfrm.request(XFRM_MSG_NEWAE, NLM_F_REPLACE, &body).map_err(refused)?;
    Ok(true)
}

/// Adds to a number of four or eight octets in the order of this machine.
fn add(value: &mut [u8], at: usize, octets: usize, more: Option<u64>) -> anyhow::Result<()> {
    let field = value.get_mut(at..at + octets).context("a counter is cut short")?;
    let mut number = [0; 8];
    number.get_mut(..octets).context("a counter")?.copy_from_slice(field);
    let sum = u64::from_ne_bytes(number) + more.unwrap_or(0);
    field.copy_from_slice(sum.to_ne_bytes().get(..octets).context("a counter")?);
    Ok(())
}
