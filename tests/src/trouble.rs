//! The demo's second act: devices -> an agent with handlers at both ends of its channel -> a web
//! service in trouble.
//!
//! `redact` takes out what must not travel, `webhook` posts every event by itself. The service
//! answers 500, 429 with `Retry-After`, half a body, a body without end, or one byte a second
//! (faults F44), and some events it can never take. The agent is killed in the midst of it.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::Agent,
    broker::Broker,
    event,
    mqtt::{self, Telemetry},
    path::{self, MAIN, PLANT},
    place,
    receiver::{Answer, Receiver},
    wait,
};

/// The agent, the broker before it and the service behind it.
#[derive(Debug)]
pub struct Trouble {
    pub agent: Agent,
    pub service: Receiver,
    broker: Broker,
    events: u64,
}

/// What became of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Became {
    pub produced: u64,
    /// Different events that the service took.
    pub taken: u64,
    /// Events in the dead letters, each refused by the service with a reason.
    pub refused: u64,
    pub missing: u64,
    /// Events that came again under the same idempotency key.
    pub again: u64,
    /// Events that the service took under two keys: published twice by the broker, or stored twice.
    pub twice: u64,
    pub requests: u64,
}

/// The answers of the service's bad day, each with a name for people.
pub const TROUBLES: [(&str, Answer); 5] = [
    (
        "500",
        Answer::Refuses("500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops"),
    ),
    (
        "429 with Retry-After",
        Answer::Refuses("429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
    ),
    ("half a body", Answer::TakesAndBreaks),
    ("a body without end", Answer::NeverEnds),
    ("one byte a second", Answer::Drips),
];

/// How many requests go well between two that do not.
const CALM: usize = 100;

/// One event of so many can never be taken.
const REFUSED: u64 = 100;

/// How long all may take.
const PATIENCE: Duration = Duration::from_secs(120);

impl Trouble {
    /// Starts the broker and the service, and writes the configuration below `folder`. The agent is
    /// not started.
    ///
    /// # Errors
    /// A guest is not built, a socket cannot be bound, or the folder cannot be written.
    pub async fn lay(folder: &Path, events: u64) -> Result<Self> {
        let day = TROUBLES.iter().flat_map(|(_, answer)| {
            std::iter::repeat_n(Answer::Takes, CALM).chain([answer.clone()])
        });
        let refuses = |body: &str| event::identify(body).is_ok_and(|(_, n)| n % REFUSED == 7);
        let service = Receiver::refusing(refuses, day).await?;
        let broker = Broker::start().await?;
        let (source, redact) = (path::plant(broker), path::redact()?);
        let (guest, url) = (place::guest("webhook")?, service.url());
        let guest = guest.display().to_string();
        let parts = format!(
            r#"{source}{redact}{MAIN}
[handlers.webhook]
component = {guest:?}
config = {{ url = "{url}/in", timeout-ms = 1000 }}
grants = {{ http = ["{url}/in"], allow-private = ["127.0.0.1"] }}

[sinks.out]
type = "handler"
handler = "webhook"
channel = "main"
batch = {{ events = 50 }}
"#
        );
        Ok(Self {
            agent: Agent::new(folder, "gateway", &parts)?,
            service,
            broker,
            events,
        })
    }

    /// Publishes all events, kills the agent once in the middle, and waits until the channel is
    /// empty; the agent has stopped then. `tell` hears how many requests there were.
    ///
    /// # Errors
    /// The agent does not start, does not come to an end, or its books do not balance.
    pub async fn run(&mut self, tell: impl Fn(u64)) -> Result<Became> {
        self.agent.start()?;
        self.agent.ready().await?;
        path::subscribed(&self.agent).await?;
        let published = Arc::new(AtomicU64::new(0));
        let telemetry = Telemetry {
            broker: self.broker.v4,
            source: PLANT.to_owned(),
            topic: "plant/telemetry".to_owned(),
            events: self.events,
            pause: (100, Duration::from_millis(10)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let publish = mqtt::publish(&telemetry, &published);
        let (service, agent) = (&self.service, &mut self.agent);
        let kill = async {
            let half = (CALM * TROUBLES.len() / 2) as u64;
            wait::until("half of the bad day is over", PATIENCE, || async {
                Ok((service.requests().len() as u64 >= half).then_some(()))
            })
            .await?;
            agent.kill().await?;
            agent.start()?;
            agent.ready().await
        };
        tokio::try_join!(publish, kill)?;
        ensure!(
            published.load(Ordering::Relaxed) == self.events,
            "not all was published"
        );
        wait::until("everything has left the channel", PATIENCE, || async {
            tell(self.service.requests().len() as u64);
            let audit = self.agent.audit().await?;
            let count = |counter| audit.count("channels.main", counter).unwrap_or(0);
            let accepted = audit.count(&format!("sources.{PLANT}"), "accepted");
            let is_empty = count("delivered") + count("dead-lettered") == count("put");
            Ok((accepted >= Some(self.events) && is_empty).then_some(()))
        })
        .await
        .with_context(|| self.agent.tail())?;
        self.end().await
    }

    async fn end(&mut self) -> Result<Became> {
        let letters = self.agent.letters().await?;
        let status = self.agent.stop().await?;
        ensure!(status.success(), "{status}\n{}", self.agent.tail());
        let audit = self.agent.audit().await?;
        ensure!(audit.holds, "{audit:?}");
        let number = |body: &str| {
            let (_, n) = event::identify(body).map_err(anyhow::Error::msg)?;
            anyhow::Ok(n)
        };
        let mut dead = BTreeSet::new();
        for letter in &letters {
            ensure!(
                letter["reason"] == "status 422: why",
                "not refused by the service: {letter}"
            );
            dead.insert(number(letter["body"].as_str().context("a body")?)?);
        }
        let (mut taken, mut again, mut twice) = (BTreeSet::new(), 0, 0);
        for bodies in self.service.taken().values() {
            again += bodies.len() as u64 - 1;
            let first = bodies.first().context("a key has a body")?;
            ensure!(
                bodies.iter().all(|body| body == first),
                "one key, two bodies: {bodies:?}"
            );
            twice += u64::from(!taken.insert(number(first)?));
        }
        ensure!(dead.is_disjoint(&taken), "what was taken is dead, too");
        let (taken, refused) = (taken.len() as u64, dead.len() as u64);
        Ok(Became {
            produced: self.events,
            taken,
            refused,
            missing: self.events.saturating_sub(taken + refused),
            again,
            twice,
            requests: self.service.requests().len() as u64,
        })
    }
}
