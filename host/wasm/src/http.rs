//! `http-client`: requests to what the operator has granted.
//!
//! The URL is parsed once, and what was parsed is matched with the grants and sent; the addresses of
//! a name are checked where it is dialled; no redirection is followed. What a request may cost is
//! bounded by the limits of the handler and of its call.

mod address;
mod client;
mod headers;
mod target;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

pub(crate) use client::{HttpClient, MachineNames};
pub(crate) use headers::MOST_BYTES as HEADER_BYTES;

use crate::{event::blob, guest::Guest, imports::VERSION, record::header_mask};

/// `types.header`
#[derive(Debug, Clone, ComponentType, Lift, Lower, Serialize, Deserialize)]
#[component(record)]
pub(crate) struct Header {
    #[component(name = "name")]
    pub(crate) name: String,
    #[component(name = "value")]
    pub(crate) value: String,
}

/// `http-client.request`
#[derive(Debug, Clone, ComponentType, Lift, Serialize)]
#[component(record)]
pub(crate) struct Request {
    #[component(name = "method")]
    pub(crate) method: String,
    #[component(name = "url")]
    pub(crate) url: String,
    #[component(name = "headers")]
    #[serde(serialize_with = "masked")]
    pub(crate) headers: Vec<Header>,
    #[component(name = "body")]
    #[serde(with = "blob")]
    pub(crate) body: Vec<u8>,
    #[component(name = "timeout-ms")]
    pub(crate) timeout_ms: u32,
}

/// `http-client.response`
#[derive(Debug, Clone, ComponentType, Lower, Serialize, Deserialize)]
#[component(record)]
pub(crate) struct Reply {
    #[component(name = "status")]
    status: u16,
    #[component(name = "headers")]
    headers: Vec<Header>,
    #[component(name = "body")]
    #[serde(with = "blob")]
    body: Vec<u8>,
}

/// The headers of a request in its recording.
fn masked<S: serde::Serializer>(headers: &[Header], to: S) -> Result<S::Ok, S::Error> {
    header_mask(headers).serialize(to)
}

impl Reply {
    fn new(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Self {
        let header = |(name, value)| Header { name, value };
        Self {
            status,
            headers: headers.into_iter().map(header).collect(),
            body,
        }
    }
}

/// `http-client.problem`
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower, Serialize, Deserialize)]
#[component(variant)]
pub(crate) enum Problem {
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "connect")]
    Connect(String),
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "protocol")]
    Protocol(String),
}

/// How a request ended, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    Denied,
    Timeout,
    Connect,
    TooLarge,
    Protocol,
}

impl Ended {
    pub(crate) const ALL: [Self; 6] = [
        Self::Answered,
        Self::Denied,
        Self::Timeout,
        Self::Connect,
        Self::TooLarge,
        Self::Protocol,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::TooLarge => "too-large",
            Self::Protocol => "protocol",
        }
    }

    fn of(answer: &Result<Reply, Problem>) -> Self {
        match answer {
            Ok(_) => Self::Answered,
            Err(Problem::Denied(_)) => Self::Denied,
            Err(Problem::Timeout) => Self::Timeout,
            Err(Problem::Connect(_)) => Self::Connect,
            Err(Problem::TooLarge) => Self::TooLarge,
            Err(Problem::Protocol(_)) => Self::Protocol,
        }
    }
}

type Cx<'a> = StoreContextMut<'a, Guest>;

/// Adds the interface to a linker for calls that may wait.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut client = linker.instance(&format!("levada:handler/http-client@{VERSION}"))?;
    client.func_wrap_async("send", |mut cx: Cx<'_>, (request,): (Request,)| {
        Box::new(async move {
            let guest = cx.data_mut();
            guest.host_call()?;
            if let Some(known) = guest.known("http-client.send", &(&request,))? {
                return Ok((known,));
            }
            let answer = send(guest, request).await;
            guest.answered(&answer);
            guest.shared.meters.requested(Ended::of(&answer));
            if let Err(Problem::Denied(why)) = &answer {
                guest.log(tracing::Level::WARN, &format!("request denied: {why}"));
            }
            Ok((answer,))
        })
    })
}

async fn send(guest: &mut Guest, request: Request) -> Result<Reply, Problem> {
    let allowed = guest.shared.limits.http_requests_of(guest.call.batch.len());
    guest.call.requests += 1;
    if guest.call.requests > allowed {
        let why = format!("the limit `http-requests` of {allowed} in one call was reached");
        return Err(Problem::Denied(why));
    }
    let shared = guest.shared.clone();
    let Some(client) = &shared.http else {
        let why = "not granted; this line grants it: grants = { http = [\"https://host:443\"] }";
        return Err(Problem::Denied(why.into()));
    };
    let within = within(guest.remaining(), request.timeout_ms);
    client.send(request, within).await
}

/// How long a request may take: never all that the call has left, so that a guest which waited in
/// vain can still say what is to become of its events.
fn within(remaining: Duration, asked_ms: u32) -> Duration {
    let most = remaining - remaining / 10;
    match asked_ms {
        0 => most,
        ms => most.min(Duration::from_millis(ms.into())),
    }
}
