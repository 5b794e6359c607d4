//! What an open finds in the file. Reads no rows: the index knows enough of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use levada_core::{Incarnation, PartId};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError,
};
use tracing::warn;

use crate::{
    codec::{Reader, seal, unseal},
    keys::{self, DEAD, LaneId, META, QUARANTINE, SMALL},
    open::beyond,
    queue::{Bits, Entry, Queue},
    row::StoredRow,
    shared::CountKey,
    state::{self, Handlers},
    writer::{Head, IndexEntry, Resume, read_borders},
};

/// The format this version writes: `(major, minor, oldest reader)`.
pub(crate) const FORMAT: Format = Format {
    major: 1,
    // 1.1 added handlers' state, a table that 1.0 leaves alone.
    minor: 1,
    min_reader: 1,
};

/// The version of a store's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// The oldest major version that can read it.
    pub(crate) min_reader: u16,
}

/// The meta table.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) format: Format,
    pub(crate) incarnation: Incarnation,
    /// Name to number.
    pub(crate) channels: BTreeMap<String, u32>,
}

const FORMAT_KEY: &str = "format";
const INCARNATION_KEY: &str = "incarnation";
pub(crate) const CHANNEL_KEY: &str = "channel/";

/// Everything that is kept in memory while a store is open.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) queues: BTreeMap<LaneId, Queue>,
    pub(crate) heads: BTreeMap<LaneId, Head>,
    pub(crate) ledger: BTreeMap<CountKey, u64>,
    pub(crate) marks: HashMap<PartId, BTreeMap<String, Bytes>>,
    pub(crate) handlers: Handlers,
    pub(crate) letters: u64,
    pub(crate) letter_bytes: u64,
    pub(crate) resume: Resume,
}

/// Reads the meta table; `None` if the store was just made.
pub(crate) fn read_meta(db: &Database) -> Result<Option<Meta>, redb::Error> {
    let txn = db.begin_read()?;
    let table = match txn.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut format, mut incarnation, mut channels) = (None, None, BTreeMap::new());
    for entry in table.iter()? {
        let (key, value) = entry?;
        let key = key.value();
        let damaged =
            || redb::Error::Corrupted(format!("the entry `{key}` of its meta table is damaged"));
        let mut reader = Reader(unseal(key.as_bytes(), value.value()).ok_or_else(damaged)?);
        if key == FORMAT_KEY {
            format = read_format(&mut reader);
        } else if key == INCARNATION_KEY {
            incarnation = reader.array().map(Incarnation);
        } else if let Some(name) = key.strip_prefix(CHANNEL_KEY) {
            channels.insert(name.to_owned(), reader.u32().ok_or_else(damaged)?);
        }
    }
    match (format, incarnation) {
        (Some(format), Some(incarnation)) => Ok(Some(Meta {
            format,
            incarnation,
            channels,
        })),
        _ => Err(redb::Error::Corrupted(
            "its meta table has no format or no incarnation".into(),
        )),
    }
}

fn read_format(reader: &mut Reader<'_>) -> Option<Format> {
    Some(Format {
        major: reader.u16()?,
        minor: reader.u16()?,
        min_reader: reader.u16()?,
    })
}

/// Writes the meta table whole, and makes the tables that are always there.
pub(crate) fn write_meta(db: &Database, meta: &Meta) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        txn.open_table(keys::ROWS)?;
        txn.open_table(SMALL)?;
        txn.open_table(keys::BORDERS)?;
        txn.open_table(DEAD)?;
        txn.open_table(QUARANTINE)?;
        let mut table = txn.open_table(META)?;
        let mut put = |key: &str, value: Vec<u8>| {
            table
                .insert(key, &seal(key.as_bytes(), value)[..])
                .map(drop)
        };
        let Format {
            major,
            minor,
            min_reader,
        } = meta.format;
        put(
            FORMAT_KEY,
            [major, minor, min_reader]
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect(),
        )?;
        put(INCARNATION_KEY, meta.incarnation.0.to_vec())?;
        for (name, number) in &meta.channels {
            put(
                &format!("{CHANNEL_KEY}{name}"),
                number.to_le_bytes().to_vec(),
            )?;
        }
    }
    txn.commit()?;
    Ok(())
}

/// Reads all but the rows.
pub(crate) fn scan(db: &Database) -> Result<Found, redb::Error> {
    let mut found = Found::default();
    let txn = db.begin_read()?;
    let small = txn.open_table(SMALL)?;
    let mut index: Index = BTreeMap::new();
    let mut index_damaged = false;
    let mut settled: HashMap<(LaneId, u64), Vec<u8>> = HashMap::new();
    for entry in small.iter()? {
        let (key, value) = entry?;
        let (key, value) = (key.value(), value.value());
        match key.first().copied() {
            Some(keys::INDEX) => match read_index(key, value) {
                Some((row, entry)) => drop(index.insert(row, entry)),
                None => {
                    index_damaged = true;
                    damaged(key);
                }
            },
            Some(keys::SETTLED) => match (keys::parse_of_row(key), unseal(key, value)) {
                (Some(row), Some(value)) => drop(settled.insert(row, value.to_vec())),
                _ => damaged(key),
            },
            _ => found.small(key, value),
        }
    }
    let rows = txn.open_table(keys::ROWS)?;
    if index_damaged || rows.len()? != index.len() as u64 {
        rebuild(&rows, &mut index)?;
    }
    for ((lane, first), row) in index {
        if lane.lane >= keys::MOST_LANES {
            let text = format!("a row says that it is of lane {}", lane.lane);
            return Err(redb::Error::Corrupted(text));
        }
        let settled = settled.remove(&(lane, first));
        let entry = restore(first, row, settled.as_deref());
        if entry.left() > 0 {
            found.queues.entry(lane).or_default().push(entry);
        }
    }
    for entry in txn.open_table(DEAD)?.iter()? {
        let (_, value) = entry?;
        found.letters += 1;
        found.letter_bytes += (value.value().len() as u64).saturating_sub(4);
    }
    found.handlers = state::read(db)?;
    found.numbers(&txn)?;
    Ok(found)
}

/// Reads marks, counters, heads and handlers' state, as far as it comes.
pub(crate) fn small(db: &Database, found: &mut Found) -> Result<(), redb::Error> {
    let small = db.begin_read()?.open_table(SMALL)?;
    for what in [keys::COUNTER, keys::HEAD, keys::MARK] {
        for entry in small.range(&[what][..]..&[what + 1][..])? {
            let (key, value) = entry?;
            found.small(key.value(), value.value());
        }
    }
    found.handlers = state::read(db)?;
    Ok(())
}

/// Reads where the writer goes on, and nothing else.
pub(crate) fn resume(db: &Database) -> Result<Found, redb::Error> {
    let mut found = Found::default();
    let txn = db.begin_read()?;
    let small = txn.open_table(SMALL)?;
    for what in [keys::COMMITS, keys::HEAD, keys::BORDER] {
        for entry in small.range(&[what][..]..&[what + 1][..])? {
            let (key, value) = entry?;
            found.small(key.value(), value.value());
        }
    }
    found.numbers(&txn)?;
    Ok(found)
}

impl Found {
    /// Events that are queued in a channel, by its number.
    pub(crate) fn queued(&self, channel: u32) -> u64 {
        let lanes = self.queues.range(LaneId::all_of(channel));
        lanes.map(|(_, queue)| queue.events()).sum()
    }

    /// What is known of the lanes of a channel; each lane that is in the file, once.
    pub(crate) fn lanes_of(&mut self, channel: u32) -> Vec<(u32, Queue, Head)> {
        let all = LaneId::all_of(channel);
        let queues = self.queues.range(all.clone()).map(|(lane, _)| *lane);
        let heads = self.heads.range(all).map(|(lane, _)| *lane);
        let lanes: BTreeSet<LaneId> = queues.chain(heads).collect();
        let of = |id: LaneId| {
            let queue = self.queues.remove(&id).unwrap_or_default();
            let head = self.heads.remove(&id).unwrap_or_default();
            let head = beyond(head, &queue);
            (id.lane, queue, head)
        };
        lanes.into_iter().map(of).collect()
    }

    /// The next numbers of what is only ever added to.
    fn numbers(&mut self, txn: &ReadTransaction) -> Result<(), redb::Error> {
        let dead = txn.open_table(DEAD)?;
        self.resume.next_letter = dead.last()?.map_or(0, |(id, _)| id.value() + 1);
        let aside = txn.open_table(QUARANTINE)?;
        self.resume.aside_entries = aside.len()?;
        self.resume.next_aside = aside.last()?.map_or(0, |(id, _)| id.value() + 1);
        Ok(())
    }

    fn small(&mut self, key: &[u8], value: &[u8]) {
        let read = match key.first().copied() {
            Some(keys::COMMITS) => self.commits(key, value),
            Some(keys::COUNTER) => self.counter(key, value),
            Some(keys::MARK) => self.mark(key, value),
            Some(keys::HEAD) => self.head(key, value),
            Some(keys::BORDER) => keys::parse_of_lane(key).map(|lane| {
                self.heads.entry(lane).or_default().borders = read_borders(key, value);
            }),
            _ => None,
        };
        if read.is_none() {
            damaged(key);
        }
    }

    fn commits(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.resume.commits = Reader(unseal(key, value)?).u64()?;
        Some(())
    }

    fn counter(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let value = Reader(unseal(key, value)?).u64()?;
        self.ledger.insert(keys::parse_counter(key)?, value);
        Some(())
    }

    /// A mark that is damaged counts as none (delivery contract D1.2).
    fn mark(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let value = Bytes::copy_from_slice(unseal(key, value)?);
        let (part, name) = keys::parse_mark(key)?;
        self.marks.entry(part).or_default().insert(name, value);
        Some(())
    }

    fn head(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let lane = keys::parse_of_lane(key)?;
        self.heads.insert(lane, Head::decode(key, value)?);
        Some(())
    }
}

fn damaged(key: &[u8]) {
    let key = String::from_utf8_lossy(key);
    warn!(%key, "an entry of the store is damaged and counts as none");
}

/// What the index says of every row.
type Index = BTreeMap<(LaneId, u64), IndexEntry>;

fn read_index(key: &[u8], value: &[u8]) -> Option<((LaneId, u64), IndexEntry)> {
    Some((keys::parse_of_row(key)?, IndexEntry::decode(key, value)?))
}

/// Finds what is missing in a damaged index by reading all rows.
///
/// A row whose header is damaged, too, is taken to hold an event at every position up to the next
/// row: it goes to the quarantine when it is leased.
fn rebuild(
    rows: &impl ReadableTable<[u8; 16], &'static [u8]>,
    index: &mut Index,
) -> Result<(), redb::Error> {
    warn!("the index of the store's rows is damaged: reading all rows");
    // From the end, so that it is known where the next row begins.
    let mut next: Option<(LaneId, u64)> = None;
    for entry in rows.iter()?.rev() {
        let (key, value) = entry?;
        let (lane, first) = keys::parse_row(&key.value());
        index.entry((lane, first)).or_insert_with(|| {
            let follows = next
                .filter(|(other, _)| *other == lane)
                .map(|(_, first)| first);
            describe(&key.value(), first, value.value(), follows)
        });
        next = Some((lane, first));
    }
    Ok(())
}

fn describe(key: &[u8; 16], first: u64, value: &[u8], next: Option<u64>) -> IndexEntry {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let size = |n: usize| small(n as u64);
    match StoredRow::read(key, &Bytes::copy_from_slice(value)) {
        Some(row) => IndexEntry {
            count: size(row.batch.len()),
            bytes: size(row.batch.bytes()),
            positions: row.offsets().last().map_or(0, |last| last + 1),
            received_ms: row.received_ms,
            chain: row.chain_after(first),
        },
        None => {
            let bytes = size(value.len());
            // No event is shorter than a byte, whatever the key of the next row says.
            let events = small(next.map_or(1, |next| next - first)).min(bytes);
            IndexEntry {
                count: events,
                bytes,
                positions: events,
                received_ms: 0,
                chain: 0,
            }
        }
    }
}

fn restore(first: u64, row: IndexEntry, settled: Option<&[u8]>) -> Entry {
    let families = row.positions != row.count;
    let mut entry = Entry::new(first, row.received_ms, row.count, row.bytes, families);
    let bitmap = settled.and_then(|value| {
        let (bytes, bits) = value.split_first_chunk::<4>()?;
        Some((
            u32::from_le_bytes(*bytes),
            Bits::from_bytes(bits, row.count)?,
        ))
    });
    if let Some((bytes, gone)) = bitmap {
        entry.restore(gone, bytes);
    }
    entry
}
