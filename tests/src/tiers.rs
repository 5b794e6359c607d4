//! What the demo runs: devices and clients -> two edge agents -> a relay -> an aggregator -> files,
//! over mutual TLS, on cables that can be cut.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    agent::Agent,
    broker::Broker,
    load::Entrances,
    outputs,
    path::{self, MAIN},
    pki::Pki,
    place,
    wiretap::Wiretap,
};

/// The agents, in the order of the flow.
pub const NAMES: [&str; 4] = ["edge-1", "edge-2", "relay", "aggregator"];

/// The places of [`NAMES`].
pub const RELAY: usize = 2;
pub const AGGREGATOR: usize = 3;

/// Four agents, the broker before them and the cables between them.
#[derive(Debug)]
pub struct Tiers {
    pub broker: Broker,
    /// As in [`NAMES`]; the first takes MQTT, the second HTTP.
    pub agents: [Agent; 4],
    /// The way up of every agent but the last.
    pub cables: [Wiretap; 3],
    /// Where the second edge takes HTTP.
    pub http: SocketAddr,
    /// Where the aggregator writes files.
    pub output: PathBuf,
}

impl Tiers {
    /// Starts the broker and the cables, makes certificates, and writes the configurations below
    /// `folder`. The agents are not started.
    ///
    /// # Errors
    /// A guest is not built, `levada pki` failed, a socket cannot be bound, or the folder cannot be
    /// written.
    pub async fn lay(folder: &Path) -> Result<Self> {
        let pki = Pki::new(folder, "pki").await?;
        for name in NAMES {
            pki.issue(name).await?;
        }
        let broker = Broker::start().await?;
        let [http, relay, top] = [(); 3].map(|()| place::free_address());
        let (http, relay, top) = (http?, relay?, top?);
        let cables = [
            Wiretap::start(relay, &[]).await?,
            Wiretap::start(relay, &[]).await?,
            Wiretap::start(top, &[]).await?,
        ];
        let output = folder.join("output");
        let redact = path::redact()?;
        let up = |n: usize| {
            let (sink, tls) = (path::sink_up(cables[n].listen), pki.tls(NAMES[n]));
            format!("{sink}{tls}\n")
        };
        let from_below = |n: usize, listen| {
            let (source, tls) = (path::source_avro(listen), pki.tls(NAMES[n]));
            format!("{source}{tls}\n{MAIN}")
        };
        let mut files = path::sink_files(&output);
        files.write_str("ids = true\n")?;
        let parts = [
            format!("{}{redact}{MAIN}{}", path::plant(broker), up(0)),
            format!("{}{redact}{MAIN}{}", path::web(http), up(1)),
            format!("{}{}", from_below(RELAY, relay), up(RELAY)),
            format!("{}{files}", from_below(AGGREGATOR, top)),
        ];
        let agent = |n: usize| Agent::new(folder, NAMES[n], &parts[n]);
        Ok(Self {
            agents: [agent(0)?, agent(1)?, agent(RELAY)?, agent(AGGREGATOR)?],
            broker,
            cables,
            http,
            output,
        })
    }

    /// Starts every agent, the last one first, and waits until the edge's subscription is in
    /// place, so that the broker keeps everything for it from then on.
    ///
    /// # Errors
    /// An agent does not start.
    pub async fn start(&mut self) -> Result<()> {
        for agent in self.agents.iter_mut().rev() {
            agent.start()?;
            agent.ready().await?;
        }
        path::subscribed(&self.agents[0]).await
    }

    /// Where producers send to.
    #[must_use]
    pub fn entrances(&self) -> Entrances {
        Entrances {
            broker: self.broker.v4,
            http: self.http,
        }
    }

    /// Whether `count` different events lie in the files and no agent holds any: what was sent
    /// twice may still be on its way when the last event has arrived once.
    ///
    /// # Errors
    /// A file cannot be read.
    pub async fn has_delivered(&self, count: u64) -> Result<bool> {
        for agent in &self.agents {
            if agent.metric("levada_channel_events", "").await.ok() != Some(0.0) {
                return Ok(false);
            }
        }
        Ok(outputs::distinct(&self.output)? >= count)
    }
}
