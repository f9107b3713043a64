//! One line for each tunnel: a configured child and the CHILD SAs that it has now.

use std::collections::BTreeMap;
use std::sync::Arc;

use ike_model::snapshot::{Carried, ConfiguredState};
use ike_model::{ChildSaSnapshot, ChildSaState, ConfiguredChildStatus, IkeSaSnapshot};
use serde::Serialize;

use crate::view::View;

/// Connection and child.
pub(super) type Key = (String, String);

/// Received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Both<T> {
    #[serde(rename = "in")]
    pub(super) inbound: T,
    #[serde(rename = "out")]
    pub(super) outbound: T,
}

/// What a tunnel is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Not usable as configured.
    Refused,
    /// Waits until the next attempt.
    Retry,
    /// Being established.
    Connecting,
    /// Neither up nor asked to be.
    Down,
    /// Waits for traffic.
    Trapped,
    /// A pass or drop shunt is installed.
    Shunt,
    /// A CHILD SA is installed.
    Up,
}

impl State {
    /// In the order of trouble.
    pub(super) const ALL: [Self; 7] =
        [Self::Refused, Self::Retry, Self::Connecting, Self::Down, Self::Trapped, Self::Shunt, Self::Up];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Retry => "retry",
            Self::Connecting => "connecting",
            Self::Down => "down",
            Self::Trapped => "trapped",
            Self::Shunt => "shunt",
            Self::Up => "up",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    fn of(state: &ConfiguredState) -> Self {
        match state {
            ConfiguredState::Up => Self::Up,
            ConfiguredState::Connecting => Self::Connecting,
            ConfiguredState::Trapped => Self::Trapped,
            ConfiguredState::Shunt => Self::Shunt,
            ConfiguredState::RetryIn(_) => Self::Retry,
            ConfiguredState::Down => Self::Down,
            ConfiguredState::Refused(_) => Self::Refused,
        }
    }
}

/// All tunnels of one view.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) view: Arc<View>,
    /// By connection and child.
    pub(super) lines: Vec<Line>,
}

/// One tunnel: places in the view.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) key: Key,
    pub(super) state: State,
    configured: Option<usize>,
    /// The newest CHILD SA that carries traffic under each IKE SA.
    sas: Vec<(usize, usize)>,
}

impl Lines {
    pub(super) fn of(view: Arc<View>) -> Self {
        let mut lines: BTreeMap<Key, Line> = BTreeMap::new();
        for (at, one) in view.configured.iter().enumerate() {
            let key = (one.connection.clone(), one.child.clone());
            let line = Line { key: key.clone(), state: State::of(&one.state), configured: Some(at), sas: Vec::new() };
            lines.insert(key, line);
        }
        for (ike_at, ike) in view.ike_sas.iter().enumerate() {
            for (child_at, child) in ike.children.iter().enumerate().filter(|(_, child)| carries(child)) {
                let key = (ike.connection.to_string(), child.name.to_string());
                // What was unloaded while it was up goes on until it ends.
                let unloaded = || Line { key: key.clone(), state: State::Up, configured: None, sas: Vec::new() };
                lines.entry(key.clone()).or_insert_with(unloaded).take(&view, ike_at, child_at);
            }
        }
        Self { lines: lines.into_values().collect(), view }
    }

    pub(super) fn status(&self, line: &Line) -> Option<&ConfiguredChildStatus> {
        self.view.configured.get(line.configured?)
    }

    /// Its CHILD SAs, one for each IKE SA.
    pub(super) fn sas<'a>(
        &'a self,
        line: &'a Line,
    ) -> impl Iterator<Item = (&'a IkeSaSnapshot, &'a ChildSaSnapshot)> + 'a {
        line.sas.iter().filter_map(|(ike, child)| {
            let ike = self.view.ike_sas.get(*ike)?;
            Some((ike, ike.children.get(*child)?))
        })
    }

    /// The newest of them.
    pub(super) fn newest(&self, line: &Line) -> Option<(&IkeSaSnapshot, &ChildSaSnapshot)> {
        line.sas
            .iter()
            .filter_map(|(ike, child)| {
                let ike = self.view.ike_sas.get(*ike)?;
                Some((ike, ike.children.get(*child)?))
            })
            .max_by_key(|(_, child)| child.unique_id)
    }

    /// What all generations have carried under the present IKE SAs; nothing while there is no CHILD SA.
    pub(super) fn total(&self, line: &Line) -> Option<Both<Carried>> {
        let mut sum: Option<Both<Carried>> = None;
        for (_, child) in self.sas(line) {
            let sum = sum.get_or_insert_default();
            add(&mut sum.inbound, child.total_in);
            add(&mut sum.outbound, child.total_out);
        }
        sum
    }
}

impl Line {
    fn take(&mut self, view: &View, ike_at: usize, child_at: usize) {
        let number = |(ike, child): (usize, usize)| {
            view.ike_sas.get(ike).and_then(|ike| ike.children.get(child)).map(|child| child.unique_id)
        };
        match self.sas.iter_mut().find(|(ike, _)| *ike == ike_at) {
            Some(held) if number(*held) < number((ike_at, child_at)) => *held = (ike_at, child_at),
            Some(_) => {}
            None => self.sas.push((ike_at, child_at)),
        }
    }
}

fn add(sum: &mut Carried, more: Carried) {
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.packets = sum.packets.saturating_add(more.packets);
}

/// It is there to be used: neither being made nor on its way out.
fn carries(child: &ChildSaSnapshot) -> bool {
    match child.state {
        ChildSaState::Installed | ChildSaState::Rekeying => true,
        ChildSaState::Created
        | ChildSaState::Installing
        | ChildSaState::Rekeyed
        | ChildSaState::Deleting
        | ChildSaState::Deleted => false,
    }
}
