use proptest::{collection, prelude::*};

use super::*;
use crate::tests::{
    sinks,
    vectors::{self, Expect, batch_of},
};

fn apply_default(answer: Vec<u8>, batch: &Batch) -> Result<Box<Outcome>, Breach> {
    apply(answer, batch, &Limits::default(), OnReject::DeadLetter)
}

#[test]
fn every_vector_is_read_as_it_says() {
    let cases = vectors::all();
    assert!(cases.len() > 60);
    for case in cases {
        let batch = case.batch();
        let mut index = Vec::new();
        let layout = batch.layout().unwrap();
        write_index(&layout, batch.origins(), &mut index);
        assert_eq!(crate::inspect::hex(&index), case.index_hex, "{}", case.name);
        let events = crate::inspect::hex(layout.bytes);
        assert_eq!(events, case.events_hex, "{}", case.name);
        let applied = apply_default(case.answer(), &batch);
        if let (Err(breach), Expect::Error { error }) = (&applied, &case.expect) {
            let text = breach.to_string();
            assert!(
                text.starts_with(&format!("{error}: ")),
                "{}: {text}",
                case.name
            );
        }
        case.check(applied);
    }
}

#[test]
fn every_vector_of_a_sink_is_read_as_it_says() {
    let cases = sinks::all();
    assert!(cases.len() > 25);
    for case in cases {
        let batch = case.batch();
        let mut index = Vec::new();
        let layout = batch.layout().unwrap();
        write_index(&layout, batch.origins(), &mut index);
        assert_eq!(crate::inspect::hex(&index), case.index_hex, "{}", case.name);
        let applied = apply_delivery(&case.answer(), &batch, &Limits::default());
        case.check(applied);
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
    assert_eq!(
        outcome.discarded(OnReject::Discard).get("rejected"),
        Some(&1)
    );
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

    /// The same for sinks: and each event is done, rejected or comes again.
    #[test]
    fn random_answers_of_sinks_are_read_or_refused(
        ops in collection::vec((0_u32..8, 0_u32..4, collection::vec(any::<u8>(), 0..24)), 0..6),
        cut in 0_usize..40,
    ) {
        let batch = batch_of(&[0, 2, b'x', 0, 2, b'z', 0, 2, b'y']);
        let mut answer = vec![1, 0, 0, 0];
        for (code, n, payload) in ops {
            answer.extend((n << 8 | code).to_le_bytes());
            answer.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            answer.extend(payload);
        }
        answer.truncate(answer.len().saturating_sub(cut).max(4));
        if let Ok(outcome) = apply_delivery(&answer, &batch, &Limits::default()) {
            let (done, counts) = (usize::try_from(outcome.counts.done).unwrap(), outcome.counts);
            prop_assert_eq!(done + outcome.rejected.len() + outcome.again.len(), batch.len());
            prop_assert_eq!(counts.reject, outcome.rejected.len() as u64);
            prop_assert_eq!(counts.retry, outcome.again.len() as u64);
        }
    }
}
