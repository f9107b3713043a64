//! Faults that wait for their occasion: refusals of operations to come, and reports that are swallowed or made twice.

use std::sync::{Arc, Mutex, PoisonError};

use ipsec::fault::{Refusal, Refuse, Step, Told};
use ipsec::{Answer, DeviceId, DeviceTable, Direction, Event, OffloadError, OffloadMode, Op, Path, Reports, Tag};

/// Refusals to come, in the order they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    refusals: Vec<Refuse>,
}

impl Faults {
    pub(crate) fn refuse(&mut self, refuse: Refuse) {
        self.refusals.push(refuse);
    }

    pub(crate) fn clear(&mut self) {
        self.refusals.clear();
    }

    /// The error that an operation is to fail with, if it is one of those meant; counts it then.
    pub(crate) fn strikes(&mut self, op: &Op, devices: &DeviceTable) -> Option<OffloadError> {
        if self.refusals.is_empty() {
            return None;
        }
        let (step, mode, device) = step(op)?;
        let name = devices.get(device).map_or_else(|| "?".into(), |device| Arc::clone(&device.name));
        let at = self.refusals.iter().position(|refuse| {
            refuse.step.is_none_or(|wanted| wanted == step) && (refuse.mode.is_none() || refuse.mode == mode)
        })?;
        let refuse = self.refusals.get_mut(at)?;
        if refuse.skip > 0 {
            refuse.skip -= 1;
            return None;
        }
        refuse.count = refuse.count.saturating_sub(1);
        let error = error(refuse.error, step, name);
        if refuse.count == 0 {
            self.refusals.remove(at);
        }
        Some(error)
    }
}

/// What an operation does, the offload it asks for where it says, and its device.
fn step(op: &Op) -> Option<(Step, Option<OffloadMode>, DeviceId)> {
    let first = DeviceId(0);
    let (step, mode, device) = match op {
        Op::InstallSa(spec) => match spec.direction {
            Direction::Inbound => (Step::InboundSa, Some(spec.offload), spec.device),
            Direction::Outbound | Direction::Forward => (Step::OutboundSa, Some(spec.offload), spec.device),
        },
        Op::InstallPolicy(spec) | Op::UpdatePolicy(spec) => match spec.direction {
            Direction::Outbound => (Step::OutboundPolicy, Some(spec.offload), spec.device),
            Direction::Inbound | Direction::Forward => (Step::InboundPolicy, Some(spec.offload), spec.device),
        },
        Op::Activate { .. } => (Step::Activate, None, first),
        Op::UpdateSa { .. } => (Step::UpdateSa, None, first),
        Op::InstallGuard(_) => (Step::Guard, None, first),
        Op::RemoveSa(_) | Op::RemovePolicy(_) | Op::RemoveGuard(_) | Op::Flush => return None,
    };
    Some((step, mode, device))
}

fn error(refusal: Refusal, step: Step, device: Arc<str>) -> OffloadError {
    let (what, table) = match step {
        Step::Guard => ("a guard", "SPD"),
        Step::InboundPolicy => ("an inbound policy", "SPD"),
        Step::OutboundPolicy => ("an outbound policy", "SPD"),
        Step::InboundSa => ("an inbound SA", "SAD"),
        Step::OutboundSa => ("an outbound SA", "SAD"),
        Step::Activate => ("an activation", "SAD"),
        Step::UpdateSa => ("an SA on another path", "SAD"),
    };
    const REASON: &str = "told to refuse it";
    match refusal {
        Refusal::Unsupported => OffloadError::Unsupported { device, what: what.into(), reason: REASON.into() },
        Refusal::Full => OffloadError::Full { device, table, size: 0 },
        Refusal::Unavailable => OffloadError::Unavailable(device),
        Refusal::System => OffloadError::System { action: format!("install {what}"), reason: REASON.into() },
    }
}

/// Where reports go, except those that are to be swallowed or made twice.
pub(crate) struct Reporter {
    to: Arc<dyn Reports>,
    rules: Mutex<Vec<Rule>>,
}

struct Rule {
    told: Told,
    times: usize,
    count: u32,
}

impl Reporter {
    pub(crate) fn new(to: Arc<dyn Reports>) -> Self {
        Self { to, rules: Mutex::default() }
    }

    /// The next `count` reports of this kind are not made.
    pub(crate) fn swallow(&self, told: Told, count: u32) {
        self.push(Rule { told, times: 0, count });
    }

    /// The next `count` reports of this kind are made twice.
    pub(crate) fn duplicate(&self, told: Told, count: u32) {
        self.push(Rule { told, times: 2, count });
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn push(&self, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// How many times an event is reported.
    fn times(&self, event: &Event) -> usize {
        let told = match event {
            Event::SoftExpire { .. } => Told::Soft,
            Event::HardExpire { .. } => Told::Hard,
            Event::Acquire { .. } => Told::Acquire,
            Event::InboundFirstUse { .. }
            | Event::MappingChange { .. }
            | Event::PeerForm { .. }
            | Event::DeviceDown(_)
            | Event::DeviceUp(_)
            | Event::DeviceGone(_)
            | Event::StateLost { .. }
            | Event::Resync
            | Event::Drops { .. } => return 1,
        };
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = rules.iter().position(|rule| rule.told == told) else { return 1 };
        let Some(rule) = rules.get_mut(at) else { return 1 };
        let times = rule.times;
        rule.count = rule.count.saturating_sub(1);
        if rule.count == 0 {
            rules.remove(at);
        }
        times
    }
}

impl Reports for Reporter {
    fn done(&self, tag: Tag, outcome: Result<Answer, OffloadError>) {
        self.to.done(tag, outcome);
    }

    fn event(&self, event: Event) {
        for _ in 0..self.times(&event) {
            self.to.event(event.clone());
        }
    }

    fn ike_datagram(&self, path: Path, octets: &[u8]) {
        self.to.ike_datagram(path, octets);
    }
}
