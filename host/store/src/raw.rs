//! Reading the leaves of a redb file without its trees: what a damaged file still holds.
//!
//! A leaf (redb 4.5, `btree_base.rs`) begins with the byte 1, an unused one and the number of its
//! entries (u16); then come the ends of the keys (u32 each, if keys have no fixed length), the ends
//! of the values (u32 each), the keys, the values; ends count from the beginning of the page. Pages
//! begin at multiples of 4096. Nothing says whether a leaf is still part of a tree, so whoever reads
//! takes only what carries a checksum of its own.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use crate::codec::Reader;

const PAGE: u64 = 4096;
const LEAF: u8 = 1;
/// No leaf of ours is longer: one event of 64 MiB and what belongs to it.
const MOST: usize = 128 << 20;

/// How the keys of a table are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// All have this length.
    Fixed(usize),
    Variable,
}

/// Calls `each` with every entry of every page that looks like a leaf with such keys.
///
/// # Errors
/// When the file cannot be read at all; a part that cannot is left out.
pub(crate) fn entries(
    file: &File,
    keys: Keys,
    mut each: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut head = vec![0; usize::try_from(PAGE).unwrap_or(4096)];
    for at in (0..length / PAGE).map(|n| n * PAGE) {
        // A sector that cannot be read is one page that is lost.
        if file.read_exact_at(&mut head, at).is_err() {
            continue;
        }
        let Some(end) = leaf_end(&head, keys, length - at) else {
            continue;
        };
        let mut page = vec![0; end];
        if file.read_exact_at(&mut page, at).is_err() {
            continue;
        }
        for (key, value) in ranges(&page, keys).unwrap_or_default() {
            if let (Some(key), Some(value)) = (page.get(key), page.get(value)) {
                each(key, value);
            }
        }
    }
    Ok(())
}

/// Where the leaf that begins so would end.
fn leaf_end(head: &[u8], keys: Keys, left: u64) -> Option<usize> {
    let (count, ends_at) = shape(head, keys)?;
    let mut last = Reader(head.get(ends_at + 4 * (count - 1)..)?);
    let end = last.u32()? as usize;
    (end <= MOST && end as u64 <= left).then_some(end)
}

/// The number of entries, and where the ends of their values are.
fn shape(page: &[u8], keys: Keys) -> Option<(usize, usize)> {
    let mut reader = Reader(page);
    let (kind, _) = (reader.byte()?, reader.byte()?);
    let count = usize::from(reader.u16()?);
    let key_ends = match keys {
        Keys::Fixed(_) => 0,
        Keys::Variable => 4 * count,
    };
    (kind == LEAF && count > 0).then_some((count, 4 + key_ends))
}

/// Where each key and value lies.
fn ranges(page: &[u8], keys: Keys) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let (count, ends_at) = shape(page, keys)?;
    let end = |at: usize| Some(Reader(page.get(at..)?).u32()? as usize);
    let keys_at = ends_at + 4 * count;
    let mut ranges = Vec::with_capacity(count);
    let key_end = |n: usize| match keys {
        Keys::Fixed(length) => Some(keys_at + length * (n + 1)),
        Keys::Variable => end(4 + 4 * n),
    };
    let (mut key_from, mut value_from) = (keys_at, key_end(count - 1)?);
    for n in 0..count {
        let (key_to, value_to) = (key_end(n)?, end(ends_at + 4 * n)?);
        ranges.push((key_from..key_to, value_from..value_to));
        (key_from, value_from) = (key_to, value_to);
    }
    Some(ranges)
}
