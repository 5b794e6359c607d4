//! The same for the guest and for the native yardstick.

use serde_json::Value;

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// Its level is the one that is not wanted.
    Drop,
    /// The body is not JSON.
    Malformed,
}

/// The level that is dropped.
pub const UNWANTED: &str = "debug";

/// Parses the whole body into a tree and looks at its level.
pub fn fate(body: &[u8]) -> Fate {
    match serde_json::from_slice::<Value>(body) {
        Ok(record) if record["level"] == UNWANTED => Fate::Drop,
        Ok(_) => Fate::Keep,
        Err(_) => Fate::Malformed,
    }
}
