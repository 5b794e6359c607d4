//! What must be in the store: after the last commit, and after the one that is under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use levada_core::OriginId;

use super::{cuts::Finding, events::Events};

/// A counter: part, counter, reason.
pub(super) type CountKey = (String, &'static str, String);

/// Everything that a store holds, as a user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    /// The numbers of the events in each channel. They rise in the order of the puts.
    pub(super) channels: Vec<BTreeSet<u64>>,
    /// Part and key to value.
    pub(super) marks: BTreeMap<(String, String), Vec<u8>>,
    /// The number of the event of each dead letter, in order; the oldest may have been dropped.
    pub(super) letters: Vec<u64>,
    pub(super) counts: BTreeMap<CountKey, u64>,
}

impl State {
    pub(super) fn count(&mut self, part: &str, counter: &'static str, amount: u64) {
        if amount > 0 {
            let key = (part.to_owned(), counter, String::new());
            *self.counts.entry(key).or_default() += amount;
        }
    }
}

/// What the store was asked to do, and what it said it had done.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// What is on disk for certain.
    pub(super) committed: State,
    /// What will be when everything that waits is committed.
    pub(super) staged: State,
    pub(super) events: Events,
    /// Dead letters that wait: those of settlements are written before those of puts.
    pub(super) own_letters: Vec<u64>,
    pub(super) put_letters: Vec<u64>,
    /// Where each event was seen: channel and number to position and id. They never change.
    seen: HashMap<(usize, u64), (u64, OriginId)>,
    /// The chain at a position of a channel, once it was seen there.
    pub(super) chains: BTreeMap<(usize, u64), u64>,
    /// Whose an id is.
    owners: HashMap<OriginId, u64>,
}

impl Model {
    pub(super) fn new(channels: usize) -> Self {
        let empty = State {
            channels: vec![BTreeSet::new(); channels],
            ..State::default()
        };
        Self {
            committed: empty.clone(),
            staged: empty,
            ..Self::default()
        }
    }

    /// The events that a lease can find: committed, and not settled since.
    pub(super) fn in_memory(&self, channel: usize) -> impl Iterator<Item = u64> {
        let (there, left) = (
            &self.committed.channels[channel],
            &self.staged.channels[channel],
        );
        there.intersection(left).copied()
    }

    /// Everything that waited is on disk; gives how many events were put and settled.
    pub(super) fn commit(&mut self) -> (u64, u64) {
        let (mut put, mut settled) = (0, 0);
        for (before, after) in self.committed.channels.iter().zip(&self.staged.channels) {
            put += after.difference(before).count() as u64;
            settled += before.difference(after).count() as u64;
        }
        self.committed.clone_from(&self.staged);
        self.own_letters.clear();
        self.put_letters.clear();
        (put, settled)
    }

    /// Brings the dead letters that wait into the order in which they are written.
    pub(super) fn order_letters(&mut self) {
        self.staged.letters.clone_from(&self.committed.letters);
        self.staged.letters.extend(&self.own_letters);
        self.staged.letters.extend(&self.put_letters);
    }

    /// Takes what was found after a restart: it must be the last commit, or the one that was under
    /// way, whole. Says whether it was the latter.
    pub(super) fn settle_on(&mut self, found: State) -> Result<bool, Finding> {
        let kept = found == self.staged;
        if !kept && found != self.committed {
            return Err(self.explain(&found));
        }
        let in_flight = kept && self.staged != self.committed;
        self.committed = found;
        self.staged.clone_from(&self.committed);
        self.own_letters.clear();
        self.put_letters.clear();
        Ok(in_flight)
    }

    /// Notes where an event lies; it must not have moved.
    pub(super) fn saw(
        &mut self,
        channel: usize,
        number: u64,
        position: u64,
        id: OriginId,
    ) -> Result<(), Finding> {
        let before = self.seen.entry((channel, number)).or_insert((position, id));
        if *before != (position, id) {
            let was = format!(
                "event {number} was at {before:?}, is at {:?}",
                (position, id)
            );
            return Err(Finding::Moved(was));
        }
        let owner = *self.owners.entry(id).or_insert(number);
        if owner != number {
            let twice = format!("events {owner} and {number} have the id {id}");
            return Err(Finding::Moved(twice));
        }
        Ok(())
    }

    fn explain(&self, found: &State) -> Finding {
        let (before, after) = (&self.committed, &self.staged);
        for (channel, numbers) in found.channels.iter().enumerate() {
            let (b, a) = (&before.channels[channel], &after.channels[channel]);
            let lost: Vec<_> = b.intersection(a).filter(|n| !numbers.contains(n)).collect();
            if !lost.is_empty() {
                return Finding::Lost(format!("channel {channel}: {lost:?}"));
            }
            let risen: Vec<_> = numbers
                .iter()
                .filter(|n| !b.contains(n) && !a.contains(n))
                .collect();
            if !risen.is_empty() {
                return Finding::Risen(format!("channel {channel}: {risen:?}"));
            }
        }
        let half = |what: &str, b: String, a: String, f: String| {
            Finding::Half(format!("{what}: before {b}, after {a}, found {f}"))
        };
        let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
        if found.marks != before.marks && found.marks != after.marks {
            return half(
                "marks",
                text(&before.marks),
                text(&after.marks),
                text(&found.marks),
            );
        }
        if found.letters != before.letters && found.letters != after.letters {
            return half(
                "dead letters",
                text(&before.letters),
                text(&after.letters),
                text(&found.letters),
            );
        }
        if found.counts != before.counts && found.counts != after.counts {
            return half(
                "counters",
                text(&before.counts),
                text(&after.counts),
                text(&found.counts),
            );
        }
        half("the store", text(before), text(after), text(found))
    }
}
