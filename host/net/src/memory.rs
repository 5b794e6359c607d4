//! A transport inside the process, for tests and simulations.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Mutex as AsyncMutex, mpsc},
    time,
};

use crate::{Listener, Stream, Transport, host_and_port};

/// Connects by port number alone; every peer is 127.0.0.1. Clones share their listeners.
#[derive(Debug, Clone)]
pub struct Memory {
    ports: Arc<Mutex<Ports>>,
    buffer: usize,
}

#[derive(Debug)]
struct Ports {
    listening: HashMap<u16, mpsc::Sender<Arrival>>,
    next: u16,
}

type Arrival = (DuplexStream, SocketAddr);

/// Connections that wait for `accept`.
const BACKLOG: usize = 128;

/// The first port that is handed out, as for ephemeral ports of a real machine.
const FIRST_PORT: u16 = 49152;

impl Memory {
    /// A world with nobody in it; each direction of a connection holds 64 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_buffer(64 << 10)
    }

    /// A world whose connections hold so many bytes in each direction.
    #[must_use]
    pub fn with_buffer(buffer: usize) -> Self {
        let ports = Ports {
            listening: HashMap::new(),
            next: FIRST_PORT,
        };
        Self {
            ports: Arc::new(Mutex::new(ports)),
            buffer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Ports {
    fn take(&mut self) -> u16 {
        let taken = self.next;
        self.next = self.next.checked_add(1).unwrap_or(FIRST_PORT);
        taken
    }
}

#[async_trait]
impl Transport for Memory {
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
        let (_, port) = host_and_port(to).ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = duplex(self.buffer);
        let (listener, from) = {
            let mut ports = self.lock();
            let listener = ports.listening.get(&port).cloned();
            (
                listener.ok_or(io::ErrorKind::ConnectionRefused)?,
                ports.take(),
            )
        };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, from));
        match time::timeout(within, listener.send((theirs, peer))).await {
            Ok(Ok(())) => Ok(Box::new(ours)),
            Ok(Err(_)) => Err(io::ErrorKind::ConnectionRefused.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let mut ports = self.lock();
        let port = if at.port() == 0 {
            ports.take()
        } else {
            at.port()
        };
        if ports
            .listening
            .get(&port)
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (tx, rx) = mpsc::channel(BACKLOG);
        ports.listening.insert(port, tx);
        let at = SocketAddr::new(at.ip(), port);
        Ok(Box::new(MemoryListener {
            at,
            arrivals: AsyncMutex::new(rx),
        }))
    }
}

#[derive(Debug)]
struct MemoryListener {
    at: SocketAddr,
    arrivals: AsyncMutex<mpsc::Receiver<Arrival>>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        match self.arrivals.lock().await.recv().await {
            Some((stream, peer)) => Ok((Box::new(stream), peer)),
            // The transport is gone, and with it everyone who could connect.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_connection_arrives_where_somebody_listens() {
        let memory = Memory::new();
        let listener = memory.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let mut ours = memory.connect(&to, SHORT).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(b"hi").await.unwrap();
        let mut word = [0; 2];
        theirs.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hi");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_in_use_and_too_slow_are_told_apart() {
        let memory = Memory::new();
        let refused = memory.connect("x:1", SHORT).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let at = "127.0.0.1:7".parse().unwrap();
        let listener = memory.bind(at).await.unwrap();
        assert_eq!(
            memory.bind(at).await.unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        for _ in 0..BACKLOG {
            memory.connect("x:7", SHORT).await.unwrap();
        }
        let late = memory.connect("x:7", SHORT).await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(listener);
        let gone = memory.connect("x:7", SHORT).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
        memory.bind(at).await.unwrap();
    }
}
