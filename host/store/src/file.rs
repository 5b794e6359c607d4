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
//! Space that redb gave up and asks for again is not zeroed again: redb writes a page whole before
//! it reads it, as it does with every page it freed and uses again.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use redb::StorageBackend;
use tracing::warn;

/// redb's page.
const PAGE: u64 = 4096;
/// The zeros of one write.
const CHUNK: u64 = 1 << 20;
/// How much is kept ahead, at least and at most; between them a quarter of what is in use.
const LEAST_AHEAD: u64 = 4 << 20;
const MOST_AHEAD: u64 = 64 << 20;

/// The file behind redb.
#[derive(Debug)]
pub(crate) struct FileBackend {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    /// What redb has asked for.
    logical: AtomicU64,
    /// One past the last byte redb has written in this life.
    used: AtomicU64,
    /// Everything before it is allocated, as far as this process knows. Changes under `space`.
    allocated: AtomicU64,
    /// A sync has failed. The kernel tells it once, to whoever syncs next, and may then forget the
    /// writes that are lost: so no later sync of this file is believed.
    failed: AtomicBool,
    space: Mutex<Space>,
    wake: Condvar,
}

#[derive(Debug)]
struct Space {
    /// The length of the file.
    physical: u64,
    /// No space was left the last time: wait until redb grows again.
    exhausted: bool,
    closing: bool,
}

impl FileBackend {
    /// Takes an open file, cuts a torn end off, and starts to keep space ahead.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let found = file.metadata()?.len();
        let whole = found - found % PAGE;
        if whole < found {
            file.set_len(whole)?;
        }
        let shared = Arc::new(Shared {
            file,
            logical: AtomicU64::new(whole),
            used: AtomicU64::new(0),
            allocated: AtomicU64::new(whole),
            failed: AtomicBool::new(false),
            space: Mutex::new(Space {
                physical: whole,
                exhausted: false,
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let ahead = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("levada-ahead".into())
            .spawn(move || ahead.keep_ahead())?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
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
        self.shared.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.shared.logical.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let used = self.shared.used.fetch_max(end, Ordering::SeqCst);
        if end > self.shared.allocated.load(Ordering::SeqCst) {
            // Beyond the zeros: under the lock, so that no zeros are written over it.
            let _space = self.shared.lock();
            self.shared.file.write_all_at(data, offset)?;
            self.shared.allocated.fetch_max(end, Ordering::SeqCst);
        } else {
            self.shared.file.write_all_at(data, offset)?;
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
        if space.physical > logical && logical > 0 {
            self.shared.file.set_len(logical)?;
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
            self.file.set_len(len)?;
            space.physical = len;
        } else if len == 0 || space.physical - len > MOST_AHEAD {
            // redb gave much up: so does the file, but for the space ahead.
            let keep = if len == 0 { 0 } else { len + MOST_AHEAD };
            self.file.set_len(keep)?;
            space.physical = keep;
            self.allocated.fetch_min(keep, Ordering::SeqCst);
        }
        self.used.fetch_min(len, Ordering::SeqCst);
        self.logical.store(len, Ordering::SeqCst);
        space.exhausted = false;
        drop(space);
        self.wake.notify_all();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier sync of the file has failed"));
        }
        let done = self.file.sync_data();
        if done.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        done
    }

    /// Where the zeros should reach.
    fn target(&self) -> u64 {
        let used = self.used.load(Ordering::SeqCst);
        if used == 0 {
            return 0;
        }
        let ahead = (used / 4).clamp(LEAST_AHEAD, MOST_AHEAD);
        (used + ahead).div_ceil(PAGE) * PAGE
    }

    /// Writes zeros ahead until the backend closes.
    fn keep_ahead(&self) {
        let zeros = vec![0; usize::try_from(CHUNK).unwrap_or(1 << 20)];
        let mut space = self.lock();
        while !space.closing {
            let from = self.allocated.load(Ordering::SeqCst).div_ceil(PAGE) * PAGE;
            if space.exhausted || from >= self.target() {
                space = self
                    .wake
                    .wait(space)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if let Err(error) = self.zero(&mut space, from, &zeros) {
                warn!(%error, "cannot keep space ahead in the store's file");
                space.exhausted = true;
            }
            drop(space);
            // Synced outside of the lock: nobody waits for it.
            if let Err(error) = self.sync() {
                warn!(%error, "cannot sync the space ahead in the store's file");
            }
            space = self.lock();
        }
    }

    /// Writes one chunk of zeros; on an error the file is as long as before.
    fn zero(&self, space: &mut Space, from: u64, zeros: &[u8]) -> io::Result<()> {
        let most = usize::try_from(self.target() - from).unwrap_or(zeros.len());
        let zeros = &zeros[..most.min(zeros.len())];
        if let Err(error) = self.file.write_all_at(zeros, from) {
            self.file.set_len(space.physical)?;
            return Err(error);
        }
        let end = from + zeros.len() as u64;
        space.physical = space.physical.max(end);
        self.allocated.fetch_max(end, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
