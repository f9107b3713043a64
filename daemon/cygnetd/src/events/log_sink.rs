//! Events as log lines.
//!
//! What becomes of SAs the core has told in its own words already, so those events are lines of level DEBUG, all with the same fields; what only
//! the daemon knows (configuration, devices) is told here.

use ike_model::{Cause, ChildSaSnapshot, EventBody, EventRecord, IkeSaSnapshot};
use tracing::field::display;

use super::EventSink;

pub(super) struct LogSink;

impl EventSink for LogSink {
    fn deliver(&self, record: &EventRecord) {
        line(&record.body).write();
    }
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Debug,
    Info,
    Warn,
}

/// What a line says.
#[derive(Debug)]
struct Line<'a> {
    weight: Weight,
    event: &'static str,
    connection: Option<&'a str>,
    ike: Option<&'a IkeSaSnapshot>,
    child_name: Option<&'a str>,
    child: Option<&'a ChildSaSnapshot>,
    cause: Option<&'a Cause>,
    text: String,
}

impl<'a> Line<'a> {
    fn new(event: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        let weight = Weight::Info;
        Self { weight, event, connection: None, ike: None, child_name: None, child: None, cause: None, text }
    }

    fn warn(mut self) -> Self {
        self.weight = Weight::Warn;
        self
    }

    fn ike(mut self, ike: &'a IkeSaSnapshot) -> Self {
        self.weight = Weight::Debug;
        self.connection = Some(&*ike.connection);
        self.ike = Some(ike);
        self
    }

    fn child(mut self, child: &'a ChildSaSnapshot) -> Self {
        self.child_name = Some(&*child.name);
        self.child = Some(child);
        self
    }

    fn named(mut self, connection: &'a str, child: Option<&'a str>) -> Self {
        self.connection = Some(connection);
        self.child_name = child;
        self
    }

    fn cause(mut self, cause: &'a Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    fn write(self) {
        let Self { weight, event, connection: conn, child_name: child, text, .. } = self;
        let ike = self.ike.map(|ike| ike.unique_id);
        let peer = self.ike.map(|ike| display(ike.remote));
        let spi_in = self.child.and_then(|child| child.spi_in).map(display);
        let spi_out = self.child.and_then(|child| child.spi_out).map(display);
        let code = self.cause.map(|cause| cause.kind.name());
        macro_rules! write {
            ($level:ident) => {
                tracing::$level!(conn, ike, child, peer, spi_in, spi_out, event, code, "{text}")
            };
        }
        match weight {
            Weight::Debug => write!(debug),
            Weight::Info => write!(info),
            Weight::Warn => write!(warn),
        }
    }
}

fn line(body: &EventBody) -> Line<'_> {
    match body {
        EventBody::IkeSaEstablished { ike } => {
            let (name, id) = (&ike.connection, ike.unique_id);
            let text = format!("IKE SA {name}[{id}] established between {} and {}", ike.local_id, ike.remote_id);
            Line::new("ike-sa.established", text).ike(ike)
        }
        EventBody::IkeSaRekeyed { old, new } => {
            let text = format!("IKE SA {}[{}] rekeyed to [{}]", old.connection, old.unique_id, new.unique_id);
            Line::new("ike-sa.rekeyed", text).ike(new)
        }
        EventBody::IkeSaClosed { ike, cause } => {
            let text = format!("IKE SA {}[{}] closed: {cause}", ike.connection, ike.unique_id);
            Line::new("ike-sa.closed", text).ike(ike).cause(cause)
        }
        EventBody::IkeSaAuthFailed { ike, cause, .. } => {
            let text = format!("authentication with {} failed: {cause}", ike.remote.ip());
            Line::new("ike-sa.auth-failed", text).ike(ike).cause(cause)
        }
        EventBody::IkeSaFailed { ike, cause } => {
            let text = format!("establishing IKE SA {}[{}] failed: {cause}", ike.connection, ike.unique_id);
            Line::new("ike-sa.failed", text).ike(ike).cause(cause)
        }
        EventBody::IkeSaUpdated { ike, path } => {
            let text = format!("peer {} is now reached at {} from {}", ike.remote_id, path.remote, path.local);
            Line::new("ike-sa.updated", text).ike(ike)
        }
        EventBody::IkeSaRekeyFailed { ike, cause } => {
            let text = format!("rekeying IKE SA {}[{}] failed: {cause}", ike.connection, ike.unique_id);
            Line::new("ike-sa.rekey-failed", text).ike(ike).cause(cause)
        }
        EventBody::IkeSaDuplicate { ike, replaces } => {
            let (name, id) = (&ike.connection, ike.unique_id);
            let text = format!("peer {} makes another IKE SA: {name}[{id}] replaces [{replaces}]", ike.remote_id);
            Line::new("ike-sa.duplicate", text).ike(ike)
        }
        EventBody::PeerUnreachable { ike, cause } => {
            let text = format!("peer {} does not answer: {cause}", ike.remote.ip());
            Line::new("peer.unreachable", text).ike(ike).cause(cause)
        }
        EventBody::PeerReachable { ike } => {
            Line::new("peer.reachable", format!("peer {} answers again", ike.remote.ip())).ike(ike)
        }
        EventBody::PolicyAcquire { connection, child, packet } => {
            let (from, to, protocol) = (packet.source, packet.destination, packet.protocol);
            let text = format!("traffic from {from} to {to} (protocol {protocol}) asks for {connection}/{child}");
            Line::new("policy.acquire", text).named(connection, Some(child))
        }
        EventBody::DeviceDown { name, gone, .. } => {
            let what = if *gone { "was removed" } else { "carries nothing" };
            Line::new("offload.device-down", format!("device {name} {what}")).warn()
        }
        EventBody::DeviceUp { name, .. } => {
            Line::new("offload.device-up", format!("device {name} carries traffic again"))
        }
        EventBody::Repaired { connection, child, cause } => {
            let text = format!("{connection}/{child} is in order again: {cause}");
            Line::new("offload.repaired", text).named(connection, Some(child)).cause(cause)
        }
        EventBody::UpdownFailed { connection, child, verb, cause, .. } => {
            let text = format!("the updown script of {connection}/{child} failed for {verb}: {cause}");
            Line::new("updown.failed", text).warn().named(connection, Some(child)).cause(cause)
        }
        EventBody::ConfigLoaded { connection } => {
            Line::new("config.loaded", format!("connection {connection} loaded")).named(connection, None)
        }
        EventBody::ConfigRejected { connection, cause } => {
            let text = format!("connection {connection} refused: {cause}");
            Line::new("config.rejected", text).warn().named(connection, None).cause(cause)
        }
        EventBody::KeysExported { connection, uid, pid, sas } => {
            let all: Vec<String> = sas.iter().map(|sa| format!("{} {}", sa.protocol, sa.spi)).collect();
            let process = pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
            let text =
                format!("keys of {connection} were given to a VICI client ({process}uid {uid}): {}", all.join(", "));
            Line::new("keys.exported", text).warn().named(connection, None)
        }
        EventBody::EventsGap { first, last, cause } => {
            let text = format!("events {first} to {last} are in no history and go to no webhook: {cause}");
            Line::new("events.gap", text).warn().cause(cause)
        }
        EventBody::ChildSaInstalled { ike, child } => {
            let text = format!("CHILD SA {} established: {}", title(child), selectors(child));
            Line::new("child-sa.installed", text).ike(ike).child(child)
        }
        EventBody::ChildSaPrepared { ike, child, replaces } => {
            let text = format!("CHILD SA {} prepared for the peer to switch to from {{{replaces}}}", title(child));
            Line::new("child-sa.prepared", text).ike(ike).child(child)
        }
        EventBody::ChildSaWithdrawn { ike, child, cause } => {
            let text = format!("CHILD SA {} withdrawn before it was switched to: {cause}", title(child));
            Line::new("child-sa.withdrawn", text).ike(ike).child(child).cause(cause)
        }
        EventBody::ChildSaRekeyed { ike, old, new } => {
            let text = format!("CHILD SA {} rekeyed to {}", title(old), title(new));
            Line::new("child-sa.rekeyed", text).ike(ike).child(new)
        }
        EventBody::ChildSaClosed { ike, child, cause } => {
            let text = format!("CHILD SA {} closed: {cause}", title(child));
            Line::new("child-sa.closed", text).ike(ike).child(child).cause(cause)
        }
        EventBody::ChildSaRemoved { ike, child, .. } => {
            let (inbound, outbound) = (child.traffic_in, child.traffic_out);
            let text = format!(
                "CHILD SA {} is out of the data path: in {} bytes, {} packets, out {} bytes, {} packets",
                title(child),
                inbound.bytes,
                inbound.packets,
                outbound.bytes,
                outbound.packets
            );
            Line::new("child-sa.removed", text).ike(ike).child(child)
        }
        EventBody::ChildSaRekeyFailed { ike, child, cause } => {
            let text = format!("rekeying CHILD SA {} failed: {cause}", title(child));
            Line::new("child-sa.rekey-failed", text).ike(ike).child(child).cause(cause)
        }
        EventBody::ChildSaInstallFailed { ike, child, cause } => {
            let text = format!("CHILD SA {child} could not be installed: {cause}");
            let mut line = Line::new("child-sa.install-failed", text).ike(ike).cause(cause);
            line.child_name = Some(child);
            line
        }
        EventBody::ChildSaFailed { ike, child, cause } => {
            let named = child.as_deref().map(|child| format!(" {child}")).unwrap_or_default();
            let mut line =
                Line::new("child-sa.failed", format!("CHILD SA{named} failed: {cause}")).ike(ike).cause(cause);
            line.child_name = child.as_deref();
            line
        }
        EventBody::ChildSaSoftExpired { ike, child, unit } => {
            let text = format!("CHILD SA {} reached its soft limit of {unit:?}: rekeying", title(child));
            Line::new("child-sa.soft-expired", text).ike(ike).child(child)
        }
        EventBody::ChildSaHardExpired { ike, child, unit } => {
            let text =
                format!("CHILD SA {} reached its hard limit of {unit:?}: it carries nothing any more", title(child));
            Line::new("child-sa.hard-expired", text).ike(ike).child(child)
        }
        EventBody::Degraded { ike, child, cause } => {
            let text = format!("CHILD SA {} has less offload than its device offers: {cause}", title(child));
            Line::new("offload.degraded", text).warn().ike(ike).child(child).cause(cause)
        }
        EventBody::StateLost { ike, child } => {
            let text = format!("the device has lost CHILD SA {}", title(child));
            Line::new("offload.state-lost", text).ike(ike).child(child)
        }
    }
}

fn title(child: &ChildSaSnapshot) -> String {
    let spi = |spi: Option<ipsec::Spi>| spi.map_or_else(|| "-".into(), |spi| spi.to_string());
    format!("{}{{{}}} (SPIs {}_i {}_o)", child.name, child.unique_id, spi(child.spi_in), spi(child.spi_out))
}

fn selectors(child: &ChildSaSnapshot) -> String {
    let list =
        |selectors: &[ipsec::TrafficSelector]| selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!("{} === {}", list(&child.local_ts), list(&child.remote_ts))
}
