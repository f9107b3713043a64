//! The CHILD SA that is to carry the packet: whether its peer is there, whether the data path holds it, its limits, and what was counted.

use ipsec::{Device, DeviceState, SaHandle, SaSpec, SaStatus, Volume};

use super::child::{reach, times};
use super::facts::{ChildFacts, Drops, Facts};
use super::report::{Code, Step, StepName};
use crate::snapshot::{ChildSaSnapshot, ChildSaState, IkeSaSnapshot};
use crate::specs::Origin;

/// A CHILD SA with all that is known of it.
pub(super) struct Live<'a> {
    pub(super) ike: &'a IkeSaSnapshot,
    pub(super) child: &'a ChildSaSnapshot,
    name: String,
    inbound: Option<Counted<'a>>,
    outbound: Option<Counted<'a>>,
    /// The outbound SA as it was installed.
    pub(super) spec: Option<&'a SaSpec>,
}

/// An SA of the data path, twice.
struct Counted<'a> {
    before: &'a SaStatus,
    after: &'a SaStatus,
}

impl Counted<'_> {
    fn moved(&self) -> u64 {
        self.after.packets.saturating_sub(self.before.packets)
    }

    /// `12 packets (3 of them just now)`.
    fn words(&self) -> String {
        let count = |n: u64| if n == 1 { "1 packet".to_owned() } else { format!("{n} packets") };
        match (self.moved(), self.after.idle_seconds) {
            (0, Some(idle)) if self.after.packets > 0 => {
                format!("{}, the last one {idle} s ago", count(self.after.packets))
            }
            (0, _) => count(self.after.packets),
            (moved, _) => format!("{} ({moved} of them just now)", count(self.after.packets)),
        }
    }
}

/// The CHILD SA with this number, or else the one of this child that traffic takes.
pub(super) fn find<'a>(facts: &'a Facts, child: &ChildFacts, number: Option<u32>) -> Option<Live<'a>> {
    let mine = facts.ike_sas.iter().filter(|ike| *ike.connection == *child.connection.name);
    let all = mine.flat_map(|ike| ike.children.iter().map(move |sa| (ike, sa)));
    let all: Vec<_> = all.filter(|(_, sa)| *sa.name == *child.child.name).collect();
    let by_number = all.iter().find(|(_, sa)| Some(sa.unique_id) == number);
    let carries = |sa: &ChildSaSnapshot| matches!(sa.state, ChildSaState::Installed | ChildSaState::Rekeying);
    let (ike, sa) = by_number.or_else(|| all.iter().rev().find(|(_, sa)| carries(sa)))?;
    let counted = |handle: Option<SaHandle>| {
        let of = |all: &'a [SaStatus]| all.iter().find(|status| Some(status.sa) == handle);
        let after = of(&facts.after)?;
        Some(Counted { before: of(&facts.before).unwrap_or(after), after })
    };
    let mine = facts.specs.iter().filter(|specs| specs.origin == Origin::Sa(sa.unique_id));
    let spec = mine.flat_map(|specs| &specs.sas).find(|spec| Some(spec.handle) == sa.sa_out);
    let (inbound, outbound) = (counted(sa.sa_in), counted(sa.sa_out));
    Some(Live { ike, child: sa, name: child.name(), inbound, outbound, spec })
}

//= RFC 7296 §2.4: only an answer, or an authentic message, is a sign of life
/// Whether the peer answers.
pub(super) fn peer(sa: &Live<'_>) -> Step {
    const NAME: StepName = StepName::Peer;
    let (ike, remote) = (sa.ike, sa.ike.remote.ip());
    let heard = format!("{remote} was last heard {} s ago", ike.heard_seconds);
    match ike.waiting_seconds.filter(|_| ike.repeats > 0) {
        None => Step::ok(NAME, heard),
        Some(waiting) => {
            let text = format!(
                "{heard} and does not answer our request, which was repeated {}, for {waiting} s by now",
                times(ike.repeats)
            );
            Step::broken(NAME, Code::PeerUnreachable, text, reach(&remote.to_string()))
        }
    }
}

/// Whether the data path holds both SAs, on a device that works.
pub(super) fn installed(facts: &Facts, sa: &Live<'_>) -> Step {
    const NAME: StepName = StepName::Sa;
    if let Some(step) = device_down(facts, sa) {
        return step;
    }
    let spi = |spi: Option<ipsec::Spi>| spi.map_or_else(|| "-".to_owned(), |spi| spi.to_string());
    let (into, out) = (spi(sa.child.spi_in), spi(sa.child.spi_out));
    let lost = match (&sa.inbound, &sa.outbound) {
        (Some(_), Some(status)) => {
            let mode = &status.after.mode;
            let device = mode.device.as_ref().map(|device| format!(" on {device}")).unwrap_or_default();
            let simulated = if mode.simulated { " (simulated)" } else { "" };
            let offload = match mode.mode {
                ipsec::OffloadMode::Packet => "packet offload",
                ipsec::OffloadMode::Crypto => "crypto offload",
                ipsec::OffloadMode::No | ipsec::OffloadMode::Auto => "software",
            };
            let text = format!("{} has SPI {into} in and {out} out, in {offload}{device}{simulated}", sa.name);
            return Step::ok(NAME, text);
        }
        (None, Some(_)) => format!("the inbound SA {into}"),
        (Some(_), None) => format!("the outbound SA {out}"),
        (None, None) => format!("either SA ({into} in, {out} out)"),
    };
    let text = format!("the data path does not hold {lost} of {}", sa.name);
    let fix = format!("wait for it to be installed, or run swanctl --rekey --child {}", sa.child.name);
    Step::broken(NAME, Code::StateLost, text, fix)
}

/// The device that holds the SAs, or was to hold them, is down.
fn device_down(facts: &Facts, sa: &Live<'_>) -> Option<Step> {
    let held = sa.outbound.as_ref().or(sa.inbound.as_ref()).map(|counted| counted.after.device);
    let Device { name, state, .. } = facts.devices.get(held.or(sa.spec.map(|spec| spec.device))?)?;
    let (what, fix) = match state {
        DeviceState::Up => return None,
        DeviceState::Down => ("is down", format!("bring {name} up; its SAs are made afresh then")),
        DeviceState::Gone => {
            ("was removed", format!("bring {name} back, or let routing lead to the peer through another device"))
        }
    };
    let text = format!("{name}, the device of {}, {what} and carries nothing", sa.name);
    Some(Step::broken(StepName::Sa, Code::DeviceDown, text, fix))
}

/// Limits that were reached, or what is left.
pub(super) fn limits(sa: &Live<'_>) -> Option<Step> {
    const NAME: StepName = StepName::Limits;
    for (counted, what) in [(&sa.outbound, "outbound"), (&sa.inbound, "inbound")] {
        if let Some(unit) = counted.as_ref().and_then(|counted| counted.after.hard_expired) {
            let unit = match unit {
                ipsec::LimitUnit::Time => "time",
                ipsec::LimitUnit::Bytes => "octets",
                ipsec::LimitUnit::Packets => "packets",
            };
            let text = format!("the {what} SA of {} has reached its hard limit of {unit} and carries nothing", sa.name);
            let fix = "let rekeying come before the limit (rekey_time, rekey_bytes, rekey_packets)";
            return Some(Step::broken(NAME, Code::HardExpired, text, fix));
        }
    }
    let (outbound, spec) = (sa.outbound.as_ref()?, sa.spec?);
    let Volume { bytes, packets, .. } = spec.limits.hard;
    let mut left = Vec::new();
    left.extend(packets.map(|limit| format!("{} packets", limit.saturating_sub(outbound.after.packets))));
    left.extend(bytes.map(|limit| format!("{} octets", limit.saturating_sub(outbound.after.bytes))));
    left.extend(sa.child.life_seconds.map(|seconds| format!("{seconds} s")));
    (!left.is_empty()).then(|| Step::ok(NAME, format!("{} to the hard limit", left.join(", "))))
}

/// Packets without any answer from which on that means something.
const MANY: u64 = 3;
/// Silence for so many seconds while packets leave means something.
const SILENCE: u64 = 10;

/// What left and what came.
pub(super) fn outbound_counters(facts: &Facts, sa: &Live<'_>) -> Option<Step> {
    const NAME: StepName = StepName::Counters;
    let (inbound, outbound) = (sa.inbound.as_ref()?, sa.outbound.as_ref()?);
    if let Some(step) = dropped(facts, &OUTBOUND) {
        return Some(step);
    }
    let text = format!("out {}, in {}", outbound.words(), inbound.words());
    let never = inbound.after.packets == 0 && outbound.after.packets >= MANY;
    let silent = inbound.moved() == 0 && inbound.after.idle_seconds.is_some_and(|idle| idle >= SILENCE);
    let sends = outbound.moved() > 0 || outbound.after.idle_seconds.is_some_and(|idle| idle < SILENCE);
    if !(never || (silent && sends)) {
        return Some(Step::ok(NAME, text));
    }
    let text = format!("packets leave on {} and none come back: {text}", sa.name);
    let fix = format!("{} and that the peer's side answers", through(sa));
    // While IKE is heard the peer runs, and only ESP is missing.
    let fix = match sa.ike.heard_seconds {
        quiet @ SILENCE.. => {
            let remote = sa.ike.remote.ip();
            format!(
                "see that {remote} still runs, for its last IKE message is {quiet} s old (dpd_delay has that watched), then {fix}"
            )
        }
        0..SILENCE => fix,
    };
    Some(Step::broken(NAME, Code::OneWay, text, fix))
}

/// What came, and what of it was dropped.
pub(super) fn inbound_counters(facts: &Facts, sa: &Live<'_>) -> Option<Step> {
    const NAME: StepName = StepName::Counters;
    let inbound = sa.inbound.as_ref()?;
    if let Some(step) = dropped(facts, &INBOUND) {
        return Some(step);
    }
    let text = format!("in {}", inbound.words());
    let age = sa.child.installed_seconds.unwrap_or_default();
    if inbound.after.packets > 0 || age < MANY {
        return Some(Step::ok(NAME, text));
    }
    let text = format!("no packet has come on {} in the {age} s since it is installed", sa.name);
    Some(Step::broken(NAME, Code::NothingArrives, text, format!("see that the peer sends, and {}", through(sa))))
}

/// What has to get through for ESP, by its form (RFC 3948).
fn through(sa: &Live<'_>) -> String {
    let remote = sa.ike.remote;
    if sa.child.encap {
        format!(
            "see that ESP in UDP between our port {} and {remote} gets through firewalls and NAT both ways",
            sa.ike.local.port()
        )
    } else {
        format!(
            "see that ESP (IP protocol 50) to and from {} gets through both ways, or set encap = yes to send it in UDP 4500",
            remote.ip()
        )
    }
}

/// A reason for which the data path drops, what it means, and what repairs it.
type Reason = (&'static str, &'static str, &'static str);

const OUTBOUND: [Reason; 13] = [
    ("send-failed", "the system refuses to send them", "see the log, `ip -s link` and the firewall's output chain"),
    ("no-socket", "no socket has the SA's local address and port", "see [ike] listen and nat_port"),
    ("no-outbound-sa", "their policy has no SA", "wait for the SA to be installed, or rekey the child"),
    ("hold-full", "too many wait for an SA", "see why the child does not come up"),
    (
        "XfrmOutPolBlock",
        "no policy protects them and the guard, or a policy that discards, takes them",
        "see that the child is up and that its selectors hold what is sent",
    ),
    ("XfrmOutNoStates", "their policy has no SA", "wait for the SA to be installed, or rekey the child"),
    (
        "XfrmOutError",
        "the kernel or the device does not take them",
        "send smaller packets without options; in a device, let routing lead out of the device that holds the SA",
    ),
    ("XfrmOutBundleGenError", "no route leads their ESP to the peer", "see the route to the peer"),
    ("XfrmOutStateProtoError", "encryption fails", "see the kernel's log"),
    ("XfrmOutStateSeqError", "the SA has used up its sequence numbers", "rekey the child"),
    ("XfrmOutStateExpired", "the SA has reached its hard limit", "rekey the child"),
    ("XfrmOutPolError", "their policy was just changed", "ask again in a moment"),
    (
        "XfrmAcquireError",
        "too many wait for an SA, or nobody is there to be asked",
        "see why the child does not come up",
    ),
];
const INBOUND: [Reason; 17] = [
    ("selector-mismatch", "what is inside is not what was agreed on", "let the peer send only what its selectors hold"),
    (
        "replay",
        "their numbers are known or too old",
        "widen replay_window where the path reorders, or look for who repeats them",
    ),
    (
        "integrity",
        "their integrity check fails",
        "rekey the child; if it goes on something changes the packets on the way",
    ),
    ("unknown-spi", "nobody here has their SPI", "let the peer close its old SAs: terminate the tunnel there"),
    ("malformed-payload", "what is inside makes no sense", "see the peer's implementation"),
    (
        "fragment-with-ports",
        "fragments show no ports, which the selectors ask for",
        "leave ports out of the selectors or keep packets small",
    ),
    ("delivery-failed", "the tunnel device does not take them", "see the log and `ip -s link`"),
    ("XfrmInNoStates", "nobody here has their SPI", "let the peer close its old SAs: terminate the tunnel there"),
    (
        "XfrmInStateProtoError",
        "their integrity check fails",
        "rekey the child; if it goes on something changes the packets on the way",
    ),
    (
        "XfrmInStateSeqError",
        "their numbers are known or too old",
        "widen replay_window where the path reorders, or look for who repeats them",
    ),
    (
        "XfrmInStateMismatch",
        "they come in the other form of ESP, in UDP or not, than was agreed on",
        "set encap = yes at both ends, or leave it out at both",
    ),
    (
        "XfrmInTmplMismatch",
        "they are in clear, or came on an SA of another child, and their policy wants them protected",
        "let the peer send them through this child only",
    ),
    (
        "XfrmInPolBlock",
        "they are in clear and the guard takes them",
        "see that the peer's child is up and protects them",
    ),
    ("XfrmInNoPols", "no policy holds what is inside", "let the peer send only what its selectors hold"),
    ("XfrmInStateExpired", "their SA has reached its hard limit", "rekey the child"),
    ("XfrmInStateModeError", "what is inside makes no sense", "see the peer's implementation"),
    ("XfrmInHdrError", "they make no sense", "see the peer's implementation"),
];

/// Packets that are being dropped while we look.
fn dropped(facts: &Facts, reasons: &[Reason]) -> Option<Step> {
    let moving = |(reason, meaning, fix): &Reason| {
        let drops: &Drops = facts.drops.iter().find(|drops| drops.reason == *reason && drops.moved() > 0)?;
        let text = format!(
            "the data path drops packets, {} in {} ms: {meaning} ({reason}, {} so far)",
            drops.moved(),
            facts.sampled_ms,
            drops.after
        );
        Some(Step::broken(StepName::Counters, Code::Dropped, text, *fix))
    };
    reasons.iter().find_map(moving)
}
