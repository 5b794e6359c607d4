//! What operators see of a running sink.

use super::Running;
use crate::{status::Doing, verdict::Tally};

impl Running<'_> {
    pub(super) fn count(&self, tally: Tally, bytes: u64) {
        let metrics = &self.with.metrics;
        metrics.delivered_events.add(tally.done);
        if tally.retry == 0 && tally.dead == 0 {
            metrics.delivered_bytes.add(bytes);
        }
        metrics.retried_events.add(tally.retry);
        metrics.dead_events.add(tally.dead);
        metrics.discarded_events.add(tally.discarded);
    }

    pub(super) fn show(&self, stands_by: bool) {
        self.with.cell.doing(match (self.flights.len(), self.hold) {
            (0, Some(until)) => Doing::BackOff(until),
            (0, None) if stands_by && !self.draining => Doing::StandBy,
            (0, None) => Doing::Waiting,
            (batches, _) => Doing::Delivering(batches),
        });
    }

    pub(super) fn show_in_flight(&self) {
        let batches = i64::try_from(self.flights.len()).unwrap_or(i64::MAX);
        self.with.metrics.in_flight.set(batches);
    }
}
