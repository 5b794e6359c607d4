//! Both producers of the path at once, until they are told to stop.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use levada_core::TaskSet;

use crate::{
    ledger::Ledger,
    mqtt::{self, Telemetry},
    path::{PLANT, WEB},
    poster::{self, Posts},
};

/// How much to produce, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Messages over MQTT.
    pub mqtt: u64,
    /// Events over HTTP.
    pub http: u64,
    /// The pause after every 100 messages, and after every batch of 100 events.
    pub pauses: (Duration, Duration),
}

/// Where it is produced to.
#[derive(Debug, Clone, Copy)]
pub struct Entrances {
    /// The broker, as MQTT 3.1.1.
    pub broker: SocketAddr,
    /// An agent's HTTP source.
    pub http: SocketAddr,
}

/// The running producers.
#[derive(Debug)]
pub struct Load {
    amount: Amount,
    published: Arc<AtomicU64>,
    posted: Arc<AtomicU64>,
    repeated: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    failed: Arc<Mutex<Option<String>>>,
    tasks: TaskSet,
}

/// How long an agent may refuse before a producer gives up.
const PATIENCE: Duration = Duration::from_secs(30);

impl Load {
    /// Starts publishing and posting.
    #[must_use]
    pub fn start(amount: Amount, to: Entrances) -> Self {
        let mut load = Self {
            amount,
            published: Arc::default(),
            posted: Arc::default(),
            repeated: Arc::default(),
            stop: Arc::default(),
            failed: Arc::default(),
            tasks: TaskSet::new(),
        };
        load.publish(to.broker);
        load.post(to.http);
        load
    }

    fn publish(&mut self, broker: SocketAddr) {
        let telemetry = Telemetry {
            broker,
            source: PLANT.to_owned(),
            topic: "plant/telemetry".to_owned(),
            events: self.amount.mqtt,
            pause: (100, self.amount.pauses.0),
            stop: Arc::clone(&self.stop),
        };
        let (published, failed) = (Arc::clone(&self.published), Arc::clone(&self.failed));
        self.tasks.spawn("devices", async move {
            note(mqtt::publish(&telemetry, &published).await, &failed);
        });
    }

    fn post(&mut self, to: SocketAddr) {
        let posts = Posts {
            to,
            source: WEB.to_owned(),
            events: self.amount.http,
            batch: 100,
            pause: self.amount.pauses.1,
            patience: PATIENCE,
            stop: Arc::clone(&self.stop),
        };
        let (posted, failed) = (Arc::clone(&self.posted), Arc::clone(&self.failed));
        let repeated = Arc::clone(&self.repeated);
        self.tasks.spawn("web clients", async move {
            if let Some(times) = note(poster::post(&posts, &posted).await, &failed) {
                repeated.store(times, Ordering::Relaxed);
            }
        });
    }

    /// How many events there will be.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.amount.mqtt + self.amount.http
    }

    /// How many events were acknowledged to their producer.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.published.load(Ordering::Relaxed) + self.posted.load(Ordering::Relaxed)
    }

    /// How many posts were repeated; known when the producers are done.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Fails if a producer failed.
    ///
    /// # Errors
    /// Why it gave up.
    pub fn check(&self) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => bail!("a producer gave up: {why}"),
            None => Ok(()),
        }
    }

    /// Whether everything was produced and acknowledged.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.acknowledged() >= self.total()
    }

    /// Asks both producers to stop and waits until everything they sent is acknowledged.
    ///
    /// # Errors
    /// A producer gave up, or takes longer than its patience.
    pub async fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if !self.tasks.join(PATIENCE * 2).await {
            bail!("a producer still waits for an acknowledgement");
        }
        self.check()
    }

    /// Writes what was acknowledged into the ledger.
    pub fn book(&self, ledger: &mut Ledger) {
        ledger.produced(PLANT, self.published.load(Ordering::Relaxed));
        ledger.produced(WEB, self.posted.load(Ordering::Relaxed));
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
