//! Bringing the disk to what the store says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use levada_core::{Marks, OpenError};
use tracing::{error, info, warn};

use super::{Counts, Now, OpenFile, Roller, Settings, StepError, folder_of, step};
use crate::file_roll::{
    disk::Disk,
    mark::{FileMark, Ledger, State},
};

impl Roller {
    /// Takes the folder for this sink and brings its files to what the marks say.
    pub(crate) fn open(
        settings: Arc<Settings>,
        disk: Arc<dyn Disk>,
        marks: &Marks,
        now: Now,
    ) -> Result<Self, OpenError> {
        let committed = Ledger::read(marks).map_err(|key| {
            OpenError::new(format!(
                "the mark `{key}` is not one that this version can read"
            ))
        })?;
        let failed = |error: StepError| OpenError::with("the folder cannot be used", error);
        let folder = &settings.folder;
        disk.create_folders(folder)
            .map_err(step("create folder", folder))
            .map_err(failed)?;
        let lock_path = settings.lock_path();
        let exists = disk.length(&lock_path).map_err(step("look at", &lock_path));
        let exists = exists.map_err(failed)?;
        let lock = match exists {
            Some(_) => disk.open(&lock_path).map_err(step("open", &lock_path)),
            None => disk.create(&lock_path).map_err(step("create", &lock_path)),
        };
        let lock = lock.map_err(failed)?;
        if !lock
            .lock()
            .map_err(step("lock", &lock_path))
            .map_err(failed)?
        {
            return Err(OpenError::new(format!(
                "`{}` is held by another agent with a sink of this name; give the sink another \
                 name or folder",
                lock_path.display()
            )));
        }
        let files = disk.walk(folder, settings.pattern.depth());
        let files = files.map_err(step("read folder", folder)).map_err(failed)?;
        let mut roller = Self {
            known: exists.is_some_and(|length| length > 0),
            settings,
            disk,
            lock,
            next: 1,
            committed,
            open: BTreeMap::new(),
            fresh: BTreeSet::new(),
            renamed: BTreeSet::new(),
            staged: None,
            broken: true,
            uses: 0,
            counts: Counts::default(),
        };
        let strays = roller.strays(files);
        roller.restore(strays, now).map_err(failed)?;
        Ok(roller)
    }

    /// Goes back to what is committed after a step that failed; tried again later if that fails.
    pub(super) fn undo(&mut self, now: Now) {
        self.broken = true;
        let fresh = self.fresh.iter().cloned().collect();
        if let Err(error) = self.restore(fresh, now) {
            warn!(
                error = &error as &dyn std::error::Error,
                "files are not cut back yet"
            );
        }
    }

    /// Brings the disk to what is committed. `strays` are files that may lie there without a mark.
    pub(super) fn restore(&mut self, strays: Vec<String>, now: Now) -> Result<(), StepError> {
        self.open.clear();
        self.renamed.clear();
        self.staged = None;
        self.next = self.committed.next.unwrap_or(1);
        for (path, mark) in self.committed.files.clone() {
            self.restore_file(path, mark, now)?;
        }
        for path in strays {
            if !self.committed.files.contains_key(&path) {
                self.clear_stray(&path)?;
            }
        }
        self.fresh.clear();
        self.broken = false;
        Ok(())
    }

    fn restore_file(&mut self, path: String, mark: FileMark, now: Now) -> Result<(), StepError> {
        let temporary = self.temporary(&path);
        let Some(length) = self.length(&temporary)? else {
            if self.length(&path)?.is_none() {
                error!(
                    path,
                    events = mark.events,
                    "a file with settled events is gone"
                );
            }
            self.renamed.insert(path);
            return Ok(());
        };
        let file = self
            .disk
            .open(Path::new(&temporary))
            .map_err(step("open", &temporary))?;
        if length > mark.length {
            file.set_length(mark.length)
                .map_err(step("cut", &temporary))?;
            file.sync().map_err(step("sync", &temporary))?;
            self.counts.cut += length - mark.length;
            info!(
                path,
                bytes = length - mark.length,
                "cut off what was not settled"
            );
        } else if length < mark.length {
            error!(
                path,
                is = length,
                was = mark.length,
                "a file lost settled bytes"
            );
        }
        if mark.state == State::Open {
            let roll_at = self.settings.every.map(|every| {
                let age = Duration::from_millis(now.wall_ms.saturating_sub(mark.opened_ms));
                now.instant + every.saturating_sub(age)
            });
            let open = OpenFile {
                path,
                file,
                length: length.min(mark.length),
                events: mark.events,
                opened_ms: mark.opened_ms,
                roll_at,
                idle_at: self.settings.idle.map(|idle| now.instant + idle),
                pending: Vec::new(),
                used: 0,
            };
            self.open.insert(mark.bucket, open);
        }
        Ok(())
    }

    /// A file without a mark: nothing in it was settled if the store still counts from below it;
    /// else the store has forgotten it, and it is kept under another name.
    fn clear_stray(&mut self, path: &str) -> Result<(), StepError> {
        let temporary = self.temporary(path);
        if self.length(&temporary)?.is_none() {
            return Ok(());
        }
        let unsettled = match self.committed.next {
            Some(next) => number_of(path).is_some_and(|number| number >= next),
            None => !self.known,
        };
        if unsettled {
            self.disk
                .remove(Path::new(&temporary))
                .map_err(step("remove", &temporary))?;
        } else {
            let kept = self.free_name(&format!("{path}.recovered"))?;
            let rename = self.disk.rename(Path::new(&temporary), Path::new(&kept));
            rename.map_err(step("rename", &temporary))?;
            warn!(path = kept, "kept a file that the store knows nothing of");
        }
        let folder = folder_of(path);
        self.disk
            .sync_folder(&folder)
            .map_err(step("sync folder", &folder))
    }

    /// Gives complete files their final names.
    pub(super) fn name_complete(&mut self) -> Result<(), StepError> {
        let done = self
            .committed
            .files
            .iter()
            .filter(|(_, mark)| mark.state == State::Done);
        let done: Vec<_> = done.map(|(path, _)| path.clone()).collect();
        for path in done {
            if !self.renamed.contains(&path) {
                self.name(&path)?;
            }
        }
        Ok(())
    }

    /// Gives one file its final name, durably.
    pub(super) fn name(&mut self, path: &str) -> Result<(), StepError> {
        let temporary = self.temporary(path);
        if self.length(&temporary)?.is_some() {
            if self.length(path)?.is_some() {
                // Numbers never repeat, so the file of that name is not ours.
                let aside = self.free_name(&format!("{path}.foreign"))?;
                warn!(path, aside, "another file had this name, it is moved aside");
                let moved = self.disk.rename(Path::new(path), Path::new(&aside));
                moved.map_err(step("rename", path))?;
            }
            let renamed = self.disk.rename(Path::new(&temporary), Path::new(path));
            renamed.map_err(step("rename", &temporary))?;
            self.counts.files += 1;
        }
        let folder = folder_of(path);
        self.disk
            .sync_folder(&folder)
            .map_err(step("sync folder", &folder))?;
        self.renamed.insert(path.to_owned());
        Ok(())
    }

    fn free_name(&self, wanted: &str) -> Result<String, StepError> {
        let mut name = wanted.to_owned();
        let mut n = 1_u32;
        while self.length(&name)?.is_some() {
            n += 1;
            name = format!("{wanted}-{n}");
        }
        Ok(name)
    }

    /// The final paths of files of ours that lie there unfinished.
    fn strays(&self, files: Vec<PathBuf>) -> Vec<String> {
        let suffix = self.settings.suffix();
        let ours = |file: PathBuf| file.to_str()?.strip_suffix(&suffix).map(str::to_owned);
        files.into_iter().filter_map(ours).collect()
    }
}

/// The number in `<stem>-<number>.<extension>`.
fn number_of(path: &str) -> Option<u64> {
    let (_, tail) = path.rsplit_once('-')?;
    let digits = tail.split('.').next()?;
    digits.parse().ok()
}
