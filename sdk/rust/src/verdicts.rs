//! Writes the answer for a batch in packed form.

use crate::{Batch, Event, Failure, IntoVerdict, NewEvent, Patch, Verdict};

/// What begins every answer: the version of the form, and three bytes that are kept free.
const HEAD: [u8; 4] = [1, 0, 0, 0];

/// The most events that one operation covers.
const MAX_RUN: u32 = (1 << 24) - 1;

/// An answer's buffer that grew beyond this is given back after the call.
const KEPT_BYTES: usize = 256 * 1024;

/// The numbers of the operations.
const PASS: u32 = 0;
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
    answer: Vec<u8>,
    /// Events that pass and are not written yet.
    passing: u32,
    /// Where the last operation begins, if the next one may join it.
    last: Option<usize>,
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
        self.passing += 1;
        if self.passing == MAX_RUN {
            self.end_run();
        }
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
        self.operation(op, |out| {
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
        self.operation(REPLACE, |out| {
            for event in events {
                event.write(out);
            }
        });
    }

    /// The next event is gone on purpose, and counted under this reason.
    pub fn discard(&mut self, reason: &str) {
        self.with_reason(DISCARD, reason);
    }

    /// The next event cannot be handled, and is kept with this reason.
    pub fn reject(&mut self, reason: &str) {
        self.with_reason(REJECT, reason);
    }

    /// Makes ready for a batch, keeping the buffer.
    pub(crate) fn begin(&mut self) {
        if self.answer.capacity() > KEPT_BYTES {
            self.answer = Vec::new();
        }
        self.answer.clear();
        self.answer.extend_from_slice(&HEAD);
        self.passing = 0;
        self.last = None;
    }

    /// The answer, complete.
    pub(crate) fn finish(&mut self) -> &[u8] {
        self.end_run();
        &self.answer
    }

    /// Discards and rejects for the same reason that follow each other become one operation.
    fn with_reason(&mut self, op: u32, reason: &str) {
        self.end_run();
        if let Some(at) = self.last
            && let Some((head, payload)) = self.answer.get_mut(at..).and_then(split_operation)
            && payload == reason.as_bytes()
        {
            let word = u32::from_le_bytes(*head);
            if word & 0xff == op && word >> 8 < MAX_RUN {
                *head = (word + 0x100).to_le_bytes();
                return;
            }
        }
        let at = self.answer.len();
        self.operation(op, |out| out.extend_from_slice(reason.as_bytes()));
        self.last = Some(at);
    }

    fn end_run(&mut self) {
        if self.passing > 0 {
            self.answer
                .extend_from_slice(&(self.passing << 8 | PASS).to_le_bytes());
            self.answer.extend_from_slice(&[0; 4]);
            self.passing = 0;
            self.last = None;
        }
    }

    /// Writes an operation for one event.
    fn operation(&mut self, op: u32, payload: impl FnOnce(&mut Vec<u8>)) {
        self.end_run();
        self.last = None;
        self.answer.extend_from_slice(&(1 << 8 | op).to_le_bytes());
        let at = self.answer.len();
        self.answer.extend_from_slice(&[0; 4]);
        payload(&mut self.answer);
        let len = u32::try_from(self.answer.len() - at - 4).expect("memory here ends at 4 GiB");
        if let Some(field) = self.answer.get_mut(at..at + 4) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// The first word and the payload of the operation that ends the answer.
fn split_operation(bytes: &mut [u8]) -> Option<(&mut [u8; 4], &[u8])> {
    let (head, rest) = bytes.split_first_chunk_mut::<4>()?;
    Some((head, rest.get(4..)?))
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
