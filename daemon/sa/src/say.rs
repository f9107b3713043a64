//! Lines of the log that tools know: which part of an IKE daemon speaks, how detailed it is, and about which IKE SA.
//!
//! Monitors and scripts have read such lines for twenty years, as text and as VICI's `log` and `control-log` events, so what stands in them and in
//! which order (`IKE_SA site[1] established between ...`) is an interface. Group and level are part of the line's metadata, as its name: whoever
//! shows lines can decide before anything is formatted. The levels are VICI's: 0 what an operator wants to see, 1 the course of things, 2 details.
//! The weight is the one of our own log, where single messages are TRACE.

use std::fmt;
use std::net::SocketAddr;

use ike_wire::ids::ExchangeType;
use ike_wire::{Contents, Header, Payload};

use crate::core::Core;

/// `say!(INFO, "IKE 0", core, "text {}", argument)`.
macro_rules! say {
    ($weight:ident, $name:literal, $core:expr, $($text:tt)+) => {
        tracing::event!(
            name: $name, tracing::Level::$weight, conn = $core.connection.name, ike = $core.unique_id, $($text)+
        )
    };
}
pub(crate) use say;

/// An IKE SA is used for what a command may wait for: lines about it are lines about the command. Its name is what
/// whoever shows lines looks for. Without a child the IKE SA alone is meant.
pub(crate) fn serves(core: &Core, child: Option<&str>) {
    tracing::event!(
        name: "serves", tracing::Level::TRACE, conn = core.connection.name, ike = core.unique_id, serves = child,
        "IKE_SA {}[{}] is used", core.connection.name, core.unique_id
    );
}

/// An IKE SA is made to take the place of another one: whoever has lines about that gets those about its successor.
/// Its name is looked for as above.
pub(crate) fn succeeds(core: &Core, old: u32) {
    tracing::event!(
        name: "succeeds", tracing::Level::TRACE, conn = core.connection.name, ike = core.unique_id, succeeds = old,
        "IKE_SA {}[{}] takes the place of [{old}]", core.connection.name, core.unique_id
    );
}

/// An address with its port: `192.0.2.1[500]`.
pub(crate) struct At(pub(crate) SocketAddr);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.0.ip(), self.0.port())
    }
}

/// Both ends of an IKE SA: `192.0.2.1[gw-a.example]...192.0.2.2[gw-b.example]`.
pub(crate) struct Ends<'c>(pub(crate) &'c Core);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Core { path, local_id, remote_id, .. } = self.0;
        write!(f, "{}[{local_id}]...{}[{remote_id}]", path.local.ip(), path.remote.ip())
    }
}

/// A message: `IKE_AUTH request 1 [ IDi AUTH ]`.
pub(crate) struct Said<'m, 'a> {
    exchange: ExchangeType,
    id: u32,
    response: bool,
    payloads: &'m [Payload<'a>],
}

impl<'m, 'a> Said<'m, 'a> {
    pub(crate) fn new(header: &Header, payloads: &'m [Payload<'a>]) -> Self {
        Self { exchange: header.exchange, id: header.message_id.0, response: header.flags.response, payloads }
    }
}

impl fmt::Display for Said<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.response { "response" } else { "request" };
        write!(f, "{} {kind} {} {}", self.exchange, self.id, Contents(self.payloads))
    }
}
