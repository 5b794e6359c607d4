//! What the flow gives a sink that may speak to another Levada (delivery contract D4).

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use levada_core::{
    ChannelName, Commit, Effects, Hop, Incarnation, MarkWrite, PutError, RunContext, Store,
    TakeError, hop::Lane,
};

/// The lanes of the channel that one sink empties.
pub(crate) struct SinkHop {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) channel: ChannelName,
    /// Whether no other sink has events of a lane while this one has some.
    pub(crate) alone: bool,
    pub(crate) lanes: u32,
    pub(crate) context: RunContext,
}

/// The mark of a sink that had to take an incarnation of its own: that of the channel for which it
/// was taken, and then its own. Kept per sink, so that a receiver that lost its past costs the
/// other receivers nothing.
const OWN: &str = "hop-incarnation";

impl SinkHop {
    fn of_channel(&self, lane: u32) -> Result<Lane, TakeError> {
        self.store.lane(&self.channel, lane)
    }
}

#[async_trait]
impl Hop for SinkHop {
    fn channel(&self) -> &ChannelName {
        &self.channel
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    fn lanes(&self) -> u32 {
        self.lanes
    }

    fn lane(&self, lane: u32) -> Result<Lane, TakeError> {
        let found = self.of_channel(lane)?;
        let own = self.store.mark(&self.context.part, OWN);
        let own = own.as_deref().and_then(|both| {
            let (of, own) = both.split_first_chunk::<16>()?;
            let own = <[u8; 16]>::try_from(own).ok()?;
            (*of == found.incarnation.0).then_some(Incarnation(own))
        });
        Ok(Lane {
            incarnation: own.unwrap_or(found.incarnation),
            ..found
        })
    }

    fn holds(&self, lane: u32, positions: Range<u64>) -> Result<bool, TakeError> {
        self.store.holds(&self.channel, lane, positions)
    }

    fn chain_at(&self, lane: u32, position: u64) -> Result<Option<u64>, TakeError> {
        self.store.chain_at(&self.channel, lane, position)
    }

    async fn new_incarnation(&self) -> Result<Incarnation, PutError> {
        let failed = |reason: String| PutError::Store { reason };
        let of = self
            .of_channel(0)
            .map_err(|error| failed(error.to_string()))?;
        let own = self.context.chance.id();
        let own = own.map_err(|error| failed(format!("cannot draw an incarnation: {error}")))?;
        let commit = Commit {
            part: self.context.part.clone(),
            puts: Vec::new(),
            marks: vec![MarkWrite::set(OWN, [of.incarnation.0, own].concat())],
            effects: Effects::default(),
            deadline: None,
            received_ms: self.context.clock.wall_ms(),
        };
        self.store.commit(commit).await?;
        Ok(Incarnation(own))
    }
}

impl fmt::Debug for SinkHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkHop")
            .field("channel", &self.channel)
            .field("alone", &self.alone)
            .finish_non_exhaustive()
    }
}
