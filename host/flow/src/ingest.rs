//! From a source to the store: interceptors, selector, one commit.

mod timers;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_core::{
    Batch, Clock, Commit, Counter, DeadLetter, Effects, Fault, Ingest, InterceptError, Marks,
    PartId, Put, PutError, Selector, Stop, Store, batch::FaultKind, interceptor::Call,
};
use levada_telemetry::Registry;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::{
    in_flight::InFlight,
    metrics::{InterceptorMetrics, SourceMetrics},
    plan::{Link, SourcePlan},
    replay::ReplayError,
    route,
    status::{Cell, Doing, Stage, State},
};

/// What stands behind one source. Any number of puts may be on their way at once.
#[derive(Debug)]
pub(crate) struct SourceIngest {
    part: PartId,
    way: Mutex<Arc<Way>>,
    /// Rings when the way has changed.
    rewired: Notify,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    in_flight: InFlight,
    closed: Stop,
    metrics: SourceMetrics,
    cell: Arc<Cell>,
}

/// What lies between a source and its channels. A put keeps the one it began with.
#[derive(Debug)]
struct Way {
    chain: Vec<(Link, InterceptorMetrics)>,
    selector: Arc<dyn Selector>,
    put_timeout: Option<Duration>,
    /// Dropped when the last put that took this way has ended.
    _used: oneshot::Sender<Infallible>,
    unused: Mutex<Option<oneshot::Receiver<Infallible>>>,
}

/// How an event enters.
#[derive(Debug, Clone, Copy)]
enum Entry<'a> {
    /// From the source.
    Arrives,
    /// A dead letter, at the part that rejected it.
    Returns { at: &'a PartId, letter: u64 },
    /// From the timer of this link.
    Ticks { at: usize },
}

/// When a put began, and by when it is to be staged.
#[derive(Debug, Clone, Copy)]
struct Begun {
    received_ms: u64,
    deadline: Option<Instant>,
}

impl Way {
    fn new(plan: &SourcePlan, registry: &Registry) -> Arc<Self> {
        let metrics = |link: &Link| InterceptorMetrics::new(registry, &link.part, &plan.part);
        let (used, unused) = oneshot::channel();
        let chain = plan.interceptors.iter();
        Arc::new(Self {
            chain: chain.map(|link| (link.clone(), metrics(link))).collect(),
            selector: Arc::clone(&plan.selector),
            put_timeout: plan.put_timeout,
            _used: used,
            unused: Mutex::new(Some(unused)),
        })
    }

    /// The interceptors that an event passes; `None` if the one it returns to is not among them.
    fn from(&self, entry: Entry<'_>, source: &PartId) -> Option<&[(Link, InterceptorMetrics)]> {
        let first = match entry {
            Entry::Arrives => 0,
            Entry::Returns { at, .. } if at == source => 0,
            Entry::Returns { at, .. } => {
                self.chain.iter().position(|(link, _)| link.part == *at)?
            }
            Entry::Ticks { at } => at + 1,
        };
        self.chain.get(first..)
    }
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
        Self {
            way: Mutex::new(Way::new(plan, behind.registry)),
            rewired: Notify::new(),
            metrics: SourceMetrics::new(behind.registry, &plan.part),
            part: plan.part.clone(),
            store: behind.store,
            clock: behind.clock,
            in_flight: behind.in_flight,
            closed: behind.closed,
            cell: behind.cell,
        }
    }

    /// From the next put on, batches go the way of `plan`. The returned future ends when the last
    /// put on the old way has.
    pub(crate) fn rewire(
        &self,
        plan: &SourcePlan,
        registry: &Registry,
    ) -> impl Future<Output = ()> + use<> {
        let new = Way::new(plan, registry);
        let old = std::mem::replace(&mut *lock(&self.way), new);
        self.rewired.notify_waiters();
        let unused = lock(&old.unused).take();
        self.cell.rewire(plan.channels.clone());
        drop(old);
        async move {
            if let Some(unused) = unused {
                // Nothing is ever sent: the other end goes.
                let _gone = unused.await.is_err();
            }
        }
    }

    /// Puts a dead letter back where it was rejected, and takes it from the dead letters in the
    /// same commit.
    pub(crate) async fn replay(
        &self,
        event: Batch,
        at: &PartId,
        letter: u64,
        within: Duration,
    ) -> Result<(), ReplayError> {
        let way = Arc::clone(&lock(&self.way));
        let entry = Entry::Returns { at, letter };
        if way.from(entry, &self.part).is_none() {
            return Err(ReplayError::NotOnIt {
                part: at.clone(),
                flow: self.part.clone(),
            });
        }
        let put = Put::within(event, within);
        let put = self.pass(put, &way, entry);
        put.await.map_err(ReplayError::Refused)
    }

    /// One put from arrival to commit. Dropped at any await, it is withdrawn or, once the store has
    /// staged it, may commit.
    async fn pass(&self, put: Put, way: &Way, entry: Entry<'_>) -> Result<(), PutError> {
        let received_ms = self.clock.wall_ms();
        let own = way.put_timeout.map(|most| Instant::now() + most);
        let deadline = [put.deadline, own].into_iter().flatten().min();
        let faults: usize = put.faults.iter().map(|fault| fault.event.len()).sum();
        let bytes = put.batch.bytes() + faults;
        let _room = {
            let _waiting = self.cell.stage(Stage::InFlight);
            self.in_flight.take(bytes, deadline).await?
        };

        let begun = Begun {
            received_ms,
            deadline,
        };
        // What a batch was handled with may turn out to be void: then it is handled again.
        loop {
            match self.commit(put.clone(), way, entry, begun).await {
                Err(PutError::Stale { .. }) => tokio::task::yield_now().await,
                committed => return committed,
            }
        }
    }

    /// Handles a put and commits what comes of it.
    async fn commit(
        &self,
        put: Put,
        way: &Way,
        entry: Entry<'_>,
        Begun {
            received_ms,
            deadline,
        }: Begun,
    ) -> Result<(), PutError> {
        let accepted = put.batch.len() + put.faults.len();
        let mut effects = Effects::default();
        self.set_aside(put.faults, received_ms, &mut effects);
        let batch = async {
            let batch = match entry {
                Entry::Arrives | Entry::Returns { .. } => put.batch,
                Entry::Ticks { at } => self.tick(way, at, received_ms, &mut effects).await?,
            };
            let chain = way.from(entry, &self.part).unwrap_or_default();
            self.intercept(chain, batch, received_ms, &mut effects)
                .await
        };
        let batch = within(deadline, batch).await?;
        let split = route::split(&*way.selector, &batch);

        let dead = effects.dead_letters.len() as u64;
        let discarded = discards(&effects) + split.unrouted as u64;
        match entry {
            Entry::Arrives => effects.count(&self.part, Counter::Accepted, accepted as u64),
            Entry::Returns { letter, .. } => {
                effects.replayed.push(letter);
                effects.count(&self.part, Counter::Replayed, accepted as u64);
            }
            // Counted as made.
            Entry::Ticks { .. } => {}
        }
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
        self.metrics.dead_events.add(dead);
        self.metrics.discarded_events.add(discarded);
        Ok(())
    }

    /// Runs the chain. What each interceptor leaves is booked on this source, so that its balance
    /// holds whatever the interceptor counts itself.
    async fn intercept(
        &self,
        chain: &[(Link, InterceptorMetrics)],
        mut batch: Batch,
        received_ms: u64,
        effects: &mut Effects,
    ) -> Result<Batch, PutError> {
        if chain.is_empty() || batch.is_empty() {
            return Ok(batch);
        }
        let _running = self.cell.stage(Stage::Interceptors);
        let call = self.call(received_ms);
        for (link, metrics) in chain {
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
                    if matches!(error, InterceptError::Broken { .. }) {
                        self.cell.enter(State::Failed, Doing::Waiting);
                    }
                    put_error(link, error)
                })?;
            metrics.seconds.observe(began.elapsed());
            metrics.in_events.add(before as u64);
            metrics.out_events.add(batch.len() as u64);
            self.book(before, batch.len(), own, effects);
        }
        Ok(batch)
    }

    fn call(&self, received_ms: u64) -> Call<'_> {
        Call {
            part: &self.part,
            attempt: 1,
            received_ms,
            states: &*self.store,
        }
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
        effects.states.extend(own.states);
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
            recording: None,
            attempts: 1,
            at_ms,
        };
        effects.dead_letters.extend(faults.into_iter().map(letter));
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
        let way = Arc::clone(&lock(&self.way));
        let began = Instant::now();
        let events = self.metrics.received(&put);
        let result = tokio::select! {
            biased;
            result = self.pass(put, &way, Entry::Arrives) => result,
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits no longer than until the deadline.
async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, PutError>>,
) -> Result<T, PutError> {
    match deadline {
        None => work.await,
        Some(at) => timeout_at(at, work)
            .await
            .unwrap_or(Err(PutError::Deadline)),
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
        InterceptError::Later { reason, after } | InterceptError::Broken { reason, after } => {
            PutError::Later {
                part,
                reason,
                after,
            }
        }
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
        FaultKind::Capacity { .. } => "capacity",
        _ => "event",
    }
}
