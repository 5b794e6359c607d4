//! The standard counters of sources, interceptors and sinks, after Flume's.
//!
//! Each is added to once per batch.

use levada_core::{PartId, Put, PutError};
use levada_telemetry::{Counter, Gauge, Histogram, Registry};

/// The counters of one source.
#[derive(Debug)]
pub(crate) struct SourceMetrics {
    /// Flume's `AppendBatchReceivedCount` and `AppendBatchAcceptedCount`.
    received_batches: Counter,
    accepted_batches: Counter,
    /// Flume's `EventReceivedCount` and `EventAcceptedCount`.
    received_events: Counter,
    accepted_events: Counter,
    received_bytes: Counter,
    pub(crate) discarded_events: Counter,
    pub(crate) dead_events: Counter,
    /// Flume's `ChannelWriteFail`, by reason.
    full: Counter,
    later: Counter,
    store: Counter,
    other: Counter,
    pub(crate) put_seconds: Histogram,
}

impl SourceMetrics {
    pub(crate) fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let labels = [("part", part.as_str())];
        let count = |name, help| registry.counter(name, help, &labels);
        let failures = |reason| {
            let labels = [("part", part.as_str()), ("reason", reason)];
            registry.counter(
                "levada_source_put_failures",
                "Puts that were refused",
                &labels,
            )
        };
        Self {
            received_batches: count("levada_source_received_batches", "Batches offered"),
            accepted_batches: count("levada_source_accepted_batches", "Batches committed"),
            received_events: count("levada_source_received_events", "Events offered"),
            accepted_events: count(
                "levada_source_accepted_events",
                "Events committed, whatever became of them",
            ),
            received_bytes: count(
                "levada_source_received_bytes",
                "Bytes of the events offered",
            ),
            discarded_events: count(
                "levada_source_discarded_events",
                "Events that interceptors discarded or that had no channel",
            ),
            dead_events: count(
                "levada_source_dead_lettered_events",
                "Events moved to the dead letters before a channel",
            ),
            full: failures("full"),
            later: failures("interceptor"),
            store: failures("store"),
            other: failures("other"),
            put_seconds: registry.histogram(
                "levada_source_put_seconds",
                "From a batch's arrival to its commit",
                &labels,
            ),
        }
    }

    pub(crate) fn received(&self, put: &Put) -> u64 {
        let events = (put.batch.len() + put.faults.len()) as u64;
        self.received_batches.add(1);
        self.received_events.add(events);
        self.received_bytes.add(put.batch.bytes() as u64);
        events
    }

    pub(crate) fn accepted(&self, events: u64) {
        self.accepted_batches.add(1);
        self.accepted_events.add(events);
    }

    pub(crate) fn failed(&self, error: &PutError) {
        let counter = match error {
            PutError::Full { .. } | PutError::Deadline | PutError::TooLarge { .. } => &self.full,
            PutError::Later { .. } | PutError::Fatal { .. } => &self.later,
            PutError::Store { .. } => &self.store,
            _ => &self.other,
        };
        counter.add(1);
    }
}

/// The counters of one interceptor on one source.
#[derive(Debug)]
pub(crate) struct InterceptorMetrics {
    pub(crate) in_events: Counter,
    pub(crate) out_events: Counter,
    pub(crate) failures: Counter,
    pub(crate) seconds: Histogram,
}

impl InterceptorMetrics {
    pub(crate) fn new(registry: &Registry, part: &PartId, on: &PartId) -> Self {
        let (part, on) = (part.to_string(), on.to_string());
        let labels = [("on", on.as_str()), ("part", part.as_str())];
        let count = |name, help| registry.counter(name, help, &labels);
        Self {
            in_events: count(
                "levada_interceptor_in_events",
                "Events given to the interceptor",
            ),
            out_events: count(
                "levada_interceptor_out_events",
                "Events that came out of it",
            ),
            failures: count("levada_interceptor_failures", "Batches it did not handle"),
            seconds: registry.histogram(
                "levada_interceptor_seconds",
                "How long it took for a batch",
                &labels,
            ),
        }
    }
}

/// The counters of one sink.
#[derive(Debug)]
pub(crate) struct SinkMetrics {
    /// Flume's `BatchCompleteCount` and `BatchUnderflowCount`.
    pub(crate) complete_batches: Counter,
    pub(crate) underflow_batches: Counter,
    /// Flume's `EventDrainAttemptCount` and `EventDrainSuccessCount`.
    pub(crate) attempted_events: Counter,
    pub(crate) delivered_events: Counter,
    pub(crate) delivered_bytes: Counter,
    pub(crate) retried_events: Counter,
    pub(crate) dead_events: Counter,
    pub(crate) discarded_events: Counter,
    /// Flume's `EventWriteFail`, by reason.
    pub(crate) unreachable: Counter,
    pub(crate) refused: Counter,
    pub(crate) fatal: Counter,
    /// Flume's `ChannelReadFail`.
    pub(crate) store_failures: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) seconds: Histogram,
}

impl SinkMetrics {
    pub(crate) fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let labels = [("part", part.as_str())];
        let count = |name, help| registry.counter(name, help, &labels);
        let failures = |reason| {
            let labels = [("part", part.as_str()), ("reason", reason)];
            registry.counter(
                "levada_sink_failures",
                "Batches that were not delivered",
                &labels,
            )
        };
        Self {
            complete_batches: count("levada_sink_complete_batches", "Batches taken full"),
            underflow_batches: count(
                "levada_sink_underflow_batches",
                "Batches taken less than full",
            ),
            attempted_events: count("levada_sink_attempted_events", "Events given to the sink"),
            delivered_events: count("levada_sink_delivered_events", "Events the other side has"),
            delivered_bytes: count(
                "levada_sink_delivered_bytes",
                "Bytes of batches delivered whole",
            ),
            retried_events: count("levada_sink_retried_events", "Events that went back"),
            dead_events: count(
                "levada_sink_dead_lettered_events",
                "Events the sink rejected",
            ),
            discarded_events: count("levada_sink_discarded_events", "Events gone on purpose"),
            unreachable: failures("unreachable"),
            refused: failures("refused"),
            fatal: failures("fatal"),
            store_failures: count(
                "levada_sink_store_failures",
                "Batches the store could not give or settle",
            ),
            in_flight: registry.gauge(
                "levada_sink_in_flight_batches",
                "Batches given to the sink and not answered",
                &labels,
            ),
            seconds: registry.histogram(
                "levada_sink_deliver_seconds",
                "From giving a batch to the sink to its answer",
                &labels,
            ),
        }
    }
}

/// How often a part broke.
#[derive(Debug, Clone)]
pub(crate) struct PartMetrics {
    pub(crate) restarts: Counter,
    pub(crate) panics: Counter,
}

impl PartMetrics {
    pub(crate) fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let labels = [("part", part.as_str())];
        let restarts = "Times a part was built and opened again";
        let panics = "Panics of a part that were caught";
        Self {
            restarts: registry.counter("levada_part_restarts", restarts, &labels),
            panics: registry.counter("levada_part_panics", panics, &labels),
        }
    }
}
