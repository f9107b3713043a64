//! What the daemon shows of itself over HTTP: metrics, health and the status page.
//!
//! The server has a thread and a runtime of its own; IKE never waits for it. What is shown comes from two places: the daemon, asked through the
//! [`Daemon`] trait at most once a second however many ask, and the events, which pass through a [`Feed`]. Requests are bounded in size, time and
//! number. Nothing can be changed without the token.
//!
//! Reading order: [`view`], [`Feed`], [`Server`], [`page`].

mod address;
mod feed;
pub mod guard;
mod health;
mod ledger;
mod metrics;
pub mod page;
mod patient;
mod server;
mod site;
pub mod view;

#[cfg(test)]
mod fixture;

pub use address::{BindError, Bound, Listen};
pub use feed::{Feed, Missed, News, Next, Subscription};
pub use server::Server;
pub use site::{Options, Site};
pub use view::{Condition, Daemon, Standing, View};
