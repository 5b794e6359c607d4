//! `tests/cases/packed/sinks.json`: what both forms must make of what a sink says.

use levada_core::{Batch, OriginId, Origins, origin::Incarnation};
use serde::Deserialize;

use super::vectors::{batch_of, bytes};
use crate::verdicts::{Breach, Outcome};

/// A batch, an answer of a sink to it, and what that must become.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) index_hex: String,
    events_hex: String,
    /// The origin ids as text; none if the events have none.
    ids: Vec<String>,
    answer_hex: String,
    pub(crate) expect: Expect,
}

/// The error, up to its reason, or what became of each event.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Expect {
    Error {
        error: String,
    },
    Outcomes {
        done: u64,
        rejected: Vec<(usize, String)>,
        again: Vec<(usize, Option<u64>, String)>,
    },
}

pub(crate) fn all() -> Vec<Case> {
    let text = include_str!("../../../../tests/cases/packed/sinks.json");
    serde_json::from_str(text).unwrap()
}

impl Case {
    pub(crate) fn batch(&self) -> Batch {
        let ids = self.ids.iter().map(|id| id_of(id));
        batch_of(&bytes(&self.events_hex)).with_origins(Origins::from_ids(ids))
    }

    pub(crate) fn answer(&self) -> Vec<u8> {
        bytes(&self.answer_hex)
    }

    /// Whether a form made of the answer what it must become.
    pub(crate) fn check(&self, applied: Result<Box<Outcome>, Breach>) {
        let name = &self.name;
        match (applied, &self.expect) {
            (Err(breach), Expect::Error { error }) => {
                // A typed answer has no bytes to name.
                let text = breach.to_string();
                let same = breach.place.is_none() || text.starts_with(&format!("{error}: "));
                assert!(same, "{name}: {text}");
            }
            (
                Ok(outcome),
                Expect::Outcomes {
                    done,
                    rejected,
                    again,
                },
            ) => {
                let ms = |after: std::time::Duration| u64::try_from(after.as_millis()).unwrap();
                let said = outcome.again.iter();
                let said: Vec<_> = said
                    .map(|again| (again.place, again.after.map(ms), again.reason.clone()))
                    .collect();
                assert_eq!(outcome.counts.done, *done, "{name}");
                assert_eq!(&outcome.rejected, rejected, "{name}");
                assert_eq!(&said, again, "{name}");
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
}

/// An origin id from its text.
fn id_of(text: &str) -> OriginId {
    let (incarnation, rest) = text.split_once('-').unwrap();
    let (sequence, child) = rest.split_once('.').unwrap();
    let id = OriginId {
        incarnation: Incarnation(bytes(incarnation).try_into().unwrap()),
        sequence: sequence.parse().unwrap(),
        child: child.parse().unwrap(),
    };
    assert_eq!(id.to_string(), text, "as text");
    id
}
