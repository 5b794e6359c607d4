//! The door to an open store.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    ChannelName, Commit, Incarnation, Lease, Marks, Name, PartId, PutError, Settlement, States,
    Store, TakeError, Want, hop::Lane, state::SavedState,
};
use tracing::{error, info, warn};

use crate::{
    chain, inspect,
    lanes::LaneAt,
    lease, open as opening,
    params::{Backend, OpenError, StoreParams},
    probe, put, settle,
    shared::{Shared, Status},
    trouble::guarded,
    writer::Border,
};

/// An open store: durable and memory channels, marks, dead letters and counters.
///
/// Dropping the last handle closes the store as [`close`](Self::close) does, but tells no error.
pub struct Stores {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held while channels come or go.
    changing: Mutex<()>,
    /// Measures the disk at the start.
    probe: Mutex<Option<JoinHandle<()>>>,
}

/// What a store left behind when it was closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closed {
    /// Events that were still in memory channels, by channel: they are lost.
    pub lost: Vec<(ChannelName, u64)>,
    /// Why the file could not be closed in order; the next open repairs it.
    pub unclean: Option<String>,
}

/// Opens the store and starts its writer.
///
/// Blocks for as long as the file takes: a store that was not closed in order is walked through at
/// about half a gigabyte a second.
///
/// # Errors
/// [`OpenError`]; nothing was changed but that the folder and an empty store may exist now.
pub fn open(params: StoreParams) -> Result<Arc<Stores>, OpenError> {
    let dir = params.dir.clone();
    let is_file = matches!(params.backend, Backend::Default);
    let (shared, writer) = opening::open(params)?;
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let spawned = std::thread::Builder::new().name(name.into()).spawn(work);
        spawned.map_err(|source| OpenError::Io {
            attempt: "start the threads of",
            path: dir.clone(),
            source,
        })
    };
    let writer = thread("levada-store", Box::new(move || writer.run()))?;
    let stores = Arc::new(Stores::new(Arc::clone(&shared), Some(writer)));
    if is_file {
        let folder = dir.clone();
        let measure = move || {
            if let Some(median) = probe::measure(&folder) {
                // Nobody else measures.
                let _first = shared.probed.set(median).is_ok();
            }
        };
        *stores.probe.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(thread("levada-probe", Box::new(measure))?);
    }
    Ok(stores)
}

impl Stores {
    pub(crate) fn new(shared: Arc<Shared>, thread: Option<JoinHandle<()>>) -> Self {
        Self {
            shared,
            thread: Mutex::new(thread),
            changing: Mutex::default(),
            probe: Mutex::new(None),
        }
    }

    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, saves what makes the next open quick, and closes the file. Puts are
    /// refused from now on; leases that are still held come back at the next open. Blocks.
    ///
    /// A second call does nothing.
    pub fn close(&self) -> Closed {
        let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Closed::default();
        };
        self.begin_close();
        let probe = self
            .probe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if probe.is_some_and(|probe| probe.join().is_err()) {
            warn!("the measurement of the disk panicked");
        }
        let panicked = thread.join().is_err();
        let unclean = if panicked {
            Some("the writer panicked".to_owned())
        } else {
            None
        };
        let closed = self.end_close(unclean);
        match &closed.unclean {
            Some(reason) => warn!(%reason, "store closed uncleanly"),
            None => info!("store closed"),
        }
        closed
    }

    /// Refuses puts, and has the writer come to an end.
    pub(crate) fn begin_close(&self) {
        let mut state = self.shared.lock();
        state.rooms.end();
        state.status = match std::mem::replace(&mut state.status, Status::Closed(None)) {
            Status::Open => Status::Closing,
            Status::Failed(reason) => Status::Closed(Some(reason)),
            other @ (Status::Closing | Status::Closed(_)) => other,
        };
        drop(state);
        self.shared.ring_all();
    }

    /// Closes the file, after the writer has ended.
    pub(crate) fn end_close(&self, unclean: Option<String>) -> Closed {
        let closed = self.take_base();
        let mut state = self.shared.lock();
        let failed = match std::mem::replace(&mut state.status, Status::Closed(None)) {
            Status::Closed(reason) => reason,
            Status::Open | Status::Closing | Status::Failed(_) => None,
        };
        let memory = self.shared.channels.iter().zip(&state.lanes);
        let memory = memory.filter(|(channel, lanes)| !channel.is_durable() && lanes.events() > 0);
        let lost: Vec<_> = memory
            .map(|(channel, lanes)| (channel.name.clone(), lanes.events()))
            .collect();
        drop(state);
        for (channel, events) in &lost {
            error!(%channel, events, "events of a memory channel are lost");
        }
        self.shared.ring_all();
        Closed {
            lost,
            unclean: unclean.or(failed).or(closed),
        }
    }

    fn take_base(&self) -> Option<String> {
        let base = std::mem::take(
            &mut *self
                .shared
                .base
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let closed = guarded(|| base.db.map_or(Ok(()), redb::Database::close));
        drop(base.lock);
        closed.err().map(|trouble| trouble.text)
    }

    /// The store's own incarnation, which hops use (delivery contract D1.4).
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.lock().incarnation
    }

    /// Where rows that have left a lane of a channel ended, oldest first: at least the last 1,024.
    ///
    /// # Errors
    /// The text of what could not be read.
    pub fn borders(&self, channel: &ChannelName, lane: u32) -> Result<Vec<Border>, String> {
        let missing = || format!("there is no durable channel `{channel}`");
        let at = self.shared.channel(channel).ok_or_else(missing)?;
        if !self.shared.channels[at].is_durable() {
            return Err(missing());
        }
        let lane = self.shared.lane_id(LaneAt { channel: at, lane });
        let read = self.shared.read(|db| chain::borders(db, lane));
        read.map_err(inspect::unread)
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl States for Stores {
    fn state(&self, handler: &Name) -> Result<SavedState, TakeError> {
        let state = self.shared.lock();
        Ok(state.handlers.get(handler).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl Store for Stores {
    async fn commit(&self, commit: Commit) -> Result<(), PutError> {
        put::commit(&self.shared, commit).await
    }

    async fn lease(&self, channel: &ChannelName, want: Want) -> Result<Lease, TakeError> {
        lease::lease(&self.shared, channel, want).await
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<(), TakeError> {
        settle::settle(&self.shared, lease, settlement).await
    }

    fn marks(&self, part: &PartId) -> Marks {
        let state = self.shared.lock();
        let marks = state.marks.get(part).into_iter().flatten();
        Marks::new(marks.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn mark(&self, part: &PartId, key: &str) -> Option<Bytes> {
        self.shared.lock().marks.get(part)?.get(key).cloned()
    }

    fn lanes(&self, channel: &ChannelName) -> u32 {
        let channels = &self.shared.channels;
        let divided = channels.find(channel).and_then(|at| channels[at].divided());
        divided.map_or(1, |spec| spec.count)
    }

    fn lane(&self, channel: &ChannelName, lane: u32) -> Result<Lane, TakeError> {
        chain::lane(&self.shared, channel, lane)
    }

    fn holds(
        &self,
        channel: &ChannelName,
        lane: u32,
        positions: std::ops::Range<u64>,
    ) -> Result<bool, TakeError> {
        chain::holds(&self.shared, channel, lane, &positions)
    }

    fn chain_at(
        &self,
        channel: &ChannelName,
        lane: u32,
        position: u64,
    ) -> Result<Option<u64>, TakeError> {
        chain::chain_at(&self.shared, channel, lane, position)
    }
}
