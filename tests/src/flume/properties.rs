//! Flume's configuration, as far as the tests need it.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use crate::flume::{Certificates, Wire};

/// Where a flow's events wait.
#[derive(Debug, Clone)]
pub enum FlumeChannel {
    /// At most so many events, and so many in one transaction.
    Memory { capacity: usize, transaction: usize },
    /// In files below this folder.
    File(PathBuf),
}

/// Where a flow's events go.
#[derive(Debug, Clone)]
pub enum FlumeSink {
    /// To an Avro source.
    Avro { to: SocketAddr, wire: Wire },
    /// Into Avro container files in this folder, one file per start.
    Files(PathBuf),
}

/// One flow of an agent, from an Avro source to sinks. All its parts are called as it is.
#[derive(Debug, Clone)]
pub struct FlumeFlow {
    pub name: String,
    pub listen: SocketAddr,
    pub wire: Wire,
    pub channel: FlumeChannel,
    /// The most that a sink takes at once.
    pub batch: usize,
    /// How many sinks take from the channel, each a thread of its own.
    pub sinks: usize,
    pub sink: FlumeSink,
}

/// The name of every agent.
pub(super) const AGENT: &str = "flume";

/// The properties file of an agent with these flows.
#[must_use]
pub fn properties(flows: &[FlumeFlow], certificates: &Certificates) -> String {
    let mut text = String::new();
    let names: Vec<_> = flows.iter().map(|flow| flow.name.as_str()).collect();
    let mut line = |key: &str, value: &str| {
        // Writing into a string cannot fail.
        writeln!(text, "{AGENT}.{key} = {value}").ok();
    };
    for kind in ["sources", "channels"] {
        line(kind, &names.join(" "));
    }
    let sinks: Vec<_> = flows.iter().flat_map(FlumeFlow::sink_names).collect();
    line("sinks", &sinks.join(" "));
    for flow in flows {
        let name = &flow.name;
        let source = format!("sources.{name}");
        line(&format!("{source}.type"), "avro");
        line(&format!("{source}.channels"), name);
        line(&format!("{source}.bind"), &flow.listen.ip().to_string());
        line(&format!("{source}.port"), &flow.listen.port().to_string());
        for (key, value) in flow.wire.source_keys(certificates) {
            line(&format!("{source}.{key}"), &value);
        }
        for (key, value) in flow.channel.keys() {
            line(&format!("channels.{name}.{key}"), &value);
        }
        for sink in flow.sink_names() {
            line(&format!("sinks.{sink}.channel"), name);
            for (key, value) in flow.sink.keys(flow.batch, certificates) {
                line(&format!("sinks.{sink}.{key}"), &value);
            }
        }
    }
    text
}

impl FlumeFlow {
    /// The sinks: the first is called as the flow is.
    pub(super) fn sink_names(&self) -> Vec<String> {
        let more = (2..=self.sinks).map(|n| format!("{}-{n}", self.name));
        std::iter::once(self.name.clone()).chain(more).collect()
    }
}

impl FlumeChannel {
    /// Room for everything a test sends.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory {
            capacity: 100_000,
            transaction: 10_000,
        }
    }

    fn keys(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Memory {
                capacity,
                transaction,
            } => vec![
                ("type", "memory".into()),
                ("capacity", capacity.to_string()),
                ("transactionCapacity", transaction.to_string()),
                ("keep-alive", "1".into()),
            ],
            Self::File(folder) => vec![
                ("type", "file".into()),
                ("capacity", "100000".into()),
                ("transactionCapacity", "10000".into()),
                (
                    "checkpointDir",
                    folder.join("checkpoint").display().to_string(),
                ),
                ("dataDirs", folder.join("data").display().to_string()),
                // The disk of a test machine may be nearly full.
                ("minimumRequiredSpace", "1048576".into()),
            ],
        }
    }
}

impl FlumeSink {
    fn keys(&self, batch: usize, certificates: &Certificates) -> Vec<(&'static str, String)> {
        match self {
            Self::Avro { to, wire } => {
                let mut keys = vec![
                    ("type", "avro".into()),
                    ("hostname", to.ip().to_string()),
                    ("port", to.port().to_string()),
                    ("batch-size", batch.to_string()),
                ];
                keys.extend(wire.sink_keys(certificates));
                keys
            }
            Self::Files(folder) => vec![
                ("type", "file_roll".into()),
                ("sink.directory", folder.display().to_string()),
                ("sink.rollInterval", "0".into()),
                ("sink.batchSize", batch.to_string()),
                ("sink.serializer", "avro_event".into()),
            ],
        }
    }
}
