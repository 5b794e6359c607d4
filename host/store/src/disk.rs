//! What the store's file lies on.

use std::{fmt, fs::File, io, os::unix::fs::FileExt};

use rustix::fs::{Advice, fadvise, fstatvfs};

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

    /// How much space the disk has; `None` if that is not known: then a write tells.
    fn space(&self) -> io::Result<Option<DiskSpace>> {
        Ok(None)
    }

    /// Forgets what is cached of the file: what is read after it comes from the medium. Called
    /// after an error, when a failed sync may have left a cache that lies.
    fn forget_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The space of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    pub total: u64,
    /// What may still be written to it.
    pub free: u64,
}

impl DiskSpace {
    /// What the store never takes: 64 MiB, less of a small disk. A full disk harms more than us.
    #[must_use]
    pub fn left_free(self) -> u64 {
        (self.total / 8).min(64 << 20)
    }

    /// How long the file may become that has `used` bytes now (delivery contract D5.3).
    #[must_use]
    pub fn cap(self, used: u64) -> u64 {
        let most = used.saturating_add(self.free / 5 * 4);
        most.min((used + self.free).saturating_sub(self.left_free()))
            .max(used)
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

    fn space(&self) -> io::Result<Option<DiskSpace>> {
        let disk = fstatvfs(self)?;
        Ok(Some(DiskSpace {
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
        }))
    }

    fn forget_cache(&self) -> io::Result<()> {
        // The kernel forgets clean pages only.
        self.sync_data()?;
        Ok(fadvise(self, 0, None, Advice::DontNeed)?)
    }
}
