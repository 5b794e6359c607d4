//! Frames over a stream, or over what zstd makes of it.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use levada_core::tasks::in_place;
use levada_net::{Stream, within};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split};

use crate::{
    frame::{Decoder, Frame, FrameError},
    packing::{Packer, PackingError, Unpacker},
};

/// Why no further frame can be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("cannot read")]
    Io(#[source] io::Error),
    #[error("not what was agreed below the frames")]
    Packing(#[source] PackingError),
    #[error("not a frame")]
    Frame(#[source] FrameError),
}

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    pub(crate) between_frames: Duration,
    pub(crate) inside_frame: Duration,
}

/// Both directions of a fresh stream.
pub(crate) fn directions(stream: Box<dyn Stream>, max_frame: usize) -> (Inbound, Outbound) {
    let (reading, writing) = split(stream);
    let inbound = Inbound {
        stream: reading,
        decoder: Decoder::new(max_frame),
        buffer: vec![0; SMALL],
        from: 0,
        to: 0,
        unpacker: None,
    };
    let outbound = Outbound {
        stream: writing,
        packer: None,
        message: Vec::new(),
        bytes: Vec::new(),
        sent: 0,
    };
    (inbound, outbound)
}

/// What comes in, and what was read of it and not looked at.
#[derive(Debug)]
pub(crate) struct Inbound {
    stream: ReadHalf<Box<dyn Stream>>,
    decoder: Decoder,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// With zstd.
    unpacker: Option<Unpacker>,
}

/// The read buffer begins small, for the many connections that hardly ever say something, and grows
/// once a peer fills it.
const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 10;

/// What one read gave.
enum Read {
    Bytes,
    Frame(Frame),
    End,
}

impl Inbound {
    /// What comes from now on is one stream of zstd.
    pub(crate) fn unpack(&mut self) -> io::Result<()> {
        let packed = self.buffer[self.from..self.to].to_vec();
        (self.from, self.to) = (0, 0);
        self.unpacker = Some(Unpacker::new(packed)?);
        Ok(())
    }

    /// The next message; `None` if the peer ended between two. Safe to cancel.
    pub(crate) async fn read(&mut self, silence: Silence) -> Result<Option<Frame>, ReadError> {
        loop {
            let mut input = &self.buffer[self.from..self.to];
            let decoded = self.decoder.decode(&mut input).map_err(ReadError::Frame)?;
            self.from = self.to - input.len();
            if decoded.is_some() {
                return Ok(decoded);
            }
            if self.unpack_some().map_err(ReadError::Packing)? {
                continue;
            }
            let between = self.decoder.is_between_frames();
            let most = if between {
                silence.between_frames
            } else {
                silence.inside_frame
            };
            let reading = self.read_some();
            let reading = within(most, "the peer was silent for too long", reading);
            match reading.await.map_err(ReadError::Io)? {
                Read::Bytes => {}
                Read::Frame(frame) => return Ok(Some(frame)),
                Read::End if between => return Ok(None),
                Read::End => return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Unpacks into the read buffer, which is empty at this point, what was read before; whether
    /// anything came of it.
    fn unpack_some(&mut self) -> Result<bool, PackingError> {
        let Some(unpacker) = &mut self.unpacker else {
            return Ok(false);
        };
        let count = unpacker.unpack(&mut self.buffer)?;
        self.hold(count);
        Ok(count > 0)
    }

    /// Reads once: large buffers of a frame straight to their place, everything else by way of the
    /// read buffer, which is empty at this point, or to where it is unpacked. Safe to cancel.
    async fn read_some(&mut self) -> io::Result<Read> {
        if let Some(unpacker) = &mut self.unpacker {
            let count = self.stream.read_buf(unpacker.input()).await?;
            return Ok(if count == 0 { Read::End } else { Read::Bytes });
        }
        if self.decoder.missing() >= self.buffer.len() {
            let count = self.stream.read_buf(&mut self.decoder.in_place()).await?;
            return Ok(match self.decoder.filled(count) {
                _ if count == 0 => Read::End,
                Some(frame) => Read::Frame(frame),
                None => Read::Bytes,
            });
        }
        let count = self.stream.read(&mut self.buffer).await?;
        self.hold(count);
        Ok(if count == 0 { Read::End } else { Read::Bytes })
    }

    /// So many bytes are in the read buffer now.
    fn hold(&mut self, count: usize) {
        (self.from, self.to) = (0, count);
        if count == self.buffer.len() {
            self.buffer.resize(LARGE, 0);
        }
    }

    /// Whether the peer has ended, or said something, although nothing was asked. Waits for
    /// nothing; of use only between calls.
    pub(crate) async fn is_disturbed(&mut self) -> bool {
        if self.from < self.to || !self.decoder.is_between_frames() {
            return true;
        }
        if self.unpack_some().unwrap_or(true) {
            return true;
        }
        let mut byte = [0];
        let stream = &mut self.stream;
        poll_fn(|cx| {
            let mut into = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut into).is_ready())
        })
        .await
    }
}

/// What goes out, and what of it is not written yet.
#[derive(Debug)]
pub(crate) struct Outbound {
    stream: WriteHalf<Box<dyn Stream>>,
    /// With zstd.
    packer: Option<Packer>,
    /// What is to be packed.
    message: Vec<u8>,
    bytes: Vec<u8>,
    sent: usize,
}

/// The send buffer is given back to the machine when a message was larger.
const KEPT: usize = 4 << 20;

impl Outbound {
    /// Where the next message is appended. It goes out with [`flush`](Self::flush).
    pub(crate) fn message(&mut self) -> &mut Vec<u8> {
        match self.packer {
            None => &mut self.bytes,
            Some(_) => &mut self.message,
        }
    }

    /// What is appended from now on goes out as one stream of zstd, flushed each time.
    pub(crate) fn pack(&mut self) -> io::Result<()> {
        self.packer = Some(Packer::new()?);
        Ok(())
    }

    /// Writes what was appended. Cancelled, it goes on where it was with the next call.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.pack_message()?;
        if self.bytes.is_empty() {
            return Ok(());
        }
        while self.sent < self.bytes.len() {
            let count = self.stream.write(&self.bytes[self.sent..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += count;
        }
        self.stream.flush().await?;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.sent = 0;
        Ok(())
    }
    fn pack_message(&mut self) -> io::Result<()> {
        let Some(packer) = self.packer.as_mut().filter(|_| !self.message.is_empty()) else {
            return Ok(());
        };
        let (message, bytes) = (&self.message, &mut self.bytes);
        if message.len() < LARGE {
            packer.pack(message, bytes)?;
        } else {
            in_place(|| packer.pack(message, bytes))?;
        }
        self.message.clear();
        self.message.shrink_to(KEPT);
        Ok(())
    }
}
