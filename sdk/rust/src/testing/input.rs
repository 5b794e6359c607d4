//! Batches made by hand, in the form the host gives.

use std::{fmt, time::Duration};

use super::{BrokenAnswer, Delivered, EventOut, Outcome, answer, host};
use crate::{
    Batch, Event, Failure, Id, IntoOutcome, IntoVerdict, NewEvent, Outcomes, Polled, Verdicts,
    internals,
};

/// A batch for a test.
#[derive(Debug, Clone, Default)]
pub struct Input {
    events: Vec<NewEvent>,
    /// One for each event, or none.
    ids: Vec<Id>,
}

/// Why a batch gave no outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotHandled {
    /// The handler said so.
    Failure(Failure),
    /// The verdicts do not fit the batch.
    Broken(BrokenAnswer),
}

impl Input {
    /// A batch without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    #[must_use]
    pub fn event<'h>(
        mut self,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        body: impl AsRef<[u8]>,
    ) -> Self {
        let event = NewEvent::new(body.as_ref());
        let set = |event: NewEvent, (name, value): (&str, &str)| event.set(name, value);
        self.events.push(headers.into_iter().fold(event, set));
        self
    }

    /// Gives each event an id, as in a durable channel: `000102030405060708090a0b0c0d0e0f-1.0` and
    /// so on.
    #[must_use]
    pub fn with_ids(mut self) -> Self {
        let incarnation = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
        let id = |sequence| Id {
            incarnation,
            sequence,
            child: 0,
        };
        self.ids = (1..).take(self.events.len()).map(id).collect();
        self
    }

    /// The batch in packed form: its index and its events.
    #[must_use]
    pub fn packed(&self) -> (Vec<u8>, Vec<u8>) {
        let mut ids = self.ids.iter();
        let mut index = match self.ids.is_empty() {
            true => vec![1, 0, 16, 0],
            false => vec![1, 1, 48, 0],
        };
        let mut events = Vec::new();
        index.extend_from_slice(&word(self.events.len()));
        for event in &self.events {
            let start = events.len();
            event.write(&mut events);
            let body = events.len() - event.body_bytes().len();
            let count = event.header_pairs().len();
            // The count of pairs is one varint before them; a map without pairs is its end alone.
            let ahead = if count == 0 { 0 } else { varint_len(count) };
            index.extend_from_slice(&word(start + ahead));
            index.extend_from_slice(&word(count));
            index.extend_from_slice(&word(body));
            index.extend_from_slice(&word(event.body_bytes().len()));
            if let Some(id) = ids.next() {
                index.extend_from_slice(&id.incarnation);
                index.extend_from_slice(&[0; 4]);
                index.extend_from_slice(&id.sequence.to_le_bytes());
                index.extend_from_slice(&id.child.to_le_bytes());
            }
        }
        (index, events)
    }

    /// Reads a batch in packed form.
    ///
    /// # Errors
    /// [`Failure`] if the form is not the one that the SDK knows.
    pub fn read(index: &[u8], events: &[u8]) -> Result<Self, Failure> {
        let own = |event: Event<'_>| NewEvent::like(&event, event.body());
        let batch = Batch::parse(index, events)?;
        Ok(Self {
            events: batch.iter().map(own).collect(),
            ids: batch.iter().filter_map(|event| event.id()).collect(),
        })
    }

    /// Asks a function about each event.
    ///
    /// # Errors
    /// [`NotHandled`] if the function failed the batch.
    pub fn run<T: IntoVerdict>(
        &self,
        function: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Vec<Outcome>, NotHandled> {
        self.run_batch(|batch, verdicts| internals::each(batch, verdicts, function))
    }

    /// Gives a function the whole batch.
    ///
    /// # Errors
    /// [`NotHandled`] if the function failed the batch, or left an event without a verdict.
    pub fn run_batch(
        &self,
        function: impl FnOnce(&Batch<'_>, &mut Verdicts) -> Result<(), Failure>,
    ) -> Result<Vec<Outcome>, NotHandled> {
        let answer = self.answer(function).map_err(NotHandled::Failure)?;
        answer::outcomes(&self.events, &answer).map_err(NotHandled::Broken)
    }

    /// Gives the function of a sink each event.
    ///
    /// # Errors
    /// [`NotHandled`] if the function failed the batch.
    pub fn deliver<T: IntoOutcome>(
        &self,
        function: impl FnMut(&Event<'_>) -> T,
    ) -> Result<Vec<Delivered>, NotHandled> {
        self.deliver_batch(|batch, outcomes| internals::each_outcome(batch, outcomes, function))
    }

    /// Gives the function of a sink the whole batch.
    ///
    /// # Errors
    /// [`NotHandled`] if the function failed the batch, or left an event without an outcome.
    pub fn deliver_batch(
        &self,
        function: impl FnOnce(&Batch<'_>, &mut Outcomes) -> Result<(), Failure>,
    ) -> Result<Vec<Delivered>, NotHandled> {
        let answer = self.deliveries(function).map_err(NotHandled::Failure)?;
        answer::delivered(&self.events, &answer).map_err(NotHandled::Broken)
    }

    /// Gives the function of a sink the whole batch; its answer in packed form, unread.
    ///
    /// # Errors
    /// [`Failure`] if the function failed the batch.
    pub fn deliveries(
        &self,
        function: impl FnOnce(&Batch<'_>, &mut Outcomes) -> Result<(), Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let (index, events) = self.packed();
        let mut outcomes = Outcomes::default();
        outcomes.begin();
        function(&Batch::parse(&index, &events)?, &mut outcomes)?;
        Ok(outcomes.finish().to_vec())
    }

    /// Gives a function the whole batch; its answer in packed form, unread.
    ///
    /// # Errors
    /// [`Failure`] if the function failed the batch.
    pub fn answer(
        &self,
        function: impl FnOnce(&Batch<'_>, &mut Verdicts) -> Result<(), Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let (index, events) = self.packed();
        let mut verdicts = Verdicts::default();
        verdicts.begin();
        let batch = Batch::parse(&index, &events)?;
        keeping_state(|| function(&batch, &mut verdicts))?;
        Ok(verdicts.finish().to_vec())
    }
}

/// Calls a timer.
///
/// # Errors
/// [`Failure`] if it said so; it has changed no state then.
pub fn tick(
    timer: impl FnOnce() -> Result<Vec<NewEvent>, Failure>,
) -> Result<Vec<EventOut>, Failure> {
    let events = keeping_state(timer)?;
    Ok(events.iter().map(EventOut::of).collect())
}

/// What a source gave, for a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolledOut {
    pub events: Vec<EventOut>,
    pub cursor: Vec<u8>,
    pub more: bool,
    pub wait: Duration,
}

/// Polls a source from a cursor, or from the beginning.
///
/// # Errors
/// [`Failure`] if it said so.
pub fn poll(
    source: impl FnOnce(Option<&[u8]>) -> Result<Polled, Failure>,
    cursor: Option<&[u8]>,
) -> Result<PolledOut, Failure> {
    let polled = keeping_state(|| source(cursor))?;
    Ok(PolledOut {
        events: polled.events.iter().map(EventOut::of).collect(),
        cursor: polled.cursor,
        more: polled.more,
        wait: polled.wait,
    })
}

/// Runs a call; one that fails has written nothing.
fn keeping_state<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let before = host::state();
    let called = call();
    if called.is_err() {
        host::put_back(before);
    }
    called
}

impl fmt::Display for NotHandled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(failure) => failure.fmt(f),
            Self::Broken(broken) => broken.fmt(f),
        }
    }
}

impl std::error::Error for NotHandled {}

fn word(number: usize) -> [u8; 4] {
    u32::try_from(number)
        .expect("a test's batch is under 4 GiB")
        .to_le_bytes()
}

/// The bytes of a length as a zigzag varint.
fn varint_len(len: usize) -> usize {
    let mut bytes = 1;
    let mut rest = len >> 6;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}
