//! One request, all or nothing.
//!
//! The operations are gone through in their order. An SA that is added goes to the kernel at once, a guard too; policies and removals change the books
//! only. Then the kernel's policies are made what the books say, each once whatever the request did to it, so that a policy which one operation
//! removes and another installs is never missing. When all that stands, what was removed is taken out of the kernel. A refusal before that is
//! undone in reverse.

use ipsec::{
    Answer, Applied, Direction, GuardSpec, OffloadError, OffloadMode, Op, OuterAddresses, PolicyHandle, PolicySpec,
    SaHandle, Spi, UdpEncapsulation,
};
use offload_host::xfrm::PolicyKey;

use super::Control;
use super::policies::Entry;
use super::sas::{Sa, own_spi};
use crate::xfrm::Policy;

/// A step back.
pub(super) enum Undo {
    /// An SA that was added.
    DropSa(SaHandle),
    /// An SA that was taken out of the books.
    RestoreSa(Box<Sa>),
    /// An SA that had to go at once.
    Lost(SaHandle),
    /// A policy as it was in the books.
    RestorePolicy(PolicyHandle, Option<Box<Entry>>),
    /// A policy as it was in the kernel, and what an earlier run had left there.
    Kernel(PolicyKey, Option<Policy>, Option<Policy>),
    RemoveGuard(GuardSpec),
    RemoveRoute(PolicySpec),
}

/// What is done when nothing can be refused any more.
pub(super) enum After {
    RemoveGuard(GuardSpec),
    RemoveRoute(PolicySpec),
}

/// One request in the making.
#[derive(Default)]
pub(super) struct Work {
    pub(super) undo: Vec<Undo>,
    pub(super) after: Vec<After>,
    /// Keys whose policy in the kernel may not be what the books say.
    pub(super) dirty: Vec<PolicyKey>,
    /// SAs that are out of the books and still in the kernel.
    pub(super) removed: Vec<Sa>,
    /// SPIs of SAs that are gone already.
    pub(super) release: Vec<Spi>,
    pub(super) answer: Applied,
}

impl Work {
    /// The route of a policy that was removed goes with the end of the request.
    pub(super) fn remove_route(&mut self, spec: PolicySpec) {
        if spec.direction == Direction::Outbound {
            self.after.push(After::RemoveRoute(spec));
        }
    }
}

impl Control {
    pub(super) fn apply(&mut self, ops: &[Op]) -> Result<Answer, OffloadError> {
        let mut work = Work::default();
        for op in ops {
            if let Err(error) = self.step(op, &mut work) {
                self.undo(work);
                return Err(error);
            }
        }
        self.finish(work).map(Answer::Applied)
    }

    /// Brings the kernel up to what the books say, and takes out what was removed.
    ///
    /// # Errors
    /// The kernel's refusal; all is as before then.
    pub(super) fn finish(&mut self, mut work: Work) -> Result<Applied, OffloadError> {
        if let Err(error) = self.sync_dirty(&mut work) {
            self.undo(work);
            return Err(error);
        }
        for sa in &mut work.removed {
            let last = self.take_from_kernel(sa);
            work.answer.removed.push(last);
        }
        let released = work.release.iter().copied().chain(work.removed.iter().filter_map(own_spi));
        self.release(released.collect());
        for after in work.after {
            let outcome = match after {
                After::RemoveGuard(guard) => self.remove_guard(&guard),
                After::RemoveRoute(policy) => self.remove_route(&policy),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "cannot take back what a removed entry needed");
            }
        }
        self.after_activation();
        self.trim_due();
        Ok(work.answer)
    }

    fn remove_guard(&mut self, guard: &GuardSpec) -> Result<(), OffloadError> {
        self.guards.remove(guard);
        self.surroundings.remove_guard(guard)
    }

    /// SPIs of inbound SAs that are gone, unless the same request has put others in their place.
    fn release(&mut self, spis: Vec<Spi>) {
        let now = self.now();
        for spi in spis {
            if !self.sas.has_own_spi(spi) {
                self.shared.release_spi(spi, now);
            }
        }
    }

    fn step(&mut self, op: &Op, work: &mut Work) -> Result<(), OffloadError> {
        match op {
            Op::InstallSa(spec) => self.install_sa(spec, work),
            Op::UpdateSa { sa, outer, encapsulation } => self.move_sa(*sa, *outer, *encapsulation),
            Op::RemoveSa(sa) => {
                self.remove_sa(*sa, work);
                Ok(())
            }
            Op::InstallPolicy(spec) => {
                if self.policies.get(spec.handle).is_some() {
                    return Err(OffloadError::Exists(format!("policy {}", spec.selectors)));
                }
                self.put_policy(spec, work)
            }
            Op::UpdatePolicy(spec) => {
                if self.policies.get(spec.handle).is_none() {
                    return Err(OffloadError::Missing(format!("policy {}", spec.selectors)));
                }
                self.put_policy(spec, work)
            }
            Op::RemovePolicy(policy) => {
                self.remove_policy(*policy, work);
                Ok(())
            }
            Op::Activate { policy, sa } => self.activate(*policy, *sa, work),
            Op::InstallGuard(guard) => {
                self.surroundings.install_guard(guard)?;
                // One that stood before stays, whatever becomes of this request.
                if self.guards.insert(guard.clone()) {
                    work.undo.push(Undo::RemoveGuard(guard.clone()));
                }
                Ok(())
            }
            Op::RemoveGuard(guard) => {
                work.after.push(After::RemoveGuard(guard.clone()));
                Ok(())
            }
            Op::Flush => {
                let policies: Vec<PolicyHandle> = self.policies.handles().collect();
                policies.into_iter().for_each(|policy| self.remove_policy(policy, work));
                let sas: Vec<SaHandle> = self.sas.handles().collect();
                sas.into_iter().for_each(|sa| self.remove_sa(sa, work));
                Ok(())
            }
        }
    }

    /// The kernel moves an SA by making another one with the same key, and loses what a device holds. So none is moved: its child is made again.
    fn move_sa(
        &mut self,
        handle: SaHandle,
        outer: OuterAddresses,
        encapsulation: Option<UdpEncapsulation>,
    ) -> Result<(), OffloadError> {
        ipsec::carry::check_outer(outer)?;
        let missing = || OffloadError::Missing(format!("SA {:x}", handle.raw()));
        let sa = self.sas.get(handle).ok_or_else(missing)?;
        let mode = if sa.mode.mode == OffloadMode::Auto { OffloadMode::No } else { sa.mode.mode };
        self.devices.holder(sa.device, mode)?.move_sa(encapsulation.is_some())
    }

    /// Undoes what was done, newest first.
    pub(super) fn undo(&mut self, mut work: Work) {
        let mut books = Vec::new();
        for step in std::mem::take(&mut work.undo).into_iter().rev() {
            match step {
                Undo::DropSa(sa) => self.drop_sa(sa),
                Undo::RestoreSa(sa) => {
                    self.devices.count_sa(sa.device, sa.mode.mode, true);
                    self.sas.insert(*sa);
                }
                Undo::Lost(sa) => self.reports.event(ipsec::Event::StateLost { sa }),
                Undo::RestorePolicy(policy, entry) => {
                    self.restore_policy(policy, entry.map(|entry| *entry), &mut books);
                }
                Undo::Kernel(key, before, left) => {
                    if let Err(error) = self.restore_kernel(key, before, left) {
                        tracing::error!(%key, %error, "cannot put a policy back as it was before a refused request");
                    }
                }
                Undo::RemoveGuard(guard) => report(self.remove_guard(&guard)),
                Undo::RemoveRoute(policy) => report(self.remove_route(&policy)),
            }
        }
        self.release(work.release);
    }

    fn drop_sa(&mut self, handle: SaHandle) {
        let Some(sa) = self.sas.remove(handle) else { return };
        self.devices.count_sa(sa.device, sa.mode.mode, false);
        self.delete_from_kernel(&sa);
    }
}

fn report(outcome: Result<(), OffloadError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "cannot undo a step of a refused request");
    }
}
