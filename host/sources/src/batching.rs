//! The settings that sources share, and what an event may be.

use std::time::Duration;

use levada_core::{ByteSize, Limits, Problem, Problems, Table, params, settings::Params as _};

params! {
    /// When a batch is given on: whatever comes first.
    pub(crate) struct BatchParams {
        /// Most events in a batch.
        pub events: usize = 1000,
        /// Most bytes in a batch; one larger event is a batch of its own.
        pub bytes: ByteSize = "1MiB",
        /// How long to wait for a full batch after its first event.
        pub wait: Duration = "50ms",
    }
}

impl BatchParams {
    /// What was written, or the defaults.
    pub(crate) fn or_default(written: Option<&Self>) -> Self {
        let defaults = || Self::read_fields(&Table::default(), &mut Problems::new());
        written
            .cloned()
            .or_else(defaults)
            .expect("the defaults above are values of their types")
    }

    /// Refuses a batch that could hold nothing.
    pub(crate) fn check(&self, table: &Table, problems: &mut Problems) {
        if self.events == 0 || self.bytes.0 == 0 {
            let key = table.path_of("batch");
            let span = table
                .get("batch")
                .map_or(table.span, |(_, value)| value.span);
            let problem = Problem::error(Some(span), key, "a batch that can hold nothing");
            problems.push(problem.allowed("events and bytes from 1 on"));
        }
    }
}

/// The limits of events for a source with this `max-event`.
pub(crate) fn limits(max_event: ByteSize) -> Limits {
    Limits {
        event: max_event.as_usize(),
        ..Limits::default()
    }
}

/// Refuses a `max-event` that no batch could hold.
pub(crate) fn check_max_event(max_event: ByteSize, table: &Table, problems: &mut Problems) {
    const MOST: ByteSize = ByteSize::mib(1024);
    if max_event.0 == 0 || max_event > MOST {
        let key = table.path_of("max-event");
        let span = table
            .get("max-event")
            .map_or(table.span, |(_, value)| value.span);
        let problem = Problem::error(Some(span), key, "an event that no batch can hold");
        problems.push(problem.allowed(format!("1B to {MOST}")));
    }
}
