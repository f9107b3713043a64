//! The life of a tunnel, step by step: the lab's, under the name by which the tests know it.

pub(crate) use lab::life::*;
