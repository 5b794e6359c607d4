//! The tables of the file and the keys in them.
//!
//! `rows` holds the events. Everything small that a commit touches lies in one table, `small`, so
//! that a commit rewrites few pages: the first byte of a key says what it is, and what changes
//! together lies together. Numbers in keys are big-endian, so that they sort.

use std::ops::RangeInclusive;

use levada_core::{Counter, PartId};
use redb::TableDefinition;

/// `(channel, lane, first position)` -> one row (see `row`).
pub(crate) const ROWS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("rows");
/// Counters, lane heads, borders, the index of rows, marks, bitmaps; sealed.
pub(crate) const SMALL: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("small");
/// `(channel, lane, group)` -> borders that are full groups; apart, so that `small` stays small.
pub(crate) const BORDERS: TableDefinition<'_, [u8; 12], &[u8]> = TableDefinition::new("borders");
/// Number -> dead letter; sealed.
pub(crate) const DEAD: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dead-letters");
/// Number -> what was set aside; sealed.
pub(crate) const QUARANTINE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("quarantine");
/// `(handler, key)` -> what a handler keeps; sealed. Made with the first entry.
pub(crate) const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("handler-state");
/// Format, incarnation, channel numbers; sealed.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// One entry: how many transactions the writer has committed. Beside the counters, which nearly
/// every transaction rewrites.
pub(crate) const COMMITS: u8 = b'b';
pub(crate) const COUNTER: u8 = b'c';
pub(crate) const HEAD: u8 = b'h';
pub(crate) const INDEX: u8 = b'i';
pub(crate) const BORDER: u8 = b'j';
pub(crate) const MARK: u8 = b'm';
pub(crate) const SETTLED: u8 = b's';

/// Far more lanes than a channel ever had: what claims another is damaged.
pub(crate) const MOST_LANES: u32 = 1024;

/// One lane of one channel, by the channel's number in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub(crate) channel: u32,
    pub(crate) lane: u32,
}

impl LaneId {
    /// Every lane of a channel.
    pub(crate) fn all_of(channel: u32) -> RangeInclusive<Self> {
        let lane = |lane| Self { channel, lane };
        lane(0)..=lane(u32::MAX)
    }

    fn bytes(self) -> [u8; 8] {
        let both = u64::from(self.channel) << 32 | u64::from(self.lane);
        both.to_be_bytes()
    }

    fn read(bytes: [u8; 8]) -> Self {
        let [c0, c1, c2, c3, l0, l1, l2, l3] = bytes;
        Self {
            channel: u32::from_be_bytes([c0, c1, c2, c3]),
            lane: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }
}

/// The key of a row.
pub(crate) fn row(lane: LaneId, first: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&lane.bytes());
    key[8..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Reads what [`row`] wrote.
pub(crate) fn parse_row(key: &[u8; 16]) -> (LaneId, u64) {
    let mut lane = [0; 8];
    let mut first = [0; 8];
    lane.copy_from_slice(&key[..8]);
    first.copy_from_slice(&key[8..]);
    (LaneId::read(lane), u64::from_be_bytes(first))
}

/// The key of something there is one of per row: `INDEX` or `SETTLED`.
pub(crate) fn of_row(what: u8, lane: LaneId, first: u64) -> [u8; 17] {
    let mut key = [what; 17];
    key[1..].copy_from_slice(&row(lane, first));
    key
}

/// Reads what [`of_row`] wrote.
pub(crate) fn parse_of_row(key: &[u8]) -> Option<(LaneId, u64)> {
    let (_, rest) = key.split_first()?;
    let (lane, rest) = rest.split_first_chunk::<8>()?;
    let first = u64::from_be_bytes(rest.try_into().ok()?);
    Some((LaneId::read(*lane), first))
}

/// The key of something there is one of per lane: `HEAD` or `BORDER`.
pub(crate) fn of_lane(what: u8, lane: LaneId) -> [u8; 9] {
    let mut key = [what; 9];
    key[1..].copy_from_slice(&lane.bytes());
    key
}

/// Reads what [`of_lane`] wrote.
pub(crate) fn parse_of_lane(key: &[u8]) -> Option<LaneId> {
    let (_, rest) = key.split_first()?;
    Some(LaneId::read(rest.try_into().ok()?))
}

/// The key of a full group of borders.
pub(crate) fn old_borders(lane: LaneId, slot: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&lane.bytes());
    key[8..].copy_from_slice(&slot.to_be_bytes());
    key
}

/// The key of a counter.
pub(crate) fn counter(part: &PartId, counter: Counter, reason: &str) -> Vec<u8> {
    let text = format!("{part}\0{}\0{reason}", counter.as_str());
    [&[COUNTER], text.as_bytes()].concat()
}

/// Reads what [`counter`] wrote.
pub(crate) fn parse_counter(key: &[u8]) -> Option<(PartId, Counter, String)> {
    let text = std::str::from_utf8(key.split_first()?.1).ok()?;
    let mut fields = text.splitn(3, '\0');
    let part = PartId::parse(fields.next()?)?;
    let counter = Counter::parse(fields.next()?)?;
    Some((part, counter, fields.next()?.to_owned()))
}

/// The key of a mark.
pub(crate) fn mark(part: &PartId, key: &str) -> Vec<u8> {
    [&[MARK], part.to_string().as_bytes(), b"\0", key.as_bytes()].concat()
}

/// Reads what [`mark`] wrote.
pub(crate) fn parse_mark(key: &[u8]) -> Option<(PartId, String)> {
    let text = std::str::from_utf8(key.split_first()?.1).ok()?;
    let (part, key) = text.split_once('\0')?;
    Some((PartId::parse(part)?, key.to_owned()))
}
