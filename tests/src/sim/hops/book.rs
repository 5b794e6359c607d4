//! What was made, acknowledged and seen: the ledger outside the agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use levada_core::{Batch, BatchBuilder, Chance, EventRef};
use tokio::sync::Notify;

use super::{Finding, net::Host};

/// One for all agents of a seed. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    pages: Arc<Mutex<Pages>>,
    /// Rings when there is more to make.
    pub(super) more: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    /// Who made an event.
    made_by: BTreeMap<u64, Host>,
    /// Batches that each edge is still to make.
    quota: BTreeMap<Host, u64>,
    acked: BTreeSet<u64>,
    /// Where the last tier had each event in its channel. More than one place is stored twice.
    seen: BTreeMap<u64, BTreeSet<u64>>,
    /// What a store held that was put back to an older copy, and the copy did not.
    gone: BTreeSet<u64>,
    wrong: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Balance {
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    /// Events that went with a store that was put back.
    pub(super) gone: u64,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an edge make more batches.
    pub(super) fn allow(&self, edge: Host, batches: u64) {
        *self.lock().quota.entry(edge).or_default() += batches;
        self.more.notify_waiters();
    }

    /// How many events were acknowledged until now.
    pub(super) fn acked_so_far(&self) -> u64 {
        self.lock().acked.len() as u64
    }

    /// Nobody makes any more.
    pub(super) fn close(&self) {
        self.lock().quota.clear();
    }

    /// New events, if the edge may make some.
    pub(super) fn make(&self, edge: Host, events: u64) -> Option<(Vec<u64>, Batch)> {
        let mut pages = self.lock();
        let quota = pages.quota.get_mut(&edge).filter(|quota| **quota > 0)?;
        *quota -= 1;
        let numbers: Vec<u64> = (pages.next..pages.next + events).collect();
        pages.next += events;
        let mut builder = BatchBuilder::default();
        for number in &numbers {
            pages.made_by.insert(*number, edge);
            builder.push([("edge", edge.to_string().as_str())], &body(*number));
        }
        Some((numbers, builder.finish()))
    }

    /// An edge heard that these are stored.
    pub(super) fn acked(&self, numbers: &[u64]) {
        self.lock().acked.extend(numbers);
    }

    /// The last tier hands on what lies at this position.
    pub(super) fn saw(&self, event: EventRef<'_>, position: u64) {
        let mut pages = self.lock();
        match number(event) {
            Some(number) => drop(pages.seen.entry(number).or_default().insert(position)),
            None => pages.wrong = Some(format!("bytes that nobody put there, at {position}")),
        }
    }

    /// These were in a store that is no more, and not in the copy that took its place.
    pub(super) fn lost_with_a_store(&self, numbers: impl IntoIterator<Item = u64>) {
        self.lock().gone.extend(numbers);
    }

    /// Compares what was promised with what was seen.
    pub(super) fn balance(&self) -> Result<Balance, Finding> {
        let pages = self.lock();
        if let Some(wrong) = &pages.wrong {
            return Err(Finding::Wrong(wrong.clone()));
        }
        let missing: Vec<_> = pages
            .acked
            .iter()
            .filter(|number| !pages.seen.contains_key(*number) && !pages.gone.contains(*number))
            .collect();
        if !missing.is_empty() {
            return Err(Finding::Lost(format!(
                "{} of them: {missing:?}",
                missing.len()
            )));
        }
        let more = |places: &BTreeSet<u64>| places.len() as u64 - 1;
        Ok(Balance {
            acked: pages.acked.len() as u64,
            delivered: pages.seen.len() as u64,
            duplicates: pages.seen.values().map(more).sum(),
            gone: pages.gone.len() as u64,
        })
    }

    /// Events that were stored twice, with their places.
    pub(super) fn twice(&self) -> Vec<(u64, BTreeSet<u64>)> {
        let pages = self.lock();
        let twice = pages.seen.iter().filter(|(_, places)| places.len() > 1);
        twice
            .map(|(number, places)| (*number, places.clone()))
            .collect()
    }

    /// Whether the events of every edge lie in the order in which it made them.
    pub(super) fn check_order(&self) -> Result<(), Finding> {
        let pages = self.lock();
        let mut last: BTreeMap<Host, (u64, u64)> = BTreeMap::new();
        let mut placed: Vec<_> = pages.seen.iter().collect();
        placed.sort_unstable_by_key(|(_, places)| places.first().copied());
        for (number, places) in placed {
            let edge = pages.made_by.get(number).copied().unwrap_or_default();
            let at = places.first().copied().unwrap_or_default();
            let before = last.insert(edge, (*number, at));
            if let Some((earlier, _)) = before.filter(|(earlier, _)| earlier > number) {
                let text = format!("edge {edge}: {earlier} lies before {number} (at {at})");
                return Err(Finding::Order(text));
            }
        }
        Ok(())
    }
}

/// The number of an event, if every byte of it is right.
pub(super) fn number(event: EventRef<'_>) -> Option<u64> {
    let digits = event.body().split(|byte| *byte == b';').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (body(number) == event.body()).then_some(number)
}

/// What stands in every event and is written by [`Book::make`]: the name of its header, in Avro.
pub(super) const EVENT: &[u8] = b"\x08edge";

/// Mostly short, sometimes longer than a page.
fn body(number: u64) -> Vec<u8> {
    let chance = Chance::seeded(number);
    let filler = match chance.below(50) {
        0 => chance.below(6_000),
        _ => chance.below(120),
    };
    let mut body = format!("{number};").into_bytes();
    let words = filler.div_ceil(8);
    body.extend((0..words).flat_map(|_| chance.bits().to_le_bytes()));
    body
}
