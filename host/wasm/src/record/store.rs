//! Where an agent keeps the recordings of calls that failed: the latest few of each handler.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use levada_core::PartId;

use super::{Recording, RecordingError};

/// The place for the recordings of one handler.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    /// How many stay.
    keeps: usize,
}

/// The end of a recording's name.
const ENDING: &str = "jsonl";

impl Shelf {
    /// The latest so many in a folder of the handler's own.
    pub(crate) fn new(recordings: &Path, handler: &PartId, keeps: usize) -> Self {
        Self {
            // Not the bare name, which may be `..`.
            folder: recordings.join(handler.to_string()),
            keeps,
        }
    }

    /// Writes a recording and takes away the oldest ones; where it is. Does file I/O.
    ///
    /// # Errors
    /// [`RecordingError::Write`]
    pub(crate) fn put(
        &self,
        recording: &Recording,
        chance: u64,
    ) -> Result<PathBuf, RecordingError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder);
        made.map_err(|source| RecordingError::Write {
            path: self.folder.clone(),
            source,
        })?;
        // By time, so that the order of the names is that of the calls.
        let name = format!("{:013}-{:04x}", recording.head.at_ms, chance & 0xffff);
        let path = self.folder.join(name).with_extension(ENDING);
        recording.write(&path)?;
        self.tidy();
        Ok(path)
    }

    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|it| it == ENDING))
            .collect();
        paths.sort();
        let many = paths.len().saturating_sub(self.keeps);
        for path in &paths[..many] {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "an old recording stays");
            }
        }
    }
}
