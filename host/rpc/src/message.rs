//! Reading the small parts of a message, and the maps of bytes that travel beside a call.

use bytes::Bytes;
use levada_core::avro::{self, AvroError};
use thiserror::Error;

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("the {part} is not the Avro value it should be")]
    Avro {
        part: &'static str,
        #[source]
        source: AvroError,
    },
    #[error("the {part} has a number that means nothing: {found}")]
    Choice { part: &'static str, found: i64 },
    #[error("the {part} is not text")]
    NotText { part: &'static str },
    #[error("the {part} has more than {allowed} {unit}")]
    TooMuch {
        part: &'static str,
        allowed: usize,
        unit: &'static str,
    },
}

/// Most entries of a map beside a call, and most bytes of its names and values together. Flume
/// writes none; a Levada writes one.
pub const META_ENTRIES: usize = 16;
pub const META_BYTES: usize = 64 << 10;

/// The metadata of a handshake or a call: names and bytes. Empty from and for every Flume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta(Vec<(String, Bytes)>);

impl Meta {
    /// No metadata; costs nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value under `name`; the last one if a peer wrote it twice.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// The names, in the order of the wire.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Adds or replaces a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        let name = name.into();
        self.0.retain(|(key, _)| *key != name);
        self.0.push((name, value.into()));
    }

    /// Appends the map in Avro binary.
    pub fn write(&self, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            avro::write_length(out, self.0.len());
            for (name, value) in &self.0 {
                avro::write_bytes(out, name.as_bytes());
                avro::write_bytes(out, value);
            }
        }
        out.push(0);
    }
}

/// Reads a message from front to back; nothing is copied but short texts.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at byte `at`.
    #[must_use]
    pub fn new(message: &'a Bytes, at: usize) -> Self {
        Self { message, at }
    }

    /// The next byte's place.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// A `long`.
    ///
    /// # Errors
    /// [`MessageError::Avro`].
    pub fn long(&mut self, part: &'static str) -> Result<i64, MessageError> {
        avro::read_long(self.message, &mut self.at)
            .map_err(|source| MessageError::Avro { part, source })
    }

    /// The branch of a union, or another number below `choices`.
    ///
    /// # Errors
    /// [`MessageError::Avro`], [`MessageError::Choice`].
    pub fn choice(&mut self, part: &'static str, choices: u8) -> Result<u8, MessageError> {
        let found = self.long(part)?;
        match u8::try_from(found) {
            Ok(choice) if choice < choices => Ok(choice),
            _ => Err(MessageError::Choice { part, found }),
        }
    }

    /// A `fixed` of 16 bytes.
    ///
    /// # Errors
    /// [`MessageError::Avro`].
    pub fn hash(&mut self, part: &'static str) -> Result<[u8; 16], MessageError> {
        let bytes = self.message.get(self.at..).and_then(<[u8]>::first_chunk);
        let truncated = AvroError::Truncated { at: self.at };
        let hash = *bytes.ok_or(MessageError::Avro {
            part,
            source: truncated,
        })?;
        self.at += hash.len();
        Ok(hash)
    }

    /// `bytes` of at most `allowed`, sharing the message's memory.
    ///
    /// # Errors
    /// [`MessageError::Avro`], with the length that was claimed.
    pub fn bytes(&mut self, part: &'static str, allowed: usize) -> Result<Bytes, MessageError> {
        let length = avro::read_length(self.message, &mut self.at, allowed)
            .map_err(|source| MessageError::Avro { part, source })?;
        let from = self.at;
        self.at += length;
        Ok(self.message.slice(from..self.at))
    }

    /// A `string` of at most `allowed` bytes.
    ///
    /// # Errors
    /// [`MessageError::Avro`], [`MessageError::NotText`].
    pub fn text(&mut self, part: &'static str, allowed: usize) -> Result<&'a str, MessageError> {
        let bytes = avro::read_bytes(self.message, &mut self.at, allowed)
            .map_err(|source| MessageError::Avro { part, source })?;
        std::str::from_utf8(bytes).map_err(|_| MessageError::NotText { part })
    }

    /// The next byte as it is.
    ///
    /// # Errors
    /// [`MessageError::Avro`].
    pub fn byte(&mut self, part: &'static str) -> Result<u8, MessageError> {
        let truncated = AvroError::Truncated { at: self.at };
        let byte = self.message.get(self.at).copied();
        let byte = byte.ok_or(MessageError::Avro {
            part,
            source: truncated,
        })?;
        self.at += 1;
        Ok(byte)
    }

    /// A `boolean`.
    ///
    /// # Errors
    /// [`MessageError::Avro`], [`MessageError::Choice`].
    pub fn boolean(&mut self, part: &'static str) -> Result<bool, MessageError> {
        match self.byte(part)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(MessageError::Choice {
                part,
                found: i64::from(other),
            }),
        }
    }

    /// A `map<bytes>` within [`META_ENTRIES`] and [`META_BYTES`].
    ///
    /// # Errors
    /// All of [`MessageError`].
    pub fn meta(&mut self, part: &'static str) -> Result<Meta, MessageError> {
        let mut meta = Meta::new();
        let from = self.at;
        loop {
            let count = self.long(part)?;
            if count == 0 {
                return Ok(meta);
            }
            if count < 0 {
                // The block's size in bytes: for readers that skip it.
                self.long(part)?;
            }
            if count.unsigned_abs() > (META_ENTRIES - meta.0.len()) as u64 {
                return Err(MessageError::TooMuch {
                    part,
                    allowed: META_ENTRIES,
                    unit: "entries",
                });
            }
            for _ in 0..count.unsigned_abs() {
                let name = self.text(part, META_BYTES)?.to_owned();
                let value = self.bytes(part, META_BYTES)?;
                if self.at - from > META_BYTES {
                    return Err(MessageError::TooMuch {
                        part,
                        allowed: META_BYTES,
                        unit: "bytes",
                    });
                }
                meta.0.push((name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests;
