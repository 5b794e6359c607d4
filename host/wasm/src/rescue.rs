//! What happens when a call fails: once more on a fresh instance, then the search for the event
//! that is to blame, so that its neighbours go on in order.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use levada_core::{Batch, InterceptError};
use tokio::time::Instant;

use crate::{
    OnTrap,
    broken::Broken,
    instance::{CallError, Facts, Live},
    pool::Pool,
    record::Tape,
    rerun,
    typed::Failure,
    verdicts::Outcome,
};

/// Calls that one search may make; what is unresolved then is handled as a new batch.
const MOST_CALLS: u32 = 64;

/// The longest wait a guest can ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Events in a row of a call, and what became of them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) range: Range<usize>,
    pub(crate) end: End,
}

/// How a piece ended.
#[derive(Debug)]
pub(crate) enum End {
    Handled(Box<Outcome>),
    /// One event on which the handler fails whatever its company.
    Guilty(Guilty),
    /// One that was found guilty before, and was not tried again.
    Known(Guilty),
}

/// Why an event cannot be handled, and how often it was tried.
#[derive(Debug, Clone)]
pub(crate) struct Guilty {
    pub(crate) broken: Arc<Broken>,
    pub(crate) attempts: u32,
}

/// A batch that was not handled to its end: the pieces before the one that failed it.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) error: InterceptError,
    /// Whether the guest said so, and is as sound as before.
    pub(crate) said: bool,
}

/// Where something is handled: the handler's own things, a canonical batch, and facts about it.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) memory: &'a Memory,
    pub(crate) on_trap: OnTrap,
    pub(crate) batch: &'a Batch,
    pub(crate) facts: Facts<'a>,
}

/// Handles events of one call's size; pieces come in the order of the events.
///
/// Safe to cancel: guilty events are known then, and what a sink gave away is given away.
///
/// # Errors
/// [`Unfinished`]: what its pieces say holds for a sink; for an interceptor nothing has happened.
pub(crate) async fn handle(at: Site<'_>, range: Range<usize>) -> Result<Vec<Piece>, Unfinished> {
    let mut rescue = Rescue {
        at,
        pieces: Vec::new(),
        said: false,
    };
    let handled = rescue.all(range).await;
    let Rescue { pieces, said, .. } = rescue;
    match handled {
        Ok(()) => Ok(pieces),
        Err(error) => Err(Unfinished {
            pieces,
            error,
            said,
        }),
    }
}

struct Rescue<'a> {
    at: Site<'a>,
    pieces: Vec<Piece>,
    said: bool,
}

impl Rescue<'_> {
    fn push(&mut self, range: Range<usize>, end: End) {
        self.pieces.push(Piece { range, end });
    }

    async fn all(&mut self, range: Range<usize>) -> Result<(), InterceptError> {
        let mut start = range.start;
        for (event, guilty) in self.at.memory.known(self.at.batch, &range) {
            self.range(start..event).await?;
            self.push(event..event + 1, End::Known(guilty));
            start = event + 1;
        }
        self.range(start..range.end).await
    }

    /// The ordinary way, and all that follows when it fails.
    async fn range(&mut self, range: Range<usize>) -> Result<(), InterceptError> {
        let mut rest = range;
        while !rest.is_empty() {
            let mut live = None;
            let take = self.at.pool.take();
            if let Ok(outcome) = self.call(&mut live, take, rest.clone()).await? {
                self.finish(live);
                self.push(rest, End::Handled(outcome));
                return Ok(());
            }
            // Boxed, since it is rare: what every call carries stays small.
            rest = Box::pin(self.again(rest)).await?;
        }
        Ok(())
    }

    /// Once more on a fresh instance, then the search. Gives what the search left unresolved.
    async fn again(&mut self, range: Range<usize>) -> Result<Range<usize>, InterceptError> {
        let end = range.end;
        let mut live = None;
        let mut left = MOST_CALLS;
        // Ranges to try, the first one last, with how often their events were tried.
        let mut waiting = vec![(range, 1)];
        while let Some((range, tried)) = waiting.pop() {
            if left == 0 {
                self.finish(live);
                return Ok(range.start..end);
            }
            left -= 1;
            // A caller that gave up meanwhile is served between two calls.
            tokio::task::yield_now().await;
            let broken = match self.fresh_call(&mut live, range.clone()).await? {
                Ok(outcome) => {
                    self.push(range, End::Handled(outcome));
                    continue;
                }
                Err(broken) => broken,
            };
            if self.at.on_trap == OnTrap::Stop {
                let reason = broken.reason;
                return Err(InterceptError::Fatal { reason });
            }
            let attempts = tried + 1;
            if range.len() == 1 {
                let guilty = Guilty {
                    broken: Arc::from(broken),
                    attempts,
                };
                self.at.memory.remember(self.at.batch, range.start, &guilty);
                self.push(range, End::Guilty(guilty));
            } else {
                if tried == 1 {
                    self.at.pool.mould().shared.meters.bisections.add(1);
                }
                let middle = range.start + range.len() / 2;
                waiting.push((middle..range.end, attempts));
                waiting.push((range.start..middle, attempts));
            }
        }
        self.finish(live);
        Ok(end..end)
    }

    /// A call on an instance that has never failed; a new one if the last did.
    async fn fresh_call(
        &mut self,
        live: &mut Option<Box<Live>>,
        range: Range<usize>,
    ) -> Result<Result<Box<Outcome>, Box<Broken>>, InterceptError> {
        let mut kept = live.take();
        let pool = self.at.pool;
        let shared = &pool.mould().shared;
        // What is recorded begins where an instance does.
        let tape = shared.shelf.as_ref().map(|_| Tape::records(&shared.masks));
        if tape.is_some() {
            self.finish(kept.take());
        }
        let take = async move {
            match kept {
                Some(kept) => Ok(kept),
                None => pool.fresh(tape).await,
            }
        };
        self.call(live, take, range).await
    }

    /// One call, on the thread that holds the batch unless the guest may wait. The instance is kept
    /// in `live` if it is still sound.
    async fn call(
        &mut self,
        live: &mut Option<Box<Live>>,
        take: impl Future<Output = Result<Box<Live>, Box<Broken>>> + Send,
        range: Range<usize>,
    ) -> Result<Result<Box<Outcome>, Box<Broken>>, InterceptError> {
        let batch = self.at.batch.slice(range);
        let pool = self.at.pool;
        // Once for both: leaving the runtime's worker costs more than a short call.
        let both = async {
            let mut taken = take.await.map_err(|broken| no_instance(&broken))?;
            let called = pool.mould().call(&mut taken, &batch, self.at.facts).await;
            Ok((taken, called))
        };
        let (mut taken, called) = pool.mould().where_it_lives(both).await?;
        let tape = taken.take_tape();
        match called {
            Ok(outcome) => {
                *live = Some(taken);
                Ok(Ok(outcome))
            }
            Err(CallError::Failure(failure)) => {
                pool.give(taken);
                self.said = true;
                Err(error_of(failure))
            }
            Err(CallError::Broken(mut broken)) => {
                pool.lost();
                // Of a search only what it finds is kept.
                if let Some(tape) = tape
                    && (batch.len() == 1 || self.at.on_trap == OnTrap::Stop)
                {
                    broken.recording =
                        rerun::keep(pool.mould(), tape, &batch, self.at.facts, &broken);
                }
                let handler = &pool.mould().shared.name;
                tracing::debug!(%handler, reason = %broken, events = batch.len(), "call failed");
                Ok(Err(broken))
            }
        }
    }

    fn finish(&self, live: Option<Box<Live>>) {
        if let Some(live) = live {
            self.at.pool.give(live);
        }
    }
}

/// An instance could be made when the handler was loaded, so this is no event's fault.
fn no_instance(broken: &Broken) -> InterceptError {
    InterceptError::Later {
        reason: format!("no new instance of the handler: {broken}"),
        after: None,
    }
}

/// What a guest's own word means for the batch.
pub(crate) fn error_of(failure: Failure) -> InterceptError {
    match failure {
        Failure::Retry(later) => InterceptError::Later {
            reason: crate::guest::escape(&later.reason),
            after: later
                .after_ms
                .map(|ms| Duration::from_millis(u64::from(ms)).min(LONGEST_WAIT)),
        },
        Failure::Fatal(reason) => InterceptError::Fatal {
            reason: crate::guest::escape(&reason),
        },
    }
}

/// How long a guilty event is known, and how many are.
const REMEMBERED: Duration = Duration::from_secs(600);
const MOST_REMEMBERED: usize = 10_000;

/// Guilty events by the hash of their bytes, so that a batch which a peer sends again goes
/// straight through.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    hasher: RandomState,
    guilty: Mutex<HashMap<u64, (Instant, Guilty)>>,
}

impl Memory {
    /// The events of a range that are known, with their places in the batch.
    fn known(&self, batch: &Batch, range: &Range<usize>) -> Vec<(usize, Guilty)> {
        let mut guilty = self.guilty.lock().unwrap_or_else(PoisonError::into_inner);
        if guilty.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        guilty.retain(|_, (since, _)| now.duration_since(*since) < REMEMBERED);
        let known = |(place, event): (usize, levada_core::EventRef<'_>)| {
            let found = guilty.get(&self.hasher.hash_one(event.as_bytes()));
            found.map(|(_, guilty)| (place, guilty.clone()))
        };
        let events = range.clone().zip(batch.iter().skip(range.start));
        events.filter_map(known).collect()
    }

    fn remember(&self, batch: &Batch, place: usize, found: &Guilty) {
        let Some(event) = batch.get(place) else {
            return;
        };
        let hash = self.hasher.hash_one(event.as_bytes());
        let mut guilty = self.guilty.lock().unwrap_or_else(PoisonError::into_inner);
        if guilty.len() >= MOST_REMEMBERED {
            // The oldest one goes; the map is far from full unless every event is guilty.
            let oldest = guilty.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                guilty.remove(&oldest);
            }
        }
        guilty.insert(hash, (Instant::now(), found.clone()));
    }
}
