//! Writes the answer of a sink in packed form.

use std::time::Duration;

use crate::{Batch, Event, Failure, IntoOutcome, Outcome, answer::Answer};

/// The numbers of the operations.
const REJECT: u32 = 5;
const RETRY: u32 = 6;

/// A wait that the host decides.
const ANY_WAIT: u32 = u32::MAX;

/// What became of the events of a batch, one after the other, in the order of the batch.
///
/// Each call is about the next event. A batch that is left without an outcome for each of its
/// events breaks the contract, and counts as not delivered.
#[derive(Debug, Default)]
pub struct Outcomes {
    answer: Answer,
}

impl Outcomes {
    /// The next event has this outcome.
    pub fn push(&mut self, outcome: impl Into<Outcome>) {
        match outcome.into() {
            Outcome::Done => self.done(),
            Outcome::Retry { reason, after } => self.retry(&reason, after),
            Outcome::Reject(reason) => self.reject(&reason),
        }
    }

    /// The next event is there for good.
    pub fn done(&mut self) {
        self.answer.plain();
    }

    /// The next event comes again, not before `after` if that is given.
    pub fn retry(&mut self, reason: &str, after: Option<Duration>) {
        let wait = after.map_or(ANY_WAIT, |wait| {
            u32::try_from(wait.as_millis()).map_or(ANY_WAIT - 1, |ms| ms.min(ANY_WAIT - 1))
        });
        self.answer.joined(RETRY, &wait.to_le_bytes(), reason);
    }

    /// The next event never can be taken, and is kept with this reason.
    pub fn reject(&mut self, reason: &str) {
        self.answer.joined(REJECT, &[], reason);
    }

    /// Every event of the batch has the same outcome.
    pub fn all(&mut self, batch: &Batch<'_>, outcome: &Outcome) {
        for _ in batch {
            self.push(outcome.clone());
        }
    }

    /// Makes ready for a batch, keeping the buffer.
    pub(crate) fn begin(&mut self) {
        self.answer.begin();
    }

    /// The answer, complete.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.answer.finish()
    }
}

/// Gives a function each event.
///
/// A failure of the batch would say of the events before it, too, that they are not delivered. So
/// what the function fails with after the first event is said of that event and all behind it: they
/// come again, and what is fatal is met at once then.
///
/// # Errors
/// What the first event fails with.
#[inline]
pub fn each_outcome<T: IntoOutcome>(
    batch: &Batch<'_>,
    outcomes: &mut Outcomes,
    mut function: impl FnMut(&Event<'_>) -> T,
) -> Result<(), Failure> {
    for (n, event) in batch.iter().enumerate() {
        match function(&event).into_outcome() {
            Ok(Outcome::Done) => outcomes.done(),
            Ok(other) => outcomes.push(other),
            Err(failure) if n == 0 => return Err(failure),
            Err(failure) => {
                let outcome = Outcome::from(failure);
                (n..batch.len()).for_each(|_| outcomes.push(outcome.clone()));
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
