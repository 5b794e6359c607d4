//! When events happened.

use levada_sdk::{Event, call};

/// The header with the time, in milliseconds since 1970, as Flume's interceptor sets it.
const HEADER: &str = "timestamp";

const NANOS: u64 = 1_000_000;

/// Keeps the children of one event apart from those of the next thousands.
const STRIDE: u64 = 7_919;

/// When an event happened, in milliseconds since 1970: what its header `timestamp` says, or when its
/// batch was received. The latter may be another time when the event comes again.
#[must_use]
pub fn millis(event: &Event<'_>) -> u64 {
    let said = event.header(HEADER).and_then(|text| text.parse().ok());
    // A float becomes the nearest number that there is.
    said.unwrap_or_else(|| call::received_ms() as u64)
}

/// The same in nanoseconds, with the event's own number below the millisecond: two events are not
/// taken for one, and one that comes again is the same. `place` stands in for the number where
/// events have no ids.
#[must_use]
pub fn nanos(place: usize, event: &Event<'_>) -> u64 {
    let number = match event.id() {
        Some(id) => id.sequence % NANOS + u64::from(id.child) % NANOS * STRIDE,
        None => place as u64,
    };
    millis(event)
        .saturating_mul(NANOS)
        .saturating_add(number % NANOS)
}

#[cfg(test)]
mod tests;
