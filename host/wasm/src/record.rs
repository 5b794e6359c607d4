//! Recordings: one call on an instance of its own, with everything the guest asked and was
//! answered, so that it runs again bit for bit.
//!
//! All that is not the same every time reaches a guest through the host: facts of the call,
//! settings, state, tables, secrets, answers of servers, clocks, random numbers. While a call is
//! recorded the host answers and writes both down; while it is replayed the answers are read from
//! the recording, nothing outside is touched, and the first question that differs ends the call.
//! Limits are enforced both times. What a guest is told that follows from what it said (`text`,
//! the inert rest of WASI) is answered anew.
//!
//! Secrets are not written: see [`Masks`].

mod compare;
mod file;
mod mask;
mod store;

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use compare::differences;
pub(crate) use file::{End, Fault, Head};
pub use file::{Recording, RecordingError};
pub(crate) use mask::{Masks, header_mask};
pub(crate) use store::Shelf;

use crate::guest::Guest;

/// Bytes of questions and answers up to which a call is recorded.
const LARGEST: usize = 32 << 20;

/// A question of a guest and what it was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// The interface and the function, such as `state.get`.
    pub(crate) ask: String,
    /// What it was asked with, one after the other.
    pub(crate) with: Value,
    /// The answer, alone in a list; none if the call ended before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<(Value,)>,
}

/// What runs along with the calls of one instance.
#[derive(Debug)]
pub(crate) enum Tape {
    Records(Written),
    Replays(Read),
}

/// What was asked so far, to be kept.
#[derive(Debug)]
pub(crate) struct Written {
    masks: Arc<Masks>,
    exchanges: Vec<Exchange>,
    bytes: usize,
    answer: Option<Value>,
}

/// What is yet to be asked.
#[derive(Debug)]
pub(crate) struct Read {
    left: VecDeque<Exchange>,
    asked: usize,
    answer: Option<Value>,
    stopped: Option<Stopped>,
}

/// Why a replayed call was ended by its recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Here the recorded one ended, too: while the host had the word.
    AsRecorded,
    /// The guest asked something else.
    Differs(String),
}

impl Tape {
    pub(crate) fn records(masks: &Arc<Masks>) -> Self {
        Self::Records(Written {
            masks: Arc::clone(masks),
            exchanges: Vec::new(),
            bytes: 0,
            answer: None,
        })
    }

    pub(crate) fn replays(recording: &Recording) -> Self {
        Self::Replays(Read {
            left: recording.exchanges.iter().cloned().collect(),
            asked: 0,
            answer: None,
            stopped: None,
        })
    }

    /// A question; its answer if that is known.
    fn ask<A: DeserializeOwned>(&mut self, ask: &str, with: Value) -> Result<Option<A>, String> {
        match self {
            Self::Records(written) => {
                written.ask(ask, with);
                Ok(None)
            }
            Self::Replays(read) => read.ask(ask, &with).map(Some),
        }
    }

    fn answer(&mut self, answer: Value) {
        if let Self::Records(written) = self {
            written.answered(answer);
        }
    }

    /// The questions and the guest's own answer; nothing if there was too much to keep.
    pub(crate) fn into_written(self) -> Option<(Vec<Exchange>, Option<Value>)> {
        match self {
            Self::Records(written) if written.bytes <= LARGEST => {
                Some((written.exchanges, written.answer))
            }
            Self::Records(_) | Self::Replays(_) => None,
        }
    }

    /// What the guest answers to the call itself.
    fn end(&mut self, end: Value) {
        match self {
            Self::Records(written) => {
                let masked = written.masks.mask(end);
                written.bytes += weight(&masked);
                written.answer = Some(masked);
            }
            Self::Replays(read) => read.answer = Some(end),
        }
    }
}

impl Written {
    fn ask(&mut self, ask: &str, with: Value) {
        let with = self.masks.mask(with);
        self.bytes = self.bytes.saturating_add(ask.len() + weight(&with));
        if self.bytes <= LARGEST {
            self.exchanges.push(Exchange {
                ask: ask.to_owned(),
                with,
                answer: None,
            });
        }
    }

    fn answered(&mut self, answer: Value) {
        let answer = self.masks.mask(answer);
        self.bytes = self.bytes.saturating_add(weight(&answer));
        if self.bytes <= LARGEST
            && let Some(last) = self.exchanges.last_mut()
        {
            last.answer = Some((answer,));
        }
    }
}

impl Read {
    fn ask<A: DeserializeOwned>(&mut self, ask: &str, with: &Value) -> Result<A, String> {
        self.asked += 1;
        let now = shown(ask, with);
        let Some(known) = self.left.pop_front() else {
            return self.differs(&format!(
                "{now} was asked, the recording has no more questions"
            ));
        };
        if known.ask != ask || known.with != *with {
            let then = shown(&known.ask, &known.with);
            return self.differs(&format!("{then} was recorded, {now} is asked now"));
        }
        let Some((answer,)) = known.answer else {
            self.stopped = Some(Stopped::AsRecorded);
            return Err("the recorded call ended here".into());
        };
        match serde_json::from_value(answer) {
            Ok(answer) => Ok(answer),
            Err(error) => self.differs(&format!("the recorded answer to {now} is none: {error}")),
        }
    }

    fn differs<A>(&mut self, what: &str) -> Result<A, String> {
        let what = format!("question {}: {what}", self.asked);
        self.stopped = Some(Stopped::Differs(what.clone()));
        Err(what)
    }

    /// What came of it: the guest's own answer, why it was stopped, and the next question that it
    /// did not ask.
    pub(crate) fn into_parts(self) -> (Option<Value>, Option<Stopped>, Option<String>) {
        let next = self.left.front();
        let next = next.map(|left| shown(&left.ask, &left.with));
        (self.answer, self.stopped, next)
    }
}

impl Guest {
    /// The recorded answer to a question, if the call is replayed.
    ///
    /// # Errors
    /// The guest asked something else than was recorded: the call ends.
    pub(crate) fn known<W: Serialize, A: DeserializeOwned>(
        &mut self,
        ask: &str,
        with: &W,
    ) -> wasmtime::Result<Option<A>> {
        match &mut self.tape {
            None => Ok(None),
            Some(tape) => tape.ask(ask, value(with)).map_err(wasmtime::Error::msg),
        }
    }

    /// The host has answered the last question.
    pub(crate) fn answered<A: Serialize>(&mut self, answer: &A) {
        if let Some(tape) = &mut self.tape {
            tape.answer(value(answer));
        }
    }

    /// The guest has come back from the call with this.
    pub(crate) fn came_back<A: Serialize>(&mut self, answer: impl FnOnce() -> A) {
        if let Some(tape) = &mut self.tape {
            tape.end(value(&answer()));
        }
    }
}

/// A question for people.
fn shown(ask: &str, with: &Value) -> String {
    const LONGEST: usize = 200;
    let text = with.to_string();
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    let mut chars = inner.chars();
    let start: String = chars.by_ref().take(LONGEST).collect();
    let rest = if chars.next().is_some() { "..." } else { "" };
    format!("`{ask}({start}{rest})`")
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("our types have text keys only")
}

/// About as many bytes as it has in a file.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(values) => values.iter().map(|value| weight(value) + 1).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| name.len() + weight(value) + 4)
            .sum(),
    }
}

#[cfg(test)]
mod tests;
