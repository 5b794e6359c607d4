//! Avro RPC out: to Flume agents and other Levadas.
//!
//! A batch is delivered when the other side has answered OK, which it does after its own commit.
//! Its bytes are sent as they are stored. Towards a Flume one call is in flight per connection,
//! because later ones store concurrent calls out of order. Another Levada shows itself when a
//! connection is opened: then every lane of the channel has a session on a connection of its own,
//! with several calls on their way, and what comes again is stored once.

mod metrics;
mod opening;
mod params;
mod plain;
mod session;

use std::{
    collections::HashMap,
    io, iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use levada_core::{
    Clock, Delivery, Hop, Lease, Marks, OpenError, Outcome, Outcomes, PartId, Problems, RunContext,
    Sink, SinkError, SinkKind, Table, factory::SinkFactory, sink::Cause,
};
use levada_net::{HandshakeError, Outbound, Transport};
use levada_rpc::{Client, ClientError};
use levada_telemetry::Registry;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};
use tracing::{info, warn};

use self::{
    metrics::Metrics,
    opening::Opened,
    params::Params,
    session::{Flight, Session, SessionError},
};
use crate::Deps;

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

impl SinkFactory for Factory {
    const NAME: &'static str = "avro";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        params.check(table, problems);
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
            sessions: Mutex::default(),
            renewing: AsyncMutex::default(),
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
    /// With a Levada, by lane.
    sessions: Mutex<HashMap<u32, Slot>>,
    /// Held while an incarnation is drawn.
    renewing: AsyncMutex<()>,
    /// With a Flume: connections without a call; the one used last is taken first.
    idle: Mutex<Vec<Client>>,
}

/// The session of a lane, if there is one. Whoever holds it sends.
type Slot = Arc<AsyncMutex<Option<Session>>>;

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
    Plain(Option<Box<Client>>),
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
            .map(|bytes| self.too_large(bytes as usize).into())
            .collect();
        outcomes.resize(lease.batch.len(), Outcome::Retry);
        Ok(Delivery {
            outcomes: Outcomes::Each(outcomes),
            rejects,
            ..Delivery::default()
        })
    }

    fn window(&self) -> usize {
        let lanes = self.hop.as_ref().map_or(1, |hop| hop.lanes() as usize);
        match self.receiver() {
            Receiver::Levada { window } => window.saturating_mul(lanes),
            Receiver::Unknown | Receiver::Plain => self.params.connections,
        }
    }

    fn pipelines(&self) -> bool {
        matches!(self.receiver(), Receiver::Levada { .. })
    }

    async fn close(&mut self) {
        self.idle().clear();
        self.sessions().clear();
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
        let slot = self.slot(lease.lane);
        let mut slot = slot.lock().await;
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

    fn sessions(&self) -> MutexGuard<'_, HashMap<u32, Slot>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the session of a lane is kept.
    fn slot(&self, lane: u32) -> Slot {
        Arc::clone(self.sessions().entry(lane).or_default())
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

#[cfg(test)]
mod tests;
