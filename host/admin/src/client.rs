//! Asking a running agent, for the command line.

use std::{io, ops::ControlFlow, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    net::UnixStream,
    time::{self, error::Elapsed},
};

use crate::doors::SOCKET;

/// A stuck agent is to be found out, not waited for.
const WITHIN: Duration = Duration::from_secs(10);
/// An order may have handlers compiled, and waits until what it ends has ended.
const ORDER_WITHIN: Duration = Duration::from_secs(300);
/// A whole dead letter, as hex, and the largest list stay below this.
const LARGEST_ANSWER: usize = 64 << 20;

/// Why an agent did not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens: the agent does not run.
    #[error(
        "no agent runs on `{data}`: start it with `levada run`, or name another one with `--data` \
         or `--conf`"
    )]
    NotRunning { data: String },
    #[error("cannot reach the agent on `{data}`")]
    Unreachable {
        data: String,
        #[source]
        source: io::Error,
    },
    #[error("the agent on `{data}` does not answer")]
    Silent { data: String },
    #[error("the agent broke off its answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks the agent that runs on a data folder; the status code and the body.
///
/// # Errors
/// [`AskError`]; [`AskError::NotRunning`] if no agent runs there.
pub async fn ask(data: &Path, path_and_query: &str) -> Result<(u16, Bytes), AskError> {
    send(data, Method::GET, path_and_query, WITHIN).await
}

/// Has the agent that runs on a data folder do something; the status code and the body.
///
/// # Errors
/// [`AskError`]; [`AskError::NotRunning`] if no agent runs there.
pub async fn order(data: &Path, path_and_query: &str) -> Result<(u16, Bytes), AskError> {
    send(data, Method::POST, path_and_query, ORDER_WITHIN).await
}

/// Looks on: hands on each line of what the agent on a data folder has to tell on a path, until
/// it ends, `each` has seen enough, or nothing was heard for a while. The status code, with the body
/// if that is not 200.
///
/// # Errors
/// [`AskError`]; [`AskError::NotRunning`] if no agent runs there.
pub async fn watch(
    data: &Path,
    path_and_query: &str,
    each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(u16, Bytes), AskError> {
    let stream = connect(data).await?;
    let watched = exchange(stream, Method::GET, path_and_query, async |answer| {
        read_lines(answer, each).await
    });
    watched
        .await
        .map_err(|error| match error.downcast::<Elapsed>() {
            Ok(_) => AskError::Silent {
                data: data.display().to_string(),
            },
            Err(error) => AskError::Broken(error),
        })
}

async fn read_lines(
    answer: Response<Incoming>,
    mut each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(u16, Bytes), Failure> {
    let status = answer.status().as_u16();
    if status != 200 {
        return whole(answer).await;
    }
    let mut body = answer.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = time::timeout(WITHIN, body.frame()).await? {
        rest.extend_from_slice(&frame?.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            if !line.is_empty() && each(&line).is_break() {
                return Ok((status, Bytes::new()));
            }
        }
        if rest.len() > LARGEST_ANSWER {
            return Err("a line without an end".into());
        }
    }
    Ok((status, Bytes::new()))
}

async fn send(
    data: &Path,
    method: Method,
    path_and_query: &str,
    within: Duration,
) -> Result<(u16, Bytes), AskError> {
    let stream = connect(data).await?;
    match time::timeout(within, exchange(stream, method, path_and_query, whole)).await {
        Ok(answer) => answer.map_err(AskError::Broken),
        Err(_) => Err(AskError::Silent {
            data: data.display().to_string(),
        }),
    }
}

async fn connect(data: &Path) -> Result<UnixStream, AskError> {
    let shown = || data.display().to_string();
    UnixStream::connect(data.join(SOCKET))
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NotRunning { data: shown() }
            }
            _ => AskError::Unreachable {
                data: shown(),
                source,
            },
        })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn whole(answer: Response<Incoming>) -> Result<(u16, Bytes), Failure> {
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER);
    Ok((status, body.collect().await?.to_bytes()))
}

/// Sends a request and has its answer read.
async fn exchange<T>(
    stream: UnixStream,
    method: Method,
    path_and_query: &str,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(HOST, "levada")
        .body(Empty::<Bytes>::new())?;
    let exchange = async { read(sender.send_request(request).await?).await };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            // The whole answer may be there although the connection has ended.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
