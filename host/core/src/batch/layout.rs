//! Where the parts of each event lie in the buffer: what a guest is given beside the bytes.

use std::sync::Arc;

use crate::{
    Batch, avro,
    batch::{Span, offset},
};

/// The bytes of a batch in canonical form, with the places of every event's parts in them.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// From the first byte of any event to the last one; there may be gaps in between.
    pub bytes: &'a [u8],
    base: u32,
    spans: &'a [Span],
}

/// Where the parts of one event lie, counted from the first byte of [`Layout::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first header's name; of an event without headers, the byte `00` that says so.
    pub pairs: u32,
    /// The number of headers.
    pub headers: u32,
    /// The first byte of the body.
    pub body: u32,
    /// The bytes of the body.
    pub size: u32,
}

impl<'a> Layout<'a> {
    /// The place of every event, in order.
    pub fn places(&self) -> impl ExactSizeIterator<Item = Place> + use<'a> {
        let base = self.base;
        self.spans.iter().map(move |span| {
            let count = match span.headers {
                0 => 0,
                few if few < 64 => 1,
                many => offset(avro::length_size(many as usize)),
            };
            Place {
                pairs: span.start - base + count,
                headers: span.headers,
                body: span.body - base,
                size: span.end - span.body,
            }
        })
    }
}

impl Batch {
    /// The places of all parts; `None` unless the batch [is canonical](Self::is_canonical).
    #[must_use]
    pub fn layout(&self) -> Option<Layout<'_>> {
        if !self.is_canonical() {
            return None;
        }
        let (base, end) = self.window();
        Some(Layout {
            bytes: &self.data[base as usize..end as usize],
            base,
            spans: &self.spans,
        })
    }

    /// The same events without gaps between them, if the gaps are larger than the events.
    #[must_use]
    pub fn into_compact(self) -> Self {
        let (base, end) = self.window();
        let bytes = self.bytes();
        if (end - base) as usize <= bytes.saturating_mul(2) {
            return self;
        }
        let mut data = Vec::with_capacity(bytes);
        let mut spans = Vec::with_capacity(self.len());
        for span in self.spans.iter() {
            let at = offset(data.len());
            data.extend_from_slice(&self.data[span.start as usize..span.end as usize]);
            spans.push(span.moved_to(at));
        }
        Self {
            data: data.into(),
            spans: Arc::new(spans),
            origins: self.origins,
        }
    }

    /// From the first byte of any event to one past the last.
    fn window(&self) -> (u32, u32) {
        let widest =
            |(base, end): (u32, u32), span: &Span| (base.min(span.start), end.max(span.end));
        match self.spans.split_first() {
            Some((first, rest)) => rest.iter().fold((first.start, first.end), widest),
            None => (0, 0),
        }
    }
}
