//! What becomes of each event of a delivery: the one place where a sink's answers, typed or packed,
//! are read alike.

use std::time::Duration;

use serde::Serialize;
use wasmtime::component::{ComponentType, Lift};

use crate::{
    rescue::LONGEST_WAIT,
    typed::Later,
    verdicts::{Again, Breach, Outcome, Said, reason_of},
};

/// `outcomes.outcome`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(variant)]
pub(crate) enum Delivered {
    #[component(name = "done")]
    Done,
    #[component(name = "retry")]
    Retry(Later),
    #[component(name = "reject")]
    Reject(String),
}

/// `outcomes.outcomes`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(variant)]
pub(crate) enum AllDelivered {
    #[component(name = "all-done")]
    AllDone,
    #[component(name = "each")]
    Each(Vec<Delivered>),
}

/// Takes one outcome after the other, in the order of the events.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    at: usize,
    outcome: Box<Outcome>,
}

impl Deliveries {
    pub(crate) fn done(&mut self, n: usize) {
        self.at += n;
        self.outcome.say(n, Said::Done, None);
        self.outcome.counts.done += n as u64;
    }

    pub(crate) fn reject(&mut self, n: usize, reason: &str) {
        let reason = reason_of(reason);
        self.outcome.say(n, Said::Reject, Some(reason.clone()));
        let rejected = (self.at..self.at + n).map(|place| (place, reason.clone()));
        self.outcome.rejected.extend(rejected);
        self.outcome.counts.reject += n as u64;
        self.at += n;
    }

    pub(crate) fn retry(&mut self, n: usize, after: Option<Duration>, reason: &str) {
        let after = after.map(|after| after.min(LONGEST_WAIT));
        let reason = reason_of(reason);
        self.outcome.say(n, Said::Retry, Some(reason.clone()));
        let again = (self.at..self.at + n).map(|place| Again {
            place,
            after,
            reason: reason.clone(),
        });
        self.outcome.again.extend(again);
        self.outcome.counts.retry += n as u64;
        self.at += n;
    }

    /// What became of the events, once every event has its outcome.
    pub(crate) fn finish(self) -> Box<Outcome> {
        self.outcome
    }
}

/// Reads a typed answer about so many events. One with a wrong number of outcomes is void.
///
/// # Errors
/// [`Breach`]
pub(crate) fn apply(answer: AllDelivered, events: usize) -> Result<Box<Outcome>, Breach> {
    let mut deliveries = Deliveries::default();
    let each = match answer {
        AllDelivered::AllDone => {
            deliveries.done(events);
            return Ok(deliveries.finish());
        }
        AllDelivered::Each(each) => each,
    };
    if each.len() != events {
        return Err(Breach {
            place: None,
            event: each.len().min(events),
            why: format!("{} outcomes for {events} events", each.len()),
        });
    }
    for outcome in each {
        match outcome {
            Delivered::Done => deliveries.done(1),
            Delivered::Retry(later) => {
                let after = later.after_ms.map(|ms| Duration::from_millis(ms.into()));
                deliveries.retry(1, after, &later.reason);
            }
            Delivered::Reject(reason) => deliveries.reject(1, &reason),
        }
    }
    Ok(deliveries.finish())
}

#[cfg(test)]
mod tests;
