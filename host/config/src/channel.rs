//! The tables `[channels.*]`.

use levada_core::{ByteSize, ChannelName, choice, params, settings::Span};
use std::num::NonZeroU64;

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
    }
    later { "lanes" }
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
