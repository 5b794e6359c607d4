//! What must be in the store: after the last commit, and after the one that is under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use levada_core::{MarkWrite, OriginId};

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

/// What one put or one settlement changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// Whose marks and counts these are.
    pub(super) part: &'static str,
    /// Channels, and the events that they get.
    pub(super) added: Vec<(usize, Vec<u64>)>,
    /// Events that leave a channel.
    pub(super) removed: Vec<(usize, Vec<u64>)>,
    /// Part, counter, amount.
    pub(super) counts: Vec<(String, &'static str, u64)>,
    pub(super) marks: Vec<MarkWrite>,
    pub(super) letters: Vec<u64>,
    /// The dead letters of settlements are written before those of puts.
    pub(super) is_put: bool,
}

impl Change {
    /// Makes it so in a state, but for the dead letters.
    fn apply(&self, state: &mut State) {
        for (channel, numbers) in &self.added {
            state.channels[*channel].extend(numbers);
        }
        for (channel, numbers) in &self.removed {
            state.channels[*channel].retain(|number| !numbers.contains(number));
        }
        for (part, counter, amount) in &self.counts {
            state.count(part, counter, *amount);
        }
        for mark in &self.marks {
            let key = (self.part.to_owned(), mark.key.clone());
            match &mark.value {
                Some(value) => drop(state.marks.insert(key, value.to_vec())),
                None => drop(state.marks.remove(&key)),
            }
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
    /// What waits for the writer, in order.
    changes: Vec<(u64, Change)>,
    next_change: u64,
    /// Puts among them whose sources heard an error: stored with the rest, or not at all.
    doubtful: BTreeSet<u64>,
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
        self.changes.clear();
        self.doubtful.clear();
        (put, settled)
    }

    /// Something waits for the writer; gives its number.
    pub(super) fn stage(&mut self, change: Change) -> u64 {
        change.apply(&mut self.staged);
        self.next_change += 1;
        self.changes.push((self.next_change, change));
        self.order_letters();
        self.next_change
    }

    /// Something waits, and passes for committed: a planted bug.
    pub(super) fn stage_too_early(&mut self, change: Change) -> u64 {
        change.apply(&mut self.committed);
        self.stage(change)
    }

    /// The store says that nothing of it was stored.
    pub(super) fn take_back(&mut self, number: u64) {
        self.changes.retain(|(of, _)| *of != number);
        self.staged.clone_from(&self.committed);
        for (_, change) in &self.changes {
            change.apply(&mut self.staged);
        }
        self.order_letters();
    }

    /// Nobody knows whether it was stored.
    pub(super) fn doubt(&mut self, number: u64) {
        self.doubtful.insert(number);
    }

    fn order_letters(&mut self) {
        self.staged.letters.clone_from(&self.committed.letters);
        for puts in [false, true] {
            let changes = self.changes.iter().map(|(_, change)| change);
            let changes = changes.filter(|change| change.is_put == puts);
            let letters = changes.flat_map(|change| &change.letters);
            self.staged.letters.extend(letters);
        }
    }

    /// Takes what was found after a restart: it must be the last commit, or the one that was under
    /// way, whole; or what was settled alone, where the puts beside it failed. Says whether it was
    /// the latter.
    pub(super) fn settle_on(&mut self, found: State) -> Result<bool, Finding> {
        let doubtful = std::mem::take(&mut self.doubtful);
        if found != self.staged && found != self.committed {
            doubtful.into_iter().for_each(|put| self.take_back(put));
        }
        let kept = found == self.staged;
        if !kept && found != self.committed {
            return Err(self.explain(&found));
        }
        let in_flight = kept && self.staged != self.committed;
        self.committed = found;
        self.staged.clone_from(&self.committed);
        self.changes.clear();
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
