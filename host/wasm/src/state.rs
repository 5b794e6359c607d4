//! The state of one handler, as its batches see it: what is committed, and what was changed since.
//!
//! One batch at a time has it. Its changes go into its effects when it ends, and are taken back
//! when it fails; the next batch begins on them before they are on disk. When a change turns out to
//! be void, all is read from the store again: what was built on it is refused there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use levada_core::{
    ByteSize, Name, StateChange, States, TakeError,
    state::{Fate, Progress, StateValue, Ticket},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Bytes that an entry counts beside its key and its value.
const ENTRY: usize = 32;

/// Bytes of a key.
const LONGEST_KEY: usize = 1024;

/// Keys that are listed at once.
const MOST_LISTED: usize = 1000;

/// The state of one handler.
#[derive(Debug)]
pub(crate) struct State {
    handler: Name,
    cap: ByteSize,
    kept: Arc<Mutex<Kept>>,
}

/// What is known of it.
#[derive(Debug, Default)]
struct Kept {
    values: Values,
    /// The version that the next change is made from.
    version: u64,
    /// Changes that were not known to be committed, the oldest first.
    pending: VecDeque<Fate>,
    /// Whether the store was asked.
    read: bool,
}

impl State {
    pub(crate) fn new(handler: Name, cap: ByteSize) -> Self {
        Self {
            handler,
            cap,
            kept: Arc::default(),
        }
    }

    /// Waits for its turn, and begins a batch at this wall time. Safe to cancel.
    ///
    /// # Errors
    /// What the store says if it has to be asked.
    pub(crate) async fn begin(
        &self,
        states: &dyn States,
        now_ms: u64,
    ) -> Result<Box<Session>, TakeError> {
        let mut kept = Arc::clone(&self.kept).lock_owned().await;
        kept.look();
        if !kept.read {
            let saved = levada_core::tasks::in_place(|| states.state(&self.handler))?;
            *kept = Kept {
                values: Values::of(saved.values),
                version: saved.version,
                pending: VecDeque::new(),
                read: true,
            };
        }
        let mut session = Box::new(Session {
            handler: self.handler.clone(),
            cap: self.cap,
            kept: Some(kept),
            now_ms,
            undo: Vec::new(),
            settled: 0,
            touched: false,
        });
        session.expire();
        Ok(session)
    }
}

impl Kept {
    /// Looks what became of the changes before.
    fn look(&mut self) {
        while let Some(Progress::Committed) = self.pending.front().map(Fate::progress) {
            self.pending.pop_front();
        }
        let void = |fate: &Fate| fate.progress() == Progress::Void;
        if self.pending.iter().any(void) {
            self.read = false;
        }
    }
}

/// A batch that has the state. Dropped before [`finish`](Self::finish), it has changed nothing.
#[derive(Debug)]
pub(crate) struct Session {
    handler: Name,
    cap: ByteSize,
    kept: Option<OwnedMutexGuard<Kept>>,
    now_ms: u64,
    /// What was under each key before it was written, in the order of the writes.
    undo: Vec<(String, Option<StateValue>)>,
    /// Writes that belong to calls that ended well.
    settled: usize,
    /// Whether anything was read or written.
    touched: bool,
}

/// Why a value cannot be written, for the guest.
pub(crate) type Refusal = String;

impl Session {
    fn kept(&mut self) -> &mut Kept {
        self.kept
            .as_mut()
            .expect("only `finish` and `drop` take it")
    }

    /// Takes away what time has run out for.
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        while let Some(key) = self.kept().values.first_expired(now_ms) {
            self.write(key, None);
        }
        self.settled = self.undo.len();
    }

    /// The writes of the call that ended are to be committed.
    pub(crate) fn keep(&mut self) {
        self.settled = self.undo.len();
    }

    /// The writes of the call that ended are void.
    pub(crate) fn take_back(&mut self) {
        let to = self.settled;
        self.roll_back(to);
    }

    fn roll_back(&mut self, to: usize) {
        while self.undo.len() > to {
            let Some((key, before)) = self.undo.pop() else {
                return;
            };
            self.kept().values.put(key, before);
        }
    }

    /// Ends the batch: what is to be committed with it, if that is anything.
    pub(crate) fn finish(mut self) -> Option<StateChange> {
        self.take_back();
        let keys: BTreeSet<_> = self.undo.drain(..).map(|(key, _)| key).collect();
        let mut kept = self.kept.take()?;
        // What was only read holds if what it was read from does.
        let settled = kept.pending.is_empty() || !self.touched;
        if keys.is_empty() && settled {
            return None;
        }
        let value = |key: String| {
            let value = kept.values.map.get(&key).cloned();
            (key, value)
        };
        let writes: BTreeMap<_, _> = keys.into_iter().map(value).collect();
        let from = kept.version;
        kept.version += u64::from(!writes.is_empty());
        let (ticket, fate) = Ticket::new();
        kept.pending.push_back(fate);
        ticket.hold(kept);
        Some(StateChange {
            handler: self.handler.clone(),
            from,
            writes,
            ticket,
        })
    }

    /// The value under a key.
    pub(crate) fn get(&mut self, key: &str) -> Option<Bytes> {
        self.touched = true;
        let value = self.kept().values.map.get(key)?;
        Some(value.bytes.clone())
    }

    /// Puts a value under a key, for some seconds if that is said.
    pub(crate) fn set(
        &mut self,
        key: String,
        bytes: Vec<u8>,
        ttl_s: Option<u32>,
    ) -> Result<(), Refusal> {
        self.touched = true;
        let expires_ms = ttl_s.map(|seconds| self.after(seconds));
        let bytes = Bytes::from(bytes);
        self.store(key, StateValue { bytes, expires_ms })
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, key: String) {
        self.touched = true;
        if self.kept().values.map.contains_key(&key) {
            self.write(key, None);
        }
    }

    /// Adds to the number under a key, which is 0 if there is none. A number is kept as its text.
    /// A time to live begins anew if it is given, and goes on if not.
    pub(crate) fn increment(
        &mut self,
        key: String,
        by: f64,
        ttl_s: Option<u32>,
    ) -> Result<f64, Refusal> {
        self.touched = true;
        let before = self.kept().values.map.get(&key);
        let number = match before {
            None => 0.0,
            Some(value) => number(&value.bytes)
                .ok_or_else(|| format!("what is kept under `{key}` is no number"))?,
        };
        let sum = number + by;
        if !sum.is_finite() {
            return Err(format!("the sum under `{key}` is no finite number"));
        }
        let expires_ms = before.and_then(|value| value.expires_ms);
        let expires_ms = ttl_s.map_or(expires_ms, |seconds| Some(self.after(seconds)));
        let bytes = Bytes::from(sum.to_string());
        self.store(key, StateValue { bytes, expires_ms })?;
        Ok(sum)
    }

    /// Keys that begin so, in order.
    pub(crate) fn keys(&mut self, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        self.touched = true;
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Excluded(after),
            None => Included(prefix),
        };
        let map = &self.kept().values.map;
        let keys = map.range::<str, _>((from, Unbounded)).map(|(key, _)| key);
        let limit = usize::try_from(limit)
            .unwrap_or(MOST_LISTED)
            .min(MOST_LISTED);
        let own = keys.take_while(|key| key.starts_with(prefix));
        own.take(limit).cloned().collect()
    }

    fn after(&self, seconds: u32) -> u64 {
        self.now_ms.saturating_add(u64::from(seconds) * 1000)
    }

    fn store(&mut self, key: String, value: StateValue) -> Result<(), Refusal> {
        if !(1..=LONGEST_KEY).contains(&key.len()) {
            let bytes = key.len();
            return Err(format!(
                "a key of {bytes} bytes; 1 to {LONGEST_KEY} are allowed"
            ));
        }
        let cap = self.cap;
        let values = &self.kept().values;
        let freed = values.map.get(&key).map_or(0, |old| cost(&key, old));
        if values.bytes - freed + cost(&key, &value) > cap.as_usize() {
            return Err(format!("the limit `state-bytes` of {cap} was reached"));
        }
        self.write(key, Some(value));
        Ok(())
    }

    fn write(&mut self, key: String, value: Option<StateValue>) {
        let before = self.kept().values.put(key.clone(), value);
        self.undo.push((key, before));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.kept.is_some() {
            self.roll_back(0);
        }
    }
}

/// The session of a batch, for its calls: one after the other has it.
#[derive(Debug)]
pub(crate) struct Lent(std::sync::Mutex<Option<Box<Session>>>);

impl Lent {
    pub(crate) fn new(session: Option<Box<Session>>) -> Self {
        Self(std::sync::Mutex::new(session))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends it to a call; nothing if the handler has no state.
    pub(crate) fn take(&self) -> Option<Box<Session>> {
        self.lock().take()
    }

    /// Takes it back after a call; what a call has written that did not end well is void.
    pub(crate) fn give_back(&self, session: Option<Box<Session>>, ended_well: Well) {
        let Some(mut session) = session else {
            return;
        };
        match ended_well {
            Well::Yes => session.keep(),
            Well::No => session.take_back(),
        }
        *self.lock() = Some(session);
    }

    /// Ends the batch: what is to be committed with it.
    pub(crate) fn finish(self) -> Option<StateChange> {
        self.take()?.finish()
    }
}

/// Whether a call ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Well {
    Yes,
    No,
}

/// Values by key, with what they cost and when they expire.
#[derive(Debug, Default)]
struct Values {
    map: BTreeMap<String, StateValue>,
    bytes: usize,
    expiries: BTreeSet<(u64, String)>,
}

impl Values {
    fn of(map: BTreeMap<String, StateValue>) -> Self {
        let mut values = Self::default();
        for (key, value) in map {
            values.put(key, Some(value));
        }
        values
    }

    /// Puts or removes a value; the one before.
    fn put(&mut self, key: String, value: Option<StateValue>) -> Option<StateValue> {
        let before = self.map.remove(&key);
        if let Some(old) = &before {
            self.bytes -= cost(&key, old);
            if let Some(at) = old.expires_ms {
                self.expiries.remove(&(at, key.clone()));
            }
        }
        if let Some(value) = value {
            self.bytes += cost(&key, &value);
            if let Some(at) = value.expires_ms {
                self.expiries.insert((at, key.clone()));
            }
            self.map.insert(key, value);
        }
        before
    }

    fn first_expired(&self, now_ms: u64) -> Option<String> {
        let (at, key) = self.expiries.first()?;
        (*at <= now_ms).then(|| key.clone())
    }
}

fn cost(key: &str, value: &StateValue) -> usize {
    ENTRY + key.len() + value.bytes.len()
}

/// The number that a text is.
fn number(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
