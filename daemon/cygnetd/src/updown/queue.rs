//! The order of scripts: those about one peer under one connection one after the other, as charon has it; those of different peers side by side,
//! up to a limit, each peer in turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Calls that wait or run. `L` is what keeps an order of its own.
#[derive(Debug)]
pub(super) struct Queue<L, C> {
    waiting: HashMap<L, VecDeque<C>>,
    /// Of these, nothing runs and something waits.
    ready: VecDeque<L>,
    running: HashMap<u64, (L, C)>,
    count: usize,
    last: u64,
}

impl<L, C> Default for Queue<L, C> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), ready: VecDeque::new(), running: HashMap::new(), count: 0, last: 0 }
    }
}

impl<L: Clone + Eq + Hash, C> Queue<L, C> {
    /// One more call behind all others of its lane.
    pub(super) fn push(&mut self, lane: L, call: C) {
        self.count += 1;
        match self.waiting.get_mut(&lane) {
            Some(calls) => calls.push_back(call),
            None => {
                if !self.running.values().any(|(busy, _)| *busy == lane) {
                    self.ready.push_back(lane.clone());
                }
                self.waiting.insert(lane, [call].into());
            }
        }
    }

    /// The next call to run, unless there is none or `at_once` run already.
    pub(super) fn next(&mut self, at_once: usize) -> Option<(u64, &C)> {
        if self.running.len() >= at_once {
            return None;
        }
        let lane = self.ready.pop_front()?;
        let calls = self.waiting.get_mut(&lane)?;
        let call = calls.pop_front()?;
        if calls.is_empty() {
            self.waiting.remove(&lane);
        }
        self.count -= 1;
        self.last += 1;
        let (_, call) = self.running.entry(self.last).or_insert((lane, call));
        Some((self.last, call))
    }

    /// The call that runs under `id`.
    pub(super) fn running(&self, id: u64) -> Option<&C> {
        self.running.get(&id).map(|(_, call)| call)
    }

    /// A call has ended; the next of its lane may run.
    pub(super) fn ended(&mut self, id: u64) -> Option<C> {
        let (lane, call) = self.running.remove(&id)?;
        if self.waiting.contains_key(&lane) {
            self.ready.push_back(lane);
        }
        Some(call)
    }

    /// All that run, in the order in which they were begun.
    pub(super) fn all_running(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.running.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = C> + use<L, C> {
        self.ready.clear();
        self.count = 0;
        std::mem::take(&mut self.waiting).into_values().flatten()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    /// Nothing waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_keeps_its_order_and_lanes_take_turns() {
        let mut queue = Queue::default();
        for call in ["a1", "a2", "a3", "b1", "b2", "c1"] {
            queue.push(call.chars().next().unwrap(), call);
        }
        let mut begun = Vec::new();
        let mut running = VecDeque::new();
        while !queue.is_idle() {
            while let Some((id, call)) = queue.next(2) {
                begun.push(*call);
                running.push_back(id);
            }
            assert!(running.len() <= 2);
            queue.ended(running.pop_front().unwrap()).unwrap();
        }
        assert_eq!(begun, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn what_comes_while_its_lane_is_busy_waits() {
        let mut queue = Queue::default();
        queue.push("a", 1);
        let (first, _) = queue.next(9).unwrap();
        queue.push("a", 2);
        assert_eq!(queue.next(9), None);
        assert_eq!((queue.waiting(), queue.running(first)), (1, Some(&1)));
        assert_eq!(queue.ended(first), Some(1));
        assert_eq!(queue.ended(first), None, "only once");
        let (second, call) = queue.next(9).unwrap();
        assert_eq!((*call, queue.all_running()), (2, vec![second]));
        queue.push("a", 3);
        assert_eq!(queue.drain().collect::<Vec<_>>(), [3]);
        assert!(!queue.is_idle());
        queue.ended(second);
        assert!(queue.is_idle());
    }

    #[test]
    fn two_hundred_at_once_stay_within_the_limit() {
        let mut queue = Queue::default();
        for lane in 0..200 {
            queue.push(lane, "up");
            queue.push(lane, "down");
        }
        let (mut most, mut seen) = (0, HashMap::<u64, &str>::new());
        let mut running = VecDeque::new();
        while !queue.is_idle() {
            while let Some((id, call)) = queue.next(16) {
                seen.insert(id, call);
                running.push_back(id);
            }
            most = most.max(running.len());
            queue.ended(running.pop_front().unwrap());
        }
        assert_eq!((most, seen.len()), (16, 400));
    }
}
