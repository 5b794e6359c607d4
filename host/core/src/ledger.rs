//! What a call leaves behind beside events: dead letters and counts, committed with the data.

use bytes::Bytes;
use serde::Serialize;

use crate::{ChannelName, OriginId, PartId, StateChange};

/// Everything that must be committed together with a batch and is not an event of it.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    pub dead_letters: Vec<DeadLetter>,
    pub counts: Vec<Count>,
    /// Dead letters that go, by number: their events come back with this commit.
    pub replayed: Vec<u64>,
    /// What handlers changed of their state, each handler once.
    pub states: Vec<StateChange>,
}

impl Effects {
    /// Adds to a counter; nothing is recorded for an amount of 0.
    pub fn count(&mut self, part: &PartId, counter: Counter, amount: u64) {
        self.count_reason(part, counter, "", amount);
    }

    /// Adds to a counter that is kept per reason.
    pub fn count_reason(&mut self, part: &PartId, counter: Counter, reason: &str, amount: u64) {
        if amount == 0 {
            return;
        }
        let same = |c: &&mut Count| c.counter == counter && c.part == *part && c.reason == reason;
        match self.counts.iter_mut().find(same) {
            Some(count) => count.amount += amount,
            None => self.counts.push(Count {
                part: part.clone(),
                counter,
                reason: reason.into(),
                amount,
            }),
        }
    }

    /// Takes over what `other` holds.
    pub fn merge(&mut self, other: Self) {
        self.dead_letters.extend(other.dead_letters);
        self.replayed.extend(other.replayed);
        self.states.extend(other.states);
        for count in other.counts {
            self.count_reason(&count.part, count.counter, &count.reason, count.amount);
        }
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dead_letters.is_empty()
            && self.counts.is_empty()
            && self.replayed.is_empty()
            && self.states.is_empty()
    }
}

/// The counters of the accounting identities (delivery contract, D8).
///
/// Per source: `accepted + made + replayed = put + discarded + dead-lettered`.
/// Per durable channel: `put + made + replayed = delivered + queued + discarded + dead-lettered
/// + quarantined + dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counter {
    /// Events a source took from its peer, before any interceptor; repeats are never counted.
    Accepted,
    /// Events out minus events in of every replace.
    Made,
    /// Events that came back from the dead letters.
    Replayed,
    /// On a source: events put, counted once however many channels took a copy.
    /// On a channel: events put into it.
    Put,
    /// Events settled as delivered (channels only).
    Delivered,
    /// Events gone on purpose, by reason.
    Discarded,
    /// Events moved to the dead letters.
    DeadLettered,
    /// Events set aside because their record was damaged (channels only).
    Quarantined,
    /// Events dropped by `on-full`, by reason (channels only).
    Dropped,
}

impl Counter {
    /// Every counter, in the order of the identities.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Made,
        Self::Replayed,
        Self::Put,
        Self::Delivered,
        Self::Discarded,
        Self::DeadLettered,
        Self::Quarantined,
        Self::Dropped,
    ];

    /// The counter's name in metrics, JSON and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Made => "made",
            Self::Replayed => "replayed",
            Self::Put => "put",
            Self::Delivered => "delivered",
            Self::Discarded => "discarded",
            Self::DeadLettered => "dead-lettered",
            Self::Quarantined => "quarantined",
            Self::Dropped => "dropped",
        }
    }

    /// Reads the counter's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|counter| counter.as_str() == text)
    }
}

/// An amount to add to a durable counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    pub part: PartId,
    pub counter: Counter,
    /// Empty unless the counter is kept per reason.
    pub reason: String,
    pub amount: u64,
}

/// An event that cannot be handled, kept with everything needed to understand and replay it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event as it was before the part that rejected it, in Avro binary; raw input bytes where
    /// they were no event.
    pub event: Bytes,
    /// Its origin id, if it had one.
    pub origin: Option<OriginId>,
    /// The part that rejected it.
    pub part: PartId,
    /// The source or channel the event was on when it was rejected.
    pub flow: PartId,
    /// One line: what was wrong.
    pub reason: String,
    /// The limit that was hit, in the words of the limits table.
    pub limit: Option<String>,
    /// The guest's backtrace, if there was one.
    pub backtrace: Option<String>,
    /// The digest of the handler's component, as `sha256:<hex>`.
    pub handler: Option<String>,
    /// Where the call that failed is recorded, if it is.
    pub recording: Option<String>,
    /// How often the event was tried.
    pub attempts: u32,
    /// When it was rejected, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The part that stands for a channel in counters.
#[must_use]
pub fn channel_part(channel: &ChannelName) -> PartId {
    PartId::new(crate::PartKind::Channels, channel.0.clone())
}
