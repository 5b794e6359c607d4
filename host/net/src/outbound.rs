//! What a connection that is made goes through before its first byte counts.

use std::{io, sync::Arc, time::Duration};

use levada_core::{Clock, OpenError};
use tokio::time::{self, Instant};

use crate::{
    Stream, Transport,
    deflate::Deflate,
    host_and_port,
    plain::{Expect, Plain},
    tls::{ClientTls, HandshakeError, TlsConnector},
};

/// TLS, Flume's deflate, both, or neither. Clones share their certificates.
#[derive(Debug, Clone, Default)]
pub struct Outbound {
    tls: Option<TlsConnector>,
    deflate: Option<Deflating>,
}

/// How to deflate towards a Flume, which must be set to expect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflating {
    /// From 0, which packs nothing, to 9.
    pub level: u32,
    /// Where zlib is when there is TLS.
    pub order: Order,
}

/// Which of two layers is outside, next to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As Flume 1.10 and later.
    DeflateOverTls,
    /// As Flume until 1.9.
    TlsOverDeflate,
}

/// How long a server has for its handshake (security model 4.6).
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Outbound {
    /// Plaintext, or TLS with these settings.
    ///
    /// # Errors
    /// A file that cannot be read, or does not fit the others; it is named.
    pub async fn open(tls: Option<&ClientTls>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let tls = match tls {
            Some(settings) => Some(TlsConnector::open(settings, clock).await?),
            None => None,
        };
        Ok(Self { tls, deflate: None })
    }

    /// Deflates both directions.
    #[must_use]
    pub fn deflating(mut self, deflate: Option<Deflating>) -> Self {
        self.deflate = deflate;
        self
    }

    /// Connects to `host:port` and does the handshake, all within `within`. Safe to cancel.
    ///
    /// # Errors
    /// Those of [`Transport::connect`], and a [`HandshakeError`] inside the error
    /// ([`HandshakeError::is_in`]) if the server is there and one side refuses the other.
    pub async fn connect(
        &self,
        transport: &dyn Transport,
        to: &str,
        within: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let deadline = Instant::now() + within;
        let stream = transport.connect(to, within).await?;
        let deadline = deadline.min(Instant::now() + HANDSHAKE);
        match time::timeout_at(deadline, self.enter(stream, to)).await {
            Ok(entered) => Ok(entered?),
            Err(_) => Err(HandshakeError::too_slow().into()),
        }
    }

    async fn enter(
        &self,
        stream: Box<dyn Stream>,
        to: &str,
    ) -> Result<Box<dyn Stream>, HandshakeError> {
        let deflate = |stream, order| match self.deflate {
            Some(deflating) if deflating.order == order => {
                Box::new(Deflate::new(stream, deflating.level))
            }
            _ => stream,
        };
        let Some(tls) = &self.tls else {
            let stream: Box<dyn Stream> = Box::new(Plain::new(stream, Expect::Server));
            return Ok(match self.deflate {
                Some(deflating) => Box::new(Deflate::new(stream, deflating.level)),
                None => stream,
            });
        };
        let host = host_and_port(to).map_or(to, |(host, _)| host);
        let outside = deflate(stream, Order::DeflateOverTls);
        let inside = tls.connect(host, outside).await?;
        Ok(deflate(inside, Order::TlsOverDeflate))
    }
}
