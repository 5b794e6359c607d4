//! What a source gives.

use std::time::Duration;

use crate::NewEvent;

/// What one poll of a source gave. The events and the cursor are committed together, or not at all.
///
/// ```
/// use std::time::Duration;
/// use levada_sdk::{NewEvent, Polled};
///
/// let polled = Polled::new("17").event(NewEvent::new("the seventeenth")).more();
/// assert_eq!(polled.cursor, b"17");
/// let nothing_new = Polled::new("17").wait(Duration::from_secs(30));
/// assert!(nothing_new.events.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polled {
    /// In their order: at most 10,000, and 8 MiB with everything else.
    pub events: Vec<NewEvent>,
    /// Where the next poll goes on: bytes that nobody else reads, at most 64 KiB.
    pub cursor: Vec<u8>,
    /// Whether there is more to get now: the next poll then follows at once. Without events there
    /// is no more, whatever this says.
    pub more: bool,
    /// How long to wait until the next poll if there is no more: at least 100 ms, at most what the
    /// operator lets it.
    pub wait: Duration,
}

impl Polled {
    /// No events yet; the next poll goes on from this cursor.
    pub fn new(cursor: impl Into<Vec<u8>>) -> Self {
        Self {
            cursor: cursor.into(),
            ..Self::default()
        }
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }

    /// There is more to get now.
    #[must_use]
    pub fn more(self) -> Self {
        Self { more: true, ..self }
    }

    /// The next poll comes after this wait, counted in whole milliseconds, if there is no more now.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}
