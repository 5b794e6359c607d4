use bytes::Bytes;

use super::*;
use crate::tests::vectors;

/// The verdicts that a packed answer stands for; `None` if it is not well-formed, since then no
/// typed guest can say it.
fn verdicts_of(answer: &[u8]) -> Option<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let mut rest = answer.strip_prefix(&[1, 0, 0, 0])?;
    while !rest.is_empty() {
        let word = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        let payload = rest.get(8..8 + length)?;
        rest = &rest[8 + length..];
        let (n, code) = (word >> 8, word & 0xff);
        if !(1..1000).contains(&n) || (n > 1 && [2, 3].contains(&code)) {
            return None;
        }
        let verdict = match code {
            0 if payload.is_empty() => Verdict::Pass,
            1 | 2 => Verdict::Patch(patch_of(payload, code == 2)?),
            3 => Verdict::Replace(events_in(payload)?),
            4 => Verdict::Discard(String::from_utf8(payload.to_vec()).ok()?),
            5 => Verdict::Reject(String::from_utf8(payload.to_vec()).ok()?),
            _ => return None,
        };
        verdicts.extend((0..n).map(|_| verdict.clone()));
    }
    Some(verdicts)
}

fn patch_of(payload: &[u8], with_body: bool) -> Option<Patch> {
    let count = |at: usize| {
        Some(u16::from_le_bytes(
            payload.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let mut at = 4;
    let mut text = || {
        let before = at;
        let bytes = avro::read_bytes(payload, &mut at, usize::MAX).ok()?;
        let minimal = avro::length_size(bytes.len()) + bytes.len() == at - before;
        let text = String::from_utf8(bytes.to_vec()).ok()?;
        minimal.then_some(text)
    };
    let set: Option<Vec<_>> = (0..count(0)?)
        .map(|_| {
            let (name, value) = (text()?, text()?);
            Some(Header { name, value })
        })
        .collect();
    let set = set?;
    let remove: Option<Vec<_>> = (0..count(2)?).map(|_| text()).collect();
    let remove = remove?;
    let left = payload[at..].to_vec();
    let body = match with_body {
        true => Some(left),
        false if left.is_empty() => None,
        false => return None,
    };
    Some(Patch { set, remove, body })
}

fn events_in(payload: &[u8]) -> Option<Vec<Event>> {
    let data = Bytes::copy_from_slice(payload);
    let checked = Batch::from_all_events(data, &levada_core::Limits::default()).ok()?;
    let mut again = BatchBuilder::default();
    let mut events = Vec::new();
    for event in checked.batch.iter() {
        again.push(event.headers(), event.body());
        let header = |(name, value): (&str, &str)| Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        events.push(Event {
            headers: event.headers().map(header).collect(),
            body: event.body().to_vec(),
        });
    }
    // Only what is written as the host would write it.
    let again: Vec<u8> = again.finish().runs().flatten().copied().collect();
    (again == payload).then_some(events)
}

#[test]
fn every_vector_that_can_be_said_in_types_means_the_same() {
    let (mut said, mut refused) = (0, 0);
    for case in vectors::all() {
        let Some(verdicts) = verdicts_of(&case.answer()) else {
            let is_error = matches!(case.expect, vectors::Expect::Error { .. });
            assert!(is_error, "{} can be said", case.name);
            continue;
        };
        let limits = Limits::default();
        let applied = apply(&verdicts, &case.batch(), &limits, OnReject::DeadLetter);
        match applied {
            Ok(_) => said += 1,
            Err(_) => refused += 1,
        }
        case.check(applied);
    }
    println!("{said} vectors said, {refused} refused");
    assert!(said >= 20 && refused >= 5, "{said} said, {refused} refused");
}
