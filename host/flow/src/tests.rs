//! The flow between fakes, on paused time.

mod fake_parts;
mod fake_store;

mod balance;
mod changes;
mod drains;
mod groups;
mod hops;
mod hostile_sinks;
mod ingests;
mod sinks;
mod supervision;
mod timers;
mod windows;

use std::{future::Future, sync::Arc, time::Duration};

use levada_core::{
    Batch, BatchBuilder, Chance, ChannelName, Clock, PartId, Stop, Stopper, TaskSet,
};
use levada_telemetry::Registry;
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use crate::{Drained, Flow, Plan, Status, Surroundings};
use fake_store::FakeStore;

#[derive(Debug)]
struct StandingClock;

impl Clock for StandingClock {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn part(text: &str) -> PartId {
    PartId::parse(text).unwrap()
}

/// Events with these bodies and no headers.
fn events<T: ToString>(bodies: impl IntoIterator<Item = T>) -> Batch {
    let mut builder = BatchBuilder::default();
    for body in bodies {
        builder.push(
            std::iter::empty::<(&str, &str)>(),
            body.to_string().as_bytes(),
        );
    }
    builder.finish()
}

fn bodies(batch: &Batch) -> Vec<String> {
    batch
        .iter()
        .map(|event| String::from_utf8(event.body().to_vec()).unwrap())
        .collect()
}

fn around(store: &FakeStore) -> Surroundings {
    Surroundings {
        store: Arc::new(store.clone()),
        inspect: Arc::new(store.clone()),
        registry: Registry::new(),
        clock: Arc::new(StandingClock),
        chance: Chance::seeded(7),
    }
}

/// A flow that runs in the background.
struct Running {
    stopper: Stopper,
    status: Status,
    registry: Registry,
    ended: oneshot::Receiver<(Drained, Duration)>,
    _tasks: TaskSet,
}

const WITHIN: Duration = Duration::from_secs(10);

async fn run(plan: Plan, store: &FakeStore) -> Running {
    let around = around(store);
    let registry = around.registry.clone();
    let flow = Flow::open(plan, around).await.unwrap();
    let (stopper, stop): (Stopper, Stop) = Stopper::new();
    let (tx, ended) = oneshot::channel();
    let status = flow.status();
    let mut tasks = TaskSet::new();
    tasks.spawn("flow", async move {
        let drained = flow.run(&stop, WITHIN).await;
        let took = drained.took;
        tx.send((drained, took)).unwrap();
    });
    Running {
        stopper,
        status,
        registry,
        ended,
        _tasks: tasks,
    }
}

impl Running {
    /// Asks to stop and waits for the end.
    async fn stop(self) -> Drained {
        self.stopper.drain();
        self.ended.await.unwrap().0
    }

    fn metric(&self, line: &str) -> Option<u64> {
        let text = self.registry.render();
        let value = text.lines().find_map(|other| other.strip_prefix(line));
        value.and_then(|value| value.trim().parse().ok())
    }
}

/// Waits until something is so. Time is paused: waiting costs none.
async fn eventually(mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(600);
    while !is_so() {
        assert!(
            Instant::now() < limit,
            "did not become true within ten minutes"
        );
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether a future is still waiting after so long.
async fn waits(future: impl Future, this_long: Duration) -> bool {
    time::timeout(this_long, future).await.is_err()
}
