//! Writes the answer for a batch in packed form.

use crate::{Batch, Event, Failure, IntoVerdict, NewEvent, Patch, Verdict, answer::Answer};

/// The numbers of the operations.
const PATCH: u32 = 1;
const PATCH_AND_BODY: u32 = 2;
const REPLACE: u32 = 3;
const DISCARD: u32 = 4;
const REJECT: u32 = 5;

/// The verdicts about a batch, one for each event, in the order of the batch.
///
/// Each call is about the next event. A batch that is left without a verdict for each of its events
/// breaks the contract, and counts as not handled.
#[derive(Debug, Default)]
pub struct Verdicts {
    answer: Answer,
}

impl Verdicts {
    /// The next event gets this verdict.
    pub fn push(&mut self, verdict: impl Into<Verdict>) {
        match verdict.into() {
            Verdict::Pass => self.pass(),
            Verdict::Patch(patch) => self.patch(&patch),
            Verdict::Replace(events) => self.replace(&events),
            Verdict::Discard(reason) => self.discard(&reason),
            Verdict::Reject(reason) => self.reject(&reason),
        }
    }

    /// The next event goes on unchanged.
    pub fn pass(&mut self) {
        self.answer.plain();
    }

    /// The next event goes on with other headers or another body.
    pub fn patch(&mut self, patch: &Patch) {
        if let Some(fault) = patch.fault() {
            return self.reject(fault);
        }
        let op = if patch.new_body().is_some() {
            PATCH_AND_BODY
        } else {
            PATCH
        };
        self.answer.operation(op, |out| {
            patch.write_headers(out);
            out.extend_from_slice(patch.new_body().unwrap_or_default());
        });
    }

    /// These go on in place of the next event.
    pub fn replace(&mut self, events: &[NewEvent]) {
        if events.is_empty() {
            return self.reject("replaced by no event");
        }
        if let Some(fault) = events.iter().find_map(NewEvent::fault) {
            return self.reject(fault);
        }
        self.answer.operation(REPLACE, |out| {
            for event in events {
                event.write(out);
            }
        });
    }

    /// The next event is gone on purpose, and counted under this reason.
    pub fn discard(&mut self, reason: &str) {
        self.answer.joined(DISCARD, &[], reason);
    }

    /// The next event cannot be handled, and is kept with this reason.
    pub fn reject(&mut self, reason: &str) {
        self.answer.joined(REJECT, &[], reason);
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

/// Asks a function about each event.
///
/// # Errors
/// The first [`Failure`] that it gives; the verdicts until then are void.
#[inline]
pub fn each<T: IntoVerdict>(
    batch: &Batch<'_>,
    verdicts: &mut Verdicts,
    mut function: impl FnMut(&Event<'_>) -> T,
) -> Result<(), Failure> {
    for event in batch {
        match function(&event).into_verdict()? {
            Verdict::Pass => verdicts.pass(),
            other => verdicts.push(other),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
