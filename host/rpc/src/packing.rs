//! One zstd stream in each direction, below the frames (delivery contract D4.1). No I/O here.
//!
//! What a peer has packed is unpacked a buffer at a time, and the limits on frames and events are
//! on what comes out: a bomb gets no further than any other large message.

use std::{fmt, io};

use thiserror::Error;
use zstd::stream::raw::{
    CParameter, DParameter, Decoder, Encoder, InBuffer, Operation as _, OutBuffer,
};

/// Why a peer's stream is of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackingError {
    #[error(
        "the stream is damaged, or refers back farther than the {} KiB that were agreed",
        1 << (WINDOW - 10)
    )]
    Damaged(#[source] io::Error),
    #[error("bytes follow the end of the stream")]
    Ended,
}

/// How far back a stream may refer, as a power of two: what a connection holds in memory for it.
const WINDOW: u32 = 18;

/// Telemetry shrinks to a third already with this, at the speed of a fast disk.
const LEVEL: i32 = 1;

/// Bytes packed, or unpacked, at once.
const CHUNK: usize = 32 << 10;

/// Packs what one side says.
pub(crate) struct Packer(Encoder<'static>);

impl Packer {
    pub(crate) fn new() -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
        Ok(Self(encoder))
    }

    /// Appends `bytes` packed, all of them: whoever reads what is appended can unpack the last.
    pub(crate) fn pack(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            append(out, |room| self.0.run(&mut input, room))?;
        }
        while append(out, |room| self.0.flush(room))? > 0 {}
        Ok(())
    }
}

/// Gives a step room at the end, and keeps what it wrote.
fn append<T>(
    out: &mut Vec<u8>,
    step: impl FnOnce(&mut OutBuffer<'_, [u8]>) -> io::Result<T>,
) -> io::Result<T> {
    let at = out.len();
    out.resize(at + CHUNK, 0);
    let mut room = OutBuffer::around(&mut out[at..]);
    let done = step(&mut room);
    let written = room.pos();
    out.truncate(at + written);
    done
}

/// Unpacks what the other side says.
pub(crate) struct Unpacker {
    decoder: Decoder<'static>,
    input: Vec<u8>,
    from: usize,
    /// The last buffer was full: there may be more without further input.
    more: bool,
    /// The peer has ended its stream; nothing may follow.
    ended: bool,
}

impl Unpacker {
    /// Begins with bytes that were read already.
    pub(crate) fn new(input: Vec<u8>) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW))?;
        Ok(Self {
            decoder,
            input,
            from: 0,
            more: false,
            ended: false,
        })
    }

    /// Unpacks into `room`; how many bytes. None means that all input is used up: more goes where
    /// [`input`](Self::input) says.
    pub(crate) fn unpack(&mut self, room: &mut [u8]) -> Result<usize, PackingError> {
        while self.has_input() || (self.more && !self.ended) {
            if self.ended {
                return Err(PackingError::Ended);
            }
            let rest = &self.input[self.from..];
            let step = self.decoder.run_on_buffers(rest, room);
            let step = step.map_err(PackingError::Damaged)?;
            self.from += step.bytes_read;
            self.more = step.bytes_written == room.len();
            self.ended = step.remaining == 0;
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
        }
        Ok(0)
    }

    fn has_input(&self) -> bool {
        self.from < self.input.len()
    }

    /// Where further input is appended: an empty buffer with some room.
    pub(crate) fn input(&mut self) -> &mut Vec<u8> {
        self.from = 0;
        self.input.clear();
        self.input.reserve(CHUNK);
        &mut self.input
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
