//! What a line says of itself: its text, and the connection and IKE SA that it is about.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Fields of a line or of a span around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) connection: Option<String>,
    pub(super) unique_id: Option<u32>,
    /// The child that an IKE SA is taken for.
    pub(super) serves: Option<String>,
    /// The IKE SA whose place another one takes.
    pub(super) succeeds: Option<u32>,
    pub(super) text: String,
}

impl Fields {
    /// Those of an event; what it does not say is said by the spans around it.
    pub(super) fn of<S>(event: &tracing::Event<'_>, context: &Context<'_, S>) -> Self
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut fields = Self::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Self>() {
                fields.connection = fields.connection.or_else(|| outer.connection.clone());
                fields.unique_id = fields.unique_id.or(outer.unique_id);
            }
        }
        fields
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "ike" => self.unique_id = u32::try_from(value).ok(),
            "succeeds" => self.succeeds = u32::try_from(value).ok(),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            "conn" => self.connection = Some(value.to_owned()),
            "serves" => self.serves = Some(value.to_owned()),
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
