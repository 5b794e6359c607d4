//! Avro RPC out: to Flume agents and other Levadas.
//!
//! A batch is delivered when the other side has answered OK, which it does after its own commit.
//! Its bytes are sent as they are stored. Towards a Flume one call is in flight per connection,
//! because later ones store concurrent calls out of order. Another Levada shows itself when a
//! connection is opened: then several calls are on their way in one session, and what comes again
//! is stored once.

mod opening;
mod plain;
mod session;

use std::{
    io, iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    ByteSize, Clock, Delivery, Hop, Lease, Marks, OpenError, Outcome, Outcomes, PartId, Problems,
    RunContext, Sink, SinkError, SinkKind, Table, choice, factory::SinkFactory, params,
    sink::Cause,
};
use levada_net::{ClientTls, Deflating, HandshakeError, Order, Outbound, Transport, host_and_port};
use levada_rpc::{Client, ClientError};
use levada_telemetry::{Counter, Histogram, Registry};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{info, warn};

use self::{
    opening::Opened,
    session::{Flight, Session, SessionError},
};
use crate::Deps;

params! {
    /// Settings of the `avro` sink.
    pub(crate) struct Params {
        /// The Avro source to send to, as host and port.
        pub to: String,
        /// Towards a Flume: how many batches to have on their way at once, each on a connection of
        /// its own. More than one gives up the order of events.
        pub connections: usize = 1,
        /// Towards a Levada: how many batches to have on their way at once, in order.
        pub window: usize = 8,
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
    later { "ids" }
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

/// Most batches on their way; a receiver may ask for fewer.
const MOST_WINDOW: usize = 64;

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
        let is_window = (1..=MOST_WINDOW).contains(&params.window);
        refuse("window", !is_window, format!("1 to {MOST_WINDOW}"));
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
            hop: None,
            receiver: Mutex::new(Receiver::Unknown),
            session: AsyncMutex::new(None),
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
    /// `None` until it is open.
    hop: Option<Arc<dyn Hop>>,
    /// Who answered last.
    receiver: Mutex<Receiver>,
    /// With a Levada. Whoever holds it sends.
    session: AsyncMutex<Option<Session>>,
    /// With a Flume: connections without a call; the one used last is taken first.
    idle: Mutex<Vec<Client>>,
}

/// Who the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    Unknown,
    /// A Flume, or anything else that speaks its Avro RPC.
    Plain,
    /// How many batches may be on their way to it.
    Levada {
        window: usize,
    },
}

/// A lease on its way to a Levada, or one that is for a peer that is none.
enum Launched {
    Levada(Flight),
    Plain(Option<Client>),
}

#[async_trait]
impl Sink for AvroSink {
    async fn open(&mut self, _: &Marks, hop: &Arc<dyn Hop>) -> Result<(), OpenError> {
        let params = &self.params;
        let outbound = Outbound::open(params.tls.as_ref(), Arc::clone(&self.clock)).await?;
        self.outbound = outbound.deflating(params.deflating());
        self.hop = Some(Arc::clone(hop));
        Ok(())
    }

    async fn deliver(&self, lease: &Lease, _cx: &RunContext) -> Result<Delivery, SinkError> {
        let flight = match self.launch(lease).await? {
            Launched::Levada(flight) => flight,
            Launched::Plain(client) => return self.deliver_plain(&lease.batch, client).await,
        };
        let began = Instant::now();
        let landed = flight.land(self.params.request_timeout).await;
        self.metrics.known.add(flight.known as u64);
        let result = landed
            .error
            .map_or(Ok(()), |error| Err(self.explain(error)));
        self.metrics.count(&result, began.elapsed());
        let mut outcomes = vec![Outcome::Done; landed.done];
        let rest = lease.batch.len() - landed.done;
        match (result, &flight.too_large) {
            (Ok(()), None) => return Ok(Delivery::done()),
            (Ok(()), Some(too_large)) => {
                outcomes.extend(iter::repeat_n(Outcome::Dead, too_large.len()));
            }
            // The receiver's mark covers what it has, so that only the rest will be sent again.
            (Err(error), _) if flight.ordered || rest == lease.batch.len() => return Err(error),
            (Err(error), _) => {
                warn!(sink = %self.part, %error, sent = landed.done, "batch delivered in part");
            }
        }
        let dead = outcomes.len() - landed.done;
        let lengths = lease.batch.lengths().skip(landed.done).take(dead);
        let rejects = lengths
            .map(|bytes| self.too_large(bytes as usize))
            .collect();
        outcomes.resize(lease.batch.len(), Outcome::Retry);
        Ok(Delivery {
            outcomes: Outcomes::Each(outcomes),
            rejects,
            ..Delivery::default()
        })
    }

    fn window(&self) -> usize {
        match self.receiver() {
            Receiver::Levada { window } => window,
            Receiver::Unknown | Receiver::Plain => self.params.connections,
        }
    }

    async fn close(&mut self) {
        self.idle().clear();
        *self.session.lock().await = None;
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
    /// Sends a lease to a Levada, in the order of the calls; or gives it back for a peer that is
    /// none, with the connection that showed it.
    async fn launch(&self, lease: &Lease) -> Result<Launched, SinkError> {
        let Some(hop) = self
            .hop
            .as_ref()
            .filter(|_| self.receiver() != Receiver::Plain)
        else {
            return Ok(Launched::Plain(None));
        };
        let mut slot = self.session.lock().await;
        if self.receiver() == Receiver::Plain {
            return Ok(Launched::Plain(None));
        }
        let mut known = slot.take();
        if let Some(session) = &mut known
            && !session.is_usable().await
        {
            known = None;
        }
        let mut session = match known {
            Some(session) => session,
            None => match self.open_lane(lease, hop).await? {
                Opened::Levada(session) => session,
                Opened::Plain(client) => {
                    self.meet(Receiver::Plain);
                    return Ok(Launched::Plain(Some(client)));
                }
            },
        };
        let window = session.window();
        self.meet(Receiver::Levada { window });
        let within = self.params.request_timeout;
        let sent = session.send(lease, &**hop, within).await;
        if matches!(sent, Ok(_) | Err(SessionError::Early)) {
            *slot = Some(session);
        }
        sent.map(Launched::Levada).map_err(|error| {
            let error = Err(self.explain(error));
            self.metrics.count(&error, Duration::ZERO);
            error.err().unwrap_or_else(|| self.silent())
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiver(&self) -> Receiver {
        *self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, receiver: Receiver) {
        *self.receiver.lock().unwrap_or_else(PoisonError::into_inner) = receiver;
    }

    async fn connect(&self) -> Result<Client, SinkError> {
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

    fn too_large(&self, bytes: usize) -> String {
        let allowed = self.params.max_frame;
        format!("an event of {bytes} bytes does not fit a frame of {allowed}")
    }

    /// Whose fault it is that a session does not go on.
    fn explain(&self, error: SessionError) -> SinkError {
        let to = &self.params.to;
        match error {
            SessionError::Call(error) => self.lost(error),
            SessionError::Silent => self.silent(),
            SessionError::Failed => self.failed(),
            SessionError::Error(text) => self.complained(&text),
            error @ SessionError::Chain(_) => unreachable("cannot see the channel".into(), error),
            error @ (SessionError::Early | SessionError::OutOfOrder) => {
                unreachable(format!("the session with `{to}` begins anew"), error)
            }
            error @ SessionError::NoMark => refused(
                format!("`{to}` does not answer as a Levada"),
                Some(error.into()),
            ),
        }
    }

    fn silent(&self) -> SinkError {
        let most = levada_core::units::format_duration(self.params.request_timeout);
        refused(
            format!("no answer from `{}` within {most}", self.params.to),
            None,
        )
    }

    fn failed(&self) -> SinkError {
        let to = &self.params.to;
        refused(format!("`{to}` has no room now and answered FAILED"), None)
    }

    fn complained(&self, text: &str) -> SinkError {
        let text: String = text.chars().take(SHOWN).collect();
        refused(
            format!("`{}` answered with an error: {text}", self.params.to),
            None,
        )
    }

    fn lost(&self, error: ClientError) -> SinkError {
        let to = &self.params.to;
        match error {
            error @ (ClientError::Io(_) | ClientError::Ended | ClientError::Broken) => {
                broken(format!("lost the connection to `{to}`"), error.into())
            }
            error => {
                let what = format!("`{to}` does not answer as an Avro source");
                refused(what, Some(error.into()))
            }
        }
    }
}

fn unreachable(what: String, source: impl Into<Cause>) -> SinkError {
    SinkError::Unreachable {
        what,
        source: Some(source.into()),
    }
}

fn refused(what: String, source: Option<Cause>) -> SinkError {
    SinkError::Refused {
        what,
        after: None,
        source,
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

/// What an avro sink counts beside the standard counters of sinks.
#[derive(Debug)]
struct Metrics {
    connects: Counter,
    /// Marks of receivers that were of another life of a store.
    regressions: Counter,
    /// Events that a receiver had already.
    known: Counter,
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
        let regressions = "New incarnations because a receiver's mark was of another life";
        let known = "Events that were settled unsent because the receiver had them";
        let seconds = "Time from sending a call to its answer.";
        Self {
            regressions: registry.counter("levada_hop_regressions", regressions, &labels),
            known: registry.counter("levada_hop_known_events", known, &labels),
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
