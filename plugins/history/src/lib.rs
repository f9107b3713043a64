//! The durable past: events go to a [`spool`] before what they describe is released.

pub mod spool;

#[cfg(test)]
mod scratch;
