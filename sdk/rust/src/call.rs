//! Facts about the call that is running. They cost nothing when unused.

use std::time::Duration;

use crate::host;

/// The source or sink the handler runs on, as named in the configuration: `sources.plant`.
#[must_use]
pub fn component() -> String {
    host::component()
}

/// The handler's own name in the configuration.
#[must_use]
pub fn handler() -> String {
    host::handler()
}

/// How often this batch was given to the handler, counted from 1.
#[must_use]
pub fn attempt() -> u32 {
    host::attempt()
}

/// A key that is the same for every attempt at the same events, and differs for others.
#[must_use]
pub fn batch_key() -> String {
    host::batch_key()
}

/// When the events were received: wall time in milliseconds since 1970.
#[must_use]
pub fn received_ms() -> f64 {
    host::received_ms()
}

/// How much of the call's deadline is left, in whole milliseconds.
#[must_use]
pub fn remaining() -> Duration {
    Duration::from_millis(host::remaining_ms().into())
}
