//! The typed form: records in, one verdict per event out. Meaning and limits are those of the
//! packed form.

use levada_core::{Batch, BatchBuilder, avro};
use serde::Serialize;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::{
    Limits, OnReject,
    event::{blob, optional_blob},
    verdicts::{Breach, Change, MOST_NAMES, Outcome, Verdicts, is_reserved, read_events},
};

/// `types.header`, on its way to a guest.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct HeaderIn<'a> {
    #[component(name = "name")]
    name: &'a str,
    #[component(name = "value")]
    value: &'a str,
}

/// `types.event`, on its way to a guest.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub(crate) struct EventIn<'a> {
    #[component(name = "headers")]
    headers: &'a [HeaderIn<'a>],
    #[component(name = "body")]
    body: &'a [u8],
}

/// `types.header`, from a guest.
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(record)]
pub(crate) struct Header {
    #[component(name = "name")]
    name: String,
    #[component(name = "value")]
    value: String,
}

/// `types.event`, from a guest.
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(record)]
pub(crate) struct Event {
    #[component(name = "headers")]
    headers: Vec<Header>,
    #[component(name = "body")]
    #[serde(with = "blob")]
    body: Vec<u8>,
}

/// `types.patch`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(record)]
pub(crate) struct Patch {
    #[component(name = "set")]
    set: Vec<Header>,
    #[component(name = "remove")]
    remove: Vec<String>,
    #[component(name = "body")]
    #[serde(serialize_with = "optional_blob")]
    body: Option<Vec<u8>>,
}

/// `types.verdict`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(variant)]
pub(crate) enum Verdict {
    #[component(name = "pass")]
    Pass,
    #[component(name = "patch")]
    Patch(Patch),
    #[component(name = "replace")]
    Replace(Vec<Event>),
    #[component(name = "discard")]
    Discard(String),
    #[component(name = "reject")]
    Reject(String),
}

/// `types.later`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(record)]
pub(crate) struct Later {
    #[component(name = "reason")]
    pub(crate) reason: String,
    #[component(name = "after-ms")]
    pub(crate) after_ms: Option<u32>,
}

/// `types.failure`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(variant)]
pub(crate) enum Failure {
    #[component(name = "retry")]
    Retry(Later),
    #[component(name = "fatal")]
    Fatal(String),
}

/// The headers of every event, one after the other.
pub(crate) fn headers_of(batch: &Batch) -> Vec<HeaderIn<'_>> {
    let pairs = batch.iter().flat_map(|event| event.headers());
    pairs
        .map(|(name, value)| HeaderIn { name, value })
        .collect()
}

/// The events as records that borrow from the batch.
pub(crate) fn events_of<'a>(batch: &'a Batch, headers: &'a [HeaderIn<'a>]) -> Vec<EventIn<'a>> {
    let mut rest = headers;
    let event = |event: levada_core::EventRef<'a>| {
        let (own, others) = rest.split_at(event.headers().count());
        rest = others;
        EventIn {
            headers: own,
            body: event.body(),
        }
    };
    batch.iter().map(event).collect()
}

/// Does what the verdicts say. Verdicts with anything wrong in them are void as a whole.
///
/// # Errors
/// [`Breach`], with the event.
pub(crate) fn apply(
    answer: &[Verdict],
    batch: &Batch,
    limits: &Limits,
    on_reject: OnReject,
) -> Result<Box<Outcome>, Breach> {
    let mut verdicts = Verdicts::new(batch, limits, on_reject);
    if answer.len() != batch.len() {
        return Err(Breach {
            place: None,
            event: answer.len().min(batch.len()),
            why: format!("{} verdicts for {} events", answer.len(), batch.len()),
        });
    }
    for (event, verdict) in answer.iter().enumerate() {
        let done = match verdict {
            Verdict::Pass => {
                verdicts.pass(1);
                Ok(())
            }
            Verdict::Patch(patch) => apply_patch(&mut verdicts, patch),
            Verdict::Replace(events) => apply_replace(&mut verdicts, events, limits),
            Verdict::Discard(reason) => {
                verdicts.discard(1, reason);
                Ok(())
            }
            Verdict::Reject(reason) => {
                verdicts.reject(1, reason);
                Ok(())
            }
        };
        done.map_err(|why| Breach {
            place: None,
            event,
            why,
        })?;
    }
    Ok(verdicts.finish())
}

fn apply_patch(verdicts: &mut Verdicts<'_>, patch: &Patch) -> Result<(), String> {
    let all = patch.set.len() + patch.remove.len();
    if all > MOST_NAMES {
        return Err(format!(
            "{all} names in one patch, {MOST_NAMES} are allowed"
        ));
    }
    let mut set = Vec::new();
    let mut count = 0;
    let mut names: Vec<&[u8]> = Vec::with_capacity(all);
    for header in &patch.set {
        check_name(&header.name)?;
        check_value(&header.value)?;
        names.push(header.name.as_bytes());
        if !is_reserved(header.name.as_bytes()) {
            avro::write_bytes(&mut set, header.name.as_bytes());
            avro::write_bytes(&mut set, header.value.as_bytes());
            count += 1;
        }
    }
    for name in &patch.remove {
        check_name(name)?;
        names.push(name.as_bytes());
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a name twice in one patch".into());
    }
    names.retain(|name| !is_reserved(name));
    let reserved = (all - names.len()) as u64;
    verdicts.reserved(reserved);
    let change = Change {
        set: &set,
        count,
        names: &names,
    };
    verdicts.patch(&change, patch.body.as_deref())
}

fn apply_replace(
    verdicts: &mut Verdicts<'_>,
    events: &[Event],
    limits: &Limits,
) -> Result<(), String> {
    let events = batch_of(events, limits)?;
    verdicts.replace(&events)
}

/// Events of a guest as a canonical batch, if they are what events may be.
pub(crate) fn batch_of(events: &[Event], limits: &Limits) -> Result<Batch, String> {
    let mut builder = BatchBuilder::default();
    for event in events {
        for header in &event.headers {
            check_name(&header.name)?;
            check_value(&header.value)?;
        }
        let mut names: Vec<_> = event.headers.iter().map(|header| &header.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a header twice in one event".into());
        }
        let headers = event
            .headers
            .iter()
            .map(|header| (&header.name, &header.value));
        builder.push(headers, &event.body);
    }
    let built = builder.finish();
    let bytes = built.runs().next().unwrap_or_default().to_vec();
    read_events(bytes.into(), limits).map_err(|(_, why)| why)
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        1..=1024 => Ok(()),
        bytes => Err(format!(
            "a header name of {bytes} bytes, allowed are 1 to 1024"
        )),
    }
}

fn check_value(value: &str) -> Result<(), String> {
    match value.len() {
        0..=65536 => Ok(()),
        bytes => Err(format!(
            "a header value of {bytes} bytes, allowed are 65536"
        )),
    }
}

#[cfg(test)]
mod tests;
