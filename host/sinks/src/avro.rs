//! Avro RPC out: to Flume agents and other Levadas.
//!
//! A batch is delivered when the other side has answered OK, which it does after its own commit.
//! Its bytes are sent as they are stored. One call is in flight per connection, because later
//! Flumes store concurrent calls out of order.

use std::{
    io, iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use fail::fail_point;
use levada_core::{
    Batch, ByteSize, Clock, Delivery, Hop, Lease, Marks, OpenError, Outcome, Outcomes, PartId,
    Problems, RunContext, Sink, SinkError, SinkKind, Table, choice, factory::SinkFactory, params,
    sink::Cause,
};
use levada_net::{ClientTls, Deflating, HandshakeError, Order, Outbound, Transport, host_and_port};
use levada_rpc::{Answer, Client, ClientError, Meta, Method, Reply, Status, codec};
use levada_telemetry::{Counter, Histogram, Registry};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::Deps;

params! {
    /// Settings of the `avro` sink.
    pub(crate) struct Params {
        /// The Avro source to send to, as host and port.
        pub to: String,
        /// How many batches to have on their way at once, each on a connection of its own. More
        /// than one gives up the order of events.
        pub connections: usize = 1,
        /// How long to wait for an answer.
        pub request_timeout: Duration = "20s",
        /// How long to wait for a connection.
        pub connect_timeout: Duration = "20s",
        /// The largest message that the other side takes. Larger batches are sent in parts.
        pub max_frame: ByteSize = "16MiB",
        /// Certificates; with them, or with `{}`, the other side must speak TLS.
        pub tls: Option<ClientTls>,
        /// "deflate" for a Flume whose source has `compression-type = deflate`.
        pub compression: Option<Compression>,
        /// How hard to deflate: from 0, not at all, to 9.
        pub compression_level: u32 = 6,
        /// With TLS and deflate: whether zlib is outside, as Flume 1.10 and later want it; false
        /// for Flume 1.9.
        pub deflate_over_tls: bool = true,
    }
    later { "window", "ids" }
}

choice! {
    /// How to make less of the bytes.
    pub(crate) enum Compression {
        /// As Flume does it: one zlib stream each way.
        Deflate = "deflate",
    }
}

/// The most that zlib can do.
const HARDEST: u32 = 9;

/// The types of sink in this file.
pub(crate) fn kinds(deps: &Deps) -> Vec<SinkKind> {
    vec![SinkKind::of(Factory {
        transport: Arc::clone(&deps.transport),
        registry: deps.registry.clone(),
        clock: Arc::clone(&deps.clock),
    })]
}

/// Builds [`AvroSink`]s.
struct Factory {
    transport: Arc<dyn Transport>,
    registry: Registry,
    clock: Arc<dyn Clock>,
}

/// Most connections of one sink; a receiver takes 100 from one address.
const MOST_CONNECTIONS: usize = 64;

/// The smallest `max-frame`: what a call needs beside its events, and some of those.
const SMALLEST_FRAME: ByteSize = ByteSize::kib(64);
const LARGEST_FRAME: ByteSize = ByteSize(1 << 30);

impl SinkFactory for Factory {
    const NAME: &'static str = "avro";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        let mut refuse = |key: &str, is_wrong: bool, allowed: String| {
            if let (true, Some((_, value))) = (is_wrong, table.get(key)) {
                let problem = value.problem(&table.path_of(key), "not a value for this key");
                problems.push(problem.allowed(allowed));
            }
        };
        let is_place = host_and_port(&params.to).is_some();
        refuse(
            "to",
            !is_place,
            "a host and a port, such as \"agg1.example:4141\"".into(),
        );
        let is_many = (1..=MOST_CONNECTIONS).contains(&params.connections);
        refuse("connections", !is_many, format!("1 to {MOST_CONNECTIONS}"));
        let is_frame = (SMALLEST_FRAME..=LARGEST_FRAME).contains(&params.max_frame);
        refuse(
            "max-frame",
            !is_frame,
            format!("{SMALLEST_FRAME} to {LARGEST_FRAME}"),
        );
        for (key, time) in [
            ("request-timeout", params.request_timeout),
            ("connect-timeout", params.connect_timeout),
        ] {
            refuse(key, time.is_zero(), "more than 0s".into());
        }
        let is_harder = params.compression_level > HARDEST;
        refuse("compression-level", is_harder, format!("0 to {HARDEST}"));
        let may_order = params.compression.is_some() && params.tls.is_some();
        let allowed = "only beside `tls` and `compression`".into();
        refuse("deflate-over-tls", !may_order, allowed);
        if let Some(tls) = &params.tls {
            tls.check(table, problems);
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Sink> {
        Box::new(AvroSink {
            part: part.to_string(),
            params: params.clone(),
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            outbound: Outbound::default(),
            metrics: Metrics::new(&self.registry, &part.to_string()),
            idle: Mutex::default(),
        })
    }
}

/// The sink that speaks Avro RPC.
#[derive(Debug)]
struct AvroSink {
    part: String,
    params: Params,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// What its connections go through.
    outbound: Outbound,
    metrics: Metrics,
    /// Connections without a call; the one used last is taken first.
    idle: Mutex<Vec<Client>>,
}

#[async_trait]
impl Sink for AvroSink {
    async fn open(&mut self, _: &Marks, _: &Arc<dyn Hop>) -> Result<(), OpenError> {
        let params = &self.params;
        let outbound = Outbound::open(params.tls.as_ref(), Arc::clone(&self.clock)).await?;
        self.outbound = outbound.deflating(params.deflating());
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, _cx: &RunContext) -> Result<Delivery, SinkError> {
        let batch = &lease.batch;
        let max_frame = self.params.max_frame.as_usize();
        if codec::fitting(batch.lengths(), max_frame) == batch.len() {
            return self.send(batch).await.map(|()| Delivery::done());
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rejects = Vec::new();
        while outcomes.len() < batch.len() {
            let from = outcomes.len();
            let count = codec::fitting(batch.lengths().skip(from), max_frame);
            if count == 0 {
                let bytes = batch.event_bytes(from).map_or(0, |event| event.len());
                let allowed = self.params.max_frame;
                rejects.push(format!(
                    "an event of {bytes} bytes does not fit a frame of {allowed}"
                ));
                outcomes.push(Outcome::Dead);
                continue;
            }
            match self.send(&batch.slice(from..from + count)).await {
                Ok(()) => outcomes.extend(iter::repeat_n(Outcome::Done, count)),
                Err(error) if from == 0 => return Err(error),
                Err(error) => {
                    // What the other side has must be settled, or it would be sent twice.
                    warn!(sink = %self.part, %error, sent = from, "batch delivered in part");
                    outcomes.resize(batch.len(), Outcome::Retry);
                }
            }
        }
        Ok(Delivery {
            outcomes: Outcomes::Each(outcomes),
            rejects,
            ..Delivery::default()
        })
    }

    fn window(&self) -> usize {
        self.params.connections
    }

    async fn close(&mut self) {
        self.idle().clear();
    }
}

impl Params {
    fn deflating(&self) -> Option<Deflating> {
        let Compression::Deflate = self.compression?;
        let order = match self.deflate_over_tls {
            true => Order::DeflateOverTls,
            false => Order::TlsOverDeflate,
        };
        Some(Deflating {
            level: self.compression_level,
            order,
        })
    }
}

impl AvroSink {
    /// Sends events that fit one call, and waits until the other side has them.
    async fn send(&self, batch: &Batch) -> Result<(), SinkError> {
        let mut client = self.client().await?;
        let began = Instant::now();
        let exchange = exchange(&mut client, batch);
        let answer = time::timeout(self.params.request_timeout, exchange).await;
        let result = self.judge(answer.ok());
        self.metrics.count(&result, began.elapsed());
        // A peer that answered is worth its connection, whatever it said; one that did not is not
        // usable and ends here.
        if client.is_usable().await {
            self.idle().push(client);
        }
        result
    }

    /// A connection without a call, or a new one.
    async fn client(&self) -> Result<Client, SinkError> {
        loop {
            let Some(mut client) = self.idle().pop() else {
                break;
            };
            if client.is_usable().await {
                return Ok(client);
            }
        }
        let (to, within) = (&self.params.to, self.params.connect_timeout);
        match self.outbound.connect(&*self.transport, to, within).await {
            Ok(stream) => {
                info!(sink = %self.part, %to, "connected");
                self.metrics.connects.add(1);
                Ok(Client::new(stream))
            }
            Err(error) => Err(broken(format!("cannot connect to `{to}`"), error.into())),
        }
    }

    /// Whose fault an answer is; `None` stands for no answer in time.
    fn judge(&self, answer: Option<Result<Reply, ClientError>>) -> Result<(), SinkError> {
        let to = &self.params.to;
        let refused = |what| {
            Err(SinkError::Refused {
                what,
                after: None,
                source: None,
            })
        };
        let Some(answer) = answer else {
            let most = levada_core::units::format_duration(self.params.request_timeout);
            return refused(format!("no answer from `{to}` within {most}"));
        };
        match answer {
            Ok(Reply {
                result: Ok(Status::Ok),
                ..
            }) => Ok(()),
            Ok(Reply {
                result: Ok(Status::Failed | Status::Unknown),
                ..
            }) => refused(format!("`{to}` has no room now and answered FAILED")),
            Ok(Reply {
                result: Err(text), ..
            }) => {
                let text: String = text.chars().take(SHOWN).collect();
                refused(format!("`{to}` answered with an error: {text}"))
            }
            Err(error @ (ClientError::Io(_) | ClientError::Ended | ClientError::Broken)) => Err(
                broken(format!("lost the connection to `{to}`"), error.into()),
            ),
            Err(error) => {
                let what = format!("`{to}` does not answer as an Avro source");
                Err(SinkError::Refused {
                    what,
                    after: None,
                    source: Some(error.into()),
                })
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that failed: the other side is not there, or it is there and one of the two refuses
/// the other, which passes only when somebody changes a certificate or a setting.
fn broken(what: String, cause: Cause) -> SinkError {
    let io = match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Io(error)) => Some(error),
        _ => cause.downcast_ref::<io::Error>(),
    };
    if io.is_some_and(HandshakeError::is_in) {
        return SinkError::Refused {
            what,
            after: None,
            source: Some(cause),
        };
    }
    SinkError::Unreachable {
        what,
        source: Some(cause),
    }
}

/// Most characters of a peer's error that are shown.
const SHOWN: usize = 500;

async fn exchange(client: &mut Client, batch: &Batch) -> Result<Reply, ClientError> {
    loop {
        client
            .send(Method::AppendBatch, batch, &Meta::new())
            .await?;
        fail_point!("sink-after-send-before-ack");
        if let Answer::Reply(reply) = client.receive().await? {
            return Ok(reply);
        }
    }
}

/// What an avro sink counts beside the standard counters of sinks.
#[derive(Debug)]
struct Metrics {
    connects: Counter,
    ok: Counter,
    refused: Counter,
    unreachable: Counter,
    seconds: Histogram,
}

impl Metrics {
    fn new(registry: &Registry, part: &str) -> Self {
        let calls = |result| {
            let help = "Calls that an avro sink made, by result.";
            let labels = [("part", part), ("result", result)];
            registry.counter("levada_avro_sent_calls", help, &labels)
        };
        let labels = [("part", part)];
        let connects = "Connections that an avro sink made.";
        let seconds = "Time from sending a call to its answer.";
        Self {
            connects: registry.counter("levada_avro_connects", connects, &labels),
            ok: calls("ok"),
            refused: calls("refused"),
            unreachable: calls("unreachable"),
            seconds: registry.histogram("levada_avro_call_seconds", seconds, &labels),
        }
    }

    fn count(&self, result: &Result<(), SinkError>, took: Duration) {
        match result {
            Ok(()) => {
                self.ok.add(1);
                self.seconds.observe(took);
            }
            Err(SinkError::Unreachable { .. }) => self.unreachable.add(1),
            Err(_) => self.refused.add(1),
        }
    }
}

#[cfg(test)]
mod tests;
