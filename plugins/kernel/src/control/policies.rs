//! Policies: which of the core's the kernel has, and in which form.
//!
//! The kernel holds one policy for each [`PolicyKey`]; the core may have several of equal selectors (primary and backup, a trap and what came of it, an
//! old child and its successor on another rung). So what the kernel has for a key is decided here: of those that claim it one owns it, and when
//! that changes the kernel's policy is replaced in one step, so that there is no gap. Packets that wait for the old one (those that met a trap) go
//! with it to the new one.
//!
//! A protecting outbound policy whose SA is active points at it by its SPI. One without an SA blocks: a template that points nowhere would have the
//! kernel ask for an SA with each packet and keep a state to come in its place, and such a state hides SAs in a device. Inbound and forward policies
//! name the group of their SAs; where several claim one key, what they differ in is left open, so that old and new SAs are both heard.
//!
//! Ours carry an index inside [`INDEXES`]. The kernel hands indexes out from below, so no foreign policy gets one by chance, and the kernel's own
//! table is the journal: what a crashed process left is found there and taken over in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipsec::{
    DeviceId, Direction, Event, Instant, ModeInUse, OffloadError, OffloadMode, PacketSelectors, PolicyAction,
    PolicyHandle, PolicySpec, PolicyStatus, Reqid, SaHandle, SaMode, SelectorPair,
};
use offload_host::policy_keys;
use offload_host::xfrm::{PolicyKey, Verdict, Way};

use super::Control;
use super::apply::{Undo, Work};
use super::sas::told;
use crate::refusal::Asked;
use crate::xfrm::{Policy, Template, XfrmError};

/// Indexes of our policies; the low three bits are the direction.
const INDEXES: RangeInclusive<u32> = 0x4400_0000..=0x44ff_ffff;
/// Groups in the templates of traps. They are of no SA: what waits for one must not lie beside SAs in the kernel's tables.
const TRAP_GROUPS: u32 = 0x4400_0000;
/// Kernel policies that one of the core's may be split into: address and port ranges are made of prefixes.
const MOST_KEYS: usize = 4_096;

/// A policy of the core.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) spec: PolicySpec,
    keys: Arc<[PolicyKey]>,
    /// Counts installations and activations.
    order: u64,
    active: Option<SaHandle>,
    /// Since when an acquire of a trap is outstanding.
    asked: Option<Instant>,
    /// Group in the template of a trap, another one each time it is touched.
    group: u32,
}

/// What there is for one key.
#[derive(Debug, Default)]
struct Slot {
    claims: BTreeSet<PolicyHandle>,
    /// What the kernel has.
    installed: Option<Policy>,
    /// What an earlier run left, until somebody takes its place.
    left: Option<Policy>,
}

/// All policies of this process.
#[derive(Debug, Default)]
pub(super) struct Policies {
    entries: BTreeMap<PolicyHandle, Entry>,
    slots: BTreeMap<PolicyKey, Slot>,
    by_index: BTreeMap<u32, PolicyKey>,
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
    fn in_device(&self) -> bool {
        self.spec.offload == OffloadMode::Packet && self.spec.direction != Direction::Forward
    }

    fn protects_outbound(&self) -> bool {
        let protects = match self.spec.action {
            PolicyAction::Protect { .. } => true,
            PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => false,
        };
        protects && self.spec.direction == Direction::Outbound
    }

    fn is_trap(&self) -> bool {
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

    /// The kernel has dropped what a device held, without a word.
    pub(super) fn forget_installed(&mut self, link: u32) {
        for slot in self.slots.values_mut() {
            if let Some(gone) = slot.installed.take_if(|there| there.device == Some(link)) {
                self.by_index.remove(&gone.index);
            }
            slot.left.take_if(|left| left.device == Some(link));
        }
    }

    /// A policy of an earlier run.
    pub(super) fn adopt(&mut self, policy: Policy) {
        self.by_index.insert(policy.index, policy.key);
        self.slots.insert(policy.key, Slot { claims: BTreeSet::new(), installed: Some(policy), left: Some(policy) });
    }

    /// What an earlier run left and nobody has claimed.
    pub(super) fn left(&self) -> impl Iterator<Item = &Policy> {
        self.slots.values().filter_map(|slot| slot.left.as_ref())
    }

    /// What an earlier run left goes; the keys have to be made right then.
    pub(super) fn forget_left(&mut self, goes: impl Fn(&Policy) -> bool) -> Vec<PolicyKey> {
        let mut keys = Vec::new();
        for (key, slot) in &mut self.slots {
            keys.extend(slot.left.take_if(|left| goes(left)).map(|_| *key));
        }
        keys
    }

    /// What the kernel ought to have for every key.
    pub(super) fn installed(&self) -> impl Iterator<Item = &Policy> {
        self.slots.values().filter_map(|slot| slot.installed.as_ref())
    }

    /// The kernel has lost what it had for a key.
    pub(super) fn forget_key(&mut self, key: &PolicyKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.left = None;
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

    fn free_index(&mut self, way: Way) -> u32 {
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

    /// The claims of a key, the one that owns it first.
    fn ranked(&self, slot: &Slot) -> Vec<&Entry> {
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
    fn link_holding(&self, spec: &PolicySpec) -> Option<u32> {
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

    /// The kernel policies that a policy of the core consists of.
    fn keys(&self, spec: &PolicySpec) -> Result<Arc<[PolicyKey]>, OffloadError> {
        let way = match spec.direction {
            Direction::Inbound => Way::In,
            Direction::Outbound => Way::Out,
            Direction::Forward => Way::Forward,
        };
        let keys = policy_keys(&spec.selectors).into_iter().filter(|key| key.way == way);
        let keys: Vec<PolicyKey> =
            keys.map(|key| PolicyKey { mark: spec.tags.mark, if_id: spec.tags.if_id, ..key }).collect();
        if keys.len() > MOST_KEYS {
            return Err(OffloadError::Unsupported {
                device: Arc::clone(&self.devices.get(spec.device)?.name),
                what: format!("a policy for {}", spec.selectors),
                reason: format!("its ranges are {} prefixes and ports together, more than {MOST_KEYS}", keys.len()),
            });
        }
        Ok(keys.into())
    }

    /// Has the kernel hold what the books say, for the keys that were touched: what is new or changed in their order, then what goes.
    pub(super) fn sync_dirty(&mut self, work: &mut Work) -> Result<(), OffloadError> {
        let mut seen = BTreeSet::new();
        let dirty: Vec<PolicyKey> = work.dirty.drain(..).filter(|key| seen.insert(*key)).collect();
        let mut obsolete = Vec::new();
        for key in dirty {
            match self.wanted(&key) {
                Some(policy) => self.install(key, policy, work)?,
                None => obsolete.push(key),
            }
        }
        obsolete.into_iter().try_for_each(|key| self.uninstall(key, work))
    }

    fn install(&mut self, key: PolicyKey, mut policy: Policy, work: &mut Work) -> Result<(), OffloadError> {
        let there = self.policies.installed_for(&key).copied();
        policy.index = match &there {
            Some(there) => there.index,
            None => self.policies.free_index(key.way),
        };
        if there == Some(policy) {
            return Ok(());
        }
        if policy.device.is_some()
            && let Some(device) = self.owner(&key).map(|owner| owner.spec.device)
        {
            self.bypass_ike(device)?;
        }
        work.undo.push(Undo::Kernel(key, there));
        self.put(&policy, there.is_some()).map_err(|error| self.asked(&policy).refused(error))?;
        self.policies.note(key, Some(policy));
        Ok(())
    }

    /// Puts a policy into the kernel. One that is to be in a device is read back: some kernels ignore the device.
    pub(super) fn put(&mut self, policy: &Policy, replace: bool) -> Result<(), XfrmError> {
        self.xfrm.put_policy(policy, replace)?;
        *self.policies.own_changes.entry(policy.key).or_default() += 1;
        if policy.device.is_none() || self.xfrm.policy(&policy.key)?.is_some_and(|found| found.device == policy.device)
        {
            return Ok(());
        }
        if !replace {
            self.delete(&policy.key, policy.index)?;
        }
        Err(XfrmError::Ignored("the device: it holds the policy in software"))
    }

    fn delete(&mut self, key: &PolicyKey, index: u32) -> Result<(), XfrmError> {
        if self.xfrm.delete_policy(key, index)? {
            *self.policies.own_changes.entry(*key).or_default() += 1;
        }
        Ok(())
    }

    fn asked(&self, policy: &Policy) -> Asked {
        let owner = self.owner(&policy.key).map(|owner| &owner.spec);
        let device = owner.and_then(|spec| self.devices.get(spec.device).ok());
        let rung = if policy.device.is_some() { OffloadMode::Packet } else { OffloadMode::No };
        let there = |there: &&Policy| there.device.is_some() && there.device == policy.device;
        let held = self.policies.installed().filter(there).count();
        Asked {
            device: device.map_or_else(|| crate::kernel::NAME.into(), |device| Arc::clone(&device.name)),
            what: format!("policy {}", policy.key),
            table: "SPD",
            held: u32::try_from(held).unwrap_or(u32::MAX),
            rung,
            v4: policy.key.source.address().is_ipv4(),
        }
    }

    fn uninstall(&mut self, key: PolicyKey, work: &mut Work) -> Result<(), OffloadError> {
        let Some(there) = self.policies.installed_for(&key).copied() else {
            self.policies.note(key, None);
            return Ok(());
        };
        self.delete(&key, there.index).map_err(|error| told(&format!("delete policy {key}"), &error))?;
        work.undo.push(Undo::Kernel(key, Some(there)));
        self.policies.note(key, None);
        Ok(())
    }

    /// Goes back to what the kernel had for a key.
    pub(super) fn restore_kernel(&mut self, key: PolicyKey, before: Option<Policy>) -> Result<(), XfrmError> {
        let now = self.policies.installed_for(&key).copied();
        match (before, now) {
            (Some(before), now) if now != Some(before) => self.put(&before, now.is_some())?,
            (None, Some(now)) => self.delete(&key, now.index)?,
            (Some(_) | None, _) => {}
        }
        self.policies.note(key, before);
        Ok(())
    }

    /// Has the policies that use an SA follow what became of it.
    pub(super) fn refresh_users(&mut self, sa: SaHandle) {
        let gone = self.sas.get(sa).is_none();
        let mut work = Work::default();
        for policy in self.policies.users_of(sa) {
            if gone {
                self.set_active(policy, None, &mut work);
            } else if let Some(entry) = self.policies.get(policy) {
                work.dirty.extend(entry.keys.iter().copied());
            }
        }
        if let Err(error) = self.sync_dirty(&mut work) {
            tracing::error!(%error, "cannot block the traffic of an SA that is gone");
        }
    }

    /// Makes the kernel right for keys that were found wrong; gives how many could not be.
    pub(super) fn repair(&mut self, keys: impl IntoIterator<Item = PolicyKey>) -> usize {
        let mut failed = 0;
        for key in keys {
            let mut work = Work { dirty: vec![key], ..Work::default() };
            if let Err(error) = self.sync_dirty(&mut work) {
                tracing::error!(%key, %error, "cannot put a policy back");
                failed += 1;
            }
        }
        failed
    }

    fn owner(&self, key: &PolicyKey) -> Option<&Entry> {
        self.policies.ranked(self.policies.slots.get(key)?).first().copied()
    }

    /// What the kernel is to have for a key.
    fn wanted(&self, key: &PolicyKey) -> Option<Policy> {
        let slot = self.policies.slots.get(key)?;
        let ranked = self.policies.ranked(slot);
        let Some(owner) = ranked.first() else { return slot.left };
        let pending = owner.protects_outbound() && owner.active.is_none();
        if pending && slot.left.is_some() {
            return slot.left;
        }
        if pending && owner.in_device() && self.would_hide(owner) {
            return None;
        }
        let device = self.link_holding(&owner.spec);
        let policy = |verdict, template| Policy {
            key: *key,
            priority: owner.spec.priority,
            index: 0,
            verdict,
            template,
            device,
            per_cpu: false,
        };
        Some(match &owner.spec.action {
            PolicyAction::Bypass => policy(Verdict::Allow, None),
            PolicyAction::Discard => policy(Verdict::Block, None),
            PolicyAction::Trap { mode, .. } => policy(Verdict::Allow, Some(trap_template(key, *mode, owner.group))),
            PolicyAction::Protect { .. } if owner.spec.direction == Direction::Outbound => {
                match owner.active.and_then(|sa| self.sas.get(sa)).filter(|sa| sa.hard.is_none()) {
                    Some(sa) => {
                        let template = Template {
                            source: sa.outer.local,
                            destination: sa.outer.remote,
                            spi: Some(sa.id.spi),
                            reqid: sa.reqid,
                            mode: sa.encloses,
                            optional: false,
                        };
                        policy(Verdict::Allow, Some(template))
                    }
                    None => policy(Verdict::Block, None),
                }
            }
            PolicyAction::Protect { .. } => policy(Verdict::Allow, inbound_template(&ranked, slot.left.as_ref())),
        })
    }

    /// Whether a blocking policy in a device, whose SA is still to be activated, would stop what a policy in software carries now: those in a device
    /// are looked up first.
    fn would_hide(&self, pending: &Entry) -> bool {
        let carries = |entry: &Entry| entry.is_trap() || entry.active.is_some();
        self.policies.entries.values().any(|entry| {
            entry.spec.direction == Direction::Outbound
                && !entry.in_device()
                && carries(entry)
                && overlap(&entry.spec.selectors, &pending.spec.selectors)
        })
    }

    /// The kernel asks for an SA. Only traps do: what protects points at its SA or blocks.
    pub(super) fn acquire(&mut self, index: u32, packet: PacketSelectors) {
        let now = self.now();
        let age = self.settings.acquire_age();
        let Some(key) = self.policies.by_index.get(&index).copied() else { return };
        let Some(policy) = self.owner(&key).filter(|owner| owner.is_trap()).map(|owner| owner.spec.handle) else {
            return;
        };
        let Some(entry) = self.policies.entries.get_mut(&policy) else { return };
        if entry.asked.is_some_and(|at| now.saturating_since(at) < age) {
            return;
        }
        entry.asked = Some(now);
        self.reports.event(Event::Acquire { policy, packet });
    }
}

impl Policies {
    /// Notes what the kernel has for a key; one with nothing and nobody is forgotten.
    fn note(&mut self, key: PolicyKey, policy: Option<Policy>) {
        let slot = self.slots.entry(key).or_default();
        if let Some(old) = slot.installed.take() {
            self.by_index.remove(&old.index);
        }
        // What was left is replaced, or is what stays.
        if slot.left.is_some() && slot.left != policy {
            slot.left.take_if(|left| policy.is_none_or(|policy| policy.template.is_none_or(|new| !shares(left, &new))));
        }
        if let Some(policy) = policy {
            self.by_index.insert(policy.index, key);
        }
        slot.installed = policy;
        if slot.installed.is_none() && slot.claims.is_empty() && slot.left.is_none() {
            self.slots.remove(&key);
        }
    }
}

/// Whether an inbound policy that an earlier run left is still heard beside a new one.
fn shares(left: &Policy, new: &Template) -> bool {
    left.key.way != Way::Out && left.template.is_some_and(|old| new.reqid == old.reqid || new.reqid.0 == 0)
}

/// Names no SA and no address, so that what waits for one lies beside no SA, and goes by itself. Without an address the kernel would look for a route.
fn trap_template(key: &PolicyKey, mode: SaMode, group: u32) -> Template {
    let v4 = key.source.address().is_ipv4();
    let (source, destination): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into())
    } else {
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
    };
    Template { source, destination, spi: None, reqid: Reqid(group), mode, optional: false }
}

/// What inbound and forward policies of one key have in common, that of an earlier run included.
fn inbound_template(ranked: &[&Entry], left: Option<&Policy>) -> Option<Template> {
    let of = |entry: &&Entry| match entry.spec.action {
        PolicyAction::Protect { reqid, mode, outer, .. } => {
            Some(Template { source: outer.remote, destination: outer.local, spi: None, reqid, mode, optional: false })
        }
        PolicyAction::Bypass | PolicyAction::Discard | PolicyAction::Trap { .. } => None,
    };
    let mut all = ranked.iter().filter_map(of).chain(left.and_then(|left| left.template));
    let first = all.next()?;
    Some(all.filter(|other| other.mode == first.mode).fold(first, |one, other| Template {
        source: open_unless_equal(one.source, other.source),
        destination: open_unless_equal(one.destination, other.destination),
        reqid: if one.reqid == other.reqid { one.reqid } else { Reqid(0) },
        ..one
    }))
}

fn open_unless_equal(one: IpAddr, other: IpAddr) -> IpAddr {
    match (one == other, one) {
        (true, _) => one,
        (false, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (false, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn overlap(one: &SelectorPair, other: &SelectorPair) -> bool {
    one.local.intersection(&other.local).is_some() && one.remote.intersection(&other.remote).is_some()
}
