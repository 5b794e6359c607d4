//! Wall time. With the grant `wall-clock` it moves; without it stands still within a call, so that
//! a call can be repeated.

use crate::host;

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    host::now_ms()
}
