//! The events of a call.

use bytes::Bytes;
use levada_core::{Batch, Limits, Malformed, avro, batch::Checked};

use crate::Method;

/// Most events of one call, whatever their size. An event takes two bytes on the wire and, with
/// its place in the index and among the faults, up to 130 in memory: a call's events never take
/// more than a frame of 16 MiB beside that frame.
pub const MAX_EVENTS: usize = 1 << 17;

/// Checks the events of a call and keeps them where they are. What follows them is ignored, as in
/// Java.
///
/// # Errors
/// [`Malformed`] if the parameters are not what the method takes.
pub fn read_events(
    message: Bytes,
    params_at: usize,
    method: Method,
    limits: &Limits,
) -> Result<Checked, Malformed> {
    match method {
        Method::Append => Batch::from_events(message, params_at, 1, limits),
        Method::AppendBatch => Batch::from_array(message, params_at, MAX_EVENTS, limits),
        Method::Ping => Ok(Checked {
            end: params_at,
            ..Checked::default()
        }),
    }
}

/// Appends the parameters of a call: events are copied, not encoded.
///
/// `append` takes exactly one event.
pub fn write_events(out: &mut Vec<u8>, method: Method, batch: &Batch) {
    match method {
        Method::Append => {
            assert_eq!(batch.len(), 1, "append takes one event");
            write_runs(out, batch);
        }
        Method::AppendBatch => {
            if !batch.is_empty() {
                avro::write_length(out, batch.len());
                write_runs(out, batch);
            }
            out.push(0);
        }
        Method::Ping => {}
    }
}

fn write_runs(out: &mut Vec<u8>, batch: &Batch) {
    for run in batch.runs() {
        out.extend_from_slice(run);
    }
}

/// Most bytes that a call without metadata has beside its events: handshake with the protocol's
/// text, name, count.
pub const BESIDE: usize = 1 << 10;

/// How many events from the front of `lengths` fit a message of `max_frame` bytes; 0 if not even
/// the first one does.
#[must_use]
pub fn fitting(lengths: impl Iterator<Item = u32>, max_frame: usize) -> usize {
    let mut left = max_frame.saturating_sub(BESIDE);
    let mut fits = |length: u32| match left.checked_sub(length as usize) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    lengths
        .take(MAX_EVENTS)
        .take_while(|length| fits(*length))
        .count()
}

#[cfg(test)]
mod tests;
