//! A stream of MQTT packets in which no PUBLISH is larger than allowed.
//!
//! A broker sends again what is not acknowledged, so a message that is too large to be read would
//! come back on every connection. Here its beginning passes, with the length in its fixed header
//! made true, and the rest is thrown away as it comes. The reader learns which messages were cut by
//! counting PUBLISH packets, as this stream does.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use levada_net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The packet type of PUBLISH (MQTT 5, 2.1.2), in the upper half of the first byte.
const PUBLISH: u8 = 3;

/// What is kept of a message that is too large: its topic and the beginning of its payload.
pub(crate) const KEPT: usize = 128 << 10;

/// [`KEPT`] as a length in a fixed header.
const KEPT_LENGTH: [u8; 3] = [0x80, 0x80, 0x08];

/// Which messages were cut: their place among all, counted from 0, and the length of the packet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts(Arc<Mutex<VecDeque<(u64, usize)>>>);

impl Cuts {
    /// The length of the `n`-th message's packet if it was cut. To be asked in order.
    pub(crate) fn take(&self, n: u64) -> Option<usize> {
        let mut cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match cuts.front() {
            Some((at, _)) if *at == n => cuts.pop_front().map(|(_, length)| length),
            _ => None,
        }
    }

    fn push(&self, n: u64, length: usize) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((n, length));
    }
}

/// The stream. It is in a mutex that is never locked because rumqttc asks for `Sync`.
#[derive(Debug)]
pub(crate) struct Shrink {
    inner: Mutex<Box<dyn Stream>>,
    /// Most bytes behind the fixed header of a PUBLISH.
    most: usize,
    cuts: Cuts,
    messages: u64,
    state: State,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
}

#[derive(Debug)]
enum State {
    /// In a fixed header, of which these bytes have come.
    Header(Vec<u8>),
    /// A fixed header that the reader has not seen yet, then bytes to pass and bytes to drop.
    Ready {
        header: Vec<u8>,
        pass: usize,
        drop: usize,
    },
}

impl Shrink {
    pub(crate) fn new(inner: Box<dyn Stream>, most: usize, cuts: Cuts) -> Self {
        Self {
            inner: Mutex::new(inner),
            most: most.max(KEPT),
            cuts,
            messages: 0,
            state: State::Header(Vec::new()),
            input: Vec::new(),
            used: 0,
        }
    }

    fn inner(&mut self) -> Pin<&mut dyn Stream> {
        Pin::new(&mut **self.inner.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves what it can from `input` to `out`; whether anything came out.
    fn pump(&mut self, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        let before = out.remaining();
        while out.remaining() > 0 {
            let waiting = self.input.get(self.used..).unwrap_or_default();
            match &mut self.state {
                State::Header(header) => {
                    let Some(byte) = waiting.first() else { break };
                    header.push(*byte);
                    self.used += 1;
                    let header = std::mem::take(header);
                    self.state = self.header(header)?;
                }
                State::Ready { header, pass, drop } => {
                    let from = if header.is_empty() {
                        waiting
                    } else {
                        header.as_slice()
                    };
                    let wanted = if header.is_empty() { *pass } else { from.len() };
                    let n = wanted.min(from.len()).min(out.remaining());
                    out.put_slice(&from[..n]);
                    if !header.is_empty() {
                        header.drain(..n);
                        continue;
                    }
                    *pass -= n;
                    self.used += n;
                    let dropped = if *pass == 0 {
                        (*drop).min(waiting.len() - n)
                    } else {
                        0
                    };
                    *drop -= dropped;
                    self.used += dropped;
                    if *pass == 0 && *drop == 0 {
                        self.state = State::Header(Vec::new());
                    } else if n == 0 && dropped == 0 {
                        break;
                    }
                }
            }
        }
        Ok(out.remaining() < before)
    }

    /// The state after one more byte of a fixed header: its type, then a length of at most four
    /// bytes of seven bits, lowest first (MQTT 5, 1.5.5).
    fn header(&mut self, header: Vec<u8>) -> io::Result<State> {
        let Some((first, length)) = header.split_first() else {
            return Ok(State::Header(header));
        };
        match length.last() {
            Some(last) if last & 0x80 == 0 => {}
            _ if length.len() < 4 => return Ok(State::Header(header)),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a length of five bytes",
                ));
            }
        }
        let parts = length.iter().enumerate();
        let length = parts.fold(0, |sum, (n, byte)| {
            sum | (usize::from(byte & 0x7f) << (7 * n))
        });
        if first >> 4 != PUBLISH {
            return Ok(State::Ready {
                header,
                pass: length,
                drop: 0,
            });
        }
        let n = self.messages;
        self.messages += 1;
        if length <= self.most {
            return Ok(State::Ready {
                header,
                pass: length,
                drop: 0,
            });
        }
        self.cuts.push(n, length);
        let mut header = vec![*first];
        header.extend_from_slice(&KEPT_LENGTH);
        Ok(State::Ready {
            header,
            pass: KEPT,
            drop: length - KEPT,
        })
    }
}

impl AsyncRead for Shrink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if out.remaining() == 0 || self.pump(out)? {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; 16 << 10];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(self.inner().poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            // `pump` gave nothing though there was room, so it has used up everything.
            self.input.clear();
            self.used = 0;
            self.input.extend_from_slice(read.filled());
        }
    }
}

impl AsyncWrite for Shrink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
