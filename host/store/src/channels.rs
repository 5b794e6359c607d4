//! The channels of an open store. They may become more while it is open; one that is gone keeps its
//! place, so that a number once given always means the same channel.

use std::{
    collections::HashMap,
    ops::Index,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use levada_core::{ChannelName, PartId, ledger::channel_part};
use levada_telemetry::Histogram;
use tokio::sync::Notify;

use crate::params::{ChannelKind, ChannelSpec, LaneSpec};

/// Names of channels that one process may see: each costs a pointer in advance.
const MOST: usize = 1024;

/// What does not change about a channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: ChannelName,
    pub(crate) kind: ChannelKind,
    pub(crate) part: PartId,
    /// Its number in the file; of no meaning for a memory channel.
    pub(crate) id: u32,
    /// How what comes from now on is divided.
    divided: RwLock<Option<Arc<LaneSpec>>>,
    /// Rings when events arrive or come back, and when puts wait.
    pub(crate) events: Notify,
    /// Time from an event's own `timestamp`, or its reception, to its settlement.
    pub(crate) lag: Histogram,
}

impl Channel {
    pub(crate) fn new(id: u32, spec: &ChannelSpec, lag: Histogram) -> Self {
        Self {
            name: spec.name.clone(),
            kind: spec.kind,
            part: channel_part(&spec.name),
            id,
            divided: RwLock::new(spec.lanes.clone().map(Arc::new)),
            events: Notify::new(),
            lag,
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.kind == ChannelKind::Durable
    }

    /// How what comes now is divided; `None` for one lane.
    pub(crate) fn divided(&self) -> Option<Arc<LaneSpec>> {
        let divided = self.divided.read().unwrap_or_else(PoisonError::into_inner);
        divided.clone()
    }

    /// What comes from now on is divided so. The lanes must be there.
    pub(crate) fn divide(&self, spec: Option<&LaneSpec>) {
        let mut divided = self.divided.write().unwrap_or_else(PoisonError::into_inner);
        *divided = spec.cloned().map(Arc::new);
    }
}

/// Channels by number, and the numbers of those that are in use by name.
#[derive(Debug)]
pub(crate) struct Channels {
    slots: Box<[OnceLock<Box<Channel>>]>,
    len: AtomicUsize,
    in_use: RwLock<HashMap<ChannelName, usize>>,
}

impl Channels {
    /// These, and no more than are possible.
    pub(crate) fn new(channels: impl IntoIterator<Item = Channel>) -> Self {
        let channels: Vec<_> = channels.into_iter().collect();
        let slots = (0..MOST.max(channels.len())).map(|_| OnceLock::new());
        let all = Self {
            slots: slots.collect(),
            len: AtomicUsize::new(0),
            in_use: RwLock::default(),
        };
        for channel in channels {
            let _number = all.push(channel);
        }
        all
    }

    /// Adds a channel; its number, or `None` if there are too many. Calls must not overlap.
    pub(crate) fn push(&self, channel: Channel) -> Option<usize> {
        let at = self.len.load(Ordering::Acquire);
        let name = channel.name.clone();
        self.slots.get(at)?.set(Box::new(channel)).ok()?;
        self.len.store(at + 1, Ordering::Release);
        self.use_again(name, at);
        Some(at)
    }

    /// Whether another channel could be added.
    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.slots.len()
    }

    /// All, in use or not, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// The channel of a number, if it is one.
    pub(crate) fn get(&self, at: usize) -> Option<&Channel> {
        self.slots.get(at)?.get().map(|channel| &**channel)
    }

    /// How many there are, in use or not.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// The number of a channel that is in use.
    pub(crate) fn find(&self, name: &ChannelName) -> Option<usize> {
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        in_use.get(name).copied()
    }

    /// The number of a channel that was in use before.
    pub(crate) fn find_gone(&self, name: &ChannelName) -> Option<usize> {
        self.iter().position(|channel| channel.name == *name)
    }

    pub(crate) fn is_in_use(&self, at: usize) -> bool {
        self.get(at)
            .is_some_and(|channel| self.find(&channel.name) == Some(at))
    }

    pub(crate) fn use_again(&self, name: ChannelName, at: usize) {
        let mut in_use = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        in_use.insert(name, at);
    }

    pub(crate) fn retire(&self, name: &ChannelName) {
        let mut in_use = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        in_use.remove(name);
    }
}

impl Index<usize> for Channels {
    type Output = Channel;

    fn index(&self, at: usize) -> &Channel {
        self.get(at).expect("numbers are given by this store")
    }
}
