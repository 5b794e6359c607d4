use std::collections::BTreeMap;

use proptest::{collection, prelude::*};
use serde::Deserialize;

use super::*;

/// One case of `tests/cases/packed/vectors.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    index_hex: String,
    events_hex: String,
    answer_hex: String,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
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

const VECTORS: &str = include_str!("../../../../tests/cases/packed/vectors.json");

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn batch_of(events: &[u8]) -> Batch {
    let limits = levada_core::Limits::default();
    let data = Bytes::copy_from_slice(events);
    Batch::from_all_events(data, &limits)
        .unwrap()
        .batch
        .canonical()
}

fn apply_default(answer: Vec<u8>, batch: &Batch) -> Result<Outcome, Breach> {
    apply(answer, batch, &Limits::default(), OnReject::DeadLetter)
}

#[test]
fn every_vector_is_read_as_it_says() {
    let cases: Vec<Case> = serde_json::from_str(VECTORS).unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let batch = batch_of(&bytes(&case.events_hex));
        let mut index = Vec::new();
        let layout = batch.layout().unwrap();
        write_index(&layout, &mut index);
        assert_eq!(crate::inspect::hex(&index), case.index_hex, "{}", case.name);
        assert_eq!(
            crate::inspect::hex(layout.bytes),
            case.events_hex,
            "{}",
            case.name
        );
        match (apply_default(bytes(&case.answer_hex), &batch), case.expect) {
            (Err(breach), Expect::Error { error }) => {
                let text = breach.to_string();
                assert!(
                    text.starts_with(&format!("{error}: ")),
                    "{}: {text}",
                    case.name
                );
            }
            (
                Ok(outcome),
                Expect::Events {
                    events,
                    discarded,
                    rejected,
                    made,
                    reserved,
                },
            ) => {
                let got: Vec<_> = outcome
                    .batch
                    .iter()
                    .map(|e| crate::inspect::hex(e.as_bytes()))
                    .collect();
                assert_eq!(got, events, "{}", case.name);
                let counted: BTreeMap<_, _> = outcome.discarded.into_iter().collect();
                assert_eq!(counted, discarded, "{}", case.name);
                assert_eq!(outcome.rejected, rejected, "{}", case.name);
                assert_eq!(
                    (outcome.made, outcome.counts.reserved),
                    (made, reserved),
                    "{}",
                    case.name
                );
            }
            (got, _) => panic!(
                "{}: {:?}",
                case.name,
                got.map(|outcome| outcome.batch.len())
            ),
        }
    }
}

#[test]
fn what_comes_out_is_bounded() {
    let batch = batch_of(&[0, 2, b'x'].repeat(1000));
    let mut payload = vec![1, 0, 0, 0];
    avro::write_bytes(&mut payload, b"a");
    avro::write_bytes(&mut payload, &vec![b'v'; 65536]);
    let mut patch = vec![1, 0, 0, 0];
    patch.extend((1000_u32 << 8 | 1).to_le_bytes());
    patch.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    patch.extend(payload);
    // 64 KiB for each of a thousand events is more than a call may make.
    let breach = apply_default(patch, &batch).unwrap_err();
    assert!(breach.why.contains("more bytes come out"), "{breach}");
    let breach = apply_default(vec![1; (1 << 20) + 1], &batch).unwrap_err();
    assert!(breach.why.contains("are allowed"), "{breach}");
    // One event of more than 1 MiB.
    let one = batch_of(&[0, 2, b'x']);
    let mut answer = vec![1, 0, 0, 0];
    answer.extend((1_u32 << 8 | 2).to_le_bytes());
    let size = u32::try_from((1 << 20) - 20).unwrap();
    answer.extend((size + 4).to_le_bytes());
    answer.extend([0; 4]);
    answer.extend(vec![b'b'; size as usize]);
    assert!(apply_default(answer, &one).is_ok());
    let limits = Limits {
        event_bytes: 1 << 19,
        ..Limits::default()
    };
    let mut answer = vec![1, 0, 0, 0];
    answer.extend((1_u32 << 8 | 2).to_le_bytes());
    answer.extend((size + 4).to_le_bytes());
    answer.extend([0; 4]);
    answer.extend(vec![b'b'; size as usize]);
    let breach = apply(answer, &one, &limits, OnReject::DeadLetter).unwrap_err();
    assert!(breach.why.contains("524288 are allowed"), "{breach}");
}

#[test]
fn rejected_events_can_be_discarded_or_passed() {
    let batch = batch_of(&[0, 2, b'x']);
    let mut answer = vec![1, 0, 0, 0];
    answer.extend((1_u32 << 8 | 5).to_le_bytes());
    answer.extend([2, 0, 0, 0, b'n', b'o']);
    let limits = Limits::default();
    let outcome = apply(answer.clone(), &batch, &limits, OnReject::Discard).unwrap();
    assert_eq!(outcome.discarded.get("rejected"), Some(&1));
    assert!(outcome.batch.is_empty());
    let outcome = apply(answer, &batch, &limits, OnReject::Pass).unwrap();
    assert_eq!(outcome.batch, batch);
}

proptest! {
    /// Whatever a guest writes, the host reads it or refuses it, and what comes out is canonical.
    #[test]
    fn random_answers_are_read_or_refused(
        ops in collection::vec((0_u32..8, 0_u32..4, collection::vec(any::<u8>(), 0..24)), 0..6),
        cut in 0_usize..40,
    ) {
        let batch = batch_of(&[0, 2, b'x', 2, 2, b'a', 2, b'b', 0, 0, 0, 2, b'y']);
        let mut answer = vec![1, 0, 0, 0];
        for (code, n, payload) in ops {
            answer.extend((n << 8 | code).to_le_bytes());
            answer.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            answer.extend(payload);
        }
        answer.truncate(answer.len().saturating_sub(cut).max(4));
        if let Ok(outcome) = apply_default(answer, &batch) {
            let data: Vec<u8> = outcome.batch.runs().flatten().copied().collect();
            prop_assert_eq!(batch_of(&data), outcome.batch);
        }
    }
}
