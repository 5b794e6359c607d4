//! The producers, and the kills in the middle of their work.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use levada_core::TaskSet;
use levada_tests::{
    agent::Agent,
    mqtt::{self, Telemetry},
    path::{self, EndToEnd},
    poster::{self, Posts},
};

use crate::{Options, show::Show};

/// The running producers.
pub(crate) struct Load {
    total: u64,
    pub(crate) published: Arc<AtomicU64>,
    pub(crate) posted: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    running: Arc<AtomicU32>,
    failed: Arc<Mutex<Option<String>>>,
    tasks: TaskSet,
}

impl Load {
    /// Starts publishing and posting.
    pub(crate) fn start(options: &Options, path: &EndToEnd) -> Self {
        let mut load = Self {
            total: options.mqtt + options.http,
            published: Arc::default(),
            posted: Arc::default(),
            repeated: Arc::default(),
            running: Arc::new(AtomicU32::new(2)),
            failed: Arc::default(),
            tasks: TaskSet::new(),
        };
        load.publish(options.mqtt, path);
        load.post(options.http, path);
        load
    }

    fn publish(&mut self, events: u64, path: &EndToEnd) {
        let telemetry = Telemetry {
            broker: path.broker.v4,
            source: path::PLANT.to_owned(),
            topic: "plant/telemetry".to_owned(),
            events,
            pause: (100, Duration::from_millis(25)),
        };
        let (published, running) = (Arc::clone(&self.published), Arc::clone(&self.running));
        let failed = Arc::clone(&self.failed);
        self.tasks.spawn("devices", async move {
            note(mqtt::publish(&telemetry, &published).await, &failed);
            running.fetch_sub(1, Ordering::Release);
        });
    }

    fn post(&mut self, events: u64, path: &EndToEnd) {
        let posts = Posts {
            to: path.http,
            source: path::WEB.to_owned(),
            events,
            batch: 100,
            pause: Duration::from_millis(12),
            patience: Duration::from_secs(30),
        };
        let (posted, running) = (Arc::clone(&self.posted), Arc::clone(&self.running));
        let (failed, repeated) = (Arc::clone(&self.failed), Arc::clone(&self.repeated));
        self.tasks.spawn("web clients", async move {
            if let Some(times) = note(poster::post(&posts, &posted).await, &failed) {
                repeated.store(times, Ordering::Relaxed);
            }
            running.fetch_sub(1, Ordering::Release);
        });
    }

    /// How many events there will be.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How many events were acknowledged to their producer.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.published.load(Ordering::Relaxed) + self.posted.load(Ordering::Relaxed)
    }

    /// How many posts were repeated; known when the producers are done.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Whether both producers are done.
    pub(crate) fn is_done(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    /// Fails if a producer failed.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => bail!("a producer gave up: {why}"),
            None => Ok(()),
        }
    }
}

fn note<T>(ended: Result<T>, failed: &Mutex<Option<String>>) -> Option<T> {
    match ended {
        Ok(value) => Some(value),
        Err(error) => {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            None
        }
    }
}

/// Kills the agents in turn, evenly spread over the middle of the load, and starts each again.
pub(crate) async fn kill_in_the_middle(
    options: &Options,
    load: &Load,
    path: &mut EndToEnd,
    show: &Show,
) -> Result<()> {
    let kills = u64::from(options.kills) * 2;
    for n in 0..kills {
        // From a tenth to nine tenths of what will be produced.
        let after = load.total() / 10 + load.total() * 8 * n / (10 * kills.max(1));
        while load.acknowledged() < after && !load.is_done() {
            load.check()?;
            show.update(load)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let agent = if n % 2 == 0 {
            &mut path.edge
        } else {
            &mut path.aggregator
        };
        kill(agent, load, show).await?;
    }
    Ok(())
}

async fn kill(agent: &mut Agent, load: &Load, show: &Show) -> Result<()> {
    agent.kill().await?;
    let at = load.acknowledged();
    agent.start()?;
    let took = agent.ready().await?;
    show.killed(&agent.name, at, took);
    Ok(())
}
