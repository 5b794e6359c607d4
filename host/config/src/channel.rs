//! The tables `[channels.*]`.

use std::num::NonZeroU64;

use levada_core::{
    ByteSize, ChannelName, Problems, Value, choice, params,
    settings::{Setting, Span, ValueKind},
};

params! {
    /// A channel.
    pub struct ChannelParams {
        /// Where events wait: on disk, or in memory only.
        pub r#type: ChannelType,
        /// Most bytes of events; memory channels have 64 MiB without it, durable ones a share of
        /// the disk.
        pub capacity: Option<ByteSize>,
        /// Most events.
        pub events: Option<NonZeroU64>,
        /// What happens to a put that finds no room.
        pub on_full: OnFull = "block",
        /// Divides the channel: events with the same value of a header stay in one lane, and in
        /// order; several lanes leave side by side.
        pub lanes: Option<LaneParams>,
    }
}

params! {
    /// The lanes of a channel.
    pub struct LaneParams {
        /// How many there are. Another number, or another key, does not move what is queued: order
        /// per key holds again once that is gone.
        pub count: LaneCount,
        /// The header whose value says which lane an event is in; those without it share one.
        pub key: String,
    }
}

/// Lanes of one channel: 1 to 64. A receiver takes 100 connections from one address, and each lane
/// has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneCount(pub u32);

impl Setting for LaneCount {
    fn allowed() -> String {
        "a whole number from 1 to 64".into()
    }

    fn read(value: &Value, key: &str, problems: &mut Problems) -> Option<Self> {
        let number = match value.kind {
            ValueKind::Integer(number) => u32::try_from(number).ok(),
            _ => None,
        };
        let read = number.filter(|n| (1..=64).contains(n)).map(Self);
        if read.is_none() {
            let problem = value.problem(key, "not a value for this key");
            problems.push(problem.allowed(Self::allowed()));
        }
        read
    }
}

choice! {
    /// Where events wait.
    pub enum ChannelType {
        /// On disk: what was acknowledged survives a power cut.
        Durable = "durable",
        /// In memory: lost when the process is killed.
        Memory = "memory",
    }
}

choice! {
    /// What happens to a put that finds no room.
    pub enum OnFull {
        /// It waits.
        Block = "block",
        /// It fails at once, and the source says "try again" to its peer.
        Reject = "reject",
    }
    later { "drop-oldest", "drop-newest" }
}

/// A channel and its name.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    pub name: ChannelName,
    pub params: ChannelParams,
    /// Where its table stands.
    pub span: Span,
}
