//! What a guest may use, and the one place that knows what each limit is called.

mod rows;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wasmtime::ResourceLimiter;

pub use rows::{LimitRow, WhenHit};

/// The limits of one handler (security model 4.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes of all linear memories of an instance together.
    pub memory: usize,
    /// CPU time of a call of up to 250 events; see [`cpu_of`](Self::cpu_of).
    pub cpu: Duration,
    /// Wall time of a call; see [`deadline_of`](Self::deadline_of).
    pub deadline: Duration,
    /// The same for a call that delivers or polls, and so waits for others.
    pub delivery_deadline: Duration,
    /// Core instances, memories, tables, and elements of all tables of an instance together.
    pub instances: usize,
    pub memories: usize,
    pub tables: usize,
    pub table_elements: usize,
    /// Bytes copied from the guest in one call; see [`lifted_of`](Self::lifted_of).
    pub lifted: usize,
    /// Handles to resources that a guest may hold.
    pub handles: usize,
    /// Calls to the host in one call; 16 more for each event.
    pub host_calls: u64,
    /// Requests over HTTP that a handler has on their way at once, and in one call; see
    /// [`http_requests_of`](Self::http_requests_of).
    pub http_at_once: usize,
    pub http_requests: u64,
    /// Bytes of an answer's body.
    pub http_body: usize,
    /// Random bytes in one call.
    pub random: u64,
    /// Log lines and their bytes in one call; what is more is dropped.
    pub log_lines: u32,
    pub log_bytes: usize,
    /// Events that may come out of one event.
    pub events_out: usize,
    /// Bytes of one event that comes out.
    pub event_bytes: usize,
    /// Events and bytes that go into one call.
    pub batch_events: usize,
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            cpu: Duration::from_millis(250),
            deadline: Duration::from_secs(1),
            delivery_deadline: Duration::from_secs(30),
            instances: 64,
            memories: 8,
            tables: 64,
            table_elements: 65_536,
            lifted: 8 << 20,
            handles: 1_000,
            host_calls: 10_000,
            http_at_once: 6,
            http_requests: 50,
            http_body: 8 << 20,
            random: 64 << 10,
            log_lines: 100,
            log_bytes: 64 << 10,
            events_out: 100,
            event_bytes: 1 << 20,
            batch_events: 1_000,
            batch_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// CPU time of a call with so many events: at least a millisecond each.
    #[must_use]
    pub fn cpu_of(&self, events: usize) -> Duration {
        let each = Duration::from_millis(u64::try_from(events).unwrap_or(u64::MAX));
        self.cpu.max(each)
    }

    /// Wall time of a call with so many events: at least twice its CPU time, so that a busy
    /// machine does not turn one limit into the other.
    #[must_use]
    pub fn deadline_of(&self, events: usize) -> Duration {
        self.deadline.max(self.cpu_of(events) * 2)
    }

    /// Bytes copied from the guest in a call with so many bytes, and bytes that may come out of it.
    #[must_use]
    pub fn lifted_of(&self, bytes: usize) -> usize {
        self.lifted.max(bytes.saturating_mul(2))
    }

    /// Bytes of a packed answer to so many bytes of index and events.
    #[must_use]
    pub fn answer_of(&self, bytes: usize) -> usize {
        bytes.saturating_mul(2).max(1 << 20)
    }

    /// Requests over HTTP in a call with so many events: two for each, if that is more.
    #[must_use]
    pub fn http_requests_of(&self, events: usize) -> u64 {
        let each = u64::try_from(events)
            .unwrap_or(u64::MAX >> 1)
            .saturating_mul(2);
        self.http_requests.max(each)
    }

    /// Calls to the host in a call with so many events.
    #[must_use]
    pub fn host_calls_of(&self, events: usize) -> u64 {
        self.host_calls + 16 * u64::try_from(events).unwrap_or(u64::MAX >> 5)
    }
}

/// A limit, by the name it has in metrics, dead letters and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    Cpu,
    Deadline,
    Memory,
    Instances,
    Memories,
    Tables,
    TableElements,
    Stack,
    Lifted,
    Handles,
    HostCalls,
    Random,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Deadline,
        Self::Memory,
        Self::Instances,
        Self::Memories,
        Self::Tables,
        Self::TableElements,
        Self::Stack,
        Self::Lifted,
        Self::Handles,
        Self::HostCalls,
        Self::Random,
    ];

    /// The limit's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Instances => "core-instances",
            Self::Memories => "memories",
            Self::Tables => "tables",
            Self::TableElements => "table-elements",
            Self::Stack => "wasm-stack",
            Self::Lifted => "lifted-bytes",
            Self::Handles => "handles",
            Self::HostCalls => "host-calls",
            Self::Random => "random-bytes",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A guest went beyond a limit. Raised inside the guest, where it acts as a trap.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the limit `{limit}` of {allowed} was reached")]
pub struct LimitReached {
    pub limit: Limit,
    pub allowed: String,
}

impl LimitReached {
    pub(crate) fn new(limit: Limit, allowed: impl fmt::Display) -> Self {
        let allowed = allowed.to_string();
        Self { limit, allowed }
    }
}

/// Adds up all memories and tables of one store.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_cap: usize,
    elements_cap: usize,
    counts: [usize; 3],
    memory: usize,
    elements: usize,
    /// What the last growth added, should it fail after it was allowed.
    last_growth: usize,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_cap: limits.memory,
            elements_cap: limits.table_elements,
            counts: [limits.instances, limits.memories, limits.tables],
            memory: 0,
            elements: 0,
            last_growth: 0,
        }
    }

    /// Bytes of all memories now; memories never shrink, so this is the high-water mark, too.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_growth = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        let total = self.memory.saturating_add(growth);
        if total > self.memory_cap {
            let allowed = levada_core::ByteSize(self.memory_cap as u64);
            return Err(LimitReached::new(Limit::Memory, allowed).into());
        }
        self.last_growth = growth;
        self.memory = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory -= std::mem::take(&mut self.last_growth);
        tracing::debug!(%error, "the system refused memory to a guest");
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self
            .elements
            .saturating_add(desired.saturating_sub(current));
        if total > self.elements_cap {
            return Err(LimitReached::new(Limit::TableElements, self.elements_cap).into());
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.counts[0]
    }

    fn memories(&self) -> usize {
        self.counts[1]
    }

    fn tables(&self) -> usize {
        self.counts[2]
    }
}
