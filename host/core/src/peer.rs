//! Whether a part has its other side: one word that sources and sinks report alike.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// Says for one part whether it has what it is connected to. Cheap to clone; every clone speaks of
/// the same part. A part that has no other side says nothing.
#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<Contact>>);

/// What a part said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Contact {
    /// Nothing: it has no other side, or has not tried yet.
    #[default]
    Unsaid,
    /// The other side is there.
    Connected,
    /// The other side is not there; the part tries again by itself.
    Waiting { why: String, since: Instant },
}

impl Peer {
    /// The other side is there.
    pub fn connected(&self) {
        *self.lock() = Contact::Connected;
    }

    /// The other side is not there, or not any more. The time of the first word in a row is kept.
    pub fn waiting(&self, why: impl fmt::Display) {
        let mut contact = self.lock();
        let since = match &*contact {
            Contact::Waiting { since, .. } => *since,
            Contact::Unsaid | Contact::Connected => Instant::now(),
        };
        let why = why.to_string();
        *contact = Contact::Waiting { why, since };
    }

    /// What was said last.
    #[must_use]
    pub fn contact(&self) -> Contact {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Contact> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}
