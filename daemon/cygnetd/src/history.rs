//! The past, kept as configured, and what is asked about it.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use ike_model::history::{ChildTotal, Generation, HistoryError, Keeping, Wanted};
use ike_model::snapshot::Carried;
use ike_model::{ChildSaSnapshot, Outbox, Recorder, Timeline};

use crate::config::Config;
use crate::core::Core;
use crate::events::Origin;

/// What keeps the past; nothing where none is kept.
#[derive(Default)]
pub(crate) struct Past {
    /// Takes events down.
    pub(crate) recorder: Option<Arc<dyn Recorder>>,
    /// Answers.
    pub(crate) timeline: Option<Arc<dyn Timeline>>,
    /// Has what is to be delivered to webhooks.
    pub(crate) outbox: Option<Arc<dyn Outbox>>,
    /// Says how it is going.
    #[cfg_attr(not(feature = "telemetry"), expect(dead_code, reason = "only telemetry shows it"))]
    pub(crate) keeping: Option<Arc<dyn Keeping>>,
    stop: Option<Box<dyn FnOnce() + Send>>,
}

impl Past {
    /// Begins to keep it. Where nobody asked for a history, that it cannot be kept in the usual place is a warning only.
    pub(crate) fn start(config: &Config, origin: &Origin) -> anyhow::Result<Self> {
        if config.history.url.is_empty() {
            return Ok(Self::default());
        }
        match open(config, origin).context("cannot keep the history") {
            Ok(past) => Ok(past),
            Err(error) if !config.history.is_chosen() && !config.has_webhooks() => {
                tracing::warn!("{error:#}; name another place in [history], or set history.url = \"\"");
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends it. Events told from now on wait for the next start.
    pub(crate) fn stop(self) {
        if let Some(stop) = self.stop {
            stop();
        }
    }
}

#[cfg(feature = "history")]
fn open(config: &Config, origin: &Origin) -> anyhow::Result<Past> {
    use ike_model::Rfc3339;
    use sa_history::{History, Options, Retention, spool};

    use crate::webhooks::Webhooks;

    let settings = &config.history;
    let options = Options {
        url: settings.url.clone(),
        gateway: origin.gateway.clone(),
        retention: Retention { days: settings.retain_days, rows: settings.retain_rows },
        spool: spool::Options { directory: settings.spool(), size: settings.spool_size, fsync: settings.fsync },
        subscriptions: Webhooks::subscriptions(config),
    };
    let now = u64::try_from(crate::clock::wall().as_millis()).unwrap_or(u64::MAX);
    let history = Arc::new(History::start(&options, &origin.boot_id, Rfc3339(now))?);
    Ok(Past {
        recorder: Some(history.recorder()),
        timeline: Some(Arc::<History>::clone(&history)),
        outbox: Some(Arc::<History>::clone(&history)),
        keeping: Some(Arc::<History>::clone(&history)),
        stop: Some(Box::new(move || history.stop())),
    })
}

/// A build without the history keeps none; its settings are refused where they are read.
#[cfg(not(feature = "history"))]
fn open(_: &Config, _: &Origin) -> anyhow::Result<Past> {
    Ok(Past::default())
}

impl Core {
    /// Whom to ask about the past.
    pub(crate) fn timeline(&self) -> Result<&dyn Timeline, HistoryError> {
        let none = || HistoryError::Unreachable("no history is kept: history.url is empty, or see the log".into());
        self.timeline.as_deref().ok_or_else(none)
    }

    /// Generations of CHILD SAs, with the present counters of those that are up.
    pub(crate) async fn generations(&self, wanted: &Wanted) -> Result<Vec<Generation>, HistoryError> {
        let mut generations = self.timeline()?.generations(wanted).await?;
        let live = self.live().await;
        for row in generations.iter_mut().filter(|row| row.removed_ms.is_none()) {
            if let Some(child) = live.get(&row.unique_id).filter(|_| row.boot_id == self.shared.events.boot_id()) {
                row.carried_in = Carried { bytes: child.traffic_in.bytes, packets: child.traffic_in.packets };
                row.carried_out = Carried { bytes: child.traffic_out.bytes, packets: child.traffic_out.packets };
                (row.total_in, row.total_out) = (child.total_in, child.total_out);
            }
        }
        Ok(generations)
    }

    /// What each child has carried, with the present counters of those that are up.
    pub(crate) async fn totals(&self, wanted: &Wanted) -> Result<Vec<ChildTotal>, HistoryError> {
        let timeline = self.timeline()?;
        let mut totals = timeline.totals(wanted).await?;
        let open = timeline.generations(&Wanted { up: true, limit: 0, ..wanted.clone() }).await?;
        let live = self.live().await;
        for row in open.iter().filter(|row| row.boot_id == self.shared.events.boot_id()) {
            let same = |total: &&mut ChildTotal| {
                total.gateway == row.gateway && total.connection == row.connection && total.child == row.child
            };
            if let Some((child, total)) = live.get(&row.unique_id).zip(totals.iter_mut().find(same)) {
                more(&mut total.carried_in, child.total_in, row.total_in);
                more(&mut total.carried_out, child.total_out, row.total_out);
            }
        }
        Ok(totals)
    }

    /// CHILD SAs that are up, by number.
    async fn live(&self) -> HashMap<u32, ChildSaSnapshot> {
        let children = self.ike_sas().await.into_iter().flat_map(|ike| ike.children);
        children.map(|child| (child.unique_id, child)).collect()
    }
}

/// Adds what has been carried since it was last told.
fn more(sum: &mut Carried, now: Carried, told: Carried) {
    sum.bytes += now.bytes.saturating_sub(told.bytes);
    sum.packets += now.packets.saturating_sub(told.packets);
}
