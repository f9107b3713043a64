//! Between two of ours: ESP natively and in UDP, IPv4 and IPv6 outside, behind an address translator, over a lossy path; a first
//! packet that brings the tunnel up.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::peer::conf::Tunnel;
use lab::relay::Profile;
use lab::topology::{FAMILIES, Family, Lab, Middle, Side};
use lab::traffic::{bulk, ping};
use libtest_mimic::Trial;

use crate::harness::{Pair, SOON, trial, with_pair};
use crate::{life, peers};

/// How ESP must travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Native,
    InUdp,
}

struct Case {
    name: &'static str,
    middle: Middle,
    outer: Family,
    encap: bool,
    form: Form,
}

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name, middle, outer, encap, form| Case { name, middle, outer, encap, form };
    let cases = [
        case("native_v4", Middle::Direct, Family::V4, false, Form::Native),
        case("native_v6", Middle::Direct, Family::V6, false, Form::Native),
        case("routed_v4", Middle::Router, Family::V4, false, Form::Native),
        case("routed_v6", Middle::Router, Family::V6, false, Form::Native),
        case("udp_forced_v4", Middle::Direct, Family::V4, true, Form::InUdp),
        case("udp_forced_v6", Middle::Direct, Family::V6, true, Form::InUdp),
        case("behind_nat_v4", Middle::NatBeforeA, Family::V4, false, Form::InUdp),
    ];
    let mut trials: Vec<Trial> =
        cases.into_iter().map(|case| trial(format!("forms::{}", case.name), move || case.run())).collect();
    trials.push(trial("forms::first_packet_is_held_and_arrives", first_packet_is_held_and_arrives));
    trials.push(trial("forms::lossy_path", lossy_path));
    trials
}

impl Case {
    fn run(&self) -> Result<()> {
        let lab = Lab::new(&self.middle)?;
        let tunnel = |side| {
            let mut tunnel = Tunnel::between(&lab, side, self.outer);
            tunnel.encap = self.encap;
            if self.middle == Middle::NatBeforeA && side == Side::B {
                tunnel.remote = "%any".into();
            }
            tunnel
        };
        let mut pair = Pair::start(&lab, peers::ours()?, tunnel)?;
        pair.check(|pair| self.carry(&lab, pair))
    }

    fn carry(&self, lab: &Lab, pair: &Pair<'_>) -> Result<()> {
        let capture = lab.capture()?;
        life::establish(pair, Side::A)?;
        let streams = life::streams(lab)?;
        life::rekey_child(pair, Side::A, "net4")?;
        life::rekey_child(pair, Side::B, "net6")?;
        let sent = life::all_arrived(streams)?;
        for captured in capture.finish()? {
            let counts = &captured.counts;
            ensure!(counts.clear == 0 && captured.missed() == 0, "{counts}; missed {}", captured.missed());
            let (wanted, other) = match self.form {
                Form::Native => (counts.esp, counts.udp_esp),
                Form::InUdp => (counts.udp_esp, counts.esp),
            };
            // Never more outer packets than inner ones and a tenth: nothing loops.
            ensure!(other == 0 && wanted >= sent && wanted <= sent + sent / 10, "{counts} for {sent} packets");
        }
        for family in FAMILIES {
            let transfer = bulk::transfer(&lab.b, &lab.a, family, 8 << 20)?;
            // Where large packets are lost it is a fraction of one.
            ensure!(transfer.megabits_per_second() > 4.0, "{family:?}: {transfer}");
        }
        life::delete_ike(pair, Side::B)
    }
}

fn first_packet_is_held_and_arrives() -> Result<()> {
    let configure = |_, tunnel: Tunnel| tunnel.with_child_option("start_action = trap");
    with_pair(&Middle::Direct, peers::ours()?, configure, |lab, pair| {
        for (family, child) in FAMILIES.into_iter().zip(life::CHILDREN) {
            let (source, target) = (lab.b.host_address(family), lab.a.host_address(family));
            ensure!(
                ping::ping(&lab.b.host, source, target, 1, ping::PATIENCE)? == 1,
                "{family:?}: the first packet was lost"
            );
            life::installed(pair, Side::A, child)?;
        }
        ensure!(pair.b.sas()?.iter().all(|sa| sa.initiator), "B had the packets and should have initiated");
        Ok(())
    })
}

fn lossy_path() -> Result<()> {
    let path = Profile { delay: Duration::from_millis(10), loss: 0.05, ..Profile::CLEAN };
    with_pair(
        &Middle::Relay(path),
        peers::ours()?,
        |_, tunnel| tunnel,
        |lab, pair| {
            pair.a.swanctl(&["--initiate", "--child", "net4", "--timeout", "30"])?;
            for side in [Side::A, Side::B, Side::A] {
                life::rekey_child(pair, side, "net4")?;
            }
            let (source, target) = (lab.a.host_address(Family::V4), lab.b.host_address(Family::V4));
            ensure!(ping::answers_within(&lab.a.host, source, target, SOON)?, "no answer");
            Ok(())
        },
    )
}
