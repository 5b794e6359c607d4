//! The path that the demo and the tests run: devices -> edge agent -> aggregator -> files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::{
    agent::Agent, broker::Broker, event, load::Entrances, outputs, place, wiretap::Wiretap,
};

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

    /// Where producers send to.
    #[must_use]
    pub fn entrances(&self) -> Entrances {
        Entrances {
            broker: self.broker.v4,
            http: self.http,
        }
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
    let (plant, web, redact) = (plant(broker), web(http), redact()?);
    // The wiretap reads along.
    let up = sink_up(up) + "compression = \"none\"\n";
    Ok(format!("{plant}{web}{redact}{MAIN}{up}"))
}

fn aggregator(avro: SocketAddr, output: &Path) -> String {
    let files = sink_files(output);
    format!("{}trust-plaintext = true\n{MAIN}{files}", source_avro(avro))
}

/// The durable channel `main`.
pub(crate) const MAIN: &str = "
[channels.main]
type = \"durable\"
capacity = \"256MiB\"
";

/// What devices publish, redacted.
pub(crate) fn plant(broker: Broker) -> String {
    format!(
        r#"[sources.{PLANT}]
type = "mqtt"
url = "mqtt://{}"
topics = ["plant/telemetry"]
window = 100
interceptors = ["redact"]
channels = ["main"]

"#,
        broker.v5
    )
}

/// What web clients post, redacted.
pub(crate) fn web(http: SocketAddr) -> String {
    format!(
        r#"[sources.{WEB}]
type = "http"
listen = "{http}"
interceptors = ["redact"]
channels = ["main"]

"#
    )
}

/// The handler that both need.
pub(crate) fn redact() -> Result<String> {
    let guest = place::guest("redact")?.display().to_string();
    Ok(format!(
        r#"[handlers.redact]
component = {guest:?}
config = {{ fields = ["email", "phone"] }}
"#
    ))
}

/// The source for other agents; what is appended belongs to it.
pub(crate) fn source_avro(listen: SocketAddr) -> String {
    format!(
        r#"[sources.edges]
type = "avro"
listen = "{listen}"
channels = ["main"]
"#
    )
}

/// The sink to the next agent; what is appended belongs to it.
pub(crate) fn sink_up(to: SocketAddr) -> String {
    format!(
        r#"
[sinks.up]
type = "avro"
channel = "main"
to = "{to}"
"#
    )
}

/// The sink that writes files of JSON lines; what is appended belongs to it.
pub(crate) fn sink_files(output: &Path) -> String {
    format!(
        r#"
[sinks.files]
type = "file-roll"
channel = "main"
directory = {:?}
format = "json"
"#,
        output.display().to_string()
    )
}
