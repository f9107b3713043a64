//! What must hold at every moment, however messages are lost, doubled and reordered.
//!
//! | invariant | where |
//! |---|---|
//! | what one end sends on, the other receives, with the same keys | [`World::check_sas`](crate::World) once [`World::strict`](crate::World::strict) |
//! | nothing is installed that no CHILD SA owns; the number of SAs is bounded | `installed` |
//! | a repeated message is the same octets; one request at a time; what was refused for now is not asked again too soon | `Wire` |
//! | what may still be on its way is received | `Flight` |
//! | every event once and in order | `Story` |
//! | no key is installed twice for sending | `Keys` |
//! | nothing is told lost or repaired that was neither lost nor changed | `shaken` |
//! | the same as the first at every moment of any run, and no packet in flight is lost | `reception`, once [`World::watch`](crate::World::watch) |
//! | what was refused for a time is not asked for at once, nor for ever | `pacing`, once there is a journal |

pub(crate) mod pacing;
pub(crate) mod reception;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ike_model::{EventBody, IkeSaSnapshot};
use ike_wire::ids::{ExchangeType, PayloadType};
use ike_wire::{Header, Message};
use ipsec::recording::Tables;
use ipsec::{Direction, Instant, Op, SaHandle, SaSpec, Spi};

use self::pacing::Pacing;
use self::reception::Reception;
use crate::Who;
use crate::journal::Sent;

/// Outbound SAs of one child at most.
const MOST_OUTBOUND: usize = 3;
/// Inbound SAs of one child at most: three pairs and those that linger.
const MOST_INBOUND: usize = 3 + 16;

/// Length of a response that is nothing but a Notify without data, as TEMPORARY_FAILURE, under AES-GCM.
const PLAIN_REFUSAL: usize = 28 + 4 + 8 + 8 + 1 + 16;
/// What was refused so is not asked again sooner (RFC 7296 §2.25 asks for a wait).
const SOONEST: Duration = Duration::from_secs(6);

/// Everything the oracle remembers.
#[derive(Default)]
pub(crate) struct Oracle {
    /// What the gateways send on, and sent on a moment ago.
    pub(crate) flight: Flight,
    wire: Wire,
    stories: BTreeMap<Who, Story>,
    keys: BTreeMap<(Who, Vec<u8>), SaHandle>,
    /// Outbound SAs that traffic was let to.
    activated: BTreeSet<(Who, SaHandle)>,
    /// Gateways whose device has lost something, or whose tables somebody has changed.
    shaken: BTreeSet<Who>,
    pub(crate) reception: Reception,
    pacing: Pacing,
}

type Violation = Result<(), String>;

impl Oracle {
    /// A message is sent for the first time or again.
    pub(crate) fn sent(&mut self, who: Who, header: &Header, octets: &[u8], now: Instant) -> Violation {
        self.wire.sent(who, header, octets, now)
    }

    /// A message arrives.
    pub(crate) fn arrived(&mut self, who: Who, header: &Header, octets: &[u8], now: Instant) {
        self.wire.arrived(who, header, octets, now);
    }

    /// From now on a request that was refused for now must not come again too soon.
    pub(crate) fn paced(&mut self) {
        self.wire.paced = true;
    }

    /// How many requests of a gateway were refused with a plain Notify.
    pub(crate) fn refusals(&self, who: Who) -> usize {
        self.wire.refusals.get(&who).copied().unwrap_or_default()
    }

    /// Whether a message of this IKE SA, kind and ID was sent before.
    pub(crate) fn was_sent(&self, who: Who, header: &Header, octets: &[u8]) -> bool {
        self.wire.datagrams.contains_key(&(name(who, header), part(octets)))
    }

    /// What was sent says this.
    pub(crate) fn said(&mut self, now: Instant, sent: &Sent) -> Violation {
        self.pacing.sent(now, sent)
    }

    /// What arrived says this.
    pub(crate) fn heard(&mut self, now: Instant, to: Who, sent: &Sent) {
        self.pacing.arrived(now, to, sent);
    }

    /// Somebody outside wants something of a gateway.
    pub(crate) fn commanded(&mut self, who: Who) {
        self.pacing.commanded(who);
    }

    /// The clock of a gateway has jumped, or its device has lost its tables.
    pub(crate) fn unsettled(&mut self, who: Who) {
        self.reception.unsettled(who);
        self.pacing.commanded(who);
    }

    /// The device of a gateway may have lost something, or somebody else has changed what it holds.
    pub(crate) fn shaken(&mut self, who: Who) {
        self.shaken.insert(who);
    }

    /// An event is told.
    pub(crate) fn told(&mut self, who: Who, body: &EventBody) -> Violation {
        let alarm = matches!(body, EventBody::StateLost { .. } | EventBody::Repaired { .. });
        if alarm && !self.shaken.contains(&who) {
            return Err("something was lost or repaired, and there was no reason for it".to_owned());
        }
        self.reception.told(who, body);
        // A limit is a reason of its own to begin at once.
        if matches!(body, EventBody::ChildSaSoftExpired { .. }) {
            self.pacing.commanded(who);
        }
        self.stories.entry(who).or_default().told(body)
    }

    /// A gateway has lost its memory.
    pub(crate) fn restarted(&mut self, who: Who) {
        self.stories.remove(&who);
        self.activated.retain(|(other, _)| *other != who);
        self.flight.forget();
        self.reception.restarted(who);
        self.pacing.restarted(who);
    }

    /// The backend is asked.
    pub(crate) fn asked(&mut self, who: Who, ops: &[Op]) -> Violation {
        for op in ops {
            match op {
                Op::InstallSa(sa) if sa.direction == Direction::Outbound => {
                    let key = (who, sa.key.encryption.to_vec());
                    let handle = *self.keys.entry(key).or_insert(sa.handle);
                    // An SA that was refused, or never let go, may be tried on another rung of the device.
                    if handle != sa.handle || self.activated.contains(&(who, handle)) {
                        return Err(format!("the key of outbound SA {} was in use before", sa.spi));
                    }
                }
                Op::Activate { sa, .. } => {
                    self.activated.insert((who, *sa));
                }
                Op::InstallSa(_)
                | Op::UpdateSa { .. }
                | Op::RemoveSa(_)
                | Op::InstallPolicy(_)
                | Op::UpdatePolicy(_)
                | Op::RemovePolicy(_)
                | Op::InstallGuard(_)
                | Op::RemoveGuard(_)
                | Op::Flush => {}
            }
        }
        Ok(())
    }

    /// Nothing is left of which something was still to be told.
    pub(crate) fn stories_are_complete(&self) -> Violation {
        self.stories.values().try_for_each(Story::is_complete)
    }

    /// What the events say is up, against what the core lists.
    pub(crate) fn stories_agree(&self, who: Who, ike_sas: &[IkeSaSnapshot]) -> Violation {
        self.stories.get(&who).map_or(Ok(()), |story| story.agrees(ike_sas))
    }
}

/// A message by sender, both SPIs, response flag and message ID.
type Name = (Who, u64, u64, bool, u32);
/// Number of a fragment and how many there are; a whole message has none.
type Part = Option<(u16, u16)>;

/// What went over the wire.
#[derive(Default)]
struct Wire {
    /// First octets of each datagram.
    datagrams: BTreeMap<(Name, Part), Vec<u8>>,
    /// Requests without a response that has arrived, by sender and both SPIs.
    open: BTreeMap<(Who, u64, u64), BTreeSet<u32>>,
    /// Plain refusals that have arrived.
    refusals: BTreeMap<Who, usize>,
    /// When a whole request of this sender and of this length was refused; the length tells the purpose.
    refused: BTreeMap<(Who, usize), Instant>,
    paced: bool,
}

impl Wire {
    //= RFC 7296 §2.1: a retransmission is bitwise the same as the original
    fn sent(&mut self, who: Who, header: &Header, octets: &[u8], now: Instant) -> Violation {
        // The first exchange runs under changing SPIs, with COOKIE and other key exchange methods under the same ID; and errors in clear,
        // to whoever names an IKE SA that is gone, belong to none.
        if header.exchange == ExchangeType::IKE_SA_INIT || header.next_payload == PayloadType::NOTIFY {
            return Ok(());
        }
        let (spi_i, spi_r) = (header.initiator_spi.0, header.responder_spi.0);
        let part = part(octets);
        let message = name(who, header);
        match self.datagrams.get(&(message, part)) {
            Some(first) if first == octets => return Ok(()),
            Some(_) => return Err(format!("message {} repeated with other octets", describe(header))),
            None => {}
        }
        //= RFC 7383 §2.5: a message is divided in one way; a whole one has no fragments, and all fragments know how many there are
        let total = |part: Part| part.map(|(_, total)| total);
        let mut known = self.datagrams.range((message, None)..=(message, Some((u16::MAX, u16::MAX))));
        if let Some(((_, other), _)) = known.find(|((_, other), _)| total(*other) != total(part)) {
            return Err(format!("message {} sent as {other:?} and as {part:?}", describe(header)));
        }
        self.datagrams.insert((message, part), octets.to_vec());
        if header.flags.response {
            return Ok(());
        }
        //= RFC 7296 §2.3: window of one
        let open = self.open.entry((who, spi_i, spi_r)).or_default();
        let most = open.last().copied();
        open.insert(header.message_id.0);
        if open.len() > 1 {
            return Err(format!("request {} sent while {most:?} waits for its response", describe(header)));
        }
        self.in_time(who, header, octets.len(), now)
    }

    //= RFC 7296 §2.25: after TEMPORARY_FAILURE it must wait before it tries again
    fn in_time(&self, who: Who, header: &Header, length: usize, now: Instant) -> Violation {
        let refused = self.refused.get(&(who, length)).filter(|_| header.exchange == ExchangeType::CREATE_CHILD_SA);
        match refused.map(|at| now.saturating_since(*at)).filter(|waited| self.paced && *waited < SOONEST) {
            Some(waited) => Err(format!("request {} comes {waited:?} after it was refused", describe(header))),
            None => Ok(()),
        }
    }

    fn arrived(&mut self, who: Who, header: &Header, octets: &[u8], now: Instant) {
        let (spi_i, spi_r, id) = (header.initiator_spi.0, header.responder_spi.0, header.message_id.0);
        let open = self.open.get_mut(&(who, spi_i, spi_r)).filter(|_| header.flags.response);
        let answers = open.is_some_and(|open| open.remove(&id));
        if !answers || header.exchange != ExchangeType::CREATE_CHILD_SA || octets.len() != PLAIN_REFUSAL {
            return;
        }
        *self.refusals.entry(who).or_default() += 1;
        if let Some(request) = self.datagrams.get(&((who, spi_i, spi_r, false, id), None)) {
            self.refused.insert((who, request.len()), now);
        }
    }
}

/// What the gateways send on, and sent on a moment ago: the other end has to receive that until the last packet can have come.
#[derive(Default)]
pub(crate) struct Flight {
    /// By sender and SPI: the SA, and when traffic last took it.
    sending: BTreeMap<(Who, Spi), (SaSpec, Instant)>,
}

impl Flight {
    /// Traffic of a gateway takes this SA now.
    pub(crate) fn takes(&mut self, who: Who, sa: &SaSpec, now: Instant) {
        self.sending.insert((who, sa.spi), (sa.clone(), now));
    }

    /// SAs with senders whose last packet may have come less than `travel` ago; others are forgotten.
    pub(crate) fn may_arrive(&mut self, travel: Duration, now: Instant) -> impl Iterator<Item = (Who, &SaSpec)> {
        self.sending.retain(|_, (_, last)| now.saturating_since(*last) < travel);
        self.sending.iter().map(|((who, _), (sa, _))| (*who, sa))
    }

    /// A gateway has lost its memory: nobody can receive what it was sent.
    pub(crate) fn forget(&mut self) {
        self.sending.clear();
    }
}

fn part(octets: &[u8]) -> Part {
    let message = Message::parse(octets).ok()?;
    message.fragment().map(|fragment| (fragment.number, fragment.total))
}

fn name(who: Who, header: &Header) -> Name {
    (who, header.initiator_spi.0, header.responder_spi.0, header.flags.response, header.message_id.0)
}

/// One line about a message.
pub fn describe(header: &Header) -> String {
    let kind = if header.flags.response { "response" } else { "request" };
    format!(
        "{} {kind} {} [{:x}:{:x}]",
        header.exchange, header.message_id.0, header.initiator_spi.0, header.responder_spi.0
    )
}

/// What the events of one gateway say is up.
#[derive(Default)]
struct Story {
    ike_sas: BTreeSet<u32>,
    children: BTreeSet<u32>,
    /// CHILD SAs that have ended or were replaced, and whose last counters are still to come.
    leaving: BTreeSet<u32>,
    /// CHILD SAs that the peer may switch to.
    prepared: BTreeSet<u32>,
}

impl Story {
    fn told(&mut self, body: &EventBody) -> Violation {
        match body {
            EventBody::IkeSaEstablished { ike } => begin(&mut self.ike_sas, "IKE SA", ike.unique_id),
            EventBody::IkeSaRekeyed { old, new } => {
                end(&mut self.ike_sas, "IKE SA", old.unique_id)?;
                begin(&mut self.ike_sas, "IKE SA", new.unique_id)
            }
            EventBody::IkeSaClosed { ike, .. } => end(&mut self.ike_sas, "IKE SA", ike.unique_id),
            EventBody::ChildSaInstalled { child, .. } => begin(&mut self.children, "CHILD SA", child.unique_id),
            EventBody::ChildSaRekeyed { old, new, .. } => {
                self.prepared.remove(&new.unique_id);
                self.leaves(old.unique_id)?;
                begin(&mut self.children, "CHILD SA", new.unique_id)
            }
            EventBody::ChildSaPrepared { child, .. } => begin(&mut self.prepared, "prepared CHILD SA", child.unique_id),
            EventBody::ChildSaWithdrawn { child, .. } => end(&mut self.prepared, "prepared CHILD SA", child.unique_id),
            EventBody::ChildSaClosed { child, .. } => self.leaves(child.unique_id),
            EventBody::ChildSaRemoved { child, .. } if self.leaving.remove(&child.unique_id) => Ok(()),
            EventBody::ChildSaRemoved { child, .. } => {
                Err(format!("CHILD SA {} is removed without an event that ends it, or twice", child.unique_id))
            }
            EventBody::IkeSaAuthFailed { ike, .. } | EventBody::IkeSaFailed { ike, .. } => {
                if self.ike_sas.contains(&ike.unique_id) {
                    return Err(format!("IKE SA {} failed after it was up", ike.unique_id));
                }
                Ok(())
            }
            EventBody::IkeSaUpdated { .. }
            | EventBody::IkeSaRekeyFailed { .. }
            | EventBody::IkeSaDuplicate { .. }
            | EventBody::ChildSaRekeyFailed { .. }
            | EventBody::ChildSaInstallFailed { .. }
            | EventBody::ChildSaFailed { .. }
            | EventBody::ChildSaSoftExpired { .. }
            | EventBody::ChildSaHardExpired { .. }
            | EventBody::PolicyAcquire { .. }
            | EventBody::DeviceDown { .. }
            | EventBody::DeviceUp { .. }
            | EventBody::StateLost { .. }
            | EventBody::Degraded { .. }
            | EventBody::Repaired { .. }
            | EventBody::PeerUnreachable { .. }
            | EventBody::PeerReachable { .. }
            | EventBody::UpdownFailed { .. }
            | EventBody::ConfigLoaded { .. }
            | EventBody::ConfigRejected { .. }
            | EventBody::KeysExported { .. }
            | EventBody::EventsGap { .. } => Ok(()),
        }
    }

    fn leaves(&mut self, child: u32) -> Violation {
        self.leaving.insert(child);
        end(&mut self.children, "CHILD SA", child)
    }

    /// The last counters of everything that has ended are told.
    fn is_complete(&self) -> Violation {
        match self.leaving.first() {
            Some(gone) => Err(format!("CHILD SA {gone} is gone without its last counters")),
            None => Ok(()),
        }
    }

    /// Whatever is told to be up is listed.
    fn agrees(&self, listed: &[IkeSaSnapshot]) -> Violation {
        let ike_sas: BTreeSet<_> = listed.iter().map(|ike| ike.unique_id).collect();
        let children: BTreeSet<_> = listed.iter().flat_map(|ike| &ike.children).map(|child| child.unique_id).collect();
        if let Some(gone) = self.ike_sas.difference(&ike_sas).next() {
            return Err(format!("IKE SA {gone} is gone without an event"));
        }
        match self.children.difference(&children).next() {
            Some(gone) => Err(format!("CHILD SA {gone} is gone without an event")),
            None => Ok(()),
        }
    }
}

fn begin(up: &mut BTreeSet<u32>, what: &str, id: u32) -> Violation {
    if up.insert(id) { Ok(()) } else { Err(format!("{what} {id} told up twice")) }
}

fn end(up: &mut BTreeSet<u32>, what: &str, id: u32) -> Violation {
    if up.remove(&id) { Ok(()) } else { Err(format!("{what} {id} told down or replaced without having been up")) }
}

/// What is installed against who owns it.
pub(crate) fn installed(tables: &Tables, ike_sas: &[IkeSaSnapshot]) -> Violation {
    let children = || ike_sas.iter().flat_map(|ike| ike.children.iter().map(move |child| (ike, child)));
    let spis: BTreeSet<_> = children().filter_map(|(_, child)| child.spi_in).collect();
    let peers: BTreeSet<_> = children().filter_map(|(_, child)| child.spi_out).collect();
    let names: BTreeSet<_> = children().map(|(ike, child)| format!("{}/{}", ike.connection, child.name)).collect();
    let mut counts: BTreeMap<(&str, Direction), usize> = BTreeMap::new();
    for sa in tables.sas.values() {
        let owned = if sa.direction == Direction::Inbound { spis.contains(&sa.spi) } else { peers.contains(&sa.spi) };
        if !owned {
            return Err(format!("{:?} SA {} of {} is installed and nobody owns it", sa.direction, sa.spi, sa.name));
        }
        *counts.entry((&sa.name, sa.direction)).or_default() += 1;
    }
    for ((name, direction), count) in counts {
        let per_name = children().filter(|(ike, child)| format!("{}/{}", ike.connection, child.name) == name).count();
        // Below each IKE SA: two ends that begin at once have a child twice.
        let below =
            |ike: &&IkeSaSnapshot| ike.children.iter().any(|c| format!("{}/{}", ike.connection, c.name) == name);
        let most_inbound = MOST_INBOUND * ike_sas.iter().filter(below).count().max(1);
        let most = if direction == Direction::Inbound { most_inbound } else { MOST_OUTBOUND.max(per_name) };
        if count > most {
            return Err(format!("{count} {direction:?} SAs of {name}"));
        }
    }
    for policy in tables.policies.values() {
        if let ipsec::PolicyAction::Protect { .. } = policy.action
            && !names.contains(&*policy.name)
        {
            return Err(format!(
                "{:?} policy {} of {} has no CHILD SA",
                policy.direction, policy.selectors, policy.name
            ));
        }
    }
    Ok(())
}

/// Whether an inbound SA takes what an outbound one sends.
pub(crate) fn receives(inbound: &SaSpec, outbound: &SaSpec) -> bool {
    inbound.direction == Direction::Inbound
        && inbound.spi == outbound.spi
        && inbound.algorithm == outbound.algorithm
        && inbound.esn == outbound.esn
        && inbound.mode == outbound.mode
        && inbound.key == outbound.key
}
