//! IKE SAs and CHILD SAs, as `list-sas` and the up/down events carry them.

use ike_model::{ChildSaSnapshot, ChildSaState, IkeSaSnapshot, IkeSaState};
use ipsec::{OffloadMode, SaMode};

use super::identities::identity;
use super::selectors;
use crate::names;
use crate::request::SaFilter;
use crate::vici::Message;

/// The `list-sa` event for one IKE SA with the CHILD SAs that `filter` lets through; nothing when the IKE SA does not pass. One without any such
/// CHILD SA is listed all the same, as clients are used to.
#[must_use]
pub fn list_sa(ike: &IkeSaSnapshot, filter: &SaFilter) -> Option<Message> {
    if !filter.accepts_ike(ike) {
        return None;
    }
    let mut body = ike_sa(ike);
    let mut sections = Message::new();
    for child in ike.children.iter().filter(|child| filter.accepts_child(child)) {
        sections.section(format!("{}-{}", child.name, child.unique_id), child_sa(child));
    }
    body.section("child-sas", sections);
    let mut message = Message::new();
    message.section(&*ike.connection, body);
    Some(message)
}

/// The fields of an IKE SA, without `child-sas`.
#[must_use]
pub fn ike_sa(ike: &IkeSaSnapshot) -> Message {
    let mut m = Message::new();
    m.set_display("uniqueid", ike.unique_id);
    m.set("version", "2");
    m.set("state", ike_state(ike.state));
    m.set_display("local-host", ike.local.ip());
    m.set_display("local-port", ike.local.port());
    m.set("local-id", identity(&ike.local_id));
    m.set_display("remote-host", ike.remote.ip());
    m.set_display("remote-port", ike.remote.port());
    m.set("remote-id", identity(&ike.remote_id));
    m.set_if("initiator", ike.initiator);
    m.set("initiator-spi", format!("{:016x}", ike.initiator_spi));
    m.set("responder-spi", format!("{:016x}", ike.responder_spi));
    m.set_if("nat-local", ike.nat_local);
    m.set_if("nat-remote", ike.nat_remote);
    // Where a NAT is seen, be it one that the peer pretends, ours need not be pretended.
    m.set_if("nat-fake", ike.nat_fake && !ike.nat_local && !ike.nat_remote);
    m.set_if("nat-any", ike.nat_local || ike.nat_remote || ike.nat_fake);
    set_interface_ids(&mut m, ike.if_id_in, ike.if_id_out);
    if let Some(algorithms) = &ike.algorithms {
        m.set("encr-alg", names::encryption(algorithms.encryption));
        if let Some(bits) = algorithms.key_bits {
            m.set_display("encr-keysize", bits);
        }
        if let Some(integrity) = algorithms.integrity {
            m.set("integ-alg", names::integrity(integrity));
        }
        m.set("prf-alg", names::prf(algorithms.prf));
        m.set("dh-group", names::key_exchange(algorithms.key_exchange));
    }
    if ike.state == IkeSaState::Established {
        set_some(&mut m, "established", ike.established_seconds);
        set_some(&mut m, "rekey-time", ike.rekey_seconds);
        set_some(&mut m, "reauth-time", ike.reauth_seconds);
    }
    for (name, tasks) in [("tasks-queued", &ike.tasks_queued), ("tasks-active", &ike.tasks_active)] {
        if !tasks.is_empty() {
            m.list(name, tasks.iter().copied());
        }
    }
    m
}

/// The fields of a CHILD SA.
#[must_use]
pub fn child_sa(child: &ChildSaSnapshot) -> Message {
    let mut m = Message::new();
    m.set("name", &*child.name);
    m.set_display("uniqueid", child.unique_id);
    m.set_display("reqid", child.reqid.0);
    m.set("state", child_state(child.state));
    m.set("mode", sa_mode(child.mode));
    if shows_details(child.state) {
        details(child, &mut m);
    }
    m.list("local-ts", child.local_ts.iter().map(selectors::selector));
    m.list("remote-ts", child.remote_ts.iter().map(selectors::selector));
    if !child.backend.is_empty() {
        m.set("backend", child.backend);
    }
    m.set_display("generation", child.generation);
    if shows_details(child.state) {
        volumes(child, &mut m);
    }
    m.set("hw-offload", offload_mode(child.offload.mode));
    if let Some(device) = &child.offload.device {
        m.set("offload-dev", &**device);
    }
    m.set_if("simulated", child.offload.simulated);
    m
}

fn details(child: &ChildSaSnapshot, m: &mut Message) {
    m.set("protocol", "ESP");
    m.set_if("encap", child.encap);
    if let Some(spi) = child.spi_in {
        m.set_display("spi-in", spi);
    }
    if let Some(spi) = child.spi_out {
        m.set_display("spi-out", spi);
    }
    let tags = &child.tags;
    for (value, mask, mark) in [("mark-in", "mark-mask-in", tags.mark_in), ("mark-out", "mark-mask-out", tags.mark_out)]
    {
        if let Some(mark) = mark {
            m.set(value, format!("{:08x}", mark.value));
            m.set(mask, format!("{:08x}", mark.mask));
        }
    }
    set_interface_ids(m, tags.if_id_in, tags.if_id_out);
    if let Some(algorithms) = &child.algorithms {
        m.set("encr-alg", names::encryption(algorithms.encryption));
        if let Some(bits) = algorithms.key_bits {
            m.set_display("encr-keysize", bits);
        }
        if let Some(integrity) = algorithms.integrity {
            m.set("integ-alg", names::integrity(integrity));
        }
        if let Some(group) = algorithms.key_exchange {
            m.set("dh-group", names::key_exchange(group));
        }
        if algorithms.esn {
            m.set("esn", "1");
        }
    }
    m.set_display("bytes-in", child.traffic_in.bytes);
    m.set_display("packets-in", child.traffic_in.packets);
    set_some(m, "use-in", child.traffic_in.idle_seconds);
    m.set_display("bytes-out", child.traffic_out.bytes);
    m.set_display("packets-out", child.traffic_out.packets);
    set_some(m, "use-out", child.traffic_out.idle_seconds);
    set_some(m, "rekey-time", child.rekey_seconds);
    set_some(m, "life-time", child.life_seconds);
    set_some(m, "install-time", child.installed_seconds);
}

/// Sums over all generations, and the limits in force on octets and packets.
fn volumes(child: &ChildSaSnapshot, m: &mut Message) {
    m.set_display("bytes-total-in", child.total_in.bytes);
    m.set_display("packets-total-in", child.total_in.packets);
    m.set_display("bytes-total-out", child.total_out.bytes);
    m.set_display("packets-total-out", child.total_out.packets);
    let (soft, hard) = (child.limits.soft, child.limits.hard);
    set_some(m, "rekey-bytes", soft.bytes);
    set_some(m, "life-bytes", hard.bytes);
    set_some(m, "rekey-packets", soft.packets);
    set_some(m, "life-packets", hard.packets);
}

/// Eight hexadecimal digits each; one that is not there is left out.
fn set_interface_ids(m: &mut Message, inbound: u32, outbound: u32) {
    for (key, id) in [("if-id-in", inbound), ("if-id-out", outbound)] {
        if id != 0 {
            m.set(key, format!("{id:08x}"));
        }
    }
}

pub(super) fn set_some(m: &mut Message, key: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        m.set_display(key, value);
    }
}

fn shows_details(state: ChildSaState) -> bool {
    match state {
        ChildSaState::Created | ChildSaState::Installing => false,
        ChildSaState::Installed
        | ChildSaState::Rekeying
        | ChildSaState::Rekeyed
        | ChildSaState::Deleting
        | ChildSaState::Deleted => true,
    }
}

fn ike_state(state: IkeSaState) -> &'static str {
    match state {
        IkeSaState::Created => "CREATED",
        IkeSaState::Connecting => "CONNECTING",
        IkeSaState::Established => "ESTABLISHED",
        IkeSaState::Rekeying => "REKEYING",
        IkeSaState::Rekeyed => "REKEYED",
        IkeSaState::Deleting => "DELETING",
    }
}

pub(super) fn child_state(state: ChildSaState) -> &'static str {
    match state {
        ChildSaState::Created => "CREATED",
        ChildSaState::Installing => "INSTALLING",
        ChildSaState::Installed => "INSTALLED",
        ChildSaState::Rekeying => "REKEYING",
        ChildSaState::Rekeyed => "REKEYED",
        ChildSaState::Deleting => "DELETING",
        ChildSaState::Deleted => "DELETED",
    }
}

fn sa_mode(mode: SaMode) -> &'static str {
    match mode {
        SaMode::Tunnel => "TUNNEL",
        SaMode::Transport => "TRANSPORT",
    }
}

pub(super) fn offload_mode(mode: OffloadMode) -> &'static str {
    match mode {
        OffloadMode::No => "no",
        OffloadMode::Crypto => "crypto",
        OffloadMode::Packet => "packet",
        OffloadMode::Auto => "auto",
    }
}
