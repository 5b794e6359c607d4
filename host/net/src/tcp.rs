//! The machine's own transport.

use std::{io, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    time::{self, Instant},
};

use crate::{Listener, Stream, Transport};

/// TCP: small writes go out at once, and a peer that vanished without a word is found within 15 s.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

/// Silence before the first probe, time between probes, and how many may stay unanswered:
/// 5 s + 3 x 3 s = 14 s.
const PROBE_AFTER: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(3);
const PROBES: u32 = 3;

/// How long sent bytes may stay unacknowledged. Probes are not sent while bytes are under way, and
/// retransmission alone would go on for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// Connections that wait for `accept`; the system may hold fewer.
const BACKLOG: u32 = 1024;

#[async_trait]
impl Transport for Tcp {
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>> {
        let deadline = Instant::now() + within;
        let connect = connect_any(to, deadline);
        let stream = match time::timeout_at(deadline, connect).await {
            Ok(connected) => connected?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        prepare(&stream)?;
        Ok(Box::new(stream))
    }

    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = if at.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restarted agent binds although connections of its former life are still winding down.
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        Ok(Box::new(socket.listen(BACKLOG)?))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        prepare(&stream)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// Tries each address of a name, each with its share of the time that is left.
async fn connect_any(to: &str, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host(to).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let shares = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        last = match time::timeout(left / shares, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(last)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY);
    socket.set_tcp_keepalive(&probes.with_retries(PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_over_loopback() {
        let listener = Tcp.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let to = listener.local_addr().unwrap().to_string();
        let serve = async {
            let (mut stream, peer) = listener.accept().await.unwrap();
            assert!(peer.ip().is_loopback());
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            stream.write_all(&word).await.unwrap();
        };
        let call = async {
            let mut stream = Tcp.connect(&to, Duration::from_secs(10)).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"ping");
        };
        tokio::join!(serve, call);
    }

    #[tokio::test]
    async fn a_vanished_peer_is_found_within_fifteen_seconds() {
        let listener = Tcp.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        let (after, every) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        let found = after.unwrap() + every.unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert!(found <= Duration::from_secs(15), "{found:?}");
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let listener = Tcp.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let to = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Tcp.connect(&to, Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_as_such() {
        let listener = Tcp.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Tcp.bind(listener.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
