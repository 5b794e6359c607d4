//! What a handler keeps from one batch to the next. Needs the grant `state`.
//!
//! Writes are committed with the events of the batch, or not at all: a call that fails has written
//! nothing. A handler with state is given one batch after the other. Its memory is a cache, this is
//! not: what must outlive the instance belongs here.
//!
//! ```
//! use std::time::Duration;
//! use levada_sdk::{Event, Failure, Verdict, state};
//!
//! /// Lets each id pass once an hour.
//! fn once(event: &Event<'_>) -> Result<Verdict, Failure> {
//!     let Some(id) = event.header("id") else {
//!         return Ok(Verdict::pass());
//!     };
//!     if state::get(id).is_some() {
//!         return Ok(Verdict::discard("seen before"));
//!     }
//!     state::set_for(id, [], Duration::from_secs(3600))?;
//!     Ok(Verdict::pass())
//! }
//! ```

use std::{fmt, time::Duration};

use crate::{Failure, host};

/// Why a value was not written: the words of the host, which name the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateError(pub String);

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state was not written: {}", self.0)
    }
}

impl std::error::Error for StateError {}

impl From<StateError> for Failure {
    /// The batch comes again: what is in the way may be gone then.
    fn from(error: StateError) -> Self {
        Self::retry(error.to_string())
    }
}

/// The value under a key, or nothing if there is none or its time is over.
#[must_use]
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::state_get(key)
}

/// The value under a key as text; nothing if it is none.
#[must_use]
pub fn text(key: &str) -> Option<String> {
    String::from_utf8(get(key)?).ok()
}

/// Puts a value under a key of 1 byte to 1 KiB, for ever.
///
/// # Errors
/// [`StateError`] if a limit was reached; the old value stays then.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), StateError> {
    host::state_set(key, value.as_ref(), None).map_err(StateError)
}

/// Puts a value under a key, for so long; counted in whole seconds of wall time.
///
/// # Errors
/// [`StateError`] if a limit was reached; the old value stays then.
pub fn set_for(key: &str, value: impl AsRef<[u8]>, ttl: Duration) -> Result<(), StateError> {
    host::state_set(key, value.as_ref(), Some(seconds(ttl))).map_err(StateError)
}

/// Removes a key; one that is not there is no error.
pub fn remove(key: &str) {
    host::state_remove(key);
}

/// Adds to the number under a key, which is 0 if there is none; the sum. The number is kept as its
/// decimal text, and for as long as it was.
///
/// # Errors
/// [`StateError`] if what is there is no number, or a limit was reached.
pub fn increment(key: &str, by: f64) -> Result<f64, StateError> {
    host::state_increment(key, by, None).map_err(StateError)
}

/// Adds to the number under a key, which lives for so long from now on.
///
/// # Errors
/// [`StateError`] if what is there is no number, or a limit was reached.
pub fn increment_for(key: &str, by: f64, ttl: Duration) -> Result<f64, StateError> {
    host::state_increment(key, by, Some(seconds(ttl))).map_err(StateError)
}

/// Keys that begin so, in the order of their bytes: those after `after` if that is given, at most
/// `limit` and at most 1,000.
#[must_use]
pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    host::state_keys(prefix, after, limit)
}

/// Every key that begins so, in the order of their bytes.
#[must_use]
pub fn all_keys(prefix: &str) -> Vec<String> {
    const PAGE: u32 = 1000;
    let mut all = keys(prefix, None, PAGE);
    let mut last = all.len();
    while last == PAGE as usize {
        let more = keys(prefix, all.last().map(String::as_str), PAGE);
        last = more.len();
        all.extend(more);
    }
    all
}

/// At least a second: what lives for no time was never there.
fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX)
}
