//! What a connection that arrives goes through before its first byte counts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use levada_core::{Clock, OpenError};
use tokio::time;

use crate::{
    Stream,
    deflate::{Deflate, USUAL},
    plain::{Complaints, DEFLATES, Expect, Peeked, Plain, TLS, ZLIB},
    tls::{HandshakeError, Identity, ListenerTls, TlsAcceptor},
};

/// TLS, Flume's deflate, both, or neither. Clones share their certificates.
#[derive(Debug, Clone, Default)]
pub struct Inbound {
    tls: Option<TlsAcceptor>,
    may_deflate: bool,
}

/// How long a peer has for its handshake (security model 4.6).
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Inbound {
    /// Plaintext, or TLS with these certificates.
    ///
    /// # Errors
    /// A file that cannot be read, or does not fit the others; it is named.
    pub async fn open(tls: Option<&ListenerTls>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let tls = match tls {
            Some(settings) => Some(TlsAcceptor::open(settings, clock).await?),
            None => None,
        };
        Ok(Self {
            tls,
            may_deflate: false,
        })
    }

    /// Peers may deflate as Flume does; the first byte tells. With TLS both orders are understood:
    /// zlib outside (Flume 1.10 and later) and zlib inside (until 1.9).
    #[must_use]
    pub fn deflating(mut self, may_deflate: bool) -> Self {
        self.may_deflate = may_deflate;
        self
    }

    /// Waits for the handshake, at most ten seconds; `None` if the peer left without a word.
    /// Without TLS there is nothing to wait for.
    pub(crate) async fn enter(
        &self,
        stream: Box<dyn Stream>,
        peer: SocketAddr,
        complaints: &Complaints,
    ) -> Result<Option<(Box<dyn Stream>, Identity)>, HandshakeError> {
        let complaints = complaints.clone();
        let Some(tls) = &self.tls else {
            let stream: Box<dyn Stream> = if self.may_deflate {
                let stream = Plain::new(stream, Expect::ArrivedDeflating(complaints, peer));
                Box::new(Deflate::detecting(Box::new(stream)))
            } else {
                Box::new(Plain::new(stream, Expect::Arrived(complaints, peer)))
            };
            return Ok(Some((stream, Identity::Unknown)));
        };
        match time::timeout(HANDSHAKE, self.secure(tls, stream)).await {
            Ok(entered) => entered,
            Err(_) => Err(HandshakeError::too_slow()),
        }
    }

    async fn secure(
        &self,
        tls: &TlsAcceptor,
        stream: Box<dyn Stream>,
    ) -> Result<Option<(Box<dyn Stream>, Identity)>, HandshakeError> {
        let Ok(Some((first, stream))) = Peeked::read(stream).await else {
            return Ok(None);
        };
        let stream: Box<dyn Stream> = Box::new(stream);
        match first {
            TLS => {
                let (stream, identity) = tls.accept(stream).await?;
                let stream = if self.may_deflate {
                    Box::new(Deflate::detecting(stream))
                } else {
                    stream
                };
                Ok(Some((stream, identity)))
            }
            ZLIB if self.may_deflate => {
                let stream = Deflate::new(stream, USUAL);
                tls.accept(Box::new(stream)).await.map(Some)
            }
            ZLIB => Err(HandshakeError::new(DEFLATES)),
            _ => Err(HandshakeError::new(
                "the peer speaks plaintext, and this listener wants TLS; set `tls` on the peer",
            )),
        }
    }
}

/// An error that only says that the connection is gone is not worth a line.
pub(crate) fn is_silent(error: &HandshakeError) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}
