//! Avro RPC in: events from Flume agents, Flume clients and other Levadas.
//!
//! The answer OK follows one commit in every required channel. Calls of one connection are taken
//! one after the other, so that what a peer sends in order is stored in order.

mod calls;
mod connection;
mod lanes;
mod session;
mod turns;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    ByteSize, Chance, Clock, Ingest, Limits, OpenError, PartId, Problem, Problems, RunContext,
    Source, SourceError, SourceKind, Table, choice, factory::SourceFactory, params,
};
use levada_net::{
    ConnectionLimits, Connections, Inbound, Listener, ListenerTls, Plaintext, Transport,
    accept_until, plaintext_problem,
};
use levada_rpc::ServerParams;
use levada_telemetry::{Counter, Gauge, Registry};
use tracing::info;

use crate::Deps;

params! {
    /// Settings of the `avro` source.
    pub(crate) struct Params {
        /// Where to listen.
        pub listen: SocketAddr = "127.0.0.1:4141",
        /// Must be "accept-risk" to listen beyond this machine without TLS.
        pub plaintext: Option<Plaintext>,
        /// Certificates; with them everybody must speak TLS.
        pub tls: Option<ListenerTls>,
        /// Without it, another Levada may use zstd. "deflate" also understands Flumes that deflate,
        /// beside those that do not; "none" is neither.
        pub compression: Option<Compression>,
        /// How long a call waits for room before it is answered FAILED. Flume's clients give up
        /// after 20s.
        pub put_timeout: Duration = "10s",
        /// Larger events go to the dead letters.
        pub max_event: ByteSize = "1MiB",
        /// A peer with a larger message is disconnected.
        pub max_frame: ByteSize = "16MiB",
        /// Most connections at the same time.
        pub max_connections: usize = 5000,
        /// Most connections from one address.
        pub max_connections_per_ip: usize = 100,
        /// How long a peer may be silent before it is disconnected.
        pub idle_timeout: Duration = "60s",
        /// Whether repeats are told apart by what a Levada says that has proved no name. Somebody
        /// who can forge that can make events pass for repeats.
        pub trust_plaintext: bool = false,
    }
}

choice! {
    /// What peers may do to make less of their bytes.
    pub(crate) enum Compression {
        /// Nothing, not even between two Levadas.
        None = "none",
        /// As Flume does it: zlib around everything, with TLS outside or inside. Another Levada may
        /// use zstd.
        Deflate = "deflate",
        /// Another Levada may use zstd.
        Zstd = "zstd",
    }
}

/// The types of source in this file.
pub(crate) fn kinds(deps: &Deps) -> Vec<SourceKind> {
    vec![SourceKind::of(Factory {
        transport: Arc::clone(&deps.transport),
        registry: deps.registry.clone(),
        clock: Arc::clone(&deps.clock),
        chance: deps.chance.clone(),
    })]
}

/// Builds [`AvroSource`]s.
struct Factory {
    transport: Arc<dyn Transport>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    chance: Chance,
}

/// Frames that a batch or a length on the wire cannot express are far above this.
const LARGEST_FRAME: ByteSize = ByteSize(1 << 30);

/// When Flume's clients give up.
const CLIENTS_WAIT: Duration = Duration::from_secs(20);

impl SourceFactory for Factory {
    const NAME: &'static str = "avro";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        match &params.tls {
            Some(tls) => tls.check(table, problems),
            None => plaintext_problem(params.listen, params.plaintext, table, problems),
        }
        let span = |key| Some(table.get(key).map_or(table.span, |(_, value)| value.span));
        let mut refuse = |key, found: ByteSize, most: ByteSize, why| {
            if found > most {
                let problem = Problem::error(span(key), table.path_of(key), "too large");
                let allowed = format!("up to {most}{why}");
                problems.push(problem.found(found.to_string()).allowed(allowed));
            }
        };
        refuse("max-frame", params.max_frame, LARGEST_FRAME, "");
        refuse(
            "max-event",
            params.max_event,
            params.max_frame,
            ", the size of `max-frame`",
        );
        if params.put_timeout >= CLIENTS_WAIT {
            let message = "peers will have given up before";
            let problem =
                Problem::warning(span("put-timeout"), table.path_of("put-timeout"), message);
            problems.push(problem.help("clients wait 20s and then send the batch again"));
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Source> {
        Box::new(AvroSource {
            part: part.to_string(),
            params: params.clone(),
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            chance: self.chance.clone(),
            metrics: Metrics::new(&self.registry, &part.to_string()),
            inbound: Inbound::default(),
            listener: None,
        })
    }
}

/// The source that speaks Avro RPC.
#[derive(Debug)]
struct AvroSource {
    part: String,
    params: Params,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    chance: Chance,
    metrics: Metrics,
    /// What its connections go through.
    inbound: Inbound,
    listener: Option<Box<dyn Listener>>,
}

#[async_trait]
impl Source for AvroSource {
    async fn open(&mut self) -> Result<(), OpenError> {
        let inbound = Inbound::open(self.params.tls.as_ref(), Arc::clone(&self.clock)).await?;
        let may_deflate = self.params.compression == Some(Compression::Deflate);
        self.inbound = inbound.deflating(may_deflate);
        let listen = self.params.listen;
        let what = || format!("cannot listen on `{listen}`");
        let listener = self.transport.bind(listen).await;
        let listener = listener.map_err(|error| OpenError::with(what(), error))?;
        let at = listener
            .local_addr()
            .map_err(|error| OpenError::with(what(), error))?;
        info!(source = %self.part, listen = %at, "listening");
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        let Some(listener) = self.listener.take() else {
            return Err(SourceError::new(
                "the avro source was run without being opened",
            ));
        };
        let limits = ConnectionLimits {
            total: self.params.max_connections,
            per_ip: self.params.max_connections_per_ip,
        };
        let refused = self.metrics.refused.clone();
        let connections = Connections::new(limits).on_refusal(move |_| refused.add(1));
        let shared = Arc::new(self.shared(out, cx));
        let serve = move |accepted| connection::serve(accepted, Arc::clone(&shared));
        let inbound = self.inbound.clone();
        accept_until(listener, inbound, &connections, &self.part, &cx.stop, serve).await;
        Ok(())
    }
}

impl AvroSource {
    fn shared(&self, out: Arc<dyn Ingest>, cx: &RunContext) -> connection::Shared {
        let events = Limits {
            event: self.params.max_event.as_usize(),
            ..Limits::default()
        };
        let server = ServerParams {
            max_frame: self.params.max_frame.as_usize(),
            events,
            idle: self.params.idle_timeout,
            ..ServerParams::default()
        };
        connection::Shared::new(
            connection::Place {
                part: self.part.clone(),
                out,
                stop: cx.stop.clone(),
            },
            server,
            self.params.put_timeout,
            self.chance.clone(),
            self.metrics.clone(),
            connection::Agreements {
                trust_plaintext: self.params.trust_plaintext,
                zstd: self.params.compression != Some(Compression::None),
            },
        )
    }
}

/// What an avro source counts beside the standard counters of sources.
#[derive(Debug, Clone)]
struct Metrics {
    open: Gauge,
    refused: Counter,
    ok: Counter,
    failed: Counter,
    violations: Counter,
    hops: session::Metrics,
}

impl Metrics {
    fn new(registry: &Registry, part: &str) -> Self {
        let counter = |name, help, labels: &[(&str, &str)]| registry.counter(name, help, labels);
        let calls = |status| {
            let help = "Calls that an avro source answered, by status.";
            counter(
                "levada_avro_received_calls",
                help,
                &[("part", part), ("status", status)],
            )
        };
        let labels = [("part", part)];
        let open = "Connections that an avro source holds.";
        let refused = "Connections that an avro source refused because of a limit.";
        let violations = "Connections that an avro source ended because the peer broke the \
                          protocol or a limit.";
        let sessions = "Sessions that other Levadas opened";
        let baselines = "Sessions that began without what was before, as a lane's first does";
        let repeats = "Events that were received before and not stored again";
        Self {
            open: registry.gauge("levada_avro_connections", open, &labels),
            refused: counter("levada_avro_refused_connections", refused, &labels),
            ok: calls("ok"),
            failed: calls("failed"),
            violations: counter("levada_avro_violations", violations, &labels),
            hops: session::Metrics {
                sessions: counter("levada_hop_sessions", sessions, &labels),
                baselines: counter("levada_hop_baselines", baselines, &labels),
                repeats: counter("levada_hop_repeated_events", repeats, &labels),
            },
        }
    }
}

#[cfg(test)]
mod tests;
