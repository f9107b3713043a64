//! `cygnet-plan-conn` and `cygnet-plan-unload`: what a load would do.

use ike_model::reload::{Change, Forecast};

use crate::vici::Message;

/// The answer: `success`, `change` (`new unchanged updated replaced removed`), for `updated` also `settings` and the lists `added`, `changed` and
/// `removed` of child names; then, unless it is `new` or `unchanged`, how many SAs that are up would `restart`, `end` and `stay`, IKE SAs and CHILD SAs
/// counted alike.
#[must_use]
pub fn forecast(forecast: &Forecast) -> Message {
    let mut m = Message::new().with("success", "yes");
    m.set(
        "change",
        match &forecast.change {
            Change::New => "new",
            Change::Unchanged => "unchanged",
            Change::Updated(_) => "updated",
            Change::Replaced => "replaced",
            Change::Removed => "removed",
        },
    );
    if let Change::Updated(updated) = &forecast.change {
        m.set_if("settings", updated.settings);
        let lists = [("added", &updated.added), ("changed", &updated.changed), ("removed", &updated.removed)];
        for (key, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            m.list(key, names.iter().map(String::as_str));
        }
    }
    // Of the others nothing is touched, whatever is up.
    if matches!(forecast.change, Change::Updated(_) | Change::Replaced | Change::Removed) {
        m.set_display("restart", forecast.restart);
        m.set_display("end", forecast.end);
        m.set_display("stay", forecast.stay);
    }
    m
}
