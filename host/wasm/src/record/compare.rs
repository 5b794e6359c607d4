//! What differs between a recorded call and the same call now.

use serde_json::Value;

use super::{End, Fault, Stopped, Tape};
use crate::{broken::Broken, event::coded};

/// Everything that differs, one line each; nothing if the call ended as it was recorded.
pub(crate) fn differences(
    recorded: &End,
    tape: Option<Tape>,
    broken: Option<&Broken>,
) -> Vec<String> {
    let Some(Tape::Replays(read)) = tape else {
        return vec!["nothing was replayed".into()];
    };
    let (answer, stopped, next) = read.into_parts();
    match stopped {
        Some(Stopped::Differs(what)) => return vec![what],
        Some(Stopped::AsRecorded) => return Vec::new(),
        None => {}
    }
    let mut found = Vec::new();
    if let Some(next) = next {
        found.push(format!("{next} was recorded, and is not asked now"));
    }
    match (&recorded.answer, &answer) {
        (Some(then), Some(now)) => found.extend(first_difference("answer", then, now)),
        (None, Some(_)) => found.push("the guest answers now, and did not when recorded".into()),
        (Some(_), None) => found.push("the guest answered when recorded, and does not now".into()),
        (None, None) => {}
    }
    let now = broken.map(Fault::from);
    match (&recorded.fault, &now) {
        (None, None) => {}
        (Some(then), None) => found.push(format!("it failed when recorded: {}", then.reason)),
        (None, Some(now)) => found.push(format!("it fails now: {}", now.reason)),
        (Some(then), Some(now)) if (&then.reason, &then.limit) == (&now.reason, &now.limit) => {}
        (Some(then), Some(now)) => found.push(format!(
            "it failed with \"{}\" when recorded, and with \"{}\" now",
            then.reason, now.reason
        )),
    }
    found
}

/// Where two values first differ, with what is there.
fn first_difference(at: &str, then: &Value, now: &Value) -> Option<String> {
    if then == now {
        return None;
    }
    if let (Some(then), Some(now)) = (coded(then), coded(now)) {
        let pairs = then.iter().zip(&now);
        let same = pairs.take_while(|(a, b)| a == b).count();
        let byte = |bytes: &[u8]| {
            bytes
                .get(same)
                .map_or("end".into(), |b| format!("0x{b:02x}"))
        };
        return Some(format!(
            "{at}, byte {same} of {}: {} was recorded, {} now",
            then.len(),
            byte(&then),
            byte(&now)
        ));
    }
    match (then, now) {
        (Value::Array(then), Value::Array(now)) if then.len() == now.len() => {
            let pairs = then.iter().zip(now).enumerate();
            pairs
                .filter_map(|(n, (then, now))| first_difference(&format!("{at}[{n}]"), then, now))
                .next()
        }
        (Value::Object(then), Value::Object(now)) if then.keys().eq(now.keys()) => {
            let pairs = then.iter().zip(now.values());
            pairs
                .filter_map(|((key, then), now)| {
                    first_difference(&format!("{at}.{key}"), then, now)
                })
                .next()
        }
        _ => Some(format!("{at}: {then} was recorded, {now} now")),
    }
}
