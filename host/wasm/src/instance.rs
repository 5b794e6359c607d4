//! One instance of a guest: made, called, and given up when it fails.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::{Duration, Instant},
};

use levada_core::{Batch, PartId, batch::Layout};
use thiserror::Error;
use wasmtime::{
    Store, Trap, WasmBacktrace,
    component::{ComponentExportIndex, Func, InstancePre},
};

use crate::{
    OnReject, Role,
    guest::{Guest, Shared, at_tick, escape},
    limits::{Limit, LimitReached},
    packed,
    state::{Lent, Well},
    ticker::Ticker,
    typed::{self, EventIn, Failure, Verdict},
    verdicts::{Breach, Outcome},
};

/// What is needed to make instances of one component.
pub(crate) struct Mould {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) export: ComponentExportIndex,
    /// Its timer, if it has one.
    pub(crate) timer: Option<ComponentExportIndex>,
    pub(crate) role: Role,
    pub(crate) shared: Arc<Shared>,
    pub(crate) on_reject: OnReject,
    pub(crate) ticker: Arc<Ticker>,
}

/// An instance that can be called. Used again only after a call that ended well.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    func: Func,
    pub(crate) timer: Option<Func>,
    born: Instant,
    pub(crate) calls: u32,
    /// Calls and age after which it is given up; drawn, so that nobody relies on its memory.
    most_calls: u32,
    most_age: Duration,
    index: Vec<u8>,
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

/// Why an instance is dead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) limit: Option<Limit>,
    pub(crate) backtrace: Option<String>,
    /// Whether the guest ended well and its answer was void.
    pub(crate) contract: bool,
}

/// Calls an instance serves: at least so many, and up to as many more.
const CALLS: u32 = 10_000;

/// How long an instance lives: at least so long, and up to as long again.
const AGE: Duration = Duration::from_secs(600);

impl Mould {
    /// Makes an instance; the guest's start functions run within the limits of a call.
    pub(crate) fn instantiate(&self) -> Result<Live, Box<Broken>> {
        let limits = &self.shared.limits;
        let mut store = Store::new(self.pre.engine(), Guest::new(&self.shared));
        store.limiter(|guest| &mut guest.limiter);
        store.epoch_deadline_callback(at_tick);
        store.set_epoch_deadline(1);
        store.set_max_component_handles(limits.handles);
        store.set_hostcall_fuel(limits.lifted);
        let _ticking = self.ticker.run();
        let made = panic::catch_unwind(AssertUnwindSafe(|| {
            let instance = self.pre.instantiate(&mut store)?;
            let func = instance.get_func(&mut store, self.export);
            let func =
                func.ok_or_else(|| wasmtime::Error::msg("the exported function is missing"))?;
            let timer = self
                .timer
                .and_then(|timer| instance.get_func(&mut store, timer));
            Ok((func, timer))
        }));
        store.data_mut().end();
        let (func, timer) = broken_if(made)?;
        let chance = &self.shared.chance;
        let more = u32::try_from(chance.below(u64::from(CALLS))).unwrap_or(0);
        Ok(Live {
            store,
            func,
            timer,
            born: Instant::now(),
            calls: 0,
            most_calls: CALLS + more,
            most_age: AGE + chance.jitter(AGE),
            index: Vec::new(),
        })
    }

    /// Whether the exported function has the type of its role.
    pub(crate) fn check(&self, live: &Live) -> Result<(), Box<Broken>> {
        type Packed = (Result<Vec<u8>, Failure>,);
        type Typed = (Result<Vec<Verdict>, Failure>,);
        let checked = match self.role {
            Role::PackedInterceptor => live
                .func
                .typed::<(&[u8], &[u8]), Packed>(&live.store)
                .map(|_| ()),
            Role::Interceptor => live
                .func
                .typed::<(&[EventIn<'_>],), Typed>(&live.store)
                .map(|_| ()),
        };
        broken_if(Ok(checked))
    }

    /// Gives a canonical batch to an instance. After [`CallError::Broken`] it must be dropped.
    pub(crate) fn call(
        &self,
        live: &mut Live,
        batch: &Batch,
        facts: Facts<'_>,
    ) -> Result<Outcome, CallError> {
        live.calls += 1;
        self.prepare(live, batch, facts);
        let ticking = self.ticker.run();
        let result = match self.role {
            Role::PackedInterceptor => self.call_packed(live, batch),
            Role::Interceptor => self.call_typed(live, batch),
        };
        drop(ticking);
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

    fn call_packed(&self, live: &mut Live, batch: &Batch) -> Result<Outcome, CallError> {
        type Answer = (Result<Vec<u8>, Failure>,);
        let layout: Layout<'_> = batch.layout().expect("the caller made the batch canonical");
        let mut index = std::mem::take(&mut live.index);
        packed::write_index(&layout, &mut index);
        let called = panic::catch_unwind(AssertUnwindSafe(|| {
            let func = live.func.typed::<(&[u8], &[u8]), Answer>(&live.store)?;
            func.call(&mut live.store, (&index, layout.bytes))
        }));
        live.index = index;
        match broken_if(called) {
            Ok((Ok(answer),)) => packed::apply(answer, batch, &self.shared.limits, self.on_reject)
                .map_err(|breach| CallError::Broken(breach.into())),
            Ok((Err(failure),)) => Err(CallError::Failure(failure)),
            Err(broken) => Err(CallError::Broken(broken)),
        }
    }

    fn call_typed(&self, live: &mut Live, batch: &Batch) -> Result<Outcome, CallError> {
        type Answer = (Result<Vec<Verdict>, Failure>,);
        let headers = typed::headers_of(batch);
        let events = typed::events_of(batch, &headers);
        let called = panic::catch_unwind(AssertUnwindSafe(|| {
            let func = live.func.typed::<(&[EventIn<'_>],), Answer>(&live.store)?;
            func.call(&mut live.store, (&events,))
        }));
        match broken_if(called) {
            Ok((Ok(verdicts),)) => {
                typed::apply(&verdicts, batch, &self.shared.limits, self.on_reject)
                    .map_err(|breach| CallError::Broken(breach.into()))
            }
            Ok((Err(failure),)) => Err(CallError::Failure(failure)),
            Err(broken) => Err(CallError::Broken(broken)),
        }
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

impl From<Breach> for Box<Broken> {
    fn from(breach: Breach) -> Self {
        Box::new(Broken {
            reason: breach.to_string(),
            limit: None,
            backtrace: None,
            contract: true,
        })
    }
}

pub(crate) fn broken_if<T>(
    result: Result<wasmtime::Result<T>, Box<dyn std::any::Any + Send>>,
) -> Result<T, Box<Broken>> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Box::new(Broken::of(&error))),
        Err(_) => Err(Box::new(Broken {
            reason: "the host panicked while it ran the guest".into(),
            limit: None,
            backtrace: None,
            contract: false,
        })),
    }
}

impl Broken {
    /// Finds out what wasmtime's error means.
    fn of(error: &wasmtime::Error) -> Self {
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|frames| cut(&frames.to_string()));
        let root = error.root_cause().to_string();
        let (limit, reason) = if let Some(reached) = error.downcast_ref::<LimitReached>() {
            (Some(reached.limit), reached.to_string())
        } else if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            let allowed = levada_core::ByteSize(crate::engine::WASM_STACK as u64);
            let reached = LimitReached::new(Limit::Stack, allowed);
            (Some(Limit::Stack), reached.to_string())
        } else if let Some(limit) = private_limit(&root) {
            (
                Some(limit),
                format!("the limit `{limit}` was reached: {root}"),
            )
        } else if error.downcast_ref::<Trap>().is_some() {
            (
                None,
                format!("trap: {}", root.trim_start_matches("wasm trap: ")),
            )
        } else {
            (None, format!("trap: {root}"))
        };
        Self {
            reason: escape(&reason),
            limit,
            backtrace,
            contract: false,
        }
    }
}

/// Limits whose errors are private to wasmtime 48: known by their text, each held by a test.
fn private_limit(text: &str) -> Option<Limit> {
    let known = [
        (
            "fuel allocated for hostcalls has been exhausted",
            Limit::Lifted,
        ),
        ("store handle limit exceeded", Limit::Handles),
        ("instance count too high", Limit::Instances),
        ("memory count too high", Limit::Memories),
        ("table count too high", Limit::Tables),
    ];
    let known = known.into_iter().find(|(part, _)| text.contains(part));
    known.map(|(_, limit)| limit)
}

/// Bytes of a backtrace that is kept.
const LONGEST_BACKTRACE: usize = 8 << 10;

fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST_BACKTRACE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
