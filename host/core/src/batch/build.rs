//! Making batches out of what sources read.

use std::sync::Arc;

use crate::{
    Batch, Origins, avro,
    batch::{MAX_BYTES, Span, end_event, offset},
};

/// Builds a batch event by event.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    data: Vec<u8>,
    spans: Vec<Span>,
    /// Pairs of the event that is being built, and where each name lies in it.
    pairs: Vec<u8>,
    names: Vec<(u32, u32)>,
}

impl BatchBuilder {
    /// An empty builder with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            data: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// The number of events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no event yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes of all events so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Begins an event; it counts once [`EventBuilder::body`] is called.
    pub fn event(&mut self) -> EventBuilder<'_> {
        self.pairs.clear();
        self.names.clear();
        EventBuilder { batch: self }
    }

    /// Appends an event with these headers and this body; the last value of a name counts.
    pub fn push<N: AsRef<str>, V: AsRef<str>>(
        &mut self,
        headers: impl IntoIterator<Item = (N, V)>,
        body: &[u8],
    ) {
        let mut event = self.event();
        for (name, value) in headers {
            event = event.header(name.as_ref(), value.as_ref());
        }
        event.body(body);
    }

    /// The batch; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self) -> Batch {
        Batch {
            data: std::mem::take(&mut self.data).into(),
            spans: Arc::new(std::mem::take(&mut self.spans)),
            origins: Origins::default(),
        }
    }

    /// Appends an event whose pairs are already encoded, `count` of them with unique names.
    pub(super) fn push_pairs(&mut self, count: usize, pairs: &[u8], body: &[u8]) {
        let needed = self.data.len() + pairs.len() + body.len() + 32;
        assert!(
            needed < MAX_BYTES,
            "a batch is below 4 GiB; sources close it long before"
        );
        let start = offset(self.data.len());
        if count > 0 {
            avro::write_length(&mut self.data, count);
            self.data.extend_from_slice(pairs);
        }
        self.spans
            .push(end_event(&mut self.data, start, count, body));
    }
}

/// One event on its way into a [`BatchBuilder`]. Dropped without a body, it is nothing.
#[derive(Debug)]
pub struct EventBuilder<'a> {
    batch: &'a mut BatchBuilder,
}

impl EventBuilder<'_> {
    /// Sets a header; a value given before under the same name is replaced.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let builder = &mut *self.batch;
        let same = |&(from, to): &(u32, u32)| {
            &builder.pairs[from as usize..to as usize] == name.as_bytes()
        };
        if let Some(n) = builder.names.iter().position(same) {
            remove_pair(builder, n);
        }
        avro::write_length(&mut builder.pairs, name.len());
        let from = offset(builder.pairs.len());
        builder.pairs.extend_from_slice(name.as_bytes());
        builder.names.push((from, offset(builder.pairs.len())));
        avro::write_bytes(&mut builder.pairs, value.as_bytes());
        self
    }

    /// Ends the event with its body.
    pub fn body(self, body: &[u8]) {
        let builder = self.batch;
        let pairs = std::mem::take(&mut builder.pairs);
        builder.push_pairs(builder.names.len(), &pairs, body);
        builder.pairs = pairs;
    }
}

/// Takes the `n`-th pair out of the event that is being built.
fn remove_pair(builder: &mut BatchBuilder, n: usize) {
    let (from, to) = builder.names.remove(n);
    let start = from as usize - avro::length_size((to - from) as usize);
    let mut end = to as usize;
    let value = avro::read_length(&builder.pairs, &mut end, usize::MAX)
        .expect("the pair was written by this builder");
    end += value;
    builder.pairs.drain(start..end);
    let gone = offset(end - start);
    for name in &mut builder.names[n..] {
        *name = (name.0 - gone, name.1 - gone);
    }
}
