//! A damaged store that is set aside, and the fresh one that takes over (delivery contract D5.4).

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use levada_core::{ChannelName, Counter, Incarnation, PartId, ledger::channel_part};
use redb::Database;
use tracing::{error, warn};

use crate::{
    audit,
    codec::{seal, unseal},
    folder,
    keys::{self, DEAD, LaneId, SMALL},
    letter,
    overlay::Overlay,
    pages::{Check, open_pages},
    params::OpenError,
    raw::{self, Keys},
    scan::{self, Found, Meta},
    shared::CountKey,
    state::{self, Handlers},
    trouble::{Trouble, guarded},
    writer::Head,
};

/// Memory for pages while a file is read or made.
const CACHE: usize = 8 << 20;

/// What is kept of a damaged store: everything but its rows.
#[derive(Debug, Default)]
pub(crate) struct Rescued {
    /// Name to number.
    pub(crate) channels: BTreeMap<String, u32>,
    pub(crate) ledger: BTreeMap<CountKey, u64>,
    pub(crate) marks: HashMap<PartId, BTreeMap<String, Bytes>>,
    /// The position that each lane gives next.
    pub(crate) next: BTreeMap<LaneId, u64>,
    pub(crate) letters: BTreeMap<u64, Vec<u8>>,
    pub(crate) handlers: Handlers,
}

impl Rescued {
    /// Reads what can be read of a file that no store has open.
    pub(crate) fn read(path: &Path) -> Self {
        let mut found = Found::default();
        let mut rescued = Self::default();
        let mut read = || -> Result<(), Trouble> {
            let overlay = Overlay::new(File::open(path)?)?;
            let db = open_pages(overlay, CACHE, Check::AsNeeded)?;
            let meta = guarded(|| scan::read_meta(&db))?;
            rescued.channels = meta.map(|meta| meta.channels).unwrap_or_default();
            guarded(|| scan::small(&db, &mut found))
        };
        if let Err(trouble) = read() {
            warn!(%trouble, "marks, counters and handlers' state of the damaged store are lost, or some of them");
        }
        let next = found.heads.into_iter();
        rescued.next = next.map(|(lane, head)| (lane, head.next)).collect();
        rescued.ledger = found.ledger;
        rescued.marks = found.marks;
        rescued.handlers = found.handlers;
        rescued.read_letters(path);
        rescued
    }

    /// Reads the dead letters of a damaged file, from whatever page they lie on.
    pub(crate) fn read_letters(&mut self, path: &Path) {
        let letters = &mut self.letters;
        let read = File::open(path).and_then(|file| {
            raw::entries(&file, Keys::Fixed(8), |key, value| {
                let Ok(id) = key.try_into().map(u64::from_le_bytes) else {
                    return;
                };
                // The seal covers the number; what else has numbers is no letter.
                let value = unseal(&id.to_be_bytes(), value);
                if let Some(value) = value.filter(|value| letter::decode(value).is_some()) {
                    letters.insert(id, value.to_vec());
                }
            })
        });
        if let Err(error) = read {
            warn!(%error, "the dead letters of the damaged store are lost");
        }
    }

    /// Counts as quarantined what was in the channels, so that the identities hold without it.
    fn count_lost(&mut self) -> BTreeMap<String, u64> {
        let mut lost = BTreeMap::new();
        for name in self.channels.keys() {
            let Some(channel) = ChannelName::new(name) else {
                continue;
            };
            let part = channel_part(&channel);
            let events = audit::left_in(&self.ledger, &part);
            if events > 0 {
                let key = (part, Counter::Quarantined, "store".to_owned());
                *self.ledger.entry(key).or_default() += events;
                lost.insert(name.clone(), events);
            }
        }
        lost
    }

    /// Moves the damaged file out of the way and makes a fresh store in its place, which has what
    /// was rescued. Where the damaged one is now.
    pub(crate) fn replace(
        &mut self,
        path: &Path,
        incarnation: Incarnation,
        why: &Trouble,
    ) -> Result<PathBuf, OpenError> {
        let lost = self.count_lost();
        let aside = folder::set_aside(path)?;
        folder::make_file(path, |db| self.write(db, incarnation))?;
        error!(
            reason = %why,
            set_aside = %aside.display(),
            dead_letters = self.letters.len(),
            "the store's file is damaged and was set aside; `levada channel salvage` reads it"
        );
        for (channel, events) in lost {
            error!(channel, events, "events are in the damaged file only");
        }
        Ok(aside)
    }

    fn write(&self, db: &Database, incarnation: Incarnation) -> Result<(), redb::Error> {
        let meta = Meta {
            format: scan::FORMAT,
            incarnation,
            channels: self.channels.clone(),
        };
        scan::write_meta(db, &meta)?;
        let txn = db.begin_write()?;
        {
            let mut small = txn.open_table(SMALL)?;
            for ((part, counter, reason), value) in &self.ledger {
                let key = keys::counter(part, *counter, reason);
                let value = seal(&key, value.to_le_bytes().to_vec());
                small.insert(&key[..], &value[..])?;
            }
            for (part, marks) in &self.marks {
                for (name, value) in marks {
                    let key = keys::mark(part, name);
                    small.insert(&key[..], &seal(&key, value.to_vec())[..])?;
                }
            }
            for (lane, next) in &self.next {
                let head = Head {
                    next: *next,
                    ..Head::default()
                };
                let key = keys::of_lane(keys::HEAD, *lane);
                small.insert(&key[..], &head.encode(&key)[..])?;
            }
            state::write_all(&txn, &self.handlers)?;
            let mut dead = txn.open_table(DEAD)?;
            for (id, value) in &self.letters {
                dead.insert(id, &seal(&id.to_be_bytes(), value.clone())[..])?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}
