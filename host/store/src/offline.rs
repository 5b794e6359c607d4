//! Looking at a store that no agent has open, without changing a byte of it.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use levada_core::{
    ChannelName, Count, DeadLetter,
    inspect::{ChannelInfo, DeadLetterInfo, Inspect, StoreInfo},
    ledger::channel_part,
};
use redb::Database;

use crate::{
    audit::{self, Identity},
    folder::FILE,
    inspect,
    keys::LaneId,
    lock::Lock,
    open::check_format,
    overlay::Overlay,
    pages::{Check, open_pages},
    params::{ChannelKind, OpenError},
    queue::Queue,
    scan::{self, Found, Meta},
    trouble::{Trouble, guarded},
};

/// Memory for pages while somebody looks.
const CACHE: usize = 8 << 20;

/// A store that is looked at while no agent runs. Holds the lock of the folder.
///
/// What redb has to repair after a crash it repairs in memory: the file stays as it is.
#[derive(Debug)]
pub struct Offline {
    path: PathBuf,
    meta: Meta,
    found: Found,
    db: Database,
    file_bytes: u64,
    _lock: Lock,
}

impl Offline {
    /// Opens the store in a folder. Blocks for as long as an agent's start would.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::InUse`] names the agent that has it open.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let io_error = |source| OpenError::Io {
            attempt: "open",
            path: path.clone(),
            source,
        };
        let unreadable = |trouble: Trouble| OpenError::of(&path, trouble);
        let file = File::open(&path).map_err(io_error)?;
        let lock = Lock::take(dir)?;
        let file_bytes = file.metadata().map_err(io_error)?.len();
        let overlay = Overlay::new(file).map_err(io_error)?;
        let db = open_pages(overlay, CACHE, Check::AsNeeded).map_err(unreadable)?;
        let meta = guarded(|| scan::read_meta(&db)).map_err(unreadable)?;
        let meta = meta.ok_or_else(|| unreadable(Trouble::damage("it has no meta table")))?;
        check_format(&meta, &path)?;
        let found = guarded(|| scan::scan(&db)).map_err(unreadable)?;
        Ok(Self {
            path,
            meta,
            found,
            db,
            file_bytes,
            _lock: lock,
        })
    }

    /// Checks the accounting identities of every source and durable channel.
    #[must_use]
    pub fn audit(&self) -> Vec<Identity> {
        let part = |info: ChannelInfo| (channel_part(&info.name), info.events);
        let queued: BTreeMap<_, _> = self.channels().into_iter().map(part).collect();
        audit::identities(&self.found.ledger, &queued)
    }
}

impl Inspect for Offline {
    /// Capacities are in the configuration, not in the store: they are 0 here.
    fn channels(&self) -> Vec<ChannelInfo> {
        let info = |(name, number): (&String, &u32)| {
            let lanes = LaneId::all_of(*number);
            let lanes = || {
                self.found
                    .queues
                    .range(lanes.clone())
                    .map(|(_, queue)| queue)
            };
            Some(ChannelInfo {
                name: ChannelName::new(name)?,
                kind: ChannelKind::Durable.as_str(),
                events: lanes().map(Queue::events).sum(),
                bytes: lanes().map(Queue::bytes).sum(),
                leased: 0,
                capacity_bytes: 0,
                capacity_events: None,
                oldest_ms: lanes().filter_map(Queue::oldest_ms).min(),
                waiting_puts: 0,
            })
        };
        self.meta.channels.iter().filter_map(info).collect()
    }

    fn store(&self) -> Option<StoreInfo> {
        Some(StoreInfo {
            path: self.path.display().to_string(),
            incarnation: self.meta.incarnation.to_string(),
            file_bytes: self.file_bytes,
            commits: 0,
            flushes: 0,
            written_bytes: 0,
            sync_p50_us: 0,
            sync_p99_us: 0,
            probe_sync_us: None,
            probe_is_implausible: false,
            quarantined: audit::quarantined(&self.found.ledger),
            set_aside: Vec::new(),
            dead_letters: self.found.letters,
            dead_letter_bytes: self.found.letter_bytes,
            works: true,
            state: "not running".to_owned(),
        })
    }

    fn counts(&self) -> Result<Vec<Count>, String> {
        Ok(inspect::counts(&self.found.ledger))
    }

    fn dead_letters(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetterInfo>, String> {
        inspect::dead_letters(&self.db, after, limit).map_err(|error| error.to_string())
    }

    fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, String> {
        inspect::dead_letter(&self.db, id).map_err(|error| error.to_string())
    }
}
