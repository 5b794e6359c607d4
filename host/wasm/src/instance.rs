//! One instance of a guest: made, called, and given up when it fails.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use levada_core::{Batch, PartId, tasks};
use tokio::time;
use wasmtime::{
    Store,
    component::{ComponentExportIndex, ComponentNamedList, Func, InstancePre, Lift, Lower},
};

use crate::{
    OnReject, Role,
    broken::{Broken, broken_if, caught},
    event::Blob,
    fiber::{Fiber, PollTime},
    guest::{Guest, Shared, at_tick},
    limits::{Limit, LimitReached},
    outcomes::{self, AllDelivered},
    packed,
    record::Tape,
    state::{Lent, Well},
    ticker::Ticker,
    typed::{self, EventIn, Failure, Verdict},
    verdicts::Outcome,
};

/// Whether the guest can wait for something outside, and so on which side of the engine it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// No import waits: calls run on the thread that holds the batch.
    Sync,
    /// Imports may wait: calls run on fibers, and other tasks go on meanwhile.
    Async,
}

/// What is needed to make instances of one component.
pub(crate) struct Mould {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) export: ComponentExportIndex,
    /// Its timer, if it has one.
    pub(crate) timer: Option<ComponentExportIndex>,
    pub(crate) role: Role,
    pub(crate) side: Side,
    pub(crate) shared: Arc<Shared>,
    pub(crate) on_reject: OnReject,
    pub(crate) ticker: Arc<Ticker>,
}

/// An instance that can be called. Used again only after a call that ended well. Boxed where it is
/// kept, since it goes from hand to hand at every call.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    pub(crate) func: Func,
    pub(crate) timer: Option<Func>,
    born: Instant,
    pub(crate) calls: u32,
    /// Calls and age after which it is given up; drawn, so that nobody relies on its memory.
    most_calls: u32,
    most_age: Duration,
    index: Vec<u8>,
    /// What its calls use of the processor; counted here on the asynchronous side only.
    polls: Arc<PollTime>,
}

/// Facts about a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) part: &'a PartId,
    pub(crate) attempt: u32,
    pub(crate) received_ms: u64,
    /// What the handler keeps from batch to batch.
    pub(crate) state: &'a Lent,
}

/// A call that gave no verdicts.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The guest said so; it is as sound as before.
    Failure(Failure),
    /// The instance is dead.
    Broken(Box<Broken>),
}

/// Calls an instance serves: at least so many, and up to as many more.
const CALLS: u32 = 10_000;

/// How long an instance lives: at least so long, and up to as long again.
const AGE: Duration = Duration::from_secs(600);

/// What a packed guest answers, of whatever role.
type PackedAnswer = (Result<Vec<u8>, Failure>,);
/// What a typed interceptor and a typed sink answer.
type Verdicts = (Result<Vec<Verdict>, Failure>,);
type Deliveries = (Result<AllDelivered, Failure>,);

impl Mould {
    /// Makes an instance; the guest's start functions run within the limits of a call. With a tape,
    /// all that it asks from now on is recorded or replayed.
    pub(crate) async fn instantiate(&self, tape: Option<Tape>) -> Result<Box<Live>, Box<Broken>> {
        let limits = &self.shared.limits;
        let polls = Arc::new(PollTime::default());
        let own = (self.side == Side::Async).then(|| Arc::clone(&polls));
        let mut guest = Guest::new(&self.shared, own);
        guest.tape = tape;
        let mut store = Store::new(self.pre.engine(), guest);
        store.limiter(|guest| &mut guest.limiter);
        store.epoch_deadline_callback(at_tick);
        store.set_epoch_deadline(1);
        store.set_max_component_handles(limits.handles);
        store.set_hostcall_fuel(limits.lifted);
        let made = match self.side {
            Side::Sync => {
                let _ticking = self.ticker.run();
                caught(|| self.pre.instantiate(&mut store))
            }
            Side::Async => {
                let made = self.pre.instantiate_async(&mut store);
                self.on_fiber(made, &polls, limits.deadline_of(0)).await
            }
        };
        store.data_mut().end();
        let instance = made?;
        let func = instance.get_func(&mut store, self.export);
        let missing = || wasmtime::Error::msg("the exported function is missing");
        let func = broken_if(Ok(func.ok_or_else(missing)))?;
        let timer = self.timer;
        let timer = timer.and_then(|timer| instance.get_func(&mut store, timer));
        let chance = &self.shared.chance;
        let more = u32::try_from(chance.below(u64::from(CALLS))).unwrap_or(0);
        Ok(Box::new(Live {
            store,
            func,
            timer,
            born: Instant::now(),
            calls: 0,
            most_calls: CALLS + more,
            most_age: AGE + chance.jitter(AGE),
            index: Vec::new(),
            polls,
        }))
    }

    /// Does what makes instances and calls them. Where no import waits it is done at once, on the
    /// thread that holds the batch.
    pub(crate) async fn where_it_lives<T>(&self, work: impl Future<Output = T>) -> T {
        match self.side {
            Side::Sync => tasks::in_place(|| at_once(work)),
            Side::Async => work.await,
        }
    }

    /// Whether the exported function has the type of its role.
    pub(crate) fn check(&self, live: &Live) -> Result<(), Box<Broken>> {
        let (func, store) = (&live.func, &live.store);
        let checked = match self.role {
            Role::PackedInterceptor | Role::PackedSink => func
                .typed::<(&[u8], &[u8]), PackedAnswer>(store)
                .map(|_| ()),
            Role::Interceptor => func.typed::<(&[EventIn<'_>],), Verdicts>(store).map(|_| ()),
            Role::Sink => func
                .typed::<(&[EventIn<'_>], &[String]), Deliveries>(store)
                .map(|_| ()),
            Role::Source => self.check_poll(live),
        };
        broken_if(Ok(checked))
    }

    /// Gives a canonical batch to an instance. After [`CallError::Broken`], and if this is dropped
    /// before its end, the instance must be dropped, too.
    pub(crate) async fn call(
        &self,
        live: &mut Live,
        batch: &Batch,
        facts: Facts<'_>,
    ) -> Result<Box<Outcome>, CallError> {
        live.calls += 1;
        self.prepare(live, batch, facts);
        let result = match self.role {
            Role::PackedInterceptor | Role::PackedSink => self.call_packed(live, batch).await,
            Role::Interceptor | Role::Sink => self.call_typed(live, batch).await,
            Role::Source => unreachable!("a source is polled, and given no batch"),
        };
        let well = if result.is_ok() { Well::Yes } else { Well::No };
        self.ended(live, facts, well, result.as_ref().err());
        result
    }

    /// Sets limits and facts of a call.
    pub(crate) fn prepare(&self, live: &mut Live, batch: &Batch, facts: Facts<'_>) {
        let guest = live.store.data_mut();
        guest.begin(batch.len());
        guest.call.part = Some(facts.part.clone());
        guest.call.attempt = facts.attempt;
        guest.call.received_ms = facts.received_ms;
        guest.call.batch = batch.clone();
        guest.state = facts.state.take();
        self.shared.tables.look();
        let lifted = self.shared.limits.lifted_of(batch.bytes());
        live.store.set_hostcall_fuel(lifted);
        live.store.set_epoch_deadline(1);
    }

    /// Takes back what a call was lent, and counts it.
    pub(crate) fn ended(
        &self,
        live: &mut Live,
        facts: Facts<'_>,
        well: Well,
        error: Option<&CallError>,
    ) {
        let meters = &self.shared.meters;
        let guest = live.store.data_mut();
        facts.state.give_back(guest.state.take(), well);
        let cpu = guest.end();
        meters.calls.add(1);
        meters
            .cpu_nanoseconds
            .add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
        meters.memory(live.memory());
        if let Some(CallError::Broken(broken)) = error {
            meters.failed(broken.limit, broken.contract);
        }
    }

    async fn call_packed(&self, live: &mut Live, batch: &Batch) -> Result<Box<Outcome>, CallError> {
        let layout = batch.layout().expect("the caller made the batch canonical");
        let mut index = std::mem::take(&mut live.index);
        packed::write_index(&layout, batch.origins(), &mut index);
        let params: (&[u8], &[u8]) = (&index, layout.bytes);
        let func = live.func;
        let called = self
            .run::<_, PackedAnswer>(live, func, params, batch.len())
            .await;
        live.index = index;
        let (answer,) = called?;
        let guest = live.store.data_mut();
        guest.came_back(|| answer.clone().map(Blob));
        let answer = answer.map_err(CallError::Failure)?;
        let limits = &self.shared.limits;
        let applied = match self.role {
            Role::PackedSink | Role::Sink => packed::apply_delivery(&answer, batch, limits),
            Role::PackedInterceptor | Role::Interceptor | Role::Source => {
                packed::apply(answer, batch, limits, self.on_reject)
            }
        };
        applied.map_err(|breach| CallError::Broken(breach.into()))
    }

    async fn call_typed(&self, live: &mut Live, batch: &Batch) -> Result<Box<Outcome>, CallError> {
        let headers = typed::headers_of(batch);
        let events = typed::events_of(batch, &headers);
        let func = live.func;
        let applied = match self.role {
            Role::Sink | Role::PackedSink => {
                let ids: Vec<String> = batch.origins().iter().map(|id| id.to_string()).collect();
                let params = (&events[..], &ids[..]);
                let called = self
                    .run::<_, Deliveries>(live, func, params, batch.len())
                    .await;
                let (answer,) = called?;
                live.store.data_mut().came_back(|| answer.clone());
                let answer = answer.map_err(CallError::Failure)?;
                outcomes::apply(answer, batch.len())
            }
            Role::Interceptor | Role::PackedInterceptor | Role::Source => {
                let params = (&events[..],);
                let called = self
                    .run::<_, Verdicts>(live, func, params, batch.len())
                    .await;
                let (verdicts,) = called?;
                live.store.data_mut().came_back(|| verdicts.clone());
                let verdicts = verdicts.map_err(CallError::Failure)?;
                typed::apply(&verdicts, batch, &self.shared.limits, self.on_reject)
            }
        };
        applied.map_err(|breach| CallError::Broken(breach.into()))
    }

    /// Runs an exported function on the side where the guest lives.
    pub(crate) async fn run<P, R>(
        &self,
        live: &mut Live,
        func: Func,
        params: P,
        events: usize,
    ) -> Result<R, Box<Broken>>
    where
        P: ComponentNamedList + Lower + Send,
        R: ComponentNamedList + Lift + Send + 'static,
    {
        let func = broken_if(Ok(func.typed::<P, R>(&live.store)))?;
        match self.side {
            Side::Sync => {
                let _ticking = self.ticker.run();
                caught(|| func.call(&mut live.store, params))
            }
            Side::Async => {
                let call = func.call_async(&mut live.store, params);
                let deadline = self.shared.limits.deadline_of(events);
                self.on_fiber(call, &live.polls, deadline).await
            }
        }
    }

    /// Waits for what runs on a fiber, for so long. The deadline holds while the guest waits for an
    /// import, too; while it computes, [`at_tick`] gives it back to here.
    async fn on_fiber<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>> + Send,
        polls: &PollTime,
        deadline: Duration,
    ) -> Result<T, Box<Broken>> {
        let fiber = Fiber::new(call, polls, &self.ticker);
        match time::timeout(deadline, fiber).await {
            Ok(ended) => broken_if(ended),
            Err(_) => {
                let allowed = levada_core::units::format_duration(deadline);
                let error = LimitReached::new(Limit::Deadline, allowed).into();
                broken_if(Ok(Err(error)))
            }
        }
    }
}

impl From<Box<Broken>> for CallError {
    fn from(broken: Box<Broken>) -> Self {
        Self::Broken(broken)
    }
}

impl std::fmt::Debug for Mould {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mould")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// Takes what ran along with it; from now on nothing is recorded.
    pub(crate) fn take_tape(&mut self) -> Option<Tape> {
        self.store.data_mut().tape.take()
    }

    /// Bytes of all its memories.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().limiter.memory()
    }

    /// How old it was when its last call began.
    fn age(&self) -> Duration {
        let last = self.store.data().call.started;
        last.saturating_duration_since(self.born)
    }

    /// Whether it has served its calls or its time.
    pub(crate) fn is_spent(&self) -> Spent {
        if self.calls >= self.most_calls {
            Spent::Calls
        } else if self.age() >= self.most_age {
            Spent::Age
        } else {
            Spent::No
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

/// Whether an instance has lived long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    No,
    Calls,
    Age,
}

/// The value of what never waits.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing on the synchronous side waits"),
    }
}
