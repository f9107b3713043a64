//! The situations that schedules consist of.

use super::generate::Generator;
use super::schedule::{Action, Change, Fits, Kind, Op, Unit};
use super::setup::Pairing;
use crate::Who;

type Motif = fn(&mut Generator<'_>, &Pairing) -> Vec<Action>;

/// What is chosen from; what stands here more often happens more often.
pub(super) const WEIGHTED: &[Motif] = &[
    crossing, crossing, crossing, crossing, crossing, crossing, crossing, crossing, commands, commands, commands,
    rekeys, rekeys, limits, limits, cut, refused, device, restart, sleep, reload, traps, link, packets, delays, detour,
    guesses, guesses, bounce, spam, both_first, old_limits, quick,
];

impl Generator<'_> {
    /// Something that one end may begin.
    fn act_of(&mut self, who: Who, pairing: &Pairing) -> Op {
        let name = pairing.name.to_owned();
        match self.dice.below(16) {
            0..=5 => Op::RekeyChild(who, name, "net".into()),
            6..=9 => Op::RekeyIke(who, name),
            10 => Op::CloseChild(who, name, "net".into()),
            11 => Op::CloseIke(who, name),
            12 | 13 => {
                let child = self.child();
                Op::Initiate(who, name, child)
            }
            14 => Op::Hard(who, self.number(4), Unit::Packets),
            _ => Op::Soft(who, self.number(4), Unit::Bytes),
        }
    }

    fn fits(&mut self, pairing: &Pairing) -> Fits {
        let from = match self.dice.below(3) {
            0 => None,
            _ => Some(self.end(pairing)),
        };
        let kind = match self.dice.below(7) {
            0 => Kind::Any,
            1 | 2 => Kind::CreateRequest,
            3 | 4 => Kind::CreateResponse,
            5 => Kind::InformRequest,
            _ => Kind::InformResponse,
        };
        Fits { from, kind }
    }
}

/// Both ends begin something, and the messages arrive in a random order.
fn crossing(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let mut actions = Vec::new();
    let hold = match dice.number(3) {
        0 => dice.fits(pairing),
        _ => Fits { from: None, kind: Kind::Any },
    };
    actions.push(dice.after(0, Op::Hold(hold)));
    for who in pairing.ends {
        for _ in 0..2 {
            let octet = u8::try_from(dice.number(256)).unwrap_or(0);
            actions.push(dice.after(0, Op::Nonce(who, octet)));
        }
    }
    let same = dice.number(2) == 0;
    for who in pairing.ends {
        let op = match same {
            true => Op::RekeyChild(who, pairing.name.into(), "net".into()),
            false => dice.act_of(who, pairing),
        };
        actions.push(dice.after(0, op));
    }
    for _ in 0..2 + dice.number(9) {
        let nth = dice.number(4);
        let op = match dice.number(16) {
            0 => Op::Lose(nth),
            1 => {
                let who = dice.end(pairing);
                dice.act_of(who, pairing)
            }
            2 => Op::Packets(dice.end(pairing)),
            3 => Op::OldLimit(dice.end(pairing), dice.number(2) == 0),
            _ => Op::LetGo(nth),
        };
        let pause = [0, 0, 1, 60][dice.number(4)];
        actions.push(dice.after(pause, op));
    }
    actions.push(dice.after(0, Op::Flow));
    for _ in 0..6 {
        let nth = dice.number(4);
        actions.push(dice.after(0, Op::LetGo(nth)));
    }
    actions.push(dice.later(2_000, Op::Wait));
    actions
}

fn commands(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    (0..2 + dice.number(3))
        .map(|_| {
            let who = dice.end(pairing);
            let op = dice.act_of(who, pairing);
            dice.soon(op)
        })
        .collect()
}

fn rekeys(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let mut actions = Vec::new();
    for _ in 0..1 + dice.number(3) {
        let who = dice.end(pairing);
        let op = match dice.number(3) {
            0 => Op::RekeyIke(who, pairing.name.into()),
            _ => Op::RekeyChild(who, pairing.name.into(), dice.child()),
        };
        actions.push(dice.soon(op));
        actions.push(dice.later(2_000, Op::Packets(who)));
    }
    actions
}

fn limits(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let unit = [Unit::Time, Unit::Bytes, Unit::Packets][dice.number(3)];
    let nth = dice.number(4);
    let mut actions = vec![dice.soon(Op::Soft(who, nth, unit))];
    if dice.number(3) == 0 {
        actions.push(dice.soon(Op::Hard(who, nth, unit)));
    }
    if dice.number(3) == 0 {
        let other = dice.end(pairing);
        actions.push(dice.soon(Op::Soft(other, nth, unit)));
    }
    actions
}

/// The responder of a rekeying sees a limit of the old SA, or the end that has begun it lets the DELETE get lost.
fn old_limits(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let [one, other] = pairing.ends;
    let (rekeyer, responder) = if dice.number(2) == 0 { (one, other) } else { (other, one) };
    let late = match dice.number(3) {
        0 => Fits { from: Some(rekeyer), kind: Kind::InformRequest },
        1 => Fits { from: Some(responder), kind: Kind::CreateResponse },
        _ => Fits { from: Some(responder), kind: Kind::InformResponse },
    };
    let hard = dice.number(2) == 0;
    let mut actions = vec![
        dice.soon(Op::Hold(late)),
        dice.after(0, Op::RekeyChild(rekeyer, pairing.name.into(), "net".into())),
        dice.after(150, Op::OldLimit(responder, hard)),
    ];
    if dice.number(2) == 0 {
        let who = dice.end(pairing);
        actions.push(dice.soon(Op::CloseChild(who, pairing.name.into(), "net".into())));
    }
    match dice.number(8) {
        // The DELETE is never answered.
        0 => actions.push(dice.after(60_000, Op::Flow)),
        _ => actions.push(dice.later(400, Op::Flow)),
    }
    for _ in 0..4 {
        let nth = dice.number(3);
        actions.push(dice.soon(Op::LetGo(nth)));
    }
    actions
}

fn cut(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let [one, other] = pairing.ends;
    let mut actions = vec![dice.soon(Op::Cut(one, other))];
    if dice.number(2) == 0 {
        actions.push(dice.after(0, Op::Cut(other, one)));
    }
    actions.extend(commands(dice, pairing));
    actions.push(match dice.number(3) {
        0 => dice.later(60_000, Op::Mend),
        _ => dice.later(3_000, Op::Mend),
    });
    actions
}

/// The link bounces while an IKE SA is rekeyed: it dies, a fresh one comes up, and a late answer arrives.
fn bounce(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let other = pairing.ends[0] + pairing.ends[1] - who;
    let kind = [Kind::CreateResponse, Kind::CreateRequest, Kind::Any][dice.number(3)];
    let op = match dice.number(3) {
        0 => Op::RekeyChild(who, pairing.name.into(), "net".into()),
        _ => Op::RekeyIke(who, pairing.name.into()),
    };
    vec![
        dice.soon(Op::Hold(Fits { from: Some(other), kind })),
        dice.after(0, op),
        dice.after(40_000, Op::Flow),
        dice.later(30_000, Op::Initiate(pairing.ends[0], pairing.name.into(), "net".into())),
        dice.later(2_000, Op::LetGo(0)),
        dice.soon(Op::LetGo(1)),
        dice.soon(Op::LetGo(0)),
    ]
}

fn refused(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let mut actions = vec![dice.soon(Op::Refuse(who))];
    match dice.number(3) {
        0 => {
            for who in pairing.ends {
                actions.push(dice.after(0, Op::RekeyChild(who, pairing.name.into(), "net".into())));
            }
        }
        1 => actions.push(dice.soon(Op::RekeyChild(who, pairing.name.into(), "net".into()))),
        _ => actions.extend(commands(dice, pairing)),
    }
    actions
}

fn device(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let mut actions = Vec::new();
    if dice.number(2) == 0 {
        let rekeyer = dice.end(pairing);
        actions.push(dice.soon(Op::RekeyChild(rekeyer, pairing.name.into(), "net".into())));
    }
    let op = match dice.number(4) {
        0 | 1 => Op::LoseSa(who, dice.number(4)),
        2 => Op::LoseDevice(who),
        _ => Op::DeviceGone(who),
    };
    actions.push(dice.later(60, op));
    actions.push(dice.later(5_000, Op::Wait));
    actions
}

fn restart(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let mut actions = Vec::new();
    if dice.number(2) == 0 {
        actions.push(dice.soon(Op::Shutdown(who)));
        actions.push(dice.later(30_000, Op::Wait));
    }
    actions.push(dice.soon(Op::Restart(who)));
    actions
}

fn sleep(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let seconds = [1, 10, 60, 600][dice.number(4)];
    let op = if dice.number(2) == 0 { Op::Suspend(who, seconds) } else { Op::Jump(who, seconds) };
    let mut actions = commands(dice, pairing);
    actions.push(dice.soon(op));
    actions.extend(commands(dice, pairing));
    actions
}

fn reload(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let change = match dice.number(10) {
        0 | 1 => Change::Nothing,
        2 => Change::Liveness(20 + dice.dice.below(100)),
        3 => Change::Lifetime(200 + dice.dice.below(600)),
        4 | 5 => Change::Methods,
        6 | 7 => Change::Selectors,
        8 => Change::Removed,
        _ => Change::Restored,
    };
    let mut actions = Vec::new();
    if dice.number(2) == 0 {
        let child = dice.child();
        actions.push(dice.soon(Op::Initiate(who, pairing.name.into(), child)));
    }
    actions.push(dice.soon(Op::Reload(who, pairing.name.into(), change)));
    actions.extend(commands(dice, pairing));
    if matches!(change, Change::Removed | Change::Selectors) && dice.number(2) == 0 {
        actions.push(dice.soon(Op::Reload(who, pairing.name.into(), Change::Restored)));
    }
    actions
}

fn traps(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let (who, child) = (dice.end(pairing), dice.child());
    let name = || pairing.name.to_owned();
    let mut actions = vec![
        dice.soon(Op::Install(who, name(), child.clone())),
        dice.soon(Op::Acquire(who, name(), child.clone())),
        dice.soon(Op::Acquire(who, name(), child.clone())),
    ];
    if dice.number(3) == 0 {
        actions.push(dice.soon(Op::Uninstall(who, name(), child)));
    }
    actions
}

fn link(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    if dice.number(3) == 0 {
        return vec![dice.soon(Op::Rebind(0))];
    }
    if dice.number(2) == 0 {
        let fits = dice.fits(pairing);
        return vec![dice.soon(Op::DropNext(fits))];
    }
    let mut share = || u32::try_from(dice.number(200)).unwrap_or(0);
    let (loss, duplicates, jitter) = (share(), share(), share());
    vec![dice.soon(Op::Link(loss, duplicates, jitter.into()))]
}

fn packets(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let mut actions: Vec<_> = pairing.ends.iter().map(|who| dice.soon(Op::Packets(*who))).collect();
    actions.push(dice.later(8_000, Op::Wait));
    actions
}

fn delays(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let who = dice.end(pairing);
    let millis = dice.dice.below(200);
    match dice.number(3) {
        0 => vec![dice.soon(Op::Reports(who, millis))],
        1 => vec![dice.soon(Op::Work(who, millis))],
        _ => {
            let mut actions = vec![dice.soon(Op::HoldBackend(who))];
            actions.extend(commands(dice, pairing));
            actions.push(dice.later(3_000, Op::ReleaseBackend(who)));
            actions
        }
    }
}

/// One end comes to prefer another key exchange method: the next rekeyings go the long way round.
fn detour(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let mut actions = Vec::new();
    for who in pairing.ends {
        let op = match dice.number(2) {
            0 => Op::RekeyIke(who, pairing.name.into()),
            _ => Op::RekeyChild(who, pairing.name.into(), "net".into()),
        };
        actions.push(dice.after(0, op));
    }
    actions
}

/// What one end or both guess is refused: the rekeying of the IKE SA goes the long way round.
fn guesses(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let [one, other] = pairing.ends;
    let lacks = dice.number(2) == 0;
    let mut actions = Vec::new();
    if dice.number(3) > 0 {
        actions.push(dice.after(0, Op::Computes(one, Some(lacks))));
    }
    actions.push(dice.after(0, Op::Computes(other, Some(!lacks))));
    if dice.number(4) > 0 {
        actions.push(dice.after(0, Op::Hold(Fits { from: None, kind: Kind::Any })));
        actions.push(dice.after(0, Op::RekeyIke(one, pairing.name.into())));
        actions.push(dice.after(0, Op::RekeyIke(other, pairing.name.into())));
        // Late in the first pair of exchanges or in the second.
        for _ in 0..4 + dice.number(7) {
            let nth = dice.number(3);
            let pause = [0, 1, 60][dice.number(3)];
            actions.push(dice.after(pause, Op::LetGo(nth)));
        }
        actions.push(dice.after(0, Op::Flow));
        for _ in 0..4 {
            let nth = dice.number(3);
            actions.push(dice.after(0, Op::LetGo(nth)));
        }
    } else {
        let who = dice.end(pairing);
        actions.push(dice.after(0, Op::RekeyIke(who, pairing.name.into())));
    }
    actions.push(dice.after(1_500, Op::Wait));
    actions.extend(pairing.ends.iter().map(|who| dice.after(0, Op::Computes(*who, None))));
    actions
}

/// Asking again and again while the peer is away.
fn spam(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let [one, other] = pairing.ends;
    let who = dice.end(pairing);
    let mut actions = vec![dice.soon(Op::Cut(one, other)), dice.after(0, Op::Cut(other, one))];
    if dice.number(2) == 0 {
        actions.push(dice.soon(Op::CloseIke(who, pairing.name.into())));
        actions.push(dice.after(30_000, Op::Wait));
    }
    for _ in 0..2 + dice.number(4) {
        actions.push(dice.soon(Op::Initiate(who, pairing.name.into(), "net".into())));
    }
    actions.push(dice.later(4_000, Op::Mend));
    actions.push(dice.later(4_000, Op::Wait));
    actions
}

/// Both ends set up the first IKE SA at once.
fn both_first(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let [one, other] = pairing.ends;
    vec![
        dice.soon(Op::CloseIke(one, pairing.name.into())),
        dice.after(500, Op::Initiate(one, pairing.name.into(), "net".into())),
        dice.after(0, Op::Initiate(other, pairing.name.into(), "net".into())),
        dice.later(1_000, Op::Wait),
    ]
}

/// Rekeyings close behind each other.
fn quick(dice: &mut Generator<'_>, pairing: &Pairing) -> Vec<Action> {
    let mut actions = Vec::new();
    for _ in 0..4 {
        let who = dice.end(pairing);
        actions.push(dice.later(120, Op::RekeyChild(who, pairing.name.into(), "net".into())));
        actions.push(dice.later(40, Op::Packets(who)));
    }
    actions
}
