//! Who an event is: origin ids, and the positions a store gives it.

use std::{fmt, sync::Arc};

/// 128 random bits: one life of a store. Written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Given once, at the first durable commit in a Levada store; never changes, never repeats.
///
/// Written `<incarnation>-<sequence>.<child>`; child 0 is the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId {
    pub incarnation: Incarnation,
    pub sequence: u64,
    pub child: u32,
}

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.incarnation, self.sequence, self.child)
    }
}

/// `count` events whose origin ids follow each other: `sequence`, `sequence + 1`, ... with the
/// same child number, or one sequence with children `child`, `child + 1`, ... if `children`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginRun {
    pub first: OriginId,
    pub count: u32,
    pub children: bool,
}

impl OriginRun {
    /// The id of the `n`-th event of the run, counted from 0.
    #[must_use]
    pub fn get(&self, n: u32) -> OriginId {
        if self.children {
            OriginId {
                child: self.first.child + n,
                ..self.first
            }
        } else {
            OriginId {
                sequence: self.first.sequence + u64::from(n),
                ..self.first
            }
        }
    }

    /// Whether `id` would be the next one of this run.
    fn continues(&self, id: OriginId) -> bool {
        self.get(self.count) == id
    }
}

/// The origin ids of a batch, as runs; empty before the first durable commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins(Option<Arc<[OriginRun]>>);

impl Origins {
    /// Origin ids from runs; runs of no events are left out.
    #[must_use]
    pub fn from_runs(runs: impl IntoIterator<Item = OriginRun>) -> Self {
        let runs: Vec<_> = runs.into_iter().filter(|run| run.count > 0).collect();
        Self((!runs.is_empty()).then(|| runs.into()))
    }

    /// Joins single ids to runs.
    #[must_use]
    pub fn from_ids(ids: impl IntoIterator<Item = OriginId>) -> Self {
        let mut runs: Vec<OriginRun> = Vec::new();
        for id in ids {
            match runs.last_mut() {
                Some(run) if run.count == 1 && !run.children && run.continues(id) => run.count = 2,
                Some(run) if run.count > 1 && run.continues(id) => run.count += 1,
                Some(run)
                    if run.count == 1
                        && OriginRun {
                            children: true,
                            ..*run
                        }
                        .continues(id) =>
                {
                    run.children = true;
                    run.count = 2;
                }
                _ => runs.push(OriginRun {
                    first: id,
                    count: 1,
                    children: false,
                }),
            }
        }
        Self::from_runs(runs)
    }

    /// Whether the events have no ids yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The runs, in the order of the events.
    #[must_use]
    pub fn runs(&self) -> &[OriginRun] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// The id of the `n`-th event.
    #[must_use]
    pub fn get(&self, mut n: usize) -> Option<OriginId> {
        for run in self.runs() {
            match u32::try_from(n) {
                Ok(at) if at < run.count => return Some(run.get(at)),
                _ => n -= run.count as usize,
            }
        }
        None
    }

    /// Every id, in the order of the events.
    pub fn iter(&self) -> impl Iterator<Item = OriginId> + '_ {
        self.runs()
            .iter()
            .flat_map(|run| (0..run.count).map(|n| run.get(n)))
    }
}

/// `count` events with the positions `first`, `first + 1`, ... in a lane of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionRun {
    pub first: u64,
    pub count: u32,
}

/// The positions of a leased batch in its lane: one per event, never falling. The children of one
/// event share its position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(Arc<[PositionRun]>);

impl Positions {
    /// Positions from runs.
    #[must_use]
    pub fn new(runs: impl IntoIterator<Item = PositionRun>) -> Self {
        Self(join(runs.into_iter().filter(|run| run.count > 0)))
    }

    /// Joins single positions to runs.
    #[must_use]
    pub fn from_each(positions: impl IntoIterator<Item = u64>) -> Self {
        Self(join(
            positions
                .into_iter()
                .map(|first| PositionRun { first, count: 1 }),
        ))
    }

    /// The positions of several batches of a lane, one after the other.
    #[must_use]
    pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        Self(join(
            parts.into_iter().flat_map(|part| part.runs()).copied(),
        ))
    }

    /// The runs, in the order of the events.
    #[must_use]
    pub fn runs(&self) -> &[PositionRun] {
        &self.0
    }

    /// Every position, in the order of the events.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|run| run.first..run.end())
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.count as usize).sum()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first event's position.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|run| run.first)
    }

    /// The last event's position.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|run| run.end() - 1)
    }

    /// How many events from the front lie at or below `mark`.
    #[must_use]
    pub fn covered(&self, mark: u64) -> usize {
        let of_run = |run: &PositionRun| {
            let below = mark.saturating_add(1).saturating_sub(run.first);
            usize::try_from(below).map_or(run.count as usize, |n| n.min(run.count as usize))
        };
        self.0.iter().map(of_run).sum()
    }

    /// The positions of a range of the events.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let mut at = 0;
        let cut = self.0.iter().map(|run| {
            let (from, to) = (at, at + run.count as usize);
            at = to;
            let (start, end) = (range.start.clamp(from, to), range.end.clamp(from, to));
            let small = |n: usize| u32::try_from(n).expect("lies inside a run of at most 2^32");
            PositionRun {
                first: run.first + u64::from(small(start - from)),
                count: small(end.saturating_sub(start)),
            }
        });
        Self::new(cut.collect::<Vec<_>>())
    }
}

fn join(runs: impl Iterator<Item = PositionRun>) -> Arc<[PositionRun]> {
    let mut joined: Vec<PositionRun> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(last) if last.end() == run.first => last.count += run.count,
            _ => joined.push(run),
        }
    }
    joined.into()
}

impl PositionRun {
    /// The position after the last.
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    /// Two single events, three children of one, a gap, two more.
    const EACH: [u64; 7] = [4, 5, 6, 6, 6, 9, 10];

    #[test]
    fn positions_are_what_they_were_made_of() {
        let positions = Positions::from_each(EACH);
        assert_eq!(positions.iter().collect::<Vec<_>>(), EACH);
        assert_eq!((positions.len(), positions.runs().len()), (7, 4));
        assert_eq!((positions.first(), positions.last()), (Some(4), Some(10)));
        assert_eq!(Positions::from_each([]).last(), None);
    }

    #[test]
    fn a_mark_covers_what_lies_at_or_below_it() {
        let positions = Positions::from_each(EACH);
        for mark in 0..12 {
            let below = EACH.iter().filter(|position| **position <= mark).count();
            assert_eq!(positions.covered(mark), below, "{mark}");
        }
        assert_eq!(positions.covered(u64::MAX - 1), 7);
    }

    #[test]
    fn a_slice_has_the_positions_of_its_events() {
        let positions = Positions::from_each(EACH);
        for from in 0..=7 {
            for to in from..=7 {
                let slice: Vec<_> = positions.slice(from..to).iter().collect();
                assert_eq!(slice, EACH[from..to], "{from}..{to}");
            }
        }
    }
}
