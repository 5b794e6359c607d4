//! Looking at one event without copying it.

use crate::{
    avro,
    batch::{FOREIGN, Span},
};

/// One event of a batch, as a view of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    event: &'a [u8],
    /// Offset of the body in `event`; 0 when not known yet.
    body: u32,
    headers: u32,
}

impl<'a> EventRef<'a> {
    pub(super) fn new(data: &'a [u8], span: Span) -> Self {
        let body = span.body.saturating_sub(span.start);
        let event = &data[span.start as usize..span.end as usize];
        Self {
            event,
            body,
            headers: span.headers,
        }
    }

    /// A view of one event's validated Avro binary, such as a dead letter holds.
    #[must_use]
    pub fn from_stored(event: &'a [u8]) -> Self {
        Self {
            event,
            body: 0,
            headers: 0,
        }
    }

    /// The event in Avro binary.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.event
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        let known = self.body as usize;
        let at = if known > 0 {
            known
        } else {
            body_offset(self.event)
        };
        self.event.get(at..).unwrap_or_default()
    }

    /// The value of a header; the last one where a foreign peer wrote it twice, as in Java.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut found = None;
        for (key, value) in self.raw_headers() {
            if key == name.as_bytes() {
                found = Some(value);
                if self.is_canonical() {
                    break;
                }
            }
        }
        std::str::from_utf8(found?).ok()
    }

    /// The headers as they are on the wire: in no particular order, and possibly with a name twice
    /// where a foreign peer wrote one twice (the last one counts).
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers(self.raw_headers())
    }

    /// Whether the map is `00`, or one positive block and `00`, with minimal varints and unique
    /// names; known only for events that were validated in this process.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.body > 0 && self.headers != FOREIGN
    }

    /// Offset of the body in [`as_bytes`](Self::as_bytes).
    #[must_use]
    pub fn body_at(&self) -> usize {
        self.event.len() - self.body().len()
    }

    /// Number of header pairs, counting a repeated name each time.
    #[must_use]
    pub fn header_count(&self) -> usize {
        if self.is_canonical() {
            self.headers as usize
        } else {
            self.raw_headers().count()
        }
    }

    /// All pairs of a canonical event as they are, without the count before and the end after.
    pub(super) fn pairs(&self) -> &'a [u8] {
        if self.headers == 0 {
            return &[];
        }
        let count = avro::length_size(self.headers as usize);
        let end = self.body_at() - avro::length_size(self.body().len()) - 1;
        self.event.get(count..end).unwrap_or_default()
    }

    pub(super) fn raw_headers(&self) -> RawHeaders<'a> {
        RawHeaders {
            bytes: self.event,
            at: 0,
            left: 0,
            done: false,
        }
    }
}

/// The headers of an event, as `(name, value)`.
#[derive(Clone, Debug)]
pub struct Headers<'a>(RawHeaders<'a>);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        // Validated before: both are text. A stored event that is damaged reads as empty.
        Some((
            std::str::from_utf8(name).unwrap_or_default(),
            std::str::from_utf8(value).unwrap_or_default(),
        ))
    }
}

/// The pairs of a header map as bytes. Ends early on bytes that are no map.
#[derive(Clone, Debug)]
pub(super) struct RawHeaders<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u64,
    done: bool,
}

impl RawHeaders<'_> {
    /// Where the pair that `next` gives begins, and afterwards where the map ends.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Enters the next block if the last one is used up.
    pub(super) fn enter_block(&mut self) -> Option<()> {
        while self.left == 0 && !self.done {
            let count = avro::read_long(self.bytes, &mut self.at).ok()?;
            if count < 0 {
                avro::read_long(self.bytes, &mut self.at).ok()?;
            }
            self.left = count.unsigned_abs();
            self.done = count == 0;
        }
        (!self.done).then_some(())
    }
}

impl<'a> Iterator for RawHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.enter_block()?;
        let name = avro::read_bytes(self.bytes, &mut self.at, usize::MAX).ok()?;
        let value = avro::read_bytes(self.bytes, &mut self.at, usize::MAX).ok()?;
        self.left -= 1;
        Some((name, value))
    }
}

/// Walks over the map and the body's length.
fn body_offset(event: &[u8]) -> usize {
    let mut pairs = RawHeaders {
        bytes: event,
        at: 0,
        left: 0,
        done: false,
    };
    while pairs.next().is_some() {}
    let mut at = pairs.at();
    match avro::read_length(event, &mut at, usize::MAX) {
        Ok(_) => at,
        Err(_) => event.len(),
    }
}
