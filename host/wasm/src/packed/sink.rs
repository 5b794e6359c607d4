//! What a sink answers in packed form.

use std::time::Duration;

use levada_core::Batch;

use super::frame::{Frame, Words};
use crate::{
    Limits,
    outcomes::Deliveries,
    verdicts::{Breach, Outcome},
};

/// A wait of so many milliseconds means: the host decides.
const ANY_WAIT: u32 = u32::MAX;

/// Checks an answer about a delivery and does what it says. An answer with anything wrong in it is
/// void as a whole.
///
/// # Errors
/// [`Breach`], with byte, operation and event.
pub(crate) fn apply_delivery(
    answer: &[u8],
    batch: &Batch,
    limits: &Limits,
) -> Result<Box<Outcome>, Breach> {
    let mut frame = Frame::open(answer, (batch.len(), batch.bytes()), limits, Words::Sink)?;
    let mut deliveries = Deliveries::default();
    while let Some(operation) = frame.next()? {
        let payload = frame.payload(operation);
        match operation.code {
            0 if payload.is_empty() => deliveries.done(operation.n),
            0 => return frame.breach(operation.from, operation.event, "bytes left over"),
            5 => {
                let reason = frame.reason(operation, operation.from)?;
                deliveries.reject(operation.n, reason);
            }
            _ => {
                let Some(wait) = payload.first_chunk::<4>() else {
                    let why = "a retry that ends inside its wait";
                    return frame.breach(operation.from, operation.event, why);
                };
                let after = match u32::from_le_bytes(*wait) {
                    ANY_WAIT => None,
                    ms => Some(Duration::from_millis(ms.into())),
                };
                let reason = frame.reason(operation, operation.from + 4)?;
                deliveries.retry(operation.n, after, reason);
            }
        }
    }
    Ok(deliveries.finish())
}
