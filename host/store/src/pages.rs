//! How redb is set up over a disk, and opened again after an error.

use std::{sync::Arc, time::Duration};

use redb::{Builder, Database, StorageBackend};

use crate::{
    ballast::Ballast,
    disk::Disk,
    file::{Ahead, Control, FileBackend, Thrift},
    meter::{Meter, Metered},
    params::OnCorruption,
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
    /// What belongs to a file in a folder.
    pub(crate) home: Option<Home>,
    pub(crate) thrift: Thrift,
    /// Steers what is open. It must not write any more when something else does.
    pub(crate) control: Option<Control>,
}

/// What belongs to a file in a folder, and to no other disk.
#[derive(Debug)]
pub(crate) struct Home {
    /// Space that is held for a full disk.
    pub(crate) ballast: Ballast,
    pub(crate) on_corruption: OnCorruption,
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
        if let Some(before) = self.control.take() {
            before.retire();
        }
        // A sync may have failed in this process or in the one before it: what the system has cached
        // since may be nowhere else.
        self.disk.forget_cache()?;
        let backend = FileBackend::new(Arc::clone(&self.disk), self.ahead.clone(), self.thrift)?;
        self.control = Some(backend.control());
        let backend = Metered::new(Box::new(backend), Arc::clone(&self.meter), self.delay);
        open_pages(backend, self.cache, check)
    }
}

impl Pages {
    /// The disk is full: gives up what is held for that, before the next [`open`](Self::open).
    pub(crate) fn save(&mut self) {
        self.thrift = Thrift::Lean;
        if let Some(Home { ballast, .. }) = &self.home {
            ballast.drop_it();
        }
    }

    /// Takes all of that back, if the disk has the space again.
    pub(crate) fn try_spend(&mut self) -> bool {
        let Some(control) = &self.control else {
            return false;
        };
        if !control.has_room(self.home.as_ref().map_or(0, |home| home.ballast.bytes())) {
            return false;
        }
        self.thrift = Thrift::Normal;
        control.spend();
        if let Some(Home { ballast, .. }) = &self.home {
            ballast.take_on();
        }
        true
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
