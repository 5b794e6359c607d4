//! The first-party sinks, each to its service: what is good is there, what is bad is a dead letter
//! with the service's own words, a service that asks to wait is waited for, and what comes again
//! after a kill is there once where the service knows a key.
//!
//! The services are doubles that refuse what their protocols do not allow; Elasticsearch's is a real
//! OpenSearch, too, where there is one.

mod clickhouse;
mod elasticsearch;
mod influx;
mod loki;
mod otlp;
mod splunk;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use levada_tests::{
    collector::{Collector, component},
    service::{Answer, Protocol, Service, Turn},
    wait,
};
use serde_json::{Value, json};

/// A guest, and what its service is to make of events.
struct Case<P> {
    guest: &'static str,
    /// The guest's settings, but `url`.
    config: &'static str,
    /// A header that the host adds, and its secret.
    credential: Option<(&'static str, &'static str)>,
    /// The body of an event that the service takes, by its number.
    good: fn(usize) -> String,
    /// The body of one that it does not take, and words of its reason.
    bad: (&'static str, &'static str),
    /// The numbers of what the service has, each as often as it is there.
    stored: fn(&P) -> Vec<usize>,
    /// How often something came that was there, and was not taken again; none if the service knows
    /// no key.
    repeated: Option<fn(&P) -> usize>,
}

/// The time of the first event, in milliseconds since 1970.
const TIME: usize = 1_700_000_000_000;

/// How long a service may wait for what it should get.
const SOON: Duration = Duration::from_secs(30);

/// An agent and the service that it delivers to.
struct Delivery<P> {
    service: Service<P>,
    collector: Collector,
    posted: u64,
}

/// What is left of a delivery.
struct Delivered<P> {
    service: Service<P>,
    /// Body and reason of each dead letter.
    letters: Vec<(String, String)>,
}

impl<P: Protocol> Delivery<P> {
    /// Posts events as one batch. Many of them have the same time.
    async fn post(&mut self, bodies: &[String]) -> Result<()> {
        let event = |(n, body): (usize, &String)| {
            let time = (TIME + n / 100).to_string();
            json!({ "headers": { "timestamp": time, "level": "info" }, "body": body })
        };
        let events: Vec<_> = bodies.iter().enumerate().map(event).collect();
        self.posted += events.len() as u64;
        self.collector.post(&json!(events)).await
    }

    /// Kills the agent whenever a request was taken and not answered, three times.
    async fn kill_thrice(&mut self) -> Result<()> {
        for kills in 1..=3 {
            let service = &self.service;
            wait::until("a request is swallowed", SOON, || async {
                Ok((service.swallowed() == kills).then_some(()))
            })
            .await
            .with_context(|| self.collector.agent.tail())?;
            if kills < 3 {
                // What comes again is answered, and so is what follows it.
                let again = [Turn::Takes, Turn::Takes, Turn::Swallows];
                self.service.then(again);
            }
            self.collector.kill().await?;
        }
        Ok(())
    }

    /// Waits until all is delivered. Whatever the service was sent is in its protocol.
    async fn finish(self) -> Result<Delivered<P>> {
        let finished = self.collector.finish(self.posted).await;
        let faults = self.service.faults();
        ensure!(faults.is_empty(), "{faults:#?}");
        let text = |letter: &Value, name| letter[name].as_str().unwrap_or_default().to_owned();
        let both = |letter: &Value| (text(letter, "body"), text(letter, "reason"));
        Ok(Delivered {
            service: self.service,
            letters: finished?.iter().map(both).collect(),
        })
    }
}

impl<P: Protocol> Case<P> {
    /// Starts both; `handler` and `sink` are more lines of theirs.
    async fn start(
        &self,
        protocol: P,
        script: impl IntoIterator<Item = Turn>,
        (handler, sink): (&str, &str),
    ) -> Result<Delivery<P>> {
        let service = Service::start(protocol, script).await?;
        let (component, url, config) = (component(self.guest)?, service.url(), self.config);
        let bound = self.credential.map_or_else(String::new, |(header, value)| {
            format!(
                "credentials = {{ \"{url}\" = {{ header = \"{header}\", value = \"{value}\" }} }}\n"
            )
        });
        let handler = format!(
            "{component}\nconfig = {{ url = \"{url}\", {config} }}\n\
             grants = {{ http = [\"{url}\"], allow-private = [\"127.0.0.1\"] }}\n{bound}{handler}"
        );
        Ok(Delivery {
            service,
            collector: Collector::lay(&handler, sink)?.start().await?,
            posted: 0,
        })
    }

    fn bodies(&self, events: usize) -> Vec<String> {
        (0..events).map(self.good).collect()
    }

    /// The numbers of what the service has, in order.
    async fn stored(&self, service: &Service<P>) -> Vec<usize> {
        let mut numbers = (self.stored)(&*service.look().await);
        numbers.sort_unstable();
        numbers
    }

    /// Everything is there, once.
    async fn good_events_are_there(&self, protocol: P) -> Result<()> {
        let sink = "batch = { events = 100 }";
        let mut delivery = self.start(protocol, [], ("", sink)).await?;
        delivery.post(&self.bodies(1000)).await?;
        let Delivered { service, letters } = delivery.finish().await?;
        ensure!(letters.is_empty(), "{letters:?}");
        let stored = self.stored(&service).await;
        ensure!(stored.into_iter().eq(0..1000), "not each of them once");
        Ok(())
    }

    /// What is bad is a dead letter with the service's words, and everything else is there once.
    async fn bad_events_are_set_aside_alone(&self, protocol: P) -> Result<()> {
        let sink = "batch = { events = 40 }";
        let mut delivery = self.start(protocol, [], ("", sink)).await?;
        let (bad, words) = self.bad;
        let places = [0, 17, 18, 50, 79];
        let mut bodies = self.bodies(100);
        for place in places {
            bodies[place] = bad.to_owned();
        }
        delivery.post(&bodies).await?;
        let Delivered { service, letters } = delivery.finish().await?;
        ensure!(letters.len() == places.len(), "{letters:?}");
        for (body, reason) in letters {
            ensure!(body == bad, "{body}: {reason}");
            ensure!(reason.contains(words), "`{words}` is not in `{reason}`");
        }
        let good = (0..100).filter(|place| !places.contains(place));
        let stored = self.stored(&service).await;
        ensure!(stored.iter().copied().eq(good), "{stored:?}");
        Ok(())
    }

    /// A service that asks to wait is not asked again before that, and nothing is lost or set aside;
    /// nor is it while the service does not let the sink in. An event alone is blamed for anything
    /// that could be its fault.
    async fn what_is_no_events_fault_keeps_it(&self, protocol: P) -> Result<()> {
        let later = |status| Answer::new(status).with_header("retry-after", "1");
        let script = [later(429), later(503), Answer::new(401), Answer::new(403)];
        let script = script.map(Turn::Says);
        let mut delivery = self.start(protocol, script, ("", "")).await?;
        delivery.post(&self.bodies(1)).await?;
        let Delivered { service, letters } = delivery.finish().await?;
        ensure!(letters.is_empty(), "{letters:?}");
        let stored = self.stored(&service).await;
        ensure!(stored == [0], "{stored:?}");
        let requests = service.requests();
        ensure!(requests.len() == 5, "{} requests", requests.len());
        for n in [0, 1] {
            let waited = requests[n + 1] - requests[n];
            ensure!(waited >= Duration::from_secs(1), "only {waited:?}");
        }
        Ok(())
    }

    /// The agent is killed while the service has taken what it did not answer. Everything is there,
    /// and once where the service knows a key.
    async fn nothing_is_lost_by_kills(&self, protocol: P) -> Result<()> {
        let sink = "batch = { events = 50 }";
        let mut delivery = self.start(protocol, [Turn::Swallows], ("", sink)).await?;
        delivery.post(&self.bodies(500)).await?;
        delivery.kill_thrice().await?;
        let Delivered { service, letters } = delivery.finish().await?;
        ensure!(letters.is_empty(), "{letters:?}");
        let stored = self.stored(&service).await;
        let mut once = stored.clone();
        once.dedup();
        ensure!(once.into_iter().eq(0..500), "not all of them: {stored:?}");
        let twice = stored.len() - 500;
        match self.repeated {
            Some(repeated) => {
                let repeated = repeated(&*service.look().await);
                ensure!(twice == 0, "{twice} are there twice");
                ensure!(repeated >= 3, "only {repeated} came again");
            }
            // What was taken and not answered, and more that was answered just before a kill.
            None => ensure!(twice >= 150, "{twice} are there twice"),
        }
        Ok(())
    }
}

/// Text that a protocol may stumble over.
const ODD: &str = "\"quoted\" \\ {back} \n é, = 'x' #";

/// A body that is a JSON object with the number `n`.
fn object(n: usize) -> String {
    json!({ "n": n, "text": ODD }).to_string()
}

/// A body that is text with a number.
fn text(n: usize) -> String {
    format!("{n} {ODD}")
}

/// The number in such a text.
fn number(text: &str) -> Option<usize> {
    let (number, rest) = text.split_once(' ')?;
    (rest == ODD).then_some(number.parse().ok()?)
}
