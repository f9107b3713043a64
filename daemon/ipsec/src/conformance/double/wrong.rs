//! Mistakes made at the edges of the double: in what it is asked, in what it answers and in what it tells. Those inside stand where they are made.

use super::datapath::State;
use super::fault::Fault;
use crate::backend::{Answer, Applied, Event, Installed, OffloadError, Op, Request, SaStatus};
use crate::handle::{Spi, Tag};
use crate::sa::{Direction, ModeInUse, OffloadMode};

impl State {
    /// Keeps a request for later, which nobody else does.
    pub(super) fn puts_off(&mut self, tag: Tag, request: &Request) -> bool {
        let puts_off = self.is(Fault::ForgetsOutstanding) && !self.closed;
        if puts_off {
            self.waiting.push((tag, request.clone()));
        }
        puts_off
    }

    /// The operations as the fault understands them.
    pub(super) fn misread(&self, ops: &[Op]) -> Vec<Op> {
        let mut ops = ops.to_vec();
        match self.fault {
            Some(Fault::Reorders) => ops.sort_by_key(|op| match op {
                Op::InstallSa(_) => 0,
                Op::InstallPolicy(_) => 1,
                Op::UpdateSa { .. }
                | Op::RemoveSa(_)
                | Op::UpdatePolicy(_)
                | Op::RemovePolicy(_)
                | Op::Activate { .. }
                | Op::InstallGuard(_)
                | Op::RemoveGuard(_)
                | Op::Flush => 2,
            }),
            Some(Fault::IgnoresUpdates) => {
                ops.retain(
                    |op| !matches!(op, Op::UpdatePolicy(spec) if self.books.policies.contains_key(&spec.handle)),
                );
            }
            Some(_) | None => {}
        }
        ops
    }

    /// Why the fault refuses an operation that everybody else carries out.
    pub(super) fn refuses_wrongly(&self, op: &Op) -> Result<(), OffloadError> {
        let missing = match op {
            Op::RemoveSa(sa) => !self.books.sas.contains_key(sa),
            Op::RemovePolicy(policy) => !self.books.policies.contains_key(policy),
            Op::InstallSa(_)
            | Op::UpdateSa { .. }
            | Op::InstallPolicy(_)
            | Op::UpdatePolicy(_)
            | Op::Activate { .. }
            | Op::InstallGuard(_)
            | Op::RemoveGuard(_)
            | Op::Flush => false,
        };
        let forward = matches!(op, Op::InstallPolicy(spec) if spec.direction == Direction::Forward);
        let refuses = missing && self.is(Fault::RefusesMissing) || forward && self.is(Fault::RefusesForward);
        if refuses { Err(OffloadError::Missing("what others do without".into())) } else { Ok(()) }
    }

    /// The outcome as the fault tells it.
    pub(super) fn misreport(
        &self,
        request: &Request,
        outcome: Result<Answer, OffloadError>,
    ) -> Result<Answer, OffloadError> {
        match (outcome, request) {
            (Ok(Answer::Applied(applied)), _) => Ok(Answer::Applied(self.misread_applied(applied))),
            (Ok(Answer::Status(status)), _) => Ok(Answer::Status(self.misread_status(status))),
            (Ok(Answer::Installed(all)), _) => Ok(Answer::Installed(Installed {
                sas: all.sas.into_iter().map(|status| self.misread_status(status)).collect(),
                policies: all.policies.into_iter().map(|policy| self.misread_policy(policy)).collect(),
            })),
            (Err(OffloadError::Missing(_)), Request::Query(sa)) if self.is(Fault::RemembersRemoved) => {
                let spi = Spi::new(256).ok_or_else(|| OffloadError::Missing("SPI".into()))?;
                Ok(Answer::Status(SaStatus {
                    sa: *sa,
                    device: crate::handle::DeviceId(0),
                    spi,
                    bytes: 0,
                    packets: 0,
                    idle_seconds: None,
                    sequence: 0,
                    soft_expired: None,
                    hard_expired: None,
                    mode: ModeInUse::SOFTWARE,
                }))
            }
            (outcome, _) => outcome,
        }
    }

    fn misread_applied(&self, applied: Applied) -> Applied {
        let lies = self.is(Fault::LiesInReadBack);
        let modes = applied.modes.into_iter().map(|(sa, mode)| if lies { (sa, other(&mode)) } else { (sa, mode) });
        let removed = applied.removed.into_iter().filter(|_| !self.is(Fault::ForgetsRemoved));
        Applied { modes: modes.collect(), removed: removed.map(|status| self.misread_status(status)).collect() }
    }

    fn misread_status(&self, status: SaStatus) -> SaStatus {
        match self.fault {
            Some(Fault::FrozenCounters) => SaStatus { packets: 0, bytes: 0, ..status },
            Some(Fault::HidesExpiry) => SaStatus { soft_expired: None, hard_expired: None, ..status },
            Some(Fault::LiesInStatus) => SaStatus { mode: other(&status.mode), ..status },
            Some(_) | None => status,
        }
    }

    fn misread_policy(&self, policy: crate::backend::PolicyStatus) -> crate::backend::PolicyStatus {
        let sa = policy.sa.filter(|_| !self.is(Fault::ListsNoOwner));
        crate::backend::PolicyStatus { sa, ..policy }
    }

    /// How many times the fault tells an event.
    pub(super) fn times(&self, event: &Event) -> usize {
        match (event, self.fault) {
            (Event::SoftExpire { .. }, Some(Fault::LostSoftExpire))
            | (Event::DeviceDown(_), Some(Fault::SilentDeviceLoss))
            | (Event::StateLost { .. }, Some(Fault::SilentStateLoss))
            | (Event::PeerForm { .. }, Some(Fault::SilentForm)) => 0,
            (Event::HardExpire { .. }, Some(Fault::DoubleHardExpire)) => 2,
            (_, _) => 1,
        }
    }
}

fn other(mode: &ModeInUse) -> ModeInUse {
    let other = if mode.mode == OffloadMode::No { OffloadMode::Packet } else { OffloadMode::No };
    ModeInUse { mode: other, ..mode.clone() }
}
