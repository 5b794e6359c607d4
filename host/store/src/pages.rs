//! How redb is set up over a disk, and opened again after an error.

use std::{sync::Arc, time::Duration};

use redb::{Builder, Database, StorageBackend};

use crate::{
    disk::Disk,
    file::{Ahead, FileBackend, Retire},
    meter::{Meter, Metered},
    trouble::{Trouble, guarded},
};

/// A disk, and how redb is to work on it.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) ahead: Ahead,
    pub(crate) meter: Arc<Meter>,
    pub(crate) cache: usize,
    pub(crate) delay: Duration,
    /// What was opened before: it must not write any more when something else does.
    pub(crate) before: Option<Retire>,
}

/// How much of the file an open looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// What an open needs: nothing after a close in order, every page after a crash.
    AsNeeded,
    /// Every page: the file or the disk is not to be trusted.
    Whole,
}

impl Pages {
    /// Opens the pages, repaired if need be.
    pub(crate) fn open(&mut self, check: Check) -> Result<Database, Trouble> {
        if let Some(before) = self.before.take() {
            before.retire();
        }
        if check == Check::Whole {
            self.disk.forget_cache()?;
        }
        let backend = FileBackend::new(Arc::clone(&self.disk), self.ahead.clone())?;
        self.before = Some(backend.retirement());
        let backend = Metered::new(Box::new(backend), Arc::clone(&self.meter), self.delay);
        open_pages(backend, self.cache, check)
    }
}

/// Opens or makes a redb database; a panic over a damaged file becomes an error.
pub(crate) fn open_pages(
    backend: impl StorageBackend,
    cache: usize,
    check: Check,
) -> Result<Database, Trouble> {
    guarded(|| {
        Builder::new()
            .set_cache_size(cache)
            .set_check_integrity_on_open(check == Check::Whole)
            .create_with_backend(backend)
    })
}
