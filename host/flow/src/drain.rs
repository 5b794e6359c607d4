//! The whole order of a stop, under one deadline.
//!
//! 1. Sources are asked to stop: they accept nothing new, finish the batch in hand, return. They
//!    have half of the time.
//! 2. The ingest closes: a put that still waits fails, and its source may say so to its peer.
//! 3. Sinks finish what they have in hand; those of a memory channel empty it first. They have the
//!    rest of the time.
//! 4. What is left in memory channels is counted as lost and said aloud.
//!
//! The caller then closes the store, and last of all the doors for operators. A second signal, or
//! the end of the time, skips what is left of each step. Whatever was dropped was not acknowledged.

use std::{sync::Arc, time::Duration};

use levada_core::{ChannelName, PartKind, Stop, Stopper, TaskSet, inspect::Inspect};
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::{change::Running, status::Status};

/// How a stop went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drained {
    /// Events that memory channels still held: exit code 3 if there are any.
    pub lost: Vec<(ChannelName, u64)>,
    /// Parts that had to be cut off.
    pub cut_off: Vec<String>,
    pub took: Duration,
}

impl Drained {
    /// All events that were lost.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.lost.iter().map(|(_, events)| events).sum()
    }
}

/// The running tasks of a flow and the signals that end them.
#[derive(Debug)]
pub(crate) struct Tasks {
    pub(crate) sources: TaskSet,
    pub(crate) sinks: TaskSet,
    pub(crate) stop_sources: Stoppers,
    pub(crate) close_ingest: Stopper,
    pub(crate) stop_sinks: Stoppers,
}

/// The signals of several parts.
#[derive(Debug, Default)]
pub(crate) struct Stoppers(Vec<Stopper>);

impl Stoppers {
    fn drain(&self) {
        self.0.iter().for_each(Stopper::drain);
    }

    fn now(&self) {
        self.0.iter().for_each(Stopper::now);
    }
}

impl Tasks {
    /// Everything of a flow that runs.
    pub(crate) fn of(running: Running) -> Self {
        let (mut stop_sources, mut stop_sinks) = (Stoppers::default(), Stoppers::default());
        for (part, live) in running.live {
            let stoppers = match part.kind {
                PartKind::Sources => &mut stop_sources,
                _ => &mut stop_sinks,
            };
            stoppers.0.push(live.stopper);
        }
        Self {
            sources: running.sources,
            sinks: running.sinks,
            stop_sources,
            close_ingest: running.close_ingest,
            stop_sinks,
        }
    }
}

/// How often a stop that takes long says who still runs.
const REPORT: Duration = Duration::from_secs(5);

/// How long sources may take to answer their peers after the ingest closed.
const ANSWER: Duration = Duration::from_millis(500);

/// How long a task that was cut off may take to let go; one that blocks its thread never does.
const LET_GO: Duration = Duration::from_millis(500);

/// Stops everything; see the module.
pub(crate) async fn drain(
    tasks: Tasks,
    status: &Status,
    inspect: &Arc<dyn Inspect>,
    stop: &Stop,
    within: Duration,
) -> Drained {
    let began = Instant::now();
    let mut drained = Drained::default();
    let mut draining = Draining {
        status,
        stop,
        since: began,
        reported: began,
    };
    let Tasks {
        mut sources,
        mut sinks,
        stop_sources,
        close_ingest,
        stop_sinks,
    } = tasks;
    info!(within_ms = millis(within), "draining");

    stop_sources.drain();
    draining.wait(&mut sources, began + within / 2).await;
    close_ingest.drain();
    let grace = ANSWER.min(within / 4);
    draining.wait(&mut sources, Instant::now() + grace).await;
    stop_sources.now();
    cut_off(&mut sources, &mut drained).await;

    stop_sinks.drain();
    draining.wait(&mut sinks, began + within).await;
    stop_sinks.now();
    cut_off(&mut sinks, &mut drained).await;

    drained.lost = left_in_memory(&**inspect);
    for (channel, events) in &drained.lost {
        error!(%channel, events, "events of a memory channel are lost");
    }
    drained.took = began.elapsed();
    info!(took_ms = millis(drained.took), "drained");
    drained
}

/// A stop on its way.
struct Draining<'a> {
    status: &'a Status,
    stop: &'a Stop,
    since: Instant,
    reported: Instant,
}

impl Draining<'_> {
    /// Waits until all tasks have ended, the time is over, or a second signal comes.
    async fn wait(&mut self, tasks: &mut TaskSet, until: Instant) {
        loop {
            let report_at = self.reported + REPORT;
            tokio::select! {
                biased;
                ended = tasks.next() => if ended.is_none() { return },
                () = self.stop.now() => return,
                () = time::sleep_until(until) => return,
                () = time::sleep_until(report_at) => self.report(tasks),
            }
        }
    }

    fn report(&mut self, tasks: &TaskSet) {
        self.reported = Instant::now();
        let parts = self.status.parts();
        let running = tasks.running().map(|name| {
            let part = parts.iter().find(|part| part.part.to_string() == name);
            part.map_or_else(
                || name.to_owned(),
                |part| format!("{name} ({})", part.waits_for),
            )
        });
        let running = running.collect::<Vec<_>>().join(", ");
        warn!(%running, after_ms = millis(self.since.elapsed()), "still draining");
    }
}

/// Ends what did not end by itself. Tasks that follow the stop signal are gone at once.
async fn cut_off(tasks: &mut TaskSet, drained: &mut Drained) {
    if tasks.is_empty() {
        return;
    }
    let mut names: Vec<_> = tasks.running().map(str::to_owned).collect();
    names.sort_unstable();
    warn!(parts = names.join(", "), "cut off");
    drained.cut_off.extend(names);
    if time::timeout(LET_GO, tasks.abort()).await.is_err() {
        let blocked = tasks.running().collect::<Vec<_>>().join(", ");
        error!(
            parts = blocked,
            "a part blocks its thread and cannot be stopped"
        );
    }
}

fn left_in_memory(inspect: &dyn Inspect) -> Vec<(ChannelName, u64)> {
    let channels = inspect.channels().into_iter();
    let left = channels.filter(|channel| channel.kind == "memory" && channel.events > 0);
    left.map(|channel| (channel.name, channel.events)).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
