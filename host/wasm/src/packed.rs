//! The packed form: the index that is made for a guest, and its answer, checked byte by byte.
//! `wit/packed.md` describes both.

mod frame;
mod sink;

use std::collections::HashSet;

use bytes::Bytes;
use levada_core::{Batch, Origins, avro, batch::Layout};

use crate::{
    Limits, OnReject,
    verdicts::{Breach, Change, MOST_NAMES, Outcome, Verdicts, is_reserved, read_events},
};
use frame::{Frame, Operation, Words};

pub(crate) use sink::apply_delivery;

/// The version of index and answer.
const VERSION: u8 = 1;

/// Bytes of one record of the index, without and with the origin id.
const STRIDE: u16 = 16;
const STRIDE_WITH_ID: u16 = 48;

/// The flag of an index whose records have ids.
const WITH_IDS: u8 = 1;

/// A name has 1 byte to 1 KiB, a value at most 64 KiB.
const LONGEST_NAME: usize = 1 << 10;
const LONGEST_VALUE: usize = 1 << 16;

/// Names up to which a repeated one is found by comparing each with each.
const FEW: usize = 16;

/// Writes the index of a batch over what `out` held; with ids if `origins` has some, which are then
/// as many as there are events.
pub(crate) fn write_index(layout: &Layout<'_>, origins: &Origins, out: &mut Vec<u8>) {
    let places = layout.places();
    let (flags, stride) = match origins.is_empty() {
        true => (0, STRIDE),
        false => (WITH_IDS, STRIDE_WITH_ID),
    };
    let step = usize::from(stride);
    out.clear();
    out.reserve(8 + places.len() * step);
    out.extend([VERSION, flags]);
    out.extend(stride.to_le_bytes());
    out.extend(
        u32::try_from(places.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    let head = out.len();
    out.resize(head + places.len() * step, 0);
    for (record, place) in out[head..].chunks_exact_mut(step).zip(places) {
        record[0..4].copy_from_slice(&place.pairs.to_le_bytes());
        record[4..8].copy_from_slice(&place.headers.to_le_bytes());
        record[8..12].copy_from_slice(&place.body.to_le_bytes());
        record[12..16].copy_from_slice(&place.size.to_le_bytes());
    }
    for (record, id) in out[head..].chunks_exact_mut(step).zip(origins.iter()) {
        record[16..32].copy_from_slice(&id.incarnation.0);
        record[36..44].copy_from_slice(&id.sequence.to_le_bytes());
        record[44..48].copy_from_slice(&id.child.to_le_bytes());
    }
}

/// Checks an answer and does what it says. An answer with anything wrong in it is void as a whole.
///
/// # Errors
/// [`Breach`], with byte, operation and event.
pub(crate) fn apply(
    answer: Vec<u8>,
    batch: &Batch,
    limits: &Limits,
    on_reject: OnReject,
) -> Result<Box<Outcome>, Breach> {
    let answer = Bytes::from(answer);
    let asked = (batch.len(), batch.bytes());
    let mut reader = Reader {
        frame: Frame::open(&answer, asked, limits, Words::Interceptor)?,
        whole: &answer,
        limits,
        scratch: Vec::new(),
    };
    let mut verdicts = Verdicts::new(batch, limits, on_reject);
    while let Some(operation) = reader.frame.next()? {
        reader.operation(operation, &mut verdicts)?;
    }
    Ok(verdicts.finish())
}

struct Reader<'a> {
    frame: Frame<'a>,
    /// The answer, to share parts of it.
    whole: &'a Bytes,
    limits: &'a Limits,
    /// Pairs of a patch that had reserved names among them, without those.
    scratch: Vec<u8>,
}

/// Whether a patch brings a new body.
#[derive(Debug, Clone, Copy)]
enum Body {
    Old,
    New,
}

/// The headers of a patch, as they were read.
struct Headers<'a> {
    /// All pairs to set.
    set: &'a [u8],
    count: usize,
    names: Vec<&'a [u8]>,
    reserved: u64,
}

impl<'a> Reader<'a> {
    fn breach<T>(&self, at: usize, event: usize, why: impl Into<String>) -> Result<T, Breach> {
        self.frame.breach(at, event, why)
    }

    fn operation(
        &mut self,
        operation: Operation,
        verdicts: &mut Verdicts<'_>,
    ) -> Result<(), Breach> {
        let Operation {
            code,
            event,
            n,
            from,
            end,
        } = operation;
        match code {
            0 if from == end => verdicts.pass(n),
            0 => return self.breach(from, event, "bytes left over"),
            1 => self.patch(verdicts, n, from, end, Body::Old)?,
            2 => self.patch(verdicts, n, from, end, Body::New)?,
            3 => self.replace(verdicts, from, end)?,
            4 => verdicts.discard(n, self.frame.reason(operation, from)?),
            _ => verdicts.reject(n, self.frame.reason(operation, from)?),
        }
        Ok(())
    }

    fn patch(
        &mut self,
        verdicts: &mut Verdicts<'_>,
        n: usize,
        from: usize,
        end: usize,
        body: Body,
    ) -> Result<(), Breach> {
        let event = verdicts.at();
        let (headers, rest) = self.headers(event, from, end)?;
        let body = match body {
            Body::New => Some(&self.frame.answer[rest..end]),
            Body::Old if rest == end => None,
            Body::Old => return self.breach(rest, event, "bytes left over"),
        };
        verdicts.reserved(headers.reserved * n as u64);
        let mut change = Change {
            set: headers.set,
            count: headers.count,
            names: &headers.names,
        };
        let kept: Vec<&[u8]>;
        if headers.reserved > 0 {
            change.count = without_reserved(headers.set, headers.count, &mut self.scratch);
            change.set = &self.scratch;
            kept = headers
                .names
                .iter()
                .copied()
                .filter(|name| !is_reserved(name))
                .collect();
            change.names = &kept;
        }
        for _ in 0..n {
            let event = verdicts.at();
            if let Err(why) = verdicts.patch(&change, body) {
                return self.breach(from, event, why);
            }
        }
        Ok(())
    }

    /// Reads the headers of a patch; also where they end.
    fn headers(
        &self,
        event: usize,
        from: usize,
        end: usize,
    ) -> Result<(Headers<'a>, usize), Breach> {
        let Some(head) = self.frame.answer[from..end].get(..4) else {
            return self.breach(from, event, "a patch that ends inside its head");
        };
        let count = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let removed = usize::from(u16::from_le_bytes([head[2], head[3]]));
        if count + removed > MOST_NAMES {
            let why = format!(
                "{} names in one patch, {MOST_NAMES} are allowed",
                count + removed
            );
            return self.breach(from, event, why);
        }
        let mut headers = Headers {
            set: &[],
            count,
            names: Vec::with_capacity(count + removed),
            reserved: 0,
        };
        let mut seen = HashSet::new();
        let mut at = from + 4;
        for n in 0..count + removed {
            let name_at = at;
            let name = self.text(&mut at, end, event, LONGEST_NAME)?;
            if name.is_empty() {
                return self.breach(name_at, event, "a name of no bytes");
            }
            let known = if headers.names.len() < FEW {
                headers.names.contains(&name)
            } else {
                seen.extend(headers.names[seen.len()..].iter().copied());
                seen.contains(name)
            };
            if known {
                return self.breach(name_at, event, "a name twice in one patch");
            }
            headers.names.push(name);
            headers.reserved += u64::from(is_reserved(name));
            if n < count {
                self.text(&mut at, end, event, LONGEST_VALUE)?;
                headers.set = &self.frame.answer[from + 4..at];
            }
        }
        Ok((headers, at))
    }

    /// Reads a string in canonical form.
    fn text(
        &self,
        at: &mut usize,
        end: usize,
        event: usize,
        longest: usize,
    ) -> Result<&'a [u8], Breach> {
        let start = *at;
        let payload = &self.frame.answer[..end];
        let length = match avro::read_length(payload, at, longest) {
            Ok(length) => length,
            Err(error) => return self.breach(start, event, error.to_string()),
        };
        if *at - start != avro::length_size(length) {
            return self.breach(start, event, "a length that is not in its shortest form");
        }
        let text = &payload[*at..*at + length];
        if !text.is_ascii() && std::str::from_utf8(text).is_err() {
            return self.breach(*at, event, "a header that is not UTF-8");
        }
        *at += length;
        Ok(text)
    }

    fn replace(
        &mut self,
        verdicts: &mut Verdicts<'_>,
        from: usize,
        end: usize,
    ) -> Result<(), Breach> {
        let event = verdicts.at();
        let events = match read_events(self.whole.slice(from..end), self.limits) {
            Ok(events) => events,
            Err((at, why)) => return self.breach(from + at, event, why),
        };
        verdicts
            .replace(&events)
            .or_else(|why| self.breach(from, event, why))
    }
}

/// Writes the pairs whose names do not belong to the host, and gives their number.
fn without_reserved(set: &[u8], count: usize, out: &mut Vec<u8>) -> usize {
    out.clear();
    let mut at = 0;
    let mut kept = 0;
    for _ in 0..count {
        let start = at;
        let name = avro::read_bytes(set, &mut at, usize::MAX);
        let value = avro::read_bytes(set, &mut at, usize::MAX);
        if let (Ok(name), Ok(_)) = (name, value)
            && !is_reserved(name)
        {
            out.extend_from_slice(&set[start..at]);
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests;
