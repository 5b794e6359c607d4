//! What the store's file lies on.

use std::{fmt, fs::File, io, os::unix::fs::FileExt};

use rustix::fs::{Advice, fadvise};

/// One file, as the store's backend needs it. All lengths and offsets are in bytes.
///
/// What was written may be lost until a [`sync`](Self::sync) that came after it has returned, each
/// part for itself and in any order; so may a change of the length.
pub trait Disk: Send + Sync + fmt::Debug {
    /// How long the file is.
    ///
    /// # Errors
    /// Whatever the system says, here and below.
    fn length(&self) -> io::Result<u64>;

    /// Fills `out`; an error if the file ends before.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of it; the file grows if it was shorter, with zeros before `offset`. After an
    /// error any part of it may be written.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts the file, or lengthens it by zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Returns when everything so far would survive a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Forgets what is cached of the file: what is read after it comes from the medium. Called
    /// after an error, when a failed sync may have left a cache that lies.
    fn forget_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn forget_cache(&self) -> io::Result<()> {
        // The kernel forgets clean pages only.
        self.sync_data()?;
        Ok(fadvise(self, 0, None, Advice::DontNeed)?)
    }
}
