//! What each command does. Understanding requests and wording answers is `swanctl-compat`'s; waiting is done here.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use ike_model::reload::forecast;
use ike_model::snapshot::PolicySnapshot;
use ike_model::{Command, CommandError, CommandOutcome, ConfiguredChildStatus, Connection, Selector};
use swanctl_compat::load_conn::offload;
use swanctl_compat::render::{self, DaemonInfo, PolicyKind, PolicyListing};
use swanctl_compat::request::{
    INSTALL_NOT_FOUND, PeerFilter, PolicyFilter, SaFilter, Wait, WhyQuestion, child_not_found, each_connection,
    ike_not_found, not_established_in_time, policy_not_found, redirect_answer, unload_conn_error,
};
use swanctl_compat::vici::{Message, Packet};
use swanctl_compat::{Request, RequestError};
use tokio::sync::oneshot;

use super::capture;
use super::control_log::Scope;
use super::levels;
use super::listing;
use super::past;
use super::session::send;
use super::settings;
use super::webhooks;
use crate::clock;
use crate::commands::Done;
use crate::core::Core;
use crate::doctor;
use crate::explain;
use crate::load;
use crate::subscribers::{About, Client, Subscribers};
use crate::why;

/// What a session needs of the daemon.
pub(super) trait Commands: Send + Sync + 'static {
    /// All clients.
    fn subscribers(&self) -> &Arc<Subscribers>;

    /// Carries a command out and makes its answer; streams go to `client` before.
    fn execute(&self, client: &Arc<Client>, name: &str, message: &Message) -> impl Future<Output = Packet> + Send;
}

impl Commands for Core {
    fn subscribers(&self) -> &Arc<Subscribers> {
        &self.subscribers
    }

    async fn execute(&self, client: &Arc<Client>, name: &str, message: &Message) -> Packet {
        if name == LOAD_CONN { load_conns(self, client, message).await } else { one(self, client, name, message).await }
    }
}

const LOAD_CONN: &str = "load-conn";

/// Loads the connections of a message one after another up to the first that cannot be; those before it stay, as charon has it.
async fn load_conns(core: &Core, client: &Arc<Client>, message: &Message) -> Packet {
    for connection in each_connection(message) {
        let answer = one(core, client, LOAD_CONN, &connection).await;
        if !matches!(&answer, Packet::CmdResponse(answer) if answer.is_yes("success")) {
            return answer;
        }
    }
    Packet::CmdResponse(render::ok())
}

async fn one(core: &Core, client: &Arc<Client>, name: &str, message: &Message) -> Packet {
    match Request::parse(name, message).and_then(|request| installable(core, request)) {
        Ok(request) => Packet::CmdResponse(answer(core, client, request).await),
        Err(RequestError::Unknown) => Packet::CmdUnknown,
        Err(RequestError::Refused(refusal)) => {
            if name == LOAD_CONN {
                note_refusal(core, message, &refusal);
            }
            Packet::CmdResponse(refusal)
        }
    }
}

/// Lets a request through unless it loads a connection whose SAs no device could ever carry; what else the devices have to say joins the notes.
fn installable(core: &Core, mut request: Request) -> Result<Request, RequestError> {
    let check = |connection: &Connection| {
        offload::check(connection, &core.store.devices()).map_err(|error| RequestError::Refused(error.reply()))
    };
    if let Request::LoadConn { connection, notes } = &mut request {
        notes.extend(check(connection)?);
        notes.extend(core.store.hidden_shunts(connection));
    } else if let Request::PlanConn { connection } = &request {
        check(connection)?;
    }
    Ok(request)
}

async fn answer(core: &Core, client: &Arc<Client>, request: Request) -> Message {
    match request {
        Request::Version => render::version(&daemon_info()),
        Request::Stats => render::stats(&core.stats().await),
        Request::ReloadSettings => settings::reload(core).await,
        Request::GetAlgorithms => render::algorithms(&core.algorithms()),
        Request::GetCounters(scope) => render::counters(&scope, &core.counters(&scope).await),
        Request::ResetCounters(scope) => {
            core.reset_counters(&scope).await;
            render::ok()
        }
        Request::Redirect { selector, peer } => redirect_answer(matching_peers(core, &selector, &peer).await),
        Request::Initiate { child, ike, wait, log_level } => initiate(core, client, child, ike, wait, log_level).await,
        Request::Terminate { selector, force, wait, log_level } => {
            terminate(core, client, selector, force, wait, log_level).await
        }
        Request::Rekey { selector, reauth } => rekey(core, selector, reauth).await,
        Request::Install { ike, child } => install(core, ike.as_deref(), child, true).await,
        Request::Uninstall { ike, child } => install(core, ike.as_deref(), child, false).await,
        Request::ListSas(filter) => list_sas(core, client, &filter).await,
        Request::ListConns { ike } => list_conns(core, client, ike.as_deref()).await,
        Request::ListPolicies(filter) => list_policies(core, client, &filter).await,
        Request::CygnetStatus { ike } => cygnet_status(core, client, ike.as_deref()).await,
        Request::CygnetBackendSas => cygnet_backend_sas(core, client).await,
        Request::CygnetGuards { drop } => match core.guards(drop).await {
            Ok(unclaimed) => render::guards(unclaimed, None),
            Err(reason) => render::guards(Vec::new(), Some(&reason)),
        },
        Request::CygnetSimulate(order) => match core.simulate(order).await {
            Ok(about) => render::matched(about, None),
            Err(reason) => render::matched(0, Some(&reason)),
        },
        Request::CygnetDoctor => cygnet_doctor(core, client).await,
        Request::CygnetExplain { ike, child } => cygnet_explain(core, client, &ike, child.as_deref()).await,
        Request::CygnetWhy(question) => cygnet_why(core, client, &question).await,
        Request::CygnetHistory { wanted, ike_sas, rows_only } => {
            past::history(core, client, &past::Asked { wanted: &wanted, ike_sas, rows_only }).await
        }
        Request::CygnetEvents(wanted) => past::events(core, client, &wanted).await,
        Request::CygnetWebhooks => webhooks::list(core, client).await,
        Request::CygnetWebhookTest { name } => webhooks::test(core, &name).await,
        Request::CygnetDeliveries(wanted) => webhooks::deliveries(core, client, &wanted).await,
        Request::CygnetRedeliver(which) => webhooks::redeliver(core, &which).await,
        Request::CygnetWebhookEnable { name, enable } => webhooks::enable(core, &name, enable).await,
        Request::CygnetWebhookDrop { name } => webhooks::drop_waiting(core, &name).await,
        Request::CygnetCapture(wanted) => capture::capture(core, client, wanted).await,
        Request::CygnetCaptureStop { id } => capture::stop(core, id),
        Request::CygnetLog(order) => levels::log(core, client, order).await,
        Request::ListNothing => Message::new(),
        Request::GetConns => render::get_conns(&core.store.names(), &core.store.refused_names()),
        Request::GetShared => render::get_shared(core.store.secret_ids().iter().map(String::as_str)),
        Request::GetKeys => render::get_keys([]),
        Request::GetAuthorities => render::get_authorities([]),
        Request::GetPools => render::get_pools(),
        Request::LoadConn { connection, notes } => {
            load::connection(&core.store, *connection, &notes);
            core.store.settled().await;
            render::ok()
        }
        Request::PlanConn { connection } => {
            let old = core.store.connections(Some(&connection.name)).pop();
            plan(core, old.as_deref(), Some(&connection)).await
        }
        Request::PlanUnload { name } => match core.store.connections(Some(&name)).pop() {
            Some(old) => plan(core, Some(&old), None).await,
            None => render::failed(&unload_conn_error(&name)),
        },
        Request::UnloadConn { name } if core.store.unload(std::slice::from_ref(&name)) => {
            core.store.settled().await;
            render::ok()
        }
        Request::UnloadConn { name } => render::failed(&unload_conn_error(&name)),
        Request::LoadShared(secret) => {
            core.store.load_secrets([secret]);
            render::ok()
        }
        Request::IgnoredShared { id, reason } => {
            tracing::warn!("{reason}");
            core.store.note_idle_secrets([id]);
            render::ok()
        }
        Request::UnloadShared { id } => {
            core.store.retain_secrets(|known| known != id);
            render::ok()
        }
        Request::ClearCreds => {
            core.store.retain_secrets(|_| false);
            render::ok()
        }
        Request::Nothing => render::ok(),
    }
}

fn daemon_info() -> DaemonInfo {
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    DaemonInfo {
        daemon: "cygnetd".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        sysname: text(system.sysname()),
        release: text(system.release()),
        machine: text(system.machine()),
    }
}

/// A connection refused over VICI is listed as such, just like one refused at start.
fn note_refusal(core: &Core, message: &Message, refusal: &Message) {
    if let Some((name, content)) = message.sections().next() {
        core.store.refuse(name, Some(content), refusal.get_str("errmsg").unwrap_or("refused"));
    }
}

/// What loading or unloading would do to a connection and its SAs.
async fn plan(core: &Core, old: Option<&Connection>, new: Option<&Connection>) -> Message {
    // With thousands of connections most are unchanged: only where something may happen the SAs are asked for.
    let untouched = old.zip(new).is_some_and(|(old, new)| old == new) || old.is_none();
    let ike_sas = if untouched { Vec::new() } else { core.ike_sas().await };
    match forecast(old, new, &ike_sas) {
        Some(found) => render::forecast(&found),
        None => render::failed("neither loaded nor to be loaded"),
    }
}

/// How a wait ended.
enum Waited {
    Done(Done),
    Timeout(std::time::Duration),
    AtOnce,
}

async fn wait_for(done: oneshot::Receiver<Done>, wait: Wait) -> Waited {
    let stopping = || Err(CommandError::Invalid("the daemon is stopping".into()));
    match wait {
        Wait::No => Waited::AtOnce,
        Wait::Forever => Waited::Done(done.await.unwrap_or_else(|_| stopping())),
        Wait::AtMost(time) => match tokio::time::timeout(time, done).await {
            Ok(done) => Waited::Done(done.unwrap_or_else(|_| stopping())),
            Err(_) => Waited::Timeout(time),
        },
    }
}

async fn initiate(
    core: &Core,
    client: &Arc<Client>,
    child: Option<String>,
    ike: Option<String>,
    wait: Wait,
    log_level: i8,
) -> Message {
    let Some(connection) = core.store.find(ike.as_deref(), child.as_deref()) else {
        let error = match (&ike, &child) {
            (Some(ike), None) => ike_not_found(ike),
            (_, Some(child)) => child_not_found(child),
            (None, None) => "missing configuration name".into(),
        };
        return render::failed(&error);
    };
    let connection = connection.name.clone();
    let about = About::Attempt { connection: connection.clone(), child: child.clone(), ikes: BTreeSet::new() };
    let _scope = Scope::new(&core.subscribers, client, log_level, about);
    let (what, name) = child.as_deref().map_or(("IKE_SA", connection.as_str()), |child| ("CHILD_SA", child));
    let done = core.shared.commands.submit(Command::Initiate { connection: connection.clone(), child: child.clone() });
    match wait_for(done, wait).await {
        Waited::AtOnce => render::ok(),
        Waited::Done(Ok(_)) => {
            // The next packet may come right after our answer.
            core.store.carries().await;
            render::ok()
        }
        Waited::Done(Err(CommandError::Failed(cause))) => {
            render::failed(&format!("establishing {what} '{name}' failed: {cause}"))
        }
        // As charon has it: scripts tell by it that nothing was begun.
        Waited::Done(Err(CommandError::Duplicate(why))) => {
            render::failed(&format!("establishing {what} '{name}' failed: {why}"))
        }
        Waited::Done(Err(error)) => render::failed(&error.to_string()),
        Waited::Timeout(time) => render::failed(&not_established_in_time(what, name, time)),
    }
}

async fn terminate(
    core: &Core,
    client: &Arc<Client>,
    selector: Selector,
    force: bool,
    wait: Wait,
    log_level: i8,
) -> Message {
    const NOTHING: &str = "no matching SAs to terminate found";
    let Matching { count: matches, ikes } = matching(core, &selector).await;
    let _scope = Scope::new(&core.subscribers, client, log_level, About::Known(ikes));
    if matches == 0 {
        return render::terminated(0, 0, Some(NOTHING));
    }
    let done = core.shared.commands.submit(Command::Terminate { selector, force });
    match wait_for(done, wait).await {
        Waited::AtOnce => render::terminated(matches, matches, None),
        Waited::Done(Ok(CommandOutcome { matches: 0, .. }) | Err(CommandError::NotFound(_))) => {
            render::terminated(0, 0, Some(NOTHING))
        }
        Waited::Done(Ok(CommandOutcome { matches, terminated })) => {
            let error = (terminated < matches).then_some("not all matching SAs could be terminated");
            render::terminated(matches, terminated, error)
        }
        Waited::Done(Err(error)) => render::terminated(matches, 0, Some(&format!("terminating SA failed: {error}"))),
        Waited::Timeout(time) => {
            let error = format!("terminating SA failed: not closed after {}ms", time.as_millis());
            render::terminated(matches, 0, Some(&error))
        }
    }
}

/// The SAs that a selector means.
struct Matching {
    /// How many: CHILD SAs when it names one, IKE SAs otherwise.
    count: u32,
    /// Their IKE SAs.
    ikes: BTreeSet<u32>,
}

async fn matching(core: &Core, selector: &Selector) -> Matching {
    let Selector { ike, ike_id, child, child_id } = selector.clone();
    let filter = SaFilter { ike, ike_id, child, child_id };
    let (mut count, mut ikes) = (0_usize, BTreeSet::new());
    for ike in core.ike_sas().await.iter().filter(|ike| filter.accepts_ike(ike)) {
        let found = match filter.names_child() {
            true => ike.children.iter().filter(|child| filter.accepts_child(child)).count(),
            false => 1,
        };
        if found > 0 {
            count += found;
            ikes.insert(ike.unique_id);
        }
    }
    Matching { count: u32::try_from(count).unwrap_or(u32::MAX), ikes }
}

/// How many IKE SAs of such peers are meant.
async fn matching_peers(core: &Core, selector: &Selector, peer: &PeerFilter) -> u32 {
    let filter = SaFilter { ike: selector.ike.clone(), ike_id: selector.ike_id, ..SaFilter::default() };
    let ike_sas = core.ike_sas().await;
    let count = ike_sas.iter().filter(|ike| filter.accepts_ike(ike) && peer.accepts(ike)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

async fn rekey(core: &Core, selector: Selector, reauth: bool) -> Message {
    const NOTHING: &str = "no matching SAs to rekey found";
    // Only an IKE SA can be authenticated afresh; a CHILD SA that is named is rekeyed.
    let afresh = reauth && selector.child.is_none() && selector.child_id.is_none();
    let command = if afresh { Command::Reauthenticate { selector } } else { Command::Rekey { selector } };
    match wait_for(core.shared.commands.submit(command), Wait::Forever).await {
        Waited::Done(Ok(CommandOutcome { matches: 0, .. }) | Err(CommandError::NotFound(_))) => {
            render::matched(0, Some(NOTHING))
        }
        Waited::Done(Ok(CommandOutcome { matches, .. })) => render::matched(matches, None),
        Waited::Done(Err(error)) => render::matched(0, Some(&error.to_string())),
        Waited::Timeout(_) | Waited::AtOnce => render::matched(0, None),
    }
}

async fn install(core: &Core, ike: Option<&str>, child: String, install: bool) -> Message {
    let Some(connection) = core.store.find(ike, Some(&child)) else {
        return render::failed(&if install { INSTALL_NOT_FOUND.to_owned() } else { policy_not_found(&child) });
    };
    let (connection, name) = (connection.name.clone(), child.clone());
    let command =
        if install { Command::Install { connection, child } } else { Command::Uninstall { connection, child } };
    match core.shared.commands.submit(command).await {
        Ok(Ok(_)) => {
            // What is listed next shows it.
            core.store.carries().await;
            render::ok()
        }
        Ok(Err(CommandError::NotFound(_))) if !install => render::failed(&policy_not_found(&name)),
        Ok(Err(error)) => render::failed(&error.to_string()),
        Err(_) => render::failed("the daemon is stopping"),
    }
}

/// Sends one element of a stream, if the client registered for it; `false` when the client has gone.
async fn stream(client: &Client, event: &str, message: Message) -> bool {
    let packet = Packet::Event(event.to_owned(), message);
    for _ in 0..client.registrations(event) {
        if !send(client, &packet).await {
            return false;
        }
    }
    true
}

/// Elements of a stream that are made before others get their turn.
const BATCH: usize = 16;

/// Sends a whole stream, making each element only when it is its turn; the answer after it is empty.
pub(super) async fn stream_all(client: &Client, event: &str, messages: impl IntoIterator<Item = Message>) -> Message {
    if client.registrations(event) == 0 {
        return Message::new();
    }
    for (number, message) in messages.into_iter().enumerate() {
        if number % BATCH == BATCH - 1 {
            tokio::task::yield_now().await;
        }
        if !stream(client, event, message).await {
            break;
        }
    }
    Message::new()
}

async fn list_sas(core: &Core, client: &Client, filter: &SaFilter) -> Message {
    listing::stream(client, "list-sa", listing::KEPT, || core.ike_sas(), |ike| render::list_sa(ike, filter)).await
}

async fn list_conns(core: &Core, client: &Client, name: Option<&str>) -> Message {
    let connections = core.store.connections(name).into_iter();
    stream_all(client, "list-conn", connections.map(|connection| render::list_conn(&connection))).await
}

async fn list_policies(core: &Core, client: &Client, filter: &PolicyFilter) -> Message {
    let show = |(_, policy): &(usize, PolicySnapshot)| list_policy(core, policy, filter);
    listing::stream(client, "list-policy", listing::KEPT, || core.policies(), show).await
}

fn list_policy(core: &Core, policy: &PolicySnapshot, filter: &PolicyFilter) -> Option<Message> {
    let connection = core.store.find(Some(&policy.connection), Some(&policy.child))?;
    let kind = match policy.mode {
        ike_model::ChildMode::Pass => PolicyKind::Pass,
        ike_model::ChildMode::Drop => PolicyKind::Drop,
        ike_model::ChildMode::Tunnel | ike_model::ChildMode::Transport => PolicyKind::Trap,
    };
    let child = connection.child(&policy.child)?;
    let listing = PolicyListing { connection: &policy.connection, child, kind, reqid: None };
    filter.accepts(&listing).then(|| render::list_policy(&listing))
}

async fn cygnet_status(core: &Core, client: &Client, name: Option<&str>) -> Message {
    let look = || core.configured(name);
    let show = |child: &ConfiguredChildStatus| Some(render::cygnet_child(child, clock::wall().as_secs()));
    listing::stream(client, "cygnet-child", listing::KEPT, look, show).await
}

async fn cygnet_backend_sas(core: &Core, client: &Client) -> Message {
    match core.backend_sas().await {
        Ok(sas) => {
            let messages: Vec<_> = sas.iter().map(render::cygnet_backend_sa).collect();
            stream_all(client, "cygnet-backend-sa", messages).await
        }
        Err(reason) => render::failed(&format!("the backend does not say what it holds: {reason}")),
    }
}

async fn cygnet_why(core: &Core, client: &Client, question: &WhyQuestion) -> Message {
    match why::why(core, question).await {
        Ok(report) => {
            stream_all(client, "cygnet-step", report.steps.iter().map(render::cygnet_step)).await;
            render::cygnet_why(&report)
        }
        Err(reason) => render::failed(&reason),
    }
}

async fn cygnet_explain(core: &Core, client: &Client, ike: &str, child: Option<&str>) -> Message {
    let Some(connection) = core.store.connections(Some(ike)).pop() else {
        return render::failed(&ike_not_found(ike));
    };
    if let Some(child) = child.filter(|child| connection.child(child).is_none()) {
        return render::failed(&child_not_found(child));
    }
    match explain::explain(core, &connection, child).await {
        Ok(blocks) => stream_all(client, "cygnet-block", blocks.iter().map(render::cygnet_block)).await,
        Err(reason) => render::failed(&reason),
    }
}

async fn cygnet_doctor(core: &Core, client: &Client) -> Message {
    match doctor::doctor(core).await {
        Ok((devices, checks)) => {
            let rungs = devices
                .devices
                .iter()
                .flat_map(|device| device.rungs.iter().map(move |rung| render::cygnet_device(device, rung)));
            stream_all(client, "cygnet-device", rungs.collect::<Vec<_>>()).await;
            stream_all(client, "cygnet-check", checks.iter().map(render::cygnet_check)).await;
            render::cygnet_doctor(&checks)
        }
        Err(reason) => render::failed(&reason),
    }
}
