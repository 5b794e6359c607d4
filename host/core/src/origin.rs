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

/// The positions of a leased batch in its lane, as runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(pub Arc<[PositionRun]>);
