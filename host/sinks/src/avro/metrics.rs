//! What an avro sink counts.

use std::time::Duration;

use levada_core::SinkError;
use levada_telemetry::{Counter, Histogram, Registry};

/// What an avro sink counts beside the standard counters of sinks.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) connects: Counter,
    /// Marks of receivers that were of another life of a store.
    pub(super) regressions: Counter,
    /// Events that a receiver had already.
    pub(super) known: Counter,
    pub(super) ok: Counter,
    pub(super) refused: Counter,
    pub(super) unreachable: Counter,
    pub(super) seconds: Histogram,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, part: &str) -> Self {
        let calls = |result| {
            let help = "Calls that an avro sink made, by result.";
            let labels = [("part", part), ("result", result)];
            registry.counter("levada_avro_sent_calls", help, &labels)
        };
        let labels = [("part", part)];
        let connects = "Connections that an avro sink made.";
        let regressions = "New incarnations because a receiver's mark was of another life";
        let known = "Events that were settled unsent because the receiver had them";
        let seconds = "Time from sending a call to its answer.";
        Self {
            regressions: registry.counter("levada_hop_regressions", regressions, &labels),
            known: registry.counter("levada_hop_known_events", known, &labels),
            connects: registry.counter("levada_avro_connects", connects, &labels),
            ok: calls("ok"),
            refused: calls("refused"),
            unreachable: calls("unreachable"),
            seconds: registry.histogram("levada_avro_call_seconds", seconds, &labels),
        }
    }

    pub(super) fn count(&self, result: &Result<(), SinkError>, took: Duration) {
        match result {
            Ok(()) => {
                self.ok.add(1);
                self.seconds.observe(took);
            }
            Err(SinkError::Unreachable { .. }) => self.unreachable.add(1),
            Err(_) => self.refused.add(1),
        }
    }
}
