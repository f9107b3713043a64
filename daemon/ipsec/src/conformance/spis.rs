//! Rules about SPIs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::setup::{Bench, networks};
use super::{Kept, ensure};
use crate::backend::Op;
use crate::handle::Spi;

/// Twice the time an inbound SA lingers after a rekey, less what rounding may take.
const REST: Duration = Duration::from_secs(9);

pub(super) fn spis_cannot_be_predicted(bench: &mut Bench<'_>) -> Kept {
    let spis = (0..200).map(|_| bench.reserve().map(Spi::get)).collect::<Result<Vec<u32>, _>>()?;
    let steps: BTreeSet<u32> =
        spis.iter().zip(spis.iter().skip(1)).map(|(one, next)| next.wrapping_sub(*one)).collect();
    ensure(steps.len() > 190, || format!("199 steps from one SPI to the next are of {} sizes", steps.len()))?;
    // Of 200 fair coins fewer than 50 or more than 150 show heads once in 10^12 throws.
    for bit in 0..32 {
        let set = spis.iter().filter(|spi| **spi >> bit & 1 == 1).count();
        ensure((50..=150).contains(&set), || format!("bit {bit} is set in {set} of 200 SPIs"))?;
    }
    Ok(())
}

/// Packets of an SA that is gone may still be on their way: they must not meet another one.
pub(super) fn an_spi_is_not_used_again_while_its_packets_may_come(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.connected()?;
    let given_back = bench.reserve()?;
    let device = bench.device().id;
    bench.subject().backend().release_spi(device, given_back);
    bench.apply(vec![Op::RemoveSa(pin.inbound.handle)])?;
    for wait in [Duration::ZERO, REST] {
        if !wait.is_zero() {
            bench.pass_time(wait)?;
        }
        let spis = (0..100).map(|_| bench.reserve()).collect::<Result<Vec<Spi>, _>>()?;
        let again = spis.contains(&given_back) || spis.contains(&pin.inbound.spi);
        ensure(!again, || format!("an SPI was given out again after {wait:?}"))?;
    }
    Ok(())
}

/// A refused install keeps the SPI for another attempt, and gives it to nobody else.
pub(super) fn a_refused_install_keeps_its_spi(bench: &mut Bench<'_>) -> Kept {
    let pin = bench.hair_pin(networks())?;
    let mut wrong = pin.inbound.clone();
    wrong.key = super::setup::key_too_short(wrong.algorithm);
    let outcome = bench.ask(crate::backend::Request::Apply(vec![Op::InstallSa(Box::new(wrong))]))?;
    ensure(outcome.is_err(), || "a key that is too short was accepted".into())?;
    let others = (0..100).map(|_| bench.reserve()).collect::<Result<Vec<Spi>, _>>()?;
    ensure(!others.contains(&pin.inbound.spi), || "the SPI of a refused SA was given to another".into())?;
    bench.apply(pin.everything()).map(drop)
}
