//! Exchanges that cross, come late, get lost or are refused: every scenario as rows of tables, run under the oracle.
//!
//! [`coverage`] lists the scenarios and holds the list against the rows; `COLLISIONS.md` is made from both.

mod child_and_ike;
mod close_child;
mod coverage;
mod rekey_child;
mod rekey_ike;
mod row;
mod run;
mod seen;
