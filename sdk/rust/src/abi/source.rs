//! The border of a source: a cursor from the host, events and a cursor to it.

use super::{Kept, Lowered, address, events::EventList, kept, length, lower_failure};
use crate::{Failure, Polled};

/// What the last poll gave, as the host reads it.
#[derive(Default)]
pub(super) struct Answer {
    events: EventList,
    cursor: Vec<u8>,
    failure: Option<Failure>,
    result: [u32; 7],
}

/// Answers one call of `source.poll`.
///
/// What is returned points to a `result<polled, failure>`, valid until the next call.
///
/// # Safety
/// Only for the host, with an optional list that was lowered for this call with `cabi_realloc`.
#[inline]
pub unsafe fn poll(
    given: u32,
    cursor: *mut u8,
    cursor_len: usize,
    handler: impl FnOnce(Option<&[u8]>) -> Result<Polled, Failure>,
) -> *const u8 {
    // SAFETY: the caller's promise; without a list its address and length are 0.
    let cursor = unsafe { Lowered::new(cursor, cursor_len) };
    // SAFETY: as the function wants it.
    let Kept { polled, .. } = unsafe { kept() };
    *polled = Answer::default();
    polled.result = match handler((given != 0).then_some(&cursor[..])) {
        Ok(answer) => polled.lower(answer),
        Err(failure) => {
            let failure = polled.failure.insert(failure);
            let [case, rest @ ..] = lower_failure(failure);
            [case, rest[0], rest[1], rest[2], rest[3], rest[4], 0]
        }
    };
    polled.result.as_ptr().cast()
}

impl Answer {
    /// Everything is aligned to 4; of the word of a truth value the first byte counts.
    fn lower(&mut self, answer: Polled) -> [u32; 7] {
        let wait_ms = u32::try_from(answer.wait.as_millis()).unwrap_or(u32::MAX);
        let more = u32::from(answer.more);
        self.events = EventList::new(answer.events);
        self.cursor = answer.cursor;
        let [at, count] = self.events.lower();
        let cursor = &self.cursor;
        [0, at, count, address(cursor), length(cursor), more, wait_ms]
    }
}
