//! VICI commands as the daemon understands them.
//!
//! [`Request::parse`] turns a command's name and message into typed values, or into the answer that says why not. Carrying them out, and all
//! waiting, is left to the daemon; the answers are made by [`crate::render`].

mod absent;
mod capture;
mod filter;
mod history;
mod log;
mod server;
mod shared;
pub mod simulate;
mod webhook;
mod why;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ike_model::history::{Redelivery, Wanted, WantedDeliveries};
use ike_model::{Connection, CounterScope, Selector, SharedSecret};

pub use absent::redirect as redirect_answer;
pub use capture::WantedCapture;
pub use filter::{PeerFilter, PolicyFilter, SaFilter};
pub use log::{Detail, GROUPS, LONGEST, LogOrder, Part, USUAL};
pub use server::{changes, each_connection, unreadable};
pub use shared::SharedError;
pub use why::WhyQuestion;

use crate::load_conn::{self, Finding};
use crate::render;
use crate::units;
use crate::vici::{Element, Message, Value};

/// The event that tells a client how many of its events were lost because it did not read them.
pub const LOST: &str = "cygnet-lost";

/// Every event that a client may register for.
pub const EVENTS: [&str; 31] = [
    "log",
    "control-log",
    "list-sa",
    "list-policy",
    "list-conn",
    "list-cert",
    "list-authority",
    "ike-updown",
    "ike-rekey",
    "ike-update",
    "child-updown",
    "child-rekey",
    "alert",
    "cygnet-child",
    "cygnet-backend-sa",
    "cygnet-step",
    "cygnet-block",
    "cygnet-device",
    "cygnet-check",
    "cygnet-generation",
    "cygnet-total",
    "cygnet-past-ike",
    "cygnet-event",
    "cygnet-past-event",
    "cygnet-webhook",
    "cygnet-delivery",
    "cygnet-capture",
    "cygnet-packets",
    "cygnet-keys",
    "cygnet-raised",
    LOST,
];

/// How long a client wants to wait for an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is there.
    Forever,
    /// Answer at once.
    No,
    /// At most this long; then the command fails but what it started goes on.
    AtMost(Duration),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `version`; answer with [`render::version`].
    Version,
    /// `stats`; answer with [`render::stats`].
    Stats,
    /// `reload-settings`: read the daemon's own configuration again.
    ReloadSettings,
    /// `initiate`; streams `control-log`.
    Initiate {
        /// Child; `None` = the IKE SA alone.
        child: Option<String>,
        /// Connection; `None` = the first that has the child.
        ike: Option<String>,
        /// How long to wait.
        wait: Wait,
        /// Most detailed level of log wanted: -1 (none) to 4.
        log_level: i8,
    },
    /// `terminate`; streams `control-log`; answer with [`render::terminated`].
    Terminate {
        /// Which SAs.
        selector: Selector,
        /// Do not wait for the peer.
        force: bool,
        /// How long to wait.
        wait: Wait,
        /// Most detailed level of log wanted: -1 (none) to 4.
        log_level: i8,
    },
    /// `rekey`; answer with [`render::matched`].
    Rekey {
        /// Which SAs.
        selector: Selector,
        /// Authenticate anew instead of rekeying.
        reauth: bool,
    },
    /// `install`: put in the trap or shunt of a child.
    Install {
        /// Connection; `None` = the first that has the child.
        ike: Option<String>,
        /// Child.
        child: String,
    },
    /// `uninstall`: take it out.
    Uninstall {
        /// Connection; `None` = the first that has the child.
        ike: Option<String>,
        /// Child.
        child: String,
    },
    /// `list-sas`; streams `list-sa` ([`render::list_sa`]), then an empty answer.
    ListSas(SaFilter),
    /// `list-conns`; streams `list-conn` ([`render::list_conn`]), then an empty answer.
    ListConns {
        /// Only this connection.
        ike: Option<String>,
    },
    /// `list-policies`; streams `list-policy` ([`render::list_policy`]), then an empty answer.
    ListPolicies(PolicyFilter),
    /// `list-certs` and `list-authorities` while there are none: an empty answer.
    ListNothing,
    /// `get-conns`; answer with [`render::get_conns`].
    GetConns,
    /// `get-shared`; answer with [`render::get_shared`].
    GetShared,
    /// `get-keys`; answer with [`render::get_keys`].
    GetKeys,
    /// `get-authorities`; answer with [`render::get_authorities`].
    GetAuthorities,
    /// `get-pools`; answer with [`render::get_pools`].
    GetPools,
    /// `load-conn`; compare with [`ike_model::reload::compare`], then [`render::ok`].
    LoadConn {
        /// The connection.
        connection: Box<Connection>,
        /// Keys that were accepted without effect, and other doubts; for the log.
        notes: Vec<Finding>,
    },
    /// `cygnet-plan-conn`: what `load-conn` with the same message would do, without doing it; answer with [`render::forecast`].
    PlanConn {
        /// The connection.
        connection: Box<Connection>,
    },
    /// `cygnet-plan-unload`: what `unload-conn` would do; answer with [`render::forecast`], when it is not there: [`unload_conn_error`].
    PlanUnload {
        /// Its name.
        name: String,
    },
    /// `unload-conn`; when it is not there: [`unload_conn_error`].
    UnloadConn {
        /// Its name.
        name: String,
    },
    /// `load-shared` of a pre-shared key; replaces the secret of the same non-empty id.
    LoadShared(SharedSecret),
    /// `load-shared` of a type that nothing here uses; succeeds without effect, with the reason for the log.
    IgnoredShared {
        /// Unique id, by which `get-shared` lists it all the same; may be empty.
        id: String,
        /// Why it has no effect.
        reason: &'static str,
    },
    /// `unload-shared`; succeeds whether it is there or not.
    UnloadShared {
        /// Unique id.
        id: String,
    },
    /// `clear-creds`: drop all shared secrets that came over VICI.
    ClearCreds,
    /// What succeeds because there is nothing to do: `flush-certs` while there is no certificate cache, `load-conn` of no connection.
    Nothing,
    /// `get-algorithms`; answer with [`render::algorithms`].
    GetAlgorithms,
    /// `get-counters`; answer with [`render::counters`].
    GetCounters(CounterScope),
    /// `reset-counters`; succeeds whether anything was counted or not.
    ResetCounters(CounterScope),
    /// `redirect`; answer with [`redirect_answer`].
    Redirect {
        /// Which IKE SAs.
        selector: Selector,
        /// And whose.
        peer: PeerFilter,
    },
    /// `cygnet-status`; streams `cygnet-child` ([`render::cygnet_child`]), then an empty answer.
    CygnetStatus {
        /// Only this connection.
        ike: Option<String>,
    },
    /// `cygnet-backend-sas`; streams `cygnet-backend-sa` ([`render::cygnet_backend_sa`]), then an empty answer.
    CygnetBackendSas,
    /// `cygnet-guards`: what an earlier run left blocked; answer with [`render::guards`].
    CygnetGuards {
        /// Let it flow.
        drop: bool,
    },
    /// `cygnet-simulate`: a simulated device goes wrong; answer with [`render::matched`] how many entries that is about.
    CygnetSimulate(ipsec::fault::Simulate),
    /// `cygnet-why`; streams `cygnet-step` ([`render::cygnet_step`]); answer with [`render::cygnet_why`].
    CygnetWhy(WhyQuestion),
    /// `cygnet-doctor`; streams `cygnet-device` ([`render::cygnet_device`]) and `cygnet-check` ([`render::cygnet_check`]); answer with
    /// [`render::cygnet_doctor`].
    CygnetDoctor,
    /// `cygnet-explain`; streams `cygnet-block` ([`render::cygnet_block`]), then an empty answer; when it is not there: [`ike_not_found`] or
    /// [`child_not_found`].
    CygnetExplain {
        /// Connection.
        ike: String,
        /// Only this child.
        child: Option<String>,
    },
    /// `cygnet-history`; streams `cygnet-total` ([`render::cygnet_total`]) and `cygnet-generation` ([`render::cygnet_generation`]), or with
    /// `ike-sas=yes` `cygnet-past-ike` ([`render::cygnet_past_ike`]); answer with [`render::complete`]. `totals=no` leaves the first out. Where the
    /// generations in question are too many to be added up, there are none either, and `no-totals` in the answer says why.
    CygnetHistory {
        /// Which part.
        wanted: Wanted,
        /// IKE SAs rather than CHILD SAs.
        ike_sas: bool,
        /// Without what each child has carried in all.
        rows_only: bool,
    },
    /// `cygnet-events`: events of the past; streams `cygnet-past-event` ([`render::cygnet_event`]), the oldest first; answer with
    /// [`render::complete`]. What happens from now on comes to those who registered for `cygnet-event`.
    CygnetEvents(Wanted),
    /// `cygnet-webhooks`; streams `cygnet-webhook` ([`render::cygnet_webhook`]), then an empty answer.
    CygnetWebhooks,
    /// `cygnet-webhook-test`: sends a message that tells of nothing; answer with [`render::cygnet_webhook_tried`].
    CygnetWebhookTest {
        /// The webhook.
        name: String,
    },
    /// `cygnet-webhook-deliveries`; streams `cygnet-delivery` ([`render::cygnet_delivery`]), the newest event first, then an empty answer.
    CygnetDeliveries(WantedDeliveries),
    /// `cygnet-webhook-redeliver`; answer with [`render::matched`] how many are due again.
    CygnetRedeliver(Redelivery),
    /// `cygnet-webhook-enable` and `cygnet-webhook-disable`; answer with [`render::matched`]: 1 if that changed anything.
    CygnetWebhookEnable {
        /// The webhook.
        name: String,
        /// Or disable.
        enable: bool,
    },
    /// `cygnet-capture`: packets as the data path carries them, until it is told to end or its client goes; streams `cygnet-capture`,
    /// `cygnet-packets` and `cygnet-keys` ([`crate::capture`]); answer with [`crate::capture::ended`].
    CygnetCapture(WantedCapture),
    /// `cygnet-capture-stop`, from another connection than that of the capture; answer with [`render::matched`].
    CygnetCaptureStop {
        /// Which.
        id: u32,
    },
    /// `cygnet-log`: more lines of the log for a while; streams `cygnet-raised` ([`render::cygnet_raised`]) with all that is raised then, and
    /// ends with [`render::ok`].
    CygnetLog(LogOrder),
    /// `cygnet-webhook-drop`: gives up what waits for a webhook; answer with [`render::matched`] how many that were.
    CygnetWebhookDrop {
        /// The webhook.
        name: String,
    },
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// There is no such command: answer CMD_UNKNOWN.
    Unknown,
    /// Answer with this message.
    Refused(Message),
}

/// Error text of `unload-conn` for a connection that is not there.
#[must_use]
pub fn unload_conn_error(name: &str) -> String {
    format!("unload: connection '{name}' not found")
}

/// Error text of `install` for a child that is not configured.
pub const INSTALL_NOT_FOUND: &str = "configuration name not found";

/// Error text of `terminate` when no SA matches.
pub const TERMINATE_NOT_FOUND: &str = "no matching SAs to terminate found";

/// Error text of `rekey` when no SA matches.
pub const REKEY_NOT_FOUND: &str = "no matching SAs to rekey found";

/// Error text of `uninstall` for a trap or shunt that is not installed.
#[must_use]
pub fn policy_not_found(child: &str) -> String {
    format!("policy '{child}' not found")
}

/// Error text of `initiate` for a child that is not configured, also where the connection is not.
#[must_use]
pub fn child_not_found(child: &str) -> String {
    format!("CHILD_SA config '{child}' not found")
}

/// Error text of `initiate` for a connection that is not configured.
#[must_use]
pub fn ike_not_found(ike: &str) -> String {
    format!("IKE_SA config '{ike}' not found")
}

/// Error text of `initiate` when the wait is over.
#[must_use]
pub fn not_established_in_time(what: &str, name: &str, waited: Duration) -> String {
    format!("{what} '{name}' not established after {}ms", waited.as_millis())
}

impl Request {
    /// Understands command `name` with `message`.
    ///
    /// # Errors
    /// [`RequestError::Unknown`] for a name that is no command; otherwise the answer to give.
    pub fn parse(name: &str, message: &Message) -> Result<Self, RequestError> {
        if let Some(twice) = message.duplicate_name() {
            return Err(refuse(&format!("'{twice}' is given twice")));
        }
        if let Some(error) = misread(message) {
            return Err(refuse(&error));
        }
        match name {
            "version" => Ok(Self::Version),
            "stats" => Ok(Self::Stats),
            "reload-settings" => Ok(Self::ReloadSettings),
            "initiate" => initiate(message),
            "terminate" => terminate(message),
            "rekey" => rekey(message),
            "install" => chosen(message, "child", "missing configuration name")
                .map(|child| Self::Install { ike: selected(message, "ike"), child }),
            "uninstall" => chosen(message, "child", "missing configuration name")
                .map(|child| Self::Uninstall { ike: selected(message, "ike"), child }),
            "list-sas" => SaFilter::parse(message).map(Self::ListSas),
            "list-conns" => Ok(Self::ListConns { ike: selected(message, "ike") }),
            "list-policies" => Ok(Self::ListPolicies(PolicyFilter::parse(message))),
            "list-certs" | "list-authorities" => Ok(Self::ListNothing),
            "get-conns" => Ok(Self::GetConns),
            "get-shared" => Ok(Self::GetShared),
            "get-keys" => Ok(Self::GetKeys),
            "get-authorities" => Ok(Self::GetAuthorities),
            "get-pools" => Ok(Self::GetPools),
            // Clients that make messages out of files may have nothing to say.
            "load-conn" if message.sections().next().is_none() => Ok(Self::Nothing),
            "load-conn" => {
                load_conn(message).map(|(connection, notes)| Self::LoadConn { connection: Box::new(connection), notes })
            }
            "cygnet-plan-conn" => {
                load_conn(message).map(|(connection, _)| Self::PlanConn { connection: Box::new(connection) })
            }
            "cygnet-plan-unload" => unloaded(message).map(|name| Self::PlanUnload { name }),
            "unload-conn" => unloaded(message).map(|name| Self::UnloadConn { name }),
            "load-shared" => shared::parse(message).map_err(|error| refuse(&error.to_string())),
            "unload-shared" => required(message, "id", "unique identifier missing").map(|id| Self::UnloadShared { id }),
            "clear-creds" => Ok(Self::ClearCreds),
            "flush-certs" => Ok(Self::Nothing),
            "get-algorithms" => Ok(Self::GetAlgorithms),
            "load-cert" | "load-key" | "load-token" | "unload-key" | "load-authority" | "unload-authority"
            | "load-pool" | "unload-pool" => Err(absent::answer(name, message)),
            "get-counters" => Ok(Self::GetCounters(counter_scope(message))),
            "reset-counters" => Ok(Self::ResetCounters(counter_scope(message))),
            "redirect" => redirect(message),
            "cygnet-backend-sas" => Ok(Self::CygnetBackendSas),
            "cygnet-guards" => Ok(Self::CygnetGuards { drop: message.is_yes("drop-unclaimed") }),
            "cygnet-simulate" => simulate::parse(message),
            "cygnet-doctor" => Ok(Self::CygnetDoctor),
            "cygnet-explain" => chosen(message, "ike", "missing configuration name")
                .map(|ike| Self::CygnetExplain { ike, child: selected(message, "child") }),
            "cygnet-why" => WhyQuestion::parse(message).map(Self::CygnetWhy),
            "cygnet-history" => history::wanted(message).and_then(|wanted| {
                Ok(Self::CygnetHistory {
                    wanted,
                    ike_sas: flag(message, "ike-sas")?,
                    rows_only: message.get_str("totals") == Some("no"),
                })
            }),
            "cygnet-events" => history::wanted(message).map(Self::CygnetEvents),
            "cygnet-webhooks" => Ok(Self::CygnetWebhooks),
            "cygnet-webhook-test" => webhook::name(message).map(|name| Self::CygnetWebhookTest { name }),
            "cygnet-webhook-deliveries" => webhook::wanted(message).map(Self::CygnetDeliveries),
            "cygnet-webhook-redeliver" => webhook::redelivery(message).map(Self::CygnetRedeliver),
            "cygnet-webhook-enable" => {
                webhook::name(message).map(|name| Self::CygnetWebhookEnable { name, enable: true })
            }
            "cygnet-webhook-disable" => {
                webhook::name(message).map(|name| Self::CygnetWebhookEnable { name, enable: false })
            }
            "cygnet-webhook-drop" => webhook::name(message).map(|name| Self::CygnetWebhookDrop { name }),
            "cygnet-capture" => WantedCapture::parse(message).map(Self::CygnetCapture),
            "cygnet-capture-stop" => capture::stopped(message).map(|id| Self::CygnetCaptureStop { id }),
            "cygnet-log" => log::parse(message).map(Self::CygnetLog),
            "cygnet-status" => Ok(Self::CygnetStatus { ike: selected(message, "ike") }),
            _ => Err(RequestError::Unknown),
        }
    }
}

/// The answer `success=no` with this text.
fn refuse(error: &str) -> RequestError {
    RequestError::Refused(render::failed(error))
}

/// What stands where a command looks and cannot be understood there. It is never taken for missing: a selection without one of its parts is a wider
/// one, and a secret without owners is one for everybody.
fn misread(message: &Message) -> Option<String> {
    const SINGLE: [&str; 5] = ["ike", "ike-id", "child", "child-id", "name"];
    // Of certificates, keys and secrets; what is in sections is checked key by key.
    let any_octets = |name: &str| matches!(name, "data" | "pin");
    let is_text = |value: &Value| value.as_str().is_some();
    message.elements().iter().find_map(|element| match element {
        Element::KeyValue(name, value) if !any_octets(name) && !is_text(value) => {
            Some(format!("'{name}' is not UTF-8 text"))
        }
        Element::List(name, items) if !items.iter().all(is_text) => Some(format!("'{name}' is not UTF-8 text")),
        Element::List(name, _) if SINGLE.contains(&name.as_str()) => Some(format!("'{name}' is a list")),
        Element::KeyValue(..) | Element::List(..) | Element::Section(..) => None,
    })
}

/// A value of which an empty one says nothing.
fn text(message: &Message, key: &str) -> Option<String> {
    selected(message, key).filter(|text| !text.is_empty())
}

/// A name that narrows down. An empty one is that of nothing, as for charon: a script whose variable is unset must not mean everything.
fn selected(message: &Message, key: &str) -> Option<String> {
    message.get_str(key).map(str::to_owned)
}

fn chosen(message: &Message, key: &str, missing: &str) -> Result<String, RequestError> {
    selected(message, key).ok_or_else(|| refuse(missing))
}

fn required(message: &Message, key: &str, missing: &str) -> Result<String, RequestError> {
    text(message, key).ok_or_else(|| refuse(missing))
}

fn number(message: &Message, key: &str) -> Result<Option<u32>, RequestError> {
    let Some(text) = text(message, key) else { return Ok(None) };
    units::u32(&text).map(Some).ok_or_else(|| refuse(&format!("invalid number for: {key}")))
}

/// The number of an SA. None has 0: that stands for any, as if it were not given.
fn sa_number(message: &Message, key: &str) -> Result<Option<u32>, RequestError> {
    Ok(number(message, key)?.filter(|number| *number != 0))
}

fn flag(message: &Message, key: &str) -> Result<bool, RequestError> {
    let Some(text) = text(message, key) else { return Ok(false) };
    units::boolean(&text).ok_or_else(|| refuse(&format!("invalid value for: {key}, expected yes or no")))
}

/// `timeout` in milliseconds: 0 waits for ever, a negative one not at all.
fn wait(message: &Message) -> Result<Wait, RequestError> {
    match message.get_str("timeout") {
        None | Some("") => Ok(Wait::Forever),
        Some(text) if text.starts_with('-') => Ok(Wait::No),
        Some(text) => match units::u64(text) {
            Some(0) => Ok(Wait::Forever),
            Some(milliseconds) => Ok(Wait::AtMost(Duration::from_millis(milliseconds))),
            None => Err(refuse("invalid number for: timeout")),
        },
    }
}

/// `loglevel`: -1 silences the log.
fn log_level(message: &Message) -> Result<i8, RequestError> {
    match message.get_str("loglevel") {
        None | Some("") => Ok(1),
        Some("-1") => Ok(-1),
        Some(text) => match units::u32(text) {
            Some(level) => Ok(i8::try_from(level).unwrap_or(4).min(4)),
            None => Err(refuse("invalid number for: loglevel")),
        },
    }
}

fn selector(message: &Message) -> Result<Selector, RequestError> {
    Ok(Selector {
        ike: selected(message, "ike"),
        ike_id: sa_number(message, "ike-id")?,
        child: selected(message, "child"),
        child_id: sa_number(message, "child-id")?,
    })
}

fn initiate(message: &Message) -> Result<Request, RequestError> {
    let (child, ike) = (selected(message, "child"), selected(message, "ike"));
    if child.is_none() && ike.is_none() {
        return Err(refuse("missing configuration name"));
    }
    // Limits on half-open IKE SAs protect against peers; an operator's own request is not held back by them.
    flag(message, "init-limits")?;
    Ok(Request::Initiate { child, ike, wait: wait(message)?, log_level: log_level(message)? })
}

fn terminate(message: &Message) -> Result<Request, RequestError> {
    let selector = selector(message)?;
    if selector == Selector::default() {
        return Err(refuse("missing terminate selector"));
    }
    let force = flag(message, "force")?;
    Ok(Request::Terminate { selector, force, wait: wait(message)?, log_level: log_level(message)? })
}

fn rekey(message: &Message) -> Result<Request, RequestError> {
    let selector = selector(message)?;
    if selector == Selector::default() {
        return Err(refuse("missing rekey selector"));
    }
    Ok(Request::Rekey { selector, reauth: flag(message, "reauth")? })
}

/// `all` goes before `name`; an empty name is one that nothing was counted of.
fn counter_scope(message: &Message) -> CounterScope {
    match message.get_str("name") {
        _ if message.is_yes("all") => CounterScope::Each,
        Some(name) => CounterScope::Connection(name.to_owned()),
        None => CounterScope::Global,
    }
}

/// What is missing is said first.
fn redirect(message: &Message) -> Result<Request, RequestError> {
    required(message, "gateway", "missing target gateway")?;
    let selector = selector(message)?;
    let peer = PeerFilter::parse(message)?;
    if selector == Selector::default() && peer == PeerFilter::default() {
        return Err(refuse("missing redirect selector"));
    }
    Ok(Request::Redirect { selector, peer })
}

fn load_conn(message: &Message) -> Result<(Connection, Vec<Finding>), RequestError> {
    let loaded = load_conn::parse_message(message).map_err(|error| RequestError::Refused(error.reply()))?;
    Ok((loaded.connection, loaded.notes))
}

fn unloaded(message: &Message) -> Result<String, RequestError> {
    chosen(message, "name", "unload: missing connection name")
}
