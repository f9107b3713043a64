//! What is configured: connections and secrets as loaded, and those that were refused.
//!
//! Every change is published to the shards as a whole new snapshot, together with the names of what changed; a refused connection stays listed
//! with its reason and leaves what ran under its name alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ike_model::config::FailClosed;
use ike_model::reload::{Change, compare};
use ike_model::snapshot::ConfiguredState;
use ike_model::{
    ByName, Cause, CauseKind, Child, ChildMode, Command, ConfigSnapshot, ConfiguredChildStatus, Connection, EventBody,
    IkeSettings, SharedSecret,
};
use ipsec::{DeviceTable, Request};
use swanctl_compat::load_conn::Finding;
use swanctl_compat::load_conn::offload::{self, Devices};
use swanctl_compat::vici::Message;
use tokio::sync::oneshot;

use crate::commands::Done;
use crate::shard::Shared;

/// How long shards and backend may take to take up a change before whoever made it is answered all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Configuration as loaded.
pub(crate) struct Store {
    shared: Arc<Shared>,
    settings: Mutex<IkeSettings>,
    /// Devices that may appear.
    expected: Devices,
    loaded: Mutex<Loaded>,
    /// Answers of the shards to changes that were published and that nobody has waited for.
    unsettled: Mutex<Vec<oneshot::Receiver<Done>>>,
}

#[derive(Default)]
struct Loaded {
    connections: ByName<Arc<Connection>>,
    /// When each connection came, by name: they are listed in the order in which they were loaded.
    places: BTreeMap<String, u64>,
    next_place: u64,
    secrets: Vec<Arc<SharedSecret>>,
    /// Ids of secrets that nothing here uses, such as those of EAP: they are listed and unloaded like others.
    idle_secrets: Vec<String>,
    refused: BTreeMap<String, Refused>,
}

impl Loaded {
    fn insert(&mut self, connection: Connection) {
        let name = connection.name.clone();
        let next = self.next_place;
        self.next_place += 1;
        self.places.entry(name.clone()).or_insert(next);
        self.connections.insert(name, Arc::new(connection));
    }

    fn remove(&mut self, name: &str) -> bool {
        self.places.remove(name);
        self.connections.remove(name).is_some()
    }

    fn place(&self, connection: &Connection) -> u64 {
        self.places.get(&connection.name).copied().unwrap_or(u64::MAX)
    }

    /// All connections in the order of loading.
    fn in_order(&self) -> Vec<&Arc<Connection>> {
        let mut all: Vec<_> = self.connections.values().collect();
        all.sort_by_cached_key(|connection| self.place(connection));
        all
    }
}

/// A connection that cannot be used.
struct Refused {
    children: Vec<String>,
    reason: String,
}

impl Store {
    /// Nothing loaded yet.
    pub(crate) fn new(shared: Arc<Shared>, settings: IkeSettings, expected: Devices) -> Self {
        let settings = Mutex::new(settings);
        let store = Self { shared, settings, expected, loaded: Mutex::default(), unsettled: Mutex::default() };
        store.publish(&store.lock());
        store
    }

    /// What children are held against: the devices as they are now, and those that may still appear.
    pub(crate) fn devices(&self) -> Devices {
        let mut table = DeviceTable::clone(&self.shared.backend.devices());
        let known: Vec<_> = table.devices.iter().map(|device| device.name.clone()).collect();
        let further = self.expected.table.devices.iter().filter(|device| !known.contains(&device.name));
        table.devices.extend(further.cloned());
        Devices { table: table.into(), ..self.expected.clone() }
    }

    /// What is to be said of shunts in software that devices do not let be reached, of a connection that is to be loaded.
    pub(crate) fn hidden_shunts(&self, connection: &Connection) -> Vec<Finding> {
        // Most have none, and there may be thousands of others.
        if !connection.children.iter().any(|child| matches!(child.mode, ChildMode::Pass | ChildMode::Drop)) {
            return Vec::new();
        }
        let others = self.connections(None);
        let others = others.iter().filter(|other| other.name != connection.name).map(|other| &**other);
        let all: Vec<_> = others.chain([connection]).collect();
        let found = offload::hidden_shunts(&all, &self.devices()).into_iter();
        found.filter(|(name, _)| *name == connection.name).map(|(_, finding)| finding).collect()
    }

    /// Adds connections, each in the place of the one with its name; one that says the same as before changes nothing.
    pub(crate) fn load(&self, connections: impl IntoIterator<Item = Connection>) {
        let mut changed = Vec::new();
        let mut waits = false;
        let mut loaded = self.lock();
        for connection in connections {
            let name = connection.name.clone();
            loaded.refused.remove(&name);
            match loaded.connections.get(&name).map(|old| compare(old, &connection)) {
                Some(Change::Unchanged) => continue,
                Some(change) => tracing::debug!(conn = name, ?change, "connection changed"),
                None => {}
            }
            // What takes another's place may have to take out what that one had installed.
            waits |= loaded.connections.contains_key(&name) || self.installs(&connection);
            loaded.insert(connection);
            changed.push(name);
        }
        if changed.is_empty() {
            return;
        }
        // What comes of it is told after it: a shard may act on it, and a peer meet it, as soon as it is published.
        let told = changed.iter().map(|name| EventBody::ConfigLoaded { connection: name.clone() });
        self.shared.events.publish_all(told);
        self.publish(&loaded);
        self.tell_shards(changed, Vec::new(), waits);
    }

    /// Whether loading a connection has something installed, or unloading it has something taken out: with thousands that do not, nobody waits for
    /// each of them.
    fn installs(&self, connection: &Connection) -> bool {
        let acts = |child: &Arc<Child>| child.start_action.trap || child.start_action.start;
        let fail_closed = self.settings.lock().unwrap_or_else(PoisonError::into_inner).fail_closed;
        fail_closed == FailClosed::Always || connection.children.iter().any(acts)
    }

    /// Notes that a connection was refused; `content` is its section as far as there was one.
    pub(crate) fn refuse(&self, name: &str, content: Option<&Message>, reason: &str) {
        let children = content.and_then(|content| content.get_section("children"));
        let children =
            children.map(|all| all.sections().map(|(child, _)| child.to_owned()).collect()).unwrap_or_default();
        self.lock().refused.insert(name.to_owned(), Refused { children, reason: reason.to_owned() });
        let cause = Cause::new(CauseKind::NoConfiguration, reason);
        self.shared.events.publish(EventBody::ConfigRejected { connection: name.to_owned(), cause });
    }

    /// Takes connections out; `false` when there is none of these names.
    pub(crate) fn unload(&self, names: &[String]) -> bool {
        let mut loaded = self.lock();
        let mut refused = false;
        let mut removed = Vec::new();
        let mut waits = false;
        for name in names {
            refused |= loaded.refused.remove(name).is_some();
            waits |= loaded.connections.get(name).is_some_and(|connection| self.installs(connection));
            if loaded.remove(name) {
                tracing::info!(conn = name, "connection {name} unloaded");
                removed.push(name.clone());
            }
        }
        if removed.is_empty() {
            return refused;
        }
        self.publish(&loaded);
        self.tell_shards(Vec::new(), removed, waits);
        true
    }

    /// Forgets the refused connections that `keep` does not want to see any more.
    pub(crate) fn retain_refused(&self, keep: impl Fn(&str) -> bool) {
        self.lock().refused.retain(|name, _| keep(name));
    }

    /// Adds secrets, each in the place of the one with its id where it has one.
    pub(crate) fn load_secrets(&self, secrets: impl IntoIterator<Item = SharedSecret>) {
        let mut loaded = self.lock();
        let mut changed = false;
        for secret in secrets {
            loaded.idle_secrets.retain(|id| *id != secret.id);
            let named = !secret.id.is_empty();
            // Of thousands that come one by one none is copied to find the others.
            match loaded.secrets.iter_mut().find(|known| named && known.id == secret.id) {
                Some(known) if **known == secret => continue,
                Some(known) => *known = Arc::new(secret),
                None => loaded.secrets.push(Arc::new(secret)),
            }
            changed = true;
        }
        if changed {
            self.publish(&loaded);
        }
    }

    /// Notes secrets that nothing here uses, each in the place of one with its id.
    pub(crate) fn note_idle_secrets(&self, ids: impl IntoIterator<Item = String>) {
        let mut loaded = self.lock();
        let mut changed = false;
        for id in ids.into_iter().filter(|id| !id.is_empty()) {
            let before = loaded.secrets.len();
            loaded.secrets.retain(|secret| secret.id != id);
            changed |= loaded.secrets.len() != before;
            if !loaded.idle_secrets.contains(&id) {
                loaded.idle_secrets.push(id);
            }
        }
        if changed {
            self.publish(&loaded);
        }
    }

    /// Keeps the secrets that `keep` says.
    pub(crate) fn retain_secrets(&self, keep: impl Fn(&str) -> bool) {
        let mut loaded = self.lock();
        loaded.secrets.retain(|secret| keep(&secret.id));
        loaded.idle_secrets.retain(|id| keep(id));
        self.publish(&loaded);
    }

    /// Names of all connections.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().in_order().into_iter().map(|connection| connection.name.clone()).collect()
    }

    /// Ids of all secrets that have one.
    pub(crate) fn secret_ids(&self) -> Vec<String> {
        let loaded = self.lock();
        let used = loaded.secrets.iter().map(|secret| secret.id.clone()).filter(|id| !id.is_empty());
        used.chain(loaded.idle_secrets.iter().cloned()).collect()
    }

    /// All connections, or the one called `name`.
    pub(crate) fn connections(&self, name: Option<&str>) -> Vec<Arc<Connection>> {
        let loaded = self.lock();
        match name {
            Some(name) => loaded.connections.get(name).cloned().into_iter().collect(),
            None => loaded.in_order().into_iter().cloned().collect(),
        }
    }

    /// The connection called `ike`, or the first with this child.
    pub(crate) fn find(&self, ike: Option<&str>, child: Option<&str>) -> Option<Arc<Connection>> {
        let loaded = self.lock();
        let fits = |connection: &&Arc<Connection>| {
            ike.is_none_or(|name| name == connection.name)
                && child.is_none_or(|child| connection.child(child).is_some())
        };
        match ike {
            Some(name) => loaded.connections.get(name).filter(fits).cloned(),
            None => loaded.connections.values().filter(fits).min_by_key(|connection| loaded.place(connection)).cloned(),
        }
    }

    /// Children of refused connections, each with the reason. What runs under a refused name is listed by its own shard.
    pub(crate) fn refused(&self, name: Option<&str>) -> Vec<ConfiguredChildStatus> {
        let loaded = self.lock();
        let wanted = loaded.refused.iter().filter(|(connection, _)| name.is_none_or(|name| name == *connection));
        let rows = wanted.flat_map(|(connection, refused)| {
            let unnamed = refused.children.is_empty().then(String::new);
            refused.children.iter().cloned().chain(unnamed).map(|child| ConfiguredChildStatus {
                connection: connection.clone(),
                child,
                state: ConfiguredState::Refused(refused.reason.clone()),
                offload: None,
                failures: 0,
                last_cause: None,
            })
        });
        rows.collect()
    }

    /// Names of refused connections.
    pub(crate) fn refused_names(&self) -> Vec<String> {
        self.lock().refused.keys().cloned().collect()
    }

    fn publish(&self, loaded: &Loaded) {
        let snapshot = ConfigSnapshot {
            connections: loaded.connections.clone(),
            secrets: loaded.secrets.clone(),
            settings: self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.shared.config.store(Arc::new(snapshot));
    }

    /// Changes settings of the core that it looks up whenever it needs them.
    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut IkeSettings)) {
        let loaded = self.lock();
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
        self.publish(&loaded);
    }

    /// Waits until the shards have taken up every change so far that installs or takes out something, and the backend has what they asked of it:
    /// traps and guards then stand. Start actions go on by themselves, they take as long as the peer takes.
    pub(crate) async fn settled(&self) {
        let unsettled = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        if unsettled.is_empty() {
            return;
        }
        let settle = async {
            for answer in unsettled {
                // The core has logged what failed; a shard that stops does not answer.
                let _ = answer.await;
            }
            self.backend_done().await;
        };
        if tokio::time::timeout(SETTLE_TIMEOUT, settle).await.is_err() {
            tracing::warn!("the configuration is loaded, but not all of it is installed yet");
        }
    }

    /// Waits until the backend has done all that it was asked so far: what was told to be up carries traffic then.
    pub(crate) async fn carries(&self) {
        if tokio::time::timeout(SETTLE_TIMEOUT, self.backend_done()).await.is_err() {
            tracing::warn!("the SAs are agreed on, but not all of them carry traffic yet");
        }
    }

    /// The backend works in order: with this answered, all before is done.
    async fn backend_done(&self) {
        let (tag, answer) = self.shared.router.query();
        self.shared.backend.submit(tag, Request::Apply(Vec::new()));
        // A backend that stops does not answer.
        let _ = answer.await;
    }

    fn tell_shards(&self, changed: Vec<String>, removed: Vec<String>, waits: bool) {
        let answer = self.shared.commands.submit(Command::Reload { changed, removed });
        if waits {
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
