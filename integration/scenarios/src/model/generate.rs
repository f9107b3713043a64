//! Makes schedules: short motifs in a random order, each a situation of its own (crossing commands delivered in a random order, a cut, a
//! refusal, a device that loses its tables ...), until enough has happened.

use super::execute::Run;
use super::motifs;
use super::schedule::{Action, Op, Schedule, Setup};
use super::setup::{CHILDREN, Pairing};
use crate::{A, Dice, Who};

/// Inputs of a schedule at least.
pub const STEPS: u64 = 200;
/// Rekeys that both ends have told, at least.
pub const REKEYS: u64 = 5;
/// Operations of a schedule at least.
const OPERATIONS: usize = 60;
/// Rounds of healing and rekeying in which the number of rekeys must be reached.
const ROUNDS: usize = 30;

/// Makes the schedule of a seed while it is carried out in `run`, up to its end; what was made so far is in `actions` at any time.
///
/// # Panics
/// When an invariant does not hold.
pub fn generate(run: &mut Run, dice: &mut Dice, actions: &mut Vec<Action>) {
    let mut generator = Generator { dice, pairings: run.pairings.clone() };
    while actions.len() < OPERATIONS {
        let motif = generator.motif(run);
        carry_out(run, motif, actions);
    }
    for _ in 0..ROUNDS {
        if run.world.steps() >= STEPS && run.rekeys() >= REKEYS {
            return;
        }
        let motif = generator.plain_rekeys();
        carry_out(run, motif, actions);
    }
    run.world.fail("no rekeying comes to an end although nothing is in its way");
}

fn carry_out(run: &mut Run, motif: Vec<Action>, actions: &mut Vec<Action>) {
    for action in motif {
        actions.push(action);
        if let Some(action) = actions.last() {
            run.act(action);
        }
    }
}

/// A schedule without operations: the world of a seed.
pub fn begin(seed: u64) -> (Schedule, Dice) {
    let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
    let setup = setup(seed, &mut dice);
    (Schedule { setup, actions: Vec::new() }, dice)
}

fn setup(seed: u64, dice: &mut Dice) -> Setup {
    let peers = if dice.below(4) == 0 { 3 } else { 2 };
    let coin = |dice: &mut Dice| dice.below(2) == 0;
    let shards = (0..peers).map(|_| [1, 1, 2, 7][index(dice, 4)]).collect();
    let delays = |dice: &mut Dice| -> Vec<u64> {
        (0..peers).map(|_| if dice.below(2) == 0 { 0 } else { dice.below(50) }).collect()
    };
    let pfs = coin(dice).then(|| (0..peers).map(|_| dice.below(2) == 0).collect());
    let calm = coin(dice);
    Setup {
        seed,
        shards,
        second: dice.below(6) == 0,
        pfs,
        ike_methods: (0..peers).map(|_| dice.below(3) == 0).collect(),
        nat: dice.below(8) == 0,
        same_spis: dice.below(8) == 0,
        dpd: 40 + dice.below(80),
        tries: 2 + u32::try_from(dice.below(4)).unwrap(),
        ike_rekey: if dice.below(8) == 0 { 200 + dice.below(600) } else { 0 },
        reauth: if dice.below(8) == 0 { 150 + dice.below(600) } else { 0 },
        child_rekey: if dice.below(8) == 0 { 100 + dice.below(300) } else { 0 },
        work: delays(dice),
        reports: delays(dice),
        latency: 1 + dice.below(20),
        jitter: if calm { 0 } else { dice.below(100) },
        loss: if calm { 0 } else { u32::try_from(dice.below(150)).unwrap() },
        duplicates: if calm { 0 } else { u32::try_from(dice.below(150)).unwrap() },
    }
}

fn index(dice: &mut Dice, count: usize) -> usize {
    usize::try_from(dice.below(count as u64)).unwrap()
}

/// Throws the dice for motifs.
pub(super) struct Generator<'d> {
    pub(super) dice: &'d mut Dice,
    pub(super) pairings: Vec<Pairing>,
}

impl Generator<'_> {
    fn motif(&mut self, run: &Run) -> Vec<Action> {
        let pairing = self.pairing();
        if !run.is_up(&pairing) && self.dice.below(3) > 0 {
            return self.bring_up(run, &pairing);
        }
        let at = index(self.dice, motifs::WEIGHTED.len());
        motifs::WEIGHTED[at](self, &pairing)
    }

    /// Two connections of three are the first one: most collisions need the same peers again and again.
    fn pairing(&mut self) -> Pairing {
        let at = if self.dice.below(3) > 0 { 0 } else { index(self.dice, self.pairings.len()) };
        self.pairings[at].clone()
    }

    fn bring_up(&mut self, run: &Run, pairing: &Pairing) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.dice.below(2) == 0 {
            actions.push(self.after(0, Op::Mend));
        }
        for who in pairing.ends {
            if run.is_stopped(who) {
                actions.push(self.soon(Op::Restart(who)));
            }
        }
        let who = self.end(pairing);
        let child = self.child();
        actions.push(self.soon(Op::Initiate(who, pairing.name.into(), child)));
        let wait = self.dice.below(3_000);
        actions.push(self.after(wait, Op::Wait));
        actions
    }

    /// Nothing in the way, and rekeys of both kinds.
    fn plain_rekeys(&mut self) -> Vec<Action> {
        let first = self.pairings[0].clone();
        let name = first.name.to_owned();
        let mut actions =
            vec![self.after(0, Op::Heal), self.after(60_000, Op::Initiate(A, name.clone(), "net".into()))];
        for _ in 0..4 {
            let who = self.end(&first);
            actions.push(self.after(10_000, Op::RekeyChild(who, name.clone(), "net".into())));
            let who = self.end(&first);
            actions.push(self.after(10_000, Op::RekeyIke(who, name.clone())));
        }
        actions.push(self.after(10_000, Op::Wait));
        actions
    }

    pub(super) fn end(&mut self, pairing: &Pairing) -> Who {
        pairing.ends[index(self.dice, 2)]
    }

    pub(super) fn child(&mut self) -> String {
        let at = if self.dice.below(3) > 0 { 0 } else { 1 };
        CHILDREN[at].to_owned()
    }

    pub(super) fn after(&mut self, pause: u64, op: Op) -> Action {
        Action { pause, op }
    }

    /// At the same instant, within a round trip, or a little later.
    pub(super) fn soon(&mut self, op: Op) -> Action {
        let pause = match self.dice.below(6) {
            0..=2 => 0,
            3 | 4 => self.dice.below(60),
            _ => self.dice.below(1_500),
        };
        Action { pause, op }
    }

    /// A while later: up to so many milliseconds.
    pub(super) fn later(&mut self, most: u64, op: Op) -> Action {
        let pause = self.dice.below(most);
        Action { pause, op }
    }

    pub(super) fn number(&mut self, below: u64) -> usize {
        usize::try_from(self.dice.below(below)).unwrap()
    }
}
