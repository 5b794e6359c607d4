//! A store in memory, with what the contract asks for and no more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    Batch, ChannelName, Commit, Count, Counter, DeadLetter, Effects, Incarnation, Lease, MarkWrite,
    Marks, Name, Outcome, PartId, Positions, PutError, Settlement, States, Store, TakeError, Want,
    hop::Lane,
    inspect::{ChannelInfo, DeadLetterInfo, Inspect, StoreInfo},
    state::SavedState,
    store::Need,
};
use tokio::{sync::Notify, time};

#[derive(Debug, Clone, Default)]
pub(super) struct FakeStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    channels: BTreeMap<ChannelName, Channel>,
    marks: BTreeMap<PartId, BTreeMap<String, Bytes>>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) counts: Effects,
    /// Everything that was committed and settled, in order.
    pub(super) commits: Vec<Commit>,
    pub(super) settlements: Vec<Settlement>,
    /// So many commits, leases or settlements fail first.
    pub(super) failing_commits: usize,
    pub(super) failing_leases: usize,
    /// So many commits with handlers' state are refused first.
    pub(super) stale_commits: usize,
    pub(super) failing_settles: usize,
    /// What was done, in words.
    pub(super) log: Vec<String>,
}

#[derive(Debug)]
struct Channel {
    kind: &'static str,
    capacity: usize,
    events: BTreeMap<u64, Stored>,
    next: u64,
    waiting: u64,
}

#[derive(Debug)]
struct Stored {
    event: Bytes,
    leased: bool,
    attempts: u32,
}

/// Gives its events back when dropped.
struct Hold {
    store: FakeStore,
    channel: ChannelName,
    positions: Vec<u64>,
}

impl FakeStore {
    /// A store with durable channels for so many events each.
    pub(super) fn durable(channels: &[(&str, usize)]) -> Self {
        Self::with(
            channels
                .iter()
                .map(|(name, capacity)| (*name, "durable", *capacity)),
        )
    }

    pub(super) fn memory(name: &str, capacity: usize) -> Self {
        Self::with([(name, "memory", capacity)])
    }

    fn with<'a>(channels: impl IntoIterator<Item = (&'a str, &'static str, usize)>) -> Self {
        let store = Self::default();
        for (name, kind, capacity) in channels {
            let channel = Channel {
                kind,
                capacity,
                events: BTreeMap::new(),
                next: 1,
                waiting: 0,
            };
            store.state().channels.insert(super::channel(name), channel);
        }
        store
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fill(&self, channel: &str, bodies: impl IntoIterator<Item = u32>) {
        let batch = super::events(bodies);
        self.state()
            .channels
            .get_mut(&super::channel(channel))
            .unwrap()
            .push(&batch);
        self.0.changed.notify_waiters();
    }

    /// The bodies of what a channel holds, in order.
    pub(super) fn queued(&self, channel: &str) -> Vec<String> {
        let state = self.state();
        let events = state.channels[&super::channel(channel)].events.values();
        let body = |stored: &Stored| {
            let event = levada_core::EventRef::from_stored(&stored.event);
            String::from_utf8(event.body().to_vec()).unwrap()
        };
        events.map(body).collect()
    }

    pub(super) fn leased(&self, channel: &str) -> usize {
        let state = self.state();
        state.channels[&super::channel(channel)]
            .events
            .values()
            .filter(|e| e.leased)
            .count()
    }

    pub(super) fn count(&self, part: &str, counter: Counter) -> u64 {
        let part = super::part(part);
        let state = self.state();
        let counts = state.counts.counts.iter();
        counts
            .filter(|c| c.part == part && c.counter == counter)
            .map(|c| c.amount)
            .sum()
    }

    pub(super) fn mark(&self, part: &str, key: &str) -> Option<Bytes> {
        self.state()
            .marks
            .get(&super::part(part))?
            .get(key)
            .cloned()
    }

    pub(super) fn set_mark(&self, part: &str, mark: MarkWrite) {
        self.state().write_marks(&super::part(part), &[mark]);
    }

    pub(super) fn log(&self, what: impl Into<String>) {
        self.state().log.push(what.into());
    }

    fn try_commit(&self, commit: &Commit) -> Result<bool, PutError> {
        let mut state = self.state();
        if state.failing_commits > 0 {
            state.failing_commits -= 1;
            return Err(PutError::Store {
                reason: "told to fail".into(),
            });
        }
        if state.stale_commits > 0 && !commit.effects.states.is_empty() {
            state.stale_commits -= 1;
            let handler = commit.effects.states[0].handler.to_string();
            return Err(PutError::Stale { handler });
        }
        let required = |put: &&levada_core::store::ChannelPut| put.need == Need::Required;
        for put in commit.puts.iter().filter(required) {
            if !state.channels[&put.channel].has_room(&put.batch) {
                return Ok(false);
            }
        }
        for put in &commit.puts {
            let channel = state.channels.get_mut(&put.channel).unwrap();
            if channel.has_room(&put.batch) {
                channel.push(&put.batch);
            }
        }
        state.write_marks(&commit.part, &commit.marks);
        state.take_effects(commit.effects.clone());
        state.commits.push(commit.clone());
        Ok(true)
    }

    fn try_lease(&self, channel: &ChannelName, want: Want) -> Result<Option<Lease>, TakeError> {
        let mut state = self.state();
        if state.failing_leases > 0 {
            state.failing_leases -= 1;
            return Err(TakeError::Store {
                reason: "told to fail".into(),
            });
        }
        let Some(queue) = state.channels.get_mut(channel) else {
            return Err(TakeError::NoChannel {
                channel: channel.to_string(),
            });
        };
        let (mut data, mut ends, mut positions, mut attempts) = (Vec::new(), vec![], vec![], 0);
        for (at, stored) in queue.events.iter_mut().filter(|(_, stored)| !stored.leased) {
            if positions.len() == want.events {
                break;
            }
            stored.leased = true;
            attempts = attempts.max(stored.attempts);
            stored.attempts += 1;
            data.extend_from_slice(&stored.event);
            ends.push(u32::try_from(data.len()).unwrap());
            positions.push(*at);
        }
        if positions.is_empty() {
            return Ok(None);
        }
        Ok(Some(Lease {
            channel: channel.clone(),
            lane: 0,
            batch: Batch::from_stored(data.into(), ends).unwrap(),
            positions: Positions::from_each(positions.iter().copied()),
            attempts,
            received_ms: 0,
            hold: Box::new(Hold {
                store: self.clone(),
                channel: channel.clone(),
                positions,
            }),
        }))
    }
}

impl State {
    fn write_marks(&mut self, part: &PartId, marks: &[MarkWrite]) {
        let own = self.marks.entry(part.clone()).or_default();
        for mark in marks {
            match &mark.value {
                Some(value) => own.insert(mark.key.clone(), value.clone()),
                None => own.remove(&mark.key),
            };
        }
    }

    fn take_effects(&mut self, mut effects: Effects) {
        for id in std::mem::take(&mut effects.replayed) {
            self.dead.remove(usize::try_from(id).unwrap());
        }
        self.dead.append(&mut effects.dead_letters);
        self.counts.merge(effects);
    }
}

impl Channel {
    fn has_room(&self, batch: &Batch) -> bool {
        self.events.len() + batch.len() <= self.capacity
    }

    fn push(&mut self, batch: &Batch) {
        for n in 0..batch.len() {
            let event = batch.event_bytes(n).unwrap();
            self.events.insert(
                self.next,
                Stored {
                    event,
                    leased: false,
                    attempts: 0,
                },
            );
            self.next += 1;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.store.state();
        let channel = state.channels.get_mut(&self.channel).unwrap();
        for at in &self.positions {
            if let Some(stored) = channel.events.get_mut(at) {
                stored.leased = false;
            }
        }
        self.store.0.changed.notify_waiters();
    }
}

/// Counts a put that waits for room.
struct Waiting<'a>(&'a FakeStore, &'a Commit);

impl<'a> Waiting<'a> {
    fn new(store: &'a FakeStore, commit: &'a Commit) -> Self {
        Self::add(store, commit, 1);
        Self(store, commit)
    }

    fn add(store: &FakeStore, commit: &Commit, change: i64) {
        let mut state = store.state();
        for put in &commit.puts {
            let channel = state.channels.get_mut(&put.channel).unwrap();
            channel.waiting = channel.waiting.checked_add_signed(change).unwrap();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        Self::add(self.0, self.1, -1);
    }
}

impl States for FakeStore {
    fn state(&self, _: &Name) -> Result<SavedState, TakeError> {
        Ok(SavedState::default())
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn commit(&self, commit: Commit) -> Result<(), PutError> {
        let wait = async {
            loop {
                let changed = self.0.changed.notified();
                if self.try_commit(&commit)? {
                    self.0.changed.notify_waiters();
                    return Ok(());
                }
                let _waiting = Waiting::new(self, &commit);
                changed.await;
            }
        };
        match commit.deadline {
            None => wait.await,
            Some(at) => time::timeout_at(at, wait)
                .await
                .unwrap_or(Err(PutError::Deadline)),
        }
    }

    async fn lease(&self, channel: &ChannelName, want: Want) -> Result<Lease, TakeError> {
        loop {
            let changed = self.0.changed.notified();
            if let Some(lease) = self.try_lease(channel, want)? {
                return Ok(lease);
            }
            changed.await;
        }
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) -> Result<(), TakeError> {
        let hold = lease.hold.downcast::<Hold>().unwrap();
        {
            let mut state = self.state();
            if state.failing_settles > 0 {
                state.failing_settles -= 1;
                drop(state);
                return Err(TakeError::Store {
                    reason: "told to fail".into(),
                });
            }
            let channel = state.channels.get_mut(&lease.channel).unwrap();
            for (n, at) in hold.positions.iter().enumerate() {
                if settlement.outcomes.get(n) != Outcome::Retry {
                    channel.events.remove(at).unwrap();
                }
            }
            state.write_marks(&settlement.part, &settlement.marks);
            state.take_effects(settlement.effects.clone());
            let kind = if settlement.durable {
                "settled durably"
            } else {
                "settled"
            };
            state.log.push(kind.into());
            state.settlements.push(settlement);
        }
        drop(hold);
        Ok(())
    }

    fn marks(&self, part: &PartId) -> Marks {
        Marks::new(self.state().marks.get(part).cloned().unwrap_or_default())
    }

    fn lane(&self, channel: &ChannelName, _lane: u32) -> Result<Lane, TakeError> {
        let state = self.state();
        let channel = &state.channels[channel];
        let oldest = channel.events.keys().next().copied();
        Ok(Lane {
            incarnation: Incarnation([1; 16]),
            oldest: oldest.unwrap_or(channel.next),
        })
    }

    fn holds(
        &self,
        channel: &ChannelName,
        _: u32,
        positions: std::ops::Range<u64>,
    ) -> Result<bool, TakeError> {
        let state = self.state();
        Ok(state.channels[channel]
            .events
            .range(positions)
            .next()
            .is_some())
    }

    fn chain_at(&self, channel: &ChannelName, _: u32, at: u64) -> Result<Option<u64>, TakeError> {
        Ok((at < self.state().channels[channel].next).then_some(at))
    }
}

impl Inspect for FakeStore {
    fn channels(&self) -> Vec<ChannelInfo> {
        let state = self.state();
        let info = |(name, channel): (&ChannelName, &Channel)| ChannelInfo {
            name: name.clone(),
            kind: channel.kind,
            events: channel.events.len() as u64,
            bytes: 0,
            leased: 0,
            capacity_bytes: 0,
            capacity_events: Some(channel.capacity as u64),
            oldest_ms: None,
            waiting_puts: channel.waiting,
        };
        state.channels.iter().map(info).collect()
    }

    fn store(&self) -> Option<StoreInfo> {
        None
    }

    fn counts(&self) -> Result<Vec<Count>, String> {
        Ok(self.state().counts.counts.clone())
    }

    fn dead_letters(&self, _: Option<u64>, _: usize) -> Result<Vec<DeadLetterInfo>, String> {
        Ok(Vec::new())
    }

    fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, String> {
        Ok(self.state().dead.get(usize::try_from(id).unwrap()).cloned())
    }
}
