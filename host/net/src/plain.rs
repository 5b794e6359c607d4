//! Streams that are what they are, and how to tell when a peer takes them for something else.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tracing::warn;

use crate::{HandshakeError, Stream, Throttle};

/// The first byte of a TLS record that carries a handshake.
pub(crate) const TLS: u8 = 0x16;

/// The first byte of a zlib stream as Flume and everybody else writes it: a window of 32 KiB.
pub(crate) const ZLIB: u8 = 0x78;

/// Whether these are the first bytes of a TLS handshake: a record of version 3, and in it a
/// `ClientHello`. No frame of Avro begins so (its bytes 4 to 7 are a number of buffers, and this
/// would be 65,536 at least), and no HTTP.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [TLS, 3, 0..=4, _, _, 1, ..])
}

/// Whether these are the first bytes of a TLS alert: what a server says to a plaintext client.
fn is_alert(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15, 3, 0..=4, 0, 2, ..])
}

/// Whether these are the first bytes of a zlib stream: the header's checksum fits (RFC 1950). No
/// frame of Avro of a usual peer begins so, because it would be its two-billionth message.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [ZLIB, flags, ..] if (u16::from(ZLIB) * 256 + u16::from(*flags)) % 31 == 0)
}

/// What a stream without TLS may still be.
#[derive(Debug)]
pub(crate) enum Expect {
    /// A peer that arrived and speaks as it is.
    Arrived(Complaints, SocketAddr),
    /// A peer that arrived and may deflate.
    ArrivedDeflating(Complaints, SocketAddr),
    /// A server.
    Server,
}

/// Where a listener says who was not let in.
#[derive(Debug, Clone)]
pub(crate) struct Complaints(Arc<(String, Throttle)>);

impl Complaints {
    pub(crate) fn new(part: &str, throttle: Throttle) -> Self {
        Self(Arc::new((part.to_owned(), throttle)))
    }

    pub(crate) fn say(&self, peer: SocketAddr, error: &HandshakeError) {
        let (part, throttle) = &*self.0;
        if let Some(unsaid) = throttle.pass() {
            warn!(part, %peer, reason = %error, unsaid, "connection refused in the handshake");
        }
    }
}

/// A stream that fails with the reason when its peer begins with something else than is spoken
/// here.
#[derive(Debug)]
pub(crate) struct Plain {
    inner: Box<dyn Stream>,
    /// `None` once the first bytes were looked at.
    expect: Option<Expect>,
}

impl Plain {
    pub(crate) fn new(inner: Box<dyn Stream>, expect: Expect) -> Self {
        Self {
            inner,
            expect: Some(expect),
        }
    }
}

impl Expect {
    fn judge(&self, first: &[u8]) -> Result<(), HandshakeError> {
        let what = match self {
            Self::Arrived(..) | Self::ArrivedDeflating(..) if is_tls(first) => {
                "the peer speaks TLS, and this listener has no `tls`"
            }
            Self::Arrived(..) if is_zlib(first) => DEFLATES,
            Self::Server if is_alert(first) => {
                "the server wants TLS on this port; set `tls` for this sink"
            }
            _ => return Ok(()),
        };
        let error = HandshakeError::new(what);
        if let Self::Arrived(complaints, peer) | Self::ArrivedDeflating(complaints, peer) = self {
            complaints.say(*peer, &error);
        }
        Err(error)
    }
}

/// What is said of a peer that deflates where nobody expects it.
pub(crate) const DEFLATES: &str = "the peer deflates, and this listener does not; set \
                                   `compression = \"deflate\"` here, or turn it off there";

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before
            && let Some(expect) = self.expect.take()
            && let Err(error) = expect.judge(&buf.filled()[before..])
        {
            buf.set_filled(before);
            return Poll::Ready(Err(error.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

/// A stream whose first byte was looked at and is read again.
#[derive(Debug)]
pub(crate) struct Peeked {
    first: Option<u8>,
    inner: Box<dyn Stream>,
}

impl Peeked {
    /// Waits for the first byte; `None` if the peer ends without one.
    pub(crate) async fn read(mut inner: Box<dyn Stream>) -> io::Result<Option<(u8, Self)>> {
        let mut byte = [0];
        if inner.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        let [first] = byte;
        let stream = Self {
            first: Some(first),
            inner,
        };
        Ok(Some((first, stream)))
    }
}

impl AsyncRead for Peeked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Peeked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
