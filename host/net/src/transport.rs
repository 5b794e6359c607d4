//! The seam between what speaks and what carries.

use std::{fmt, io, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection: bytes both ways, in order, until one side ends it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug> Stream for T {}

/// Opens connections and waits for them.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Connects to `host:port`; names are looked up anew each time. Safe to cancel.
    ///
    /// # Errors
    /// What the last address tried gave; `TimedOut` after `within`, look-up included.
    async fn connect(&self, to: &str, within: Duration) -> io::Result<Box<dyn Stream>>;

    /// Begins to listen. Port 0 takes a free one.
    ///
    /// # Errors
    /// `AddrInUse` and whatever else the system says.
    async fn bind(&self, at: SocketAddr) -> io::Result<Box<dyn Listener>>;
}

/// Waits for connections. Dropped, it refuses what comes later.
#[async_trait]
pub trait Listener: Send + Sync + fmt::Debug {
    /// The next connection and who it is from. Safe to cancel.
    ///
    /// # Errors
    /// The connection that failed, or a lack of the machine's means; the listener stays usable.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;

    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    /// Whatever the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Reads `host:port` with a port from 1 on; `None` if it is not that. A host may be a name, an IPv4
/// address or an IPv6 address in brackets.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']),
    };
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_told_apart() {
        let check = |text, expected| assert_eq!(host_and_port(text), expected, "{text}");
        check("agg1.example:4141", Some(("agg1.example", 4141)));
        check("10.0.0.1:1", Some(("10.0.0.1", 1)));
        check("[::1]:4141", Some(("[::1]", 4141)));
        for wrong in [
            "",
            "agg1",
            ":4141",
            "agg1:",
            "agg1:0",
            "agg1:70000",
            "::1:4141",
            "[x]:1",
        ] {
            check(wrong, None);
        }
        check("avro://agg1:4141", None);
    }
}
