//! The seam of the product's transports, on the simulated network.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use levada_net::{Listener, Stream, Transport, host_and_port};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Mutex as AsyncMutex, mpsc},
    time::{self, Sleep},
};

use super::net::{Host, May, Reachable, SimNet};

pub(super) type Arrival = (SimStream, SocketAddr);

/// Connections that wait for `accept`.
const BACKLOG: usize = 128;

/// The address of a host.
pub(super) fn address(host: Host, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), port))
}

/// The network as one host has it.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    pub(super) net: SimNet,
    pub(super) host: Host,
}

#[async_trait]
impl Transport for Socket {
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
        let (host, port) = host_and_port(to).ok_or(io::ErrorKind::InvalidInput)?;
        let last = host.rsplit('.').next().and_then(|last| last.parse().ok());
        let to = last.ok_or(io::ErrorKind::NotFound)?;
        match time::timeout(within, self.reach(to, port)).await {
            Ok(reached) => Ok(Box::new(reached?)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let mut net = self.net.lock();
        let place = (self.host, at.port());
        if net
            .listening
            .get(&place)
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (tx, rx) = mpsc::channel(BACKLOG);
        net.listening.insert(place, tx);
        drop(net);
        self.net.changed.notify_waiters();
        Ok(Box::new(SimListener {
            at: address(self.host, at.port()),
            arrivals: AsyncMutex::new(rx),
        }))
    }
}

impl Socket {
    /// Tries until somebody answers.
    async fn reach(&self, to: Host, port: u16) -> io::Result<SimStream> {
        loop {
            let changed = self.net.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let there_and_back = {
                let net = self.net.lock();
                net.delay(self.host, to) + net.delay(to, self.host)
            };
            time::sleep(there_and_back).await;
            if let Some(answer) = self.try_to(to, port) {
                return answer;
            }
            changed.await;
        }
    }

    /// `None` if nobody answers.
    fn try_to(&self, to: Host, port: u16) -> Option<io::Result<SimStream>> {
        let mut net = self.net.lock();
        let state = net.answers(self.host, to)?;
        let listener = net.listening.get(&(to, port)).cloned();
        let listener =
            listener.filter(|listener| state == Reachable::Up && listener.capacity() > 0);
        let Some(listener) = listener else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let id = net.connect(self.host, to);
        drop(net);
        let end = |end| SimStream {
            net: self.net.clone(),
            id,
            end,
            timer: None,
        };
        let port = 40_000 + u16::try_from(id % 20_000).unwrap_or_default();
        let arrival = (end(1), address(self.host, port));
        let ours = end(0);
        Some(match listener.try_send(arrival) {
            Ok(()) => Ok(ours),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

#[derive(Debug)]
struct SimListener {
    at: SocketAddr,
    arrivals: AsyncMutex<mpsc::Receiver<Arrival>>,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self.arrivals.lock().await.recv().await {
            Some((stream, peer)) => Ok((Box::new(stream), peer)),
            // The host is gone, and this task with it in a moment.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct SimStream {
    net: SimNet,
    id: u64,
    end: usize,
    /// Until the next bytes arrive.
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &mut *self;
        loop {
            let mut net = stream.net.lock();
            match net.may_read(stream.id, stream.end)? {
                May::End => return Poll::Ready(Ok(())),
                May::Pass(most) => {
                    let most = most.min(into.remaining());
                    let bytes = net.take(stream.id, stream.end, most);
                    into.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                May::Wait(until) => {
                    let way = &mut net.connection(stream.id).ways[1 - stream.end];
                    way.reader = Some(cx.waker().clone());
                    drop(net);
                    let Some(until) = until else {
                        return Poll::Pending;
                    };
                    let timer = stream.timer.insert(Box::pin(time::sleep_until(until)));
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut net = self.net.lock();
        match net.may_write(self.id, self.end)? {
            May::Pass(room) => {
                let count = room.min(bytes.len());
                if count > 0 {
                    net.send(self.id, self.end, Bytes::copy_from_slice(&bytes[..count]));
                }
                Poll::Ready(Ok(count))
            }
            May::Wait(_) | May::End => {
                let way = &mut net.connection(self.id).ways[self.end];
                way.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.lock().send(self.id, self.end, Bytes::new());
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.lock().close(self.id, self.end);
    }
}
