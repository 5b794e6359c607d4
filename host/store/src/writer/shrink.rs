//! Gives the space of a drained backlog back to the disk: redb keeps freed pages in its file.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use redb::CompactionError;
use tracing::{info, warn};

use super::Writer;
use crate::{room::DEAD, shared::State, trouble::guarded};

/// The store is idle when nothing was committed for so long.
const IDLE: Duration = Duration::from_secs(5);
/// It is tried so often at most.
const EVERY: Duration = Duration::from_secs(60);

/// What the writer remembers of it.
#[derive(Debug, Default)]
pub(super) struct Shrinking {
    tried: Option<Instant>,
}

impl Writer {
    /// When space is given back: once the store is idle, if its file is longer than what it holds
    /// by more than the spare bytes, and by more than what would have to be moved.
    pub(super) fn shrink_due(&self, state: &State) -> Option<Instant> {
        let held = self.durable_bytes(state) + state.rooms.get(DEAD).bytes;
        // Rows are rounded up, and have headers.
        let held = held + held / 4;
        let length = self.pages.disk.length().ok()?;
        let waste = length.saturating_sub(held);
        let idle = self.worked? + IDLE;
        let due = self
            .shrinking
            .tried
            .map_or(idle, |tried| idle.max(tried + EVERY));
        (waste > self.shared.spare_bytes && waste > held).then_some(due)
    }

    /// Moves what is held to the front of the file and cuts the rest off. Nothing is put or taken
    /// meanwhile; how long that took is logged.
    pub(super) fn shrink(&mut self, now: Instant) {
        self.shrinking.tried = Some(now);
        let before = self.pages.disk.length().unwrap_or(0);
        let begin = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut base = shared.base.write().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = base.db.as_mut() else { return };
        let done = guarded(|| match db.compact() {
            Ok(_) => Ok(None),
            Err(CompactionError::Storage(error)) => Err(redb::Error::from(error)),
            Err(busy) => Ok(Some(busy)),
        });
        drop(base);
        // What it committed was not for a quick reopen.
        self.unsaved = true;
        match done {
            Ok(None) => {
                let after = self.pages.disk.length().unwrap_or(before);
                let (given_back, pause) = (before.saturating_sub(after), begin.elapsed());
                shared.metrics.given_back.add(given_back);
                info!(
                    given_back,
                    file = after,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    "gave the space of a drained backlog back to the disk"
                );
            }
            Ok(Some(busy)) => warn!(%busy, "cannot give space back to the disk now"),
            Err(error) => {
                warn!(%error, "cannot give space back to the disk");
                // redb writes nothing any more until it is opened again.
                shared.lock().trouble.get_or_insert(error);
            }
        }
    }
}
