//! What is answered on which path.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use levada_core::tasks::blocking;
use serde::Serialize;

use crate::{
    lines::LineBody,
    operate::{Done, Order, Reload, TapOrder},
    view::{View, letter, letters, settled_audit},
};

pub(crate) type Answer = Response<Either<Full<Bytes>, LineBody>>;

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Anybody who can reach the port.
    Tcp,
    /// Who may open the socket's file.
    Socket,
}

/// What Prometheus and others read.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
/// A JSON value a line.
const NDJSON: &str = "application/x-ndjson";
/// Dead letters in one answer, if nothing else is asked for, and at most.
const LETTERS: usize = 100;
const MOST_LETTERS: usize = 1000;

/// Answers one request of `by`. Bodies are never read: nothing here takes one.
pub(crate) async fn answer<B>(view: &View, door: Door, by: &str, request: &Request<B>) -> Answer {
    if request.method() == Method::POST && door == Door::Socket {
        return match order(request.uri()) {
            Some(Ok(order)) => done(view.operate.carry_out(order, by).await),
            Some(Err(known)) => problem(StatusCode::BAD_REQUEST, known),
            None => not_found(),
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let path = request.uri().path();
    match (path, door) {
        ("/healthz", _) => health(view),
        ("/metrics", _) => text(OPEN_METRICS, view.registry.render()),
        (_, Door::Tcp) => not_found(),
        ("/status", Door::Socket) => json(StatusCode::OK, &view.status_page()),
        ("/channels", Door::Socket) => json(StatusCode::OK, &view.inspect.channels()),
        ("/audit", Door::Socket) => read(settled_audit(&view.inspect).await),
        ("/dead-letters", Door::Socket) => {
            list(view, request.uri().query().unwrap_or_default()).await
        }
        (path, Door::Socket) => {
            if let Some(handler) = tapped(path) {
                return tap(view, handler, by, request.uri().query().unwrap_or_default()).await;
            }
            match path.strip_prefix("/dead-letters/").map(str::parse) {
                Some(Ok(id)) => one_letter(view, id).await,
                Some(Err(_)) | None => not_found(),
            }
        }
    }
}

/// What a POST asks for; `None` if there is nothing of that name.
fn order(uri: &Uri) -> Option<Result<Order, &'static str>> {
    if uri.path() == "/reload" {
        let reload = Reload::parse(uri.query().unwrap_or_default());
        let known = "known are dry-run, drain=CHANNEL and discard=CHANNEL";
        return Some(reload.map(Order::Reload).ok_or(known));
    }
    let letter = uri.path().strip_prefix("/dead-letters/")?;
    let letter = letter.strip_suffix("/replay")?.parse().ok()?;
    Some(Ok(Order::Replay { letter }))
}

fn done(done: Done) -> Answer {
    match done {
        Done::Well(body) => json(StatusCode::OK, &body),
        Done::Refused(body) => json(StatusCode::UNPROCESSABLE_ENTITY, &body),
        Done::Failed(body) => json(StatusCode::SERVICE_UNAVAILABLE, &body),
    }
}

fn health(view: &View) -> Answer {
    let health = view.health();
    let status = if health.status.is_red() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    json(status, &health)
}

async fn list(view: &View, query: &str) -> Answer {
    let (mut after, mut limit) = (None, LETTERS);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value.parse::<u64>()) {
            ("after", Ok(id)) => after = Some(id),
            ("limit", Ok(n)) => {
                limit = usize::try_from(n)
                    .unwrap_or(MOST_LETTERS)
                    .clamp(1, MOST_LETTERS);
            }
            _ => {
                return problem(
                    StatusCode::BAD_REQUEST,
                    "known are after=ID and limit=NUMBER",
                );
            }
        }
    }
    let inspect = Arc::clone(&view.inspect);
    read(blocking(move || letters(&*inspect, after, limit)).await)
}

async fn one_letter(view: &View, id: u64) -> Answer {
    let inspect = Arc::clone(&view.inspect);
    match blocking(move || letter(&*inspect, id)).await {
        Ok(None) => problem(StatusCode::NOT_FOUND, "there is no such dead letter"),
        found => read(found),
    }
}

/// The handler whose tap a path is.
fn tapped(path: &str) -> Option<&str> {
    path.strip_prefix("/handlers/")?.strip_suffix("/tap")
}

async fn tap(view: &View, handler: &str, by: &str, query: &str) -> Answer {
    let Some(order) = TapOrder::parse(handler, query) else {
        return problem(StatusCode::BAD_REQUEST, "known is filter=CONDITION");
    };
    match view.operate.tap(order, by).await {
        Ok(lines) => {
            let body = Either::Right(LineBody::new(lines, &view.stop));
            with_headers(NDJSON, Response::new(body))
        }
        Err(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

/// What the store gave, or why it did not.
fn read<T: Serialize>(found: Result<T, String>) -> Answer {
    match found {
        Ok(found) => json(StatusCode::OK, &found),
        Err(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn not_found() -> Answer {
    problem(StatusCode::NOT_FOUND, "there is nothing here")
}

fn problem(status: StatusCode, message: &str) -> Answer {
    json(status, &serde_json::json!({ "error": message }))
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_string(body).expect("our types have text keys only");
    let mut answer = text(JSON, body);
    *answer.status_mut() = status;
    answer
}

fn text(kind: &'static str, body: String) -> Answer {
    let body = Either::Left(Full::new(Bytes::from(body)));
    with_headers(kind, Response::new(body))
}

fn with_headers(kind: &'static str, mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests;
