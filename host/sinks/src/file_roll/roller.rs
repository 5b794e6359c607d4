//! The files of one sink, exact across crashes.
//!
//! What the store has settled is the truth: `committed` mirrors the marks. A write appends behind
//! the committed length, makes that durable, and *stages* the new lengths; they count once the
//! settlement is confirmed. Whenever something goes wrong - a crash, a full disk, a settlement that
//! did not happen - [`Roller::restore`] brings the disk back to `committed`: longer files are cut,
//! files nobody has settled are removed, complete ones get their final names. The events come
//! again, and nothing is torn, twice or missing.

mod open_file;
mod restore;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use levada_core::{Batch, MarkWrite, OriginId};
use thiserror::Error;
use tokio::time::Instant;

use self::open_file::OpenFile;
use super::{
    disk::{Disk, DiskFile},
    line::Format,
    mark::{self, FileMark, Ledger, State},
    pattern::Pattern,
};

/// How a sink's files are named and when they end.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub folder: PathBuf,
    pub pattern: Pattern,
    pub format: Format,
    /// Whether JSON lines carry the origin id.
    pub ids: bool,
    pub extension: String,
    /// The sink's name: two sinks may share a folder.
    pub sink: String,
    /// A file ends when it is so old.
    pub every: Option<Duration>,
    /// A file ends before it would be longer.
    pub bytes: Option<u64>,
    /// A file ends when it has so many events.
    pub events: Option<u64>,
    /// A file ends when nothing came for so long.
    pub idle: Option<Duration>,
    /// The file written longest ago ends when another one is needed beyond so many.
    pub max_open: usize,
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub wall_ms: u64,
    pub instant: Instant,
}

/// A step on the file system that failed.
#[derive(Debug, Error)]
#[error("cannot {what} `{}`", path.display())]
pub(crate) struct StepError {
    pub what: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// The files of one sink.
#[derive(Debug)]
pub(crate) struct Roller {
    settings: Arc<Settings>,
    disk: Arc<dyn Disk>,
    /// Held for the life of the sink; not empty once a settlement has been confirmed.
    lock: Box<dyn DiskFile>,
    known: bool,
    committed: Ledger,
    /// Files being written, by bucket.
    open: BTreeMap<String, OpenFile>,
    /// Files made since the last confirmation, by final path.
    fresh: BTreeSet<String>,
    /// Files that have their final name, and still a mark.
    renamed: BTreeSet<String>,
    staged: Option<Staged>,
    next: u64,
    /// Whether the disk may not be as `committed` says.
    broken: bool,
    uses: u64,
    pub(crate) counts: Counts,
}

/// What happened since it was last taken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Bytes written and staged.
    pub bytes: u64,
    /// Files that got their final name.
    pub files: u64,
    /// Bytes cut off because they were not settled.
    pub cut: u64,
}

/// What a settlement would make true.
#[derive(Debug)]
struct Staged {
    files: BTreeMap<String, FileMark>,
    gone: BTreeSet<String>,
    next: u64,
    /// The first event; `None` for a tick.
    first: Option<First>,
    /// Whether something else was asked for since, so that a confirmation may not mean this.
    in_doubt: bool,
}

/// Enough of an event to know it again.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// From a durable channel.
    Origin(OriginId),
    /// From a memory channel.
    Bytes(Bytes),
}

impl Roller {
    /// Writes a batch and makes it durable; the marks to settle it with.
    ///
    /// After an error nothing of the batch is in any file that will be kept.
    pub(crate) fn write(&mut self, batch: &Batch, now: Now) -> Result<Vec<MarkWrite>, StepError> {
        let first = first_of(batch);
        self.resolve(first.as_ref(), now)?;
        match self.try_write(batch, now) {
            Ok(files) => {
                self.counts.bytes += batch.bytes() as u64;
                Ok(self.stage(files, first))
            }
            Err(error) => {
                self.undo(now);
                Err(error)
            }
        }
    }

    /// Ends the files whose time has come; the marks that say so.
    pub(crate) fn tick(&mut self, now: Now) -> Result<Vec<MarkWrite>, StepError> {
        self.resolve(None, now)?;
        if self.staged.is_some() {
            return Ok(Vec::new());
        }
        let due = self
            .open
            .iter()
            .filter(|(_, file)| file.is_due(now.instant));
        let due: Vec<_> = due.map(|(bucket, _)| bucket.clone()).collect();
        if due.is_empty() && self.renamed.is_empty() {
            return Ok(Vec::new());
        }
        let mut files = BTreeMap::new();
        for bucket in due {
            if let Err(error) = self.finish(&bucket, &mut files) {
                self.undo(now);
                return Err(error);
            }
        }
        Ok(self.stage(files, None))
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn due_in(&self, now: Instant) -> Option<Duration> {
        if !self.renamed.is_empty() || self.has_unnamed() {
            return Some(Duration::from_secs(1));
        }
        let times = self
            .open
            .values()
            .flat_map(|file| [file.roll_at, file.idle_at]);
        times
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(now))
    }

    /// The last settlement is durable: complete files get their final names.
    pub(crate) fn confirm(&mut self) -> Result<(), StepError> {
        match self.staged.take() {
            Some(staged) if staged.in_doubt => {
                self.staged = Some(staged);
                return Ok(());
            }
            Some(staged) => self.accept(staged),
            None => {}
        }
        if !self.known {
            self.lock
                .write_at(b"settled\n", 0)
                .map_err(self.at_lock("write"))?;
            self.lock.sync().map_err(self.at_lock("sync"))?;
            self.known = true;
        }
        self.name_complete()
    }

    /// Gives every settled file its final name; the next open finds it there. What is not settled
    /// stays for [`restore`](Self::restore).
    pub(crate) fn close(&mut self) -> Result<(), StepError> {
        if self.staged.is_some() || self.broken {
            return Ok(());
        }
        self.name_complete()?;
        let open = std::mem::take(&mut self.open);
        for file in open.into_values() {
            self.name(&file.path)?;
        }
        Ok(())
    }

    /// The number of files being written.
    pub(crate) fn open_files(&self) -> usize {
        self.open.len()
    }

    /// Finds out what became of what was staged, and mends what is broken.
    ///
    /// A settlement that was not confirmed has either not happened, and then its events come again,
    /// first one first; or it has, and then other ones come.
    fn resolve(&mut self, first: Option<&First>, now: Now) -> Result<(), StepError> {
        if let Some(staged) = self.staged.take() {
            match (&staged.first, first) {
                (Some(before), Some(first)) if before != first => self.accept(staged),
                (Some(_), None) => {
                    // A tick after a delivery without an answer: the next delivery will tell.
                    self.staged = Some(Staged {
                        in_doubt: true,
                        ..staged
                    });
                    return Ok(());
                }
                (Some(_) | None, _) => self.broken = true,
            }
        }
        if self.broken {
            let fresh = self.fresh.iter().cloned().collect();
            self.restore(fresh, now)?;
        }
        self.name_complete()
    }

    fn try_write(
        &mut self,
        batch: &Batch,
        now: Now,
    ) -> Result<BTreeMap<String, FileMark>, StepError> {
        let settings = Arc::clone(&self.settings);
        let mut files = BTreeMap::new();
        let mut made = BTreeSet::new();
        let mut line = Vec::new();
        let mut ids = batch.origins().iter();
        for event in batch.iter() {
            line.clear();
            let id = ids.next().filter(|_| settings.ids);
            settings.format.write(event, id, &mut line);
            let bucket = settings.bucket(&settings.pattern.expand(event, now.wall_ms));
            let full = self.open.get(&bucket).is_some_and(|file| {
                file.is_due(now.instant) || file.is_full(line.len() as u64, &settings)
            });
            if full {
                self.finish(&bucket, &mut files)?;
            }
            if !self.open.contains_key(&bucket) {
                self.evict(&mut files)?;
                made.insert(self.make(&bucket, now)?);
            }
            self.uses += 1;
            if let Some(file) = self.open.get_mut(&bucket) {
                file.append(&line, self.uses, settings.idle, now.instant);
            }
        }
        for (bucket, file) in &mut self.open {
            if file.flush()? {
                files.insert(file.path.clone(), file.mark(bucket, State::Open));
            }
        }
        for folder in made {
            self.disk
                .sync_folder(&folder)
                .map_err(step("sync folder", &folder))?;
        }
        Ok(files)
    }

    /// Makes the next file of a bucket; its folder, to be synced.
    fn make(&mut self, bucket: &str, now: Now) -> Result<PathBuf, StepError> {
        let (stem, _) = bucket.rsplit_once(FORMAT).unwrap_or((bucket, ""));
        let path = loop {
            let path = format!("{stem}-{:06}.{}", self.next, self.settings.extension);
            self.next += 1;
            if self.length(&path)?.is_none() && self.length(&self.temporary(&path))?.is_none() {
                break path;
            }
        };
        let folder = folder_of(&path);
        self.disk
            .create_folders(&folder)
            .map_err(step("create folder", &folder))?;
        let temporary = self.temporary(&path);
        let file = self
            .disk
            .create(Path::new(&temporary))
            .map_err(step("create", &temporary))?;
        self.fresh.insert(path.clone());
        let open = OpenFile {
            path,
            file,
            length: 0,
            events: 0,
            opened_ms: now.wall_ms,
            roll_at: self.settings.every.map(|every| now.instant + every),
            idle_at: None,
            pending: Vec::new(),
            used: 0,
        };
        self.open.insert(bucket.to_owned(), open);
        Ok(folder)
    }

    /// Ends the file that was used longest ago if there is no room for another.
    fn evict(&mut self, files: &mut BTreeMap<String, FileMark>) -> Result<(), StepError> {
        if self.open.len() < self.settings.max_open {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, file)| file.used);
        match oldest.map(|(bucket, _)| bucket.clone()) {
            Some(bucket) => self.finish(&bucket, files),
            None => Ok(()),
        }
    }

    /// Writes what is pending and ends the file of a bucket.
    fn finish(
        &mut self,
        bucket: &str,
        files: &mut BTreeMap<String, FileMark>,
    ) -> Result<(), StepError> {
        if let Some(mut file) = self.open.remove(bucket) {
            file.flush()?;
            files.insert(file.path.clone(), file.mark(bucket, State::Done));
        }
        Ok(())
    }

    fn stage(&mut self, files: BTreeMap<String, FileMark>, first: Option<First>) -> Vec<MarkWrite> {
        let mut writes: Vec<_> = files
            .iter()
            .map(|(path, file)| mark::file(path, file))
            .collect();
        writes.extend(self.renamed.iter().map(|path| mark::gone(path)));
        if self.committed.next != Some(self.next) {
            writes.push(mark::next(self.next));
        }
        let gone = self.renamed.clone();
        self.staged = Some(Staged {
            files,
            gone,
            next: self.next,
            first,
            in_doubt: false,
        });
        writes
    }

    fn accept(&mut self, staged: Staged) {
        self.committed.files.extend(staged.files);
        for path in &staged.gone {
            self.committed.files.remove(path);
            self.renamed.remove(path);
        }
        self.committed.next = Some(staged.next);
        self.fresh.clear();
    }

    fn has_unnamed(&self) -> bool {
        let unnamed = |(path, file): (&String, &FileMark)| {
            file.state == State::Done && !self.renamed.contains(path)
        };
        self.committed.files.iter().any(unnamed)
    }

    /// The path of a file while it is written.
    fn temporary(&self, path: &str) -> String {
        format!("{path}{}", self.settings.suffix())
    }

    fn length(&self, path: &str) -> Result<Option<u64>, StepError> {
        self.disk
            .length(Path::new(path))
            .map_err(step("look at", path))
    }

    fn at_lock(&self, what: &'static str) -> impl Fn(io::Error) -> StepError + use<> {
        let path = self.settings.lock_path();
        move |source| StepError {
            what,
            path: path.clone(),
            source,
        }
    }
}

/// Stands between the path and the format in a bucket's name.
const FORMAT: char = '\n';

impl Settings {
    /// Which file an event with this expanded name goes into: its path without number, and what
    /// must be the same for two runs of the agent to write into one file.
    fn bucket(&self, expanded: &str) -> String {
        let folder = self.folder.display();
        format!(
            "{folder}/{expanded}{FORMAT}{} {}",
            self.format.as_str(),
            self.extension
        )
    }

    fn suffix(&self) -> String {
        format!(".{}.tmp", self.sink)
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(format!(".levada-{}", self.sink))
    }
}

fn first_of(batch: &Batch) -> Option<First> {
    match batch.origins().get(0) {
        Some(origin) => Some(First::Origin(origin)),
        None => batch.event_bytes(0).map(First::Bytes),
    }
}

fn folder_of(path: &str) -> PathBuf {
    Path::new(path)
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

fn step(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> StepError {
    move |source| StepError {
        what,
        path: path.as_ref().to_owned(),
        source,
    }
}
