//! swanctl.conf, VICI, and everything between them and the daemon's model, without a socket or a clock.
//!
//! # For the daemon
//!
//! A VICI session cuts its stream with [`vici::frame::Deframer`], reads a [`vici::Packet`], and for a command calls [`Request::parse`]:
//!
//! - `Ok(request)`: carry it out, answer with a function of [`render`] (each variant of [`Request`] names its own);
//! - `Err(RequestError::Unknown)`: answer [`vici::Packet::CmdUnknown`];
//! - `Err(RequestError::Refused(message))`: answer with that message.
//!
//! Streaming commands send [`vici::Packet::Event`]s to the requesting client, if it registered for them ([`request::EVENTS`]), before the answer.
//! What happens in the core becomes VICI events through [`render::events`], log lines through [`render::log`] and [`render::control_log`].
//! [`ike_model::reload::compare`] tells what loading a connection again means for its SAs. At start, and for `--check`, the daemon makes the same
//! [`plan::Plan`] as `swanctl --load-all` and carries it out itself.
//!
//! # From file to connection
//!
//! [`settings`] reads files into a tree with positions; [`plan`] turns the tree into the VICI messages that swanctl would send, each with the
//! positions of its parts; [`load_conn`] holds a message against the one key table ([`keys`]) and builds the typed connection. The client runs the
//! same [`load_conn`] before it sends anything, which is how errors get a file, a line and a column.
#![forbid(unsafe_code)]

pub mod address;
pub mod capture;
pub mod certificate;
mod der;
pub mod explain;
pub mod identity;
pub mod keys;
pub mod load_conn;
pub mod names;
pub mod pcapng;
pub mod plan;
pub mod private_key;
pub mod proposal;
pub mod render;
pub mod request;
pub mod secret;
pub mod settings;
pub mod tags;
pub mod text;
pub mod units;
pub mod vici;
pub mod watch;

pub use request::{Request, RequestError};
