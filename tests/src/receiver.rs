//! A server over HTTP that takes what sinks send, and answers as it is told: byte by byte, so that
//! it can also answer what no server should.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use crate::loopback;

/// What the server does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It takes the body and says so.
    Takes,
    /// It takes the body, and its answer is cut off.
    TakesAndBreaks,
    /// It does not take the body and answers this, headers after the status line included.
    Refuses(&'static str),
    /// Its answer has no end.
    NeverEnds,
    /// It says one byte and nothing more.
    Stalls,
    /// It says one byte a second.
    Drips,
}

/// A piece of a body without end.
const ENDLESS: &[u8] = &[b'x'; 1 << 14];

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and the headers.
    pub head: String,
    pub body: String,
}

/// The server, as long as it is not dropped.
#[derive(Debug)]
pub struct Receiver {
    pub at: SocketAddr,
    shared: Arc<Shared>,
    _tasks: TaskSet,
}

#[derive(Debug)]
struct Shared {
    /// Bodies that it cannot take, ever.
    refuses: fn(&str) -> bool,
    script: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<Request>>,
    /// What it took: bodies by their idempotency keys.
    taken: Mutex<HashMap<String, Vec<String>>>,
}

impl Receiver {
    /// Starts a server on loopback that does one thing after the other and then takes everything,
    /// except bodies that begin with `refuse`: those it cannot take, ever.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn start(script: impl IntoIterator<Item = Answer>) -> Result<Self> {
        Self::refusing(|body| body.starts_with("refuse"), script).await
    }

    /// The same with other bodies that it cannot take.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn refusing(
        refuses: fn(&str) -> bool,
        script: impl IntoIterator<Item = Answer>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            refuses,
            script: Mutex::new(script.into_iter().collect()),
            requests: Mutex::default(),
            taken: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let (at, tasks) = loopback::listen("receiver", move |stream| {
            serve(stream, Arc::clone(&serving))
        })
        .await?;
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

    /// Every request until now.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// What was taken, by idempotency key; what came again under the same key is one of several.
    #[must_use]
    pub fn taken(&self) -> HashMap<String, Vec<String>> {
        lock(&self.shared.taken).clone()
    }
}

impl Request {
    /// The value of a header, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(own, _)| own == name);
        let line = self.head.lines().find(|text| line(text))?;
        line.split_once(": ").map(|(_, value)| value)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    loop {
        let request = request_in(&mut stream).await?;
        lock(&shared.requests).push(request.clone());
        let next = lock(&shared.script).pop_front();
        let answer = match next.unwrap_or(Answer::Takes) {
            Answer::Takes | Answer::TakesAndBreaks if (shared.refuses)(&request.body) => {
                Answer::Refuses("422 Unprocessable Content\r\ncontent-length: 3\r\n\r\nwhy")
            }
            answer => answer,
        };
        if matches!(answer, Answer::Takes | Answer::TakesAndBreaks) {
            let key = request.header("idempotency-key").unwrap_or_default();
            let mut taken = lock(&shared.taken);
            taken.entry(key.to_owned()).or_default().push(request.body);
        }
        let says = match answer {
            Answer::Takes => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Answer::TakesAndBreaks => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                    .await?;
                return Ok(());
            }
            Answer::Refuses(rest) => {
                stream.write_all(b"HTTP/1.1 ").await?;
                rest
            }
            Answer::NeverEnds => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(ENDLESS).await?;
                }
            }
            Answer::Drips => {
                for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" {
                    stream.write_all(&[*byte]).await?;
                    time::sleep(Duration::from_secs(1)).await;
                }
                return Ok(());
            }
            Answer::Stalls => {
                stream.write_all(b"H").await?;
                // Until the client goes away.
                let _gone = stream.read(&mut [0]).await?;
                return Ok(());
            }
        };
        stream.write_all(says.as_bytes()).await?;
    }
}

/// The next request of a connection.
pub(crate) async fn request_in(stream: &mut TcpStream) -> Result<Request> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 14];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(Ok(0), str::parse)?;
            if body.len() >= length {
                let (head, body) = (head.to_owned(), body.to_owned());
                return Ok(Request { head, body });
            }
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(anyhow::anyhow!("the client went away")).context("half a request");
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}
