//! The plug for sinks.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

use crate::{Hop, Lease, MarkWrite, Marks, Outcomes, RunContext};

/// Gives events away. A sink never sees a channel: it is handed a batch and says what became of it.
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug {
    /// Checks what can be checked early, and picks up from the marks it wrote last time. A peer
    /// that cannot be reached is no error here: `deliver` finds out and is retried.
    /// `hop` is for sinks whose peer may be another Levada.
    async fn open(&mut self, marks: &Marks, hop: &Arc<dyn Hop>) -> Result<(), OpenError>;

    /// Delivers the events of a lease. `Done` means that the other side has them for good.
    ///
    /// Called in the order of the channel, with up to [`window`](Self::window) calls at once; each
    /// is polled once before the next is made. May be dropped at any await: then nothing counts as
    /// delivered.
    async fn deliver(&self, lease: &Lease, cx: &RunContext) -> Result<Delivery, SinkError>;

    /// How many batches may be in flight at once.
    fn window(&self) -> usize {
        1
    }

    /// Whether several batches of one lane may be with it at once and arrive in order. One that does
    /// not gets a single batch of each lane at a time, where a channel is divided into lanes.
    fn pipelines(&self) -> bool {
        false
    }

    /// Called after the settlement of a [`Delivery`] with `confirm` is durable.
    async fn settled(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// When [`tick`](Self::tick) wants to be called although no event came.
    fn tick_after(&self) -> Option<Duration> {
        None
    }

    /// Work that time asks for, such as closing a file that is old enough. The marks it gives are
    /// committed; then [`settled`](Self::settled) is called. Never runs beside a `deliver`.
    async fn tick(&self) -> Result<Vec<MarkWrite>, SinkError> {
        Ok(Vec::new())
    }

    /// Ends in order; nothing is delivered any more.
    async fn close(&mut self) {}
}

/// What became of a batch.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    pub outcomes: Outcomes,
    /// Why events are rejected: one for each `Dead` among the outcomes, in order.
    pub rejects: Vec<Reject>,
    /// The sink's own progress, committed with the settlement.
    pub marks: Vec<MarkWrite>,
    /// Whether the sink needs [`Sink::settled`] once the settlement is on disk.
    pub confirm: bool,
    /// When to try the events to retry again; `None` leaves it to the runner's back-off.
    pub retry_after: Option<Duration>,
    /// Why they are to be tried again, in one line.
    pub retry_why: Option<String>,
}

/// Why an event is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reject {
    /// In one line.
    pub reason: String,
    /// The limit that a handler hit, in the words of the limits table.
    pub limit: Option<String>,
    /// The guest's backtrace, if there was one.
    pub backtrace: Option<String>,
    /// The digest of the handler's component, as `sha256:<hex>`.
    pub handler: Option<String>,
    /// Where the call that failed is recorded, if it is.
    pub recording: Option<String>,
    /// How often it was tried, if that is more than its leases.
    pub attempts: Option<u32>,
}

impl From<String> for Reject {
    /// A reason, and no handler.
    fn from(reason: String) -> Self {
        Self {
            reason,
            ..Self::default()
        }
    }
}

impl Delivery {
    /// Everything was delivered.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }
}

/// Why a whole batch was not delivered: whose fault, and when to try again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The other side is not there: retried from 100 ms up to 2 s.
    #[error("{what}")]
    Unreachable {
        what: String,
        #[source]
        source: Option<Cause>,
    },
    /// The other side is there and refuses: retried from 100 ms up to 60 s.
    #[error("{what}")]
    Refused {
        what: String,
        after: Option<Duration>,
        #[source]
        source: Option<Cause>,
    },
    /// A human is needed: the sink waits, health is red, the data stays.
    #[error("{what}")]
    Fatal {
        what: String,
        #[source]
        source: Option<Cause>,
    },
}

/// The cause of an error, whatever it is.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a part could not be opened.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct OpenError {
    /// What was attempted on what, and what to do about it if that is known.
    pub what: String,
    #[source]
    pub source: Option<Cause>,
}

impl OpenError {
    /// An error without a deeper cause.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// An error with its cause.
    #[must_use]
    pub fn with(what: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self {
            what: what.into(),
            source: Some(source.into()),
        }
    }
}
