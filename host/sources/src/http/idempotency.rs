//! `Idempotency-Key`: a request that comes again is answered again, and its events are stored once.
//!
//! What a key stood for is a mark of the put that stored its events, so both are on disk or
//! neither. There are [`KEPT`] marks, used in turn: what is written replaces what is oldest. A mark
//! is written on condition that it is what this source believes it to be. So whatever became of a
//! put whose outcome nobody waited for, the next one finds out in the writer, behind it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{HeaderMap, HeaderName},
};
use levada_core::{Ingest, MarkWrite, Put, PutError, marks::Expect};
use ring::digest::{Context, SHA256};
use tokio::{
    sync::{OnceCell, watch},
    time::timeout_at,
};

use super::answer::Refusal;

/// How many keys are remembered.
pub(crate) const KEPT: u64 = 100_000;

/// The header's name.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Most characters of a key.
const LONGEST: usize = 255;

/// The beginning of the marks' names.
const PREFIX: &str = "idempotency/";

/// A put of nothing under this mark ends behind every put before it.
const BARRIER: &str = "idempotency-start";

/// The first half of a SHA-256.
type Hash = [u8; 16];

/// What a request says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    key: Hash,
    body: Hash,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    claim: Claim,
    /// Counts the keys that were ever used; the slot is what is left of it by [`KEPT`].
    number: u64,
    events: u32,
}

/// What became of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Stored,
    /// It came before, with so many events.
    Before(usize),
}

/// The keys of one source.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    state: OnceCell<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Hash, Known>,
    slots: HashMap<u64, Known>,
    flights: HashMap<Hash, InFlight>,
    /// Numbers of puts whose outcome nobody waited for.
    uncertain: HashMap<Hash, u64>,
    next: u64,
}

#[derive(Debug)]
struct InFlight {
    body: Hash,
    ended: watch::Receiver<()>,
}

/// What to do about a request.
enum Step<'a> {
    Answer(usize),
    Wait(watch::Receiver<()>),
    Put(Flight<'a>),
}

/// A put under way. Dropped without an outcome, its number is tried again.
struct Flight<'a> {
    state: &'a Mutex<State>,
    known: Known,
    before: Option<Known>,
    outcome: Outcome,
    _ended: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Stored,
    NotStored,
}

impl Claim {
    /// The key of a request, with the hash of everything that its events are made of; `None`
    /// without a key.
    pub(crate) fn of(headers: &HeaderMap, parts: &[&[u8]]) -> Result<Option<Self>, Refusal> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        // A string of structured fields, or the bare text that most clients send.
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let text = quoted.unwrap_or(text);
        if !(1..=LONGEST).contains(&text.len()) || values.next().is_some() {
            let error = format!("`Idempotency-Key` is one text of 1 to {LONGEST} characters");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
        }
        Ok(Some(Self {
            key: hash(&[text.as_bytes()]),
            body: hash(parts),
        }))
    }
}

impl Keys {
    /// Puts what was claimed, unless it was put before. A request with the same key that is under
    /// way is waited for, as long as the put may wait.
    pub(crate) async fn put(
        &self,
        out: &dyn Ingest,
        claim: Claim,
        put: Put,
    ) -> Result<Taken, Refusal> {
        let refused = |error: PutError| Refusal::of_put(&error);
        let state = self
            .state
            .get_or_try_init(|| load(out))
            .await
            .map_err(refused)?;
        let events = u32::try_from(put.batch.len()).unwrap_or(u32::MAX);
        loop {
            let mut flight = match enter(state, claim, events)? {
                Step::Answer(events) => return Ok(Taken::Before(events)),
                Step::Wait(mut ended) => {
                    // The other side of the watch is dropped when the flight ends.
                    let waited = async { while ended.changed().await.is_ok() {} };
                    match put.deadline {
                        None => waited.await,
                        Some(deadline) => timeout_at(deadline, waited).await.map_err(|_| {
                            Refusal::busy("a request with this `Idempotency-Key` is under way")
                        })?,
                    }
                    continue;
                }
                Step::Put(flight) => flight,
            };
            let mut marked = put.clone();
            marked.marks.push(flight.mark());
            match out.put(marked).await {
                Ok(()) => {
                    flight.outcome = Outcome::Stored;
                    return Ok(Taken::Stored);
                }
                Err(PutError::Conflict { key }) => flight.overtaken(out.mark(&key)),
                Err(error) => {
                    flight.outcome = Outcome::NotStored;
                    return Err(refused(error));
                }
            }
        }
    }
}

/// Reads the marks, behind every put that was staged before: an earlier life of the source may have
/// left some.
async fn load(out: &dyn Ingest) -> Result<Mutex<State>, PutError> {
    let barrier = MarkWrite::set(BARRIER, Bytes::new());
    let put = Put {
        marks: vec![barrier],
        ..Put::default()
    };
    out.put(put).await?;
    let mut state = State::default();
    for (name, value) in out.marks().iter() {
        if let Some(known) = name.strip_prefix(PREFIX).and_then(|_| Known::read(value)) {
            state.next = state.next.max(known.number + 1);
            state.learn(known);
        }
    }
    Ok(Mutex::new(state))
}

fn enter(state: &Mutex<State>, claim: Claim, events: u32) -> Result<Step<'_>, Refusal> {
    let mut held = lock(state);
    let other_body = || {
        let error = "this `Idempotency-Key` was used with another body";
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error))
    };
    if let Some(known) = held.known.get(&claim.key) {
        if known.claim.body != claim.body {
            return other_body();
        }
        return Ok(Step::Answer(known.events as usize));
    }
    if let Some(flight) = held.flights.get(&claim.key) {
        if flight.body != claim.body {
            return other_body();
        }
        return Ok(Step::Wait(flight.ended.clone()));
    }
    let number = held.uncertain.remove(&claim.key).unwrap_or(held.next);
    held.next = held.next.max(number + 1);
    let (sender, ended) = watch::channel(());
    let body = claim.body;
    held.flights.insert(claim.key, InFlight { body, ended });
    Ok(Step::Put(Flight {
        before: held.slots.get(&(number % KEPT)).copied(),
        state,
        known: Known {
            claim,
            number,
            events,
        },
        outcome: Outcome::Unknown,
        _ended: sender,
    }))
}

impl Flight<'_> {
    /// The mark to commit with the events.
    fn mark(&self) -> MarkWrite {
        MarkWrite {
            key: name(self.known.number),
            value: Some(self.known.write()),
            expect: Expect::Exactly(self.before.map(|before| before.write())),
        }
    }

    /// The slot holds something else: what a put before left there. It may be our own.
    fn overtaken(&mut self, value: Option<Bytes>) {
        self.outcome = Outcome::NotStored;
        if let Some(found) = value.and_then(|value| Known::read(&value)) {
            lock(self.state).learn(found);
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = lock(self.state);
        state.flights.remove(&self.known.claim.key);
        match self.outcome {
            Outcome::Stored => state.learn(self.known),
            Outcome::NotStored => {}
            Outcome::Unknown => {
                let next = state.next;
                state.uncertain.retain(|_, number| *number + KEPT > next);
                state
                    .uncertain
                    .insert(self.known.claim.key, self.known.number);
            }
        }
    }
}

impl State {
    /// Remembers a key and forgets the one whose slot it took.
    fn learn(&mut self, known: Known) {
        if let Some(before) = self.slots.insert(known.number % KEPT, known)
            && self.known.get(&before.claim.key) == Some(&before)
        {
            self.known.remove(&before.claim.key);
        }
        self.known.insert(known.claim.key, known);
        self.next = self.next.max(known.number + 1);
    }
}

/// The version of a mark's value.
const VERSION: u8 = 1;

impl Known {
    /// Version, number, events, hash of the key, hash of the body: 45 bytes.
    fn write(&self) -> Bytes {
        let mut value = vec![VERSION];
        value.extend_from_slice(&self.number.to_be_bytes());
        value.extend_from_slice(&self.events.to_be_bytes());
        value.extend_from_slice(&self.claim.key);
        value.extend_from_slice(&self.claim.body);
        value.into()
    }

    fn read(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (events, rest) = rest.split_first_chunk()?;
        let (key, body) = rest.split_first_chunk()?;
        let body = Hash::try_from(body).ok()?;
        (*version == VERSION).then_some(Self {
            claim: Claim { key: *key, body },
            number: u64::from_be_bytes(*number),
            events: u32::from_be_bytes(*events),
        })
    }
}

fn name(number: u64) -> String {
    format!("{PREFIX}{}", number % KEPT)
}

/// The hash of some parts; where one ends and the next begins counts.
fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
