//! Answers read back, as the host does: what became of each event.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{NewEvent, batch};

/// An event that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventOut {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What became of one event of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on as it was.
    Passed(EventOut),
    /// It goes on changed, or others go on in its place.
    Changed(Vec<EventOut>),
    /// It is gone for this reason.
    Discarded(String),
    /// It cannot be handled for this reason.
    Rejected(String),
}

/// What became of one event that a sink was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    Done,
    /// It comes again, not before `after` if that is given.
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// It never can be taken, for this reason.
    Rejected(String),
}

/// An answer that does not fit its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenAnswer {
    /// The byte of the answer at which it was noticed.
    pub at: usize,
    /// The event that the verdicts had come to.
    pub event: usize,
}

impl Outcome {
    /// The events that go on.
    #[must_use]
    pub fn events(&self) -> &[EventOut] {
        match self {
            Self::Passed(event) => std::slice::from_ref(event),
            Self::Changed(events) => events,
            Self::Discarded(_) | Self::Rejected(_) => &[],
        }
    }

    /// The reason, if it was discarded.
    #[must_use]
    pub fn discarded(&self) -> Option<&str> {
        match self {
            Self::Discarded(reason) => Some(reason),
            Self::Passed(_) | Self::Changed(_) | Self::Rejected(_) => None,
        }
    }

    /// The reason, if it was rejected.
    #[must_use]
    pub fn rejected(&self) -> Option<&str> {
        match self {
            Self::Rejected(reason) => Some(reason),
            Self::Passed(_) | Self::Changed(_) | Self::Discarded(_) => None,
        }
    }
}

impl EventOut {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn of(event: &NewEvent) -> Self {
        Self {
            headers: event.header_pairs().iter().cloned().collect(),
            body: event.body_bytes().to_vec(),
        }
    }
}

impl fmt::Display for BrokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, event } = self;
        write!(
            f,
            "broken contract at byte {at} of the answer, event {event}"
        )
    }
}

impl std::error::Error for BrokenAnswer {}

/// Applies an answer to the events it is about.
pub(super) fn outcomes(events: &[NewEvent], answer: &[u8]) -> Result<Vec<Outcome>, BrokenAnswer> {
    each(events, answer, outcome)
}

/// Reads what a sink says of the events it was given.
pub(super) fn delivered(
    events: &[NewEvent],
    answer: &[u8],
) -> Result<Vec<Delivered>, BrokenAnswer> {
    each(events, answer, |_, op, payload| delivery(op, payload))
}

/// Asks for every event what the operation that covers it makes of it.
fn each<T>(
    events: &[NewEvent],
    answer: &[u8],
    made: impl Fn(&NewEvent, u32, &[u8]) -> Option<T>,
) -> Result<Vec<T>, BrokenAnswer> {
    let mut reader = Reader { answer, at: 0 };
    let mut outcomes = Vec::new();
    let broken = |reader: &Reader<'_>, event| BrokenAnswer {
        at: reader.at,
        event,
    };
    if reader.take(4) != Some(&[1, 0, 0, 0]) {
        return Err(broken(&reader, 0));
    }
    while reader.at < answer.len() {
        let event = outcomes.len();
        let Some((op, count, payload)) = reader.operation() else {
            return Err(broken(&reader, event));
        };
        let covered = events
            .get(event..event + count as usize)
            .unwrap_or_default();
        if covered.is_empty() {
            return Err(broken(&reader, event));
        }
        for input in covered {
            let outcome = made(input, op, payload);
            outcomes.push(outcome.ok_or(broken(&reader, event))?);
        }
    }
    if outcomes.len() != events.len() {
        return Err(broken(&reader, outcomes.len()));
    }
    Ok(outcomes)
}

/// What an operation of a sink says; nothing if it is malformed.
fn delivery(op: u32, payload: &[u8]) -> Option<Delivered> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(match op {
        0 if payload.is_empty() => Delivered::Done,
        5 => Delivered::Rejected(text(payload)?),
        6 => {
            let (wait, reason) = payload.split_first_chunk::<4>()?;
            let ms = u32::from_le_bytes(*wait);
            Delivered::Retry {
                reason: text(reason)?,
                after: (ms != u32::MAX).then(|| Duration::from_millis(ms.into())),
            }
        }
        _ => return None,
    })
}

/// What an operation makes of an event; nothing if the operation is malformed.
fn outcome(input: &NewEvent, op: u32, payload: &[u8]) -> Option<Outcome> {
    let text = || String::from_utf8(payload.to_vec()).ok();
    Some(match op {
        0 if payload.is_empty() => Outcome::Passed(EventOut::of(input)),
        1 => match patched(input, payload)? {
            (event, []) => Outcome::Changed(vec![event]),
            _ => return None,
        },
        2 => {
            let (mut event, body) = patched(input, payload)?;
            event.body = body.to_vec();
            Outcome::Changed(vec![event])
        }
        3 => Outcome::Changed(replacement(payload)?),
        4 => Outcome::Discarded(text()?),
        5 => Outcome::Rejected(text()?),
        _ => return None,
    })
}

/// The event with other headers, and what follows the changes.
fn patched<'a>(input: &NewEvent, payload: &'a [u8]) -> Option<(EventOut, &'a [u8])> {
    let mut event = EventOut::of(input);
    let (counts, mut rest) = payload.split_first_chunk::<4>()?;
    let [set, remove] = [[counts[0], counts[1]], [counts[2], counts[3]]].map(u16::from_le_bytes);
    for _ in 0..set {
        let (name, value);
        (name, rest) = string(rest)?;
        (value, rest) = string(rest)?;
        event.headers.insert(name, value);
    }
    for _ in 0..remove {
        let name;
        (name, rest) = string(rest)?;
        event.headers.remove(&name);
    }
    Some((event, rest))
}

fn replacement(mut payload: &[u8]) -> Option<Vec<EventOut>> {
    let mut events = Vec::new();
    while !payload.is_empty() {
        let mut event = EventOut::default();
        // A map with pairs begins with their number; the end is `00` in any case.
        if payload.first() != Some(&0) {
            let pairs;
            (pairs, payload) = batch::length(payload)?;
            for _ in 0..pairs {
                let (name, value);
                (name, payload) = string(payload)?;
                (value, payload) = string(payload)?;
                event.headers.insert(name, value);
            }
        }
        payload = payload.strip_prefix(&[0])?;
        let body;
        (body, payload) = batch::string(payload)?;
        event.body = body.to_vec();
        events.push(event);
    }
    (!events.is_empty()).then_some(events)
}

fn string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (text, rest) = batch::string(bytes)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

struct Reader<'a> {
    answer: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.answer.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(bytes)
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    /// The number of an operation, how many events it covers, and its payload.
    fn operation(&mut self) -> Option<(u32, u32, &'a [u8])> {
        let first = self.word()?;
        let len = self.word()?;
        Some((first & 0xff, first >> 8, self.take(len as usize)?))
    }
}
