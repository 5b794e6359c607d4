//! The plug for sources, and what they put into.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;

use crate::{Batch, Fault, MarkWrite, Marks, OpenError, RunContext};

/// Takes events in.
///
/// A source acknowledges to its peer after [`Ingest::put`] returned `Ok`, and never before.
#[async_trait]
pub trait Source: Send + fmt::Debug {
    /// Binds, connects, loads: everything that can go wrong early. Starts nothing.
    async fn open(&mut self) -> Result<(), OpenError>;

    /// Takes events in until `cx.stop` drains; then finishes the batch in hand and returns.
    ///
    /// May be dropped at any await: what was not acknowledged stays with the peer.
    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError>;
}

/// Where a source puts its batches: interceptors, selector and channels stand behind it.
#[async_trait]
pub trait Ingest: Send + Sync {
    /// Returns when the batch is committed in every required channel: the time to acknowledge.
    ///
    /// Dropped before the commit is staged, the put is withdrawn; dropped later it may commit, so a
    /// source treats "no answer" as "maybe".
    ///
    /// # Errors
    /// [`PutError`]: nothing of the batch is stored.
    async fn put(&self, put: Put) -> Result<(), PutError>;

    /// What this source wrote last.
    fn marks(&self) -> Marks;

    /// One of them, without looking at the others.
    fn mark(&self, key: &str) -> Option<Bytes> {
        self.marks().get(key).cloned()
    }

    /// The bytes that may be in flight towards the channels before a source should stop reading.
    fn in_flight_limit(&self) -> usize {
        2 << 20
    }
}

/// One batch on its way into the channels, with what must be committed together with it.
#[derive(Debug, Clone, Default)]
pub struct Put {
    pub batch: Batch,
    /// Events that parsed but broke a limit: they go to the dead letters and count as accepted.
    pub faults: Vec<Fault>,
    pub marks: Vec<MarkWrite>,
    /// When to give up waiting for room; `None` waits for as long as it takes.
    pub deadline: Option<Instant>,
}

impl Put {
    /// A batch with nothing beside it, that waits for room at most so long.
    #[must_use]
    pub fn within(batch: Batch, most: Duration) -> Self {
        Self {
            batch,
            deadline: Some(Instant::now() + most),
            ..Self::default()
        }
    }
}

/// Why a batch was not put. In every case nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PutError {
    #[error("channel `{channel}` is full")]
    Full { channel: String },
    #[error("no room within the time allowed")]
    Deadline,
    #[error("the agent is stopping")]
    Stopping,
    #[error("`{part}` asks to try again later: {reason}")]
    Later {
        part: String,
        reason: String,
        after: Option<Duration>,
    },
    #[error("`{part}` has stopped the flow: {reason}")]
    Fatal { part: String, reason: String },
    #[error("mark `{key}` is not what it was expected to be")]
    Conflict { key: String },
    /// A handler's state is not what the batch was handled with: another batch before it failed.
    #[error("the state of handler `{handler}` has changed: the batch is to be handled again")]
    Stale { handler: String },
    #[error("a batch of {bytes} bytes is more than channel `{channel}` holds when empty")]
    TooLarge { channel: String, bytes: usize },
    #[error("the store cannot write: {reason}")]
    Store { reason: String },
}

impl PutError {
    /// Whether the same batch can succeed later; all but [`PutError::TooLarge`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// What it takes for a part that failed to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Another try.
    Time,
    /// A human; another try shows whether one came.
    Human,
}

/// Why a source ended before it was asked to. The supervisor opens it again after a back-off.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SourceError {
    /// What was attempted, on what.
    pub what: String,
    pub needs: Needs,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error without a deeper cause.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            needs: Needs::Time,
            source: None,
        }
    }

    /// An error that time alone does not mend.
    #[must_use]
    pub fn fatal(what: impl Into<String>) -> Self {
        Self {
            needs: Needs::Human,
            ..Self::new(what)
        }
    }

    /// An error with its cause.
    #[must_use]
    pub fn with(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what: what.into(),
            needs: Needs::Time,
            source: Some(source.into()),
        }
    }
}
