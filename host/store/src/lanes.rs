//! The lanes of a channel: which one an event belongs to, and what is queued in each. No I/O here.
//!
//! An event's lane is fixed when it is committed and never changes. Lanes that a channel had before
//! and has no longer keep what is in them until it is taken; nothing more comes into them.

use std::{
    collections::BTreeMap,
    ops::{Index, IndexMut},
};

use levada_core::{Batch, EventRef, Want, store::Lanes as Which};
use tokio::time::Instant;

use crate::{params::LaneSpec, queue::Queue, row};

/// One lane of one channel, by the channel's number in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneAt {
    pub(crate) channel: usize,
    pub(crate) lane: u32,
}

/// Cuts a batch into what belongs to each lane, in order. The children of one event go where the
/// first of them goes.
pub(crate) fn divide(spec: Option<&LaneSpec>, batch: Batch) -> Vec<(u32, Batch)> {
    let Some(spec) = spec.filter(|spec| spec.count > 1) else {
        return vec![(0, batch)];
    };
    let starts = row::family_starts(&batch);
    let begins = |n: usize| starts.as_ref().is_none_or(|starts| starts[n]);
    let mut places: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut lane = 0;
    for (n, event) in batch.iter().enumerate() {
        if begins(n) {
            lane = lane_of(spec, event);
        }
        places.entry(lane).or_default().push(n);
    }
    if places.len() == 1 {
        return vec![(lane, batch)];
    }
    let of_lane = |(lane, places): (u32, Vec<usize>)| (lane, batch.select(places).into_compact());
    places.into_iter().map(of_lane).collect()
}

/// The same for the same value in every version: an event must not overtake one of its key that was
/// stored before an upgrade. Events without the header share a lane.
fn lane_of(spec: &LaneSpec, event: EventRef<'_>) -> u32 {
    let value = event.header(&spec.key);
    value.map_or(0, |value| crc32c::crc32c(value.as_bytes()) % spec.count)
}

/// What is queued in a channel, lane by lane.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// The lane that is looked at first when something is taken.
    turn: usize,
}

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: Queue,
    /// The position that is given next.
    pub(crate) next: u64,
    /// Since when a taker has waited for more than there is.
    since: Option<Instant>,
}

/// What a taker can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Nothing,
    /// Less than is wanted; no more is waited for after this time.
    At(Instant),
    /// As much as is wanted, or it was waited for long enough.
    Lane(u32),
}

impl Lane {
    pub(crate) fn new(queue: Queue, next: u64) -> Self {
        Self {
            queue,
            next,
            since: None,
        }
    }

    /// When something of it is to be taken, if there is anything.
    fn due(&mut self, want: Want, hurry: bool, now: Instant) -> Option<Instant> {
        let (free, events) = (self.queue.free(), self.queue.events());
        if free == 0 {
            self.since = None;
            return None;
        }
        if want.lanes == Which::Idle && free < events {
            return None;
        }
        let bytes = u128::from(self.queue.bytes()) * u128::from(free) / u128::from(events.max(1));
        let enough = hurry
            || want.wait.is_zero()
            || free >= want.events as u64
            || bytes >= want.bytes as u128;
        let since = *self.since.get_or_insert(now);
        Some(if enough { now } else { since + want.wait })
    }
}

impl Lanes {
    /// So many empty lanes, at least one.
    pub(crate) fn new(count: u32) -> Self {
        let mut lanes = Self {
            lanes: Vec::new(),
            turn: 0,
        };
        lanes.grow(count.max(1));
        lanes
    }

    /// Adds empty lanes until there are so many.
    pub(crate) fn grow(&mut self, count: u32) {
        while self.len() < count {
            self.lanes.push(Lane::new(Queue::default(), 1));
        }
    }

    /// How many there are, in use or not.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.lanes.len()).expect("lanes are few")
    }

    /// Each with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Lane)> {
        (0..).zip(&self.lanes)
    }

    pub(crate) fn get(&self, lane: u32) -> Option<&Lane> {
        self.lanes.get(lane as usize)
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.lanes.iter().map(|lane| &lane.queue)
    }

    /// Events that are not gone.
    pub(crate) fn events(&self) -> u64 {
        self.queues().map(Queue::events).sum()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.queues().map(Queue::bytes).sum()
    }

    /// Events that can be taken.
    pub(crate) fn free(&self) -> u64 {
        self.queues().map(Queue::free).sum()
    }

    /// Bytes of the rows whose events are held in memory.
    pub(crate) fn cached(&self) -> usize {
        self.queues().map(Queue::cached).sum()
    }

    /// When the oldest row was received.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        self.queues().filter_map(Queue::oldest_ms).min()
    }

    /// Forgets everything that is queued, and says what it was: bytes and events.
    pub(crate) fn clear(&mut self) -> (u64, u64) {
        let lost = (self.bytes(), self.events());
        for lane in &mut self.lanes {
            lane.queue = Queue::default();
        }
        lost
    }

    /// The lane to take from: each has its turn. In a `hurry` nobody waits for more.
    pub(crate) fn offer(&mut self, want: Want, hurry: bool, now: Instant) -> Offer {
        let (count, turn) = (self.lanes.len(), self.turn);
        let mut earliest: Option<Instant> = None;
        for n in (turn..turn + count).map(|n| n % count) {
            match self.lanes[n].due(want, hurry, now) {
                None => {}
                Some(at) if at <= now => {
                    self.lanes[n].since = None;
                    self.turn = n + 1;
                    return Offer::Lane(u32::try_from(n).expect("lanes are few"));
                }
                Some(at) => earliest = Some(earliest.map_or(at, |other| other.min(at))),
            }
        }
        earliest.map_or(Offer::Nothing, Offer::At)
    }
}

impl Index<u32> for Lanes {
    type Output = Lane;

    fn index(&self, lane: u32) -> &Lane {
        &self.lanes[lane as usize]
    }
}

impl IndexMut<u32> for Lanes {
    fn index_mut(&mut self, lane: u32) -> &mut Lane {
        &mut self.lanes[lane as usize]
    }
}

#[cfg(test)]
mod tests;
