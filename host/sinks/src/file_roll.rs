//! Writes events to files that roll: by age, size, count, or when nothing comes any more.
//!
//! A file is written as `<name>-<number>.<extension>.<sink>.tmp` and gets its final name, without
//! the last two, once everything in it is settled. Bytes are on disk before a delivery is reported;
//! the length of each file is a mark that is committed with the settlement, so after a crash files
//! are cut back to what was settled: every event is in the final files once, and no line is torn.
//! What the disk needs is done on threads that may block.

mod disk;
mod line;
mod mark;
mod pattern;
mod roller;

use std::{
    fmt, io,
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    ByteSize, Clock, Delivery, Hop, Lease, MarkWrite, Marks, OpenError, PartId, Problem, Problems,
    RunContext, Sink, SinkError, Table, factory::SinkFactory, params, settings::Params as _, tasks,
};
use levada_telemetry::{Counter, Gauge, Registry};
use tokio::time::Instant;
use tracing::warn;

use self::{
    disk::Disk,
    line::Format,
    pattern::{EventTime, Pattern},
    roller::{Now, Roller, Settings, StepError},
};
use crate::Deps;

/// How soon to look again when a write of a cancelled delivery still runs.
const BUSY: Duration = Duration::from_millis(100);

params! {
    /// When a file ends. Whatever comes first; `0` (and `0s`, `0B`) is never.
    pub(crate) struct RollParams {
        /// When the file is so old.
        pub every: Duration = "1h",
        /// Before the file would be longer than this; one larger event has a file of its own.
        pub size: ByteSize = "128MiB",
        /// When the file has so many events.
        pub events: u64 = 0,
        /// When nothing came for so long.
        pub idle: Duration = "5m",
    }
}

params! {
    /// Settings of the `file-roll` sink.
    pub(crate) struct Params {
        /// The folder; made if it is not there.
        pub directory: PathBuf,
        /// The name of a file below the folder, with strftime directives (`%Y-%m-%d`) and
        /// `%{header}`; a number and the extension are appended. Characters of a header that could
        /// lead elsewhere become `_`; a missing header is `_`.
        pub file: String = "%Y-%m-%d",
        /// Which time the directives show: `event` is the `timestamp` header (milliseconds since
        /// 1970) where an event has one, else the time of writing, as `wall` always is.
        pub time: EventTime = "event",
        /// The time zone of the directives: `UTC`, `local`, or a name such as `Europe/Berlin`.
        pub time_zone: String = "UTC",
        /// `text` is the body and a newline; `json` a line with headers and body (`body64` where it
        /// is no UTF-8).
        pub format: Format = "text",
        /// Each JSON line begins with `id`, the event's origin id: given once, at its first durable
        /// channel, and the same wherever it is seen again. Lines with one id are one event.
        pub ids: bool = false,
        /// The extension; by default `log` for text and `jsonl` for JSON.
        pub extension: Option<String>,
        /// When a file ends.
        pub roll: Option<RollParams>,
        /// Most files open at once; beyond, the one used longest ago ends.
        pub max_open: NonZeroU64 = 64,
    }
}

/// Builds [`FileRollSink`]s.
pub(crate) struct Factory {
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl Factory {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            registry: deps.registry.clone(),
            clock: Arc::clone(&deps.clock),
        }
    }
}

impl SinkFactory for Factory {
    const NAME: &'static str = "file-roll";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        let mut refuse = |key: &str, message: String| {
            let path = table.path_of(key);
            problems.push(match table.get(key) {
                Some((_, value)) => value.problem(&path, message),
                None => Problem::error(Some(table.span), path, message),
            });
        };
        match pattern::zone(&params.time_zone) {
            Err(message) => refuse("time-zone", message),
            Ok(zone) => {
                if let Err(message) = Pattern::parse(&params.file, zone, params.time) {
                    refuse("file", message);
                }
            }
        }
        let plain = |text: &String| {
            (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        if params.extension.as_ref().is_some_and(|text| !plain(text)) {
            refuse("extension", "not 1 to 16 letters and digits".into());
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Sink> {
        let settings = settings(part, params).map(Arc::new);
        let disk: Arc<dyn Disk> = Arc::new(disk::Files);
        Box::new(FileRollSink {
            settings,
            disk,
            clock: Arc::clone(&self.clock),
            metrics: Metrics::new(&self.registry, part),
            roller: None,
        })
    }
}

/// The settings of a sink from what was written.
fn settings(part: &PartId, params: &Params) -> Result<Settings, String> {
    let roll = params
        .roll
        .clone()
        .or_else(|| RollParams::read_fields(&Table::default(), &mut Problems::new()));
    let roll = roll.ok_or("the defaults of `roll` are not readable")?;
    let zone = pattern::zone(&params.time_zone)?;
    let extension = params.extension.clone();
    Ok(Settings {
        folder: params.directory.clone(),
        pattern: Pattern::parse(&params.file, zone, params.time)?,
        format: params.format,
        ids: params.ids,
        extension: extension.unwrap_or_else(|| params.format.extension().to_owned()),
        sink: part.name.to_string(),
        every: Some(roll.every).filter(|every| !every.is_zero()),
        bytes: Some(roll.size.0).filter(|size| *size > 0),
        events: Some(roll.events).filter(|events| *events > 0),
        idle: Some(roll.idle).filter(|idle| !idle.is_zero()),
        max_open: usize::try_from(params.max_open.get()).unwrap_or(usize::MAX),
    })
}

#[derive(Debug, Clone)]
struct Metrics {
    files: Counter,
    bytes: Counter,
    cut: Counter,
    open: Gauge,
}

impl Metrics {
    fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let labels: [(&str, &str); 1] = [("part", &part)];
        let counter = |name, help| registry.counter(name, help, &labels);
        Self {
            files: counter("levada_file_roll_files", "Files that got their final name."),
            bytes: counter(
                "levada_file_roll_bytes",
                "Bytes of events written to files.",
            ),
            cut: counter(
                "levada_file_roll_cut_bytes",
                "Bytes cut off that were not settled.",
            ),
            open: registry.gauge(
                "levada_file_roll_open_files",
                "Files being written.",
                &labels,
            ),
        }
    }

    fn take(&self, roller: &mut Roller) {
        let counts = std::mem::take(&mut roller.counts);
        self.files.add(counts.files);
        self.bytes.add(counts.bytes);
        self.cut.add(counts.cut);
        self.open
            .set(i64::try_from(roller.open_files()).unwrap_or(i64::MAX));
    }
}

/// The sink that writes files.
struct FileRollSink {
    settings: Result<Arc<Settings>, String>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    roller: Option<Arc<Mutex<Roller>>>,
}

impl fmt::Debug for FileRollSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRollSink")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl FileRollSink {
    fn now(&self) -> Now {
        Now {
            wall_ms: self.clock.wall_ms(),
            instant: Instant::now(),
        }
    }

    /// Runs one step of the roller where blocking is allowed. It runs to its end even if the caller
    /// is dropped; what it staged then is resolved at the next step.
    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Roller) -> Result<T, StepError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let Some(roller) = self.roller.clone() else {
            return Err(SinkError::Fatal {
                what: "the sink is not open".into(),
                source: None,
            });
        };
        let metrics = self.metrics.clone();
        let done = tasks::blocking(move || {
            let mut roller = lock(&roller);
            let done = step(&mut roller);
            metrics.take(&mut roller);
            done
        });
        done.await.map_err(sink_error)
    }
}

#[async_trait]
impl Sink for FileRollSink {
    async fn open(&mut self, marks: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        let settings = Arc::clone(self.settings.as_ref().map_err(OpenError::new)?);
        let (disk, marks, now) = (Arc::clone(&self.disk), marks.clone(), self.now());
        // The old one holds the lock.
        self.roller = None;
        let mut roller = tasks::blocking(move || Roller::open(settings, disk, &marks, now)).await?;
        self.metrics.take(&mut roller);
        self.roller = Some(Arc::new(Mutex::new(roller)));
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, _cx: &RunContext) -> Result<Delivery, SinkError> {
        let (batch, now) = (lease.batch.clone(), self.now());
        let marks = self.step(move |roller| roller.write(&batch, now)).await?;
        Ok(Delivery {
            marks,
            confirm: true,
            ..Delivery::done()
        })
    }

    async fn settled(&self) -> Result<(), SinkError> {
        self.step(Roller::confirm).await
    }

    fn tick_after(&self) -> Option<Duration> {
        match self.roller.as_ref()?.try_lock() {
            Ok(roller) => roller.due_in(Instant::now()),
            Err(TryLockError::Poisoned(roller)) => roller.into_inner().due_in(Instant::now()),
            Err(TryLockError::WouldBlock) => Some(BUSY),
        }
    }

    async fn tick(&self) -> Result<Vec<MarkWrite>, SinkError> {
        let now = self.now();
        self.step(move |roller| roller.tick(now)).await
    }

    async fn close(&mut self) {
        if let Err(error) = self.step(Roller::close).await {
            let error: &dyn std::error::Error = &error;
            warn!(
                error,
                "files keep their temporary names until the next start"
            );
        }
        self.roller = None;
    }
}

fn lock(roller: &Mutex<Roller>) -> MutexGuard<'_, Roller> {
    roller.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a failed step means for the flow: rights need a human, everything else is tried again.
fn sink_error(error: StepError) -> SinkError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let what = match error.source.kind() {
        StorageFull => format!("the disk of `{}` is full", error.path.display()),
        QuotaExceeded => format!("the quota for `{}` is used up", error.path.display()),
        ReadOnlyFilesystem => format!("the disk of `{}` is read-only", error.path.display()),
        PermissionDenied => {
            let what = format!(
                "this process may not {} `{}`",
                error.what,
                error.path.display()
            );
            return SinkError::Fatal {
                what,
                source: Some(Box::new(error.source)),
            };
        }
        _ => {
            let what = error.to_string();
            return SinkError::Refused {
                what,
                after: None,
                source: Some(Box::new(error.source)),
            };
        }
    };
    SinkError::Refused {
        what,
        after: None,
        source: Some(Box::new(error.source)),
    }
}

#[cfg(test)]
mod tests;
