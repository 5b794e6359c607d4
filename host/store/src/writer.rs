//! The one writer: takes everything that waits into one transaction.
//!
//! A state machine that a thread steps in production and a test steps by hand.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use levada_core::{MarkWrite, Name, PartId, PutError, StateChange, marks::Expect};
use redb::Database;
use tracing::{debug, warn};

use crate::{
    lanes::LaneAt,
    pages::Pages,
    queue::Entry,
    room::{DEAD, Need},
    shared::{CountKey, Inbox, Shared, State, Status},
    trouble::{Trouble, guarded},
};

mod head;
mod recover;
mod shrink;
mod transact;

use recover::Recovery;
use shrink::Shrinking;

pub use head::Border;
pub(crate) use head::{Head, read_borders};
pub(crate) use transact::IndexEntry;

/// A quick-repair commit is worth its two flushes from here on.
const QUICK_REPAIR_BYTES: u64 = 64 << 20;
const QUICK_REPAIR_IDLE: Duration = Duration::from_secs(5);
const QUICK_REPAIR_EVERY: Duration = Duration::from_secs(60);

/// Takes what waits, commits it, answers.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    pages: Pages,
    /// The number of the last transaction that is on disk.
    commits: u64,
    heads: HashMap<LaneAt, Head>,
    next_letter: u64,
    next_aside: u64,
    /// Entries the quarantine still has room for.
    aside_room: u64,
    worked: Option<Instant>,
    repaired: Option<Instant>,
    /// Commits since the last one that saves what a quick reopen needs.
    unsaved: bool,
    recovery: Recovery,
    shrinking: Shrinking,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was committed, or failed.
    Worked,
    /// There is nothing to do before this time, or until somebody calls.
    Sleep(Option<Instant>),
    /// The store is closed.
    Ended,
}

/// Everything of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Work {
    inbox: Inbox,
    /// Absolute values of the counters that change.
    counters: BTreeMap<CountKey, u64>,
    marks: BTreeMap<(PartId, String), MarkWrite>,
    /// Bytes of dead letters to make room for.
    letters_over: u64,
    done: Done,
}

/// What a transaction did beside what was asked.
#[derive(Debug, Default)]
pub(crate) struct Done {
    entries: Vec<(LaneAt, Entry)>,
    /// Dead letters that went: replayed, or to make room for others.
    letters_gone: Option<Need>,
    /// How many of them made room, and under what they are counted.
    dropped: Option<(CountKey, u64)>,
    /// Bytes of rows that may be held in memory beside the disk.
    cache_left: usize,
}

/// Where the writer goes on after an open.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub(crate) commits: u64,
    pub(crate) heads: HashMap<LaneAt, Head>,
    pub(crate) next_letter: u64,
    pub(crate) next_aside: u64,
    pub(crate) aside_entries: u64,
}

/// The quarantine keeps the bytes of so many records; what comes later is counted only.
const ASIDE_MOST: u64 = 1024;

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, pages: Pages, resume: Resume) -> Self {
        Self {
            shared,
            pages,
            commits: resume.commits,
            heads: resume.heads,
            next_letter: resume.next_letter,
            next_aside: resume.next_aside,
            aside_room: ASIDE_MOST.saturating_sub(resume.aside_entries),
            worked: None,
            repaired: None,
            unsaved: true,
            recovery: Recovery::default(),
            shrinking: Shrinking::default(),
        }
    }

    /// Steps until the store is closed.
    pub(crate) fn run(mut self) {
        loop {
            match self.step(Instant::now()) {
                Step::Worked => {}
                Step::Sleep(until) => self.sleep(until),
                Step::Ended => return,
            }
        }
    }

    /// Does what there is to do at this time.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        let mut state = self.shared.lock();
        let closing = match state.status {
            Status::Closed(_) => {
                refuse_all(&mut state);
                return Step::Ended;
            }
            Status::Failed(_) => {
                refuse_all(&mut state);
                drop(state);
                return self.try_again(now);
            }
            Status::Closing => true,
            Status::Open => false,
        };
        if let Some(trouble) = state.trouble.take() {
            drop(state);
            self.recover(&trouble, None, now);
            return Step::Worked;
        }
        drop(state);
        let asks = self.ask_for_space(now);
        let held_up = self.held_up(now).filter(|_| !closing);
        let mut state = self.shared.lock();
        if closing && state.inbox.is_empty() {
            drop(state);
            self.save_for_quick_reopen(now);
            let mut state = self.shared.lock();
            state.status = Status::Closed(None);
            refuse_all(&mut state);
            return Step::Ended;
        }
        if held_up.is_some() {
            return Step::Sleep(held_up);
        }
        if !closing && !state.inbox.is_ready(now, state.rooms.anybody_waits()) {
            let queued: u64 = self.durable_bytes(&state);
            let (saves, shrinks) = (self.quick_repair_due(queued), self.shrink_due(&state));
            let due = [state.inbox.next_due(), saves, shrinks, asks];
            drop(state);
            if shrinks.is_some_and(|at| at <= now) {
                self.shrink(now);
                return Step::Worked;
            }
            if saves.is_some_and(|at| at <= now) {
                self.save_for_quick_reopen(now);
                return Step::Worked;
            }
            return Step::Sleep(due.into_iter().flatten().min());
        }
        self.heads.extend(state.inbox.heads.drain(..));
        let mut work = take(&mut state, self.shared.dead_letter_limit());
        work.done.cache_left = self.shared.row_cache.saturating_sub(self.cached(&state));
        drop(state);
        let done = self.commit(&mut work);
        self.worked = Some(now);
        match done {
            Ok(()) => self.succeed(work),
            Err(trouble) => self.recover(&trouble, Some(work), now),
        }
        Step::Worked
    }

    /// Waits until there may be something to do.
    fn sleep(&self, until: Option<Instant>) {
        let state = self.shared.lock();
        let now = Instant::now();
        let held_up = self.held_up(now).is_some();
        let ready = match state.status {
            Status::Open if held_up => state.trouble.is_some(),
            Status::Open => {
                state.trouble.is_some() || state.inbox.is_ready(now, state.rooms.anybody_waits())
            }
            Status::Closing | Status::Closed(_) => true,
            Status::Failed(_) => state.inbox.anybody_waits(),
        };
        if ready {
            return;
        }
        let most = until.map(|at| at.saturating_duration_since(now));
        self.shared.wake.wait(state, most);
    }

    /// One transaction; every failure, panics of redb included, as trouble.
    fn commit(&mut self, work: &mut Work) -> Result<(), Trouble> {
        self.with_db(|writer, db| guarded(|| writer.transact(db, work)))
    }

    fn with_db<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &Database) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let shared = Arc::clone(&self.shared);
        let base = shared.base.read().unwrap_or_else(PoisonError::into_inner);
        match &base.db {
            Some(db) => work(self, db),
            None => Err(Trouble::io("the store is closed")),
        }
    }

    fn succeed(&mut self, work: Work) {
        self.commits += 1;
        self.unsaved = true;
        let metrics = &self.shared.metrics;
        metrics.commits.add(1);
        metrics.grouped.add(work.inbox.commits.len() as u64);
        let mut state = self.shared.lock();
        let mut filled = vec![false; self.shared.channels.len()];
        for (at, entry) in work.done.entries {
            filled[at.channel] = true;
            let lane = state.lane(at);
            lane.next = self.heads.get(&at).map_or(1, |head| head.next);
            lane.queue.push(entry);
        }
        for mut staged in work.inbox.commits {
            for change in std::mem::take(&mut staged.states) {
                state.change(change);
            }
            staged.answer(Ok(()));
            for (key, amount) in staged.counts {
                *state.ledger.entry(key).or_default() += amount;
            }
            for mark in staged.marks {
                state.set_mark(&staged.part, mark);
            }
            for (at, batch) in staged.memory {
                filled[at.channel] = true;
                fill_memory(&mut state, at, batch, staged.received_ms);
            }
        }
        if let Some((key, dropped)) = work.done.dropped {
            *state.ledger.entry(key).or_default() += dropped;
        }
        if let Some(gone) = work.done.letters_gone {
            state.rooms.release(&[gone]);
        }
        drop(state);
        for asking in work.inbox.asking {
            let _heard = asking.send(Ok(())).is_ok();
        }
        let rung = self
            .shared
            .channels
            .iter()
            .zip(filled)
            .filter(|(_, filled)| *filled);
        rung.for_each(|(channel, _)| channel.events.notify_waiters());
    }

    fn durable_bytes(&self, state: &State) -> u64 {
        let durable = self.shared.channels.iter().zip(&state.lanes);
        durable
            .filter(|(channel, _)| channel.is_durable())
            .map(|(_, lanes)| lanes.bytes())
            .sum()
    }

    fn cached(&self, state: &State) -> usize {
        let durable = self.shared.channels.iter().zip(&state.lanes);
        durable
            .filter(|(channel, _)| channel.is_durable())
            .map(|(_, lanes)| lanes.cached())
            .sum()
    }

    /// When the next commit that saves the layout is due, by the rule of the delivery contract (D0).
    fn quick_repair_due(&self, queued: u64) -> Option<Instant> {
        let worked = self
            .worked
            .filter(|_| self.unsaved && queued > QUICK_REPAIR_BYTES)?;
        let idle = worked + QUICK_REPAIR_IDLE;
        Some(
            self.repaired
                .map_or(idle, |last| idle.max(last + QUICK_REPAIR_EVERY)),
        )
    }

    /// An empty commit that makes the next open quick.
    fn save_for_quick_reopen(&mut self, now: Instant) {
        if !self.unsaved {
            return;
        }
        let saved = self.with_db(|_, db| guarded(|| transact::quick_repair(db)));
        match saved {
            Ok(()) => {
                self.shared.metrics.quick_repairs.add(1);
                debug!("saved the layout of the store for a quick reopen");
            }
            Err(error) => {
                warn!(%error, "cannot save the layout of the store: the next open takes longer");
                // redb writes nothing any more until it is opened again.
                self.shared.lock().trouble.get_or_insert(error);
            }
        }
        self.unsaved = false;
        self.repaired = Some(now);
    }
}

/// Takes everything that waits, in the order it came; refuses what does not meet its marks.
fn take(state: &mut State, letter_limit: Option<u64>) -> Work {
    let mut inbox = std::mem::take(&mut state.inbox);
    let mut work = Work::default();
    for (part, mark) in &inbox.marks {
        let key = (part.clone(), mark.key.clone());
        work.marks.insert(key, mark.clone());
    }
    for key in &inbox.counts {
        let value = state.ledger.get(key).copied().unwrap_or(0);
        work.counters.insert(key.clone(), value);
    }
    // What the marks will be after the commits before.
    let mut ahead: HashMap<(PartId, String), MarkWrite> = HashMap::new();
    let mut versions: HashMap<Name, u64> = HashMap::new();
    let mut accepted = Vec::with_capacity(inbox.commits.len());
    for mut staged in inbox.commits.drain(..) {
        if staged.is_withdrawn() {
            state.rooms.release(&staged.needs);
            continue;
        }
        let unmet = staged
            .marks
            .iter()
            .find(|mark| !meets(state, &ahead, &staged.part, mark));
        if let Some(mark) = unmet {
            state.rooms.release(&staged.needs);
            let key = mark.key.clone();
            staged.refuse(PutError::Conflict { key });
            continue;
        }
        let is_stale = |change: &&StateChange| {
            let ahead = versions.get(&change.handler).copied();
            ahead.unwrap_or_else(|| state.version(&change.handler)) != change.from
        };
        if let Some(change) = staged.states.iter().find(is_stale) {
            let handler = change.handler.to_string();
            state.rooms.release(&staged.needs);
            staged.refuse(PutError::Stale { handler });
            continue;
        }
        for change in &staged.states {
            versions.insert(change.handler.clone(), change.to());
        }
        for mark in &staged.marks {
            let key = (staged.part.clone(), mark.key.clone());
            if !staged.volatile {
                work.marks.insert(key.clone(), mark.clone());
            }
            ahead.insert(key, mark.clone());
        }
        for (key, amount) in &staged.counts {
            let before = state.ledger.get(key).copied().unwrap_or(0);
            *work.counters.entry(key.clone()).or_insert(before) += amount;
        }
        accepted.push(staged);
    }
    inbox.commits = accepted;
    let letters = state.rooms.get(DEAD).bytes;
    work.letters_over = letter_limit.map_or(0, |limit| letters.saturating_sub(limit));
    work.inbox = inbox;
    work
}

fn meets(
    state: &State,
    ahead: &HashMap<(PartId, String), MarkWrite>,
    part: &PartId,
    mark: &MarkWrite,
) -> bool {
    let Expect::Exactly(expected) = &mark.expect else {
        return true;
    };
    match ahead.get(&(part.clone(), mark.key.clone())) {
        Some(before) => before.value == *expected,
        None => state.meets(part, mark),
    }
}

/// Puts a batch into a lane of a memory channel.
pub(crate) fn fill_memory(
    state: &mut State,
    at: LaneAt,
    batch: levada_core::Batch,
    received_ms: u64,
) {
    let lane = state.lane(at);
    let first = lane.next;
    let count = u32::try_from(batch.len()).expect("a batch is below 4 GiB");
    let bytes = u32::try_from(batch.bytes()).expect("a batch is below 4 GiB");
    let families = crate::row::family_starts(&batch).is_some();
    let mut entry = Entry::new(first, received_ms, count, bytes, families);
    entry.hold(batch);
    lane.next = first + u64::from(count);
    lane.queue.push(entry);
}

/// Answers everybody who waits: nothing is written now. What was settled stays to be written.
fn refuse_all(state: &mut State) {
    let refused = state.put_error().unwrap_or(PutError::Stopping);
    for mut staged in std::mem::take(&mut state.inbox.commits) {
        state.rooms.release(&staged.needs);
        staged.refuse(refused.clone());
    }
    for asking in std::mem::take(&mut state.inbox.asking) {
        let _heard = asking.send(Err(refused.to_string())).is_ok();
    }
}
