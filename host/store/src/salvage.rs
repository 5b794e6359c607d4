//! Reading what can be read of a store's file, whatever has happened to it.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io,
    path::Path,
};

use bytes::Bytes;
use levada_core::{EventRef, OriginId};
use redb::{Database, ReadableDatabase, ReadableTable};

use crate::{
    codec::{Reader, unseal},
    folder,
    keys::{self, LaneId, ROWS, SMALL},
    open::check_format,
    overlay::Overlay,
    pages::{Check, open_pages},
    params::OpenError,
    queue::Bits,
    raw::{self, Keys},
    row::StoredRow,
    scan,
    trouble::{Trouble, guarded},
};

/// Memory for pages while a file is read.
const CACHE: usize = 8 << 20;

/// One event that was found.
#[derive(Debug)]
pub struct Salvaged<'a> {
    /// The name of its channel, or `channel-<number>` if that could not be read.
    pub channel: &'a str,
    pub position: u64,
    pub origin: Option<OriginId>,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: u64,
    pub event: EventRef<'a>,
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SalvageReport {
    /// Events by channel.
    pub events: BTreeMap<String, u64>,
    /// Events whose checksum does not fit, and that were left out.
    pub damaged_events: u64,
    /// Rows whose header does not fit: what was in them is not known.
    pub damaged_rows: u64,
    /// Why the file's own index could not be used: then events that had been delivered before may
    /// be among those that were found.
    pub without_index: Option<String>,
}

/// Reads the events of a store's file, changing nothing of it, and hands them over one by one.
///
/// With the help of the file's index if that can be read: then these are the events that were
/// queued, in order. Else, or from where it cannot be read on, from every page that still makes
/// sense, in the order of the pages.
///
/// # Errors
/// [`OpenError`] names a file that is none of a store: too short, not redb's, another program's.
/// The inner error is the one of `each`.
pub fn salvage<E>(
    path: &Path,
    each: impl FnMut(&Salvaged<'_>) -> Result<(), E>,
) -> Result<Result<SalvageReport, E>, OpenError> {
    let file = folder::open_to_read(path)?;
    let mut teller = Teller {
        each,
        names: BTreeMap::new(),
        told: HashSet::new(),
        report: SalvageReport::default(),
        stopped: None,
    };
    if let Err(trouble) = teller.by_index(path, &file)? {
        teller.report.without_index = Some(trouble.text);
        teller.by_page(&file).map_err(|source| OpenError::Io {
            attempt: "read",
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(match teller.stopped {
        Some(error) => Err(error),
        None => Ok(teller.report),
    })
}

/// Tells what it finds.
struct Teller<F, E> {
    each: F,
    names: BTreeMap<u32, String>,
    /// Rows that were told already.
    told: HashSet<(LaneId, u64)>,
    report: SalvageReport,
    /// Whoever listens has had enough.
    stopped: Option<E>,
}

impl<F: FnMut(&Salvaged<'_>) -> Result<(), E>, E> Teller<F, E> {
    /// Tells what is queued; the inner error if the trees cannot be read, or not to the end.
    fn by_index(&mut self, path: &Path, file: &File) -> Result<Result<(), Trouble>, OpenError> {
        let read = || {
            let overlay = Overlay::new(file.try_clone()?)?;
            let db = open_pages(overlay, CACHE, Check::Whole)?;
            let meta = guarded(|| scan::read_meta(&db))?;
            Ok((db, meta))
        };
        let (db, meta) = match read() {
            Ok(read) => read,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let Some(meta) = meta else {
            return Err(OpenError::Unreadable {
                path: path.to_owned(),
                reason: "it is the redb file of another program".into(),
            });
        };
        check_format(&meta, path)?;
        let names = meta.channels.into_iter().map(|(name, id)| (id, name));
        self.names.extend(names);
        Ok(guarded(|| self.rows(&db)))
    }

    fn rows(&mut self, db: &Database) -> Result<(), redb::Error> {
        let txn = db.begin_read()?;
        let small = txn.open_table(SMALL)?;
        for entry in txn.open_table(ROWS)?.iter()? {
            let (key, value) = entry?;
            let (lane, first) = keys::parse_row(&key.value());
            let settled = keys::of_row(keys::SETTLED, lane, first);
            let bitmap = small.get(&settled[..])?;
            let bitmap = bitmap.as_ref().and_then(|v| unseal(&settled, v.value()));
            self.row(&key.value(), value.value(), bitmap);
        }
        Ok(())
    }

    /// Tells every row of every page that looks like one.
    fn by_page(&mut self, file: &File) -> io::Result<()> {
        raw::entries(file, Keys::Variable, |key, value| {
            self.names.extend(channel_name(key, value));
        })?;
        raw::entries(file, Keys::Fixed(16), |key, value| {
            // The header's checksum covers the key: what is no row does not pass.
            if let Ok(key) = <&[u8; 16]>::try_from(key)
                && StoredRow::read(key, &Bytes::copy_from_slice(value)).is_some()
            {
                self.row(key, value, None);
            }
        })
    }

    fn row(&mut self, key: &[u8; 16], value: &[u8], bitmap: Option<&[u8]>) {
        let (lane, first) = keys::parse_row(key);
        if self.stopped.is_some() || !self.told.insert((lane, first)) {
            return;
        }
        let Some(row) = StoredRow::read(key, &Bytes::copy_from_slice(value)) else {
            self.report.damaged_rows += 1;
            return;
        };
        let unnamed = || format!("channel-{}", lane.channel);
        let channel = self.names.get(&lane.channel).cloned();
        let channel = channel.unwrap_or_else(unnamed);
        let count = u32::try_from(row.batch.len()).unwrap_or(u32::MAX);
        let gone = bitmap.and_then(|bitmap| Bits::from_bytes(bitmap.get(4..)?, count));
        let places = (0..count).zip(row.offsets());
        for (n, offset) in places {
            if gone.as_ref().is_some_and(|gone| gone.get(n)) {
                continue;
            }
            let sound = row
                .batch
                .get(n as usize)
                .filter(|_| row.is_sound(n as usize));
            let Some(event) = sound else {
                self.report.damaged_events += 1;
                continue;
            };
            let found = Salvaged {
                channel: &channel,
                position: first + u64::from(offset),
                origin: row.batch.origins().get(n as usize),
                received_ms: row.received_ms,
                event,
            };
            if let Err(error) = (self.each)(&found) {
                self.stopped = Some(error);
                return;
            }
            *self.report.events.entry(channel.clone()).or_default() += 1;
        }
    }
}

/// The number and name of a channel, if that is what this entry is.
fn channel_name(key: &[u8], value: &[u8]) -> Option<(u32, String)> {
    let name = std::str::from_utf8(key)
        .ok()?
        .strip_prefix(scan::CHANNEL_KEY)?;
    let number = Reader(unseal(key, value)?).u32()?;
    Some((number, name.to_owned()))
}
