//! Measurements that take a lab.

pub(crate) mod acquire;
pub(crate) mod handshake;
pub(crate) mod history;
pub(crate) mod load_conns;
pub(crate) mod webhook;
