//! Asking a running agent, for the command line.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::UnixStream, time};

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

async fn send(
    data: &Path,
    method: Method,
    path_and_query: &str,
    within: Duration,
) -> Result<(u16, Bytes), AskError> {
    let shown = || data.display().to_string();
    let stream = match UnixStream::connect(data.join(SOCKET)).await {
        Ok(stream) => stream,
        Err(error) => {
            let is_absent = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            );
            return Err(if is_absent {
                AskError::NotRunning { data: shown() }
            } else {
                AskError::Unreachable {
                    data: shown(),
                    source: error,
                }
            });
        }
    };
    match time::timeout(within, exchange(stream, method, path_and_query)).await {
        Ok(answer) => answer.map_err(AskError::Broken),
        Err(_) => Err(AskError::Silent { data: shown() }),
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path_and_query: &str,
) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(HOST, "levada")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
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
