//! The configured child that the packet needs: up, coming, or why not.

use super::facts::{ChildFacts, Facts};
use super::report::{Code, Step, StepName};
use crate::snapshot::{ConfiguredState, IkeSaState};
use crate::{Cause, CauseKind, Identity};

const NAME: StepName = StepName::Child;

pub(super) fn step(facts: &Facts, child: &ChildFacts) -> Step {
    let (name, failing) = (child.name(), child.status.failures > 0);
    match (&child.status.state, &child.status.last_cause) {
        (ConfiguredState::Up, _) => Step::ok(NAME, format!("{name} is up")),
        (ConfiguredState::Refused(reason), _) => {
            let text = format!("{name} cannot be used as configured: {reason}");
            Step::broken(NAME, Code::Refused, text, "correct the configuration and load it again")
        }
        (ConfiguredState::Trapped | ConfiguredState::Shunt, last) => match last.as_ref().filter(|_| failing) {
            Some(last) => failed(facts, child, last, "its last attempt failed"),
            None => Step::ok(NAME, format!("{name} waits for traffic: the first packet asks for it and is held")),
        },
        (ConfiguredState::Connecting, last) => match last.as_ref().filter(|_| failing) {
            Some(last) => failed(facts, child, last, "it is tried again just now"),
            None => connecting(facts, child),
        },
        (ConfiguredState::RetryIn(seconds), Some(last)) => {
            failed(facts, child, last, &format!("the next attempt comes in {seconds} s"))
        }
        (ConfiguredState::Down, Some(last)) => failed(facts, child, last, "nothing tries it again by itself"),
        (ConfiguredState::RetryIn(seconds), None) => {
            let text = format!("{name} is not up; its attempt comes in {seconds} s");
            Step::broken(NAME, Code::Connecting, text, "wait for it, or initiate it with swanctl --initiate")
        }
        (ConfiguredState::Down, None) => not_started(child),
    }
}

fn not_started(child: &ChildFacts) -> Step {
    let (name, short) = (child.name(), &child.child.name);
    let text = format!("{name} is not up and nothing asks for it: no start_action, no trap, no peer that came");
    let fix = format!("run swanctl --initiate --child {short}, or set start_action = trap or start");
    Step::broken(NAME, Code::NotStarted, text, fix)
}

/// An IKE SA is under way and nothing has failed yet.
fn connecting(facts: &Facts, child: &ChildFacts) -> Step {
    let name = child.name();
    let coming = |state| matches!(state, IkeSaState::Created | IkeSaState::Connecting);
    let ike = facts.ike_sas.iter().find(|ike| *ike.connection == *child.connection.name && coming(ike.state));
    match ike.filter(|ike| ike.repeats > 0) {
        Some(ike) => {
            let text = format!(
                "{name} is being established and the peer {} has not answered: our request was repeated {}, for {} s by now",
                ike.remote.ip(),
                times(ike.repeats),
                ike.waiting_seconds.unwrap_or_default()
            );
            Step::broken(NAME, Code::PeerUnreachable, text, reach(&ike.remote.ip().to_string()))
        }
        None => {
            let text = format!("{name} is being established just now");
            Step::broken(NAME, Code::Connecting, text, "ask again in a moment")
        }
    }
}

fn failed(facts: &Facts, child: &ChildFacts, (time, cause): &(u64, Cause), next: &str) -> Step {
    let (code, fix) = remedy(facts, child, cause.kind);
    let words = cause.text.trim_end_matches('.');
    let text = format!("{} is not up: {words} ({}), {next}", child.name(), clock(*time));
    Step::broken(NAME, code, text, fix)
}

/// What is wrong in one word, and what repairs it.
fn remedy(facts: &Facts, child: &ChildFacts, kind: CauseKind) -> (Code, String) {
    let outer = facts.outer.iter().find(|outer| outer.connection == child.connection.name);
    let peer = outer.and_then(|outer| outer.remote).map_or_else(|| "the peer".to_owned(), |remote| remote.to_string());
    let short = &child.child.name;
    let initiate = format!("run swanctl --initiate --child {short}");
    let start = format!("{initiate}, or set start_action or close_action = trap or start");
    match kind {
        CauseKind::Operator => (Code::ClosedByOperator, initiate),
        CauseKind::PeerDeleted | CauseKind::Replaced => (Code::ClosedByPeer, start),
        CauseKind::Inactive => (Code::ClosedIdle, start),
        CauseKind::HardLimit => (
            Code::HardExpired,
            format!("let rekeying come before the limit (rekey_time, rekey_bytes, rekey_packets), and {start}"),
        ),
        CauseKind::PeerUnreachable => (Code::PeerUnreachable, reach(&peer)),
        CauseKind::NoAddress => (Code::NoPeerAddress, "correct remote_addrs, name resolution or routing".to_owned()),
        CauseKind::AuthenticationFailed => (
            Code::AuthenticationFailed,
            format!("give both ends the same secret and matching identities ({})", identities(child)),
        ),
        CauseKind::NoSecret => (Code::NoSecret, format!("add a secret for {} and load it", identities(child))),
        CauseKind::NoProposal => (
            Code::NoProposal,
            "give both ends a proposal in common (proposals for the IKE SA, esp_proposals for the child)".to_owned(),
        ),
        CauseKind::SelectorsUnacceptable => {
            (Code::SelectorsUnacceptable, "let local_ts and remote_ts of both ends mirror each other".to_owned())
        }
        CauseKind::NoConfiguration | CauseKind::PeerError | CauseKind::ProtocolViolation => {
            (Code::PeerRefuses, format!("see the log of {peer} for its reason"))
        }
        CauseKind::OffloadFailed => {
            (Code::BackendRefused, "see cygnet doctor for what the device can carry".to_owned())
        }
        CauseKind::DeviceLost => (Code::DeviceLost, "see cygnet doctor for the state of the device".to_owned()),
        CauseKind::Reload | CauseKind::Rekeyed | CauseKind::CollisionLost | CauseKind::Shutdown => {
            (Code::Failed, start)
        }
        CauseKind::HistoryFull => {
            let fix =
                "make room for the spool of the history, or have its database take events (history.url, see the log)";
            (Code::Failed, fix.to_owned())
        }
        CauseKind::ScriptFailed => (Code::Failed, "see the log for what the updown script has said".to_owned()),
        CauseKind::Internal => (Code::Failed, "see the log and report what it says".to_owned()),
    }
}

fn identities(child: &ChildFacts) -> String {
    let id = |rounds: &[crate::AuthRound]| match rounds.first().map(|round| &round.id) {
        None | Some(Identity::Any) => "%any".to_owned(),
        Some(id) => id.to_string(),
    };
    format!("{} and {}", id(&child.connection.local), id(&child.connection.remote))
}

/// What to look at when a peer does not answer.
pub(super) fn reach(peer: &str) -> String {
    format!("see that {peer} runs and that UDP 500 and 4500 get through both ways")
}

/// `once`, `twice`, `3 times`.
pub(super) fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// Seconds since the epoch as a time of day.
fn clock(epoch: u64) -> String {
    let second = epoch % 86_400;
    format!("at {:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}
