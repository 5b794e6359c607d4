//! A plain HTTP/1.1 client.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use levada_core::TaskSet;
use tokio::{net::TcpStream, time};

/// How long an answer may take: longer than every time limit of an agent.
const ANSWER: Duration = Duration::from_secs(40);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// One connection, kept open from request to request.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
    _tasks: TaskSet,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| format!("cannot reach {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut tasks = TaskSet::new();
        tasks.spawn("http connection", async move {
            // Its error reaches the request that waits.
            connection.await.ok();
        });
        Ok(Self {
            sender,
            host: to.to_string(),
            _tasks: tasks,
        })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// The connection ended, or the answer took too long.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        time::timeout(ANSWER, self.exchange(request))
            .await
            .context("no answer in time")?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let text = |value: &hyper::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let (head, body) = response.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)));
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: body.collect().await?.to_bytes(),
        })
    }
}

/// Gets one page over a connection of its own.
///
/// # Errors
/// Nobody answers.
pub async fn get(from: SocketAddr, path: &str) -> Result<Answer> {
    Connection::open(from)
        .await?
        .send("GET", path, &[], Bytes::new())
        .await
}
