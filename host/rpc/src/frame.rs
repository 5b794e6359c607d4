//! The frame around each message: serial, number of buffers, and each buffer with its length.
//!
//! All numbers are 32-bit big endian. The message is what the buffers hold together; where they are
//! cut means nothing. This is the framing of Avro's Netty codec.

use bytes::{BufMut, Bytes, BytesMut, buf::Limit};
use thiserror::Error;

/// One message and the number that ties a reply to its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub serial: i32,
    pub message: Bytes,
}

/// Bytes that are no frame, or a larger one than is allowed. The rest of the stream is useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a frame of {count} buffers; allowed are 1 to {MAX_BUFFERS}")]
    Buffers { count: i32 },
    #[error("a buffer of negative length {length}")]
    Negative { length: i32 },
    #[error("a frame of {bytes} bytes or more, above the {allowed} of `max-frame`")]
    TooLarge { bytes: usize, allowed: usize },
}

/// Most buffers of a frame. Java cuts every 8 KiB and around every large value, so a frame of
/// 16 MiB has about 4,000; empty buffers cost the peer four bytes each and us nothing but time.
pub const MAX_BUFFERS: i32 = 1 << 16;

/// Memory that a frame gets before its bytes are there: a usual batch fits. It is reserved and not
/// touched, so a claim alone takes addresses and hardly any memory.
const FIRST: usize = 512 << 10;

/// Puts frames together from bytes as they come.
#[derive(Debug)]
pub struct Decoder {
    max_frame: usize,
    state: State,
    /// The big-endian words that are being read.
    word: [u8; 8],
    have: usize,
    serial: i32,
    /// Buffers of this frame that are not complete, the current one included.
    buffers: i32,
    /// Bytes of the current buffer that are missing.
    missing: usize,
    message: BytesMut,
    /// The largest message that really came: what a claim of this peer is worth.
    proven: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length,
    Body,
}

impl Decoder {
    /// Decodes messages of up to `max_frame` bytes.
    #[must_use]
    pub fn new(max_frame: usize) -> Self {
        Self {
            max_frame,
            state: State::Head,
            word: [0; 8],
            have: 0,
            serial: 0,
            buffers: 0,
            missing: 0,
            message: BytesMut::new(),
            proven: 0,
        }
    }

    /// Takes bytes from the front of `input` until a message is complete or nothing is left.
    ///
    /// # Errors
    /// [`FrameError`]; the decoder is of no use afterwards.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            match self.state {
                State::Head => {
                    if !self.word::<8>(input) {
                        return Ok(None);
                    }
                    let [a, b, c, d, e, f, g, h] = self.word;
                    self.begin(
                        i32::from_be_bytes([a, b, c, d]),
                        i32::from_be_bytes([e, f, g, h]),
                    )?;
                }
                State::Length => {
                    if !self.word::<4>(input) {
                        return Ok(None);
                    }
                    let [a, b, c, d, ..] = self.word;
                    self.buffer(i32::from_be_bytes([a, b, c, d]))?;
                }
                State::Body => {
                    if self.missing > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    let count = self.missing.min(input.len());
                    self.make_room(count);
                    let (taken, rest) = input.split_at(count);
                    self.message.extend_from_slice(taken);
                    *input = rest;
                    if let Some(frame) = self.filled(count) {
                        return Ok(Some(frame));
                    }
                }
            }
        }
    }

    /// The bytes missing in the current buffer; 0 between buffers.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Whether no byte of the next frame has come.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.state == State::Head && self.have == 0
    }

    /// Where the missing bytes of the current buffer belong, so that they can be read in place.
    /// What was written must be told to [`filled`](Self::filled).
    pub fn in_place(&mut self) -> Limit<&mut BytesMut> {
        self.make_room(1);
        let missing = self.missing;
        let room = self.message.capacity() - self.message.len();
        (&mut self.message).limit(missing.min(room))
    }

    /// Counts bytes that were added to the current buffer; the message, if it is complete.
    pub fn filled(&mut self, count: usize) -> Option<Frame> {
        self.missing -= count;
        if self.missing > 0 {
            return None;
        }
        self.buffers -= 1;
        self.state = State::Length;
        if self.buffers > 0 {
            return None;
        }
        self.state = State::Head;
        self.proven = self.proven.max(self.message.len());
        let message = std::mem::take(&mut self.message).freeze();
        Some(Frame {
            serial: self.serial,
            message,
        })
    }

    /// Completes the word of `N` bytes; whether it is complete.
    fn word<const N: usize>(&mut self, input: &mut &[u8]) -> bool {
        let count = (N - self.have).min(input.len());
        let (taken, rest) = input.split_at(count);
        self.word[self.have..self.have + count].copy_from_slice(taken);
        *input = rest;
        self.have = (self.have + count) % N;
        self.have == 0 && count > 0
    }

    fn begin(&mut self, serial: i32, count: i32) -> Result<(), FrameError> {
        if !(1..=MAX_BUFFERS).contains(&count) {
            return Err(FrameError::Buffers { count });
        }
        self.serial = serial;
        self.buffers = count;
        self.state = State::Length;
        Ok(())
    }

    fn buffer(&mut self, length: i32) -> Result<(), FrameError> {
        let missing = usize::try_from(length).map_err(|_| FrameError::Negative { length })?;
        let bytes = self.message.len().saturating_add(missing);
        if bytes > self.max_frame {
            return Err(FrameError::TooLarge {
                bytes,
                allowed: self.max_frame,
            });
        }
        self.missing = missing;
        self.state = State::Body;
        Ok(())
    }

    /// Makes room for at least `count` more bytes, all within the current buffer.
    ///
    /// Memory follows the bytes that came: at most twice as much, or what this peer has sent
    /// before, or [`FIRST`]. The last buffer gets no more than it needs, because a batch keeps it.
    fn make_room(&mut self, count: usize) {
        let length = self.message.len();
        if self.message.capacity() - length >= count {
            return;
        }
        let end = length + self.missing;
        let doubled = length.saturating_mul(2);
        let trusted = doubled.max(self.proven).max(FIRST);
        let useful = if self.buffers > 1 {
            end.max(doubled)
        } else {
            end
        };
        let capacity = useful.min(trusted).max(length + count).min(self.max_frame);
        let mut larger = BytesMut::with_capacity(capacity);
        larger.extend_from_slice(&self.message);
        self.message = larger;
    }
}

/// Appends the head of a frame; exactly `buffers` calls of [`write_buffer`] must follow.
pub fn write_head(out: &mut Vec<u8>, serial: i32, buffers: i32) {
    out.extend_from_slice(&serial.to_be_bytes());
    out.extend_from_slice(&buffers.to_be_bytes());
}

/// Appends one buffer that `write` fills.
pub fn write_buffer(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = i32::try_from(out.len() - at - 4).expect("frames are checked to be far smaller");
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
