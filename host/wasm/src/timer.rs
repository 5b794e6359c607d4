//! The timer of a handler: a call that no event asked for.

use std::panic::{self, AssertUnwindSafe};

use levada_core::{Batch, BatchBuilder, InterceptError, tasks};

use crate::{
    instance::{Broken, CallError, Facts, Live, Mould, broken_if},
    pool::Pool,
    rescue::error_of,
    state::Well,
    typed::{self, Event, Failure},
    verdicts::{Breach, is_reserved},
};

/// Events that one tick may make: a window of many keys that ends, and not a flood.
const MOST_EVENTS: usize = 10_000;

/// Calls the timer; once more on a fresh instance if that fails.
pub(crate) fn tick(pool: &Pool, facts: Facts<'_>) -> Result<Batch, InterceptError> {
    let taken = tasks::in_place(|| pool.take());
    let first = taken
        .map_err(CallError::Broken)
        .and_then(|live| call(pool, live, facts));
    let answer = match first {
        Err(CallError::Broken(_)) => {
            let fresh = tasks::in_place(|| pool.fresh());
            fresh
                .map_err(CallError::Broken)
                .and_then(|live| call(pool, live, facts))
        }
        answer => answer,
    };
    answer.map_err(|error| match error {
        CallError::Failure(failure) => error_of(failure),
        CallError::Broken(broken) => InterceptError::Broken {
            reason: format!("the handler's timer fails: {broken}"),
            after: None,
        },
    })
}

fn call(pool: &Pool, mut live: Live, facts: Facts<'_>) -> Result<Batch, CallError> {
    let answer = tasks::in_place(|| pool.mould().tick(&mut live, facts));
    match &answer {
        Ok(_) | Err(CallError::Failure(_)) => pool.give(live),
        Err(CallError::Broken(_)) => pool.lost(),
    }
    answer
}

impl Mould {
    /// One call of the timer, within the limits of a call without events.
    fn tick(&self, live: &mut Live, facts: Facts<'_>) -> Result<Batch, CallError> {
        type Answer = (Result<Vec<Event>, Failure>,);
        live.calls += 1;
        let nothing = Batch::default();
        self.prepare(live, &nothing, facts);
        let ticking = self.ticker.run();
        let timer = live.timer;
        let called = panic::catch_unwind(AssertUnwindSafe(|| {
            let timer = timer.ok_or_else(|| wasmtime::Error::msg("there is no timer"))?;
            let func = timer.typed::<(), Answer>(&live.store)?;
            func.call(&mut live.store, ())
        }));
        drop(ticking);
        let answer = match broken_if(called) {
            Ok((Ok(events),)) => self.ticked(&events),
            Ok((Err(failure),)) => Err(CallError::Failure(failure)),
            Err(broken) => Err(CallError::Broken(broken)),
        };
        let well = if answer.is_ok() { Well::Yes } else { Well::No };
        self.ended(live, facts, well, answer.as_ref().err());
        answer
    }

    fn ticked(&self, events: &[Event]) -> Result<Batch, CallError> {
        let breach = |why| Breach {
            place: None,
            event: 0,
            why,
        };
        let broken = |why| CallError::Broken(Box::<Broken>::from(breach(why)));
        if events.len() > MOST_EVENTS {
            let events = events.len();
            let why = format!("{events} events out of a tick, {MOST_EVENTS} are allowed");
            return Err(broken(why));
        }
        let batch = typed::batch_of(events, &self.shared.limits).map_err(broken)?;
        Ok(self.without_reserved(batch))
    }

    /// Leaves out headers whose names belong to the host, and counts them.
    fn without_reserved(&self, batch: Batch) -> Batch {
        let ours = |(name, _): &(&str, &str)| is_reserved(name.as_bytes());
        let skipped: usize = batch
            .iter()
            .map(|event| event.headers().filter(ours).count())
            .sum();
        if skipped == 0 {
            return batch;
        }
        self.shared.meters.reserved_headers.add(skipped as u64);
        let mut builder = BatchBuilder::with_capacity(batch.bytes());
        for event in batch.iter() {
            builder.push(event.headers().filter(|pair| !ours(pair)), event.body());
        }
        builder.finish()
    }
}
