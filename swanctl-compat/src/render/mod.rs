//! The daemon's model as VICI messages.
//!
//! Field names and their order are those that VICI clients know; fields of our own only come after them.

mod conns;
mod counters;
mod cygnet;
mod doctor;
mod events;
mod explain;
mod forecast;
mod history;
mod identities;
mod log;
mod policies;
mod replies;
mod sas;
mod selectors;
pub(crate) mod services;
mod webhooks;
mod why;

#[cfg(test)]
mod tests;

pub use conns::list_conn;
pub use counters::counters;
pub use cygnet::{cygnet_backend_sa, cygnet_child};
pub use doctor::{cygnet_check, cygnet_device, cygnet_doctor};
pub use events::{LogLine, control_log, events, log, shutdown_alert};
pub use explain::cygnet_block;
pub use forecast::forecast;
pub use history::{complete, cygnet_event, cygnet_generation, cygnet_past_ike, cygnet_total};
pub use identities::identity;
pub use log::cygnet_raised;
pub use policies::{PolicyKind, PolicyListing, list_policy};
pub use replies::{
    Algorithms, DaemonInfo, Heap, Stats, algorithms, failed, get_authorities, get_conns, get_keys, get_pools,
    get_shared, guards, matched, ok, refused, reloaded, stats, terminated, version,
};
pub use sas::{child_sa, ike_sa, list_sa};
pub use selectors::selector;
pub use webhooks::{cygnet_delivery, cygnet_webhook, cygnet_webhook_tried};
pub use why::{cygnet_step, cygnet_why};
