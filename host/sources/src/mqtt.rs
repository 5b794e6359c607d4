//! Takes events from an MQTT broker, at quality of service 1 at most.
//!
//! A message is acknowledged (PUBACK) after the batch it is in is committed, in the order of
//! arrival, on the connection it came on: an acknowledgement for an earlier connection is dropped,
//! and the broker sends the message again. While the channels are full nothing is acknowledged and
//! nothing more is read. The client id is stable and the session is kept (7 days with MQTT 5), so
//! the broker keeps what is published while the agent is away.
//!
//! Headers of an event: MQTT 5 user properties (names beginning with `levada.` are left out), and
//! `content-type` where there is one; then `topic`, `qos` and `retain`, which replace properties of
//! the same name. The body is the payload.
//!
//! A message beyond `max-event` goes to the dead letters and is acknowledged, else the broker would
//! send it for ever. Of one that is beyond it by more than 128 KiB only the beginning is kept; the
//! rest never gets into memory.

mod gather;
mod link;
mod session;
mod shrink;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    ByteSize, Clock, Ingest, OpenError, PartId, Problem, Problems, RunContext, Secret, Source,
    SourceError, Table, factory::SourceFactory, params,
};
use levada_net::{Backoff, ClientTls, Outbound, Transport};
use levada_telemetry::{Counter, Gauge, Registry};
use tracing::{info, warn};

use self::{
    link::{ForkLink, LinkSettings, MqttLink, Version},
    session::{End, Session},
};
use crate::{
    Deps,
    batching::{BatchParams, check_max_event, limits},
};

/// How long to wait before the broker is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Messages a broker may send before it waits for acknowledgements, where none is set: MQTT 5 is
/// told so; with 3.1.1 this is what common brokers do by themselves.
const WINDOW_5: u16 = 1000;
const WINDOW_3: u16 = 20;

params! {
    /// Settings of the `mqtt` source.
    pub(crate) struct Params {
        /// The broker: `mqtt://host:1883` or `mqtts://host:8883`.
        pub url: String,
        /// What to subscribe to; `+`, `#` and `$share/group/...` are understood.
        pub topics: Vec<String>,
        /// The protocol: `5` or `3.1.1`.
        pub version: Version = "5",
        /// Who this client is to the broker; by default `levada-<agent>-<source>`. It must not
        /// change, and no other client may have it.
        pub client_id: Option<String>,
        /// The user's name.
        pub user: Option<String>,
        /// The user's password.
        pub password: Option<Secret>,
        /// Certificates for `mqtts`; without them whom the machine trusts.
        pub tls: Option<ClientTls>,
        /// The quality of service asked for: 0 or 1.
        pub qos: u16 = 1,
        /// Messages the broker may send before it waits for acknowledgements; by default 1000 with
        /// MQTT 5, which is told to the broker, and 20 with 3.1.1, where it must be what the broker
        /// is set to. A batch is given on when the window is full.
        pub window: Option<u16>,
        /// How often to show the broker that this client is alive.
        pub keep_alive: Duration = "30s",
        /// How long to wait for a connection.
        pub connect_timeout: Duration = "10s",
        /// How long the broker keeps the session (MQTT 5).
        pub session_expiry: Duration = "7d",
        /// When a batch is given on.
        pub batch: Option<BatchParams>,
        /// Most bytes of an event; larger ones go to the dead letters.
        pub max_event: ByteSize = "1MiB",
        /// How long a batch waits for room before it is tried again.
        pub put_timeout: Duration = "10s",
    }
}

/// Builds [`MqttSource`]s.
pub(crate) struct Factory {
    deps: Deps,
}

impl Factory {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self { deps: deps.clone() }
    }
}

impl SourceFactory for Factory {
    const NAME: &'static str = "mqtt";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        check_max_event(params.max_event, table, problems);
        if let Some(batch) = &params.batch {
            batch.check(table, problems);
        }
        let mut refuse = |key: &str, message: String| {
            let span = table.get(key).map_or(table.span, |(_, value)| value.span);
            problems.push(Problem::error(Some(span), table.path_of(key), message));
        };
        match link::broker(&params.url) {
            Err(message) => refuse("url", message),
            Ok(broker) if !broker.tls && params.tls.is_some() => {
                refuse(
                    "tls",
                    "certificates are for `mqtts://`, and `url` is `mqtt://`".into(),
                );
            }
            Ok(_) => {}
        }
        if params.topics.is_empty() {
            refuse("topics", "no topic at all".into());
        }
        for topic in params.topics.iter().filter(|topic| !link::is_filter(topic)) {
            refuse("topics", format!("`{topic}` is no topic filter"));
        }
        if params.qos > 1 {
            refuse("qos", "not 0 or 1".into());
        }
        if params
            .client_id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > 256)
        {
            refuse("client-id", "not 1 to 256 bytes".into());
        }
        if params.password.is_some() && params.user.is_none() {
            refuse("password", "a password without `user`".into());
        }
        if params.window == Some(0) {
            refuse("window", "a window that lets nothing through".into());
        }
        let seconds = Duration::from_secs(5)..=Duration::from_secs(18 * 3600);
        if !seconds.contains(&params.keep_alive) {
            refuse("keep-alive", "not between 5s and 18h".into());
        }
        if let Some(tls) = &params.tls {
            tls.check(table, problems);
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Source> {
        let link = Link {
            transport: Arc::clone(&self.deps.transport),
            settings: self.settings(part, params),
            tls: params.tls.clone().unwrap_or_default(),
            clock: Arc::clone(&self.deps.clock),
        };
        Box::new(MqttSource {
            metrics: Metrics::new(&self.deps.registry, part),
            params: params.clone(),
            plan: link,
            link: None,
        })
    }
}

impl Factory {
    fn settings(&self, part: &PartId, params: &Params) -> Result<LinkSettings, String> {
        let id = || format!("levada-{}-{}", self.deps.agent, part.name);
        Ok(LinkSettings {
            broker: link::broker(&params.url)?,
            version: params.version,
            topics: params.topics.clone(),
            client_id: params.client_id.clone().unwrap_or_else(id),
            user: params.user.clone(),
            password: params.password.clone(),
            at_least_once: params.qos == 1,
            window: params.window(),
            keep_alive: params.keep_alive,
            connect_timeout: params.connect_timeout,
            session_expiry: params.session_expiry,
            max_event: params.max_event.as_usize(),
        })
    }
}

impl Params {
    fn window(&self) -> u16 {
        match (self.window, self.version) {
            (Some(window), _) => window,
            (None, Version::V5) => WINDOW_5,
            (None, Version::V311) => WINDOW_3,
        }
    }
}

/// What the source counts beside what every source does.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    connected: Gauge,
    connections: Counter,
    redelivered: Counter,
    oversize: Counter,
    stale_acks: Counter,
}

impl Metrics {
    fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let labels: [(&str, &str); 1] = [("part", &part)];
        let counter = |name, help| registry.counter(name, help, &labels);
        Self {
            connected: registry.gauge("levada_mqtt_connected", "1 with a broker, else 0.", &labels),
            connections: counter("levada_mqtt_connections", "Connections to the broker."),
            redelivered: counter(
                "levada_mqtt_redelivered",
                "Messages that the broker marked as sent before.",
            ),
            oversize: counter("levada_mqtt_oversize", "Messages beyond max-event."),
            stale_acks: counter(
                "levada_mqtt_stale_acks",
                "Acknowledgements dropped because their connection was gone.",
            ),
        }
    }
}

/// What a link is made of when the source opens.
struct Link {
    transport: Arc<dyn Transport>,
    settings: Result<LinkSettings, String>,
    tls: ClientTls,
    clock: Arc<dyn Clock>,
}

/// The source that subscribes.
struct MqttSource {
    params: Params,
    metrics: Metrics,
    plan: Link,
    link: Option<Box<dyn MqttLink>>,
}

impl fmt::Debug for MqttSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttSource")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for MqttSource {
    /// Loads certificates. A broker that is not there is no error: it is tried until it comes.
    async fn open(&mut self) -> Result<(), OpenError> {
        let settings = self.plan.settings.clone().map_err(OpenError::new)?;
        let tls = settings.broker.tls.then_some(&self.plan.tls);
        let outbound = Outbound::open(tls, Arc::clone(&self.plan.clock)).await?;
        let link = ForkLink::new(settings, Arc::clone(&self.plan.transport), outbound);
        self.link = Some(Box::new(link));
        Ok(())
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        let link = self
            .link
            .as_mut()
            .ok_or_else(|| SourceError::new("not open"))?;
        let session = Session {
            batch: BatchParams::or_default(self.params.batch.as_ref()),
            limits: limits(self.params.max_event),
            window: usize::from(self.params.window()),
            put_timeout: self.params.put_timeout,
            metrics: self.metrics.clone(),
            url: self.params.url.clone(),
        };
        run(link.as_mut(), &session, out, cx).await
    }
}

/// Connects again and again until told to stop.
async fn run(
    link: &mut dyn MqttLink,
    session: &Session,
    out: Arc<dyn Ingest>,
    cx: &RunContext,
) -> Result<(), SourceError> {
    let mut back_off = Backoff::new(BACK_OFF.0, BACK_OFF.1, cx.chance.clone());
    loop {
        let end = session.run(link, &out, cx, &mut back_off).await;
        session.metrics.connected.set(0);
        link.close().await;
        match end {
            End::Stopped => {
                info!(source = %cx.part, "disconnected");
                return Ok(());
            }
            End::Failed(error) => return Err(error),
            End::Lost(error) => {
                let wait = back_off.next_wait();
                let url = &session.url;
                warn!(source = %cx.part, url, %error, ?wait, "no broker, trying again");
                cx.peer
                    .waiting(format_args!("no broker at `{url}`: {error}"));
                tokio::select! {
                    () = cx.stop.draining() => return Ok(()),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
