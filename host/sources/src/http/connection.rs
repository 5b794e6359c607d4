//! One connection, and what one request on it comes to.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use fail::fail_point;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{CONNECTION, EXPECT, HeaderValue, TRANSFER_ENCODING},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use levada_core::{Batch, Ingest, Limits, Put, Stop, tasks};
use levada_net::Accepted;
use tracing::debug;

use super::{
    Metrics,
    answer::{Refusal, Reply, accepted, replayed},
    auth::Auth,
    body::{self, Budget, Packing},
    events::{self, Kind},
    idempotency::{Claim, Keys, Taken},
    outlet::Outlet,
};

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Most header fields of a request.
const MAX_FIELDS: usize = 100;

/// What the connections of a source share.
pub(crate) struct Server {
    pub read_timeout: Duration,
    pub service: Service,
}

/// What a request needs.
pub(crate) struct Service {
    pub out: Arc<dyn Ingest>,
    pub stop: Stop,
    pub paths: Option<Vec<String>>,
    pub auth: Option<Auth>,
    pub max_body: usize,
    pub limits: Limits,
    pub put_timeout: Duration,
    pub read_timeout: Duration,
    pub budget: Budget,
    pub metrics: Metrics,
    pub keys: Keys,
}

/// Serves a connection until its peer ends it or `stop` drains; a request in hand is finished.
pub(crate) async fn serve(accepted: Accepted, server: Arc<Server>, stop: Stop) {
    let Accepted {
        stream,
        peer,
        identity: _,
        admission,
    } = accepted;
    let stream = Outlet::new(stream, server.read_timeout);
    let service = service_fn(|request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.service.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.read_timeout)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "connection ended early");
    }
    drop(admission);
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, mut body) = request.into_parts();
        let chunked = head.headers.contains_key(TRANSFER_ENCODING);
        let mut reply = match self.take(&head, &mut body).await {
            Ok((events, Taken::Stored)) => accepted(events),
            Ok((_, Taken::Before(events))) => {
                self.metrics.replayed.add(1);
                replayed(events)
            }
            Err(refusal) => {
                // Who waits for `100 Continue` sends nothing unless the body is read.
                if !head.headers.contains_key(EXPECT) {
                    body::drop_rest(&mut body).await;
                }
                refusal.reply()
            }
        };
        if chunked {
            // RFC 9112, 6.3: a length beside chunks may hide a second request. hyper drops the
            // length before we see it, so the connection ends after any chunked request.
            reply
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.answered(reply.status());
        reply
    }

    /// Stores a request's events, unless its key came before; how many they were.
    async fn take(&self, head: &Parts, body: &mut Incoming) -> Result<(usize, Taken), Refusal> {
        let path = head.uri.path();
        if self
            .paths
            .as_ref()
            .is_some_and(|paths| !paths.iter().any(|known| known == path))
        {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "no events are taken on this path",
            ));
        }
        if head.method != Method::POST {
            let error = "only POST is understood";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error));
        }
        if let Some(auth) = self
            .auth
            .as_ref()
            .filter(|auth| !auth.admits(&head.headers))
        {
            return Err(Refusal::unauthorized(auth.challenge()));
        }
        let kind = Kind::of(&head.headers)?;
        let packing = Packing::of(&head.headers)?;
        let query = head.uri.query().unwrap_or("");
        let common = events::common_headers(query, &self.limits)?;
        let mut held = self.budget.hold();
        let data = body::read(body, packing, self.max_body, self.read_timeout, &mut held).await?;
        let batch = tasks::in_place(|| events::read(&data, kind, &common, &self.limits))?;
        let parts = [&[kind as u8], query.as_bytes(), &data];
        let claim = tasks::in_place(|| Claim::of(&head.headers, &parts))?;
        drop(data);
        self.put(batch, claim).await
    }

    async fn put(&self, batch: Batch, claim: Option<Claim>) -> Result<(usize, Taken), Refusal> {
        let events = batch.len();
        if events == 0 {
            return Ok((0, Taken::Stored));
        }
        let put = self.put_once(Put::within(batch, self.put_timeout), claim);
        let stopped = async {
            self.stop.now().await;
            Refusal::busy("the agent is stopping")
        };
        tokio::select! {
            biased;
            taken = put => {
                let taken = taken?;
                fail_point!("source-after-commit-before-ack");
                Ok((events, taken))
            }
            refusal = stopped => Err(refusal),
        }
    }

    async fn put_once(&self, put: Put, claim: Option<Claim>) -> Result<Taken, Refusal> {
        let Some(claim) = claim else {
            let stored = self.out.put(put).await;
            return stored
                .map(|()| Taken::Stored)
                .map_err(|error| Refusal::of_put(&error));
        };
        self.keys.put(&*self.out, claim, put).await
    }
}
