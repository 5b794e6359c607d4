//! `tests/cases/packed/vectors.json`: what both forms must make of the same verdicts.

use std::collections::BTreeMap;

use bytes::Bytes;
use levada_core::Batch;
use serde::Deserialize;

use crate::verdicts::{Breach, Outcome};

/// A batch, a packed answer to it, and what that must become.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) index_hex: String,
    pub(crate) events_hex: String,
    answer_hex: String,
    pub(crate) expect: Expect,
}

/// The error, up to its reason, or all that comes out.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Expect {
    Error {
        error: String,
    },
    Events {
        events: Vec<String>,
        discarded: BTreeMap<String, u64>,
        rejected: Vec<(usize, String)>,
        made: u64,
        reserved: u64,
    },
}

pub(crate) fn all() -> Vec<Case> {
    let text = include_str!("../../../../tests/cases/packed/vectors.json");
    serde_json::from_str(text).unwrap()
}

impl Case {
    pub(crate) fn batch(&self) -> Batch {
        batch_of(&bytes(&self.events_hex))
    }

    pub(crate) fn answer(&self) -> Vec<u8> {
        bytes(&self.answer_hex)
    }

    /// Whether a form made of the answer what it must become.
    pub(crate) fn check(&self, applied: Result<Box<Outcome>, Breach>) {
        let name = &self.name;
        let outcome = match (applied, &self.expect) {
            (Err(_), Expect::Error { .. }) => return,
            (Ok(outcome), Expect::Events { .. }) => outcome,
            (got, _) => panic!("{name}: {:?}", got.map(|outcome| outcome.batch.len())),
        };
        let Expect::Events {
            events,
            discarded,
            rejected,
            made,
            reserved,
        } = &self.expect
        else {
            return;
        };
        let got = outcome.batch.iter();
        let got: Vec<_> = got.map(|e| crate::inspect::hex(e.as_bytes())).collect();
        assert_eq!(&got, events, "{name}");
        let counted = outcome.discarded(crate::OnReject::DeadLetter).into_iter();
        let counted: BTreeMap<_, _> = counted.map(|(why, n)| (why.to_owned(), n)).collect();
        assert_eq!(&counted, discarded, "{name}");
        assert_eq!(&outcome.rejected, rejected, "{name}");
        let numbers = (outcome.made, outcome.counts.reserved);
        assert_eq!(numbers, (*made, *reserved), "{name}");
    }
}

pub(crate) fn batch_of(events: &[u8]) -> Batch {
    let limits = levada_core::Limits::default();
    let data = Bytes::copy_from_slice(events);
    Batch::from_all_events(data, &limits)
        .unwrap()
        .batch
        .into_canonical()
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}
