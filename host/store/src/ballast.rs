//! A small file that is deleted first when the disk is full: what it held is enough to drain with.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tracing::warn;

/// The file of the ballast, in the store's folder.
const NAME: &str = "store.ballast";

/// Space that is held for the time when there is none.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self {
            path: dir.join(NAME),
            bytes,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the space, if it is not taken already. The store works without it, too.
    pub(crate) fn take_on(&self) {
        if self.is_there() {
            return;
        }
        if let Err(error) = self.write() {
            warn!(%error, path = %self.path.display(), "cannot hold space for a full disk");
            self.drop_it();
        }
    }

    /// Gives the space to whoever needs it: the store's file.
    pub(crate) fn drop_it(&self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(%error, path = %self.path.display(), "cannot give up the space that was held");
            }
        }
    }

    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.len() == self.bytes)
    }

    fn write(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        let chunk = vec![0; 64 << 10];
        let mut left = self.bytes;
        while left > 0 {
            let now = left.min(chunk.len() as u64);
            file.write_all(&chunk[..usize::try_from(now).unwrap_or(chunk.len())])?;
            left -= now;
        }
        file.sync_all()
    }
}
