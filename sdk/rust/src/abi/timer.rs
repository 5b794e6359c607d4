//! The timer's border.

use super::{Kept, events::EventList, kept, lower_failure};
use crate::{Failure, NewEvent};

/// What the last tick gave, as the host reads it.
#[derive(Default)]
pub(super) struct Ticked {
    events: EventList,
    failure: Option<Failure>,
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
        Ok(events) => ticked.events = EventList::new(events),
        Err(failure) => ticked.failure = Some(failure),
    }
    *result = match &ticked.failure {
        Some(failure) => lower_failure(failure),
        None => {
            let [at, count] = ticked.events.lower();
            [0, at, count, 0, 0, 0]
        }
    };
    result.as_ptr().cast()
}
