//! What the store's doors and its writer share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use levada_core::{
    Batch, Chance, ChannelName, Clock, Count, Counter, Incarnation, MarkWrite, Name, OriginId,
    Origins, PartId, PutError, StateChange, TakeError, marks::Expect, origin::OriginRun,
    state::SavedState,
};
use levada_telemetry::Registry;
use redb::Database;
use tokio::sync::oneshot;

use crate::{
    bell::Bell,
    channels::Channels,
    keys::LaneId,
    lanes::{Lane, LaneAt, Lanes},
    lock::Lock,
    meter::Meter,
    metrics::Metrics,
    params::{DeadLetterSpec, OnDeadLettersFull},
    queue::{After, Queue},
    room::{Need, Rooms},
    row::NewRow,
    trouble::{Trouble, guarded},
    writer::Head,
};

/// How long deletes wait for a put to ride with.
pub(crate) const ROWS_WAIT: Duration = Duration::from_millis(10);
/// How long counters of memory channels wait for another commit.
const COUNTS_WAIT: Duration = Duration::from_secs(1);

/// A store that is open.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    /// The median of some syncs at the start, once they are measured.
    pub(crate) probed: OnceLock<Duration>,
    pub(crate) channels: Channels,
    pub(crate) state: Mutex<State>,
    /// Wakes the writer.
    pub(crate) wake: Bell,
    /// Locked for writing only while the file is opened again or closed.
    pub(crate) base: RwLock<Base>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    /// Of the origin ids: drawn at every open.
    pub(crate) origin: Incarnation,
    pub(crate) next_origin: AtomicU64,
    pub(crate) nonces: Chance,
    pub(crate) dead_letters: DeadLetterSpec,
    /// Bytes of just-written rows to hold in memory.
    pub(crate) row_cache: usize,
    /// How much longer an idle file may be than what it holds.
    pub(crate) spare_bytes: u64,
}

/// The file and the lock on its folder.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// Not there once the store is closed, and while nothing can be opened.
    pub(crate) db: Option<Database>,
    /// Goes last.
    pub(crate) lock: Option<Lock>,
}

/// What changes; never locked during I/O.
#[derive(Debug)]
pub(crate) struct State {
    /// What is queued, by channel.
    pub(crate) lanes: Vec<Lanes>,
    /// One per channel, and one for dead letters.
    pub(crate) rooms: Rooms,
    pub(crate) inbox: Inbox,
    /// Every counter, with what is on its way to the disk.
    pub(crate) ledger: BTreeMap<CountKey, u64>,
    pub(crate) marks: HashMap<PartId, BTreeMap<String, Bytes>>,
    /// What handlers keep, all of it.
    pub(crate) handlers: BTreeMap<Name, SavedState>,
    /// Of the hop: drawn when the file was made.
    pub(crate) incarnation: Incarnation,
    /// Damaged files that were set aside since the start.
    pub(crate) set_aside: Vec<PathBuf>,
    pub(crate) status: Status,
    /// The disk is full: little is put, until there is space again.
    pub(crate) full: bool,
    /// What a reader met; the writer opens the file again.
    pub(crate) trouble: Option<Trouble>,
}

pub(crate) type CountKey = (PartId, Counter, String);

/// Whether the store works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    Open,
    Closing,
    /// And why it was not closed in order, if it was not.
    Closed(Option<String>),
    /// The file cannot be written; memory channels run on.
    Failed(String),
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) commits: Vec<Staged>,
    /// Rows of which events went.
    pub(crate) touched: BTreeMap<(LaneAt, u64), After>,
    /// Counters that changed.
    pub(crate) counts: BTreeSet<CountKey>,
    pub(crate) marks: Vec<(PartId, MarkWrite)>,
    pub(crate) letters: Vec<Vec<u8>>,
    pub(crate) aside: Vec<Aside>,
    /// Where the lanes of new channels go on.
    pub(crate) heads: Vec<(LaneAt, Head)>,
    /// Who wants to know when all this is on disk.
    pub(crate) asking: Vec<oneshot::Sender<Result<(), String>>>,
    pub(crate) rows_due: Option<Instant>,
    pub(crate) counts_due: Option<Instant>,
}

/// One commit, prepared, with its room reserved.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) part: PartId,
    pub(crate) puts: Vec<StagedPut>,
    pub(crate) memory: Vec<(LaneAt, Batch)>,
    pub(crate) marks: Vec<MarkWrite>,
    /// The marks live in memory only: what they speak of does, too.
    pub(crate) volatile: bool,
    pub(crate) letters: Vec<Vec<u8>>,
    /// Dead letters that go.
    pub(crate) replayed: Vec<u64>,
    pub(crate) states: Vec<StateChange>,
    pub(crate) counts: Vec<(CountKey, u64)>,
    pub(crate) received_ms: u64,
    pub(crate) needs: Vec<Need>,
    /// Gone once it was answered.
    pub(crate) reply: Option<oneshot::Sender<Result<(), PutError>>>,
}

impl Staged {
    /// Answers, if that was not done before; nobody may be waiting for it any more.
    pub(crate) fn answer(&mut self, answer: Result<(), PutError>) {
        if let Some(reply) = self.reply.take() {
            let _heard = reply.send(answer).is_ok();
        }
    }

    /// Answers that nothing of it is on disk, nor will be.
    pub(crate) fn refuse(&mut self, error: PutError) {
        // Whoever hears of it finds its changes void.
        self.states.clear();
        self.answer(Err(error));
    }

    /// Whether nobody waits for the answer.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// What goes into one lane of a durable channel.
#[derive(Debug)]
pub(crate) struct StagedPut {
    pub(crate) lane: LaneAt,
    pub(crate) nonce: u64,
    pub(crate) rows: Vec<NewRow>,
}

/// Damaged bytes on their way to the quarantine.
#[derive(Debug)]
pub(crate) struct Aside {
    pub(crate) lane: LaneAt,
    pub(crate) first: u64,
    pub(crate) events: u32,
    pub(crate) bytes: Bytes,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file. Waits while it is opened again; the writer hears of what goes wrong.
    ///
    /// # Errors
    /// `None` if the store is closed.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Option<Trouble>> {
        let base = self.base.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = base.db.as_ref() else {
            return Err(self.missing());
        };
        guarded(|| work(db)).map_err(|trouble| {
            // Noted before the file can be opened again: after that it is the past.
            self.lock().trouble.get_or_insert_with(|| trouble.clone());
            self.wake.ring();
            Some(trouble)
        })
    }

    /// Why there is no file to read.
    fn missing(&self) -> Option<Trouble> {
        match &self.lock().status {
            Status::Failed(reason) => Some(Trouble::io(reason)),
            Status::Open | Status::Closing | Status::Closed(_) => None,
        }
    }

    /// How many bytes of dead letters are kept before the oldest go; `None` if they never do.
    pub(crate) fn dead_letter_limit(&self) -> Option<u64> {
        match self.dead_letters.on_full {
            OnDeadLettersFull::Block => None,
            OnDeadLettersFull::DropOldest => Some(self.dead_letters.capacity_bytes),
        }
    }

    pub(crate) fn channel(&self, name: &ChannelName) -> Option<usize> {
        self.channels.find(name)
    }

    /// A lane as it is called in the file.
    pub(crate) fn lane_id(&self, at: LaneAt) -> LaneId {
        LaneId {
            channel: self.channels[at.channel].id,
            lane: at.lane,
        }
    }

    /// Takes so many origin ids that follow each other.
    pub(crate) fn draw_origins(&self, events: usize) -> Origins {
        let count = u32::try_from(events).expect("a batch is below 4 GiB");
        let sequence = self
            .next_origin
            .fetch_add(u64::from(count), Ordering::Relaxed);
        let first = OriginId {
            incarnation: self.origin,
            sequence,
            child: 0,
        };
        Origins::from_runs([OriginRun {
            first,
            count,
            children: false,
        }])
    }

    /// Gives room back, and tells the writer if somebody still waits.
    pub(crate) fn release(&self, needs: &[Need]) {
        self.lock().rooms.release(needs);
    }

    /// Rings at every channel: the store has changed as a whole.
    pub(crate) fn ring_all(&self) {
        self.channels
            .iter()
            .for_each(|channel| channel.events.notify_waiters());
        self.wake.ring();
    }
}

impl State {
    pub(crate) fn lane(&mut self, at: LaneAt) -> &mut Lane {
        &mut self.lanes[at.channel][at.lane]
    }

    pub(crate) fn queue(&mut self, at: LaneAt) -> &mut Queue {
        &mut self.lane(at).queue
    }

    /// Adds to a counter and has it written with the next commit.
    pub(crate) fn count(&mut self, key: CountKey, amount: u64) {
        if amount > 0 {
            *self.ledger.entry(key.clone()).or_default() += amount;
            self.inbox.counts.insert(key);
        }
    }

    /// Whether the mark is what it is expected to be.
    pub(crate) fn meets(&self, part: &PartId, mark: &MarkWrite) -> bool {
        let is = self.marks.get(part).and_then(|marks| marks.get(&mark.key));
        match &mark.expect {
            Expect::Any => true,
            Expect::Exactly(expected) => is == expected.as_ref(),
        }
    }

    /// The version of a handler's state.
    pub(crate) fn version(&self, handler: &Name) -> u64 {
        self.handlers.get(handler).map_or(0, |saved| saved.version)
    }

    /// Makes a handler's state what it is on disk now.
    pub(crate) fn change(&mut self, change: StateChange) {
        let version = change.to();
        let saved = self.handlers.entry(change.handler).or_default();
        saved.version = version;
        for (key, value) in change.writes {
            match value {
                Some(value) => drop(saved.values.insert(key, value)),
                None => drop(saved.values.remove(&key)),
            }
        }
        change.ticket.committed();
    }

    /// Makes a mark what it is to be.
    pub(crate) fn set_mark(&mut self, part: &PartId, mark: MarkWrite) {
        let marks = self.marks.entry(part.clone()).or_default();
        match mark.value {
            Some(value) => marks.insert(mark.key, value),
            None => marks.remove(&mark.key),
        };
    }

    /// Why nothing durable can be put.
    pub(crate) fn put_error(&self) -> Option<PutError> {
        match &self.status {
            Status::Open => None,
            Status::Closing | Status::Closed(_) => Some(PutError::Stopping),
            Status::Failed(reason) => Some(PutError::Store {
                reason: reason.clone(),
            }),
        }
    }

    /// Why nothing can be taken.
    pub(crate) fn take_error(&self, durable: bool) -> Option<TakeError> {
        match &self.status {
            Status::Open | Status::Closing => None,
            Status::Closed(_) => Some(TakeError::Closed),
            Status::Failed(reason) => durable.then(|| TakeError::Store {
                reason: reason.clone(),
            }),
        }
    }
}

impl Inbox {
    /// Whether the writer has something to do now.
    pub(crate) fn is_ready(&self, now: Instant, somebody_waits: bool) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        !self.commits.is_empty()
            || !self.asking.is_empty()
            || due(self.rows_due)
            || due(self.counts_due)
            || (somebody_waits && self.rows_due.is_some())
    }

    /// When it will have.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [self.rows_due, self.counts_due].into_iter().flatten().min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.anybody_waits() && self.next_due().is_none()
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.commits.is_empty() || !self.asking.is_empty()
    }

    /// Takes back what could not be written, but for the commits: they are to be answered.
    pub(crate) fn take_back(&mut self, mut failed: Self, now: Instant) {
        for (row, after) in failed.touched {
            // What is here already was noted later, and holds all of it.
            self.touched.entry(row).or_insert(after);
        }
        self.counts.append(&mut failed.counts);
        prepend(&mut self.marks, failed.marks);
        prepend(&mut self.letters, failed.letters);
        prepend(&mut self.aside, failed.aside);
        prepend(&mut self.asking, failed.asking);
        let due = !self.touched.is_empty() || !self.letters.is_empty() || !self.aside.is_empty();
        if due || !self.marks.is_empty() || !self.counts.is_empty() {
            self.rows_due = Some(now);
        }
    }

    /// Has what was settled written soon; whether the writer must hear of it.
    pub(crate) fn rows_changed(&mut self, now: Instant) -> bool {
        let first = self.rows_due.is_none();
        self.rows_due.get_or_insert(now + ROWS_WAIT);
        first
    }

    /// Has counters written some time; whether the writer must hear of it.
    pub(crate) fn counts_changed(&mut self, now: Instant) -> bool {
        let first = self.counts_due.is_none();
        self.counts_due.get_or_insert(now + COUNTS_WAIT);
        first
    }
}

/// The time by which the writer goes. The runtime's own, so that a simulation can own it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn prepend<T>(to: &mut Vec<T>, mut first: Vec<T>) {
    first.append(to);
    *to = first;
}

/// A count as the ledger keeps it.
pub(crate) fn key_of(count: &Count) -> CountKey {
    (count.part.clone(), count.counter, count.reason.clone())
}
