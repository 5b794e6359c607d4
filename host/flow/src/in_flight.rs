//! The bound on bytes between a source and the store's answer.

use levada_core::PutError;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{self, Instant},
};

/// What a source may always have in flight, however many sources share the bound.
const LEAST_SHARE: usize = 256 << 10;

/// One source's share of the bytes in flight.
///
/// Shares are fixed, so that a source whose channel is full holds up no other one.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: Semaphore,
    share: usize,
}

impl InFlight {
    /// The share of each of `sources` when all together have `total` bytes.
    pub(crate) fn share_of(total: usize, sources: usize) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let share = (total / sources.max(1)).clamp(LEAST_SHARE, most);
        Self {
            bytes: Semaphore::new(share),
            share,
        }
    }

    /// The share in bytes.
    pub(crate) fn share(&self) -> usize {
        self.share
    }

    /// Waits for room, first come, first served. A batch larger than the share takes all of it.
    ///
    /// # Errors
    /// [`PutError::Deadline`] when the time is over.
    pub(crate) async fn take(
        &self,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<SemaphorePermit<'_>, PutError> {
        let wanted = u32::try_from(bytes.min(self.share)).unwrap_or(u32::MAX);
        let room = self.bytes.acquire_many(wanted);
        let room = match deadline {
            None => room.await,
            Some(at) => time::timeout_at(at, room)
                .await
                .map_err(|_| PutError::Deadline)?,
        };
        // The semaphore is closed by nobody.
        room.map_err(|_| PutError::Stopping)
    }
}

/// 2 MiB a core.
pub(crate) fn default_total() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores * (2 << 20)
}
