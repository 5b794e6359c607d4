//! The load generator: numbered events, as fast as the channels take them or at a rate.
//!
//! The next number is a mark that is committed with its batch, so a generator that is killed goes on
//! where it was: every number is stored once.

use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    Batch, BatchBuilder, ByteSize, Ingest, MarkWrite, OpenError, PartId, Problem, Problems, Put,
    PutError, RunContext, Source, SourceError, Table, factory::SourceFactory, params,
};
use levada_net::Backoff;
use levada_telemetry::{Gauge, Registry};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::Deps;

/// The mark of the next number.
const NEXT: &str = "next";

/// How long to wait after a refused put.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

params! {
    /// Settings of the `seq` source.
    pub(crate) struct Params {
        /// Events in a batch.
        pub batch_size: NonZeroU64 = 1000,
        /// How many events to make in all, over every run; without it there is no end.
        pub total: Option<u64>,
        /// Events per second; without it as fast as the channels take them.
        pub rate: Option<NonZeroU64>,
        /// The size of a body: the number in decimal, filled up with dots. A number that is longer
        /// is never cut.
        pub body_size: ByteSize = "0B",
        /// Headers of every event.
        pub headers: Option<BTreeMap<String, String>>,
        /// How long a batch waits for room before it is tried again.
        pub put_timeout: Duration = "10s",
    }
}

/// Builds [`SeqSource`]s.
pub(crate) struct Factory {
    registry: Registry,
}

impl Factory {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            registry: deps.registry.clone(),
        }
    }
}

impl SourceFactory for Factory {
    const NAME: &'static str = "seq";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        const MOST: u64 = 64 << 20;
        if params
            .batch_size
            .get()
            .saturating_mul(params.body_size.0.max(1))
            > MOST
        {
            let span = table
                .get("batch-size")
                .map_or(table.span, |(_, value)| value.span);
            let problem = Problem::error(
                Some(span),
                table.path_of("batch-size"),
                "a batch beyond 64MiB",
            );
            problems.push(problem.help("make `batch-size` or `body-size` smaller"));
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Source> {
        let name = part.to_string();
        let help = "The number that the seq source gives the next event.";
        let next = self
            .registry
            .gauge("levada_seq_next", help, &[("part", &name)]);
        Box::new(SeqSource {
            params: params.clone(),
            next,
        })
    }
}

/// The source that counts.
#[derive(Debug)]
struct SeqSource {
    params: Params,
    next: Gauge,
}

#[async_trait]
impl Source for SeqSource {
    async fn open(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        let mut next = resume(&*out)?;
        let mut back_off = Backoff::new(BACK_OFF.0, BACK_OFF.1, cx.chance.clone());
        let started = Instant::now();
        let first = next;
        info!(source = %cx.part, next, "generator started");
        while self.params.total.is_none_or(|total| next < total) {
            self.next.set(i64::try_from(next).unwrap_or(i64::MAX));
            let after = self.end_of_batch(next);
            let due = started + self.due_after(after - first);
            tokio::select! {
                () = cx.stop.draining() => return Ok(()),
                () = time::sleep_until(due) => {}
            }
            let mut put = Put::within(self.batch(next..after), self.params.put_timeout);
            put.marks = vec![MarkWrite::set(NEXT, after.to_string())];
            match out.put(put).await {
                Ok(()) => {
                    back_off.reset();
                    next = after;
                }
                Err(PutError::Stopping) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    let wait = back_off.next_wait();
                    warn!(source = %cx.part, %error, ?wait, "batch refused, trying again");
                    tokio::select! {
                        () = cx.stop.draining() => return Ok(()),
                        () = time::sleep(wait) => {}
                    }
                }
                Err(error) => return Err(SourceError::with("cannot put a batch", error)),
            }
        }
        info!(source = %cx.part, next, "generator has made all its events");
        cx.stop.draining().await;
        Ok(())
    }
}

impl SeqSource {
    fn end_of_batch(&self, next: u64) -> u64 {
        let end = next.saturating_add(self.params.batch_size.get());
        end.min(self.params.total.unwrap_or(u64::MAX))
    }

    /// When so many events may have been made.
    fn due_after(&self, events: u64) -> Duration {
        match self.params.rate {
            // The last batch of a second is due when its last event is.
            #[expect(
                clippy::cast_precision_loss,
                reason = "a rate need not be exact to the event"
            )]
            Some(rate) => Duration::from_secs_f64(events as f64 / rate.get() as f64),
            None => Duration::ZERO,
        }
    }

    fn batch(&self, numbers: std::ops::Range<u64>) -> Batch {
        let size = self.params.body_size.as_usize();
        let mut builder = BatchBuilder::default();
        for number in numbers {
            let mut body = number.to_string();
            while body.len() < size {
                body.push('.');
            }
            builder.push(self.params.headers.iter().flatten(), body.as_bytes());
        }
        builder.finish()
    }
}

/// The number to go on with.
fn resume(out: &dyn Ingest) -> Result<u64, SourceError> {
    let marks = out.marks();
    let Some(mark) = marks.get(NEXT) else {
        return Ok(0);
    };
    let number = std::str::from_utf8(mark)
        .ok()
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| SourceError::new(format!("the mark `{NEXT}` is no number")))
}

#[cfg(test)]
mod tests;
