//! The frame of an answer: its head, and operations that cover the events one after the other.

use crate::{Limits, verdicts::Breach};

use super::{STRIDE, STRIDE_WITH_ID, VERSION};

/// Bytes of an operation before its payload.
const OPERATION: usize = 8;

/// The operations that a role has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    Interceptor,
    Sink,
}

impl Words {
    fn has(self, code: u32) -> bool {
        match self {
            Self::Interceptor => code <= 5,
            Self::Sink => matches!(code, 0 | 5 | 6),
        }
    }

    /// Bytes of a record of the index at most.
    fn stride(self) -> u16 {
        match self {
            Self::Interceptor => STRIDE,
            Self::Sink => STRIDE_WITH_ID,
        }
    }

    fn whose(self) -> &'static str {
        match self {
            Self::Interceptor => "an interceptor",
            Self::Sink => "a sink",
        }
    }
}

/// Reads one operation after the other, and sees that each event is covered once.
pub(super) struct Frame<'a> {
    pub(super) answer: &'a [u8],
    words: Words,
    at: usize,
    /// The operation that is looked at.
    op: usize,
    /// Operations that were read, and events that they cover.
    ops: usize,
    covered: usize,
    events: usize,
}

/// One operation that is about events which are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) code: u32,
    /// The first event that it covers, and how many.
    pub(super) event: usize,
    pub(super) n: usize,
    /// Where its payload begins and ends.
    pub(super) from: usize,
    pub(super) end: usize,
}

impl<'a> Frame<'a> {
    /// Reads the head of an answer about so many events with so many bytes.
    pub(super) fn open(
        answer: &'a [u8],
        (events, bytes): (usize, usize),
        limits: &Limits,
        words: Words,
    ) -> Result<Self, Breach> {
        let mut frame = Self {
            answer,
            words,
            at: 0,
            op: 0,
            ops: 0,
            covered: 0,
            events,
        };
        let allowed = limits.answer_of(bytes + 8 + events * usize::from(words.stride()));
        if answer.len() > allowed {
            let why = format!("an answer of {} bytes, {allowed} are allowed", answer.len());
            return frame.breach(0, 0, why);
        }
        match answer.get(..4) {
            Some([VERSION, 0, 0, 0]) => frame.at = 4,
            Some([VERSION, ..]) => return frame.breach(1, 0, "reserved bytes that are not zero"),
            Some([version, ..]) => {
                return frame.breach(0, 0, format!("version {version} is not known"));
            }
            _ if answer.is_empty() => return frame.breach(0, 0, "an empty answer"),
            _ => return frame.breach(0, 0, "an answer that ends inside its head"),
        }
        Ok(frame)
    }

    /// The next operation; none once every event is covered.
    pub(super) fn next(&mut self) -> Result<Option<Operation>, Breach> {
        let (start, event) = (self.at, self.covered);
        self.op = self.ops;
        if start == self.answer.len() {
            let left = self.events - event;
            if left > 0 {
                return self.breach(start, event, format!("{left} events are not covered"));
            }
            return Ok(None);
        }
        let Some(head) = self.answer.get(start..start + OPERATION) else {
            return self.breach(start, event, "an operation that ends inside its head");
        };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (code, n) = (word(0) & 0xff, (word(0) >> 8) as usize);
        if !self.words.has(code) {
            let whose = self.words.whose();
            let why = format!("operation {code} is not one of {whose}");
            return self.breach(start, event, why);
        }
        if n == 0 {
            return self.breach(start + 1, event, "an operation that covers no event");
        }
        let left = self.events - event;
        if n > left {
            let why = format!("{n} events covered where {left} are left");
            return self.breach(start + 1, event, why);
        }
        if n > 1 && (code == 2 || code == 3) {
            let why = format!("operation {code} covers one event only");
            return self.breach(start + 1, event, why);
        }
        let from = start + OPERATION;
        let end = from.saturating_add(word(4) as usize);
        if end > self.answer.len() {
            return self.breach(start + 4, event, "a length past the end of the answer");
        }
        (self.at, self.ops, self.covered) = (end, self.ops + 1, event + n);
        Ok(Some(Operation {
            code,
            event,
            n,
            from,
            end,
        }))
    }

    /// The payload of an operation.
    pub(super) fn payload(&self, operation: Operation) -> &'a [u8] {
        &self.answer[operation.from..operation.end]
    }

    /// The rest of a payload from `at` on as a reason.
    pub(super) fn reason(&self, operation: Operation, at: usize) -> Result<&'a str, Breach> {
        match std::str::from_utf8(&self.answer[at..operation.end]) {
            Ok(reason) => Ok(reason),
            Err(error) => {
                let at = at + error.valid_up_to();
                self.breach(at, operation.event, "a reason that is not UTF-8")
            }
        }
    }

    pub(super) fn breach<T>(
        &self,
        at: usize,
        event: usize,
        why: impl Into<String>,
    ) -> Result<T, Breach> {
        Err(Breach {
            place: Some((at, self.op)),
            event,
            why: why.into(),
        })
    }
}
