//! What a sink that sends to other Levadas knows of the lane it empties (delivery contract D4).

use std::{fmt, ops::Range};

use async_trait::async_trait;

use crate::{ChannelName, Incarnation, PutError, TakeError};

/// The lanes of the channel that a sink empties, seen from a hop.
///
/// Given to [`Sink::open`](crate::Sink::open); a sink that is no hop lets it go.
#[async_trait]
pub trait Hop: Send + Sync + fmt::Debug {
    /// The channel that the sink empties.
    fn channel(&self) -> &ChannelName;

    /// Whether nobody else takes events from a lane while this sink has some of it. Only then does a
    /// mark of the receiver speak for everything below it.
    fn is_alone(&self) -> bool;

    /// How many lanes the channel has; each has a session of its own.
    fn lanes(&self) -> u32 {
        1
    }

    /// Under which incarnation positions are given, and where the lane begins now.
    ///
    /// # Errors
    /// [`TakeError`].
    fn lane(&self, lane: u32) -> Result<Lane, TakeError>;

    /// Whether an event is held at one of these positions: as
    /// [`Store::holds`](crate::Store::holds).
    ///
    /// # Errors
    /// [`TakeError`].
    fn holds(&self, lane: u32, positions: Range<u64>) -> Result<bool, TakeError>;

    /// The chain after the last event at `position`: as [`Store::chain_at`](crate::Store::chain_at).
    ///
    /// # Errors
    /// [`TakeError`].
    fn chain_at(&self, lane: u32, position: u64) -> Result<Option<u64>, TakeError>;

    /// Draws a new incarnation for this sink, in every lane, and returns when it is durable: for a
    /// receiver whose mark is not of this life of the store (D4.6).
    ///
    /// # Errors
    /// [`PutError`]: the incarnation is the old one.
    async fn new_incarnation(&self) -> Result<Incarnation, PutError>;
}

/// One lane of a channel, as a hop announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    pub incarnation: Incarnation,
    /// No event below this position is held; the next position to be given if none is held at all.
    pub oldest: u64,
}
