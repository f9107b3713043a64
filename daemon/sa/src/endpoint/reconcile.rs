//! Devices that go down, come back or vanish; and whether the backend holds what it should.
//!
//! A device that goes down may lose everything without a word (the kernel does so to a link that is set down), or keep it (a tunnel device of
//! our own), and reports may be lost. Nobody has to know which: the backend is asked for what it holds, and that is compared with what was asked
//! of it. So also after [`ipsec::Event::Resync`], and regularly, as somebody else may change the tables.
//!
//! | found | done |
//! |---|---|
//! | an SA is missing, or is not as it was installed | the CHILD SA is closed with the peer and made again with fresh keys |
//! | policies are missing or changed, the SAs are there | they are put back in order, `offload.repaired` |
//! | a trap or shunt is missing or changed | it is installed again, once its device is up |
//! | a limit was reached and nobody told | as if it had been told |
//! | something of this shard that belongs to nobody | it is taken out |
//! | the way to the peer leads through another device now | the CHILD SA is rekeyed, which moves it there |
//!
//! Guards are not touched by any of this: they stand in front of every policy, and what is lost is blocked until it is back.

use std::sync::Arc;
use std::time::Duration;

use ike_model::snapshot::ChildSaState;
use ike_model::{Cause, CauseKind, EventBody};
use ipsec::{Answer, DeviceId, DeviceState, OffloadError, Request, Scope, Shard};

use crate::children::{ChildSa, Finding, in_words};
use crate::deadline::{ChildTimer, Timer};
use crate::endpoint::Endpoint;
use crate::endpoint::configured::{Keeper, Trap};
use crate::established::{Authenticated, Intent};
use crate::ike_sa::Phase;
use crate::io::{Context, Output};
use crate::listing::{Held, Subject, Touched};
use crate::turn::{Purpose, Turn, child_of, direction_of};

/// Table entries of a CHILD SA: two SAs, and policies of one pair of selectors.
const ENTRIES: usize = 5;
/// Comparisons wait so long for each entry, so that large tables are compared less often.
const FOR_EACH: Duration = Duration::from_micros(100);
/// Attempts that waited for a device are spread over so long for each of them ...
const SPREAD: Duration = Duration::from_millis(1);
/// ... but over no longer than this.
const SPREAD_MOST: Duration = Duration::from_secs(10);

impl Endpoint {
    /// A device stopped carrying traffic, and may have lost what it held.
    pub(super) fn device_down(&mut self, context: &Context<'_>, device: DeviceId) {
        self.tell_of_device(context, device, |name| EventBody::DeviceDown { device, name, gone: false });
        self.list(context);
    }

    /// A device was removed, with everything that it held.
    pub(super) fn device_gone(&mut self, context: &Context<'_>, device: DeviceId) {
        self.tell_of_device(context, device, |name| EventBody::DeviceDown { device, name, gone: true });
        self.each_authenticated(context, |ike, core, turn| {
            let lost = ike.children.iter().filter(|child| child.device == device).map(|child| child.unique_id);
            lost.collect::<Vec<_>>().into_iter().for_each(|child| ike.state_lost(core, turn, child));
        });
        self.list(context);
    }

    /// A device carries traffic again.
    pub(super) fn device_up(&mut self, context: &Context<'_>, device: DeviceId) {
        self.tell_of_device(context, device, |name| EventBody::DeviceUp { device, name });
        self.list(context);
        self.install_waiting_traps(context);
        self.ask_again(context, |context, path| {
            context.spis.device_for(path.local.ip(), path.remote.ip()) == Some(device)
        });
        self.retry_waiting(context, &[CauseKind::DeviceLost, CauseKind::NoAddress, CauseKind::PeerUnreachable]);
    }

    /// Routes or addresses have changed: what waited for a way may have one, and what has one may have another.
    pub(super) fn ways_changed(&mut self, context: &Context<'_>) {
        self.install_waiting_traps(context);
        self.follow_ways(context);
        self.retry_waiting(context, &[CauseKind::DeviceLost, CauseKind::NoAddress]);
        self.each_authenticated(context, |ike, core, turn| {
            // The peer could not be told before.
            if ike.children.iter().any(|child| child.lost) {
                core.resend_in_place(turn);
            }
        });
    }

    /// What happens to a device is told to every shard, and by one of them to the world.
    fn tell_of_device(&mut self, context: &Context<'_>, device: DeviceId, body: impl FnOnce(Arc<str>) -> EventBody) {
        if self.shared.ids.shard() == Shard(0) {
            let found = context.devices.get(device);
            let name = found.map_or_else(|| device.0.to_string().into(), |found| found.name.clone());
            self.shared.outputs.push_back(Output::Event(body(name)));
        }
    }

    /// Requests that could not reach the peer while its device was down are repeated at once.
    fn ask_again(&mut self, context: &Context<'_>, leads: impl Fn(&Context<'_>, ipsec::Path) -> bool) {
        let waiting = self.ikes.iter().filter(|(_, ike)| ike.core.window.is_waiting() && leads(context, ike.core.path));
        let waiting: Vec<u64> = waiting.map(|(spi, _)| *spi).collect();
        for spi in waiting {
            self.with_ike(context, spi, |ike, turn| ike.core.resend_in_place(turn));
        }
    }

    /// Children that are to be up and failed for want of a device or a way do not have to wait any longer.
    fn retry_waiting(&mut self, context: &Context<'_>, causes: &[CauseKind]) {
        let deadlines = &self.shared.deadlines;
        let waits = |number: u32, keeper: &Keeper| {
            keeper.waits_because_of(causes) && deadlines.get(Timer::Keeper(number)).is_some()
        };
        let all = self.keepers.by_number.iter().filter(|(number, keeper)| waits(**number, keeper));
        let numbers: Vec<u32> = all.map(|(number, _)| *number).collect();
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let span = SPREAD.saturating_mul(count).min(SPREAD_MOST);
        for number in numbers {
            let share = self.shared.turn(context).share();
            let at = context.now + span.mul_f64(share);
            if self.shared.deadlines.get(Timer::Keeper(number)).is_some_and(|before| before > at) {
                self.shared.deadlines.set(Timer::Keeper(number), at);
            }
        }
        for (number, keeper) in &mut self.keepers.by_number {
            // Traffic that waits for the end of a pause may ask now.
            if keeper.begin_anew(causes) && self.shared.deadlines.get(Timer::Trap(*number)).is_some() {
                self.shared.deadlines.set(Timer::Trap(*number), context.now);
            }
        }
    }

    /// Asks the backend what it holds of this shard; when that is being asked already, once more afterwards.
    pub(super) fn list(&mut self, context: &Context<'_>) {
        self.shared.deadlines.clear(Timer::Check);
        if self.shared.registry.listing.begin() {
            let scope = Scope::Shard(self.shared.ids.shard());
            self.shared.turn(context).submit(Request::List(scope), Purpose::List);
        }
    }

    /// The next regular comparison, while there is something to compare.
    pub(super) fn check_later(&mut self, context: &Context<'_>) {
        let every = context.config.settings.check_interval;
        let registry = &self.shared.registry;
        let entries = registry.home.len().saturating_mul(ENTRIES).saturating_add(self.keepers.by_policy.len());
        let waits = registry.listing.is_open() || self.shared.deadlines.get(Timer::Check).is_some();
        if every.is_zero() || entries == 0 || waits || self.stopping {
            return;
        }
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        self.shared.deadlines.set(Timer::Check, context.now + every.max(FOR_EACH.saturating_mul(entries)));
    }

    /// The backend has listed what it holds.
    pub(super) fn on_list(&mut self, context: &Context<'_>, result: Result<Answer, OffloadError>) {
        let (touched, again) = self.shared.registry.listing.end();
        match result {
            Ok(Answer::Installed(installed)) => self.compare(context, Held::new(installed), &touched),
            Ok(Answer::Applied(_) | Answer::Status(_)) => {}
            Err(error) => tracing::warn!("cannot compare what the backend holds: {error}"),
        }
        if again {
            self.list(context);
        }
    }

    fn compare(&mut self, context: &Context<'_>, mut held: Held, touched: &Touched) {
        let mut findings: Vec<(u32, Finding)> = Vec::new();
        for ike in self.ikes.values() {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            for child in &authenticated.children {
                let switches = &self.shared.registry.switches;
                match child.compare(&self.shared.ids, &mut held, touched, switches) {
                    Finding::Whole => {}
                    finding @ (Finding::Lost(_) | Finding::Policies { .. }) => {
                        findings.push((child.unique_id, finding))
                    }
                }
            }
        }
        let traps = self.compare_traps(context, &mut held, touched);
        let expired: Vec<_> = held.expired().cloned().collect();
        let strangers = held.strangers(touched);
        tracing::trace!(entries = held.len(), findings = findings.len(), "what the backend holds was compared");
        for (child, finding) in findings {
            self.act_on(context, child, finding);
        }
        for status in expired {
            let child = (child_of(status.sa), direction_of(status.sa));
            self.with_child(context, child.0, |ike, core, turn| ike.on_status(core, turn, child, &status));
        }
        for (number, text) in traps {
            self.renew_trap(context, number, text);
        }
        if !strangers.is_empty() {
            tracing::warn!(entries = strangers.len(), "the backend holds SAs or policies of nobody: taken out");
            self.shared.turn(context).apply(strangers, Purpose::Remove);
        }
        self.follow_ways(context);
    }

    fn act_on(&mut self, context: &Context<'_>, child: u32, finding: Finding) {
        match finding {
            Finding::Whole => {}
            Finding::Lost(text) => {
                tracing::debug!(child, "{text}");
                self.with_child(context, child, |ike, core, turn| ike.state_lost(core, turn, child));
            }
            Finding::Policies { ops, text } => {
                let device = self.child(child).map(|child| child.device);
                let up = device.is_some_and(|device| is_up(context, device));
                let repairs = &mut self.shared.registry.listing.repairs;
                if up && !repairs.contains_key(&Subject::Child(child)) {
                    repairs.insert(Subject::Child(child), text);
                    self.shared.turn(context).apply(ops, Purpose::Repair(child));
                }
            }
        }
    }

    /// Policies of a CHILD SA stand again, or cannot be put back.
    pub(super) fn on_repaired(&mut self, context: &Context<'_>, child: u32, result: Result<Answer, OffloadError>) {
        let Some(text) = self.shared.registry.listing.repairs.remove(&Subject::Child(child)) else { return };
        match result {
            Ok(_) => self.with_child(context, child, |ike, core, turn| {
                let Some(found) = ike.child(child) else { return };
                told_repaired(turn, &core.connection.name, &found.config.name, text);
            }),
            Err(error) => self.with_child(context, child, |ike, core, turn| {
                let text = format!("{text}, and cannot be put back: {error}");
                ike.close_child(core, turn, child, Cause::new(CauseKind::DeviceLost, text));
            }),
        }
    }

    /// Traps and shunts that are not as they should be, with what is wrong; without a word where only the way leads elsewhere now.
    fn compare_traps(&self, context: &Context<'_>, held: &mut Held, touched: &Touched) -> Vec<(u32, Option<String>)> {
        let mut found = Vec::new();
        for (number, keeper) in &self.keepers.by_number {
            let Trap::Present { policies, rungs, confirmed, .. } = &keeper.trap else { continue };
            let device = rungs.device;
            let (mut gone, mut changed) = (0, 0);
            for policy in policies {
                match held.policy(policy.handle) {
                    None => gone += 1,
                    Some(held) => changed += u32::from(held.device != device),
                }
            }
            if !confirmed || policies.iter().any(|policy| touched.policy(policy.handle)) {
                continue;
            }
            if gone + changed > 0 {
                found.push((*number, Some(in_words(gone, changed))));
            } else if several(context) && keeper.device(context).is_some_and(|now| now != device) {
                found.push((*number, None));
            }
        }
        found
    }

    fn renew_trap(&mut self, context: &Context<'_>, number: u32, text: Option<String>) {
        self.remove_trap(context, number);
        if let Some(text) = text {
            self.shared.registry.listing.repairs.insert(Subject::Trap(number), text);
        }
        self.install_trap(context, number);
    }

    /// The trap or shunt of a configured child stands again, if it had to be put back.
    pub(super) fn trap_repaired(&mut self, context: &Context<'_>, number: u32) {
        let Some(text) = self.shared.registry.listing.repairs.remove(&Subject::Trap(number)) else { return };
        let Some(keeper) = self.keepers.by_number.get(&number) else { return };
        let (connection, child) = (keeper.connection.name.clone(), keeper.child.name.clone());
        told_repaired(&mut self.shared.turn(context), &connection, &child, text);
    }

    /// Traps and shunts whose device was not there are installed where there is one now.
    fn install_waiting_traps(&mut self, context: &Context<'_>) {
        let waits = |keeper: &Keeper| matches!(keeper.trap, Trap::Waiting(_));
        let waiting: Vec<u32> =
            self.keepers.by_number.iter().filter(|(_, keeper)| waits(keeper)).map(|(number, _)| *number).collect();
        waiting.into_iter().for_each(|number| self.install_trap(context, number));
    }

    /// CHILD SAs whose way leads through another device now are rekeyed: the new one is made there, and none is installed twice.
    fn follow_ways(&mut self, context: &Context<'_>) {
        if !several(context) {
            return;
        }
        let mut moved = Vec::new();
        for ike in self.ikes.values() {
            let Phase::Authenticated(authenticated) = &ike.phase else { continue };
            let waits = |child: &ChildSa| {
                self.shared.deadlines.get(child.timer(ChildTimer::Retry)).is_some()
                    || authenticated.is_deferred(child.unique_id)
            };
            let settled = |child: &&ChildSa| {
                child.state == ChildSaState::Installed && child.is_up() && !child.is_closing() && !waits(child)
            };
            let elsewhere = |child: &&ChildSa| {
                let now = context.spis.device_for(child.outer.local, child.outer.remote);
                now.is_some_and(|now| now != child.device && is_up(context, now))
            };
            moved.extend(authenticated.children.iter().filter(settled).filter(elsewhere).map(|child| child.unique_id));
        }
        for child in moved {
            self.with_child(context, child, |ike, core, turn| {
                tracing::info!(
                    conn = core.connection.name,
                    child,
                    "the way to the peer leads through another device now"
                );
                ike.rekey_child(core, turn, child);
            });
        }
    }

    fn child(&self, unique_id: u32) -> Option<&ChildSa> {
        let ike = self.ikes.get(self.shared.registry.home.get(&unique_id)?)?;
        match &ike.phase {
            Phase::Authenticated(authenticated) => authenticated.child(unique_id),
            Phase::Initiating(_) | Phase::Responding(_) | Phase::Closed => None,
        }
    }
}

impl Authenticated {
    /// Whether the rekeying of a CHILD SA was put off.
    fn is_deferred(&self, unique_id: u32) -> bool {
        self.deferred.iter().any(|intent| matches!(intent, Intent::RekeyChild(id) if *id == unique_id))
    }
}

fn told_repaired(turn: &mut Turn<'_>, connection: &str, child: &str, text: String) {
    tracing::warn!(conn = connection, child, "repaired: {text}");
    let cause = Cause::new(CauseKind::DeviceLost, text);
    turn.event(EventBody::Repaired { connection: connection.to_owned(), child: child.to_owned(), cause });
}

fn is_up(context: &Context<'_>, device: DeviceId) -> bool {
    context.devices.get(device).is_some_and(|device| device.state == DeviceState::Up)
}

/// Whether ways can lead through different devices at all.
fn several(context: &Context<'_>) -> bool {
    context.devices.devices.len() > 1
}
