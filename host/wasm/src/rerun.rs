//! Calls that are recorded, and recorded calls that run again.

use std::sync::Arc;

use levada_core::{Batch, PartId, PartKind, interceptor::Call};

use crate::{
    HandlerSpec, Handlers, LoadError, Recording, Role, Sight, TapParams,
    broken::Broken,
    event::EventText,
    handlers::{admit, look},
    instance::{CallError, Facts, Mould},
    record::{End, Fault, Head, Tape, differences},
    rescue::{self, Guilty, Piece, Unfinished, error_of},
    state::{Lent, State},
    tap::Taps,
    verdicts::Outcome,
};

/// A call and its recording.
#[derive(Debug)]
pub struct Recorded {
    /// `None` if the guest asked for more than a recording holds.
    pub recording: Option<Recording>,
    /// What became of the events.
    pub sights: Vec<Sight>,
}

/// A recorded call that ran again.
#[derive(Debug)]
pub struct Replayed {
    /// What is not as it was recorded, one line each; nothing if all is the same.
    pub differences: Vec<String>,
    /// What became of the events.
    pub sights: Vec<Sight>,
    /// The digest of the component that ran.
    pub digest: String,
}

impl Handlers {
    /// Makes one call with a whole batch, on an instance of its own and without a second try, and
    /// records it. Of a component with several roles the first that takes events is called.
    ///
    /// # Errors
    /// [`LoadError`]: there was no call.
    pub async fn record(
        &self,
        part: &PartId,
        spec: &HandlerSpec,
        batch: &Batch,
        call: &Call<'_>,
    ) -> Result<Recorded, LoadError> {
        let (seen, bytes) = look(spec).await?;
        let mut roles = admit(&seen, &spec.grants)?.into_iter();
        let role = roles.find(|role| takes_events(*role));
        let role = role.ok_or_else(|| LoadError::NoRole {
            found: "a source, which is given no events".into(),
        })?;
        let component = self.component(&seen.digest, bytes).await?;
        let shared = self.shared(part, spec, role, (&seen.digest, Arc::default()))?;
        let mould = self.mould(spec, role, &seen, (&component, shared))?;
        let state = spec.grants.state;
        let state = state.map(|cap| State::new(part.name.clone(), cap));
        let session = match &state {
            None => None,
            Some(state) => {
                let now_ms = mould.shared.clock.wall_ms();
                let session = state.begin(call.states, now_ms).await;
                Some(session.map_err(|error| LoadError::Start {
                    reason: format!("the handler's state cannot be read: {error}"),
                })?)
            }
        };
        let lent = Lent::new(session);
        let facts = Facts {
            part: call.part,
            attempt: call.attempt,
            received_ms: call.received_ms,
            state: &lent,
        };
        let tape = Tape::records(&mould.shared.masks);
        let batch = batch.clone().into_canonical().into_compact();
        let (called, tape) = once(&mould, tape, &batch, facts).await?;
        let fault = broken_of(&called).cloned();
        let recording =
            tape.and_then(|tape| recording(&mould, tape, &batch, facts, fault.as_ref()));
        let sights = sights(called, &batch, call.part);
        Ok(Recorded { recording, sights })
    }

    /// Runs a recorded call again with the component of a handler; of its other settings nothing
    /// counts. Nothing outside is asked, no grant is needed.
    ///
    /// # Errors
    /// [`LoadError`]: the component cannot be called so.
    pub async fn replay(
        &self,
        spec: &HandlerSpec,
        recording: &Recording,
    ) -> Result<Replayed, LoadError> {
        let head = &recording.head;
        let mut again = HandlerSpec::new(&spec.component);
        again.limits = head.limits.clone();
        again.limits.delivery_deadline = again.limits.deadline;
        let (seen, bytes) = look(&again).await?;
        let missing = |reason: String| LoadError::Start { reason };
        if !seen.roles.contains(&head.role) || !takes_events(head.role) {
            let role = head.role.interface();
            return Err(missing(format!(
                "it is no `{role}`, as the recorded one was"
            )));
        }
        let component = self.component(&seen.digest, bytes).await?;
        let part = PartId::parse(&format!("{}.{}", PartKind::Handlers.as_str(), head.handler));
        let named = part.zip(PartId::parse(&head.on));
        let (part, on) = named.ok_or_else(|| missing("the recording names no handler".into()))?;
        let shared = self.shared(&part, &again, head.role, (&seen.digest, Arc::default()))?;
        let mould = self.mould(&again, head.role, &seen, (&component, shared))?;
        let batch = EventText::batch(&head.events).map_err(|error| missing(error.to_string()))?;
        let lent = Lent::new(None);
        let facts = Facts {
            part: &on,
            attempt: 1,
            received_ms: head.at_ms,
            state: &lent,
        };
        let (called, tape) = once(&mould, Tape::replays(recording), &batch, facts).await?;
        let broken = broken_of(&called);
        Ok(Replayed {
            differences: differences(&recording.end, tape, broken),
            sights: sights(called, &batch, &on),
            digest: seen.digest,
        })
    }
}

/// A source is polled: there is no batch to call it with.
fn takes_events(role: Role) -> bool {
    match role {
        Role::PackedInterceptor | Role::Interceptor | Role::PackedSink | Role::Sink => true,
        Role::Source => false,
    }
}

type Called = Result<Box<Outcome>, CallError>;

/// One call of a fresh instance, with its tape.
async fn once(
    mould: &Mould,
    tape: Tape,
    batch: &Batch,
    facts: Facts<'_>,
) -> Result<(Called, Option<Tape>), LoadError> {
    let both = async {
        let mut live = mould.instantiate(Some(tape)).await?;
        mould.check(&live)?;
        let called = mould.call(&mut live, batch, facts).await;
        Ok((called, live.take_tape()))
    };
    let done: Result<_, Box<Broken>> = mould.where_it_lives(both).await;
    done.map_err(|broken| LoadError::Start {
        reason: broken.reason,
    })
}

fn broken_of(called: &Called) -> Option<&Broken> {
    match called {
        Err(CallError::Broken(broken)) => Some(broken),
        Ok(_) | Err(CallError::Failure(_)) => None,
    }
}

/// A call as a tap shows it.
fn sights(called: Called, batch: &Batch, on: &PartId) -> Vec<Sight> {
    let whole = 0..batch.len();
    let taps = Taps::default();
    let tap = taps.open(TapParams {
        when: None,
        room: batch.len() + 1,
        excerpt: usize::MAX,
        after: usize::MAX,
    });
    let piece = |end| {
        let range = whole.clone();
        Ok(vec![Piece { range, end }])
    };
    let handled = match called {
        Ok(outcome) => piece(rescue::End::Handled(outcome)),
        Err(CallError::Broken(broken)) if batch.len() == 1 => {
            let broken = Arc::from(broken);
            piece(rescue::End::Guilty(Guilty {
                broken,
                attempts: 1,
            }))
        }
        Err(error) => Err(Unfinished {
            pieces: Vec::new(),
            said: matches!(error, CallError::Failure(_)),
            error: match error {
                CallError::Failure(failure) => error_of(failure),
                CallError::Broken(broken) => levada_core::InterceptError::Broken {
                    reason: broken.reason,
                    after: None,
                },
            },
        }),
    };
    taps.show(on, batch, &whole, &handled);
    let mut tap = tap.expect("it is the first one");
    std::iter::from_fn(|| tap.try_next()).collect()
}

/// What was recorded of a call; nothing if that was too much.
fn recording(
    mould: &Mould,
    tape: Tape,
    batch: &Batch,
    facts: Facts<'_>,
    broken: Option<&Broken>,
) -> Option<Recording> {
    let shared = &mould.shared;
    let (exchanges, answer) = tape.into_written()?;
    let masks = &shared.masks;
    let fault = broken.map(|broken| {
        let mut fault = Fault::from(broken);
        fault.reason = masks.text(fault.reason);
        fault.backtrace = fault.backtrace.map(|text| masks.text(text));
        fault
    });
    let events = batch.iter().enumerate();
    let events = events.map(|(at, event)| EventText::of(event, batch.origins().get(at)));
    Some(Recording {
        head: Head {
            levada_recording: Head::VERSION,
            host: env!("CARGO_PKG_VERSION").into(),
            at_ms: shared.clock.wall_ms(),
            handler: shared.name.clone(),
            digest: shared.digest.clone(),
            component: shared.component.clone(),
            role: mould.role,
            on: facts.part.to_string(),
            limits: shared.limits.clone(),
            masked: masks.names.clone(),
            events: events.collect(),
        },
        exchanges,
        end: End { answer, fault },
    })
}

/// Keeps the recording of a call that failed; where it is. Does file I/O, briefly.
pub(crate) fn keep(
    mould: &Mould,
    tape: Tape,
    batch: &Batch,
    facts: Facts<'_>,
    broken: &Broken,
) -> Option<String> {
    let shared = &mould.shared;
    let shelf = shared.shelf.as_ref()?;
    let handler = &shared.name;
    let Some(recording) = recording(mould, tape, batch, facts, Some(broken)) else {
        tracing::warn!(%handler, "the call was too large to be recorded");
        return None;
    };
    let chance = shared.chance.bits();
    match levada_core::tasks::in_place(|| shelf.put(&recording, chance)) {
        Ok(path) => Some(path.display().to_string()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%handler, %error, cause, "the call that failed is not recorded");
            None
        }
    }
}
