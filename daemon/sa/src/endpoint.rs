//! One shard: all its IKE SAs, half-open ones included, and the way of each input to the one it belongs to.

use std::collections::VecDeque;

use ike_model::snapshot::PolicySnapshot;
use ike_model::{ConfigSnapshot, ConfiguredChildStatus, IkeSaSnapshot};
use ipsec::{Instant, Shard};

use crate::io::{Context, Input, Output};

/// How many SAs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// IKE SAs in any state.
    pub ike_sas: usize,
    /// IKE SAs that are not yet authenticated and that a peer initiated.
    pub half_open: usize,
    /// IKE SAs that are authenticated.
    pub established: usize,
    /// CHILD SAs.
    pub children: usize,
}

/// One shard.
///
/// | kind | methods |
/// |---|---|
/// | input | [`handle`](Self::handle) |
/// | output | [`poll_output`](Self::poll_output), [`poll_deadline`](Self::poll_deadline) |
/// | state | [`ike_sas`](Self::ike_sas), [`configured`](Self::configured), [`policies`](Self::policies), [`counts`](Self::counts) |
pub struct Endpoint {
    shard: Shard,
    shards: u8,
    outputs: VecDeque<Output>,
}

impl Endpoint {
    /// Shard number `shard` of `shards`.
    pub fn new(shard: Shard, shards: u8) -> Self {
        Self { shard, shards, outputs: VecDeque::new() }
    }

    /// Advances by one input. Drain [`Self::poll_output`] before the next call. Whatever a peer sends ends in outputs and log lines, never
    /// in a panic.
    pub fn handle(&mut self, context: &Context<'_>, input: Input<'_>) {
        let _ = (context, input, self.shard, self.shards);
    }

    /// What is to be done next; `None` when all is handed out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Deadline`] at the latest.
    pub fn poll_deadline(&self) -> Option<Instant> {
        None
    }

    /// All IKE SAs with their CHILD SAs, by unique id. Traffic counters are left zero: the backend has them.
    pub fn ike_sas(&self, now: Instant) -> Vec<IkeSaSnapshot> {
        let _ = now;
        Vec::new()
    }

    /// One status for each configured child whose connection has its home here.
    pub fn configured(&self, config: &ConfigSnapshot, now: Instant) -> Vec<ConfiguredChildStatus> {
        let _ = (config, now);
        Vec::new()
    }

    /// Traps and shunts installed by this shard.
    pub fn policies(&self) -> Vec<PolicySnapshot> {
        Vec::new()
    }

    /// How many SAs there are.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
}
