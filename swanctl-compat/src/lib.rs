//! swanctl.conf, VICI, and everything between them and the daemon's model, without a socket or a clock.
#![forbid(unsafe_code)]

pub mod settings;
pub mod units;
pub mod vici;
