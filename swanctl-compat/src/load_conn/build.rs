//! Builds the typed connection. Values were checked before; what did not fit is recorded already and falls back to its default here.

use std::sync::Arc;
use std::time::Duration;

use ike_model::{
    Actions, AuthMethod, AuthRound, Child, ChildMode, Childless, ConfiguredSelector, Connection, Fragmentation,
    HostSpec, Identity, InterfaceIds, MarkConfig, TagConfig, TagValue, Unique, Updown,
};
use ipsec::sa::{CopyDscp, HeaderCopy};
use ipsec::{Lifetime, LifetimeConfig, OffloadMode, PortRange};

use super::check::{auth_scope, is_children};
use super::finding::{Finding, FindingKind};
use crate::keys::Scope;
use crate::vici::Message;
use crate::{address, identity, proposal, tags, units};

/// Soft lifetime of an IKE SA unless configured.
const IKE_REKEY_SECONDS: u64 = 4 * 3600;
/// Soft lifetime of a CHILD SA unless configured.
const CHILD_REKEY_SECONDS: u64 = 3600;

pub(super) fn connection(name: &str, path: &str, content: &Message, findings: &mut Vec<Finding>) -> Connection {
    let fields = Fields(content);
    let life = ike_lifetimes(fields);
    let connection = Connection {
        name: name.to_owned(),
        local_addrs: hosts(fields, "local_addrs"),
        remote_addrs: hosts(fields, "remote_addrs"),
        local_port: port(fields, "local_port"),
        remote_port: port(fields, "remote_port"),
        proposals: ike_proposals(fields),
        local: rounds(Scope::Local, path, content, findings),
        remote: rounds(Scope::Remote, path, content, findings),
        dscp: fields.text("dscp").and_then(units::dscp).unwrap_or(0),
        encap: fields.flag("encap", false),
        mobike: fields.flag("mobike", true),
        fragmentation: fragmentation(fields),
        dpd_delay: fields.duration("dpd_delay"),
        keyingtries: fields.u32("keyingtries").unwrap_or(1),
        unique: unique(fields),
        childless: childless(fields),
        reauth_time: life.reauth,
        rekey_time: life.rekey,
        over_time: life.over,
        rand_time: life.rand,
        interface: interface_ids(fields),
        children: children(path, content, findings),
    };
    findings.extend(unreachable_starts(path, &connection));
    findings.extend(never_rekeyed(path, fields));
    connection
}

/// `reauth_time = 0` alone: likely meant to say that there is no reauthentication, but there is no rekeying either then.
fn never_rekeyed(path: &str, fields: Fields<'_>) -> Option<Finding> {
    let alone = fields.seconds("reauth_time") == Some(0) && fields.text("rekey_time").is_none();
    let finding = Finding::new(FindingKind::Doubtful("reauth_time".to_owned()), format!("{path}.reauth_time"));
    alone.then(|| {
        finding
            .because("with it set, `rekey_time` has no default: the IKE SA is never rekeyed")
            .with_help(Some("leave it out, or set `rekey_time` as well".to_owned()))
    })
}

/// Children to start at load whose connection names no peer to call.
fn unreachable_starts(path: &str, connection: &Connection) -> Vec<Finding> {
    let callable = |host: &HostSpec| matches!(host, HostSpec::Address(_) | HostSpec::Name(_));
    if connection.remote_addrs.iter().any(callable) {
        return Vec::new();
    }
    let asks = |child: &&Arc<Child>| (child.start_action.start || child.start_action.trap) && !is_shunt(child.mode);
    let one = |child: &Arc<Child>| {
        let path = format!("{path}.children.{}.start_action", child.name);
        let finding = Finding::new(FindingKind::Doubtful("start_action".to_owned()), path);
        finding.because("there is no peer to call: `remote_addrs` has no single address or name")
    };
    connection.children.iter().filter(asks).map(one).collect()
}

fn is_shunt(mode: ChildMode) -> bool {
    match mode {
        ChildMode::Pass | ChildMode::Drop => true,
        ChildMode::Tunnel | ChildMode::Transport => false,
    }
}

/// A section's values by name.
#[derive(Clone, Copy)]
struct Fields<'m>(&'m Message);

impl<'m> Fields<'m> {
    fn text(self, key: &str) -> Option<&'m str> {
        self.0.get_str(key)
    }

    fn items(self, key: &str) -> Option<Vec<&'m str>> {
        self.0.get_list(key).map(|_| self.0.list_strs(key).collect())
    }

    fn flag(self, key: &str, default: bool) -> bool {
        self.text(key).and_then(units::boolean).unwrap_or(default)
    }

    fn u32(self, key: &str) -> Option<u32> {
        self.text(key).and_then(units::u32)
    }

    fn seconds(self, key: &str) -> Option<u64> {
        self.text(key).and_then(units::seconds)
    }

    fn duration(self, key: &str) -> Duration {
        Duration::from_secs(self.seconds(key).unwrap_or(0))
    }

    fn word(self, key: &str) -> String {
        self.text(key).unwrap_or_default().to_ascii_lowercase()
    }
}

fn hosts(fields: Fields<'_>, key: &str) -> Vec<HostSpec> {
    let given: Vec<HostSpec> =
        fields.items(key).unwrap_or_default().into_iter().filter_map(|text| address::host(text).ok()).collect();
    if given.is_empty() { vec![HostSpec::Any] } else { given }
}

/// 0 is the socket's default.
fn port(fields: Fields<'_>, key: &str) -> u16 {
    fields.u32(key).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(500)
}

fn ike_proposals(fields: Fields<'_>) -> Vec<ike_model::IkeProposal> {
    match fields.items("proposals").filter(|items| !items.is_empty()) {
        Some(items) => {
            items.into_iter().filter_map(|text| proposal::ike(text).ok()).flat_map(|p| p.proposals).collect()
        }
        None => proposal::default_ike(),
    }
}

fn fragmentation(fields: Fields<'_>) -> Fragmentation {
    match fields.word("fragmentation").as_str() {
        "accept" => Fragmentation::Accept,
        "no" => Fragmentation::No,
        "force" => Fragmentation::Force,
        _ => Fragmentation::Yes,
    }
}

fn unique(fields: Fields<'_>) -> Unique {
    match fields.word("unique").as_str() {
        "never" => Unique::Never,
        "keep" => Unique::Keep,
        "replace" => Unique::Replace,
        _ => Unique::No,
    }
}

fn childless(fields: Fields<'_>) -> Childless {
    match fields.word("childless").as_str() {
        "prefer" => Childless::Prefer,
        "force" => Childless::Force,
        "never" => Childless::Never,
        _ => Childless::Allow,
    }
}

fn interface_ids(fields: Fields<'_>) -> InterfaceIds {
    let id = |key: &str| fields.text(key).and_then(tags::interface_id).unwrap_or(TagValue::Fixed(0));
    InterfaceIds { inbound: id("if_id_in"), outbound: id("if_id_out") }
}

fn child_tags(fields: Fields<'_>) -> TagConfig {
    let met = |key: &str| -> Option<MarkConfig> { fields.text(key).and_then(tags::mark).flatten() };
    let set = |key: &str| -> Option<MarkConfig> { fields.text(key).and_then(tags::set_mark).flatten() };
    TagConfig {
        mark_in: met("mark_in"),
        mark_out: met("mark_out"),
        mark_in_sa: fields.flag("mark_in_sa", false),
        set_mark_in: set("set_mark_in"),
        set_mark_out: set("set_mark_out"),
        interface: interface_ids(fields),
    }
}

struct IkeLifetimes {
    rekey: Duration,
    reauth: Duration,
    over: Duration,
    rand: Duration,
}

/// A `reauth_time` that is set takes the place of the default of `rekey_time`, also one of 0.
fn ike_lifetimes(fields: Fields<'_>) -> IkeLifetimes {
    let reauth = fields.seconds("reauth_time");
    let rekey = fields.seconds("rekey_time").unwrap_or(if reauth.is_some() { 0 } else { IKE_REKEY_SECONDS });
    let reauth = reauth.unwrap_or(0);
    let over = fields.seconds("over_time").unwrap_or(rekey.max(reauth) / 10);
    let shorter = if rekey > 0 && reauth > 0 { rekey.min(reauth) } else { rekey.max(reauth) };
    let rand = fields.seconds("rand_time").unwrap_or(over.min(shorter / 2));
    let [rekey, reauth, over, rand] = [rekey, reauth, over, rand].map(Duration::from_secs);
    IkeLifetimes { rekey, reauth, over, rand }
}

/// The authentication rounds of one side, in their order. One is used; a second is refused, and so is the default method of a side that says none.
fn rounds(scope: Scope, path: &str, content: &Message, findings: &mut Vec<Finding>) -> Vec<AuthRound> {
    let side = if scope == Scope::Local { "local" } else { "remote" };
    let mut sections: Vec<(&str, &Message)> =
        content.sections().filter(|(name, _)| auth_scope(name) == Some(scope)).collect();
    sections.sort_by_key(|(_, section)| Fields(section).u32("round").unwrap_or(0));
    if let Some((name, _)) = sections.get(1) {
        let kind = FindingKind::Unsupported((*name).to_owned());
        let reason = "a second round of authentication (RFC 4739) is not supported";
        let help = Some(format!("leave one `{side}` section: the one with `auth = psk`"));
        findings.push(Finding::new(kind, format!("{path}.{name}")).because(reason).with_help(help));
    }
    let auth = sections.first().and_then(|(_, section)| section.get_str("auth"));
    if scope == Scope::Local && auth.is_none() {
        let at = sections.first().map_or_else(|| path.to_owned(), |(name, _)| format!("{path}.{name}"));
        let reason = "`auth` is not set, and its default `pubkey` is not supported";
        let help = Some(format!("add `{side} {{ auth = psk }}`"));
        findings.push(Finding::new(FindingKind::Unsupported("auth".to_owned()), at).because(reason).with_help(help));
    }
    let mut out: Vec<AuthRound> = sections.iter().map(|(_, section)| round(scope, section)).collect();
    if out.is_empty() {
        out.push(AuthRound { method: default_method(scope), id: Identity::Any });
    }
    out
}

fn round(scope: Scope, section: &Message) -> AuthRound {
    let id = section.get_str("id").and_then(|text| identity::parse(text).ok()).unwrap_or(Identity::Any);
    let method = section.get_str("auth").and_then(|text| super::auth_method(text).ok());
    AuthRound { method: method.unwrap_or(default_method(scope)), id }
}

/// The method of a round that names none. One of our own side is refused before it is used.
fn default_method(scope: Scope) -> AuthMethod {
    if scope == Scope::Remote { AuthMethod::Any } else { AuthMethod::Psk }
}

fn children(path: &str, content: &Message, findings: &mut Vec<Finding>) -> Vec<Arc<Child>> {
    let sections = content.sections().filter(|(name, _)| is_children(name));
    sections
        .flat_map(|(parent, all)| all.sections().map(move |(name, section)| (parent, name, section)))
        .map(|(parent, name, section)| {
            let path = format!("{path}.{parent}.{name}");
            doubts(&path, Fields(section), findings);
            Arc::new(child(name, Fields(section)))
        })
        .collect()
}

fn child(name: &str, fields: Fields<'_>) -> Child {
    Child {
        name: name.to_owned(),
        esp_proposals: esp_proposals(fields),
        local_ts: selectors(fields, "local_ts"),
        remote_ts: selectors(fields, "remote_ts"),
        lifetime: lifetimes(fields),
        mode: mode(fields),
        start_action: action(fields, "start_action"),
        close_action: action(fields, "close_action"),
        dpd_action: action(fields, "dpd_action"),
        hw_offload: offload(fields),
        replay_window: fields.u32("replay_window"),
        reqid: fields.u32("reqid").filter(|reqid| *reqid != 0),
        priority: fields.u32("priority").filter(|priority| *priority != 0),
        copy: header_copy(fields),
        policies: fields.flag("policies", true),
        inactivity: fields.duration("inactivity"),
        tags: child_tags(fields),
        updown: updown(fields),
    }
}

fn updown(fields: Fields<'_>) -> Option<Arc<Updown>> {
    let script = fields.text("updown").filter(|script| !script.trim().is_empty())?;
    Some(Arc::new(Updown { script: script.to_owned(), host_access: fields.flag("hostaccess", false) }))
}

fn esp_proposals(fields: Fields<'_>) -> Vec<ike_model::EspProposal> {
    match fields.items("esp_proposals").filter(|items| !items.is_empty()) {
        Some(items) => {
            items.into_iter().filter_map(|text| proposal::esp(text).ok()).flat_map(|p| p.proposals).collect()
        }
        None => proposal::default_esp(),
    }
}

fn selectors(fields: Fields<'_>, key: &str) -> Vec<ConfiguredSelector> {
    let given: Vec<ConfiguredSelector> =
        fields.items(key).unwrap_or_default().into_iter().filter_map(|text| address::selector(text).ok()).collect();
    if given.is_empty() { vec![ConfiguredSelector::Dynamic { protocol: 0, ports: PortRange::ANY }] } else { given }
}

fn lifetimes(fields: Fields<'_>) -> LifetimeConfig {
    let time = |key: &str| fields.seconds(key);
    let bytes = |key: &str| fields.text(key).and_then(units::bytes);
    let packets = |key: &str| fields.text(key).and_then(units::u64);
    LifetimeConfig {
        time: Lifetime::derive(time("rekey_time"), time("life_time"), time("rand_time"), CHILD_REKEY_SECONDS),
        bytes: Lifetime::derive(bytes("rekey_bytes"), bytes("life_bytes"), bytes("rand_bytes"), 0),
        packets: Lifetime::derive(packets("rekey_packets"), packets("life_packets"), packets("rand_packets"), 0),
    }
}

fn mode(fields: Fields<'_>) -> ChildMode {
    match fields.word("mode").as_str() {
        "transport" => ChildMode::Transport,
        "pass" => ChildMode::Pass,
        "drop" => ChildMode::Drop,
        _ => ChildMode::Tunnel,
    }
}

fn action(fields: Fields<'_>, key: &str) -> Actions {
    fields.text(key).and_then(super::actions).unwrap_or(Actions::NONE)
}

fn offload(fields: Fields<'_>) -> OffloadMode {
    match fields.word("hw_offload").as_str() {
        "yes" | "crypto" => OffloadMode::Crypto,
        "packet" => OffloadMode::Packet,
        "auto" => OffloadMode::Auto,
        _ => OffloadMode::No,
    }
}

fn header_copy(fields: Fields<'_>) -> HeaderCopy {
    let dscp = match fields.word("copy_dscp").as_str() {
        "in" => CopyDscp::In,
        "yes" => CopyDscp::Yes,
        "no" => CopyDscp::No,
        _ => CopyDscp::Out,
    };
    HeaderCopy { df: fields.flag("copy_df", true), ecn: fields.flag("copy_ecn", true), dscp }
}

/// Legal lifetimes that are likely not what was meant.
fn doubts(path: &str, fields: Fields<'_>, findings: &mut Vec<Finding>) {
    let life = lifetimes(fields);
    for (unit, lifetime) in [("time", life.time), ("bytes", life.bytes), ("packets", life.packets)] {
        let Lifetime { soft, hard, jitter } = lifetime;
        let doubt = |key: String, reason: String| {
            let path = if fields.text(&key).is_some() { format!("{path}.{key}") } else { path.to_owned() };
            Finding::new(FindingKind::Doubtful(key), path).because(reason)
        };
        if hard != 0 && soft > hard {
            let reason =
                format!("the hard limit {hard} comes before the soft limit {soft}: the SA ends without a rekey");
            findings.push(doubt(format!("life_{unit}"), reason));
        } else if soft != 0 && jitter >= soft {
            let reason = format!("the jitter {jitter} is not below the soft limit {soft}: a rekey may be due at once");
            findings.push(doubt(format!("rand_{unit}"), reason));
        }
    }
}
