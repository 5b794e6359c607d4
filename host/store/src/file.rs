//! The store's file, with zeroed space kept ahead of what redb has asked for.
//!
//! A write into space that the file system has not allocated makes a sync wait for the file
//! system's own bookkeeping: 1.4 to 8 times slower. So a thread writes zeros beyond the part that
//! was ever used, and syncs them, before redb comes there.
//!
//! redb sees the *logical* length; the file is as long or longer. After an unclean stop redb
//! rebuilds its layout from the length it is told, and takes every length of whole pages from two
//! on (redb 4.5, `layout_from_file_len`; regions have no header pages of their own). So at open the
//! logical length is the file's, cut to whole pages: what was ahead becomes free space, and a
//! growth that stopped half-way (no space left) is cut off. The file is never shorter than the
//! logical length, so nothing that redb ever laid out is cut.
//!
//! When the disk is full the last of that space stays untouched, and redb is told that there is no
//! more: opened again as a *lean* backend, redb finds it as free pages, and can delete with it.
//!
//! Space that redb gave up and asks for again is not zeroed again: redb writes a page whole before
//! it reads it, as it does with every page it freed and uses again.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use levada_core::Chance;
use redb::StorageBackend;
use tracing::warn;

use crate::disk::{Disk, DiskSpace};

/// redb's page.
const PAGE: u64 = 4096;

/// How space is kept ahead, in bytes.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// The zeros of one write.
    pub chunk: u64,
    /// How much is kept ahead, at least and at most; between them a quarter of what is in use.
    pub least: u64,
    pub most: u64,
    /// How long the file may become.
    pub cap: u64,
    pub pace: Pace,
}

impl Default for Ahead {
    /// 4 to 64 MiB, in writes of 1 MiB, by a thread.
    fn default() -> Self {
        Self {
            chunk: 1 << 20,
            least: 4 << 20,
            most: 64 << 20,
            cap: u64::MAX,
            pace: Pace::Thread,
        }
    }
}

impl Ahead {
    /// What suits a disk of this size, for a file that has `used` bytes of it.
    pub(crate) fn on(space: Option<DiskSpace>, used: u64) -> Self {
        let default = Self::default();
        let Some(space) = space else { return default };
        // An eighth of a small disk at most is kept from use.
        let most = |bytes: u64| bytes.min(space.total / 16).max(64 << 10);
        Self {
            chunk: most(default.chunk),
            least: most(default.least),
            most: most(default.most),
            cap: space.cap(used),
            pace: default.pace,
        }
    }

    /// What is kept for a full disk.
    fn reserve(&self) -> u64 {
        self.least / 2
    }
}

/// Who writes the zeros, and when.
#[derive(Debug, Clone)]
pub enum Pace {
    /// A thread of its own, as soon as there are too few.
    Thread,
    /// Whoever uses the file, between two of its own operations when chance says so: a simulation.
    Chance(Chance),
}

/// The file behind redb.
#[derive(Debug)]
pub(crate) struct FileBackend {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How much of the space a backend uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thrift {
    /// It grows, and keeps a reserve.
    Normal,
    /// The disk is full: it uses the reserve, and makes no new one.
    Lean,
}

/// Steers a backend that redb has.
#[derive(Debug)]
pub(crate) struct Control(Weak<Shared>);

impl Control {
    /// Whether the disk has space for the file to grow again, reserve and `beside` included.
    pub(crate) fn has_room(&self, beside: u64) -> bool {
        let Some(shared) = self.0.upgrade() else {
            return true;
        };
        let allocated = shared.allocated.load(Ordering::SeqCst);
        let more = 2 * shared.ahead.reserve();
        shared.may_grow(allocated + more, beside + more).is_ok()
    }

    /// Grows again.
    pub(crate) fn spend(&self) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        shared.lean.store(false, Ordering::SeqCst);
        let mut space = shared.lock();
        (space.exhausted, space.full) = (false, false);
        drop(space);
        shared.wake.notify_all();
    }

    /// Ends a backend that should be gone and perhaps is not: redb may keep one that it panicked
    /// over. After this it writes nothing any more.
    pub(crate) fn retire(self) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        // The space ahead is written under this lock, too.
        let mut space = shared.lock();
        space.closing = true;
        shared.failed.store(true, Ordering::SeqCst);
        drop(space);
        shared.wake.notify_all();
    }
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    ahead: Ahead,
    /// What redb has asked for.
    logical: AtomicU64,
    /// One past the last byte redb has written in this life.
    used: AtomicU64,
    /// Everything before it is allocated, as far as this process knows. Changes under `space`.
    allocated: AtomicU64,
    /// A sync has failed. The kernel tells it once, to whoever syncs next, and may then forget the
    /// writes that are lost: so no later sync of this file is believed.
    failed: AtomicBool,
    /// Whether it is [`Thrift::Lean`].
    lean: AtomicBool,
    space: Mutex<Space>,
    wake: Condvar,
}

#[derive(Debug)]
struct Space {
    /// The length of the file.
    physical: u64,
    /// The last zeros could not be written: wait until redb grows again.
    exhausted: bool,
    /// And that was because no space is left.
    full: bool,
    /// Zeros were written and not synced since.
    unsynced: bool,
    closing: bool,
}

impl FileBackend {
    /// Takes an open file, cuts a torn end off, and starts to keep space ahead.
    pub(crate) fn new(disk: Arc<dyn Disk>, ahead: Ahead, thrift: Thrift) -> io::Result<Self> {
        let found = disk.length()?;
        let whole = found - found % PAGE;
        if whole < found {
            disk.set_length(whole)?;
        }
        let threaded = matches!(ahead.pace, Pace::Thread);
        let shared = Arc::new(Shared {
            disk,
            ahead,
            logical: AtomicU64::new(whole),
            used: AtomicU64::new(0),
            allocated: AtomicU64::new(whole),
            failed: AtomicBool::new(false),
            lean: AtomicBool::new(thrift == Thrift::Lean),
            space: Mutex::new(Space {
                physical: whole,
                exhausted: false,
                full: false,
                unsynced: false,
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let thread = if threaded {
            let ahead = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("levada-ahead".into());
            Some(thread.spawn(move || ahead.keep_ahead())?)
        } else {
            None
        };
        Ok(Self {
            shared,
            thread: Mutex::new(thread),
        })
    }

    /// What steers this backend from outside.
    pub(crate) fn control(&self) -> Control {
        Control(Arc::downgrade(&self.shared))
    }

    fn stop(&self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that keeps space ahead has panicked");
        }
    }
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.logical.load(Ordering::SeqCst))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.shared.logical.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.take_turn();
        self.shared.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.take_turn();
        self.shared.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shared.take_turn();
        let end = offset.saturating_add(data.len() as u64);
        if end > self.shared.logical.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.believed()?;
        let used = self.shared.used.fetch_max(end, Ordering::SeqCst);
        if end > self.shared.unreserved() {
            // Near the end of the zeros: under the lock, so that no zeros are written over it.
            let space = self.shared.lock();
            self.shared.may_write(&space, end)?;
            self.shared.disk.write(offset, data)?;
            self.shared.allocated.fetch_max(end, Ordering::SeqCst);
        } else {
            self.shared.disk.write(offset, data)?;
        }
        if end > used {
            self.shared.wake.notify_all();
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.stop();
        // Space ahead is for a store that works; a closed one is as long as redb left it.
        let logical = self.shared.logical.load(Ordering::SeqCst);
        let mut space = self.shared.lock();
        // Something else may have the file open by now.
        let believed = self.shared.believed().is_ok();
        if believed && space.physical > logical && logical > 0 {
            self.shared.disk.set_length(logical)?;
            space.physical = logical;
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut space = self.lock();
        if len > space.physical {
            self.disk.set_length(len)?;
            space.physical = len;
        } else if len == 0 || space.physical - len > self.ahead.most {
            // redb gave much up: so does the file, but for the space ahead.
            let keep = if len == 0 { 0 } else { len + self.ahead.most };
            self.disk.set_length(keep)?;
            space.physical = keep;
            self.allocated.fetch_min(keep, Ordering::SeqCst);
        }
        self.used.fetch_min(len, Ordering::SeqCst);
        self.logical.store(len, Ordering::SeqCst);
        (space.exhausted, space.full) = (false, false);
        drop(space);
        self.wake.notify_all();
        Ok(())
    }

    /// Whether what is written here can still reach the disk.
    fn believed(&self) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier sync of the file has failed"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.believed()?;
        let done = self.disk.sync();
        if done.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        done
    }

    /// Up to where a write needs no leave.
    fn unreserved(&self) -> u64 {
        let allocated = self.allocated.load(Ordering::SeqCst);
        if self.lean.load(Ordering::SeqCst) {
            allocated
        } else {
            allocated.saturating_sub(self.ahead.reserve())
        }
    }

    /// Whether redb may write up to here: not into the reserve, if no other can be made.
    fn may_write(&self, space: &Space, end: u64) -> io::Result<()> {
        // Who comes late may find zeros written meanwhile.
        if end <= self.unreserved() || self.lean.load(Ordering::SeqCst) {
            return Ok(());
        }
        if space.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.may_grow(end, self.ahead.reserve())
    }

    /// Whether the file may reach to here, with so much left on the disk beside what is always
    /// left.
    fn may_grow(&self, end: u64, beside: u64) -> io::Result<()> {
        if end > self.ahead.cap {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match self.disk.space()? {
            Some(space) if space.free < space.left_free() + beside => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where the zeros should reach.
    fn target(&self) -> u64 {
        let used = self.used.load(Ordering::SeqCst);
        if used == 0 {
            return 0;
        }
        let ahead = (used / 4).clamp(self.ahead.least, self.ahead.most);
        (used + ahead).div_ceil(PAGE) * PAGE
    }

    /// Writes zeros ahead until the backend closes.
    fn keep_ahead(&self) {
        let mut space = self.lock();
        while !space.closing {
            let Some(from) = self.wanted_from(&space) else {
                space = self
                    .wake
                    .wait(space)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            self.zero_more(&mut space, from);
            drop(space);
            self.sync_ahead();
            space = self.lock();
        }
    }

    /// One write of zeros, or its sync, if chance is what says when.
    fn take_turn(&self) {
        let Pace::Chance(chance) = &self.ahead.pace else {
            return;
        };
        let mut space = self.lock();
        if space.closing || chance.below(2) == 0 {
            return;
        }
        if std::mem::take(&mut space.unsynced) {
            drop(space);
            self.sync_ahead();
        } else if let Some(from) = self.wanted_from(&space) {
            self.zero_more(&mut space, from);
        }
    }

    /// Where the next zeros go, if there are too few.
    fn wanted_from(&self, space: &Space) -> Option<u64> {
        let from = self.allocated.load(Ordering::SeqCst).div_ceil(PAGE) * PAGE;
        let wants = !space.exhausted && !self.lean.load(Ordering::SeqCst);
        (wants && from < self.target()).then_some(from)
    }

    fn zero_more(&self, space: &mut Space, from: u64) {
        space.unsynced = true;
        if let Err(error) = self.zero(space, from) {
            warn!(%error, "cannot keep more space ahead in the store's file");
            space.exhausted = true;
            space.full = error.kind() == io::ErrorKind::StorageFull;
        }
    }

    /// Called without the lock: nobody waits for it.
    fn sync_ahead(&self) {
        if let Err(error) = self.sync() {
            warn!(%error, "cannot sync the space ahead in the store's file");
        }
    }

    /// Writes one chunk of zeros; on an error the file is as long as before.
    fn zero(&self, space: &mut Space, from: u64) -> io::Result<()> {
        let most = (self.target() - from).min(self.ahead.chunk);
        self.may_grow(from + most, most)?;
        let zeros = vec![0; usize::try_from(most).unwrap_or(1 << 20)];
        if let Err(error) = self.disk.write(from, &zeros) {
            self.disk.set_length(space.physical)?;
            return Err(error);
        }
        let end = from + most;
        space.physical = space.physical.max(end);
        self.allocated.fetch_max(end, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
