//! A loaded handler: its instances and what is known of it; and as an interceptor.

use std::{
    collections::HashSet,
    iter,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    Batch, Counter, DeadLetter, Effects, InterceptError, Interceptor, PartId, interceptor::Call,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    HandlerSpec, OnReject, OnTrap,
    breaker::{Breaker, Tally},
    guest::Shared,
    instance::Facts,
    limits::Limits,
    pool::Pool,
    rescue::{self, End, Guilty, Memory, Piece, Site, Unfinished},
    state::{Lent, State},
    timer,
    verdicts::{Outcome, VerdictCounts},
    when::{self, When},
};

/// Reasons of discarded events that one handler may use; those after are counted together.
const MOST_REASONS: usize = 64;
const OTHER_REASONS: &str = "other reasons";

/// One component with its settings, ready to be called.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) part: PartId,
    pub(crate) pool: Pool,
    slots: Semaphore,
    memory: Memory,
    pub(crate) breaker: Breaker,
    pub(crate) on_trap: OnTrap,
    when: Option<When>,
    every: Option<Duration>,
    state: Option<State>,
    reasons: Mutex<HashSet<String>>,
}

impl Handler {
    pub(crate) fn new(part: PartId, pool: Pool, spec: &HandlerSpec) -> Self {
        let shared = &pool.mould().shared;
        let (open, trips) = (&shared.meters.breaker_open, &shared.meters.breaker_trips);
        let chance = shared.chance.clone();
        Self {
            breaker: Breaker::new(&part, chance, open.clone(), trips.clone()),
            state: spec
                .grants
                .state
                .map(|cap| State::new(part.name.clone(), cap)),
            part,
            slots: Semaphore::new(pool.most()),
            pool,
            memory: Memory::default(),
            on_trap: spec.on_trap,
            when: spec.when.clone(),
            every: spec.every,
            reasons: Mutex::new(HashSet::new()),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared().limits
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.pool.mould().shared
    }

    pub(crate) fn on_reject(&self) -> OnReject {
        self.pool.mould().on_reject
    }

    /// One call and what follows from it, if the breaker lets it.
    pub(crate) async fn attempt(
        &self,
        batch: &Batch,
        range: Range<usize>,
        facts: Facts<'_>,
    ) -> Result<Vec<Piece>, Unfinished> {
        let pass = self.breaker.admit().map_err(|error| Unfinished {
            pieces: Vec::new(),
            error,
            said: false,
        })?;
        let at = Site {
            pool: &self.pool,
            memory: &self.memory,
            on_trap: self.on_trap,
            batch,
            facts,
        };
        let pieces = rescue::handle(at, range.clone()).await;
        self.shared().taps.show(facts.part, batch, &range, &pieces);
        match &pieces {
            Ok(pieces) => {
                let (tally, last) = tally(pieces);
                pass.end(tally, last);
            }
            // A sink that says that its other side is not there works as it should.
            Err(unfinished) if unfinished.said && self.pool.mould().role.is_sink() => {}
            // The same events come again: they are counted when it is known what becomes of them.
            Err(Unfinished { error, .. }) => {
                let (handled, failed) = (0, 1);
                pass.end(Tally { handled, failed }, Some(&error.to_string()));
            }
        }
        pieces
    }

    /// Adds up the pieces of one call: what goes on, what is counted, what is kept.
    fn settle(
        &self,
        batch: &Batch,
        pieces: Vec<Piece>,
        call: &Call<'_>,
        effects: &mut Effects,
        out: &mut Came,
    ) {
        for Piece { range, end } in pieces {
            match end {
                End::Handled(outcome) => {
                    self.handled(batch, &range, *outcome, call, effects, out);
                }
                End::Guilty(guilty) | End::Known(guilty) => {
                    self.guilty(batch, &range, &guilty, call, effects, out)
                }
            }
        }
    }

    fn handled(
        &self,
        batch: &Batch,
        range: &Range<usize>,
        outcome: Outcome,
        call: &Call<'_>,
        effects: &mut Effects,
        out: &mut Came,
    ) {
        self.count(outcome.counts);
        effects.count(call.part, Counter::Made, outcome.made);
        for (reason, events) in outcome.discarded(self.on_reject()) {
            let reason = self.known_reason(reason.to_owned());
            effects.count_reason(call.part, Counter::Discarded, &reason, events);
        }
        let rejected = u64::try_from(outcome.rejected.len()).unwrap_or(u64::MAX);
        effects.count(call.part, Counter::DeadLettered, rejected);
        for (place, reason) in outcome.rejected {
            let letter = self.letter(batch, range.start + place, reason, call);
            effects.dead_letters.extend(letter);
        }
        out.batches.push(outcome.batch);
        out.outs.extend(outcome.outs);
    }

    fn guilty(
        &self,
        batch: &Batch,
        range: &Range<usize>,
        guilty: &Guilty,
        call: &Call<'_>,
        effects: &mut Effects,
        out: &mut Came,
    ) {
        out.outs.push(u32::from(self.on_trap == OnTrap::Pass));
        let meters = &self.pool.mould().shared.meters;
        meters.guilty.add(1);
        let broken = &guilty.broken;
        match self.on_trap {
            OnTrap::DeadLetter | OnTrap::Stop => {
                let letter = self.letter(batch, range.start, broken.reason.clone(), call);
                effects.dead_letters.extend(letter.map(|letter| DeadLetter {
                    limit: broken.limit.map(|limit| limit.as_str().to_owned()),
                    backtrace: broken.backtrace.clone(),
                    attempts: guilty.attempts,
                    recording: broken.recording.clone(),
                    ..letter
                }));
                effects.count(call.part, Counter::DeadLettered, 1);
                let (handler, reason, at) = (&self.part.name, &broken.reason, broken.at());
                tracing::warn!(%handler, %reason, at, "event set aside: the handler fails on it");
            }
            OnTrap::Discard => {
                effects.count_reason(call.part, Counter::Discarded, "handler failed", 1);
            }
            OnTrap::Pass => out.batches.push(batch.slice(range.clone())),
        }
    }

    fn letter(
        &self,
        batch: &Batch,
        place: usize,
        reason: String,
        call: &Call<'_>,
    ) -> Option<DeadLetter> {
        Some(DeadLetter {
            event: batch.event_bytes(place)?,
            origin: batch.origins().get(place),
            part: self.part.clone(),
            flow: call.part.clone(),
            reason,
            limit: None,
            backtrace: None,
            handler: Some(self.shared().digest.clone()),
            recording: None,
            attempts: call.attempt,
            at_ms: self.pool.mould().shared.clock.wall_ms(),
        })
    }

    pub(crate) fn count(&self, counts: VerdictCounts) {
        let meters = &self.shared().meters;
        for (counter, amount) in [
            (&meters.passed, counts.pass),
            (&meters.patched, counts.patch),
            (&meters.replaced, counts.replace),
            (&meters.discarded, counts.discard),
            (&meters.rejected, counts.reject),
            (&meters.done, counts.done),
            (&meters.retried, counts.retry),
            (&meters.reserved_headers, counts.reserved),
        ] {
            if amount > 0 {
                counter.add(amount);
            }
        }
    }

    /// Keeps the number of durable counters that a guest can make bounded.
    fn known_reason(&self, reason: String) -> String {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.contains(&reason) {
            return reason;
        }
        if reasons.len() >= MOST_REASONS {
            return OTHER_REASONS.into();
        }
        reasons.insert(reason.clone());
        reason
    }
}

/// What came out of a batch: the events, and how many of them out of each.
#[derive(Debug, Default)]
struct Came {
    batches: Vec<Batch>,
    outs: Vec<u32>,
}

impl Handler {
    /// Calls the guest with all of a batch, in calls of bounded size.
    async fn handle(
        &self,
        batch: &Batch,
        call: &Call<'_>,
        effects: &mut Effects,
    ) -> Result<Came, InterceptError> {
        let state = self.begin(call).await?;
        let facts = Facts {
            part: call.part,
            attempt: call.attempt,
            received_ms: call.received_ms,
            state: &state,
        };
        let _slot = self.slot().await;
        let mut out = Came::default();
        let mut collected = Effects::default();
        for range in calls_of(batch, self.limits()) {
            let pieces = self.attempt(batch, range, facts).await;
            let pieces = pieces.map_err(|unfinished| unfinished.error)?;
            self.settle(batch, pieces, call, &mut collected, &mut out);
        }
        collected.states.extend(state.finish());
        effects.merge(collected);
        Ok(out)
    }

    /// Waits for leave to use an instance.
    pub(crate) async fn slot(&self) -> SemaphorePermit<'_> {
        match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                let slot = self.slots.acquire().await;
                slot.expect("the semaphore is never closed")
            }
        }
    }

    /// Waits until the batch before has its place in the store, if the handler has state.
    async fn begin(&self, call: &Call<'_>) -> Result<Lent, InterceptError> {
        let Some(state) = &self.state else {
            return Ok(Lent::new(None));
        };
        let now_ms = self.pool.mould().shared.clock.wall_ms();
        let session = state.begin(call.states, now_ms).await;
        let session = session.map_err(|error| InterceptError::Later {
            reason: format!("the handler's state cannot be read: {error}"),
            after: None,
        })?;
        Ok(Lent::new(Some(session)))
    }
}

#[async_trait]
impl Interceptor for Handler {
    /// Calls the guest on the thread that holds the batch, in calls of bounded size. Safe to
    /// cancel: it then ends after the call that runs.
    async fn intercept(
        &self,
        batch: Batch,
        call: &Call<'_>,
        effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        if batch.is_empty() {
            return Ok(batch);
        }
        let Some(when) = &self.when else {
            let batch = batch.into_canonical().into_compact();
            let came = self.handle(&batch, call, effects).await?;
            return Ok(Batch::concat(came.batches));
        };
        let places: Vec<_> = when.places(&batch).collect();
        if places.is_empty() {
            return Ok(batch);
        }
        let wanted = batch.select(places.iter().copied());
        let wanted = wanted.into_canonical().into_compact();
        let came = self.handle(&wanted, call, effects).await?;
        Ok(when::weave(
            batch,
            &places,
            Batch::concat(came.batches),
            &came.outs,
        ))
    }

    fn every(&self) -> Option<Duration> {
        self.every.filter(|_| self.pool.mould().timer.is_some())
    }

    /// Calls the guest's timer. A call that fails is made once more on a fresh instance.
    async fn tick(&self, call: &Call<'_>, effects: &mut Effects) -> Result<Batch, InterceptError> {
        let state = self.begin(call).await?;
        let facts = Facts {
            part: call.part,
            attempt: call.attempt,
            received_ms: call.received_ms,
            state: &state,
        };
        let _slot = self.slot().await;
        let events = timer::tick(&self.pool, facts).await?;
        effects.states.extend(state.finish());
        Ok(events)
    }
}

/// How many events were handled and how many failed, with the reason of the last that did.
fn tally(pieces: &[Piece]) -> (Tally, Option<&str>) {
    let (mut tally, mut last) = (Tally::default(), None);
    for Piece { range, end } in pieces {
        let events = u32::try_from(range.len()).unwrap_or(u32::MAX);
        match end {
            End::Handled(_) => tally.handled = tally.handled.saturating_add(events),
            End::Guilty(guilty) => {
                tally.failed = tally.failed.saturating_add(events);
                last = Some(guilty.broken.reason.as_str());
            }
            End::Known(_) => {}
        }
    }
    (tally, last)
}

/// Cuts a batch into calls of bounded size; a single event that is larger is a call of its own.
pub(crate) fn calls_of(batch: &Batch, limits: &Limits) -> impl Iterator<Item = Range<usize>> {
    let (most_events, most_bytes) = (limits.batch_events.max(1), limits.batch_bytes);
    let mut lengths = batch.lengths().map(|length| length as usize).peekable();
    let mut at = 0;
    iter::from_fn(move || {
        let (start, mut bytes) = (at, lengths.next()?);
        at += 1;
        while at - start < most_events
            && let Some(length) = lengths.next_if(|length| bytes + length <= most_bytes)
        {
            bytes += length;
            at += 1;
        }
        Some(start..at)
    })
}
