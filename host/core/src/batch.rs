//! A run of events in one buffer, in the Avro binary of Flume's `AvroFlumeEvent`.
//!
//! An event is `map<string> headers` and `bytes body`. What a socket, a guest or a disk gave is
//! checked once ([`Batch::from_array`], [`Batch::from_events`]) and from then on only looked at.
//! Only this module and its children know the encoding.

mod build;
mod edit;
mod layout;
mod validate;
mod view;

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

pub use build::{BatchBuilder, EventBuilder};
pub use edit::{Editor, EncodedPatch, Patch, PatchError, Patched};
pub use layout::{Layout, Place};
pub use validate::{Checked, Fault, FaultKind, Limits, Malformed};
pub use view::{EventRef, Headers};

use crate::Origins;

/// A run of events in one reference-counted buffer, with an index of where each starts and ends.
///
/// Cloning copies no event. The bytes of an event never change; there may be gaps between events.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    data: Bytes,
    spans: Arc<Vec<Span>>,
    origins: Origins,
}

/// Where one event lies in the buffer. Offsets are from the buffer's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte of the header map.
    start: u32,
    /// First byte of the body; 0 when nobody has looked yet.
    body: u32,
    /// One past the last byte of the body.
    end: u32,
    /// Number of header pairs, or [`FOREIGN`]; meaningless while `body` is 0.
    headers: u32,
}

/// The value of `headers` for a map that is legal Avro but not in the canonical form.
const FOREIGN: u32 = u32::MAX;

/// A batch holds less than 4 GiB.
const MAX_BYTES: usize = u32::MAX as usize;

/// A stored index that does not fit its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("event {event} of the index does not lie inside its {bytes} bytes")]
pub struct BadIndex {
    pub event: usize,
    pub bytes: usize,
}

impl Batch {
    /// Takes bytes that were validated before they were stored, with the end of each event; events
    /// follow each other without gaps.
    ///
    /// The events are not looked at again: reading a header later walks the map then.
    ///
    /// # Errors
    /// [`BadIndex`] if the ends do not rise inside `data`.
    pub fn from_stored(data: Bytes, ends: impl IntoIterator<Item = u32>) -> Result<Self, BadIndex> {
        let mut start = 0;
        let mut spans = Vec::new();
        for (event, end) in ends.into_iter().enumerate() {
            if end <= start || end as usize > data.len() {
                return Err(BadIndex {
                    event,
                    bytes: data.len(),
                });
            }
            spans.push(Span {
                start,
                body: 0,
                end,
                headers: 0,
            });
            start = end;
        }
        Ok(Self {
            data,
            spans: Arc::new(spans),
            origins: Origins::default(),
        })
    }

    /// The same events with these origin ids.
    ///
    /// There must be one id per event, or none at all.
    #[must_use]
    pub fn with_origins(mut self, origins: Origins) -> Self {
        let ids: usize = origins.runs().iter().map(|run| run.count as usize).sum();
        assert!(ids == 0 || ids == self.len(), "one origin id per event");
        self.origins = origins;
        self
    }

    /// The origin ids of the events; empty before the first durable commit.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of all events together, gaps left out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lengths().map(|length| length as usize).sum()
    }

    /// The `n`-th event.
    #[must_use]
    pub fn get(&self, n: usize) -> Option<EventRef<'_>> {
        self.spans
            .get(n)
            .map(|span| EventRef::new(&self.data, *span))
    }

    /// Every event, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> {
        self.spans
            .iter()
            .map(|span| EventRef::new(&self.data, *span))
    }

    /// The Avro binary of the `n`-th event, sharing this batch's buffer.
    #[must_use]
    pub fn event_bytes(&self, n: usize) -> Option<Bytes> {
        self.spans
            .get(n)
            .map(|span| self.data.slice(span.start as usize..span.end as usize))
    }

    /// The Avro binary of all events as few contiguous runs, in order: what to copy to a disk or a
    /// socket.
    pub fn runs(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.spans[..];
        std::iter::from_fn(move || {
            let first = rest.first()?;
            let joined = rest
                .windows(2)
                .take_while(|pair| pair[0].end == pair[1].start)
                .count();
            let last = rest[joined];
            rest = &rest[joined + 1..];
            Some(&self.data[first.start as usize..last.end as usize])
        })
    }

    /// The length of each event's Avro binary, in order.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = u32> {
        self.spans.iter().map(|span| span.end - span.start)
    }

    /// The events of a range, sharing the buffer.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let ids = self.origins.iter().skip(range.start).take(range.len());
        Self {
            data: self.data.clone(),
            origins: Origins::from_ids(ids),
            spans: Arc::new(self.spans[range].to_vec()),
        }
    }

    /// The events at these places, in the order given, sharing the buffer.
    #[must_use]
    pub fn select(&self, places: impl IntoIterator<Item = usize>) -> Self {
        let places: Vec<_> = places.into_iter().collect();
        let ids = places.iter().filter_map(|n| self.origins.get(*n));
        Self {
            data: self.data.clone(),
            origins: Origins::from_ids(ids),
            spans: Arc::new(places.iter().map(|n| self.spans[*n]).collect()),
        }
    }

    /// All events of several batches in one new buffer; one batch alone is returned as it is.
    #[must_use]
    pub fn concat(mut batches: Vec<Self>) -> Self {
        batches.retain(|batch| !batch.is_empty());
        if batches.len() <= 1 {
            return batches.pop().unwrap_or_default();
        }
        let mut data = Vec::with_capacity(batches.iter().map(Self::bytes).sum());
        let mut spans = Vec::with_capacity(batches.iter().map(Self::len).sum());
        for batch in &batches {
            for span in batch.spans.iter() {
                let at = offset(data.len());
                data.extend_from_slice(&batch.data[span.start as usize..span.end as usize]);
                spans.push(span.moved_to(at));
            }
        }
        let with_ids = batches.iter().all(|batch| !batch.origins.is_empty());
        let ids = batches
            .iter()
            .filter(|_| with_ids)
            .flat_map(|batch| batch.origins.iter());
        let origins = Origins::from_ids(ids);
        Self {
            data: data.into(),
            spans: Arc::new(spans),
            origins,
        }
    }
}

impl Span {
    /// The same event when its bytes are copied to `start`.
    fn moved_to(self, start: u32) -> Self {
        let body = if self.body == 0 {
            0
        } else {
            self.body - self.start + start
        };
        Self {
            start,
            body,
            end: self.end - self.start + start,
            headers: self.headers,
        }
    }
}

impl PartialEq for Batch {
    /// Same events, byte by byte, in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|(a, b)| a.as_bytes() == b.as_bytes())
    }
}

impl Eq for Batch {}

/// Ends an event that began at `start` and whose `count` pairs are written: the end of its map,
/// and its body.
fn end_event(data: &mut Vec<u8>, start: u32, count: usize, body: &[u8]) -> Span {
    data.push(0);
    crate::avro::write_length(data, body.len());
    let body_at = offset(data.len());
    data.extend_from_slice(body);
    Span {
        start,
        body: body_at,
        end: offset(data.len()),
        headers: offset(count),
    }
}

/// An offset inside a batch's buffer.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a batch is checked to be under 4 GiB where its bytes come in")
}

#[cfg(test)]
mod tests;
