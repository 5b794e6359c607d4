//! A poll of a source: a call that gives events, and a cursor to go on from.

use bytes::Bytes;
use levada_core::{Batch, InterceptError};
use wasmtime::component::{ComponentType, Lift};

use crate::{
    OnTrap,
    breaker::Tally,
    broken::Broken,
    handler::Handler,
    instance::{CallError, Facts, Live, Mould},
    pool::Pool,
    rescue::error_of,
    state::Well,
    typed::{self, Event, Failure},
};

/// Events that one poll may give.
pub(crate) const MOST_EVENTS: usize = 10_000;

/// Bytes of a cursor: a place in a stream, and not what was read there.
pub(crate) const LARGEST_CURSOR: usize = 64 << 10;

/// What one poll gave, within its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Polled {
    pub(crate) batch: Batch,
    /// Where the next poll goes on.
    pub(crate) cursor: Bytes,
    /// Whether there is more to get now.
    pub(crate) more: bool,
    /// What the guest wants to wait if there is not.
    pub(crate) wait_ms: u32,
}

/// `source.polled`
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
struct Answer {
    #[component(name = "events")]
    events: Vec<Event>,
    #[component(name = "cursor")]
    cursor: Vec<u8>,
    #[component(name = "more")]
    more: bool,
    #[component(name = "wait-ms")]
    wait_ms: u32,
}

/// What a poll is asked: on from this cursor, or from the beginning.
type Question<'a> = (Option<&'a [u8]>,);
type Polls = (Result<Answer, Failure>,);

impl Handler {
    /// Polls the guest, if the breaker lets it; once more on a fresh instance if that fails.
    ///
    /// # Errors
    /// [`InterceptError`]: what the guest said, or that it failed twice or too often.
    pub(crate) async fn poll(
        &self,
        cursor: Option<&Bytes>,
        facts: Facts<'_>,
    ) -> Result<Polled, InterceptError> {
        let _slot = self.slot().await;
        let pass = self.breaker.admit()?;
        let mould = self.pool.mould();
        let answer = mould.where_it_lives(twice(&self.pool, cursor, facts)).await;
        match answer {
            Ok(polled) => {
                let (handled, failed) = (1, 0);
                pass.end(Tally { handled, failed }, None);
                Ok(polled)
            }
            // One that says that its other side is not there works as it should.
            Err(CallError::Failure(failure)) => Err(error_of(failure)),
            Err(CallError::Broken(broken)) => {
                let (handled, failed) = (0, 1);
                let reason = broken.to_string();
                pass.end(Tally { handled, failed }, Some(&reason));
                Err(match self.on_trap {
                    OnTrap::Stop => InterceptError::Fatal { reason },
                    // No event is there yet that could be set aside.
                    OnTrap::DeadLetter | OnTrap::Discard | OnTrap::Pass => {
                        let after = None;
                        InterceptError::Broken { reason, after }
                    }
                })
            }
        }
    }
}

async fn twice(pool: &Pool, cursor: Option<&Bytes>, facts: Facts<'_>) -> Result<Polled, CallError> {
    let first = match pool.take().await {
        Ok(live) => call(pool, live, cursor, facts).await,
        Err(broken) => Err(broken.into()),
    };
    match first {
        Err(CallError::Broken(_)) => call(pool, pool.fresh(None).await?, cursor, facts).await,
        answer => answer,
    }
}

async fn call(
    pool: &Pool,
    mut live: Box<Live>,
    cursor: Option<&Bytes>,
    facts: Facts<'_>,
) -> Result<Polled, CallError> {
    let answer = pool.mould().poll(&mut live, cursor, facts).await;
    match &answer {
        Ok(_) | Err(CallError::Failure(_)) => pool.give(live),
        Err(CallError::Broken(broken)) => {
            pool.lost();
            let handler = &pool.mould().shared.name;
            tracing::debug!(%handler, reason = %broken, "poll failed");
        }
    }
    answer
}

impl Mould {
    /// Whether the exported function has the type of a poll.
    pub(crate) fn check_poll(&self, live: &Live) -> wasmtime::Result<()> {
        let checked = live.func.typed::<Question<'_>, Polls>(&live.store);
        checked.map(|_| ())
    }

    /// One poll, within the limits of a call with the largest batch.
    async fn poll(
        &self,
        live: &mut Live,
        cursor: Option<&Bytes>,
        facts: Facts<'_>,
    ) -> Result<Polled, CallError> {
        live.calls += 1;
        self.prepare(live, &Batch::default(), facts);
        let guest = live.store.data_mut();
        guest.begin(self.shared.limits.batch_events);
        guest.call.cursor = cursor.cloned();
        let answer = self.ask(live, cursor).await;
        let well = if answer.is_ok() { Well::Yes } else { Well::No };
        self.ended(live, facts, well, answer.as_ref().err());
        answer
    }

    async fn ask(&self, live: &mut Live, cursor: Option<&Bytes>) -> Result<Polled, CallError> {
        let func = live.func;
        let question: Question<'_> = (cursor.map(|cursor| &cursor[..]),);
        let events = self.shared.limits.batch_events;
        let called = self.run::<_, Polls>(live, func, question, events).await;
        let answer = called?.0.map_err(CallError::Failure)?;
        self.polled(answer).map_err(|why| {
            let broken = Broken::breach(format!("broken contract: {why}"));
            CallError::Broken(Box::new(broken))
        })
    }

    /// Keeps what is within the limits.
    fn polled(&self, answer: Answer) -> Result<Polled, String> {
        let (events, cursor) = (answer.events.len(), answer.cursor.len());
        if events > MOST_EVENTS {
            return Err(format!(
                "{events} events out of a poll, `events-polled` allows {MOST_EVENTS}"
            ));
        }
        if cursor > LARGEST_CURSOR {
            return Err(format!(
                "a cursor of {cursor} bytes, `cursor-bytes` allows {LARGEST_CURSOR}"
            ));
        }
        let batch = typed::batch_of(&answer.events, &self.shared.limits)?;
        Ok(Polled {
            batch: self.without_reserved(batch),
            cursor: answer.cursor.into(),
            more: answer.more,
            wait_ms: answer.wait_ms,
        })
    }
}
