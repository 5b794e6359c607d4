//! From a source to the store: interceptors, selector, one commit.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    Batch, Clock, Commit, Counter, DeadLetter, Effects, Fault, Ingest, InterceptError, Marks,
    PartId, Put, PutError, Selector, Stop, Store, batch::FaultKind, interceptor::Call,
};
use levada_telemetry::Registry;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    in_flight::InFlight,
    metrics::{InterceptorMetrics, SourceMetrics},
    plan::{Link, SourcePlan},
    route,
    status::{Cell, Doing, Stage, State},
};

/// What stands behind one source. Any number of puts may be on their way at once.
#[derive(Debug)]
pub(crate) struct SourceIngest {
    part: PartId,
    chain: Vec<(Link, InterceptorMetrics)>,
    selector: Arc<dyn Selector>,
    put_timeout: Option<std::time::Duration>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    in_flight: InFlight,
    closed: Stop,
    metrics: SourceMetrics,
    cell: Arc<Cell>,
}

/// Everything an ingest needs beside its plan.
pub(crate) struct Behind<'a> {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) in_flight: InFlight,
    /// Refuses every put once it drains.
    pub(crate) closed: Stop,
    pub(crate) registry: &'a Registry,
    pub(crate) cell: Arc<Cell>,
}

impl SourceIngest {
    pub(crate) fn new(plan: &SourcePlan, behind: Behind<'_>) -> Self {
        let metrics =
            |link: &Link| InterceptorMetrics::new(behind.registry, &link.part, &plan.part);
        Self {
            chain: plan
                .interceptors
                .iter()
                .map(|link| (link.clone(), metrics(link)))
                .collect(),
            metrics: SourceMetrics::new(behind.registry, &plan.part),
            part: plan.part.clone(),
            selector: Arc::clone(&plan.selector),
            put_timeout: plan.put_timeout,
            store: behind.store,
            clock: behind.clock,
            in_flight: behind.in_flight,
            closed: behind.closed,
            cell: behind.cell,
        }
    }

    /// One put from arrival to commit. Dropped at any await, it is withdrawn or, once the store has
    /// staged it, may commit.
    async fn pass(&self, put: Put) -> Result<(), PutError> {
        let received_ms = self.clock.wall_ms();
        let deadline = self.deadline(put.deadline);
        let faults: usize = put.faults.iter().map(|fault| fault.event.len()).sum();
        let bytes = put.batch.bytes() + faults;
        let room = {
            let _waiting = self.cell.stage(Stage::InFlight);
            self.in_flight.take(bytes, deadline).await?
        };

        let accepted = put.batch.len() + put.faults.len();
        let mut effects = Effects::default();
        self.set_aside(put.faults, received_ms, &mut effects);
        let batch = self.intercept(put.batch, received_ms, &mut effects).await?;
        let split = route::split(&*self.selector, &batch);

        let dead = effects.dead_letters.len() as u64;
        let discarded = discards(&effects) + split.unrouted as u64;
        effects.count(&self.part, Counter::Accepted, accepted as u64);
        effects.count(&self.part, Counter::Put, split.routed as u64);
        effects.count(&self.part, Counter::DeadLettered, dead);
        effects.count_reason(
            &self.part,
            Counter::Discarded,
            "no-route",
            split.unrouted as u64,
        );
        if split.puts.is_empty() && put.marks.is_empty() && effects.is_empty() {
            return Ok(());
        }
        let part = self.part.clone();
        let (puts, marks) = (split.puts, put.marks);
        let commit = Commit {
            part,
            puts,
            marks,
            effects,
            deadline,
            received_ms,
        };
        let _committing = self.cell.stage(Stage::Store);
        self.store.commit(commit).await?;
        drop(room);
        self.metrics.dead_events.add(dead);
        self.metrics.discarded_events.add(discarded);
        Ok(())
    }

    /// Runs the chain. What each interceptor leaves is booked on this source, so that its balance
    /// holds whatever the interceptor counts itself.
    async fn intercept(
        &self,
        mut batch: Batch,
        received_ms: u64,
        effects: &mut Effects,
    ) -> Result<Batch, PutError> {
        if self.chain.is_empty() || batch.is_empty() {
            return Ok(batch);
        }
        let _running = self.cell.stage(Stage::Interceptors);
        let call = Call {
            part: &self.part,
            attempt: 1,
            received_ms,
        };
        for (link, metrics) in &self.chain {
            let before = batch.len();
            if before == 0 {
                break;
            }
            let began = Instant::now();
            let mut own = Effects::default();
            batch = link
                .interceptor
                .intercept(batch, &call, &mut own)
                .await
                .map_err(|error| {
                    metrics.failures.add(1);
                    put_error(link, error)
                })?;
            metrics.seconds.observe(began.elapsed());
            metrics.in_events.add(before as u64);
            metrics.out_events.add(batch.len() as u64);
            self.book(before, batch.len(), own, effects);
        }
        Ok(batch)
    }

    /// `made` is what came out beyond what must have; what is missing without a word is discarded
    /// under the reason `unstated`.
    fn book(&self, before: usize, after: usize, own: Effects, effects: &mut Effects) {
        let dead = own.dead_letters.len() as u64;
        let out = after as u64 + dead + discards(&own);
        let before = before as u64;
        effects.count(&self.part, Counter::Made, out.saturating_sub(before));
        let missing = before.saturating_sub(out);
        effects.count_reason(&self.part, Counter::Discarded, "unstated", missing);
        for count in own
            .counts
            .into_iter()
            .filter(|count| count.counter == Counter::Discarded)
        {
            effects.count_reason(&self.part, Counter::Discarded, &count.reason, count.amount);
        }
        effects.dead_letters.extend(own.dead_letters);
    }

    /// Makes dead letters of events that broke a limit.
    fn set_aside(&self, faults: Vec<Fault>, at_ms: u64, effects: &mut Effects) {
        let letter = |fault: Fault| DeadLetter {
            reason: fault.kind.to_string(),
            limit: Some(limit(&fault.kind).to_owned()),
            event: fault.event,
            origin: None,
            part: self.part.clone(),
            flow: self.part.clone(),
            backtrace: None,
            handler: None,
            attempts: 1,
            at_ms,
        };
        effects.dead_letters.extend(faults.into_iter().map(letter));
    }

    fn deadline(&self, given: Option<Instant>) -> Option<Instant> {
        let own = self.put_timeout.map(|most| Instant::now() + most);
        [given, own].into_iter().flatten().min()
    }

    /// Tells the status what a put shows about the source.
    fn report(&self, result: &Result<(), PutError>) {
        let Err(error) = result else {
            if self.cell.success() {
                info!(part = %self.part, "puts go through again");
            }
            return;
        };
        self.metrics.failed(error);
        let state = match error {
            // Ordinary back-pressure, an ordinary stop, and a peer that repeats itself.
            PutError::Full { .. }
            | PutError::Deadline
            | PutError::Stopping
            | PutError::Conflict { .. } => return,
            PutError::Fatal { .. } => State::Failed,
            _ => State::Retrying,
        };
        let first = self.cell.error(&error.to_string());
        self.cell.enter(state, Doing::Waiting);
        if first {
            warn!(part = %self.part, %error, "put failed");
        }
    }
}

#[async_trait]
impl Ingest for SourceIngest {
    async fn put(&self, put: Put) -> Result<(), PutError> {
        if self.closed.is_draining() {
            return Err(PutError::Stopping);
        }
        let began = Instant::now();
        let events = self.metrics.received(&put);
        let result = tokio::select! {
            biased;
            result = self.pass(put) => result,
            () = self.closed.draining() => Err(PutError::Stopping),
        };
        if result.is_ok() {
            self.metrics.accepted(events);
            self.metrics.put_seconds.observe(began.elapsed());
        }
        self.report(&result);
        result
    }

    fn marks(&self) -> Marks {
        self.store.marks(&self.part)
    }

    fn mark(&self, key: &str) -> Option<Bytes> {
        self.store.mark(&self.part, key)
    }

    fn in_flight_limit(&self) -> usize {
        self.in_flight.share()
    }
}

fn discards(effects: &Effects) -> u64 {
    let discarded = effects
        .counts
        .iter()
        .filter(|count| count.counter == Counter::Discarded);
    discarded.map(|count| count.amount).sum()
}

fn put_error(link: &Link, error: InterceptError) -> PutError {
    let part = link.part.to_string();
    match error {
        InterceptError::Later { reason, after } => PutError::Later {
            part,
            reason,
            after,
        },
        InterceptError::Fatal { reason } => PutError::Fatal { part, reason },
        other => PutError::Later {
            part,
            reason: other.to_string(),
            after: None,
        },
    }
}

/// The key or word of the limit that an event broke.
fn limit(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::EventSize { .. } => "max-event",
        FaultKind::Headers { .. } => "headers",
        FaultKind::Name { .. } => "header-name",
        FaultKind::Value { .. } => "header-value",
        FaultKind::NotText => "header-text",
        _ => "event",
    }
}
