//! The one writer: takes everything that waits into one transaction.
//!
//! A state machine that a thread steps in production and a test steps by hand.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use levada_core::{MarkWrite, PartId, PutError, marks::Expect};
use tracing::{debug, error, warn};

use crate::{
    queue::Entry,
    room::Need,
    shared::{Base, CountKey, Inbox, Shared, State, Status},
};

mod head;
mod transact;

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
    base: Arc<Base>,
    /// By channel.
    heads: HashMap<usize, Head>,
    next_letter: u64,
    next_aside: u64,
    /// Entries the quarantine still has room for.
    aside_room: u64,
    worked: Option<Instant>,
    repaired: Option<Instant>,
    /// Commits since the last one that saves what a quick reopen needs.
    unsaved: bool,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
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
    /// Bytes of rows that may be held in memory beside the disk.
    cache_left: usize,
}

/// What a transaction did beside what was asked.
#[derive(Debug, Default)]
pub(crate) struct Done {
    entries: Vec<(usize, Entry)>,
    /// Dead letters that made room for others.
    dropped: Option<Need>,
    cache_left: usize,
}

/// Where the writer goes on after an open.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    pub(crate) heads: HashMap<usize, Head>,
    pub(crate) next_letter: u64,
    pub(crate) next_aside: u64,
    pub(crate) aside_entries: u64,
}

/// The quarantine keeps the bytes of so many records; what comes later is counted only.
const ASIDE_MOST: u64 = 1024;

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, base: Arc<Base>, resume: Resume) -> Self {
        Self {
            shared,
            base,
            heads: resume.heads,
            next_letter: resume.next_letter,
            next_aside: resume.next_aside,
            aside_room: ASIDE_MOST.saturating_sub(resume.aside_entries),
            worked: None,
            repaired: None,
            unsaved: true,
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
            Status::Closed | Status::Failed(_) => {
                refuse_all(&mut state);
                drop(state);
                // A failed store answers until it is closed.
                return if self.is_closed() {
                    Step::Ended
                } else {
                    Step::Sleep(None)
                };
            }
            Status::Closing => true,
            Status::Open => false,
        };
        if closing && state.inbox.is_empty() {
            drop(state);
            self.save_for_quick_reopen(now);
            let mut state = self.shared.lock();
            state.status = Status::Closed;
            refuse_all(&mut state);
            return Step::Ended;
        }
        if !closing && !state.inbox.is_ready(now, state.rooms.anybody_waits()) {
            let queued: u64 = self.durable_bytes(&state);
            let due = [state.inbox.next_due(), self.quick_repair_due(queued)];
            drop(state);
            if due[1].is_some_and(|at| at <= now) {
                self.save_for_quick_reopen(now);
                return Step::Worked;
            }
            return Step::Sleep(due.into_iter().flatten().min());
        }
        let mut work = take(&mut state, self.shared.dead_letter_limit());
        work.cache_left = self.shared.row_cache.saturating_sub(self.cached(&state));
        drop(state);
        let done = self.commit(&mut work);
        self.worked = Some(now);
        self.finish(work, done);
        Step::Worked
    }

    fn is_closed(&self) -> bool {
        self.shared.base().is_none()
    }

    /// Waits until there may be something to do.
    fn sleep(&self, until: Option<Instant>) {
        let state = self.shared.lock();
        let now = Instant::now();
        let ready = match state.status {
            Status::Open => state.inbox.is_ready(now, state.rooms.anybody_waits()),
            Status::Closing | Status::Closed => true,
            Status::Failed(_) => !state.inbox.is_empty(),
        };
        // A failed store that is being closed has lost its base meanwhile.
        if ready || self.is_closed() {
            return;
        }
        let next = [until, state.inbox.next_due()].into_iter().flatten().min();
        match next {
            Some(at) => {
                let most = at.saturating_duration_since(now);
                drop(self.shared.wake.wait_timeout(state, most));
            }
            None => drop(self.shared.wake.wait(state)),
        }
    }

    /// One transaction; every failure, panics of redb included, as text.
    fn commit(&mut self, work: &mut Work) -> Result<Done, String> {
        let base = Arc::clone(&self.base);
        match catch_unwind(AssertUnwindSafe(|| self.transact(&base.db, work))) {
            Ok(done) => done.map_err(|error| text(&error)),
            Err(panic) => Err(panic_text(panic.as_ref())),
        }
    }

    fn finish(&mut self, work: Work, done: Result<Done, String>) {
        match done {
            Ok(done) => self.succeed(work, done),
            Err(reason) => self.fail(work, &reason),
        }
    }

    fn succeed(&mut self, work: Work, done: Done) {
        self.unsaved = true;
        let metrics = &self.shared.metrics;
        metrics.commits.add(1);
        metrics.grouped.add(work.inbox.commits.len() as u64);
        let mut state = self.shared.lock();
        let mut filled = vec![false; self.shared.channels.len()];
        for (channel, entry) in done.entries {
            filled[channel] = true;
            state.next[channel] = self.heads.get(&channel).map_or(1, |head| head.next);
            state.queues[channel].push(entry);
        }
        for staged in work.inbox.commits {
            for (key, amount) in staged.counts {
                *state.ledger.entry(key).or_default() += amount;
            }
            for mark in staged.marks {
                state.set_mark(&staged.part, mark);
            }
            for (channel, batch) in staged.memory {
                filled[channel] = true;
                fill_memory(&mut state, channel, batch, staged.received_ms);
            }
            // Nobody may be waiting for the answer any more.
            let _heard = staged.reply.send(Ok(())).is_ok();
        }
        if let Some(dropped) = done.dropped {
            state.rooms.release(&[dropped]);
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

    fn fail(&mut self, work: Work, reason: &str) {
        error!(%reason, "the store cannot write");
        let mut state = self.shared.lock();
        state.status = Status::Failed(reason.to_owned());
        for staged in work.inbox.commits {
            state.rooms.release(&staged.needs);
            let refused = PutError::Store {
                reason: reason.to_owned(),
            };
            let _heard = staged.reply.send(Err(refused)).is_ok();
        }
        for asking in work.inbox.asking {
            let _heard = asking.send(Err(reason.to_owned())).is_ok();
        }
        state.rooms.end();
        drop(state);
        self.shared.ring_all();
    }

    fn durable_bytes(&self, state: &State) -> u64 {
        let durable = self.shared.channels.iter().zip(&state.queues);
        durable
            .filter(|(channel, _)| channel.is_durable())
            .map(|(_, queue)| queue.bytes())
            .sum()
    }

    fn cached(&self, state: &State) -> usize {
        let durable = self.shared.channels.iter().zip(&state.queues);
        durable
            .filter(|(channel, _)| channel.is_durable())
            .map(|(_, queue)| queue.cached())
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
        let base = Arc::clone(&self.base);
        let saved = catch_unwind(AssertUnwindSafe(|| transact::quick_repair(&base.db)));
        match saved {
            Ok(Ok(())) => {
                self.shared.metrics.quick_repairs.add(1);
                debug!("saved the layout of the store for a quick reopen");
            }
            Ok(Err(error)) => {
                let error = text(&error);
                warn!(%error, "cannot save the layout of the store: the next open takes longer");
            }
            Err(panic) => {
                let error = panic_text(panic.as_ref());
                warn!(%error, "cannot save the layout of the store: the next open takes longer");
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
    for (part, mark) in inbox.marks.drain(..) {
        work.marks.insert((part, mark.key.clone()), mark);
    }
    for key in std::mem::take(&mut inbox.counts) {
        let value = state.ledger.get(&key).copied().unwrap_or(0);
        work.counters.insert(key, value);
    }
    // What the marks will be after the commits before.
    let mut ahead: HashMap<(PartId, String), MarkWrite> = HashMap::new();
    let mut accepted = Vec::with_capacity(inbox.commits.len());
    for staged in inbox.commits.drain(..) {
        if staged.reply.is_closed() {
            state.rooms.release(&staged.needs);
            continue;
        }
        let unmet = staged
            .marks
            .iter()
            .find(|mark| !meets(state, &ahead, &staged.part, mark));
        if let Some(mark) = unmet {
            state.rooms.release(&staged.needs);
            let conflict = PutError::Conflict {
                key: mark.key.clone(),
            };
            let _heard = staged.reply.send(Err(conflict)).is_ok();
            continue;
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
    let letters = state.rooms.get(state.queues.len()).bytes;
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

/// Puts a batch into a memory channel.
pub(crate) fn fill_memory(
    state: &mut State,
    channel: usize,
    batch: levada_core::Batch,
    received_ms: u64,
) {
    let first = state.next[channel];
    let count = u32::try_from(batch.len()).expect("a batch is below 4 GiB");
    let bytes = u32::try_from(batch.bytes()).expect("a batch is below 4 GiB");
    let families = crate::row::family_starts(&batch).is_some();
    let mut entry = Entry::new(first, received_ms, count, bytes, families);
    entry.hold(batch);
    state.next[channel] = first + u64::from(count);
    state.queues[channel].push(entry);
}

/// Answers everything that waits: nothing is written any more.
fn refuse_all(state: &mut State) {
    let refused = state.put_error().unwrap_or(PutError::Stopping);
    let inbox = std::mem::take(&mut state.inbox);
    for staged in inbox.commits {
        state.rooms.release(&staged.needs);
        let _heard = staged.reply.send(Err(refused.clone())).is_ok();
    }
    for asking in inbox.asking {
        let _heard = asking.send(Err(refused.to_string())).is_ok();
    }
}

/// An error with all its causes, in one line.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let known = panic.downcast_ref::<&str>().copied();
    let known = known.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "the storage engine panicked: {}",
        known.unwrap_or("without a word")
    )
}
