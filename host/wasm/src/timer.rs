//! The timer of a handler: a call that no event asked for.

use levada_core::{Batch, BatchBuilder, InterceptError};

use crate::{
    broken::{Broken, broken_if},
    instance::{CallError, Facts, Live, Mould},
    pool::Pool,
    rescue::error_of,
    state::Well,
    typed::{self, Event, Failure},
    verdicts::{Breach, is_reserved},
};

/// Events that one tick may make: a window of many keys that ends, and not a flood.
const MOST_EVENTS: usize = 10_000;

/// Calls the timer; once more on a fresh instance if that fails.
pub(crate) async fn tick(pool: &Pool, facts: Facts<'_>) -> Result<Batch, InterceptError> {
    let answer = pool.mould().where_it_lives(twice(pool, facts)).await;
    answer.map_err(|error| match error {
        CallError::Failure(failure) => error_of(failure),
        CallError::Broken(broken) => InterceptError::Broken {
            reason: format!("the handler's timer fails: {broken}"),
            after: None,
        },
    })
}

async fn twice(pool: &Pool, facts: Facts<'_>) -> Result<Batch, CallError> {
    let first = match pool.take().await {
        Ok(live) => call(pool, live, facts).await,
        Err(broken) => Err(broken.into()),
    };
    match first {
        Err(CallError::Broken(_)) => call(pool, pool.fresh(None).await?, facts).await,
        answer => answer,
    }
}

async fn call(pool: &Pool, mut live: Box<Live>, facts: Facts<'_>) -> Result<Batch, CallError> {
    let answer = pool.mould().tick(&mut live, facts).await;
    match &answer {
        Ok(_) | Err(CallError::Failure(_)) => pool.give(live),
        Err(CallError::Broken(_)) => pool.lost(),
    }
    answer
}

impl Mould {
    /// One call of the timer, within the limits of a call without events.
    async fn tick(&self, live: &mut Live, facts: Facts<'_>) -> Result<Batch, CallError> {
        live.calls += 1;
        let nothing = Batch::default();
        self.prepare(live, &nothing, facts);
        let answer = self.ask_timer(live).await;
        let well = if answer.is_ok() { Well::Yes } else { Well::No };
        self.ended(live, facts, well, answer.as_ref().err());
        answer
    }

    async fn ask_timer(&self, live: &mut Live) -> Result<Batch, CallError> {
        type Answer = (Result<Vec<Event>, Failure>,);
        let none = || wasmtime::Error::msg("there is no timer");
        let timer = broken_if(Ok(live.timer.ok_or_else(none)))?;
        let (answer,) = self.run::<_, Answer>(live, timer, (), 0).await?;
        self.ticked(&answer.map_err(CallError::Failure)?)
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
    pub(crate) fn without_reserved(&self, batch: Batch) -> Batch {
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
