//! A loaded handler as a sink.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    Delivery, Hop, InterceptError, Lease, Marks, OpenError, Outcome, Outcomes, Reject, RunContext,
    Sink, SinkError,
};

use crate::{
    OnReject, OnTrap,
    handler::{Handler, calls_of},
    instance::Facts,
    rescue::{End, Guilty, Piece, Unfinished},
    state::Lent,
    verdicts::Outcome as Said,
};

/// A handler that can give events away. Clones share instances, limits and breaker.
#[derive(Debug, Clone)]
pub struct SinkHandler {
    handler: Arc<Handler>,
    in_flight: usize,
}

impl SinkHandler {
    pub(crate) fn new(handler: Handler, in_flight: usize) -> Self {
        Self {
            handler: Arc::new(handler),
            in_flight,
        }
    }

    /// A sink of this handler.
    #[must_use]
    pub fn sink(&self) -> Box<dyn Sink> {
        Box::new(HandlerSink(self.clone()))
    }
}

#[derive(Debug)]
struct HandlerSink(SinkHandler);

#[async_trait]
impl Sink for HandlerSink {
    /// Loading has shown that the handler starts; what it delivers to, it finds out.
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        Ok(())
    }

    /// Calls the guest with the lease, in calls of bounded size, one after the other. What a call
    /// said holds, also when a later one fails.
    async fn deliver(&self, lease: &Lease, cx: &RunContext) -> Result<Delivery, SinkError> {
        let handler = &self.0.handler;
        let batch = lease.batch.clone().into_canonical().into_compact();
        let state = Lent::new(None);
        let facts = Facts {
            state: &state,
            part: &cx.part,
            attempt: lease.attempts.saturating_add(1),
            received_ms: lease.received_ms,
        };
        let _slot = handler.slot().await;
        let mut taken = Taken::new(handler, batch.len());
        for range in calls_of(&batch, handler.limits()) {
            match handler.attempt(&batch, range, facts).await {
                Ok(pieces) => taken.pieces(pieces),
                Err(Unfinished { pieces, error, .. }) => {
                    taken.pieces(pieces);
                    return taken.unfinished(&error);
                }
            }
        }
        Ok(taken.delivery())
    }

    fn window(&self) -> usize {
        self.0.in_flight
    }
}

/// What became of the events of a lease, so far.
struct Taken<'a> {
    handler: &'a Handler,
    /// Retry until something else is known.
    outcomes: Vec<Outcome>,
    /// Why, for each that is dead, with its place.
    rejects: Vec<(usize, Reject)>,
    after: Option<Duration>,
    why: Option<String>,
    /// Whether there is any event of which something is known.
    any: bool,
}

impl<'a> Taken<'a> {
    fn new(handler: &'a Handler, events: usize) -> Self {
        Self {
            handler,
            outcomes: vec![Outcome::Retry; events],
            rejects: Vec::new(),
            after: None,
            why: None,
            any: false,
        }
    }

    /// Adds the pieces of a call.
    fn pieces(&mut self, pieces: Vec<Piece>) {
        for Piece { range, end } in pieces {
            self.any = true;
            match end {
                End::Handled(said) => self.said(range, *said),
                End::Guilty(guilty) | End::Known(guilty) => self.guilty(range.start, &guilty),
            }
        }
    }

    fn said(&mut self, range: Range<usize>, said: Said) {
        self.handler.count(said.counts);
        self.outcomes[range.clone()].fill(Outcome::Done);
        for again in said.again {
            self.outcomes[range.start + again.place] = Outcome::Retry;
            // The longest wait that was asked for: nobody is asked again too early.
            self.after = self.after.max(again.after);
            self.why = Some(again.reason);
        }
        for (place, reason) in said.rejected {
            let reject = Reject {
                handler: Some(self.handler.shared().digest.clone()),
                ..Reject::from(reason)
            };
            match self.handler.on_reject() {
                OnReject::DeadLetter => self.dead(range.start + place, reject),
                // An event that no one takes cannot pass.
                OnReject::Discard | OnReject::Pass => {
                    self.outcomes[range.start + place] = Outcome::Discard;
                }
            }
        }
    }

    fn guilty(&mut self, place: usize, guilty: &Guilty) {
        let handler = self.handler;
        handler.shared().meters.guilty.add(1);
        let broken = &guilty.broken;
        match handler.on_trap {
            OnTrap::DeadLetter | OnTrap::Stop => {
                let (name, reason, at) = (&handler.part.name, &broken.reason, broken.at());
                tracing::warn!(handler = %name, %reason, at, "event set aside: the handler fails on it");
                let reject = Reject {
                    reason: broken.reason.clone(),
                    limit: broken.limit.map(|limit| limit.as_str().to_owned()),
                    backtrace: broken.backtrace.clone(),
                    handler: Some(handler.shared().digest.clone()),
                    attempts: Some(guilty.attempts),
                    recording: broken.recording.clone(),
                };
                self.dead(place, reject);
            }
            OnTrap::Discard | OnTrap::Pass => self.outcomes[place] = Outcome::Discard,
        }
    }

    fn dead(&mut self, place: usize, reject: Reject) {
        self.outcomes[place] = Outcome::Dead;
        self.rejects.push((place, reject));
    }

    fn delivery(mut self) -> Delivery {
        if self
            .outcomes
            .iter()
            .all(|outcome| *outcome == Outcome::Done)
        {
            return Delivery::done();
        }
        self.rejects.sort_by_key(|(place, _)| *place);
        Delivery {
            outcomes: Outcomes::Each(self.outcomes),
            rejects: self.rejects.into_iter().map(|(_, reject)| reject).collect(),
            retry_after: self.after,
            retry_why: self.why,
            ..Delivery::default()
        }
    }

    /// The handler failed before the end of the lease: what it said until then holds, the rest
    /// comes again.
    fn unfinished(mut self, error: &InterceptError) -> Result<Delivery, SinkError> {
        if !self.any {
            return Err(sink_error(error));
        }
        self.why = Some(error.to_string());
        if let InterceptError::Later { after, .. } | InterceptError::Broken { after, .. } = error {
            self.after = self.after.max(*after);
        }
        Ok(self.delivery())
    }
}

fn sink_error(error: &InterceptError) -> SinkError {
    let what = error.to_string();
    let source = None;
    match error {
        InterceptError::Later { after, .. } | InterceptError::Broken { after, .. } => {
            SinkError::Refused {
                what,
                after: *after,
                source,
            }
        }
        _ => SinkError::Fatal { what, source },
    }
}
