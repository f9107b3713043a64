//! Policies: which of the core's the kernel has, and in which form.
//!
//! The kernel holds one policy for each [`PolicyKey`]; the core may have several of equal selectors (primary and backup, a trap and what came of it, an
//! old child and its successor on another rung). So what the kernel has for a key is decided here: of those that claim it one owns it, and when
//! that changes the kernel's policy is replaced in one step, so that there is no gap. Packets that wait for the old one (those that met a trap) go
//! with it to the new one.
//!
//! A protecting outbound policy whose SA is active points at it by its SPI. One without an SA blocks: a template that points nowhere would have the
//! kernel ask for an SA with each packet and keep a state to come in its place, and such a state hides SAs in a device. Inbound and forward policies
//! name the group of their SAs; where several claim one key, what they differ in is left open, so that old and new SAs are both heard. In a device each
//! group has a key of its own.
//!
//! Ours carry an index inside [`INDEXES`]. The kernel hands indexes out from below, so no foreign policy gets one by chance, and the kernel's own
//! table is the journal: what a crashed process left is found there and taken over in place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipsec::{
    DeviceId, Direction, Instant, Mark, ModeInUse, OffloadError, OffloadMode, PolicyAction, PolicyHandle, PolicySpec,
    PolicyStatus, SaHandle,
};
use offload_host::policy_keys;
use offload_host::xfrm::{PolicyKey, Way};

use super::Control;
use super::apply::{Undo, Work};
use crate::xfrm::{Policy, Template};

/// Indexes of our policies; the low three bits are the direction.
const INDEXES: RangeInclusive<u32> = 0x4400_0000..=0x44ff_ffff;
/// Groups in the templates of traps. They are of no SA: what waits for one must not lie beside SAs in the kernel's tables.
const TRAP_GROUPS: u32 = 0x4400_0000;
/// Selector users of inbound policies in devices, so that no group is taken for the guard's user.
const GROUP_USERS: u32 = 0x8000_0000;
/// Kernel policies that one of the core's may be split into: address and port ranges are made of prefixes.
const MOST_KEYS: usize = 4_096;

/// A policy of the core.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) spec: PolicySpec,
    pub(super) keys: Arc<[PolicyKey]>,
    /// Counts installations and activations.
    order: u64,
    pub(super) active: Option<SaHandle>,
    /// Since when an acquire of a trap is outstanding.
    asked: Option<Instant>,
    /// Group in the template of a trap, another one each time it is touched.
    pub(super) group: u32,
}

/// What there is for one key.
#[derive(Debug, Default)]
struct Slot {
    claims: BTreeSet<PolicyHandle>,
    /// What the kernel has.
    installed: Option<Policy>,
}

/// All policies of this process.
#[derive(Debug, Default)]
pub(super) struct Policies {
    entries: BTreeMap<PolicyHandle, Entry>,
    slots: BTreeMap<PolicyKey, Slot>,
    by_index: BTreeMap<u32, PolicyKey>,
    /// What an earlier run left, until somebody takes its place.
    left: BTreeMap<PolicyKey, Policy>,
    /// Something of that has been replaced or has gone since somebody looked.
    left_changed: bool,
    /// Outbound policies that software looks up.
    in_software: BTreeSet<PolicyHandle>,
    /// Outbound policies by the SA they use.
    users: BTreeMap<SaHandle, BTreeSet<PolicyHandle>>,
    /// Changes of our own that the kernel has yet to tell of.
    own_changes: BTreeMap<PolicyKey, u32>,
    order: u64,
    next_index: u32,
    groups: u32,
}

/// Whether a policy in the kernel was made by this backend.
pub(super) fn is_ours(policy: &Policy) -> bool {
    INDEXES.contains(&policy.index)
}

impl Entry {
    pub(super) fn in_device(&self) -> bool {
        self.spec.offload == OffloadMode::Packet && self.spec.direction != Direction::Forward
    }

    pub(super) fn protects_outbound(&self) -> bool {
        let protects = match self.spec.action {
            PolicyAction::Protect { .. } => true,
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => false,
        };
        protects && self.spec.direction == Direction::Outbound
    }

    pub(super) fn is_trap(&self) -> bool {
        matches!(self.spec.action, PolicyAction::Trap { .. })
    }
}

impl Policies {
    pub(super) fn get(&self, handle: PolicyHandle) -> Option<&Entry> {
        self.entries.get(&handle)
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = PolicyHandle> + '_ {
        self.entries.keys().copied()
    }

    /// As told, but for the mode, which is the device's to say.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (PolicyStatus, OffloadMode)> + '_ {
        self.entries.values().map(|entry| {
            let PolicySpec { handle, device, .. } = entry.spec;
            let mode = if entry.in_device() { OffloadMode::Packet } else { OffloadMode::No };
            (PolicyStatus { policy: handle, device, sa: entry.active, mode: ModeInUse::SOFTWARE }, mode)
        })
    }

    /// What is in a device.
    pub(super) fn in_device(&self, device: DeviceId) -> impl Iterator<Item = PolicyHandle> + '_ {
        let there = move |entry: &&Entry| entry.spec.device == device && entry.in_device();
        self.entries.values().filter(there).map(|entry| entry.spec.handle)
    }

    /// The outbound policies that use an SA.
    pub(super) fn users_of(&self, sa: SaHandle) -> Vec<PolicyHandle> {
        self.users.get(&sa).into_iter().flatten().copied().collect()
    }

    /// A device has lost what it held. Gives what that was.
    pub(super) fn forget_installed(&mut self, link: u32) -> Vec<Policy> {
        let mut lost = Vec::new();
        for slot in self.slots.values_mut() {
            if let Some(gone) = slot.installed.take_if(|there| there.device == Some(link)) {
                self.by_index.remove(&gone.index);
                lost.push(gone);
            }
        }
        self.left.retain(|_, left| left.device != Some(link));
        lost
    }

    /// A policy of an earlier run.
    pub(super) fn adopt(&mut self, policy: Policy) {
        self.by_index.insert(policy.index, policy.key);
        self.slots.insert(policy.key, Slot { claims: BTreeSet::new(), installed: Some(policy) });
        self.left.insert(policy.key, policy);
    }

    /// What an earlier run left and nobody has claimed.
    pub(super) fn left(&self) -> impl Iterator<Item = &Policy> {
        self.left.values()
    }

    /// What an earlier run left goes; the keys have to be made right then.
    pub(super) fn forget_left(&mut self, goes: impl Fn(&Policy) -> bool) -> Vec<PolicyKey> {
        let keys: Vec<PolicyKey> = self.left.values().filter(|left| goes(left)).map(|left| left.key).collect();
        self.left.retain(|_, left| !goes(left));
        keys
    }

    /// Whether something of that has been replaced since the last call.
    pub(super) fn left_has_changed(&mut self) -> bool {
        std::mem::take(&mut self.left_changed)
    }

    /// What the kernel ought to have for every key.
    pub(super) fn installed(&self) -> impl Iterator<Item = &Policy> {
        self.slots.values().filter_map(|slot| slot.installed.as_ref())
    }

    /// The kernel has lost what it had for a key.
    pub(super) fn forget_key(&mut self, key: &PolicyKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.left.remove(key);
        if let Some(gone) = slot.installed.take() {
            self.by_index.remove(&gone.index);
        }
    }

    /// What somebody else has put in the place of ours becomes ours to replace.
    pub(super) fn take_over(&mut self, policy: Policy) {
        if let Some(slot) = self.slots.get_mut(&policy.key) {
            slot.installed = Some(policy);
            self.by_index.insert(policy.index, policy.key);
        }
    }

    /// What the kernel ought to have for a key.
    pub(super) fn installed_for(&self, key: &PolicyKey) -> Option<&Policy> {
        self.slots.get(key)?.installed.as_ref()
    }

    /// The kernel tells of a change; whether it was one of ours.
    pub(super) fn own_change(&mut self, key: &PolicyKey) -> bool {
        let Some(count) = self.own_changes.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.own_changes.remove(key);
        }
        true
    }

    /// What the kernel would have told was lost.
    pub(super) fn expect_nothing(&mut self) {
        self.own_changes.clear();
    }

    pub(super) fn free_index(&mut self, way: Way) -> u32 {
        let span = INDEXES.end() - INDEXES.start();
        let direction = match way {
            Way::In => 0,
            Way::Out => 1,
            Way::Forward => 2,
        };
        loop {
            let index = INDEXES.start() | ((self.next_index << 3) & span) | direction;
            self.next_index = self.next_index.wrapping_add(1);
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// The key of the kernel's policy with this index.
    pub(super) fn key_of(&self, index: u32) -> Option<PolicyKey> {
        self.by_index.get(&index).copied()
    }

    /// The kernel was asked for a change, and will tell of it.
    pub(super) fn expect_change(&mut self, key: PolicyKey) {
        *self.own_changes.entry(key).or_default() += 1;
    }

    /// A trap was met; whether that is to be told: nothing is outstanding, or has been for longer than `age`.
    pub(super) fn ask(&mut self, trap: PolicyHandle, now: Instant, age: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(&trap) else { return false };
        let asks = entry.asked.is_none_or(|at| now.saturating_since(at) >= age);
        if asks {
            entry.asked = Some(now);
        }
        asks
    }

    /// What an earlier run left for a key.
    pub(super) fn left_for(&self, key: &PolicyKey) -> Option<Policy> {
        self.left.get(key).copied()
    }

    /// The policy that owns a key.
    pub(super) fn owner(&self, key: &PolicyKey) -> Option<&Entry> {
        self.claims(key).first().copied()
    }

    /// The claims of a key, the one that owns it first.
    pub(super) fn claims(&self, key: &PolicyKey) -> Vec<&Entry> {
        let Some(slot) = self.slots.get(key) else { return Vec::new() };
        let mut claims: Vec<&Entry> = slot.claims.iter().filter_map(|handle| self.entries.get(handle)).collect();
        let live = claims.iter().any(|entry| entry.active.is_some());
        let waits = |entry: &Entry| live && entry.protects_outbound() && entry.active.is_none();
        claims.sort_by_key(|entry| {
            (waits(entry), !entry.in_device(), entry.spec.priority, std::cmp::Reverse(entry.order))
        });
        claims
    }

    /// Puts a policy into the books, or takes it out; returns what was there.
    fn set(&mut self, handle: PolicyHandle, entry: Option<Entry>, dirty: &mut Vec<PolicyKey>) -> Option<Entry> {
        let old = self.entries.remove(&handle);
        self.in_software.remove(&handle);
        if let Some(old) = &old {
            for key in &*old.keys {
                dirty.push(*key);
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.claims.remove(&handle);
                }
            }
            if let Some(sa) = old.active
                && let Some(users) = self.users.get_mut(&sa)
            {
                users.remove(&handle);
                if users.is_empty() {
                    self.users.remove(&sa);
                }
            }
        }
        if let Some(entry) = entry {
            for key in &*entry.keys {
                dirty.push(*key);
                self.slots.entry(*key).or_default().claims.insert(handle);
            }
            if entry.spec.direction == Direction::Outbound && !entry.in_device() {
                self.in_software.insert(handle);
            }
            if let Some(sa) = entry.active {
                self.users.entry(sa).or_default().insert(handle);
            }
            self.entries.insert(handle, entry);
        }
        old
    }
}

impl Control {
    /// A policy as listed.
    pub(super) fn with_mode(&self, (status, mode): (PolicyStatus, OffloadMode)) -> PolicyStatus {
        let mode = if mode == OffloadMode::Packet {
            self.devices.mode_in_use(status.device, mode)
        } else {
            ModeInUse::SOFTWARE
        };
        PolicyStatus { mode, ..status }
    }

    pub(super) fn put_policy(&mut self, spec: &PolicySpec, work: &mut Work) -> Result<(), OffloadError> {
        self.devices.place_policy(spec, self.policies.get(spec.handle).map(|old| &old.spec))?;
        let active = self.active_sa(spec)?;
        let keys = self.keys(spec)?;
        if spec.direction == Direction::Outbound {
            let link = self.link_holding(spec);
            self.surroundings.install_route(spec, link)?;
            work.undo.push(Undo::RemoveRoute(spec.clone()));
        }
        self.policies.order += 1;
        self.policies.groups = (self.policies.groups + 1) & 0xffff;
        let entry = Entry {
            spec: spec.clone(),
            keys,
            order: self.policies.order,
            active,
            asked: None,
            group: TRAP_GROUPS + self.policies.groups,
        };
        self.devices.count_policy(spec, true);
        let old = self.set_policy(spec.handle, Some(entry), work);
        if let Some(old) = old {
            self.devices.count_policy(&old.spec, false);
            work.remove_route(old.spec);
        }
        Ok(())
    }

    /// Takes back what a policy that is gone needed.
    pub(super) fn remove_route(&mut self, spec: &PolicySpec) -> Result<(), OffloadError> {
        let link = self.link_holding(spec);
        self.surroundings.remove_route(spec, link)
    }

    /// The link whose device holds a policy.
    pub(super) fn link_holding(&self, spec: &PolicySpec) -> Option<u32> {
        let in_device = spec.offload == OffloadMode::Packet && spec.direction != Direction::Forward;
        self.devices.link(spec.device).filter(|_| in_device).map(|link| link.index)
    }

    pub(super) fn remove_policy(&mut self, handle: PolicyHandle, work: &mut Work) {
        let Some(old) = self.set_policy(handle, None, work) else { return };
        self.devices.count_policy(&old.spec, false);
        work.remove_route(old.spec);
    }

    /// Changes the books; the kernel follows with [`Self::sync_dirty`].
    fn set_policy(&mut self, handle: PolicyHandle, entry: Option<Entry>, work: &mut Work) -> Option<Entry> {
        let old = self.policies.set(handle, entry, &mut work.dirty);
        work.undo.push(Undo::RestorePolicy(handle, old.clone().map(Box::new)));
        old
    }

    /// Takes a step back, also in what the rungs hold.
    pub(super) fn restore_policy(&mut self, handle: PolicyHandle, entry: Option<Entry>, dirty: &mut Vec<PolicyKey>) {
        if let Some(entry) = &entry {
            self.devices.count_policy(&entry.spec, true);
        }
        if let Some(undone) = self.policies.set(handle, entry, dirty) {
            self.devices.count_policy(&undone.spec, false);
        }
    }

    pub(super) fn activate(&mut self, handle: PolicyHandle, sa: SaHandle, work: &mut Work) -> Result<(), OffloadError> {
        let missing = || OffloadError::Missing(format!("outbound policy {:x}", handle.raw()));
        let entry = self.policies.get(handle).filter(|entry| entry.spec.direction == Direction::Outbound);
        let entry = entry.ok_or_else(missing)?;
        if !entry.protects_outbound() {
            return Err(OffloadError::Invalid("activation of a policy that does not protect".into()));
        }
        self.check_pair(&entry.spec, sa)?;
        self.policies.order += 1;
        self.set_active(handle, Some(sa), work);
        Ok(())
    }

    /// Has an outbound policy use an SA, as the last one activated, or none.
    pub(super) fn set_active(&mut self, handle: PolicyHandle, sa: Option<SaHandle>, work: &mut Work) {
        let Some(entry) = self.policies.get(handle) else { return };
        let order = if sa.is_some() { self.policies.order } else { entry.order };
        let entry = Entry { active: sa, order, ..entry.clone() };
        self.set_policy(handle, Some(entry), work);
    }

    /// The SA that a policy is to use from the start.
    fn active_sa(&self, spec: &PolicySpec) -> Result<Option<SaHandle>, OffloadError> {
        match (&spec.action, spec.direction) {
            (PolicyAction::Protect { sa: Some(sa), .. }, Direction::Outbound) => {
                self.check_pair(spec, *sa)?;
                Ok(Some(*sa))
            }
            (
                PolicyAction::Protect { .. } | PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. },
                Direction::Inbound | Direction::Outbound | Direction::Forward,
            ) => Ok(None),
        }
    }

    /// A policy in a device finds only SAs of that device, and one in software only others.
    fn check_pair(&self, policy: &PolicySpec, sa: SaHandle) -> Result<(), OffloadError> {
        let missing = || OffloadError::Missing(format!("outbound SA {:x}", sa.raw()));
        let sa = self.sas.get(sa).filter(|sa| sa.direction == Direction::Outbound).ok_or_else(missing)?;
        let in_device = |mode: OffloadMode| mode == OffloadMode::Packet;
        let fits = match (in_device(policy.offload), in_device(sa.mode.mode)) {
            (true, true) => policy.device == sa.device,
            (one, other) => one == other,
        };
        if fits {
            return Ok(());
        }
        let place = |device: DeviceId, in_device: bool| {
            let name = self.devices.link(device).map_or("no device", |link| &*link.name);
            if in_device { format!("in {name}") } else { "in software".to_owned() }
        };
        let policy_at = place(policy.device, in_device(policy.offload));
        let sa_at = place(sa.device, in_device(sa.mode.mode));
        let pair = format!("policy {} is {policy_at}, SA {} {sa_at}", policy.selectors, sa.id.spi);
        Err(OffloadError::Invalid(format!("{pair}: such a policy finds no such SA")))
    }

    /// A device holds what comes through an SA against the group that the policy names, and the kernel does not look again: for each group a
    /// policy of its own, beside those of equal selectors, so that the SAs before and after a change are both heard.
    fn user(&self, spec: &PolicySpec) -> u32 {
        match spec.action {
            PolicyAction::Protect { reqid, .. }
                if spec.direction == Direction::Inbound && self.link_holding(spec).is_some() =>
            {
                GROUP_USERS | reqid.0
            }
            PolicyAction::Protect { .. } | PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => {
                0
            }
        }
    }

    /// The kernel policies that a policy of the core consists of.
    fn keys(&self, spec: &PolicySpec) -> Result<Arc<[PolicyKey]>, OffloadError> {
        let way = match spec.direction {
            Direction::Inbound => Way::In,
            Direction::Outbound => Way::Out,
            Direction::Forward => Way::Forward,
        };
        let keys = policy_keys(&spec.selectors).into_iter().filter(|key| key.way == way);
        let (mark, if_id, user) = (shown(spec.tags.mark), spec.tags.if_id, self.user(spec));
        let keys: Vec<PolicyKey> = keys.map(|key| PolicyKey { mark, if_id, user, ..key }).collect();
        if keys.len() > MOST_KEYS {
            return Err(OffloadError::Unsupported {
                device: Arc::clone(&self.devices.get(spec.device)?.name),
                what: format!("a policy for {}", spec.selectors),
                reason: format!("its ranges are {} prefixes and ports together, more than {MOST_KEYS}", keys.len()),
            });
        }
        Ok(keys.into())
    }
}

impl Policies {
    /// Notes what the kernel has for a key; one with nothing and nobody is forgotten.
    pub(super) fn note(&mut self, key: PolicyKey, policy: Option<Policy>) {
        let slot = self.slots.entry(key).or_default();
        if let Some(old) = slot.installed.take() {
            self.by_index.remove(&old.index);
        }
        // What was left is replaced, or is what stays.
        let heard = |left: &Policy| policy.and_then(|policy| policy.template).is_some_and(|new| shares(left, &new));
        if self.left.get(&key).is_some_and(|left| Some(*left) != policy && !heard(left)) {
            self.left.remove(&key);
            self.left_changed = true;
        }
        if let Some(policy) = policy {
            self.by_index.insert(policy.index, key);
        }
        slot.installed = policy;
        if slot.installed.is_none() && slot.claims.is_empty() {
            self.slots.remove(&key);
        }
    }

    /// What an earlier run left for a key is just what is wanted.
    pub(super) fn claim_left(&mut self, key: &PolicyKey) {
        self.left_changed |= self.left.remove(key).is_some();
    }

    /// Goes back to what an earlier run left for a key.
    pub(super) fn restore_left(&mut self, key: PolicyKey, left: Option<Policy>) {
        self.left.extend(left.map(|left| (key, left)));
    }

    /// Outbound policies that software looks up.
    pub(super) fn in_software(&self) -> impl Iterator<Item = &Entry> {
        self.in_software.iter().filter_map(|handle| self.entries.get(handle))
    }
}

/// A mark as the kernel shows it again: one of which no bit counts is none.
pub(super) fn shown(mark: Option<Mark>) -> Option<Mark> {
    mark.filter(|mark| mark.mask != 0)
}

/// Whether an inbound policy that an earlier run left is still heard beside a new one.
fn shares(left: &Policy, new: &Template) -> bool {
    left.key.way != Way::Out && left.template.is_some_and(|old| new.reqid == old.reqid || new.reqid.0 == 0)
}
