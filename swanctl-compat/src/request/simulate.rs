//! `cygnet-simulate`: orders to a simulated device, for tests.
//!
//! `fault` names what is to go wrong ([`FAULTS`]); `device`, `spi` (hexadecimal), `child` (`CONNECTION/CHILD` or `CHILD`) and `direction` (`in`, `out`) say
//! where. Further keys: `tell` (`lost`, `resync`, `nothing`) of entries that vanish; `unit` (`time`, `bytes`, `packets`) of a limit; `count` of reports;
//! `packets` and `bytes` carried; and `step`, `mode`, `error`, `skip`, `count` of a refusal.

use ipsec::fault::{Fault, Refusal, Refuse, Simulate, Step, Target, Tell, Told};
use ipsec::{Direction, LimitUnit, OffloadMode, Spi};

use super::{Request, RequestError, number, refuse, text};
use crate::units;
use crate::vici::{Element, Message};

/// All that can go wrong, as `fault` has it.
pub const FAULTS: &[&str] = &[
    "refuse",
    "lose-sas",
    "lose-policies",
    "lose-all",
    "device-down",
    "device-up",
    "device-gone",
    "swallow-soft",
    "swallow-hard",
    "swallow-acquire",
    "duplicate-soft",
    "duplicate-hard",
    "duplicate-acquire",
    "freeze-counters",
    "thaw-counters",
    "carried",
    "soft-expire",
    "hard-expire",
    "clear",
];

/// Keys besides `fault`.
pub const KEYS: &[&str] = &[
    "device",
    "spi",
    "child",
    "direction",
    "tell",
    "unit",
    "count",
    "packets",
    "bytes",
    "step",
    "mode",
    "error",
    "skip",
];

pub(super) fn parse(message: &Message) -> Result<Request, RequestError> {
    let mut given = message.elements().iter().map(Element::name);
    if let Some(odd) = given.find(|key| *key != "fault" && !KEYS.contains(key)) {
        return Err(refuse(&format!("unknown key {odd}: there are fault, {}", KEYS.join(", "))));
    }
    let fault = fault(message)?;
    let spi = text(message, "spi").map(|spi| {
        u32::from_str_radix(&spi, 16).ok().and_then(Spi::new).ok_or_else(|| refuse("spi must be hexadecimal"))
    });
    let directions = [("in", Direction::Inbound), ("out", Direction::Outbound)];
    let target = Target {
        device: text(message, "device"),
        spi: spi.transpose()?,
        child: text(message, "child"),
        direction: word(message, "direction", &directions)?,
    };
    Ok(Request::CygnetSimulate(Simulate { fault, target }))
}

fn fault(message: &Message) -> Result<Fault, RequestError> {
    let name = text(message, "fault").unwrap_or_default();
    let count = || Ok(number(message, "count")?.unwrap_or(1).max(1));
    Ok(match name.as_str() {
        "refuse" => Fault::Refuse(refusal(message, count()?)?),
        "lose-sas" => Fault::LoseSas(tell(message)?),
        "lose-policies" => Fault::LosePolicies(tell(message)?),
        "lose-all" => Fault::LoseAll(tell(message)?),
        "device-down" => Fault::DeviceDown,
        "device-up" => Fault::DeviceUp,
        "device-gone" => Fault::DeviceGone,
        "swallow-soft" => Fault::Swallow(Told::Soft, count()?),
        "swallow-hard" => Fault::Swallow(Told::Hard, count()?),
        "swallow-acquire" => Fault::Swallow(Told::Acquire, count()?),
        "duplicate-soft" => Fault::Duplicate(Told::Soft, count()?),
        "duplicate-hard" => Fault::Duplicate(Told::Hard, count()?),
        "duplicate-acquire" => Fault::Duplicate(Told::Acquire, count()?),
        "freeze-counters" => Fault::FreezeCounters,
        "thaw-counters" => Fault::ThawCounters,
        "carried" => Fault::Carried { packets: amount(message, "packets")?, bytes: amount(message, "bytes")? },
        "soft-expire" => Fault::SoftExpire(unit(message)?),
        "hard-expire" => Fault::HardExpire(unit(message)?),
        "clear" => Fault::Clear,
        _ => return Err(refuse(&format!("fault must be one of {}, not '{name}'", FAULTS.join(", ")))),
    })
}

fn refusal(message: &Message, count: u32) -> Result<Refuse, RequestError> {
    let steps = [
        ("guard", Step::Guard),
        ("inbound-policy", Step::InboundPolicy),
        ("outbound-policy", Step::OutboundPolicy),
        ("inbound-sa", Step::InboundSa),
        ("outbound-sa", Step::OutboundSa),
        ("activate", Step::Activate),
        ("update-sa", Step::UpdateSa),
    ];
    let modes = [("packet", OffloadMode::Packet), ("crypto", OffloadMode::Crypto), ("no", OffloadMode::No)];
    let errors = [
        ("unsupported", Refusal::Unsupported),
        ("full", Refusal::Full),
        ("unavailable", Refusal::Unavailable),
        ("system", Refusal::System),
    ];
    Ok(Refuse {
        step: word(message, "step", &steps)?,
        mode: word(message, "mode", &modes)?,
        error: word(message, "error", &errors)?.unwrap_or(Refusal::System),
        skip: number(message, "skip")?.unwrap_or(0),
        count,
    })
}

fn tell(message: &Message) -> Result<Tell, RequestError> {
    let words = [("lost", Tell::Lost), ("resync", Tell::Resync), ("nothing", Tell::Nothing)];
    Ok(word(message, "tell", &words)?.unwrap_or(Tell::Lost))
}

fn unit(message: &Message) -> Result<LimitUnit, RequestError> {
    let words = [("time", LimitUnit::Time), ("bytes", LimitUnit::Bytes), ("packets", LimitUnit::Packets)];
    Ok(word(message, "unit", &words)?.unwrap_or(LimitUnit::Packets))
}

fn amount(message: &Message, key: &str) -> Result<u64, RequestError> {
    let Some(text) = text(message, key) else { return Ok(0) };
    units::u64(&text).ok_or_else(|| refuse(&format!("invalid number for: {key}")))
}

fn word<T: Copy>(message: &Message, key: &str, words: &[(&str, T)]) -> Result<Option<T>, RequestError> {
    let Some(given) = text(message, key) else { return Ok(None) };
    let known = words.iter().find(|(word, _)| *word == given).map(|(_, value)| Some(*value));
    known.ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        refuse(&format!("{key} must be one of {}, not '{given}'", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Simulate, String> {
        let mut message = Message::new();
        pairs.iter().for_each(|(key, value)| message.set(*key, *value));
        match Request::parse("cygnet-simulate", &message) {
            Ok(Request::CygnetSimulate(order)) => Ok(order),
            Err(RequestError::Refused(answer)) => Err(answer.get_str("errmsg").unwrap_or_default().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_fault_is_understood_and_nothing_else_is() {
        for fault in FAULTS {
            assert!(asked(&[("fault", fault)]).is_ok(), "{fault}");
        }
        let error = |pairs: &[(&str, &str)]| asked(pairs).unwrap_err();
        assert!(error(&[]).starts_with("fault must be one of refuse, "));
        assert!(error(&[("fault", "clear"), ("colour", "red")]).starts_with("unknown key colour: "));
        assert_eq!(error(&[("fault", "clear"), ("spi", "12")]), "spi must be hexadecimal");
        assert_eq!(
            error(&[("fault", "lose-sas"), ("tell", "all")]),
            "tell must be one of lost, resync, nothing, not 'all'"
        );
    }

    #[test]
    fn where_and_how_are_understood() {
        let order = asked(&[
            ("fault", "refuse"),
            ("step", "outbound-sa"),
            ("mode", "packet"),
            ("error", "full"),
            ("skip", "1"),
            ("count", "2"),
        ]);
        let refuse = Refuse {
            step: Some(Step::OutboundSa),
            mode: Some(OffloadMode::Packet),
            error: Refusal::Full,
            skip: 1,
            count: 2,
        };
        assert_eq!(order.unwrap(), Simulate { fault: Fault::Refuse(refuse), target: Target::default() });
        let order = asked(&[("fault", "hard-expire"), ("spi", "c0ffee00"), ("direction", "out"), ("child", "a/b")]);
        let target = Target {
            device: None,
            spi: Spi::new(0xc0ff_ee00),
            child: Some("a/b".into()),
            direction: Some(Direction::Outbound),
        };
        assert_eq!(order.unwrap(), Simulate { fault: Fault::HardExpire(LimitUnit::Packets), target });
    }
}
