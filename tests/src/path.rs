//! The path that the demo and the tests run: devices -> edge agent -> aggregator -> files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::{agent::Agent, broker::Broker, event, outputs, place, wiretap::Wiretap};

/// The name of the edge's MQTT source, which its events carry too.
pub const PLANT: &str = "plant";

/// The name of the edge's HTTP source, which its events carry too.
pub const WEB: &str = "web";

/// Two agents, the broker before them and the relay between them.
#[derive(Debug)]
pub struct EndToEnd {
    pub broker: Broker,
    pub edge: Agent,
    pub aggregator: Agent,
    pub wiretap: Wiretap,
    /// Where the edge takes HTTP.
    pub http: SocketAddr,
    /// Where the aggregator takes Avro.
    pub avro: SocketAddr,
    /// Where the aggregator writes files.
    pub output: PathBuf,
}

impl EndToEnd {
    /// Starts the broker and the relay, and writes both configurations below `folder`. The agents
    /// are not started.
    ///
    /// # Errors
    /// A guest is not built, a socket cannot be bound, or the folder cannot be written.
    pub async fn lay(folder: &Path) -> Result<Self> {
        let broker = Broker::start().await?;
        let (http, avro) = (place::free_address()?, place::free_address()?);
        let wiretap = Wiretap::start(avro, &event::SECRETS).await?;
        let output = folder.join("output");
        let edge = edge(broker, http, wiretap.listen)?;
        Ok(Self {
            edge: Agent::new(folder, "edge", &edge)?,
            aggregator: Agent::new(folder, "aggregator", &aggregator(avro, &output))?,
            broker,
            wiretap,
            http,
            avro,
            output,
        })
    }

    /// Starts both agents and waits until the edge's subscription is in place, so that the broker
    /// keeps everything for it from then on.
    ///
    /// # Errors
    /// An agent does not start.
    pub async fn start(&mut self) -> Result<()> {
        self.aggregator.start()?;
        self.edge.start()?;
        self.aggregator.ready().await?;
        self.edge.ready().await?;
        subscribed(&self.edge).await
    }

    /// Whether `count` different events lie in the files and neither agent holds any: what was sent
    /// twice may still be on its way when the last event has arrived once.
    ///
    /// # Errors
    /// A file cannot be read.
    pub async fn has_delivered(&self, count: u64) -> Result<bool> {
        for agent in [&self.edge, &self.aggregator] {
            if agent.metric("levada_channel_events", "").await.ok() != Some(0.0) {
                return Ok(false);
            }
        }
        Ok(outputs::distinct(&self.output)? >= count)
    }
}

/// Waits until an agent's MQTT source has its session at the broker.
///
/// # Errors
/// It has none within ten seconds.
pub async fn subscribed(agent: &Agent) -> Result<()> {
    let within = Duration::from_secs(10);
    agent
        .metric_until("levada_mqtt_connected", "", within, |connected| {
            connected == 1.0
        })
        .await?;
    Ok(())
}

fn edge(broker: Broker, http: SocketAddr, up: SocketAddr) -> Result<String> {
    let redact = place::guest("redact")?;
    Ok(format!(
        r#"[sources.{PLANT}]
type = "mqtt"
url = "mqtt://{}"
topics = ["plant/telemetry"]
window = 100
interceptors = ["redact"]
channels = ["main"]

[sources.{WEB}]
type = "http"
listen = "{http}"
interceptors = ["redact"]
channels = ["main"]

[handlers.redact]
component = {:?}
config = {{ fields = ["email", "phone"] }}

[channels.main]
type = "durable"
capacity = "256MiB"

[sinks.up]
type = "avro"
channel = "main"
to = "{up}"
"#,
        broker.v5,
        redact.display().to_string()
    ))
}

fn aggregator(avro: SocketAddr, output: &Path) -> String {
    format!(
        r#"[sources.edges]
type = "avro"
listen = "{avro}"
trust-plaintext = true
channels = ["main"]

[channels.main]
type = "durable"
capacity = "256MiB"

[sinks.files]
type = "file-roll"
channel = "main"
directory = {:?}
format = "json"
"#,
        output.display().to_string()
    )
}
