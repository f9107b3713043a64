//! Measurements that take a lab.

pub(crate) mod acquire;
pub(crate) mod history;
pub(crate) mod webhook;
