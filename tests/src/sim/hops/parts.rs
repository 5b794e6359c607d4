//! What stands at both ends of the tiers: a source that makes events, and a sink that takes note.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    Chance, Delivery, Hop, Ingest, Lease, Marks, OpenError, Put, RunContext, Sink, SinkError,
    Source, SourceError,
};
use tokio::time;

use super::{book::Book, net::Host};

/// Makes what it may, and hears what became of it. What is refused, or may be, is not made again:
/// so every event is put once.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) book: Book,
    pub(super) edge: Host,
    pub(super) chance: Chance,
    /// Between two batches at most.
    pub(super) pause: Duration,
    /// Events of a batch at most.
    pub(super) events: u64,
}

#[async_trait]
impl Source for Feed {
    async fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, _cx: &RunContext) -> Result<(), SourceError> {
        loop {
            let more = self.book.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let events = 1 + self.chance.below(self.events);
            let Some((numbers, batch)) = self.book.make(self.edge, events) else {
                more.await;
                continue;
            };
            let put = Put::within(batch, Duration::from_secs(10));
            if out.put(put).await.is_ok() {
                self.book.acked(&numbers);
            }
            time::sleep(self.chance.jitter(self.pause)).await;
        }
    }
}

/// Takes note of every event, and refuses now and then.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) book: Book,
    pub(super) chance: Chance,
}

#[async_trait]
impl Sink for Collector {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, _cx: &RunContext) -> Result<Delivery, SinkError> {
        time::sleep(self.chance.jitter(Duration::from_millis(30))).await;
        if self.chance.below(12) == 0 {
            return Err(SinkError::Refused {
                what: "the simulated end refuses".into(),
                after: None,
                source: None,
            });
        }
        for (event, position) in lease.batch.iter().zip(lease.positions.iter()) {
            self.book.saw(event, position);
        }
        Ok(Delivery::done())
    }
}
