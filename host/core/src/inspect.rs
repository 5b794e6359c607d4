//! What operators may look at. Handed to `admin` by `agent`; the structs are the admin API's JSON.

use serde::Serialize;

use crate::{ChannelName, Count, DeadLetter};

/// The state of a store, read without disturbing it.
pub trait Inspect: Send + Sync {
    /// Every channel, by name.
    fn channels(&self) -> Vec<ChannelInfo>;

    /// The store's file, if there is one.
    fn store(&self) -> Option<StoreInfo>;

    /// The durable counters.
    ///
    /// # Errors
    /// The text of what the store could not read.
    fn counts(&self) -> Result<Vec<Count>, String>;

    /// Dead letters from `after` on (exclusive), oldest first.
    ///
    /// # Errors
    /// The text of what the store could not read.
    fn dead_letters(&self, after: Option<u64>, limit: usize)
    -> Result<Vec<DeadLetterInfo>, String>;

    /// One dead letter as it is kept, if it is there.
    ///
    /// # Errors
    /// The text of what the store could not read.
    fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, String>;
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChannelInfo {
    pub name: ChannelName,
    /// `durable` or `memory`.
    pub kind: &'static str,
    /// Events that are queued or leased.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Events among them that a sink has in hand.
    pub leased: u64,
    pub capacity_bytes: u64,
    pub capacity_events: Option<u64>,
    /// Wall time when the oldest was received, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// How many puts wait for room now.
    pub waiting_puts: u64,
}

/// The store's file and what it cost so far. Counts are since this start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreInfo {
    pub path: String,
    pub incarnation: String,
    pub file_bytes: u64,
    pub commits: u64,
    pub flushes: u64,
    pub written_bytes: u64,
    /// Sync latency in microseconds: median and 99th percentile of the latest.
    pub sync_p50_us: u64,
    pub sync_p99_us: u64,
    /// The median of 32 syncs at the start, in microseconds, once they are measured.
    pub probe_sync_us: Option<u64>,
    /// That is faster than a disk can: it may acknowledge what it has not written.
    pub probe_is_implausible: bool,
    /// Events that were damaged, of all channels and since the store was made.
    pub quarantined: u64,
    /// Damaged files of the store that were set aside since the start.
    pub set_aside: Vec<String>,
    pub dead_letters: u64,
    pub dead_letter_bytes: u64,
    /// Whether it takes what is put, if only for a while after it has room.
    pub works: bool,
    /// `ok`, or what is not in order.
    pub state: String,
}

/// One dead letter, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetterInfo {
    pub id: u64,
    pub part: String,
    pub flow: String,
    pub reason: String,
    pub limit: Option<String>,
    pub backtrace: Option<String>,
    pub handler: Option<String>,
    pub recording: Option<String>,
    pub origin: Option<String>,
    pub attempts: u32,
    pub at_ms: u64,
    /// Headers, if the event could be read.
    pub headers: Vec<(String, String)>,
    pub bytes: usize,
    /// The body as text, where it is text; else empty.
    pub body: String,
    /// The original bytes of the event, as lower-case hex.
    pub event_hex: String,
}
