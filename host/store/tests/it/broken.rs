//! A disk in memory that breaks when told to.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use levada_core::Chance;
use levada_store::{
    Backend, ChannelSpec, StoreParams,
    testing::{Ahead, Disk, Pace},
};
use redb::{StorageBackend, backends::InMemoryBackend};

/// What a call of the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Sync,
    SetLength,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// With this error.
    Error(io::ErrorKind),
    /// redb panics.
    Panic,
}

/// Which calls fail from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Of this kind, or all.
    pub(crate) call: Option<Call>,
    /// So many are let through first.
    pub(crate) after: u64,
    /// Whether it fails once, or from then on.
    pub(crate) once: bool,
    pub(crate) how: How,
}

/// A disk in memory with a switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken {
    medium: Arc<InMemoryBackend>,
    fault: Arc<Mutex<Option<Fault>>>,
    /// How much space is kept ahead on it.
    ahead: u64,
}

impl Broken {
    /// A disk on which so many bytes of zeros are kept ahead.
    pub(crate) fn with_ahead(ahead: u64) -> Self {
        Self {
            ahead,
            ..Self::default()
        }
    }

    /// Breaks from now on.
    pub(crate) fn break_it(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// Works again; whether the fault had not come to pass.
    pub(crate) fn mend(&self) -> bool {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.take().is_some_and(|fault| fault.once)
    }

    /// A store on this disk.
    pub(crate) fn params(&self, dir: &std::path::Path, channels: Vec<ChannelSpec>) -> StoreParams {
        let ahead = Ahead {
            chunk: 64 << 10,
            least: self.ahead,
            most: self.ahead,
            cap: u64::MAX,
            pace: Pace::Chance(Chance::seeded(1)),
        };
        StoreParams {
            backend: Backend::Disk(Arc::new(self.clone()), ahead),
            // Little, so that large rows are read from the disk.
            cache_bytes: 64 << 10,
            ..StoreParams::new(dir, channels)
        }
    }

    fn check(&self, call: Call) -> io::Result<()> {
        let mut guard = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fault) = guard.as_mut() else {
            return Ok(());
        };
        if fault.call.is_some_and(|only| only != call) {
            return Ok(());
        }
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let how = fault.how;
        if fault.once {
            *guard = None;
        }
        drop(guard);
        match how {
            How::Error(kind) => Err(io::Error::new(kind, "the disk is broken")),
            How::Panic => unreachable!("the engine is broken"),
        }
    }
}

impl Disk for Broken {
    fn length(&self) -> io::Result<u64> {
        self.medium.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(Call::Read)?;
        self.medium.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(Call::Write)?;
        let end = offset + data.len() as u64;
        if end > self.medium.len()? {
            self.medium.set_len(end)?;
        }
        self.medium.write(offset, data)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.check(Call::SetLength)?;
        self.medium.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.check(Call::Sync)?;
        self.medium.sync_data()
    }
}
