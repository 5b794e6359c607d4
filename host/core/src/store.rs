//! The plug for the store: durable and memory channels behind one door.

use std::{any::Any, fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    Batch, ChannelName, Effects, MarkWrite, Marks, PartId, Positions, PutError, States, hop::Lane,
    origin::PositionRun,
};

/// Keeps events between sources and sinks.
///
/// What one call carries is committed together, or not at all.
#[async_trait]
pub trait Store: States + Send + Sync + fmt::Debug {
    /// Puts, marks and effects in one transaction; returns when it is durable.
    ///
    /// Room is reserved in all required channels at once or in none (each by its own `on-full`; a
    /// waiting put holds nothing); then the durable part is committed; then the memory channels are
    /// filled, which cannot fail any more. Dropped before the writer stages it the commit is
    /// withdrawn, later it may go through.
    ///
    /// # Errors
    /// [`PutError`]: nothing of it is stored.
    async fn commit(&self, commit: Commit) -> Result<(), PutError>;

    /// Waits for at least one event and leases a run of events of one lane, in its order; lanes have
    /// their turns. Writes nothing. Safe to cancel. A lease that is dropped gives its events back.
    ///
    /// # Errors
    /// [`TakeError`].
    async fn lease(&self, channel: &ChannelName, want: Want) -> Result<Lease, TakeError>;

    /// Ends a lease. Frees room in memory at once; the delete follows with the next commit, alone
    /// when somebody waits for room, or after a short while.
    ///
    /// # Errors
    /// [`TakeError`]: the events of the lease are back in the channel.
    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<(), TakeError>;

    /// What a part wrote last.
    fn marks(&self, part: &PartId) -> Marks;

    /// One mark of a part, without looking at its others.
    fn mark(&self, part: &PartId, key: &str) -> Option<Bytes> {
        self.marks(part).get(key).cloned()
    }

    /// How many lanes events of a channel are divided into now. One that had more before may still
    /// lease events of those.
    fn lanes(&self, channel: &ChannelName) -> u32 {
        let _one = channel;
        1
    }

    /// Under which incarnation the positions of a lane are given, and where it begins now. A memory
    /// channel has a new incarnation at every open of the store.
    ///
    /// # Errors
    /// [`TakeError`].
    fn lane(&self, channel: &ChannelName, lane: u32) -> Result<Lane, TakeError>;

    /// Whether an event is queued or leased at one of these positions of a lane. May read from the
    /// disk.
    ///
    /// # Errors
    /// [`TakeError`].
    fn holds(
        &self,
        channel: &ChannelName,
        lane: u32,
        positions: Range<u64>,
    ) -> Result<bool, TakeError>;

    /// The chain after the last event at `position` of a lane, as far as it is known: at every
    /// position of a row that is held, and at the ends of the last rows that have left (delivery
    /// contract D4.6). In a memory channel it is 0 everywhere. May read from the disk.
    ///
    /// # Errors
    /// [`TakeError`].
    fn chain_at(
        &self,
        channel: &ChannelName,
        lane: u32,
        position: u64,
    ) -> Result<Option<u64>, TakeError>;
}

/// One transaction on the source side.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The part whose marks these are.
    pub part: PartId,
    pub puts: Vec<ChannelPut>,
    pub marks: Vec<MarkWrite>,
    /// What goes into the channel that is itself the part of this commit comes back from the dead
    /// letters: it counts as `replayed` and not as `put`.
    pub effects: Effects,
    /// When to give up waiting for room; enforced before the commit is staged.
    pub deadline: Option<Instant>,
    /// Wall time of reception, in milliseconds since 1970; for the age of the oldest event.
    pub received_ms: u64,
}

/// What goes into one channel.
#[derive(Debug, Clone)]
pub struct ChannelPut {
    pub channel: ChannelName,
    pub batch: Batch,
    pub need: Need,
}

/// Whether a put fails when a channel has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Required,
    /// Counted as dropped (`optional`) on the channel when it has no room.
    Optional,
}

/// How much to lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// At most so many events, at least 1.
    pub events: usize,
    /// At most so many bytes; a single event may be larger.
    pub bytes: usize,
    /// How long to wait for more after the first event is there.
    pub wait: Duration,
    /// From which lanes.
    pub lanes: Lanes,
}

/// The lanes that a lease may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lanes {
    /// Any: several leases of one lane may be out at once.
    #[default]
    Any,
    /// Those of which nothing is leased: whoever takes so keeps the order of each lane, also beside
    /// others who take.
    Idle,
}

impl Default for Want {
    /// 1,000 events, 1 MiB, 50 ms, any lane.
    fn default() -> Self {
        Self {
            events: 1000,
            bytes: 1 << 20,
            wait: Duration::from_millis(50),
            lanes: Lanes::Any,
        }
    }
}

/// Events handed to a sink and not yet gone. Dropped, it gives them back.
pub struct Lease {
    pub channel: ChannelName,
    pub lane: u32,
    /// The events, with their origin ids (none from a memory channel).
    pub batch: Batch,
    /// Their positions in the lane.
    pub positions: Positions,
    /// How often the most tried of the events was leased before.
    pub attempts: u32,
    /// Wall time when the oldest was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// The store's own hold on the events; gives them back when dropped.
    pub hold: Box<dyn Any + Send + Sync>,
}

impl Lease {
    /// Events that lie in no store, at the positions from 1 on of a channel named `loose`: for a
    /// sink that is used by itself.
    #[must_use]
    pub fn loose(batch: Batch) -> Self {
        let count = u32::try_from(batch.len()).expect("a batch is below 4 GiB");
        Self {
            channel: ChannelName::new("loose").expect("is a name"),
            lane: 0,
            batch,
            positions: Positions::new([PositionRun { first: 1, count }]),
            attempts: 0,
            received_ms: 0,
            hold: Box::new(()),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("channel", &self.channel)
            .field("lane", &self.lane)
            .field("events", &self.batch.len())
            .finish_non_exhaustive()
    }
}

/// How a lease ends.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The part whose marks these are.
    pub part: PartId,
    pub outcomes: Outcomes,
    pub marks: Vec<MarkWrite>,
    /// One dead letter for each `Dead` among the outcomes; counts beside them.
    pub effects: Effects,
    /// Whether to return only when the settlement is on disk.
    pub durable: bool,
}

/// What became of the events of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Outcomes {
    /// All are done.
    #[default]
    Done,
    /// All go back to the channel.
    Retry,
    /// One outcome per event, in order.
    Each(Vec<Outcome>),
}

impl Outcomes {
    /// The outcome of the `n`-th event; missing ones count as retry.
    #[must_use]
    pub fn get(&self, n: usize) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Retry => Outcome::Retry,
            Self::Each(each) => each.get(n).copied().unwrap_or(Outcome::Retry),
        }
    }
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The other side has it for good.
    Done,
    /// It goes back to the channel, to its old place.
    Retry,
    /// It goes to the dead letters.
    Dead,
    /// It leaves on purpose; the reason is among the effects' counts.
    Discard,
}

/// Why a lease could not be given or settled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TakeError {
    #[error("there is no channel `{channel}`")]
    NoChannel { channel: String },
    #[error("the store is closed")]
    Closed,
    #[error("the store cannot write: {reason}")]
    Store { reason: String },
}
