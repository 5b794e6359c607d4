//! The table of limits as operators see it: every row, with what holds for one handler.

use levada_core::{ByteSize, units::format_duration};
use serde::Serialize;

use super::{Limit, Limits};
use crate::{
    CompileBounds, HandlerSpec, engine::WASM_STACK, http::HEADER_BYTES, inspect::LARGEST_COMPONENT,
    poll,
};

/// One limit of one handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitRow {
    /// Its name, as errors, metrics and dead letters have it.
    pub limit: &'static str,
    /// What is allowed.
    pub allowed: String,
    pub when_hit: WhenHit,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenHit {
    /// The call ends, and its instance with it.
    Trap,
    /// The guest is told, and goes on.
    Error,
    /// It is done when the ones before it have ended.
    Waits,
    /// It is left out and counted.
    Dropped,
    /// The answer of the call is void.
    BrokenContract,
    /// The component is not loaded.
    Refused,
}

impl WhenHit {
    /// The words for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Error => "error",
            Self::Waits => "waits",
            Self::Dropped => "dropped and counted",
            Self::BrokenContract => "broken contract",
            Self::Refused => "refused",
        }
    }
}

impl HandlerSpec {
    /// Every limit that holds for this handler.
    #[must_use]
    pub fn limit_rows(&self) -> Vec<LimitRow> {
        let mut rows = Vec::new();
        let mut add = |limit, allowed: String, when_hit| {
            rows.push(LimitRow {
                limit,
                allowed,
                when_hit,
            });
        };
        let limits = &self.limits;
        for limit in Limit::ALL {
            let when_hit = match limit {
                Limit::Instances | Limit::Memories | Limit::Tables => WhenHit::Refused,
                _ => WhenHit::Trap,
            };
            add(limit.as_str(), allowed(limit, limits), when_hit);
        }
        let bytes = |n: usize| ByteSize(n as u64).to_string();
        let each = format!("{}, 2 an event if more", limits.http_requests);
        add("http-requests", each, WhenHit::Error);
        add(
            "http-at-once",
            limits.http_at_once.to_string(),
            WhenHit::Waits,
        );
        add("http-body", bytes(limits.http_body), WhenHit::Error);
        add("http-header-bytes", bytes(HEADER_BYTES), WhenHit::Error);
        let state = self.grants.state;
        let state = state.map_or_else(|| "none is granted".into(), |size| size.to_string());
        add("state-bytes", state, WhenHit::Error);
        add("log-lines", limits.log_lines.to_string(), WhenHit::Dropped);
        add("log-bytes", bytes(limits.log_bytes), WhenHit::Dropped);
        let each = format!("{} out of one", limits.events_out);
        add("events-out", each, WhenHit::BrokenContract);
        add(
            "event-bytes",
            bytes(limits.event_bytes),
            WhenHit::BrokenContract,
        );
        let polled = format!("{} out of a poll", poll::MOST_EVENTS);
        add("events-polled", polled, WhenHit::BrokenContract);
        add(
            "cursor-bytes",
            bytes(poll::LARGEST_CURSOR),
            WhenHit::BrokenContract,
        );
        add("component-size", bytes(LARGEST_COMPONENT), WhenHit::Refused);
        let compiling = CompileBounds::default();
        add(
            "compile-time",
            format_duration(compiling.time),
            WhenHit::Refused,
        );
        add(
            "compile-memory",
            ByteSize(compiling.memory).to_string(),
            WhenHit::Refused,
        );
        rows
    }
}

fn allowed(limit: Limit, limits: &Limits) -> String {
    let bytes = |n: usize| ByteSize(n as u64).to_string();
    match limit {
        Limit::Cpu => format!("{}, 1ms an event if more", format_duration(limits.cpu)),
        Limit::Deadline => {
            let deadline = format_duration(limits.deadline);
            let waiting = format_duration(limits.delivery_deadline);
            format!("{deadline}, {waiting} of a sink or source, twice the CPU time if more")
        }
        Limit::Memory => bytes(limits.memory),
        Limit::Instances => limits.instances.to_string(),
        Limit::Memories => limits.memories.to_string(),
        Limit::Tables => limits.tables.to_string(),
        Limit::TableElements => limits.table_elements.to_string(),
        Limit::Stack => bytes(WASM_STACK),
        Limit::Lifted => format!("{}, twice the batch if more", bytes(limits.lifted)),
        Limit::Handles => limits.handles.to_string(),
        Limit::HostCalls => format!("{}, and 16 an event", limits.host_calls),
        Limit::Random => ByteSize(limits.random).to_string(),
    }
}
