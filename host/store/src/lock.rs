//! The lock of a store's folder: one process at a time, and the second learns who is first.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::params::OpenError;

const NAME: &str = "store.lock";

/// Holds the lock until it is dropped. The file stays; the lock on it is what counts.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock and writes down who holds it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let failed = |attempt| {
            let path = path.clone();
            move |source| OpenError::Io {
                attempt,
                path,
                source,
            }
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(failed("open the lock file"))?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed("lock")(error.into()));
            }
            let mut holder = String::new();
            // Whoever holds the lock may be writing its name just now; then the name is unknown.
            let read = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
            let holder = if read {
                holder.trim().to_owned()
            } else {
                "another process".to_owned()
            };
            return Err(OpenError::InUse {
                path: dir.to_owned(),
                holder,
            });
        }
        let exe = std::env::current_exe()
            .map(|exe| exe.display().to_string())
            .unwrap_or_default();
        let who = format!("process {} ({exe})\n", std::process::id());
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(who.as_bytes())
        };
        write(&mut file).map_err(failed("write the lock file"))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Unlocks by word: closing is not enough while a child process that is just being started
    /// still holds a copy of the file.
    fn drop(&mut self) {
        // Nobody could do anything about an error here, and the close comes next.
        flock(&self.file, FlockOperation::Unlock).ok();
    }
}
