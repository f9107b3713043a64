//! What the parts of the daemon speak of: configuration, commands, identities, events and snapshots.
//!
//! The protocol core takes [`config`] and [`command`]s and gives [`event`]s and [`snapshot`]s; the swanctl and VICI layer, the webhook, the
//! history and the telemetry all speak of the same values. Parsing of files and sockets is left to others.
#![forbid(unsafe_code)]

mod asks;
pub mod by_name;
pub mod cause;
pub mod command;
pub mod config;
pub mod counters;
pub mod device;
pub mod doctor;
pub mod event;
pub mod history;
pub mod identity;
mod key_export;
pub mod proposal;
pub mod reload;
pub mod secret;
pub mod snapshot;
pub mod specs;
pub mod tags;
pub mod time;
pub mod ulid;
pub mod webhook;
pub mod why;

pub use by_name::ByName;
pub use cause::{Cause, CauseKind};
pub use command::{Command, CommandError, CommandId, CommandOutcome, Selector};
pub use config::{
    Actions, AuthMethod, AuthRound, Child, ChildMode, Childless, ConfigSnapshot, ConfiguredSelector, Connection,
    FailClosed, Fragmentation, HostSpec, IkeSettings, Unique, Updown,
};
pub use counters::{Counter, CounterScope, Counters};
pub use event::{EventBody, EventRecord, ExportedSa};
pub use history::{Keeping, Outbox, Recorder, Timeline};
pub use identity::Identity;
pub use key_export::KeyExport;
pub use proposal::{Encryption, EspProposal, IkeProposal};
pub use secret::{Secret, SharedSecret};
pub use snapshot::{ChildSaSnapshot, ChildSaState, ConfiguredChildStatus, IkeSaSnapshot, IkeSaState};
pub use specs::{ChildSpecs, Origin};
pub use tags::{DrawnTags, InterfaceIds, MarkConfig, TagConfig, TagValue};
pub use time::Rfc3339;
pub use ulid::{Ulid, Ulids};
pub use webhook::{WebhookFigures, WebhookHealth, WebhookSnapshot, WebhookTried};
