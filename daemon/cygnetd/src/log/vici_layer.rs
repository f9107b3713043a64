//! Log lines as VICI events: `log` for whoever listens, `control-log` for the client whose command they belong to.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use swanctl_compat::render::{self, LogLine};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::subscribers::Subscribers;

/// The layer with its filter: nothing is even formatted while nobody listens.
pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(subscribers: Arc<Subscribers>) -> impl Layer<S> {
    ViciLayer(Arc::clone(&subscribers)).with_filter(Wanted(subscribers))
}

struct ViciLayer(Arc<Subscribers>);

/// Lets through what some client wants.
struct Wanted(Arc<Subscribers>);

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.0.log_wanted().is_some_and(|wanted| level(metadata.level()) <= wanted)
            && group(metadata.target()).is_some()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.0.log_wanted().is_some() && group(metadata.target()).is_some() {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.log_wanted() {
            None => LevelFilter::OFF,
            Some(0) => LevelFilter::WARN,
            Some(1) => LevelFilter::INFO,
            Some(2) => LevelFilter::DEBUG,
            Some(_) => LevelFilter::TRACE,
        })
    }
}

/// Fields of a line or of a span around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fields {
    connection: Option<String>,
    unique_id: Option<u32>,
    text: String,
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
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.connection = fields.connection.or_else(|| outer.connection.clone());
                fields.unique_id = fields.unique_id.or(outer.unique_id);
            }
        }
        let Some(group) = group(event.metadata().target()) else { return };
        let level = level(event.metadata().level());
        let connection = fields.connection.as_deref();
        let ike_sa = connection.map(|name| (name, fields.unique_id.unwrap_or(0)));
        let line = LogLine { group, level, thread: 0, ike_sa, text: &fields.text };
        self.0.emit_control_log(level, connection, &render::control_log(&line));
        if level <= 1 {
            self.0.emit("log", &render::log(&line));
        }
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "ike" {
            self.unique_id = u32::try_from(value).ok();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            "conn" => self.connection = Some(value.to_owned()),
            "error" => drop(write!(self.text, ": {value}")),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => drop(write!(self.text, "{value:?}")),
            "conn" => self.connection = Some(format!("{value:?}")),
            // What went wrong is often only here.
            "error" => drop(write!(self.text, ": {value:?}")),
            _ => {}
        }
    }
}

/// The level VICI clients know: 0 is what one should look at, 1 the course of things, 2 details, 3 raw.
fn level(level: &Level) -> u8 {
    match *level {
        Level::ERROR | Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 2,
        _ => 3,
    }
}

/// The three letters VICI clients know, or nothing for what is no part of ours.
fn group(target: &str) -> Option<&'static str> {
    const GROUPS: [(&str, &str); 11] = [
        ("cygnetd::events", "IKE"),
        ("cygnetd::net", "NET"),
        ("cygnetd::load", "CFG"),
        ("cygnetd::updown", "CHD"),
        ("cygnetd", "DMN"),
        ("ike_sa", "IKE"),
        ("ike_wire", "ENC"),
        ("ike_crypto", "LIB"),
        ("swanctl_compat", "CFG"),
        ("offload_userspace", "KNL"),
        ("ipsec", "KNL"),
    ];
    GROUPS.iter().find(|(prefix, _)| target.starts_with(prefix)).map(|(_, group)| *group)
}

#[cfg(test)]
mod tests {
    use swanctl_compat::vici::Packet;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::subscribers::ControlLog;

    /// Events that `run` causes at a client that listens to log and control-log.
    fn events_of(run: impl FnOnce()) -> Vec<(String, String)> {
        let subscribers = Arc::new(Subscribers::default());
        let (client, mut queue) = subscribers.join(None);
        client.register("log");
        client.register("control-log");
        subscribers.set_control_log(&client, Some(ControlLog { level: 2, connection: Some("a".into()) }));
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
            tracing::info!(target: "ike_sa::x", conn = "a", ike = 7u32, "up");
            tracing::debug!(target: "ike_sa::x", conn = "a", "detail");
            tracing::debug!(target: "ike_sa::x", conn = "b", "not mine");
            tracing::info!(target: "foreign", conn = "a", "not ours");
            let span = tracing::info_span!(target: "ike_sa", "sa", conn = "a", ike = 9u32);
            span.in_scope(|| tracing::warn!(target: "ike_sa", error = "why", "in span"));
        });
        let expected = [
            ("control-log", "IKE|1|a|7|up"),
            ("log", "IKE|1|a|7|up"),
            ("control-log", "IKE|2|a|0|detail"),
            ("control-log", "IKE|0|a|9|in span: why"),
            ("log", "IKE|0|a|9|in span: why"),
        ];
        assert_eq!(events, expected.map(|(name, line)| (name.to_owned(), line.to_owned())));
    }
}
