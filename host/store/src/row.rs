//! The format of a row: what one put gave one lane, or a part of it.
//!
//! A header and the untouched Avro bytes. All numbers are little-endian:
//!
//! ```text
//! u8  format version (1)      u8  reserved      u16 reserved
//! u32 events                  u32 lane          u32 bytes of the header, checksum included
//! u64 nonce of the put        u64 chain before the first event
//! u64 received (ms)           u32 position runs u32 origin runs
//! position runs: u32 first, counted from the key's position; u32 events; u32 1 = they share one
//! origin runs:   16 B incarnation, u64 sequence, u32 child, u32 events, u32 1 = children
//! per event:     u32 end in the body, u32 CRC32C
//! u32 CRC32C of key and header
//! ```
//!
//! No I/O here: functions on bytes and numbers.

use bytes::Bytes;
use levada_core::{
    Batch, OriginId, Origins,
    origin::{Incarnation, OriginRun},
};

use crate::codec::Reader;

const VERSION: u8 = 1;
const FIXED: usize = 48;
const CHAIN_AT: usize = 24;
/// What the page of a row holds beside the row (checked against redb 4.5: 4 bytes of page header,
/// 4 of offset, 16 of key), with some to spare.
const PAGE_OVERHEAD: usize = 64;
/// Rows of more than one event stay below this.
const MOST: usize = 128 << 10;
/// A rest is cut into smaller powers of two down to this.
const LEAST: usize = 16 << 10;

/// A row on its way to the disk: everything but its place in the lane.
#[derive(Debug, Clone)]
pub(crate) struct NewRow {
    /// The events of the row, with their origin ids.
    pub(crate) batch: Batch,
    /// How many positions they take.
    pub(crate) positions: u32,
    pub(crate) bytes: u32,
    header: Vec<u8>,
    crcs_at: usize,
}

impl NewRow {
    /// Bytes of the whole row.
    pub(crate) fn len(&self) -> usize {
        self.header.len() + self.bytes as usize
    }

    pub(crate) fn has_families(&self) -> bool {
        self.positions as usize != self.batch.len()
    }

    /// Gives the row its place: writes key and chain into the header and returns the chain after
    /// its last event.
    pub(crate) fn place(&mut self, key: &[u8; 16], first: u64, chain: u64, nonce: u64) -> u64 {
        self.header[CHAIN_AT - 8..CHAIN_AT].copy_from_slice(&nonce.to_le_bytes());
        self.header[CHAIN_AT..CHAIN_AT + 8].copy_from_slice(&chain.to_le_bytes());
        let sealed = self.header.len() - 4;
        let crc = crc32c::crc32c_append(crc32c::crc32c(key), &self.header[..sealed]);
        self.header[sealed..].copy_from_slice(&crc.to_le_bytes());
        let crcs = self.header[self.crcs_at..sealed]
            .chunks_exact(8)
            .map(|end_and_crc| {
                u32::from_le_bytes([
                    end_and_crc[4],
                    end_and_crc[5],
                    end_and_crc[6],
                    end_and_crc[7],
                ])
            });
        let mut runs = Reader(&self.header[FIXED..self.crcs_at]);
        let mut left = 0;
        let (mut position, mut shared) = (first, false);
        let mut after = chain;
        for crc in crcs {
            if left == 0 {
                let run = read_run(&mut runs).expect("the header was written by this module");
                (position, left, shared) = (first + u64::from(run.first), run.count, run.shared);
            }
            after = link(after, position, crc, nonce);
            left -= 1;
            position += u64::from(!shared);
        }
        after
    }

    /// Copies header and events into `out`, which is [`len`](Self::len) long.
    pub(crate) fn write_to(&self, out: &mut [u8]) {
        let (header, mut rest) = out.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        for run in self.batch.runs() {
            let (here, after) = rest.split_at_mut(run.len());
            here.copy_from_slice(run);
            rest = after;
        }
    }
}

/// One step of the running hash over a lane: position, checksum and nonce of the put. Two folded
/// multiplications, as in wyhash; it tells two lives of a store apart, and is no signature.
pub(crate) fn link(chain: u64, position: u64, crc: u32, nonce: u64) -> u64 {
    let event = fold(
        position ^ 0xa076_1d64_78bd_642f,
        nonce ^ u64::from(crc) ^ 0xe703_7ed1_a0b4_28db,
    );
    fold(chain ^ event ^ 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of the product are wanted"
)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// `count` events from `first` on, counted from the row's first position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    count: u32,
    /// They are children of one event and share one position.
    shared: bool,
}

fn read_run(reader: &mut Reader<'_>) -> Option<Run> {
    Some(Run {
        first: reader.u32()?,
        count: reader.u32()?,
        shared: reader.u32()? == 1,
    })
}

/// Cuts a put into rows, computes the checksums, and prepares the headers.
pub(crate) fn rows_of(batch: &Batch, lane: u32, received_ms: u64) -> Vec<NewRow> {
    let ends = cumulative(batch);
    let families = family_starts(batch);
    let mut rows = Vec::with_capacity(1);
    let mut from = 0;
    while from < batch.len() {
        let to = cut(&ends, families.as_deref(), from);
        rows.push(new_row(batch.slice(from..to), lane, received_ms));
        from = to;
    }
    rows
}

/// Where each event ends, in the bytes of all.
fn cumulative(batch: &Batch) -> Vec<u64> {
    let mut end = 0;
    let add = |length| {
        end += u64::from(length);
        end
    };
    batch.lengths().map(add).collect()
}

/// Whether each event begins a family: the children of one event share its position and are never
/// cut apart. `None` if every event stands alone.
pub(crate) fn family_starts(batch: &Batch) -> Option<Vec<bool>> {
    let runs = batch.origins().runs();
    let follows = |pair: &[OriginRun]| same_parent(pair[0].get(pair[0].count - 1), pair[1].first);
    if !runs.iter().any(|run| run.children) && !runs.windows(2).any(follows) {
        return None;
    }
    let mut before: Option<OriginId> = None;
    let starts = batch.origins().iter().map(|id| {
        let start = before.is_none_or(|last| !same_parent(last, id));
        before = Some(id);
        start
    });
    Some(starts.collect())
}

fn same_parent(a: OriginId, b: OriginId) -> bool {
    a.incarnation == b.incarnation && a.sequence == b.sequence && a.child != b.child
}

/// Where the row that begins at `from` ends, so that it fills its power of two of pages well.
fn cut(ends: &[u64], families: Option<&[bool]>, from: usize) -> usize {
    let before = if from == 0 { 0 } else { ends[from - 1] };
    let size = |to: usize| {
        let body = usize::try_from(ends[to - 1] - before).unwrap_or(usize::MAX);
        body.saturating_add(PAGE_OVERHEAD + FIXED + 4 + 12 + 36 + 8 * (to - from))
    };
    let all = size(ends.len());
    let rounded = all.checked_next_power_of_two().unwrap_or(usize::MAX);
    let budget = if all > MOST {
        MOST
    } else if all > LEAST && rounded - all > rounded / 4 {
        rounded / 2
    } else {
        return ends.len();
    };
    let (mut low, mut high) = (from + 1, ends.len());
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if size(middle) <= budget {
            low = middle
        } else {
            high = middle - 1
        }
    }
    let Some(starts) = families else { return low };
    let back = (from + 1..=low)
        .rev()
        .find(|to| starts.get(*to).copied().unwrap_or(true));
    let forward = || {
        (low..starts.len())
            .find(|to| starts[*to])
            .unwrap_or(ends.len())
    };
    back.unwrap_or_else(forward)
}

fn new_row(batch: Batch, lane: u32, received_ms: u64) -> NewRow {
    let runs = position_runs(&batch);
    let positions = runs
        .last()
        .map_or(0, |run| run.first + if run.shared { 1 } else { run.count });
    let origins = batch.origins().runs();
    let header_len = FIXED + 12 * runs.len() + 36 * origins.len() + 8 * batch.len() + 4;
    let mut header = Vec::with_capacity(header_len);
    header.extend_from_slice(&[VERSION, 0, 0, 0]);
    for number in [count(batch.len()), lane, count(header_len)] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    // Nonce and chain are known when the row gets its place.
    header.extend_from_slice(&[0; 16]);
    header.extend_from_slice(&received_ms.to_le_bytes());
    header.extend_from_slice(&count(runs.len()).to_le_bytes());
    header.extend_from_slice(&count(origins.len()).to_le_bytes());
    for run in &runs {
        for number in [run.first, run.count, u32::from(run.shared)] {
            header.extend_from_slice(&number.to_le_bytes());
        }
    }
    for run in origins {
        header.extend_from_slice(&run.first.incarnation.0);
        header.extend_from_slice(&run.first.sequence.to_le_bytes());
        for number in [run.first.child, run.count, u32::from(run.children)] {
            header.extend_from_slice(&number.to_le_bytes());
        }
    }
    let crcs_at = header.len();
    let mut end = 0;
    for event in batch.iter() {
        let bytes = event.as_bytes();
        end += count(bytes.len());
        header.extend_from_slice(&end.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    }
    header.extend_from_slice(&[0; 4]);
    NewRow {
        batch,
        positions,
        bytes: end,
        header,
        crcs_at,
    }
}

fn position_runs(batch: &Batch) -> Vec<Run> {
    let Some(starts) = family_starts(batch) else {
        return vec![Run {
            first: 0,
            count: count(batch.len()),
            shared: false,
        }];
    };
    let mut runs: Vec<Run> = Vec::new();
    for (position, family) in starts.chunk_by(|_, next| !*next).enumerate() {
        let events = count(family.len());
        match runs.last_mut() {
            Some(run) if !run.shared && events == 1 => run.count += 1,
            _ => runs.push(Run {
                first: count(position),
                count: events,
                shared: events > 1,
            }),
        }
    }
    runs
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("a batch is below 4 GiB")
}

/// The header of a row, read back and checked.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// Bytes of the header.
    len: usize,
    received_ms: u64,
    nonce: u64,
    chain: u64,
    runs: Vec<Run>,
    origins: Vec<OriginRun>,
    /// Where each event ends in the body.
    ends: Vec<u32>,
    /// The CRC32C each event must have.
    crcs: Vec<u32>,
}

impl Header {
    /// Reads the header of a row; `None` if it is damaged. The events need not be there.
    pub(crate) fn read(key: &[u8; 16], value: &[u8]) -> Option<Self> {
        let mut fixed = Reader(value);
        let version = fixed.byte()?;
        fixed.take(3)?;
        let (events, _lane, len) = (fixed.u32()?, fixed.u32()?, fixed.u32()? as usize);
        let (checked, crc) = value.get(..len)?.split_last_chunk::<4>()?;
        let is = crc32c::crc32c_append(crc32c::crc32c(key), checked);
        if version != VERSION || is != u32::from_le_bytes(*crc) {
            return None;
        }
        let (nonce, chain, received_ms) = (fixed.u64()?, fixed.u64()?, fixed.u64()?);
        let (run_count, origin_count) = (fixed.u32()?, fixed.u32()?);
        let mut rest = Reader(checked.get(FIXED..)?);
        let runs = (0..run_count)
            .map(|_| read_run(&mut rest))
            .collect::<Option<_>>()?;
        let origins = (0..origin_count)
            .map(|_| read_origins(&mut rest))
            .collect::<Option<_>>()?;
        let per_event = rest.take(events as usize * 8)?;
        let pairs = per_event.chunks_exact(8).map(|pair| {
            let mut pair = Reader(pair);
            Some((pair.u32()?, pair.u32()?))
        });
        let (ends, crcs) = pairs.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some(Self {
            len,
            received_ms,
            nonce,
            chain,
            runs,
            origins,
            ends,
            crcs,
        })
    }

    /// The position of each event, counted from the row's first.
    pub(crate) fn offsets(&self) -> Vec<u32> {
        offsets(&self.runs)
    }

    /// The chain after the last event at `position` of a row that begins at `first`; `None` if the
    /// row ends before.
    pub(crate) fn chain_at(&self, first: u64, position: u64) -> Option<u64> {
        let offsets = self.offsets();
        let reaches = offsets
            .last()
            .is_some_and(|last| first + u64::from(*last) >= position);
        let events = offsets.into_iter().zip(&self.crcs);
        let mut chain = self.chain;
        for (offset, crc) in events {
            let at = first + u64::from(offset);
            if at > position {
                break;
            }
            chain = link(chain, at, *crc, self.nonce);
        }
        reaches.then_some(chain)
    }
}

/// A row that was read back and checked.
#[derive(Debug, Clone)]
pub(crate) struct StoredRow {
    pub(crate) batch: Batch,
    pub(crate) received_ms: u64,
    header: Header,
}

impl StoredRow {
    /// Reads a row; `None` if its header is damaged.
    pub(crate) fn read(key: &[u8; 16], value: &Bytes) -> Option<Self> {
        let mut header = Header::read(key, value)?;
        let ends = std::mem::take(&mut header.ends);
        let origins = Origins::from_runs(std::mem::take(&mut header.origins));
        let batch = Batch::from_stored(value.slice(header.len..), ends).ok()?;
        Some(Self {
            batch: batch.with_origins(origins),
            received_ms: header.received_ms,
            header,
        })
    }

    /// Whether the `n`-th event is what was written.
    pub(crate) fn is_sound(&self, n: usize) -> bool {
        let event = self.batch.get(n);
        let crc = self.header.crcs.get(n);
        event.is_some_and(|event| crc == Some(&crc32c::crc32c(event.as_bytes())))
    }

    /// The chain after the last event of a row that begins at this position.
    pub(crate) fn chain_after(&self, first: u64) -> u64 {
        let last = self.offsets().last().copied().unwrap_or_default();
        let end = self.header.chain_at(first, first + u64::from(last));
        end.unwrap_or(self.header.chain)
    }

    /// The position of each event, counted from the row's first.
    pub(crate) fn offsets(&self) -> Vec<u32> {
        self.header.offsets()
    }
}

fn read_origins(reader: &mut Reader<'_>) -> Option<OriginRun> {
    let incarnation = Incarnation(reader.array()?);
    let (sequence, child) = (reader.u64()?, reader.u32()?);
    let (count, children) = (reader.u32()?, reader.u32()? == 1);
    Some(OriginRun {
        first: OriginId {
            incarnation,
            sequence,
            child,
        },
        count,
        children,
    })
}

fn offsets(runs: &[Run]) -> Vec<u32> {
    let of = |run: &Run| {
        let Run {
            first,
            count,
            shared,
        } = *run;
        (0..count).map(move |n| if shared { first } else { first + n })
    };
    runs.iter().flat_map(of).collect()
}

/// The position of each event of a batch that is not on disk, counted from the first.
pub(crate) fn offsets_of(batch: &Batch) -> Vec<u32> {
    offsets(&position_runs(batch))
}

#[cfg(test)]
mod tests;
