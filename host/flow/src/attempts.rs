//! How often a sink asked to try single events again.

use std::collections::HashMap;

use levada_core::Lease;

/// Counts per event, kept while the agent runs and only where there is a limit.
#[derive(Debug)]
pub(crate) struct Attempts {
    most: Option<u32>,
    counts: HashMap<(u32, u64), u32>,
}

/// Events remembered at most. One that is forgotten begins to count anew, which only means that it
/// is tried longer.
const REMEMBERED: usize = 100_000;

impl Attempts {
    pub(crate) fn new(most: Option<u32>) -> Self {
        Self {
            most,
            counts: HashMap::new(),
        }
    }

    /// Whether there is anything to count.
    pub(crate) fn is_limited(&self) -> bool {
        self.most.is_some()
    }

    /// Counts a retry of the event at a position; how many there were if that is one too many.
    pub(crate) fn retry(&mut self, lane: u32, position: u64) -> Option<u32> {
        let most = self.most?;
        if self.counts.len() >= REMEMBERED {
            self.counts.clear();
        }
        let count = self.counts.entry((lane, position)).or_insert(0);
        *count += 1;
        (*count > most).then_some(*count)
    }

    /// Forgets an event that is settled.
    pub(crate) fn forget(&mut self, lane: u32, position: u64) {
        if !self.counts.is_empty() {
            self.counts.remove(&(lane, position));
        }
    }
}

/// The position of each event of a lease, in order.
pub(crate) fn positions(lease: &Lease) -> Vec<u64> {
    lease.positions.iter().collect()
}
