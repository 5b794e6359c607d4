//! A lane that is what a test says.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use levada_core::{ChannelName, Hop, Incarnation, PutError, TakeError, hop::Lane};

/// Positions from `oldest` on; the chain at a position is the position times `life`.
#[derive(Debug)]
pub(crate) struct FakeHop {
    channel: ChannelName,
    pub(crate) alone: bool,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) lane: Lane,
    pub(crate) next: u64,
    pub(crate) life: u64,
}

impl FakeHop {
    pub(crate) fn new(oldest: u64, next: u64) -> Self {
        let lane = Lane {
            incarnation: Incarnation([1; 16]),
            oldest,
        };
        Self {
            channel: ChannelName::new("main").unwrap(),
            alone: true,
            state: Mutex::new(State {
                lane,
                next,
                life: 1,
            }),
        }
    }

    /// For sinks that do not look at it.
    pub(crate) fn any() -> Arc<dyn Hop> {
        Arc::new(Self::new(1, 1))
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hop for FakeHop {
    fn channel(&self) -> &ChannelName {
        &self.channel
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    fn lane(&self, _lane: u32) -> Result<Lane, TakeError> {
        Ok(self.state().lane)
    }

    fn holds(&self, _lane: u32, positions: std::ops::Range<u64>) -> Result<bool, TakeError> {
        let State { lane, next, .. } = self.state();
        Ok(positions.start < next && positions.end > lane.oldest)
    }

    fn chain_at(&self, _lane: u32, position: u64) -> Result<Option<u64>, TakeError> {
        let state = self.state();
        Ok((position < state.next).then_some(position * state.life))
    }

    async fn new_incarnation(&self) -> Result<Incarnation, PutError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lane.incarnation.0[0] += 1;
        Ok(state.lane.incarnation)
    }
}
