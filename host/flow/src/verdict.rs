//! What a sink's answer means: how the lease is settled, and when to go on.

use std::{collections::HashMap, time::Duration};

use levada_core::{
    Counter, DeadLetter, Delivery, Effects, Lease, MarkWrite, Outcome, Outcomes, PartId, Reject,
    Settlement, SinkError, ledger::channel_part,
};

use crate::{
    attempts::{Attempts, positions},
    supervise::chain_text,
};

/// How to settle a lease and what to do then.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) settlement: Settlement,
    /// Whether the sink wants to hear when the settlement is on disk.
    pub(crate) confirm: bool,
    pub(crate) tally: Tally,
    pub(crate) then: Then,
}

/// Events by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) retry: u64,
    pub(crate) dead: u64,
    pub(crate) discarded: u64,
}

/// What comes after the settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    /// Wait before the next batch.
    Hold {
        why: Why,
        after: Option<Duration>,
        error: String,
    },
    /// A human is needed.
    Stop {
        error: String,
    },
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Unreachable,
    Refused,
}

/// The facts a verdict needs beside the answer.
pub(crate) struct Case<'a> {
    pub(crate) part: &'a PartId,
    pub(crate) lease: &'a Lease,
    pub(crate) now_ms: u64,
}

impl Case<'_> {
    /// Judges what a sink answered.
    pub(crate) fn judge(
        &self,
        answer: Result<Delivery, SinkError>,
        attempts: &mut Attempts,
    ) -> Verdict {
        match answer {
            Ok(delivery) => self.delivered(delivery, attempts),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &SinkError) -> Verdict {
        let text = chain_text(error);
        let then = match error {
            SinkError::Unreachable { .. } => Then::Hold {
                why: Why::Unreachable,
                after: None,
                error: text,
            },
            SinkError::Fatal { .. } => Then::Stop { error: text },
            SinkError::Refused { after, .. } => Then::Hold {
                why: Why::Refused,
                after: *after,
                error: text,
            },
            _ => Then::Hold {
                why: Why::Refused,
                after: None,
                error: text,
            },
        };
        let tally = Tally {
            retry: self.lease.batch.len() as u64,
            ..Tally::default()
        };
        let settlement = self.settlement(Outcomes::Retry, Effects::default(), Vec::new(), false);
        Verdict {
            settlement,
            confirm: false,
            tally,
            then,
        }
    }

    fn delivered(&self, delivery: Delivery, attempts: &mut Attempts) -> Verdict {
        let events = self.lease.batch.len();
        let Delivery {
            outcomes,
            rejects,
            marks,
            confirm,
            retry_after,
            retry_why,
        } = delivery;
        if outcomes == Outcomes::Done && !attempts.is_limited() {
            let tally = Tally {
                done: events as u64,
                ..Tally::default()
            };
            let settlement = self.settlement(outcomes, Effects::default(), marks, confirm);
            return Verdict {
                settlement,
                confirm,
                tally,
                then: Then::GoOn,
            };
        }
        let mut each: Vec<_> = (0..events).map(|n| outcomes.get(n)).collect();
        let mut rejects = rejects.into_iter();
        let mut given_up = self.give_up(&mut each, attempts);
        let mut effects = Effects::default();
        for n in (0..events).filter(|n| each[*n] == Outcome::Dead) {
            let given_up = given_up.remove(&n).map(Reject::from);
            let reject = given_up.or_else(|| rejects.next());
            let reject = reject.unwrap_or_else(|| String::from("no reason given").into());
            effects.dead_letters.push(self.letter(n, reject));
        }
        let tally = Tally::of(&each);
        let channel = channel_part(&self.lease.channel);
        effects.count_reason(&channel, Counter::Discarded, "sink", tally.discarded);
        let then = if tally.retry == 0 {
            Then::GoOn
        } else {
            let mut error = format!("{} of {events} events are to be tried again", tally.retry);
            if let Some(why) = retry_why {
                error.push_str(": ");
                error.push_str(&why);
            }
            Then::Hold {
                why: Why::Refused,
                after: retry_after,
                error,
            }
        };
        let outcomes = if tally.done == events as u64 {
            Outcomes::Done
        } else {
            Outcomes::Each(each)
        };
        // A receiver's mark may go beyond an event that left another way: after a crash it would pass
        // for delivered, unless this is on disk before anything behind it is sent.
        let durable = confirm || tally.dead + tally.discarded > 0;
        let settlement = self.settlement(outcomes, effects, marks, durable);
        Verdict {
            settlement,
            confirm,
            tally,
            then,
        }
    }

    /// Turns each retry too many into a dead letter; the reason of each, by place.
    fn give_up(&self, each: &mut [Outcome], attempts: &mut Attempts) -> HashMap<usize, String> {
        let mut given_up = HashMap::new();
        if !attempts.is_limited() {
            return given_up;
        }
        let lane = self.lease.lane;
        for ((n, outcome), position) in each.iter_mut().enumerate().zip(positions(self.lease)) {
            if *outcome != Outcome::Retry {
                attempts.forget(lane, position);
            } else if let Some(tries) = attempts.retry(lane, position) {
                attempts.forget(lane, position);
                *outcome = Outcome::Dead;
                given_up.insert(n, format!("not delivered in {tries} attempts"));
            }
        }
        given_up
    }

    fn letter(&self, n: usize, reject: Reject) -> DeadLetter {
        let lease = self.lease;
        let Reject {
            reason,
            limit,
            backtrace,
            handler,
            recording,
            attempts,
        } = reject;
        DeadLetter {
            event: lease.batch.event_bytes(n).unwrap_or_default(),
            origin: lease.batch.origins().get(n),
            part: self.part.clone(),
            flow: channel_part(&lease.channel),
            reason,
            limit,
            backtrace,
            handler,
            recording,
            attempts: attempts.unwrap_or_else(|| lease.attempts.saturating_add(1)),
            at_ms: self.now_ms,
        }
    }

    fn settlement(
        &self,
        outcomes: Outcomes,
        effects: Effects,
        marks: Vec<MarkWrite>,
        durable: bool,
    ) -> Settlement {
        Settlement {
            part: self.part.clone(),
            outcomes,
            marks,
            effects,
            durable,
        }
    }
}

impl Tally {
    fn of(each: &[Outcome]) -> Self {
        let mut tally = Self::default();
        for outcome in each {
            *match outcome {
                Outcome::Done => &mut tally.done,
                Outcome::Retry => &mut tally.retry,
                Outcome::Dead => &mut tally.dead,
                Outcome::Discard => &mut tally.discarded,
            } += 1;
        }
        tally
    }
}
