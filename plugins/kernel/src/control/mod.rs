//! The books of the backend and what is done by them. One thread owns them, together with the way to the kernel.
//!
//! - [`apply`]: one request, all or nothing. New SAs go to the kernel at once; policies follow, each kernel policy in one step from what it was to what
//!   it is to be; what is removed goes last, when nothing can be refused any more.
//! - [`sas`]: SAs, their counters and limits. [`policies`]: which of the core's policies of equal selectors the kernel has, [`spd`] how it gets there.
//! - [`anchors`]: a defect of the kernel, and what is done about it. [`events`]: what the kernel tells. [`devices`]: links that come and go. [`orphans`]: what an earlier run left.

mod anchors;
mod apply;
mod devices;
mod events;
mod orphans;
mod policies;
mod sas;
mod spd;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipsec::spi::{Permutation, SpiTable};
use ipsec::{
    Answer, DeviceId, DeviceTable, Event, GuardSpec, Installed, Instant, OffloadError, OnStop, Reports, Request,
    SaHandle, Scope, Spi, TableFull,
};
use offload_host::devices::Link;

use crate::config::StartError;
use crate::journal::Journal;
use crate::kernel::{lock, unavailable};
use crate::settings::Settings;
use crate::statistics::Statistics;
use crate::surroundings::{Clock, Egress, EspFeature, Parts, Surroundings};
use crate::xfrm::Xfrm;

use self::anchors::Anchors;
use self::devices::Devices;
use self::orphans::Orphans;
use self::policies::Policies;
use self::sas::Sas;

/// How often the host is asked whether addresses, links or our routes have changed; it costs little while they have not.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often the kernel's counters of refused packets are read. Reading them has the kernel ask each device for its counters too.
const COUNT: Duration = Duration::from_secs(5);

/// SPIs of others that are kept in mind.
const MOST_FOREIGN: usize = 65_536;

/// What other threads see of the books.
pub(crate) struct Shared {
    devices: ArcSwap<DeviceTable>,
    by_link: ArcSwap<BTreeMap<u32, DeviceId>>,
    spis: Mutex<SpiTable>,
    /// SPIs that others have at this host.
    foreign: Mutex<BTreeSet<Spi>>,
    drops: ArcSwap<Vec<(&'static str, u64)>>,
    lacks: ArcSwap<Option<String>>,
}

/// The books.
pub(crate) struct Control {
    xfrm: Box<dyn Xfrm>,
    surroundings: Box<dyn Surroundings>,
    reports: Arc<dyn Reports>,
    clock: Clock,
    shared: Arc<Shared>,
    egress: Egress,
    esp_feature: EspFeature,
    devices: Devices,
    /// Guards that stand.
    guards: BTreeSet<GuardSpec>,
    sas: Sas,
    anchors: Anchors,
    policies: Policies,
    orphans: Orphans,
    journal: Journal,
    settings: Settings,
    statistics: Statistics,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    /// Inbound SAs whose first use is looked for.
    fresh: u32,
    followed: Instant,
    counted: Instant,
    /// Where packets leave is about to be looked at.
    rerouted: bool,
    routes_followed: Instant,
    closed: bool,
}

/// What has to be looked at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Soft time limit.
    Soft(SaHandle),
    /// Hard time limit.
    Hard(SaHandle),
    /// Whether an inbound SA has been used for the first time.
    FirstUse(SaHandle),
    /// What an earlier run left is taken out.
    Orphan(u64),
    /// Whether packets still leave by the devices that hold their SAs.
    Routes,
}

impl Shared {
    pub(crate) fn devices(&self) -> Arc<DeviceTable> {
        self.devices.load_full()
    }

    pub(crate) fn device_of_link(&self, link: u32) -> Option<DeviceId> {
        self.by_link.load().get(&link).copied()
    }

    /// An SPI that neither we nor others have at this host. One that others have stays taken.
    pub(crate) fn reserve_spi(&self, now: Instant) -> Result<Spi, TableFull> {
        let mut spis = lock(&self.spis);
        loop {
            let spi = spis.reserve(now).ok_or(TableFull)?;
            if !lock(&self.foreign).contains(&spi) {
                return Ok(spi);
            }
        }
    }

    pub(crate) fn release_spi(&self, spi: Spi, now: Instant) {
        lock(&self.spis).release(spi, now);
    }

    /// An SA of somebody else has this SPI.
    fn note_foreign(&self, spi: Spi) {
        let mut foreign = lock(&self.foreign);
        // What is gone is not told apart; when it is too much all is forgotten, and an SPI that is taken after all is refused by the kernel.
        if foreign.len() >= MOST_FOREIGN {
            foreign.clear();
        }
        foreign.insert(spi);
    }

    fn is_reserved(&self, spi: Spi) -> bool {
        lock(&self.spis).slot_of(spi).is_some()
    }

    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        self.drops.load().to_vec()
    }

    pub(crate) fn lacks(&self) -> Option<String> {
        Option::clone(&self.lacks.load())
    }
}

impl Control {
    /// Books with nothing in them but what an earlier run left in the kernel.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) fn new(parts: Parts, links: &[Link], reports: Arc<dyn Reports>) -> Result<Self, StartError> {
        let Parts { xfrm, surroundings, clock, egress, esp_feature, random, journal, statistics, settings } = parts;
        let shared = Shared {
            devices: ArcSwap::default(),
            by_link: ArcSwap::default(),
            spis: Mutex::new(SpiTable::new(Permutation::new(&random))),
            foreign: Mutex::default(),
            drops: ArcSwap::default(),
            lacks: ArcSwap::default(),
        };
        let now = (clock.boottime)();
        let (journal, left) = Journal::open(journal);
        let mut control = Self {
            xfrm,
            surroundings,
            reports,
            clock,
            shared: Arc::new(shared),
            egress,
            esp_feature,
            devices: Devices::default(),
            guards: BTreeSet::new(),
            sas: Sas::default(),
            anchors: Anchors::default(),
            policies: Policies::default(),
            orphans: Orphans::default(),
            journal,
            settings: Settings::new(settings),
            statistics: Statistics::new(statistics),
            due: BinaryHeap::new(),
            fresh: 0,
            followed: now,
            counted: now,
            rerouted: false,
            routes_followed: now,
            closed: false,
        };
        control.adopt(&left)?;
        control.settings.hold_packets(left.larval_drop.as_deref(), &mut control.journal);
        control.find_software();
        links.iter().for_each(|link| control.link_added(link, false));
        Ok(control)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn now(&self) -> Instant {
        (self.clock.boottime)()
    }

    pub(crate) fn surroundings(&mut self) -> &mut dyn Surroundings {
        &mut *self.surroundings
    }

    pub(crate) fn reports(&self) -> Arc<dyn Reports> {
        Arc::clone(&self.reports)
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// Why nothing of it was done.
    pub(crate) fn execute(&mut self, request: &Request) -> Result<Answer, OffloadError> {
        if self.closed {
            return Err(unavailable());
        }
        match request {
            Request::Apply(ops) => self.apply(ops),
            Request::Query(sa) => {
                self.read_sa(*sa)?;
                let status = self.sas.status(*sa, self.now());
                status.map(Answer::Status).ok_or_else(|| OffloadError::Missing(format!("SA {:x}", sa.raw())))
            }
            Request::List(scope) => {
                self.read_all()?;
                Ok(Answer::Installed(self.installed(*scope)))
            }
        }
    }

    fn installed(&self, scope: Scope) -> Installed {
        let now = self.now();
        let sas = self.sas.handles().filter(|sa| scope.covers(sa.shard()));
        let policies = self.policies.statuses().filter(|(status, _)| scope.covers(status.policy.shard()));
        Installed {
            sas: sas.filter_map(|sa| self.sas.status(sa, now)).collect(),
            policies: policies.map(|status| self.with_mode(status)).collect(),
        }
    }

    /// Does what has come due and returns when the next thing will.
    pub(crate) fn tick(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let now = self.now();
        while let Some(Reverse((_, due))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.due.pop();
            match due {
                Due::Soft(sa) => self.time_is_near(sa),
                Due::Hard(sa) => self.time_is_up(sa),
                Due::FirstUse(sa) => {
                    self.fresh = self.fresh.saturating_sub(1);
                    self.look_for_first_use(sa);
                }
                Due::Orphan(number) => self.drop_orphan(number),
                Due::Routes => self.follow_routes(),
            }
        }
        if now.saturating_since(self.followed) >= FOLLOW {
            self.followed = now;
            self.follow();
        }
        if now.saturating_since(self.counted) >= COUNT {
            self.counted = now;
            self.count_drops();
        }
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// What somebody else has taken away is put back; whoever did that may have changed more, so the books are to be compared as well.
    fn follow(&mut self) {
        match self.surroundings.refresh() {
            Ok(restored) if restored.is_empty() => {}
            Ok(restored) => {
                restored.iter().for_each(|what| tracing::warn!("put back: {what}"));
                self.reports.event(Event::Resync);
            }
            Err(error) => tracing::warn!(%error, "cannot follow the host's addresses and routes"),
        }
    }

    fn count_drops(&mut self) {
        let Some(drops) = self.statistics.read() else { return };
        for (reason, packets) in drops.left_zero {
            self.reports.event(Event::Drops { reason, packets });
        }
        self.shared.drops.store(Arc::new(drops.counters));
    }

    /// What an earlier run left and nobody has claimed, in words.
    pub(crate) fn leftovers(&mut self) -> Vec<String> {
        let mut left = self.surroundings.leftovers();
        left.extend(self.unclaimed());
        left
    }

    /// Takes it out.
    ///
    /// # Errors
    /// The system's refusal; some of it may be gone.
    pub(crate) fn drop_leftovers(&mut self) -> Result<(), OffloadError> {
        self.drop_unclaimed();
        self.surroundings.drop_leftovers()
    }

    /// Takes everything of ours out of the kernel, the guard as `on_stop` says, and refuses all from now on.
    pub(crate) fn stop(&mut self, on_stop: OnStop) {
        if self.closed {
            return;
        }
        if let Err(error) = self.apply(&[ipsec::Op::Flush]) {
            tracing::error!(%error, "cannot take our SAs and policies out of the kernel");
        }
        self.drop_unclaimed();
        self.closed = true;
        if let Err(error) = self.surroundings.stop(on_stop) {
            tracing::error!(%error, "cannot tidy up routes and guard");
        }
        self.settings.restore();
        self.journal.close();
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.fresh += u32::from(matches!(due, Due::FirstUse(_)));
        self.due.push(Reverse((at, due)));
    }

    /// What is due for SAs that are gone stays queued until its time comes; a peer that makes and ends one SA after the other must not let the queue
    /// grow for as long as lifetimes are. An SA has three at most, so a part of a queue that is trimmed is stale.
    fn trim_due(&mut self) {
        if self.due.len() <= 6 * self.sas.len() + 64 {
            return;
        }
        let sas = &self.sas;
        self.due.retain(|Reverse((_, due))| match due {
            Due::Soft(sa) | Due::Hard(sa) | Due::FirstUse(sa) => sas.get(*sa).is_some(),
            Due::Orphan(_) | Due::Routes => true,
        });
        let fresh = self.due.iter().filter(|Reverse((_, due))| matches!(due, Due::FirstUse(_))).count();
        self.fresh = u32::try_from(fresh).unwrap_or(u32::MAX);
    }
}
