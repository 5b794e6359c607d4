//! A lane as a hop sees it: where it begins, and the chain at a position (delivery contract D4).

use std::ops::Range;

use levada_core::{Batch, ChannelName, TakeError, hop::Lane, tasks::in_place};
use redb::{Database, ReadableDatabase};

use crate::{
    keys::{self, BORDERS, LaneId, ROWS, SMALL},
    lanes::LaneAt,
    lease::untaken,
    queue::Entry,
    row::{self, Header},
    shared::Shared,
    writer::{Border, read_borders},
};

/// Under which incarnation positions are given, and where the lane begins.
pub(crate) fn lane(shared: &Shared, name: &ChannelName, lane: u32) -> Result<Lane, TakeError> {
    let at = find_lane(shared, name, lane)?;
    let row = {
        let state = shared.lock();
        let lane = &state.lanes[at.channel][at.lane];
        lane.queue.oldest().map(Left::of).ok_or(lane.next)
    };
    let oldest = match row {
        Err(next) => next,
        Ok(row) => {
            let first = row.first;
            let positions = in_place(|| row.positions(shared, at))?;
            positions.first().copied().unwrap_or(first)
        }
    };
    let durable = shared.channels[at.channel].is_durable();
    let incarnation = if durable {
        shared.lock().incarnation
    } else {
        shared.origin
    };
    Ok(Lane {
        incarnation,
        oldest,
    })
}

/// The chain after the last event at a position, if it is known.
pub(crate) fn chain_at(
    shared: &Shared,
    name: &ChannelName,
    lane: u32,
    position: u64,
) -> Result<Option<u64>, TakeError> {
    let at = find_lane(shared, name, lane)?;
    if !shared.channels[at.channel].is_durable() {
        let given = position < shared.lock().lane(at).next;
        return Ok(given.then_some(0));
    }
    let id = shared.lane_id(at);
    in_place(|| shared.read(|db| find(db, id, position))).map_err(untaken)
}

/// Whether an event is held at one of these positions.
pub(crate) fn holds(
    shared: &Shared,
    name: &ChannelName,
    lane: u32,
    positions: &Range<u64>,
) -> Result<bool, TakeError> {
    let at = find_lane(shared, name, lane)?;
    let rows: Vec<Left> = {
        let mut state = shared.lock();
        let rows = state.queue(at).rows_at(positions);
        rows.map(Left::of).collect()
    };
    in_place(|| {
        for row in rows {
            let held = row.positions(shared, at)?;
            if held.iter().any(|position| positions.contains(position)) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// What is left of a row.
struct Left {
    first: u64,
    places: Vec<u32>,
    /// Some events share a position: only the row knows which.
    families: bool,
    held: Option<Batch>,
}

impl Left {
    fn of(row: &Entry) -> Self {
        Self {
            first: row.first,
            places: row.left_places(),
            families: row.families,
            held: row.held().cloned(),
        }
    }

    /// The position of each event that is left.
    fn positions(self, shared: &Shared, at: LaneAt) -> Result<Vec<u64>, TakeError> {
        let offsets = match self.held {
            _ if !self.families => None,
            Some(batch) => Some(row::offsets_of(&batch)),
            None => {
                let id = shared.lane_id(at);
                let read = shared.read(|db| offsets_in(db, id, self.first));
                Some(read.map_err(untaken)?)
            }
        };
        let offset = |n: u32| match &offsets {
            None => n,
            Some(offsets) => offsets.get(n as usize).copied().unwrap_or_default(),
        };
        let positions = self
            .places
            .iter()
            .map(|n| self.first + u64::from(offset(*n)));
        Ok(positions.collect())
    }
}

/// The position of each event of a row, counted from its first; none if the row is damaged.
fn offsets_in(db: &Database, lane: LaneId, first: u64) -> Result<Vec<u32>, redb::Error> {
    let key = keys::row(lane, first);
    let row = db.begin_read()?.open_table(ROWS)?.get(key)?;
    let header = row.and_then(|value| Header::read(&key, value.value()));
    Ok(header.map(|header| header.offsets()).unwrap_or_default())
}

fn find_lane(shared: &Shared, name: &ChannelName, lane: u32) -> Result<LaneAt, TakeError> {
    let known = shared.channel(name);
    let known = known.filter(|channel| shared.lock().lanes[*channel].get(lane).is_some());
    let known = known.map(|channel| LaneAt { channel, lane });
    known.ok_or_else(|| TakeError::NoChannel {
        channel: format!("{name}, lane {lane}"),
    })
}

/// Looks in the row that holds the position, and then among the borders.
fn find(db: &Database, lane: LaneId, position: u64) -> Result<Option<u64>, redb::Error> {
    let txn = db.begin_read()?;
    let rows = txn.open_table(ROWS)?;
    let upto = keys::row(lane, 0)..=keys::row(lane, position);
    if let Some(row) = rows.range(upto)?.next_back() {
        let (key, value) = row?;
        let (_, first) = keys::parse_row(&key.value());
        let header = Header::read(&key.value(), value.value());
        if let Some(chain) = header.and_then(|header| header.chain_at(first, position)) {
            return Ok(Some(chain));
        }
    }
    let borders = borders(db, lane)?;
    let border = borders.iter().find(|border| border.position == position);
    Ok(border.map(|border| border.chain))
}

/// Where rows that have left a lane ended, oldest first.
pub(crate) fn borders(db: &Database, lane: LaneId) -> Result<Vec<Border>, redb::Error> {
    let txn = db.begin_read()?;
    let mut borders = Vec::new();
    let (from, to) = (
        keys::old_borders(lane, 0),
        keys::old_borders(lane, u32::MAX),
    );
    for group in txn.open_table(BORDERS)?.range(from..=to)? {
        let (key, value) = group?;
        borders.extend(read_borders(&key.value(), value.value()));
    }
    let key = keys::of_lane(keys::BORDER, lane);
    if let Some(value) = txn.open_table(SMALL)?.get(&key[..])? {
        borders.extend(read_borders(&key, value.value()));
    }
    borders.sort_unstable_by_key(|border| border.position);
    Ok(borders)
}
