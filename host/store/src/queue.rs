//! What is queued in one lane of a channel: one small entry per row, in memory. No I/O here.
//!
//! An event of a row is *free* (waits to be taken), *leased*, or *gone*. An entry without detail
//! has all its events in one state, which is what nearly all of a long backlog looks like.

use std::{collections::VecDeque, ops::Range};

use levada_core::Batch;

/// The rows of a lane, in order of position.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    rows: VecDeque<Entry>,
    /// No row before this one has a free event.
    first_free: usize,
    free: u64,
    events: u64,
    bytes: u64,
    /// Bytes of rows that are held in memory beside the disk.
    cached: usize,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Position of its first event; the row's key.
    pub(crate) first: u64,
    pub(crate) received_ms: u64,
    pub(crate) count: u32,
    /// Bytes of the events that are not gone.
    pub(crate) bytes: u32,
    /// Some events share a position: they must not be cut apart.
    pub(crate) families: bool,
    free: u32,
    /// Free and leased ones together.
    left: u32,
    detail: Option<Box<Detail>>,
}

/// What few rows have.
#[derive(Debug, Default)]
struct Detail {
    /// The events themselves: always in a memory channel, for just-written rows in a durable one.
    batch: Option<Batch>,
    /// Bits of the events that are not free, when only some are.
    taken: Option<Bits>,
    gone: Option<Bits>,
    /// Events that were leased before and came back.
    tried: Option<Bits>,
    attempts: u32,
}

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits(Box<[u64]>);

impl Bits {
    pub(crate) fn none(count: u32) -> Self {
        Self(vec![0; (count as usize).div_ceil(64)].into())
    }

    fn all(count: u32) -> Self {
        let mut bits = Self::none(count);
        (0..count).for_each(|n| bits.set(n, true));
        bits
    }

    pub(crate) fn get(&self, n: u32) -> bool {
        let word = self.0.get(n as usize / 64).copied().unwrap_or(0);
        word >> (n % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, n: u32, on: bool) {
        let Some(word) = self.0.get_mut(n as usize / 64) else {
            return;
        };
        let bit = 1 << (n % 64);
        if on { *word |= bit } else { *word &= !bit }
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote for so many events.
    pub(crate) fn from_bytes(bytes: &[u8], count: u32) -> Option<Self> {
        let words = bytes
            .chunks_exact(8)
            .map(|word| word.try_into().map(u64::from_le_bytes).unwrap_or_default());
        let bits = Self(words.collect());
        (bytes.len() == (count as usize).div_ceil(64) * 8).then_some(bits)
    }
}

/// Events of one row, taken together.
#[derive(Debug, Clone)]
pub(crate) struct Pick {
    /// The row's first position.
    pub(crate) first: u64,
    pub(crate) places: Places,
    /// Some events of the row share a position.
    pub(crate) families: bool,
    /// The row's events, if they are in memory.
    pub(crate) batch: Option<Batch>,
}

/// Places of events in a row, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Places {
    Range(Range<u32>),
    Each(Vec<u32>),
}

impl Places {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::Each(places) => places.len(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (range, each) = match self {
            Self::Range(range) => (range.clone(), &[][..]),
            Self::Each(places) => (0..0, &places[..]),
        };
        range.chain(each.iter().copied())
    }

    /// Keeps the first `n` and returns the rest.
    pub(crate) fn split_off(&mut self, n: usize) -> Self {
        match self {
            Self::Range(range) => {
                let at = range.start + u32::try_from(n.min(range.len())).unwrap_or(0);
                let rest = at..range.end;
                range.end = at;
                Self::Range(rest)
            }
            Self::Each(places) => Self::Each(places.split_off(n.min(places.len()))),
        }
    }
}

/// Events that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) after: After,
    /// What they are counted with: the room that they leave.
    pub(crate) bytes: u32,
}

/// What a row looks like after some of its events went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// All are gone: the row is to be deleted, and its bitmap if it had one.
    Gone { partly: bool },
    /// Some are left: bytes and bitmap of those that are gone.
    Some { bytes: u32, gone: Bits },
}

impl Entry {
    /// The places of the events that are not gone.
    pub(crate) fn left_places(&self) -> Vec<u32> {
        let gone = self.detail.as_ref().and_then(|detail| detail.gone.as_ref());
        let is_left = |n: &u32| gone.is_none_or(|gone| !gone.get(*n));
        (0..self.count).filter(is_left).collect()
    }

    /// The events, if they are in memory.
    pub(crate) fn held(&self) -> Option<&Batch> {
        self.detail
            .as_ref()
            .and_then(|detail| detail.batch.as_ref())
    }

    /// A row of which nothing is taken.
    pub(crate) fn new(
        first: u64,
        received_ms: u64,
        batch_len: u32,
        bytes: u32,
        families: bool,
    ) -> Self {
        let (count, free, left) = (batch_len, batch_len, batch_len);
        Self {
            first,
            received_ms,
            count,
            bytes,
            families,
            free,
            left,
            detail: None,
        }
    }

    /// Holds the events in memory.
    pub(crate) fn hold(&mut self, batch: Batch) {
        self.detail().batch = Some(batch);
    }

    /// Marks what was gone before the store was opened; `left_bytes` are left.
    pub(crate) fn restore(&mut self, gone: Bits, left_bytes: u32) {
        self.left = self.count.saturating_sub(gone.count());
        self.free = self.left;
        self.bytes = left_bytes;
        let detail = self.detail();
        detail.taken = Some(gone.clone());
        detail.gone = Some(gone);
    }

    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    fn detail(&mut self) -> &mut Detail {
        self.detail.get_or_insert_default()
    }

    /// Takes up to `most` free events, in order.
    fn take(&mut self, most: u32) -> Places {
        if self.free == self.count && most >= self.count {
            self.free = 0;
            return Places::Range(0..self.count);
        }
        let (count, all_taken, none_taken) = (self.count, self.free == 0, self.free == self.count);
        if all_taken {
            return Places::Range(0..0);
        }
        let taken = self.detail().taken.get_or_insert_with(|| Bits::none(count));
        if none_taken {
            *taken = Bits::none(count);
        }
        let places: Vec<u32> = (0..count)
            .filter(|n| !taken.get(*n))
            .take(most as usize)
            .collect();
        places.iter().for_each(|n| taken.set(*n, true));
        self.free -= u32::try_from(places.len()).unwrap_or(self.free);
        match (places.first(), places.last()) {
            (Some(&a), Some(&b)) if (b - a) as usize + 1 == places.len() => Places::Range(a..b + 1),
            _ => Places::Each(places),
        }
    }

    /// Makes events free again.
    fn give_back(&mut self, places: &Places) {
        let count = self.count;
        let whole = self.free == 0 && places.len() == self.count as usize;
        if whole {
            if let Some(detail) = &mut self.detail {
                detail.taken = None;
            }
        } else {
            let all_taken = self.free == 0;
            let taken = self.detail().taken.get_or_insert_with(|| Bits::all(count));
            if all_taken {
                *taken = Bits::all(count);
            }
            places.iter().for_each(|n| taken.set(n, false));
        }
        self.free += u32::try_from(places.len()).unwrap_or(0);
    }
}

impl Queue {
    /// Events that are not gone.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Events that can be taken.
    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    /// Bytes of the rows whose events are held in memory.
    pub(crate) fn cached(&self) -> usize {
        self.cached
    }

    /// When the oldest row was received.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        self.rows.front().map(|row| row.received_ms)
    }

    /// The first row.
    pub(crate) fn oldest(&self) -> Option<&Entry> {
        self.rows.front()
    }

    /// The rows that may hold events at these positions.
    pub(crate) fn rows_at(&self, positions: &Range<u64>) -> impl Iterator<Item = &Entry> {
        let (start, end) = (positions.start, positions.end);
        let from = self
            .rows
            .partition_point(|row| row.first + u64::from(row.count) <= start);
        self.rows
            .range(from..)
            .take_while(move |row| row.first < end)
    }

    /// A position above all that are queued; families make it higher than need be.
    pub(crate) fn next_position(&self) -> Option<u64> {
        self.rows.back().map(|row| row.first + u64::from(row.count))
    }

    /// Appends a row; its position is above all others.
    pub(crate) fn push(&mut self, row: Entry) {
        assert!(
            self.rows.back().is_none_or(|last| last.first < row.first),
            "positions rise"
        );
        self.free += u64::from(row.free);
        self.events += u64::from(row.left);
        self.bytes += u64::from(row.bytes);
        let held = row.detail.as_ref().and_then(|detail| detail.batch.as_ref());
        self.cached += held.map_or(0, Batch::bytes);
        self.rows.push_back(row);
    }

    /// Takes free events from the front: at most `events` of about at most `bytes`, but at least
    /// one. Rows of families are taken whole; the caller gives back what is too much.
    pub(crate) fn take(&mut self, events: usize, bytes: usize) -> Vec<Pick> {
        let mut picks = Vec::new();
        let (mut events_left, mut bytes_left) = (events.max(1), bytes);
        while self.free > 0 && events_left > 0 {
            let Some(row) = self.rows.get_mut(self.first_free) else {
                break;
            };
            if row.free == 0 {
                self.first_free += 1;
                continue;
            }
            let each = (row.bytes / row.left.max(1)).max(1) as usize;
            let fits = if row.bytes as usize <= bytes_left {
                usize::MAX
            } else {
                bytes_left / each
            };
            let most = match events_left.min(fits) {
                0 if picks.is_empty() => 1,
                0 => break,
                most => most,
            };
            let most = if row.families {
                u32::MAX
            } else {
                u32::try_from(most).unwrap_or(u32::MAX)
            };
            let places = row.take(most);
            self.free -= places.len() as u64;
            events_left = events_left.saturating_sub(places.len());
            bytes_left = bytes_left.saturating_sub(each * places.len());
            let batch = row.detail.as_ref().and_then(|detail| detail.batch.clone());
            picks.push(Pick {
                first: row.first,
                places,
                families: row.families,
                batch,
            });
        }
        picks
    }

    /// How often the most tried of these events was leased before.
    pub(crate) fn attempts(&self, pick: &Pick) -> u32 {
        let detail = self
            .find(pick.first)
            .and_then(|at| self.rows[at].detail.as_ref());
        let Some(detail) = detail else { return 0 };
        let tried = detail.tried.as_ref();
        if tried.is_some_and(|tried| pick.places.iter().any(|n| tried.get(n))) {
            detail.attempts
        } else {
            0
        }
    }

    /// When the row of these events was received.
    pub(crate) fn received_ms(&self, pick: &Pick) -> Option<u64> {
        self.find(pick.first).map(|at| self.rows[at].received_ms)
    }

    /// Gives leased events back to their old place. `attempts` says how often they were leased by
    /// now; `None` if this was no attempt.
    pub(crate) fn give_back(&mut self, first: u64, places: &Places, attempts: Option<u32>) {
        let Some(at) = self.find(first) else { return };
        if places.len() == 0 {
            return;
        }
        let row = &mut self.rows[at];
        row.give_back(places);
        if let Some(attempts) = attempts {
            let count = row.count;
            let detail = row.detail();
            detail.attempts = detail.attempts.max(attempts);
            let tried = detail.tried.get_or_insert_with(|| Bits::none(count));
            places.iter().for_each(|n| tried.set(n, true));
        }
        self.free += places.len() as u64;
        self.first_free = self.first_free.min(at);
    }

    /// Lets leased events go. `bytes` is what they had, or a guess where they are damaged: the last
    /// events of a row have what is left of it.
    pub(crate) fn remove(&mut self, first: u64, places: &Places, bytes: u32) -> Option<Removed> {
        let at = self.find(first)?;
        let gone_now = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let row = &mut self.rows[at];
        let bytes = match row.left == gone_now {
            true => row.bytes,
            false => bytes.min(row.bytes),
        };
        self.events -= u64::from(gone_now);
        self.bytes -= u64::from(bytes);
        row.left -= gone_now;
        row.bytes -= bytes;
        if row.left == 0 {
            let partly = row
                .detail
                .as_ref()
                .is_some_and(|detail| detail.gone.is_some());
            self.drop_row(at);
            let after = After::Gone { partly };
            return Some(Removed { after, bytes });
        }
        let (count, all_taken) = (row.count, row.free == 0);
        let left_bytes = row.bytes;
        let detail = row.detail();
        if all_taken {
            detail.taken = Some(Bits::all(count));
        }
        let gone = detail.gone.get_or_insert_with(|| Bits::none(count));
        places.iter().for_each(|n| gone.set(n, true));
        let after = After::Some {
            bytes: left_bytes,
            gone: gone.clone(),
        };
        Some(Removed { after, bytes })
    }

    /// Takes all free events of one row: they share its fate.
    pub(crate) fn take_rest(&mut self, first: u64) -> Places {
        let Some(at) = self.find(first) else {
            return Places::Range(0..0);
        };
        let places = self.rows[at].take(u32::MAX);
        self.free -= places.len() as u64;
        places
    }

    /// Events that are left in a row, and their bytes.
    pub(crate) fn left_in(&self, first: u64) -> (u32, u32) {
        self.find(first)
            .map_or((0, 0), |at| (self.rows[at].left, self.rows[at].bytes))
    }

    fn drop_row(&mut self, at: usize) {
        let Some(row) = self.rows.remove(at) else {
            return;
        };
        if at < self.first_free {
            self.first_free -= 1;
        }
        let held = row.detail.and_then(|detail| detail.batch);
        self.cached = self
            .cached
            .saturating_sub(held.map_or(0, |batch| batch.bytes()));
    }

    fn find(&self, first: u64) -> Option<usize> {
        self.rows.binary_search_by_key(&first, |row| row.first).ok()
    }
}

#[cfg(test)]
mod tests;
