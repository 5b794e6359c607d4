//! What handlers keep from one batch to the next, changed in the transaction of the batch.
//!
//! A handler works on what the store keeps for it and what batches before have changed since. Its
//! changes are [`Effects`](crate::Effects): committed with the batch, or void. They carry the
//! version that they were made from, and a commit whose version is not the store's is refused:
//! what was built on something that failed is built again.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;

use crate::{Name, TakeError};

/// Where a handler finds its state.
pub trait States: Send + Sync + fmt::Debug {
    /// All that was committed for a handler, by its name. May read from the disk.
    ///
    /// # Errors
    /// [`TakeError`]
    fn state(&self, handler: &Name) -> Result<SavedState, TakeError>;
}

/// No handler has any state: for handlers that are used by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stateless;

impl States for Stateless {
    fn state(&self, _handler: &Name) -> Result<SavedState, TakeError> {
        Ok(SavedState::default())
    }
}

/// The state of a handler as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedState {
    /// Counts the commits that changed it, since the store was opened.
    pub version: u64,
    pub values: BTreeMap<String, StateValue>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateValue {
    pub bytes: Bytes,
    /// Wall time from which on it counts as gone, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// What a batch changes of one handler's state.
#[derive(Debug, Clone)]
pub struct StateChange {
    pub handler: Name,
    /// The version it was made from. A change with writes makes the next one; one without only
    /// holds if this is still the version.
    pub from: u64,
    /// What is written under each key; `None` removes it.
    pub writes: BTreeMap<String, Option<StateValue>>,
    pub ticket: Ticket,
}

impl StateChange {
    /// The version after it.
    #[must_use]
    pub fn to(&self) -> u64 {
        self.from + u64::from(!self.writes.is_empty())
    }
}

/// Goes with a change until it is committed or void. Dropped before that, the change is void.
#[derive(Clone)]
pub struct Ticket(Arc<Inner>);

struct Inner {
    /// Whether it is committed; empty while that is not known.
    fate: Arc<OnceLock<bool>>,
    turn: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Said before if it was committed.
        let _void = self.fate.set(false).is_ok();
    }
}

/// What became of a change, for the handler that made it.
#[derive(Debug)]
pub struct Fate(Arc<OnceLock<bool>>);

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Pending,
    Committed,
    Void,
}

impl Ticket {
    /// A ticket for a change that is not committed.
    #[must_use]
    pub fn new() -> (Self, Fate) {
        let fate = Arc::new(OnceLock::new());
        let inner = Inner {
            fate: Arc::clone(&fate),
            turn: Mutex::new(None),
        };
        (Self(Arc::new(inner)), Fate(fate))
    }

    /// Holds the handler's turn, until it is passed on or nothing can be committed any more.
    pub fn hold(&self, turn: impl Any + Send + Sync) {
        let mut held = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Box::new(turn));
    }

    /// The commit has its place behind those before it: the handler may take the next batch.
    pub fn pass_on(&self) {
        let mut turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn.take());
    }

    /// The change is on disk.
    pub fn committed(&self) {
        let _first = self.0.fate.set(true).is_ok();
    }
}

impl Fate {
    /// How far the change has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match self.0.get() {
            None => Progress::Pending,
            Some(true) => Progress::Committed,
            Some(false) => Progress::Void,
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_tells_what_became_of_its_change() {
        let turn = Arc::new(());
        let (ticket, fate) = Ticket::new();
        ticket.hold(Arc::clone(&turn));
        let copy = ticket.clone();
        drop(ticket);
        assert_eq!(fate.progress(), Progress::Pending);
        copy.pass_on();
        assert_eq!(
            (Arc::strong_count(&turn), fate.progress()),
            (1, Progress::Pending)
        );
        copy.committed();
        drop(copy);
        assert_eq!(fate.progress(), Progress::Committed);
        let (ticket, fate) = Ticket::new();
        drop(ticket);
        assert_eq!(fate.progress(), Progress::Void);
    }
}
