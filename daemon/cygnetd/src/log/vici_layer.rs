//! Log lines as VICI events: `log` for whoever listens, `control-log` for the client whose command they belong to.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use swanctl_compat::render::{self, LogLine};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::class::{Class, SERVES, SUCCEEDS};
use super::fields::Fields;
use crate::subscribers::Subscribers;

/// The layer with its filter: nothing is even formatted while nobody listens.
pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(subscribers: Arc<Subscribers>) -> impl Layer<S> {
    ViciLayer(Arc::clone(&subscribers)).with_filter(Wanted(subscribers))
}

struct ViciLayer(Arc<Subscribers>);

/// Lets through what some client wants.
struct Wanted(Arc<Subscribers>);

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let Some(wanted) = self.0.log_wanted() else { return false };
        // Whose IKE SA it is decides about lines of all levels.
        matches!(metadata.name(), SERVES | SUCCEEDS) || Class::of(metadata).is_some_and(|class| class.level <= wanted)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    /// Asked again whenever what is wanted changes.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Level 1 has lines that are TRACE in our own log.
        Some(self.0.log_wanted().map_or(LevelFilter::OFF, |_| LevelFilter::TRACE))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ViciLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(Class { group, level }) = Class::of(event.metadata()) else { return };
        let Fields { connection, unique_id, serves, succeeds, text } = Fields::of(event, &context);
        let connection = connection.as_deref();
        if event.metadata().name() == SERVES
            && let (Some(connection), Some(ike)) = (connection, unique_id)
        {
            self.0.serves(connection, serves.as_deref(), ike);
        }
        if event.metadata().name() == SUCCEEDS
            && let (Some(old), Some(new)) = (succeeds, unique_id)
        {
            self.0.succeeds(old, new);
        }
        let line = LogLine { group, level, thread: number(), ike_sa: connection.zip(unique_id), text: &text };
        self.0.emit_control_log(level, connection, unique_id, || render::control_log(&line));
        if level <= 1 && self.0.anybody_wants("log") {
            self.0.emit("log", &render::log(&line));
        }
    }
}

/// The number of this thread, in the order in which threads have had something to say.
fn number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static OWN: Cell<u32> = const { Cell::new(0) };
    }
    OWN.with(|own| {
        if own.get() == 0 {
            own.set(LAST.fetch_add(1, Ordering::Relaxed).saturating_add(1));
        }
        own.get()
    })
}

#[cfg(test)]
mod tests {
    use swanctl_compat::vici::Packet;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::subscribers::{About, ControlLog};

    /// Events that `run` causes at a client that listens to log and control-log.
    fn events_of(run: impl FnOnce()) -> Vec<(String, String)> {
        let subscribers = Arc::new(Subscribers::default());
        let (client, mut queue) = subscribers.join(None);
        client.register("log");
        client.register("control-log");
        let about = About::Attempt { connection: "a".into(), child: Some("net".into()), ikes: [9].into() };
        subscribers.set_control_log(&client, Some(ControlLog { level: 2, about }));
        let registry = tracing_subscriber::registry().with(layer(Arc::clone(&subscribers)));
        tracing::subscriber::with_default(registry, run);
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|queued| {
                let Ok(Packet::Event(name, message)) = Packet::decode(&queued.frame[4..]) else {
                    panic!("not an event")
                };
                let part = |key| message.get_str(key).unwrap_or("-").to_owned();
                let parts = [part("group"), part("level"), part("ikesa-name"), part("ikesa-uniqueid"), part("msg")];
                (name, parts.join("|"))
            })
            .collect()
    }

    #[test]
    fn lines_become_events_with_their_ike_sa() {
        let events = events_of(|| {
            tracing::event!(name: "ENC 1", target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 7u32, "early");
            tracing::event!(name: SERVES, target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 7u32, serves = "net", "used");
            tracing::event!(name: "ENC 1", target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 7u32, "up");
            tracing::event!(name: "IKE 3", target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 7u32, "more");
            tracing::event!(name: SUCCEEDS, target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 10u32, succeeds = 7u32, "instead");
            tracing::event!(name: SUCCEEDS, target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 11u32, succeeds = 8u32, "not mine");
            tracing::event!(name: "ENC 1", target: "ike_sa", tracing::Level::TRACE, conn = "a", ike = 10u32, "goes on");
            tracing::debug!(target: "ike_sa::x", conn = "a", "detail");
            tracing::debug!(target: "ike_sa::x", conn = "a", ike = 8u32, "of another one");
            tracing::debug!(target: "ike_sa::x", conn = "b", "not mine");
            tracing::info!(target: "foreign", conn = "a", "not ours");
            let span = tracing::info_span!(target: "ike_sa", "sa", conn = "a", ike = 9u32);
            span.in_scope(|| tracing::warn!(target: "ike_sa", error = "why", "in span"));
        });
        let expected = [
            ("log", "ENC|1|a|7|early"),
            ("control-log", "MGR|2|a|7|used"),
            ("control-log", "ENC|1|a|7|up"),
            ("log", "ENC|1|a|7|up"),
            ("control-log", "MGR|2|a|10|instead"),
            ("control-log", "ENC|1|a|10|goes on"),
            ("log", "ENC|1|a|10|goes on"),
            ("control-log", "IKE|2|-|-|detail"),
            ("control-log", "IKE|0|a|9|in span: why"),
            ("log", "IKE|0|a|9|in span: why"),
        ];
        assert_eq!(events, expected.map(|(name, line)| (name.to_owned(), line.to_owned())));
    }
}
