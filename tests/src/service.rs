//! Doubles of services over HTTP: each takes what its published protocol allows, byte by byte, and
//! refuses everything else.

mod clickhouse;
mod elasticsearch;
mod influx;
mod loki;
mod otlp;
mod request;
mod splunk;

use std::{
    collections::VecDeque,
    convert::Infallible,
    future,
    net::SocketAddr,
    sync::{Arc, Mutex as Lock, MutexGuard as Locked, PoisonError},
    time::Instant,
};

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use levada_core::TaskSet;
use tokio::{
    net::TcpStream,
    sync::{Mutex, MutexGuard},
};

use crate::loopback;

pub use self::{
    clickhouse::ClickHouse,
    elasticsearch::{Elasticsearch, Forward},
    influx::Influx,
    loki::Loki,
    otlp::Otlp,
    request::{Answer, Request},
    splunk::Splunk,
};

/// What a service does with a request.
#[async_trait]
pub trait Protocol: Send + 'static {
    /// Takes the request, or refuses what is in it.
    ///
    /// # Errors
    /// The request is none of the protocol: its author has made a mistake.
    async fn answer(&mut self, request: &Request) -> Result<Answer>;
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It is taken or refused, as every one that has no turn.
    Takes,
    /// It is answered so, and nobody looks at it.
    Says(Answer),
    /// It is taken, and never answered.
    Swallows,
}

/// A service on loopback, as long as it is not dropped.
#[derive(Debug)]
pub struct Service<P> {
    pub at: SocketAddr,
    shared: Arc<Shared<P>>,
    _tasks: TaskSet,
}

#[derive(Debug)]
struct Shared<P> {
    protocol: Mutex<P>,
    script: Lock<VecDeque<Turn>>,
    seen: Lock<Seen>,
}

/// What came until now.
#[derive(Debug, Default)]
struct Seen {
    /// When each request was there as a whole.
    requests: Vec<Instant>,
    swallowed: usize,
    faults: Vec<String>,
}

impl<P: Protocol> Service<P> {
    /// Starts it; the first requests have a turn each.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn start(protocol: P, script: impl IntoIterator<Item = Turn>) -> Result<Self> {
        let shared = Arc::new(Shared {
            protocol: Mutex::new(protocol),
            script: Lock::new(script.into_iter().collect()),
            seen: Lock::default(),
        });
        let serving = Arc::clone(&shared);
        let (at, tasks) =
            loopback::listen("service", move |stream| serve(stream, Arc::clone(&serving))).await?;
        Ok(Self {
            at,
            shared,
            _tasks: tasks,
        })
    }

    /// Its address as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// The next requests have these turns.
    pub fn then(&self, turns: impl IntoIterator<Item = Turn>) {
        lock(&self.shared.script).extend(turns);
    }

    /// What it has taken, and whatever else it knows.
    pub async fn look(&self) -> MutexGuard<'_, P> {
        self.shared.protocol.lock().await
    }

    /// When each request came.
    #[must_use]
    pub fn requests(&self) -> Vec<Instant> {
        lock(&self.shared.seen).requests.clone()
    }

    /// How many requests were taken and not answered.
    #[must_use]
    pub fn swallowed(&self) -> usize {
        lock(&self.shared.seen).swallowed
    }

    /// Requests that were none of the protocol, and why.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        lock(&self.shared.seen).faults.clone()
    }
}

async fn serve<P: Protocol>(stream: TcpStream, shared: Arc<Shared<P>>) -> Result<()> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (head, body) = request.into_parts();
            let answer = match body.collect().await {
                Ok(body) => shared.request(&head, body.to_bytes()).await,
                // The client went away in the middle: nobody reads the answer.
                Err(error) => Answer::new(400).with_body(error.to_string()),
            };
            Ok::<_, Infallible>(response(answer))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

impl<P: Protocol> Shared<P> {
    async fn request(&self, head: &hyper::http::request::Parts, body: Bytes) -> Answer {
        lock(&self.seen).requests.push(Instant::now());
        let turn = lock(&self.script).pop_front();
        if let Some(Turn::Says(answer)) = turn {
            return answer;
        }
        let answered = match Request::read(head, body) {
            Ok(request) => self.protocol.lock().await.answer(&request).await,
            Err(error) => Err(error),
        };
        let answer = answered.unwrap_or_else(|error| {
            let fault = format!("{} {}: {error:#}", head.method, head.uri);
            lock(&self.seen).faults.push(fault.clone());
            Answer::new(400).with_body(fault)
        });
        if turn == Some(Turn::Swallows) {
            lock(&self.seen).swallowed += 1;
            future::pending::<()>().await;
        }
        answer
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = Full::new(Bytes::from(answer.body));
    response
        .body(body)
        .expect("doubles answer with sound headers")
}

fn lock<T>(of: &Lock<T>) -> Locked<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
