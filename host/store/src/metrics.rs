//! What the store shows in the metrics.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use levada_core::{ChannelName, Lease, ledger::channel_part};
use levada_telemetry::{Counter, Gauge, Histogram, Registry};

use crate::shared::Shared;

/// Counters that the store adds to as it works.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) commits: Counter,
    /// Calls that were committed together with others or alone.
    pub(crate) grouped: Counter,
    pub(crate) quick_repairs: Counter,
    pub(crate) given_back: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            commits: registry.counter("levada_store_commits", "Transactions committed", &[]),
            grouped: registry.counter(
                "levada_store_committed_calls",
                "Puts that were committed, in groups of one or more",
                &[],
            ),
            quick_repairs: registry.counter(
                "levada_store_quick_repairs",
                "Commits that save what a quick reopen needs",
                &[],
            ),
            given_back: registry.counter(
                "levada_store_given_back_bytes",
                "Bytes of drained backlogs given back to the disk",
                &[],
            ),
        }
    }
}

/// Records the lag of a lease that is settled.
pub(crate) fn settled(lag: &Histogram, lease: &Lease, now_ms: u64) {
    let stamp = lease
        .batch
        .get(0)
        .and_then(|event| event.header("timestamp")?.parse().ok());
    let since: u64 = stamp.unwrap_or(lease.received_ms);
    lag.observe(Duration::from_millis(now_ms.saturating_sub(since)));
}

/// Has the gauges set before every reading of the registry.
pub(crate) fn show_gauges(registry: &Registry, shared: &Arc<Shared>) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    let channels: Mutex<HashMap<ChannelName, [Gauge; 5]>> = Mutex::default();
    let file = registry.gauge("levada_store_file_bytes", "Length of the store's file", &[]);
    let letters = registry.gauge("levada_dead_letters", "Dead letters kept", &[]);
    let letter_bytes = registry.gauge("levada_dead_letter_bytes", "Bytes of dead letters", &[]);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    registry.before_reading(move || {
        let Some(shared) = weak.upgrade() else { return };
        let now = shared.clock.wall_ms();
        let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.values().flatten().for_each(|gauge| gauge.set(0));
        for info in shared.describe_channels() {
            let gauges = channels.entry(info.name.clone());
            let gauges = gauges.or_insert_with(|| gauges_of(&info.name, &shared.registry));
            let age = info
                .oldest_ms
                .map_or(0, |oldest| now.saturating_sub(oldest) / 1000);
            let values = [info.events, info.bytes, info.leased, info.waiting_puts, age];
            gauges
                .iter()
                .zip(values)
                .for_each(|(gauge, value)| gauge.set(signed(value)));
        }
        let info = shared.describe_store();
        file.set(signed(info.file_bytes));
        letters.set(signed(info.dead_letters));
        letter_bytes.set(signed(info.dead_letter_bytes));
    });
}

fn gauges_of(channel: &ChannelName, registry: &Registry) -> [Gauge; 5] {
    let part = channel_part(channel).to_string();
    let labels = [("part", part.as_str())];
    let gauge = |name, help| registry.gauge(name, help, &labels);
    [
        gauge("levada_channel_events", "Events queued or leased"),
        gauge("levada_channel_bytes", "Bytes queued or leased"),
        gauge("levada_channel_leased_events", "Events a sink has in hand"),
        gauge("levada_channel_waiting_puts", "Puts that wait for room"),
        gauge(
            "levada_channel_oldest_age_seconds",
            "Age of the oldest event; 0 if empty",
        ),
    ]
}
