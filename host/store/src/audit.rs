//! The accounting identities (delivery contract D8), checked against what is stored.

use std::collections::{BTreeMap, BTreeSet};

use levada_core::{Counter, PartId, PartKind};
use serde::Serialize;

use crate::shared::CountKey;

/// One identity: it holds if both sides are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The source or channel it is about.
    pub part: String,
    pub left: u64,
    pub right: u64,
    /// Both sides with their terms.
    pub detail: String,
}

impl Identity {
    /// Whether nothing is missing and nothing too much.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.left == self.right
    }
}

const INTO: [Counter; 3] = [Counter::Put, Counter::Made, Counter::Replayed];
const OUT_OF: [Counter; 5] = [
    Counter::Delivered,
    Counter::Discarded,
    Counter::DeadLettered,
    Counter::Quarantined,
    Counter::Dropped,
];
const TAKEN: [Counter; 3] = [Counter::Accepted, Counter::Made, Counter::Replayed];
const GIVEN: [Counter; 3] = [Counter::Put, Counter::Discarded, Counter::DeadLettered];

/// Every identity of a ledger; `queued` are the events in each durable channel.
pub(crate) fn identities(
    ledger: &BTreeMap<CountKey, u64>,
    queued: &BTreeMap<PartId, u64>,
) -> Vec<Identity> {
    let parts = ledger.keys().map(|(part, _, _)| part);
    let sources: BTreeSet<&PartId> = parts
        .filter(|part| part.kind == PartKind::Sources)
        .collect();
    let sources = sources
        .into_iter()
        .map(|part| identity(ledger, part, &TAKEN, &GIVEN, None));
    let channels = queued
        .iter()
        .map(|(part, events)| identity(ledger, part, &INTO, &OUT_OF, Some(*events)));
    sources.chain(channels).collect()
}

/// Events of all channels that were damaged.
pub(crate) fn quarantined(ledger: &BTreeMap<CountKey, u64>) -> u64 {
    let of_it = ledger
        .iter()
        .filter(|((_, counter, _), _)| *counter == Counter::Quarantined);
    of_it.map(|(_, amount)| amount).sum()
}

/// How many events a channel must hold, if its identity is to hold.
pub(crate) fn left_in(ledger: &BTreeMap<CountKey, u64>, part: &PartId) -> u64 {
    let sum = |counters: &[Counter]| -> u64 {
        let of_it = ledger.iter().filter(|((of, _, _), _)| of == part);
        let counted = of_it.filter(|((_, counter, _), _)| counters.contains(counter));
        counted.map(|(_, amount)| amount).sum()
    };
    sum(&INTO).saturating_sub(sum(&OUT_OF))
}

fn identity(
    ledger: &BTreeMap<CountKey, u64>,
    part: &PartId,
    left: &[Counter],
    right: &[Counter],
    queued: Option<u64>,
) -> Identity {
    let sum = |counter: Counter| -> u64 {
        let of_it = ledger
            .iter()
            .filter(|((of, which, _), _)| of == part && *which == counter);
        of_it.map(|(_, amount)| amount).sum()
    };
    let terms = |counters: &[Counter]| -> Vec<(&'static str, u64)> {
        counters
            .iter()
            .map(|counter| (counter.as_str(), sum(*counter)))
            .collect()
    };
    let left = terms(left);
    let mut right = terms(right);
    right.extend(queued.map(|events| ("queued", events)));
    Identity {
        part: part.to_string(),
        left: left.iter().map(|(_, amount)| amount).sum(),
        right: right.iter().map(|(_, amount)| amount).sum(),
        detail: format!("{} = {}", written(&left), written(&right)),
    }
}

fn written(terms: &[(&str, u64)]) -> String {
    let terms: Vec<_> = terms
        .iter()
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    terms.join(" + ")
}
