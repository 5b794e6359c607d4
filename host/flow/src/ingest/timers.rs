//! Timers of the handlers on a source: calls that no event asked for.

use std::{convert::Infallible, sync::Arc};

use levada_core::{Batch, Effects, Put, PutError};
use tokio::time::{Instant, sleep_until};

use super::{Entry, SourceIngest, Way, lock, put_error};

impl SourceIngest {
    /// Calls the timer of a link. What it gives was made on this source.
    pub(super) async fn tick(
        &self,
        way: &Way,
        at: usize,
        received_ms: u64,
        effects: &mut Effects,
    ) -> Result<Batch, PutError> {
        let Some((link, metrics)) = way.chain.get(at) else {
            return Ok(Batch::default());
        };
        let mut own = Effects::default();
        let ticked = link
            .interceptor
            .tick(&self.call(received_ms), &mut own)
            .await;
        let batch = ticked.map_err(|error| {
            metrics.failures.add(1);
            put_error(link, error)
        })?;
        metrics.out_events.add(batch.len() as u64);
        self.book(0, batch.len(), own, effects);
        Ok(batch)
    }

    /// Calls the timers of the chain when it is time, for as long as it is polled.
    pub(crate) async fn ticks(&self) -> Infallible {
        loop {
            let rewired = self.rewired.notified();
            let way = Arc::clone(&lock(&self.way));
            tokio::select! {
                biased;
                () = rewired => {}
                never = self.ticks_of(&way) => match never {},
            }
        }
    }

    /// Each timer is called so long after its last call has ended.
    async fn ticks_of(&self, way: &Way) -> Infallible {
        let start = Instant::now();
        let timers = way.chain.iter().enumerate();
        let timers = timers.filter_map(|(at, (link, _))| {
            let every = link.interceptor.every()?;
            Some((at, every, start + every))
        });
        let mut timers: Vec<_> = timers.collect();
        loop {
            let Some((at, every, next)) = timers.iter_mut().min_by_key(|(_, _, next)| *next) else {
                return std::future::pending().await;
            };
            sleep_until(*next).await;
            let ticked = tokio::select! {
                biased;
                ticked = self.pass(Put::default(), way, Entry::Ticks { at: *at }) => ticked,
                () = self.closed.draining() => Err(PutError::Stopping),
            };
            self.report(&ticked);
            *next = Instant::now() + *every;
        }
    }
}
