//! A network inside the process that records what is said and resets where it is told to.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use levada_net::{Listener, Memory, Stream, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// As the connecting side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    There,
    Back,
}

/// Connections over memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    memory: Memory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The next connection is reset behind so many bytes.
    cut: Option<(Direction, usize)>,
    there: usize,
    back: usize,
    /// What was said on each connection.
    said: Vec<Vec<u8>>,
}

impl Wire {
    /// Has the next connection reset behind so many bytes of a direction.
    pub(crate) fn cut(&self, direction: Direction, offset: usize) {
        self.lock().cut = Some((direction, offset));
    }

    /// Bytes that came through so far.
    pub(crate) fn passed(&self, direction: Direction) -> usize {
        match direction {
            Direction::There => self.lock().there,
            Direction::Back => self.lock().back,
        }
    }

    /// What the connecting sides said, by connection.
    pub(crate) fn said(&self) -> Vec<Vec<u8>> {
        self.lock().said.clone()
    }

    /// Says it all again, and takes whatever is answered.
    pub(crate) async fn replay(&self, said: &[Vec<u8>]) -> io::Result<()> {
        for bytes in said {
            let stream = self
                .memory
                .connect(super::at(), Duration::from_secs(5))
                .await?;
            let (mut reading, mut writing) = tokio::io::split(stream);
            let mut answers = Vec::new();
            let telling = async {
                writing.write_all(bytes).await?;
                writing.shutdown().await
            };
            let (told, heard) = tokio::join!(telling, reading.read_to_end(&mut answers));
            told?;
            heard?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Wire {
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
        let inner = self.memory.connect(to, within).await?;
        let mut state = self.lock();
        let cut = state.cut.take();
        let left = |direction| {
            cut.filter(|(which, _)| *which == direction)
                .map(|(_, left)| left)
        };
        let connection = state.said.len();
        state.said.push(Vec::new());
        drop(state);
        Ok(Box::new(Watched {
            inner: Some(inner),
            wire: self.clone(),
            connection,
            there: left(Direction::There),
            back: left(Direction::Back),
        }))
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.memory.bind(at).await
    }
}

/// The connecting side of a connection.
#[derive(Debug)]
struct Watched {
    /// `None` once it was reset.
    inner: Option<Box<dyn Stream>>,
    wire: Wire,
    connection: usize,
    /// Bytes that may still pass before the reset.
    there: Option<usize>,
    back: Option<usize>,
}

impl Watched {
    fn reset<T>(&mut self) -> Poll<io::Result<T>> {
        self.inner = None;
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.back.unwrap_or(usize::MAX).min(into.remaining());
        let Some(inner) = self.inner.as_mut().filter(|_| most > 0) else {
            return self.reset();
        };
        let mut bytes = vec![0; most];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        into.put_slice(part.filled());
        self.wire.lock().back += count;
        self.back = self.back.map(|left| left - count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.there.unwrap_or(usize::MAX).min(bytes.len());
        let Some(inner) = self.inner.as_mut().filter(|_| most > 0) else {
            return self.reset();
        };
        let count = ready!(Pin::new(inner).poll_write(cx, &bytes[..most]))?;
        let connection = self.connection;
        let mut state = self.wire.lock();
        state.there += count;
        state.said[connection].extend_from_slice(&bytes[..count]);
        drop(state);
        self.there = self.there.map(|left| left - count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_flush(cx),
            None => self.reset(),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_shutdown(cx),
            None => self.reset(),
        }
    }
}
