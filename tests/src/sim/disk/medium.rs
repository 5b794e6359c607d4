//! What is on the medium, and what a loss of power makes of the rest.

use std::collections::BTreeMap;

use levada_core::Chance;

/// What a disk writes as a whole, if it is lucky.
const SECTOR: usize = 512;
/// What an operating system writes back as a whole.
const PAGE: usize = 4096;

/// A change that no sync has made durable yet.
#[derive(Debug)]
pub(super) enum Pending {
    Write {
        offset: usize,
        data: Box<[u8]>,
    },
    /// The file was cut or grew.
    Length {
        from: usize,
        to: usize,
    },
}

/// The medium and what waits in front of it.
#[derive(Debug, Default)]
pub(super) struct Medium {
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// A sync has failed: what the system shows may be on no medium.
    forgotten: bool,
}

/// What a loss of power does to what was pending.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Everything is lost.
    All,
    /// Nothing is lost.
    Nothing,
    /// What came before an operation is kept, what came after is lost.
    After(usize),
    /// Every unit for itself.
    Scattered {
        unit: usize,
        /// Percent that have their latest version.
        kept: u64,
        /// Percent of the others that have some version in between, not the oldest.
        reordered: u64,
        /// Percent that are half one version and half another.
        torn: u64,
    },
}

impl Loss {
    fn draw(chance: &Chance, operations: usize) -> Self {
        match chance.below(10) {
            0 => Self::All,
            1 => Self::Nothing,
            2 | 3 => Self::After(super::size(chance.below(operations as u64 + 1))),
            _ => Self::Scattered {
                unit: if chance.below(3) == 0 { PAGE } else { SECTOR },
                kept: [5, 50, 95][super::size(chance.below(3))],
                reordered: [0, 30][super::size(chance.below(2))],
                torn: [0, 0, 20][super::size(chance.below(3))],
            },
        }
    }
}

impl Medium {
    /// A medium on which this is durable.
    pub(super) fn of(image: Vec<u8>) -> Self {
        Self {
            durable: image,
            ..Self::default()
        }
    }

    pub(super) fn pend(&mut self, change: Pending) {
        self.pending.push(change);
    }

    /// A sync that works: all that was pending is durable.
    pub(super) fn settle(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Pending::Write { offset, data } => {
                    let end = offset + data.len();
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    self.durable[offset..end].copy_from_slice(&data);
                }
                Pending::Length { to, .. } => self.durable.resize(to, 0),
            }
        }
    }

    /// A sync that fails: some of it is durable, and the system takes all of it for written.
    pub(super) fn forget(&mut self, chance: &Chance) {
        let loss = Loss::draw(chance, self.pending.len());
        let length = self.pending.iter().rev().find_map(|change| match change {
            Pending::Length { to, .. } => Some(*to),
            Pending::Write { .. } => None,
        });
        self.lose(loss, length.unwrap_or(self.durable.len()), chance);
        self.forgotten = true;
    }

    /// What the system shows is what is on the medium, after a sync that failed.
    pub(super) fn reread(&mut self, view: &mut Vec<u8>) {
        if std::mem::take(&mut self.forgotten) {
            view.clone_from(&self.durable);
            self.pending.clear();
        }
    }

    /// The power goes and comes back: `view` is what is left.
    pub(super) fn cut(&mut self, view: &mut Vec<u8>, chance: &Chance) {
        let loss = Loss::draw(chance, self.pending.len());
        let length = self.length_after(loss, chance);
        let touched = self.lose(loss, length, chance);
        if std::mem::take(&mut self.forgotten) {
            view.clone_from(&self.durable);
            return;
        }
        view.resize(length, 0);
        for range in touched {
            let end = range.1.min(length);
            if range.0 < end {
                view[range.0..end].copy_from_slice(&self.durable[range.0..end]);
            }
        }
    }

    /// Makes of every touched unit what the loss leaves of it; gives the ranges that were touched.
    fn lose(&mut self, loss: Loss, length: usize, chance: &Chance) -> Vec<(usize, usize)> {
        let pending = std::mem::take(&mut self.pending);
        let most = pending.iter().map(Pending::end).max().unwrap_or(0);
        if self.durable.len() < most.max(length) {
            self.durable.resize(most.max(length), 0);
        }
        let unit = match loss {
            Loss::Scattered { unit, .. } => unit,
            Loss::All | Loss::Nothing | Loss::After(_) => PAGE,
        };
        let mut versions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, change) in pending.iter().enumerate() {
            let (from, to) = change.range();
            for n in from / unit..to.div_ceil(unit) {
                versions.entry(n).or_default().push(at);
            }
        }
        let mut touched = Vec::with_capacity(versions.len());
        for (n, changes) in versions {
            let range = (n * unit, ((n + 1) * unit).min(self.durable.len()));
            if range.0 < range.1 {
                self.leave(loss, &pending, &changes, range, chance);
                touched.push(range);
            }
        }
        self.durable.resize(length, 0);
        touched
    }

    /// Leaves one unit as the loss wants it. `changes` are those that touched it, in order.
    fn leave(
        &mut self,
        loss: Loss,
        pending: &[Pending],
        changes: &[usize],
        range: (usize, usize),
        chance: &Chance,
    ) {
        let all = changes.len();
        let (first, second) = match loss {
            Loss::All => (0, 0),
            Loss::Nothing => (all, all),
            Loss::After(at) => {
                let kept = changes.iter().take_while(|change| **change < at).count();
                (kept, kept)
            }
            Loss::Scattered {
                kept,
                reordered,
                torn,
                ..
            } => {
                let draw = || {
                    if chance.below(100) < kept {
                        all
                    } else if all > 1 && chance.below(100) < reordered {
                        1 + super::size(chance.below(all as u64 - 1))
                    } else {
                        0
                    }
                };
                let first = draw();
                let is_torn = chance.below(100) < torn;
                (first, if is_torn { draw() } else { first })
            }
        };
        let old = self.durable[range.0..range.1].to_vec();
        let version = |count: usize| {
            let mut unit = old.clone();
            for at in &changes[..count] {
                pending[*at].apply(&mut unit, range.0);
            }
            unit
        };
        let mut unit = version(first);
        if second != first {
            let from = super::size(chance.below(unit.len() as u64));
            unit[from..].copy_from_slice(&version(second)[from..]);
        }
        self.durable[range.0..range.1].copy_from_slice(&unit);
    }

    /// The length that the file has after a loss of power: one that it had, or one in between.
    fn length_after(&self, loss: Loss, chance: &Chance) -> usize {
        let mut lengths = vec![self.durable.len()];
        for (at, change) in self.pending.iter().enumerate() {
            let Pending::Length { to, .. } = change else {
                continue;
            };
            match loss {
                Loss::After(last) if at >= last => break,
                _ => lengths.push(*to),
            }
        }
        let last = lengths.len() - 1;
        let at = match loss {
            Loss::All => 0,
            Loss::Nothing | Loss::After(_) => last,
            Loss::Scattered { .. } if chance.below(2) == 0 => last,
            Loss::Scattered { .. } => super::size(chance.below(lengths.len() as u64)),
        };
        let grown = at > 0 && lengths[at] > lengths[at - 1];
        if grown && matches!(loss, Loss::Scattered { .. }) && chance.below(4) == 0 {
            let more = lengths[at] - lengths[at - 1];
            return lengths[at - 1] + super::size(chance.below(more as u64));
        }
        lengths[at]
    }
}

impl Pending {
    /// The bytes it changes.
    fn range(&self) -> (usize, usize) {
        match self {
            Self::Write { offset, data } => (*offset, offset + data.len()),
            // What is cut off reads as zeros when the file grows again.
            Self::Length { from, to } if to < from => (*to, *from),
            Self::Length { to, .. } => (*to, *to),
        }
    }

    fn end(&self) -> usize {
        match self {
            Self::Write { offset, data } => offset + data.len(),
            Self::Length { from, to } => *from.max(to),
        }
    }

    /// Changes a unit that begins at `start`.
    fn apply(&self, unit: &mut [u8], start: usize) {
        let (from, to) = self.range();
        let (low, high) = (from.max(start), to.min(start + unit.len()));
        if low >= high {
            return;
        }
        let part = &mut unit[low - start..high - start];
        match self {
            Self::Write { offset, data } => {
                part.copy_from_slice(&data[low - offset..high - offset])
            }
            Self::Length { .. } => part.fill(0),
        }
    }
}
