use super::*;
use crate::tests::sinks::{self, Expect};

/// The typed answer that a packed one stands for; `None` if no typed guest can say it.
fn typed_of(answer: &[u8]) -> Option<AllDelivered> {
    let mut each = Vec::new();
    let mut rest = answer.strip_prefix(&[1, 0, 0, 0])?;
    while !rest.is_empty() {
        let word = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
        let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        let payload = rest.get(8..8 + length)?;
        rest = &rest[8 + length..];
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let outcome = match word & 0xff {
            _ if word >> 8 == 0 => return None,
            0 if payload.is_empty() => Delivered::Done,
            5 => Delivered::Reject(text(payload)?),
            6 => {
                let (wait, reason) = payload.split_first_chunk::<4>()?;
                let wait = u32::from_le_bytes(*wait);
                Delivered::Retry(Later {
                    reason: text(reason)?,
                    after_ms: (wait != u32::MAX).then_some(wait),
                })
            }
            _ => return None,
        };
        each.extend((0..word >> 8).map(|_| outcome.clone()));
    }
    Some(AllDelivered::Each(each))
}

#[test]
fn every_vector_that_can_be_said_in_types_means_the_same() {
    let (mut said, mut refused) = (0, 0);
    for case in sinks::all() {
        let Some(answer) = typed_of(&case.answer()) else {
            let is_error = matches!(case.expect, Expect::Error { .. });
            assert!(is_error, "{} can be said", case.name);
            continue;
        };
        let applied = apply(answer, case.batch().len());
        match applied {
            Ok(_) => said += 1,
            Err(_) => refused += 1,
        }
        case.check(applied);
    }
    println!("{said} vectors said, {refused} refused");
    assert!(said >= 8 && refused >= 3, "{said} said, {refused} refused");
}

#[test]
fn all_done_is_one_word_for_any_number() {
    let outcome = apply(AllDelivered::AllDone, 1000).unwrap();
    assert_eq!(outcome.counts.done, 1000);
    assert!(outcome.rejected.is_empty() && outcome.again.is_empty());
}

#[test]
fn a_wait_has_an_end() {
    let later = Later {
        reason: "busy".into(),
        after_ms: Some(u32::MAX),
    };
    let outcome = apply(AllDelivered::Each(vec![Delivered::Retry(later)]), 1).unwrap();
    assert_eq!(outcome.again[0].after, Some(Duration::from_secs(3600)));
}
