//! The bed by itself, with SAs that nobody's backend has installed.

use std::net::SocketAddr;

use anyhow::ensure;
use ipsec::conformance::{OuterContent, OuterPacket, udp_v4, udp_v6};

use super::bed::{Bed, Link};
use super::wire::{Captured, Local};
use crate::bench::ip;

/// Without any backend: what goes in on one side comes out on the other as it was, in tunnel and in transport mode.
pub(super) fn the_bed_shows_both_sides() -> anyhow::Result<()> {
    let bed = Bed::new(Link::Plain)?;
    let local = Local::open(&bed.gateway)?;
    let mut captured = Captured::default();
    let (out, back) = ("src 192.0.2.1 dst 192.0.2.2", "src 192.0.2.2 dst 192.0.2.1");
    for (mode, ours, turned) in
        [("tunnel", "src 10.1.0.0/16 dst 10.2.0.0/16", "src 10.1.0.0/16 dst 10.2.0.0/16"), ("transport", out, back)]
    {
        let protect = |addresses| format!("priority 9 tmpl {addresses} proto esp reqid 7 mode {mode}");
        for addresses in [out, back] {
            let keys = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128 replay-window 32";
            ip(&bed.gateway, &format!("xfrm state add {addresses} proto esp spi 0x1001 reqid 7 mode {mode} {keys}"))?;
        }
        ip(&bed.gateway, &format!("xfrm policy add {ours} dir out {}", protect(out)))?;
        for way in ["in", "fwd"] {
            ip(&bed.gateway, &format!("xfrm policy add {turned} dir {way} {}", protect(back)))?;
        }
        let (source, destination) = match mode {
            "tunnel" => ([10, 1, 0, 1], [10, 2, 0, 1]),
            _ => ([192, 0, 2, 1], [192, 0, 2, 2]),
        };
        let packet = udp_v4(source.into(), destination.into(), (5_000, 7), 30, false);
        bed.send_inner(std::slice::from_ref(&packet))?;
        bed.settle(&local, &mut captured, || ())?;
        let sent = std::mem::take(&mut captured.outer);
        ensure!(sent.len() == 1 && sent.iter().all(|one| one.esp().is_some()), "{mode}: {sent:?} left");
        let turned: Vec<OuterPacket> = sent
            .into_iter()
            .map(|one| OuterPacket { source: one.destination, destination: one.source, content: one.content })
            .collect();
        bed.send_outer(&turned)?;
        bed.settle(&local, &mut captured, || ())?;
        let got = std::mem::take(&mut captured.inner);
        let same = match mode {
            "tunnel" => got.first() == Some(&packet) && got.len() == 1,
            _ => got.len() == 1 && got.iter().all(|one| one.get(20..) == packet.get(20..)),
        };
        ensure!(same, "{mode}: {packet:02x?} was delivered as {got:02x?}");
        ensure!(captured.outer.is_empty(), "{mode}: what was delivered was answered with {:?}", captured.outer);
        bed.clean()?;
    }
    clear_passes(&bed, &local, &mut captured)
}

fn clear_passes(bed: &Bed, local: &Local, captured: &mut Captured) -> anyhow::Result<()> {
    let v6 = udp_v6("fd00:1::1".parse()?, "fd00:2::1".parse()?, (1, 2), 30);
    let large = udp_v4([10, 1, 0, 1].into(), [10, 9, 0, 1].into(), (1, 2), 3_000, false);
    bed.send_inner(&[v6, large.clone()])?;
    bed.settle(local, captured, || ())?;
    let seen: Vec<usize> = captured
        .outer
        .drain(..)
        .map(|one| match one.content {
            OuterContent::Clear(octets) => octets.len(),
            OuterContent::Esp(_) | OuterContent::EspInUdp(_) => 0,
        })
        .collect();
    ensure!(seen == [78, large.len()], "two packets without a policy left as {seen:?}");
    let address: SocketAddr = "10.2.0.1:0".parse()?;
    let content = OuterContent::Clear(udp_v4([10, 2, 0, 1].into(), [10, 1, 0, 1].into(), (1, 2), 30, false));
    bed.send_outer(&[OuterPacket { source: address, destination: address, content }])?;
    bed.settle(local, captured, || ())?;
    let got = captured.inner.drain(..).count();
    ensure!(got == 1, "a packet in clear from outside was delivered {got} times");
    Ok(())
}
