//! Dead letters on disk.

use bytes::Bytes;
use levada_core::{
    Batch, DeadLetter, EventRef, Incarnation, Limits, OriginId, PartId, inspect::DeadLetterInfo,
};

use crate::codec::{Reader, put_bytes, put_option};

const VERSION: u8 = 1;

/// The letter as it is stored, without the seal.
pub(crate) fn encode(letter: &DeadLetter) -> Vec<u8> {
    let mut out = Vec::with_capacity(letter.event.len() + 256);
    out.push(VERSION);
    out.extend_from_slice(&letter.at_ms.to_le_bytes());
    out.extend_from_slice(&letter.attempts.to_le_bytes());
    out.push(u8::from(letter.origin.is_some()));
    if let Some(origin) = letter.origin {
        out.extend_from_slice(&origin.incarnation.0);
        out.extend_from_slice(&origin.sequence.to_le_bytes());
        out.extend_from_slice(&origin.child.to_le_bytes());
    }
    put_bytes(&mut out, letter.part.to_string().as_bytes());
    put_bytes(&mut out, letter.flow.to_string().as_bytes());
    put_bytes(&mut out, letter.reason.as_bytes());
    put_option(&mut out, letter.limit.as_deref().map(str::as_bytes));
    put_option(&mut out, letter.backtrace.as_deref().map(str::as_bytes));
    put_option(&mut out, letter.handler.as_deref().map(str::as_bytes));
    put_bytes(&mut out, &letter.event);
    // At the end and only where it is, so that versions before it read what is before.
    if let Some(recording) = &letter.recording {
        put_bytes(&mut out, recording.as_bytes());
    }
    out
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Option<DeadLetter> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let (at_ms, attempts) = (reader.u64()?, reader.u32()?);
    let origin = match reader.byte()? {
        0 => None,
        _ => Some(OriginId {
            incarnation: Incarnation(reader.array()?),
            sequence: reader.u64()?,
            child: reader.u32()?,
        }),
    };
    Some(DeadLetter {
        origin,
        at_ms,
        attempts,
        part: PartId::parse(reader.text()?)?,
        flow: PartId::parse(reader.text()?)?,
        reason: reader.text()?.to_owned(),
        limit: text(reader.option()?)?,
        backtrace: text(reader.option()?)?,
        handler: text(reader.option()?)?,
        event: Bytes::copy_from_slice(reader.bytes()?),
        recording: match reader.0 {
            [] => None,
            _ => Some(reader.text()?.to_owned()),
        },
    })
}

fn text(bytes: Option<&[u8]>) -> Option<Option<String>> {
    bytes
        .map(|bytes| String::from_utf8(bytes.to_vec()).ok())
        .map_or(Some(None), |text| text.map(Some))
}

/// The letter for people.
pub(crate) fn describe(id: u64, letter: DeadLetter) -> DeadLetterInfo {
    // The bytes may be raw input that never was an event.
    let read = Batch::from_events(letter.event.clone(), 0, 1, &UNLIMITED);
    let whole = read.is_ok_and(|read| read.end == letter.event.len() && read.batch.len() == 1);
    let event = whole.then(|| EventRef::from_stored(&letter.event));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let body = event.map(|event| event.body());
    DeadLetterInfo {
        id,
        part: letter.part.to_string(),
        flow: letter.flow.to_string(),
        reason: letter.reason,
        limit: letter.limit,
        backtrace: letter.backtrace,
        handler: letter.handler,
        recording: letter.recording,
        origin: letter.origin.map(|origin| origin.to_string()),
        attempts: letter.attempts,
        at_ms: letter.at_ms,
        headers: event
            .map(|event| event.headers().map(pair).collect())
            .unwrap_or_default(),
        bytes: letter.event.len(),
        body: body
            .and_then(|body| std::str::from_utf8(body).ok())
            .unwrap_or_default()
            .to_owned(),
        event_hex: letter
            .event
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

const UNLIMITED: Limits = Limits {
    event: usize::MAX,
    headers: usize::MAX,
    name: usize::MAX,
    value: usize::MAX,
};
