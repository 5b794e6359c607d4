//! Bugs that are planted to see whether they are found.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    ChannelName, Commit, Lease, Marks, Name, PartId, PutError, Settlement, Store, TakeError,
    TaskSet, Want,
    hop::Lane,
    marks::Expect,
    state::{SavedState, States},
};
use levada_store::Stores;

use super::Plant;

/// A store whose agent has a bug.
pub(super) struct Planted {
    pub(super) inner: Arc<Stores>,
    pub(super) plant: Plant,
    /// Commits that were acknowledged before.
    early: Mutex<TaskSet>,
}

impl Planted {
    pub(super) fn new(inner: Arc<Stores>, plant: Plant) -> Self {
        Self {
            inner,
            plant,
            early: Mutex::default(),
        }
    }
}

impl States for Planted {
    fn state(&self, handler: &Name) -> Result<SavedState, TakeError> {
        self.inner.state(handler)
    }
}

#[async_trait]
impl Store for Planted {
    async fn commit(&self, mut commit: Commit) -> Result<(), PutError> {
        if self.plant == Plant::AnyMark {
            for mark in &mut commit.marks {
                mark.expect = Expect::Any;
            }
        }
        if self.plant != Plant::EarlyAck || commit.puts.is_empty() {
            return self.inner.commit(commit).await;
        }
        let inner = Arc::clone(&self.inner);
        let task = async move {
            // Whoever would hear of it has gone on.
            let _stored = inner.commit(commit).await.is_ok();
        };
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        early.spawn("early", task);
        Ok(())
    }

    async fn lease(&self, channel: &ChannelName, want: Want) -> Result<Lease, TakeError> {
        self.inner.lease(channel, want).await
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<(), TakeError> {
        self.inner.settle(lease, settlement).await
    }

    fn marks(&self, part: &PartId) -> Marks {
        self.inner.marks(part)
    }

    fn mark(&self, part: &PartId, key: &str) -> Option<Bytes> {
        self.inner.mark(part, key)
    }

    fn lanes(&self, channel: &ChannelName) -> u32 {
        self.inner.lanes(channel)
    }

    fn lane(&self, channel: &ChannelName, lane: u32) -> Result<Lane, TakeError> {
        self.inner.lane(channel, lane)
    }

    fn holds(
        &self,
        channel: &ChannelName,
        lane: u32,
        positions: Range<u64>,
    ) -> Result<bool, TakeError> {
        self.inner.holds(channel, lane, positions)
    }

    fn chain_at(
        &self,
        channel: &ChannelName,
        lane: u32,
        position: u64,
    ) -> Result<Option<u64>, TakeError> {
        match self.plant {
            // Every mark fits then.
            Plant::NoGuard => Ok(Some(0)),
            Plant::Nothing | Plant::EarlyAck | Plant::AnyMark | Plant::NoPrev => {
                self.inner.chain_at(channel, lane, position)
            }
        }
    }
}

impl fmt::Debug for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planted")
            .field("plant", &self.plant)
            .finish_non_exhaustive()
    }
}
