//! The accounting identities (delivery contract, D8), worked out from the durable counters.

use std::collections::BTreeMap;

use levada_core::{Count, Counter, PartId, PartKind, inspect::ChannelInfo, ledger::channel_part};
use serde::Serialize;

/// Whether what came in is what went out or is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Audit {
    pub holds: bool,
    pub rows: Vec<AuditRow>,
    /// The counters that this was worked out from.
    pub counts: Vec<Count>,
}

/// One source or durable channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuditRow {
    pub part: PartId,
    /// The counters that are not 0, by name; those kept per reason as `discarded(reason)`.
    pub counters: BTreeMap<String, u64>,
    /// Events in the channel now; `None` for a source.
    pub queued: Option<u64>,
    /// The left side of the identity.
    pub came: u64,
    /// The right side.
    pub accounted: u64,
    pub holds: bool,
}

/// The identities of every source that ever counted anything, and of every durable channel among
/// `channels`.
#[must_use]
pub fn audit(counts: &[Count], channels: &[ChannelInfo]) -> Audit {
    let mut parts: BTreeMap<&PartId, Vec<&Count>> = BTreeMap::new();
    for count in counts {
        parts.entry(&count.part).or_default().push(count);
    }
    let is_durable = |part: &PartId| {
        let same = |info: &&ChannelInfo| channel_part(&info.name) == *part;
        channels
            .iter()
            .find(same)
            .is_some_and(|info| info.kind == "durable")
    };
    let rows: Vec<_> = parts
        .into_iter()
        .filter(|(part, _)| match part.kind {
            PartKind::Sources => true,
            PartKind::Channels => is_durable(part),
            PartKind::Agent
            | PartKind::Interceptors
            | PartKind::Handlers
            | PartKind::Sinks
            | PartKind::Groups => false,
        })
        .map(|(part, counts)| row(part, &counts, channels))
        .collect();
    Audit {
        holds: rows.iter().all(|row| row.holds),
        rows,
        counts: counts.to_vec(),
    }
}

fn row(part: &PartId, counts: &[&Count], channels: &[ChannelInfo]) -> AuditRow {
    let sum = |counters: &[Counter]| -> u64 {
        let of = |count: &&&Count| counters.contains(&count.counter);
        counts.iter().filter(of).map(|count| count.amount).sum()
    };
    let is_source = part.kind == PartKind::Sources;
    let queued = (!is_source).then(|| {
        let same = |info: &&ChannelInfo| channel_part(&info.name) == *part;
        channels.iter().find(same).map_or(0, |info| info.events)
    });
    let (came, gone): (&[Counter], &[Counter]) = if is_source {
        (
            &[Counter::Accepted, Counter::Made, Counter::Replayed],
            &[Counter::Put, Counter::Discarded, Counter::DeadLettered],
        )
    } else {
        (
            &[Counter::Put, Counter::Made, Counter::Replayed],
            &[
                Counter::Delivered,
                Counter::Discarded,
                Counter::DeadLettered,
                Counter::Quarantined,
                Counter::Dropped,
            ],
        )
    };
    let came = sum(came);
    let accounted = sum(gone) + queued.unwrap_or(0);
    let mut counters = BTreeMap::new();
    for count in counts {
        let name = match count.reason.as_str() {
            "" => count.counter.as_str().to_owned(),
            reason => format!("{}({reason})", count.counter.as_str()),
        };
        *counters.entry(name).or_insert(0) += count.amount;
    }
    AuditRow {
        part: part.clone(),
        counters,
        queued,
        came,
        accounted,
        holds: came == accounted,
    }
}

#[cfg(test)]
pub(crate) mod tests;
