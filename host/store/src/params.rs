//! What a store is opened with, and why that can fail.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use levada_core::{Chance, ChannelName, Clock, SystemClock};
use levada_telemetry::Registry;
use thiserror::Error;

use crate::{
    disk::Disk,
    file::Ahead,
    trouble::{Trouble, TroubleKind},
};

/// Everything a store needs to be opened.
#[derive(Debug)]
pub struct StoreParams {
    /// The folder of the store; made (0750) if it is not there.
    pub dir: PathBuf,
    pub channels: Vec<ChannelSpec>,
    pub dead_letters: DeadLetterSpec,
    /// Memory for pages and for rows that were just written, together.
    pub cache_bytes: usize,
    pub clock: Arc<dyn Clock>,
    /// Where incarnations and nonces come from.
    pub chance: Chance,
    pub registry: Registry,
    pub backend: Backend,
    /// Only of the default backend: another disk has no place to set a file aside.
    pub on_corruption: OnCorruption,
    /// How much longer the file may be than what it holds before an idle store gives the rest back
    /// to the disk, in bytes.
    pub spare_bytes: u64,
    /// Added to every sync of the file: a slow disk for benchmarks. Zero in production.
    pub sync_delay: Duration,
}

impl StoreParams {
    /// A store in `dir` with these channels, and the defaults of the product for the rest.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, channels: Vec<ChannelSpec>) -> Self {
        Self {
            dir: dir.into(),
            channels,
            dead_letters: DeadLetterSpec::default(),
            cache_bytes: 16 << 20,
            clock: Arc::new(SystemClock),
            chance: Chance::system(),
            registry: Registry::new(),
            backend: Backend::Default,
            on_corruption: OnCorruption::default(),
            spare_bytes: 256 << 20,
            sync_delay: Duration::ZERO,
        }
    }
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSpec {
    pub name: ChannelName,
    pub kind: ChannelKind,
    /// Bytes of events in Avro binary; what the store adds to them is not counted.
    pub capacity_bytes: u64,
    pub capacity_events: Option<u64>,
    pub on_full: OnFull,
    /// `None` for one lane.
    pub lanes: Option<LaneSpec>,
}

/// How a channel is divided: events whose header `key` has the same value stay in one lane, and in
/// order.
///
/// Where `count` or `key` are others than when an event was stored, the event stays in its lane and
/// leaves from there: order per key holds again once all such events are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSpec {
    /// At least 1.
    pub count: u32,
    pub key: String,
}

/// Whether a channel outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// In the store's file: survives loss of power.
    Durable,
    /// In memory: lost with the process.
    Memory,
}

impl ChannelKind {
    /// `durable` or `memory`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Memory => "memory",
        }
    }
}

/// What a put does when a channel has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It waits, up to its deadline.
    #[default]
    Block,
    /// It fails at once.
    Reject,
}

/// The table of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterSpec {
    /// Bytes of the letters as they are stored. One commit may exceed it when the table is empty.
    pub capacity_bytes: u64,
    pub on_full: OnDeadLettersFull,
}

impl Default for DeadLetterSpec {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 20,
            on_full: OnDeadLettersFull::Block,
        }
    }
}

/// What happens to a dead letter for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeadLettersFull {
    /// The commit that carries it waits.
    #[default]
    Block,
    /// The oldest letters go, and are counted.
    DropOldest,
}

/// What happens to a store whose file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorruption {
    /// It is set aside as `store.redb.corrupt-<n>`, and a fresh one takes over.
    #[default]
    Quarantine,
    /// The store stays failed, for people to look at.
    Halt,
}

/// What the pages are kept in.
#[derive(Default)]
pub enum Backend {
    /// The file `store.redb` in the store's folder, with space kept ahead.
    #[default]
    Default,
    /// What the default does with its file, on another disk: one that is simulated.
    Disk(Arc<dyn Disk>, Ahead),
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "Default",
            Self::Disk(..) => "Disk",
        })
    }
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("cannot {attempt} `{path}`")]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the store `{path}` is in use by {holder}")]
    InUse { path: PathBuf, holder: String },
    #[error("cannot open the store `{path}`: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("the store `{path}` is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("`{path}` is a redb file of another program: move it away, or name another folder")]
    Foreign { path: PathBuf },
    #[error("the store `{path}` has format {found}, this version reads up to {known}")]
    Format {
        path: PathBuf,
        found: String,
        known: String,
    },
    #[error(
        "channel `{channel}` holds {events} events but is no durable channel any more: \
         keep it until it is drained"
    )]
    Orphaned { channel: String, events: u64 },
    #[error("channel `{channel}` is given twice")]
    Twice { channel: String },
}

impl OpenError {
    /// What went wrong with the file at this path.
    pub(crate) fn of(path: &Path, trouble: Trouble) -> Self {
        let (path, reason) = (path.to_owned(), trouble.text);
        match trouble.kind {
            TroubleKind::Damage => Self::Damaged { path, reason },
            TroubleKind::Full | TroubleKind::Io => Self::Unreadable { path, reason },
        }
    }
}
