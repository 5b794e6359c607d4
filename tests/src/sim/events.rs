//! Numbered events, each of whose bytes is known.

use std::collections::HashMap;

use bytes::Bytes;
use levada_core::{Batch, BatchBuilder, Chance, EventRef};

/// Every event that was made so far: what comes back is compared with it.
#[derive(Debug, Default)]
pub(super) struct Events {
    made: HashMap<u64, Bytes>,
    next: u64,
}

impl Events {
    /// So many new ones, in one batch; gives the number of the first, too.
    pub(super) fn make(&mut self, events: u64) -> (u64, Batch) {
        let first = self.next;
        self.next += events;
        let mut builder = BatchBuilder::default();
        for number in first..self.next {
            let text = number.to_string();
            let headers = [("number", text.as_str()), ("kind", "simulated")];
            builder.push(headers, &body(&Chance::seeded(number), &text));
        }
        let batch = builder.finish();
        let all = (first..self.next).enumerate();
        let bytes = all.filter_map(|(at, number)| Some((number, batch.event_bytes(at)?)));
        self.made.extend(bytes);
        (first, batch)
    }

    /// An event's Avro binary.
    pub(super) fn bytes(&self, number: u64) -> Option<&Bytes> {
        self.made.get(&number)
    }

    /// The number of an event, if it is one of ours and every byte is right.
    pub(super) fn number(&self, event: EventRef<'_>) -> Option<u64> {
        let body = event.body();
        let end = body.iter().position(|byte| *byte == b';')?;
        let number = std::str::from_utf8(&body[..end]).ok()?.parse().ok()?;
        (self.bytes(number)?[..] == *event.as_bytes()).then_some(number)
    }
}

/// Mostly short; some fill pages, a few are rows of their own.
fn body(chance: &Chance, text: &str) -> Vec<u8> {
    let filler = match chance.below(800) {
        0 => 60_000 + chance.below(90_000),
        1..=12 => 2_000 + chance.below(6_000),
        _ => chance.below(250),
    };
    let mut body = format!("{text};").into_bytes();
    let words = filler.div_ceil(8);
    body.extend((0..words).flat_map(|_| chance.bits().to_le_bytes()));
    body
}
