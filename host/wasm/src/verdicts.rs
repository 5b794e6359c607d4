//! What becomes of each event of a call: the one place where a guest's verdicts, typed or packed,
//! turn into a new batch, and where what may come out is bounded.

use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

use bytes::Bytes;
use levada_core::{
    Batch, BatchBuilder, Editor, EventRef, Limits as EventLimits,
    batch::{EncodedPatch, FaultKind},
};

use crate::{Limits, OnReject, guest::escape};

/// Bytes of a reason; what is more is cut.
const LONGEST_REASON: usize = 256;

/// Names starting so belong to the host.
const RESERVED: &str = "levada.";

/// Headers a patch may set and remove together.
pub(crate) const MOST_NAMES: usize = 256;

/// The guest's answer is void: it is not what the contract says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Byte and operation of a packed answer; typed ones have none.
    pub(crate) place: Option<(usize, usize)>,
    /// The event, counted from 0.
    pub(crate) event: usize,
    pub(crate) why: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((byte, op)) => {
                write!(
                    f,
                    "broken contract at byte {byte}, op {op}, event {}: ",
                    self.event
                )?;
            }
            None => write!(f, "broken contract at event {}: ", self.event)?,
        }
        f.write_str(&self.why)
    }
}

/// What a call made of its events. Boxed from the start, since it goes up through several hands.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The events that go on.
    pub(crate) batch: Batch,
    /// Events for the dead letters: place in the call and reason.
    pub(crate) rejected: Vec<(usize, String)>,
    /// Events that a sink wants again.
    pub(crate) again: Vec<Again>,
    /// Events that came out beyond one of every replace.
    pub(crate) made: u64,
    /// How many events came out of each, in order.
    pub(crate) outs: Vec<u32>,
    /// What was said of each, in order; of some, why.
    pub(crate) said: Vec<Said>,
    pub(crate) whys: Vec<(Range<usize>, String)>,
    pub(crate) counts: VerdictCounts,
}

/// What was said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Pass,
    Patch,
    Replace,
    Discard,
    Reject,
    Done,
    Retry,
}

impl Said {
    /// The word for metrics and people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Patch => "patch",
            Self::Replace => "replace",
            Self::Discard => "discard",
            Self::Reject => "reject",
            Self::Done => "done",
            Self::Retry => "retry",
        }
    }
}

impl Outcome {
    /// Notes what was said of the next `n` events.
    pub(crate) fn say(&mut self, n: usize, said: Said, why: Option<String>) {
        let from = self.said.len();
        self.said.extend(std::iter::repeat_n(said, n));
        self.whys.extend(why.map(|why| (from..from + n, why)));
    }

    /// Why that was said of an event, if a reason was given.
    pub(crate) fn why(&self, place: usize) -> Option<&str> {
        let after = self.whys.partition_point(|(range, _)| range.end <= place);
        let (range, why) = self.whys.get(after)?;
        range.contains(&place).then_some(why)
    }

    /// How many events are gone on purpose, by reason.
    pub(crate) fn discarded(&self, on_reject: OnReject) -> BTreeMap<&str, u64> {
        let mut discarded = BTreeMap::new();
        for (range, why) in &self.whys {
            let reason = match (self.said.get(range.start), on_reject) {
                (Some(Said::Discard), _) => why,
                (Some(Said::Reject), OnReject::Discard) => "rejected",
                _ => continue,
            };
            *discarded.entry(reason).or_default() += range.len() as u64;
        }
        discarded
    }
}

/// An event that a sink wants again: its place in the call, the least wait, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    pub(crate) place: usize,
    pub(crate) after: Option<Duration>,
    pub(crate) reason: String,
}

/// Events by verdict, or by what became of their delivery.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VerdictCounts {
    pub(crate) pass: u64,
    pub(crate) patch: u64,
    pub(crate) replace: u64,
    pub(crate) discard: u64,
    pub(crate) reject: u64,
    pub(crate) done: u64,
    pub(crate) retry: u64,
    /// Headers skipped because their names belong to the host.
    pub(crate) reserved: u64,
}

/// Takes one verdict after the other, in the order of the events.
pub(crate) struct Verdicts<'a> {
    editor: Editor<'a>,
    limits: &'a Limits,
    on_reject: OnReject,
    /// Bytes that may still come out anew.
    room: usize,
    outcome: Box<Outcome>,
}

/// A set of headers to change, as far as it is the same for both forms.
#[derive(Debug, Default, Clone)]
pub(crate) struct Change<'a> {
    /// Pairs to set, encoded.
    pub(crate) set: &'a [u8],
    pub(crate) count: usize,
    /// Names to set and to remove.
    pub(crate) names: &'a [&'a [u8]],
}

impl<'a> Verdicts<'a> {
    pub(crate) fn new(batch: &'a Batch, limits: &'a Limits, on_reject: OnReject) -> Self {
        Self {
            editor: batch.edit(),
            limits,
            on_reject,
            room: limits.lifted_of(batch.bytes()),
            outcome: Box::default(),
        }
    }

    /// The place of the next event.
    pub(crate) fn at(&self) -> usize {
        self.editor.at()
    }

    pub(crate) fn pass(&mut self, n: usize) {
        self.editor.keep(n);
        self.outs(n, 1);
        self.outcome.say(n, Said::Pass, None);
        self.outcome.counts.pass += n as u64;
    }

    /// Patches the next event. `change` has no reserved name: see [`reserved`].
    pub(crate) fn patch(&mut self, change: &Change<'_>, body: Option<&[u8]>) -> Result<(), String> {
        self.outcome.counts.patch += 1;
        self.outcome.say(1, Said::Patch, None);
        self.outs(1, 1);
        if change.names.is_empty() && body.is_none() {
            self.editor.keep(1);
            return Ok(());
        }
        let patch = EncodedPatch {
            set: change.set,
            count: change.count,
            names: change.names,
        };
        let patched = self.editor.patch_encoded(patch, body);
        if patched.headers > EventLimits::default().headers {
            return Err(format!("an event of {} headers comes out", patched.headers));
        }
        self.come_out(patched.bytes)
    }

    /// Puts canonical events in the place of the next one.
    pub(crate) fn replace(&mut self, events: &Batch) -> Result<(), String> {
        if events.is_empty() {
            return Err("a replacement by no event".into());
        }
        if events.len() > self.limits.events_out {
            let allowed = self.limits.events_out;
            return Err(format!(
                "{} events out of one, {allowed} are allowed",
                events.len()
            ));
        }
        let parent = self.editor.peek().expect("the caller counts");
        let own =
            |event: &EventRef<'_>| event.headers().any(|(name, _)| name.starts_with(RESERVED));
        if own(&parent) || events.iter().any(|event| own(&event)) {
            let (events, skipped) = inherit(&parent, events);
            self.outcome.counts.reserved += skipped;
            self.put_in_place(&events)
        } else {
            self.put_in_place(events)
        }
    }

    fn put_in_place(&mut self, events: &Batch) -> Result<(), String> {
        for length in events.lengths() {
            self.come_out(length as usize)?;
        }
        self.editor.replace(events);
        self.outs(1, events.len());
        self.outcome.say(1, Said::Replace, None);
        self.outcome.counts.replace += 1;
        self.outcome.made += events.len() as u64 - 1;
        Ok(())
    }

    pub(crate) fn discard(&mut self, n: usize, reason: &str) {
        self.editor.skip(n);
        self.outs(n, 0);
        self.outcome.counts.discard += n as u64;
        self.outcome.say(n, Said::Discard, Some(reason_of(reason)));
    }

    pub(crate) fn reject(&mut self, n: usize, reason: &str) {
        self.outcome.counts.reject += n as u64;
        self.outs(n, usize::from(self.on_reject == OnReject::Pass));
        let reason = reason_of(reason);
        self.outcome.say(n, Said::Reject, Some(reason.clone()));
        match self.on_reject {
            OnReject::DeadLetter => {
                let first = self.editor.at();
                let rejected = (first..first + n).map(|event| (event, reason.clone()));
                self.outcome.rejected.extend(rejected);
                self.editor.skip(n);
            }
            OnReject::Discard => self.editor.skip(n),
            OnReject::Pass => self.editor.keep(n),
        }
    }

    /// Counts names that were skipped because they belong to the host.
    pub(crate) fn reserved(&mut self, names: u64) {
        self.outcome.counts.reserved += names;
    }

    /// What came out, once every event has its verdict.
    pub(crate) fn finish(mut self) -> Box<Outcome> {
        self.outcome.batch = self.editor.finish();
        self.outcome
    }

    /// Notes that so many events come out of each of the next `n`.
    fn outs(&mut self, n: usize, each: usize) {
        let each = u32::try_from(each).unwrap_or(u32::MAX);
        self.outcome.outs.extend(std::iter::repeat_n(each, n));
    }

    /// Checks an event that comes out.
    fn come_out(&mut self, bytes: usize) -> Result<(), String> {
        if bytes > self.limits.event_bytes {
            let allowed = self.limits.event_bytes;
            return Err(format!(
                "an event of {bytes} bytes comes out, {allowed} are allowed"
            ));
        }
        match self.room.checked_sub(bytes) {
            Some(room) => self.room = room,
            None => return Err("more bytes come out than a call may make".into()),
        }
        Ok(())
    }
}

/// Whether a header's name belongs to the host.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED.as_bytes())
}

/// A guest's reason, on one line and of bounded length.
pub(crate) fn reason_of(text: &str) -> String {
    let mut end = text.len().min(LONGEST_REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    match &text[..end] {
        "" => "no reason given".into(),
        text => escape(text),
    }
}

/// The events with the host's own headers of their parent instead of what a guest wrote there.
fn inherit(parent: &EventRef<'_>, events: &Batch) -> (Batch, u64) {
    let mut builder = BatchBuilder::with_capacity(events.bytes());
    let mut skipped = 0;
    for event in events.iter() {
        let ours = parent
            .headers()
            .filter(|(name, _)| name.starts_with(RESERVED));
        let theirs = event
            .headers()
            .filter(|(name, _)| !name.starts_with(RESERVED));
        skipped += event
            .headers()
            .filter(|(name, _)| name.starts_with(RESERVED))
            .count() as u64;
        builder.push(ours.chain(theirs), event.body());
    }
    (builder.finish(), skipped)
}

/// What an event out of a guest may be.
pub(crate) fn event_limits(limits: &Limits) -> EventLimits {
    EventLimits {
        event: limits.event_bytes,
        ..EventLimits::default()
    }
}

/// Checks events that a guest wrote in Avro binary: canonical, and within every limit.
///
/// # Errors
/// The byte of the first wrong event, as far as it can be told, and what is wrong.
pub(crate) fn read_events(data: Bytes, limits: &Limits) -> Result<Batch, (usize, String)> {
    use levada_core::{Malformed, avro::AvroError};
    let start = data.as_ptr() as usize;
    let checked =
        Batch::from_all_events(data, &event_limits(limits)).map_err(|error| match error {
            Malformed::Avro(error) => {
                let (AvroError::Truncated { at }
                | AvroError::Overlong { at }
                | AvroError::Negative { at }
                | AvroError::TooLong { at, .. }) = error;
                (at, error.to_string())
            }
            other => (0, other.to_string()),
        })?;
    if let Some(fault) = checked.faults.first() {
        let why = match fault.kind {
            FaultKind::NotText => "a header that is not UTF-8".into(),
            ref kind => kind.to_string(),
        };
        return Err((fault.event.as_ptr() as usize - start, why));
    }
    let batch = checked.batch;
    if !batch.is_canonical() {
        // Also said of canonical events with many headers: then writing them anew changes nothing.
        let canonical = batch.clone().into_canonical();
        let pairs = batch.iter().zip(canonical.iter());
        for (theirs, ours) in pairs {
            if theirs.as_bytes() != ours.as_bytes() {
                let at = theirs.as_bytes().as_ptr() as usize - start;
                return Err((at, "an event that is not in canonical form".into()));
            }
        }
        return Ok(canonical);
    }
    Ok(batch)
}
