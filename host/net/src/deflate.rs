//! Flume's `deflate`: one zlib stream in each direction, flushed whenever something must arrive.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HandshakeError, Stream, plain::ZLIB};

/// A stream that inflates what it reads and deflates what it writes.
///
/// What a peer has packed is unpacked into the reader's buffer and nowhere else, so whatever limit
/// the reader has on its frames is the limit of a bomb. A connection that has spoken holds about
/// 350 KiB for the two dictionaries.
pub(crate) struct Deflate {
    inner: Box<dyn Stream>,
    reading: Reading,
    /// What was read and not unpacked.
    input: Vec<u8>,
    input_from: usize,
    /// Whether unpacked bytes may wait because the last buffer was full.
    more: bool,
    level: Compression,
    packer: Option<Box<Compress>>,
    /// What was packed and not written.
    output: Vec<u8>,
    output_from: usize,
    /// Whether the packer holds something back.
    held: bool,
}

enum Reading {
    /// The first byte decides.
    Unknown,
    /// The peer does not deflate after all; we do not either.
    Plain,
    Zlib(Box<Decompress>),
    Ended,
}

/// Bytes read, or packed, at once: small enough not to hold up a worker.
const CHUNK: usize = 16 << 10;

/// The level of Flume's servers.
pub(crate) const USUAL: u32 = 6;

impl Deflate {
    /// Both directions are deflated, from the first byte.
    pub(crate) fn new(inner: Box<dyn Stream>, level: u32) -> Self {
        let reading = Reading::Zlib(Box::new(Decompress::new(true)));
        Self::with(inner, reading, level)
    }

    /// For the side that is spoken to first: a peer that does not deflate is served as it is.
    pub(crate) fn detecting(inner: Box<dyn Stream>) -> Self {
        Self::with(inner, Reading::Unknown, USUAL)
    }

    fn with(inner: Box<dyn Stream>, reading: Reading, level: u32) -> Self {
        Self {
            inner,
            reading,
            input: Vec::new(),
            input_from: 0,
            more: false,
            level: Compression::new(level.min(9)),
            packer: None,
            output: Vec::new(),
            output_from: 0,
            held: false,
        }
    }

    /// Unpacks into `buf`; whether anything came of it.
    fn unpack(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let Reading::Zlib(unpacker) = &mut self.reading else {
            return Ok(false);
        };
        let (read, written) = (unpacker.total_in(), unpacker.total_out());
        let room = buf.initialize_unfilled();
        let input = &self.input[self.input_from..];
        let status = unpacker.decompress(input, room, FlushDecompress::Sync);
        let status = status.map_err(|_| broken())?;
        let read = count(unpacker.total_in() - read);
        let written = count(unpacker.total_out() - written);
        self.more = written == room.len();
        self.input_from += read;
        buf.advance(written);
        if status == Status::StreamEnd {
            self.reading = Reading::Ended;
        } else if read == 0 && written == 0 && self.input_from < self.input.len() {
            return Err(broken());
        }
        Ok(written > 0)
    }

    /// Reads from below; whether there was anything.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.resize(CHUNK, 0);
        self.input_from = 0;
        let mut buf = ReadBuf::new(&mut self.input);
        let polled = Pin::new(&mut *self.inner).poll_read(cx, &mut buf);
        let filled = buf.filled().len();
        self.input
            .truncate(if polled.is_ready() { filled } else { 0 });
        polled.map_ok(|()| filled > 0)
    }

    fn pack(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<(usize, Status)> {
        let level = self.level;
        let packer = self
            .packer
            .get_or_insert_with(|| Box::new(Compress::new(level, true)));
        self.output.reserve(bytes.len() + 512);
        let before = packer.total_in();
        let status = packer
            .compress_vec(bytes, &mut self.output, flush)
            .map_err(io::Error::other)?;
        Ok((count(packer.total_in() - before), status))
    }

    /// Packs what is held back, as zlib's sync flush does.
    fn pack_rest(&mut self) -> io::Result<()> {
        self.pack(&[], FlushCompress::Sync)?;
        loop {
            // The packer does not say when it is done; it is when nothing more comes.
            let before = self.output.len();
            self.pack(&[], FlushCompress::None)?;
            if self.output.len() == before {
                return Ok(());
            }
        }
    }

    /// Packs what is held back, and the trailer.
    fn pack_end(&mut self) -> io::Result<()> {
        while self.pack(&[], FlushCompress::Finish)?.1 != Status::StreamEnd {}
        Ok(())
    }

    /// Writes what is packed.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_from < self.output.len() {
            let rest = &self.output[self.output_from..];
            let written = ready!(Pin::new(&mut *self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output_from += written;
        }
        self.output.clear();
        self.output_from = 0;
        Poll::Ready(Ok(()))
    }

    fn is_plain(&self) -> bool {
        matches!(self.reading, Reading::Plain)
    }
}

impl AsyncRead for Deflate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let has_input = this.input_from < this.input.len();
            match &this.reading {
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Unknown if has_input => {
                    this.reading = match this.input[this.input_from] {
                        ZLIB => Reading::Zlib(Box::new(Decompress::new(true))),
                        _ => Reading::Plain,
                    };
                    continue;
                }
                Reading::Plain if has_input => {
                    let some = (this.input.len() - this.input_from).min(buf.remaining());
                    buf.put_slice(&this.input[this.input_from..this.input_from + some]);
                    this.input_from += some;
                    return Poll::Ready(Ok(()));
                }
                Reading::Plain => return Pin::new(&mut *this.inner).poll_read(cx, buf),
                Reading::Zlib(_) if has_input || this.more => {
                    if this.unpack(buf)? {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                Reading::Unknown | Reading::Zlib(_) => {}
            }
            // A peer that is killed ends without the trailer; what counts is the frame inside.
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Deflate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_plain() {
            return Pin::new(&mut *self.inner).poll_write(cx, bytes);
        }
        ready!(self.poll_drain(cx))?;
        let some = &bytes[..bytes.len().min(CHUNK)];
        let mut packed = 0;
        while packed < some.len() {
            packed += self.pack(&some[packed..], FlushCompress::None)?.0;
        }
        self.held |= packed > 0;
        Poll::Ready(Ok(packed))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held {
            self.pack_rest()?;
            self.held = false;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.packer.is_some() {
            self.pack_end()?;
            self.packer = None;
            self.held = false;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

fn count(bytes: u64) -> usize {
    usize::try_from(bytes).expect("not more than a buffer in memory")
}

fn broken() -> io::Error {
    let what = "what the peer sends is not deflated; is `compression` the same on both sides?";
    HandshakeError::new(what).into()
}

#[cfg(test)]
mod tests;
