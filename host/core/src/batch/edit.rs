//! Changing a batch event by event: what stays is copied in runs, what changes is written anew.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    Batch, OriginId, Origins, avro,
    batch::{EventRef, MAX_BYTES, Span, end_event, offset},
};

/// Headers to set and to remove, in the encoding of the map itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// Pairs to set, as Avro `(string, string)` one after the other.
    set: Vec<u8>,
    /// Number of pairs in `set`.
    count: usize,
    /// Every name in `set` or to be removed.
    names: Vec<Box<[u8]>>,
}

/// A patch whose parts are in the map's encoding already, checked by whoever made it: minimal
/// lengths, UTF-8, and every name once.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodedPatch<'a> {
    /// Pairs to set, as Avro `(string, string)` one after the other.
    pub set: &'a [u8],
    /// Number of pairs in `set`.
    pub count: usize,
    /// Every name in `set` or to be removed.
    pub names: &'a [&'a [u8]],
}

/// What an event became by a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patched {
    /// Bytes of the new event.
    pub bytes: usize,
    /// Number of its headers.
    pub headers: usize,
}

/// Why something cannot be part of a [`Patch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatchError {
    #[error("a name twice in one patch")]
    Repeated,
}

impl Patch {
    /// An empty patch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header.
    ///
    /// # Errors
    /// [`PatchError::Repeated`] if the patch already names this header.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PatchError> {
        self.name(name)?;
        avro::write_bytes(&mut self.set, name.as_bytes());
        avro::write_bytes(&mut self.set, value.as_bytes());
        self.count += 1;
        Ok(())
    }

    /// Removes a header.
    ///
    /// # Errors
    /// [`PatchError::Repeated`] if the patch already names this header.
    pub fn remove(&mut self, name: &str) -> Result<(), PatchError> {
        self.name(name)
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn name(&mut self, name: &str) -> Result<(), PatchError> {
        if self.names.iter().any(|known| **known == *name.as_bytes()) {
            return Err(PatchError::Repeated);
        }
        self.names.push(name.as_bytes().into());
        Ok(())
    }

    fn names(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| **known == *name)
    }
}

/// Goes through a batch in order and says of each event what becomes of it.
///
/// Every event must be covered exactly once before [`finish`](Self::finish). A batch of which
/// everything was kept is returned as it was.
#[derive(Debug)]
pub struct Editor<'a> {
    batch: &'a Batch,
    next: usize,
    /// First event of the run that is kept and not copied yet.
    run: usize,
    changed: bool,
    data: Vec<u8>,
    spans: Vec<Span>,
    ids: Vec<OriginId>,
    /// Whether one event became several.
    split: bool,
}

impl<'a> Editor<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        Self {
            batch,
            next: 0,
            run: 0,
            changed: false,
            data: Vec::new(),
            spans: Vec::new(),
            ids: Vec::new(),
            split: false,
        }
    }

    /// The next event, if there is one left.
    #[must_use]
    pub fn peek(&self) -> Option<EventRef<'a>> {
        self.batch.get(self.next)
    }

    /// The place of the next event.
    #[must_use]
    pub fn at(&self) -> usize {
        self.next
    }

    /// Keeps the next `n` events as they are.
    pub fn keep(&mut self, n: usize) {
        assert!(
            n <= self.batch.len() - self.next,
            "more events kept than there are"
        );
        self.next += n;
    }

    /// Leaves out the next `n` events.
    pub fn skip(&mut self, n: usize) {
        assert!(
            n <= self.batch.len() - self.next,
            "more events left out than there are"
        );
        self.change();
        self.next += n;
        self.run = self.next;
    }

    /// Gives the next event other headers and, if one is given, another body.
    ///
    /// A header that is set or removed is gone from the new bytes with its old value.
    pub fn patch(&mut self, patch: &Patch, body: Option<&[u8]>) {
        let event = self.peek().expect("an event is left to patch");
        self.change();
        let parts = (&patch.set[..], patch.count);
        self.push_patched(event, parts, |name| patch.names(name), body);
        self.next += 1;
        self.run = self.next;
    }

    /// Like [`patch`](Self::patch), with the patch as a guest wrote it; its bytes are copied.
    pub fn patch_encoded(&mut self, patch: EncodedPatch<'_>, body: Option<&[u8]>) -> Patched {
        let event = self.peek().expect("an event is left to patch");
        self.change();
        let parts = (patch.set, patch.count);
        let patched = self.push_patched(event, parts, |name| patch.names.contains(&name), body);
        self.next += 1;
        self.run = self.next;
        patched
    }

    /// Puts the events of another batch in the place of the next one. They get its origin id, with
    /// child numbers from 1 on if there are several.
    pub fn replace(&mut self, events: &Batch) {
        let place = self.next;
        assert!(place < self.batch.len(), "an event is left to replace");
        self.change();
        for span in events.spans.iter() {
            self.push_copy(&events.data, *span);
            self.ids.extend(self.batch.origins.get(place));
        }
        self.split |= events.len() > 1;
        self.next += 1;
        self.run = self.next;
    }

    /// The edited batch.
    #[must_use]
    pub fn finish(mut self) -> Batch {
        assert!(self.next == self.batch.len(), "every event is covered");
        if !self.changed {
            return self.batch.clone();
        }
        self.change();
        if self.split {
            number_children(&mut self.ids);
        }
        Batch {
            data: self.data.into(),
            spans: Arc::new(self.spans),
            origins: Origins::from_ids(self.ids),
        }
    }

    /// Copies the kept events that wait.
    fn change(&mut self) {
        if !self.changed {
            self.changed = true;
            // Room for a header more per event, else all of it is copied again half-way.
            let added = 32 * self.batch.len();
            self.data.reserve(self.batch.bytes() + added);
            self.spans.reserve(self.batch.len());
        }
        let mut run = self.run;
        while run < self.next {
            let spans = &self.batch.spans[run..self.next];
            let dense = spans
                .windows(2)
                .take_while(|pair| pair[0].end == pair[1].start)
                .count();
            let (first, last) = (spans[0], spans[dense]);
            let base = offset(self.data.len());
            self.data
                .extend_from_slice(&self.batch.data[first.start as usize..last.end as usize]);
            let moved = spans[..=dense]
                .iter()
                .map(|span| span.moved_to(span.start - first.start + base));
            self.spans.extend(moved);
            run += dense + 1;
        }
        if !self.batch.origins.is_empty() {
            self.ids
                .extend((self.run..self.next).filter_map(|n| self.batch.origins.get(n)));
        }
        self.run = self.next;
    }

    fn push_copy(&mut self, data: &[u8], span: Span) {
        let base = self.base(span.end as usize - span.start as usize);
        self.data
            .extend_from_slice(&data[span.start as usize..span.end as usize]);
        self.spans.push(span.moved_to(base));
    }

    /// Writes an event with the pairs of `set` and those of its own that are not `dropped`.
    fn push_patched(
        &mut self,
        event: EventRef<'_>,
        (set, added): (&[u8], usize),
        dropped: impl Fn(&[u8]) -> bool,
        body: Option<&[u8]>,
    ) -> Patched {
        let body = body.unwrap_or_else(|| event.body());
        let start = self.base(event.as_bytes().len() + set.len() + body.len());
        // A foreign map may hold a name twice; only the last one of each may go on.
        let canonical = event.is_canonical();
        let kept_pair = |n: usize, name: &[u8]| {
            let later = |(other, _): (&[u8], &[u8])| other == name;
            !dropped(name) && (canonical || !event.raw_headers().skip(n + 1).any(later))
        };
        let kept = event
            .raw_headers()
            .enumerate()
            .filter(|(n, (k, _))| kept_pair(*n, k))
            .count();
        let count = kept + added;
        if count > 0 {
            avro::write_length(&mut self.data, count);
            if kept == event.header_count() && canonical {
                self.data.extend_from_slice(event.pairs());
            } else {
                for (n, (name, value)) in event.raw_headers().enumerate() {
                    if kept_pair(n, name) {
                        avro::write_bytes(&mut self.data, name);
                        avro::write_bytes(&mut self.data, value);
                    }
                }
            }
            self.data.extend_from_slice(set);
        }
        let span = end_event(&mut self.data, start, count, body);
        self.spans.push(span);
        self.ids.extend(self.batch.origins.get(self.next));
        Patched {
            bytes: (span.end - span.start) as usize,
            headers: count,
        }
    }

    /// Where the next event begins, once it is clear that it fits.
    fn base(&self, more: usize) -> u32 {
        assert!(
            self.data.len() + more + 64 < MAX_BYTES,
            "answers are limited far below 4 GiB"
        );
        offset(self.data.len())
    }
}

/// Numbers the events that share one origin from 1 on, in order (delivery contract D1.3).
fn number_children(ids: &mut [OriginId]) {
    let same =
        |a: &OriginId, b: &OriginId| a.incarnation == b.incarnation && a.sequence == b.sequence;
    for family in ids.chunk_by_mut(same).filter(|family| family.len() > 1) {
        for (n, id) in family.iter_mut().enumerate() {
            id.child = offset(n + 1);
        }
    }
}

impl Batch {
    /// Begins to edit: see [`Editor`].
    #[must_use]
    pub fn edit(&self) -> Editor<'_> {
        Editor::new(self)
    }
}
