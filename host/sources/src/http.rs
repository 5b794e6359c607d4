//! Takes events over HTTP/1.1: one request is one batch, stored as a whole or not at all.
//!
//! `POST` with one of three kinds of body, told apart by `Content-Type`:
//!
//! - `application/json`: Flume's array, `[{"headers": {"a": "b"}, "body": "text"}, ...]`; a missing
//!   or null `body` is empty, other keys are ignored, as in Flume. UTF-8 only.
//! - `application/x-ndjson` (also `application/ndjson`, `application/jsonl`): each line that is not
//!   empty is one event, its body is the line as it is; the line must be JSON.
//! - anything else: the payload is the body of one event.
//!
//! Query parameters become headers of every event of the request, as with Flume's `BlobHandler`; an
//! event's own header wins. `Content-Encoding: gzip` is understood.
//!
//! | Answer | When |
//! |---|---|
//! | 200 `{"accepted": n}` | the batch is committed |
//! | 400 | what is wrong, and `index`: the place of the bad event, counted from 0 |
//! | 401 | wrong or no credentials |
//! | 404, 405 | not one of `paths`; not `POST` |
//! | 408 | the body did not come in time |
//! | 413 | a body beyond `max-body`, an event beyond `max-event`, more than 100,000 events |
//! | 415 | an unknown content encoding, JSON in another charset than UTF-8 |
//! | 422 | an `Idempotency-Key` that was used with another body |
//! | 431 | a head beyond 64 KiB or 100 header fields |
//! | 503 and `Retry-After` | no room within `put-timeout`, stopping, too much in memory |
//!
//! "No answer" means "maybe": a client sends again, so delivery is at-least-once. With
//! `Idempotency-Key` it is exactly-once: a request whose key came before is answered as before
//! (`Idempotent-Replayed: true`) and stores nothing; with another body or query it is 422. While a
//! key is under way, others with it wait. The last 100,000 keys of a source are remembered, in the
//! transactions of the events they stand for.

mod answer;
mod auth;
mod body;
mod connection;
mod events;
mod idempotency;
mod outlet;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use levada_core::{
    ByteSize, Clock, Ingest, OpenError, PartId, Problem, Problems, RunContext, Source, SourceError,
    Table, factory::SourceFactory, params,
};
use levada_net::{
    ConnectionLimits, Connections, Inbound, Listener, ListenerTls, Plaintext, Transport,
    accept_until, plaintext_problem,
};
use levada_telemetry::{Counter, Registry};
use tracing::info;

use self::{
    auth::{Auth, AuthParams},
    body::Budget,
    connection::{Server, Service},
    idempotency::Keys,
};
use crate::{
    Deps,
    batching::{check_max_event, limits},
};

params! {
    /// Settings of the `http` source.
    pub(crate) struct Params {
        /// Where to listen.
        pub listen: SocketAddr = "127.0.0.1:5140",
        /// Whether anybody on the network may read along; must be said to listen off loopback.
        pub plaintext: Option<Plaintext>,
        /// Certificates; with them it is HTTPS and nothing else.
        pub tls: Option<ListenerTls>,
        /// The paths that take events; without it every path does.
        pub paths: Option<Vec<String>>,
        /// What a client must show: `{ token = ... }` (as `Authorization: Bearer`) or
        /// `{ basic = { user = ..., password = ... } }`.
        pub auth: Option<AuthParams>,
        /// Most bytes of a body, before and after it is unpacked.
        pub max_body: ByteSize = "16MiB",
        /// Most bytes of an event.
        pub max_event: ByteSize = "1MiB",
        /// How long a request waits for room before 503.
        pub put_timeout: Duration = "10s",
        /// How long the head, the body, and the reading of the answer may take each.
        pub read_timeout: Duration = "30s",
        /// Most connections.
        pub max_connections: usize = 5000,
        /// Most connections from one address.
        pub max_connections_per_address: usize = 100,
    }
}

/// Builds [`HttpSource`]s.
pub(crate) struct Factory {
    transport: Arc<dyn Transport>,
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl Factory {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self {
            transport: Arc::clone(&deps.transport),
            registry: deps.registry.clone(),
            clock: Arc::clone(&deps.clock),
        }
    }
}

impl SourceFactory for Factory {
    const NAME: &'static str = "http";
    type Params = Params;

    fn check(&self, params: &Params, table: &Table, problems: &mut Problems) {
        match &params.tls {
            Some(tls) => tls.check(table, problems),
            None => plaintext_problem(params.listen, params.plaintext, table, problems),
        }
        check_max_event(params.max_event, table, problems);
        let mut refuse = |key: &str, message: &str, help: &str| {
            let span = table.get(key).map_or(table.span, |(_, value)| value.span);
            problems.push(Problem::error(Some(span), table.path_of(key), message).help(help));
        };
        if params.max_body < params.max_event || params.max_body > ByteSize::mib(1024) {
            refuse(
                "max-body",
                "not between `max-event` and 1GiB",
                "an event comes in a body",
            );
        }
        for path in params.paths.iter().flatten() {
            if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
                refuse(
                    "paths",
                    "a path that no request can have",
                    "write \"/events\"",
                );
            }
        }
        if params.auth.as_ref().is_some_and(|auth| auth.is_ambiguous()) {
            refuse(
                "auth",
                "not exactly one of `token` and `basic`",
                "write { token = \"...\" }",
            );
        }
    }

    fn build(&self, part: &PartId, params: &Params) -> Box<dyn Source> {
        Box::new(HttpSource {
            transport: Arc::clone(&self.transport),
            params: params.clone(),
            clock: Arc::clone(&self.clock),
            metrics: Metrics::new(&self.registry, part),
            inbound: Inbound::default(),
            listener: None,
        })
    }
}

/// What the source counts beside what every source does.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// By class of status: 2xx, 4xx, 5xx.
    answers: [Counter; 3],
    refused: Counter,
    replayed: Counter,
}

impl Metrics {
    fn new(registry: &Registry, part: &PartId) -> Self {
        let part = part.to_string();
        let answers = |class| {
            let labels: [(&str, &str); 2] = [("part", &part), ("class", class)];
            registry.counter(
                "levada_http_answers",
                "Requests answered, by class of status.",
                &labels,
            )
        };
        let help = "Connections refused because too many are open.";
        let labels: [(&str, &str); 1] = [("part", &part)];
        Self {
            answers: [answers("2xx"), answers("4xx"), answers("5xx")],
            refused: registry.counter("levada_http_refused_connections", help, &labels),
            replayed: registry.counter(
                "levada_http_replayed",
                "Requests whose Idempotency-Key came before; nothing was stored again.",
                &labels,
            ),
        }
    }

    fn answered(&self, status: hyper::StatusCode) {
        let class = if status.is_success() {
            0
        } else if status.is_client_error() {
            1
        } else {
            2
        };
        self.answers[class].add(1);
    }
}

/// The source that listens for HTTP.
#[derive(Debug)]
struct HttpSource {
    transport: Arc<dyn Transport>,
    params: Params,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// What its connections go through.
    inbound: Inbound,
    listener: Option<Box<dyn Listener>>,
}

#[async_trait]
impl Source for HttpSource {
    async fn open(&mut self) -> Result<(), OpenError> {
        self.inbound = Inbound::open(self.params.tls.as_ref(), Arc::clone(&self.clock)).await?;
        let at = self.params.listen;
        let listener = self.transport.bind(at).await;
        let listener =
            listener.map_err(|error| OpenError::with(format!("cannot listen on `{at}`"), error))?;
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: Arc<dyn Ingest>, cx: &RunContext) -> Result<(), SourceError> {
        let listener = self
            .listener
            .take()
            .ok_or_else(|| SourceError::new("not open"))?;
        let address = listener.local_addr().map_err(|error| {
            SourceError::with(
                format!("cannot find the address of `{}`", self.params.listen),
                error,
            )
        })?;
        info!(source = %cx.part, %address, "listening");
        let refused = self.metrics.refused.clone();
        let limits = ConnectionLimits {
            total: self.params.max_connections,
            per_ip: self.params.max_connections_per_address,
        };
        let connections = Connections::new(limits).on_refusal(move |_| refused.add(1));
        let server = Arc::new(self.server(out, cx));
        let stop = cx.stop.clone();
        let serve = move |accepted| connection::serve(accepted, Arc::clone(&server), stop.clone());
        accept_until(
            listener,
            self.inbound.clone(),
            &connections,
            &cx.part.to_string(),
            &cx.stop,
            serve,
        )
        .await;
        Ok(())
    }
}

impl HttpSource {
    fn server(&self, out: Arc<dyn Ingest>, cx: &RunContext) -> Server {
        let params = &self.params;
        Server {
            read_timeout: params.read_timeout,
            service: Service {
                out,
                stop: cx.stop.clone(),
                paths: params.paths.clone(),
                auth: params.auth.as_ref().and_then(Auth::new),
                max_body: params.max_body.as_usize(),
                limits: limits(params.max_event),
                put_timeout: params.put_timeout,
                read_timeout: params.read_timeout,
                budget: Budget::for_bodies_of(params.max_body.as_usize()),
                metrics: self.metrics.clone(),
                keys: Keys::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
