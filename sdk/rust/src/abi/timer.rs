//! The timer's border: events on their way to the host.

use super::{Kept, address, kept, length, lower_failure};
use crate::{Failure, NewEvent};

/// What the last tick gave, as the host reads it.
#[derive(Default)]
pub(super) struct Ticked {
    events: Vec<NewEvent>,
    failure: Option<Failure>,
    /// Name and value of every header: address and length of each.
    headers: Vec<[u32; 4]>,
    /// Headers and body of every event: address and length of each.
    records: Vec<[u32; 4]>,
}

/// Answers one call of `timer.tick`.
///
/// What is returned points to a `result<list<event>, failure>`, valid until the next call.
///
/// # Safety
/// Only for the host.
#[inline]
pub unsafe fn tick(handler: impl FnOnce() -> Result<Vec<NewEvent>, Failure>) -> *const u8 {
    // SAFETY: as the function wants it.
    let Kept { ticked, result, .. } = unsafe { kept() };
    *ticked = Ticked::default();
    match handler() {
        Ok(events) => ticked.events = events,
        Err(failure) => ticked.failure = Some(failure),
    }
    *result = match &ticked.failure {
        Some(failure) => lower_failure(failure),
        None => ticked.lower(),
    };
    result.as_ptr().cast()
}

impl Ticked {
    fn lower(&mut self) -> [u32; 6] {
        for event in &self.events {
            for (name, value) in event.header_pairs() {
                let (name, value) = (name.as_bytes(), value.as_bytes());
                let header = [address(name), length(name), address(value), length(value)];
                self.headers.push(header);
            }
        }
        // All are there: they do not move any more.
        let mut rest = &self.headers[..];
        for event in &self.events {
            let (own, others) = rest.split_at(event.header_pairs().len());
            rest = others;
            let body = event.body_bytes();
            let headers = own.as_ptr().addr() as u32;
            self.records
                .push([headers, own.len() as u32, address(body), length(body)]);
        }
        let records = self.records.as_ptr().addr() as u32;
        [0, records, self.records.len() as u32, 0, 0, 0]
    }
}
