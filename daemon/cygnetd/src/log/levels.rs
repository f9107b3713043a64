//! Which lines the daemon's own log has: what `[log]` says, and for a while more of one connection or one group.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use ipsec::Instant;
use swanctl_compat::request::{Detail, Part};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::class::Class;
use super::{Boxed, Form};

/// What is shown, and in which form; changed while the daemon runs.
pub(crate) struct Levels {
    /// By the settings.
    usual: RwLock<EnvFilter>,
    form: RwLock<Form>,
    /// For the journal, once it is open.
    journal: OnceLock<JournalSlot>,
    /// Beyond that.
    raised: ArcSwap<Vec<Raised>>,
}

/// More lines for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raised {
    /// Of what.
    pub(crate) part: Part,
    /// How much more.
    pub(crate) detail: Detail,
    /// Until when.
    pub(crate) until: Instant,
}

impl Levels {
    pub(super) fn new(usual: EnvFilter) -> Self {
        let (usual, form) = (RwLock::new(usual), RwLock::new(Form::Text));
        Self { usual, form, journal: OnceLock::new(), raised: ArcSwap::default() }
    }

    /// The settings say something else.
    pub(super) fn set_usual(&self, usual: EnvFilter, form: Form) {
        *self.usual.write().unwrap_or_else(PoisonError::into_inner) = usual;
        *self.form.write().unwrap_or_else(PoisonError::into_inner) = form;
        decide_again();
    }

    fn form(&self) -> Form {
        *self.form.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the journal's layer has its place.
    pub(super) fn keep_journal(&self, slot: JournalSlot) {
        // There is one log.
        let _ = self.journal.set(slot);
    }

    /// Makes sure that the journal can be written to; `open` opens it.
    pub(super) fn open_journal(&self, open: impl FnOnce() -> anyhow::Result<Boxed<Registry>>) -> anyhow::Result<()> {
        let slot = self.journal.get().context("the log has not begun")?;
        if slot.with_current(Option::is_none)? {
            slot.reload(Some(open()?))?;
        }
        Ok(())
    }

    /// More lines until a moment; in place of what was said of the same part before.
    pub(crate) fn raise(&self, raised: Raised) {
        self.change(|all| {
            all.retain(|other| other.part != raised.part);
            all.push(raised);
        });
    }

    /// Takes that back for one part; `false` when there was nothing to take back.
    pub(crate) fn lower(&self, part: &Part) -> bool {
        self.change(|all| all.retain(|raised| raised.part != *part))
    }

    /// What is raised and for how long still. What is over is forgotten.
    pub(crate) fn list(&self, now: Instant) -> Vec<(Raised, Duration)> {
        self.forget(now);
        let mut all: Vec<Raised> = self.raised.load().to_vec();
        all.sort_by(|one, other| one.part.cmp(&other.part));
        all.into_iter().map(|raised| (raised.clone(), raised.until.saturating_since(now))).collect()
    }

    /// Falls back where the time is over.
    pub(crate) fn forget(&self, now: Instant) {
        self.change(|all| all.retain(|raised| raised.until > now));
    }

    /// Whether that changed anything.
    fn change(&self, change: impl FnOnce(&mut Vec<Raised>)) -> bool {
        let before = self.raised.load_full();
        let mut all = before.to_vec();
        change(&mut all);
        if all == *before {
            return false;
        }
        self.raised.store(Arc::new(all));
        decide_again();
        true
    }

    fn with_usual<T>(&self, ask: impl FnOnce(&EnvFilter) -> T) -> T {
        ask(&self.usual.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether lines from this place may be wanted beyond the usual ones, depending on what they are about.
    fn may_be_raised(&self, metadata: &Metadata<'_>) -> bool {
        let raised = self.raised.load();
        !raised.is_empty() && {
            let class = Class::of(metadata);
            raised.iter().any(|raised| raised.admits(metadata, class))
        }
    }

    fn is_raised(&self, event: &Event<'_>) -> bool {
        let raised = self.raised.load();
        let (metadata, class) = (event.metadata(), Class::of(event.metadata()));
        raised.iter().any(|raised| raised.admits(metadata, class) && raised.is_about(event))
    }
}

/// What was decided for each place in the code that logs depends on the levels.
fn decide_again() {
    tracing::callsite::rebuild_interest_cache();
}

impl Raised {
    fn admits(&self, metadata: &Metadata<'_>, class: Option<Class>) -> bool {
        // Lines of libraries belong to no connection and no group.
        let Some(class) = class else { return false };
        let weight = |most: tracing::Level| *metadata.level() <= most;
        self.part.group.is_none_or(|group| group == class.group)
            && match self.detail {
                Detail::Level(level) => class.level <= level,
                Detail::Error => weight(tracing::Level::ERROR),
                Detail::Warn => weight(tracing::Level::WARN),
                Detail::Info => weight(tracing::Level::INFO),
                Detail::Debug => weight(tracing::Level::DEBUG),
                Detail::Trace => weight(tracing::Level::TRACE),
            }
    }

    fn is_about(&self, event: &Event<'_>) -> bool {
        let Some(wanted) = self.part.connection.as_deref() else { return true };
        let mut names = Names { wanted, found: false };
        event.record(&mut names);
        names.found
    }
}

/// Looks for a connection among the fields of a line.
struct Names<'n> {
    wanted: &'n str,
    found: bool,
}

impl Visit for Names<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.found |= field.name() == "conn" && value == self.wanted;
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Holds the layer of the journal, if it is open.
pub(super) type JournalSlot = reload::Handle<Option<Boxed<Registry>>, Registry>;

/// [`Levels`] as the filter of the layer that writes in a form.
pub(super) struct Shown(pub(super) Arc<Levels>, pub(super) Form);

impl Shown {
    /// Lines are written in this form at present.
    fn is_on(&self) -> bool {
        self.0.form() == self.1
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Shown {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.is_on()
            && (self.0.with_usual(|usual| Filter::<S>::enabled(usual, metadata, context))
                || self.0.may_be_raised(metadata))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if !self.is_on() {
            return Interest::never();
        }
        let usual = self.0.with_usual(|usual| Filter::<S>::callsite_enabled(usual, metadata));
        if usual.is_never() && self.0.may_be_raised(metadata) { Interest::sometimes() } else { usual }
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        let usual = |filter: &EnvFilter| Filter::<S>::enabled(filter, event.metadata(), context);
        self.is_on() && (self.0.raised.load().is_empty() || self.0.with_usual(usual) || self.0.is_raised(event))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if !self.is_on() {
            return Some(LevelFilter::OFF);
        }
        // Level 1 has lines that are TRACE here.
        let raised = !self.0.raised.load().is_empty();
        if raised { Some(LevelFilter::TRACE) } else { self.0.with_usual(Filter::<S>::max_level_hint) }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.with_usual(|usual| Filter::<S>::on_new_span(usual, attributes, id, context));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.with_usual(|usual| Filter::<S>::on_record(usual, id, values, context));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.with_usual(|usual| Filter::<S>::on_enter(usual, id, context));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.with_usual(|usual| Filter::<S>::on_exit(usual, id, context));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.with_usual(|usual| Filter::<S>::on_close(usual, id, context));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::fields::Fields;
    use super::*;

    /// Keeps the text of every line.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            self.0.lock().unwrap().push(Fields::of(event, &context).text);
        }
    }

    fn say_all() {
        tracing::event!(name: "IKE 1", target: "ike_sa", tracing::Level::DEBUG, conn = "a", "a IKE 1");
        tracing::event!(name: "ENC 1", target: "ike_sa", tracing::Level::TRACE, conn = "a", "a ENC 1");
        tracing::event!(name: "ENC 2", target: "ike_sa", tracing::Level::TRACE, conn = "a", "a ENC 2");
        tracing::event!(name: "ENC 1", target: "ike_sa", tracing::Level::TRACE, conn = "b", "b ENC 1");
        tracing::event!(name: "NET 1", target: "ike_sa", tracing::Level::TRACE, "NET 1");
        tracing::info!(target: "ike_sa", conn = "b", "b info");
        tracing::trace!(target: "library", conn = "a", "library");
    }

    fn part(connection: Option<&str>, group: Option<&'static str>) -> Part {
        Part { connection: connection.map(str::to_owned), group }
    }

    #[test]
    fn one_connection_or_group_says_more_until_its_time_is_over() {
        let levels = Arc::new(Levels::new(EnvFilter::new("info")));
        let kept = Kept::default();
        let lines = || std::mem::take(&mut *kept.0.lock().unwrap());
        let (now, later) = (Instant::START, Instant::START + Duration::from_secs(60));
        let raise = |part, detail| levels.raise(Raised { part, detail, until: later });
        let registry =
            tracing_subscriber::registry().with(kept.clone().with_filter(Shown(Arc::clone(&levels), Form::Text)));
        tracing::subscriber::with_default(registry, || {
            say_all();
            assert_eq!(lines(), ["b info"]);
            raise(part(Some("a"), None), Detail::Level(1));
            say_all();
            assert_eq!(lines(), ["a IKE 1", "a ENC 1", "b info"]);
            raise(part(Some("a"), None), Detail::Debug);
            raise(part(None, Some("ENC")), Detail::Level(1));
            say_all();
            assert_eq!(lines(), ["a IKE 1", "a ENC 1", "b ENC 1", "b info"]);
            assert_eq!(levels.list(now).len(), 2);
            assert!(levels.lower(&part(None, Some("ENC"))) && !levels.lower(&part(None, Some("ENC"))));
            levels.set_usual(EnvFilter::new("off"), Form::Text);
            say_all();
            assert_eq!(lines(), ["a IKE 1"]);
            levels.forget(later);
            assert!(levels.list(now).is_empty());
            say_all();
            assert!(lines().is_empty());
        });
    }
}
