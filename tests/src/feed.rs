//! A server over HTTP with numbered events, which gives a page of those that come after a cursor:
//! what a source polls. The same cursor gives the same events, and the server keeps who asked what.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use levada_core::TaskSet;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{loopback, receiver::request_in};

/// The server, as long as it is not dropped.
#[derive(Debug)]
pub struct Feed {
    pub at: SocketAddr,
    shared: Arc<Shared>,
    _tasks: TaskSet,
}

#[derive(Debug)]
struct Shared {
    page: u64,
    requests: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The numbers below this are there.
    end: u64,
    /// From where each request wanted to go on.
    asked: Vec<u64>,
}

/// Of so many requests one is answered with an error, and one with half an answer.
const ODD: u64 = 23;

impl Feed {
    /// Starts a server on loopback with the numbers from 0 on, so many of them a page. Now and then
    /// it is not well.
    ///
    /// # Errors
    /// No socket can be bound.
    pub async fn start(page: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            page,
            requests: AtomicU64::new(0),
            state: Mutex::new(State {
                end: u64::MAX,
                asked: Vec::new(),
            }),
        });
        let serving = Arc::clone(&shared);
        let (at, tasks) =
            loopback::listen("feed", move |stream| serve(stream, Arc::clone(&serving))).await?;
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

    /// From now on there are the numbers below `least` and all that were given already, and no
    /// others; gives their number.
    #[must_use]
    pub fn end(&self, least: u64) -> u64 {
        let mut state = self.shared.lock();
        let asked = state.asked.last().copied().unwrap_or(0);
        state.end = least.max(asked + self.shared.page);
        state.end
    }

    /// The cursors of all requests, in the order in which they came.
    #[must_use]
    pub fn asked(&self) -> Vec<u64> {
        self.shared.lock().asked.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the answer to a request from here ends.
    fn end_of(&self, from: u64) -> u64 {
        let mut state = self.lock();
        state.asked.push(from);
        state.end.min(from.saturating_add(self.page)).max(from)
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    loop {
        let request = request_in(&mut stream).await?;
        let line = request.head.lines().next().unwrap_or_default();
        let path = line.split(' ').nth(1).context("a request has a path")?;
        let from = match path.split_once("?after=") {
            Some((_, number)) => number.parse()?,
            None => 0,
        };
        let next = shared.end_of(from);
        let lines: Vec<_> = (from..next).map(|number| format!("{number}\n")).collect();
        let body = lines.concat();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nx-next: {next}\r\ncontent-length: {length}\r\n\r\n{body}");
        match shared.requests.fetch_add(1, Ordering::SeqCst) % ODD {
            7 => {
                let busy = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(busy).await?;
            }
            15 if length > 0 => {
                let half = &answer.as_bytes()[..answer.len() - length / 2];
                stream.write_all(half).await?;
                return Ok(());
            }
            _ => stream.write_all(answer.as_bytes()).await?,
        }
    }
}
