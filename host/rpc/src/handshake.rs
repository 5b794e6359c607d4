//! The handshake at the beginning of a connection (Avro specification, "Handshake").
//!
//! A hash is a name for a protocol text and nothing more: no side checks that it is the text's MD5.
//! There is one protocol here, so there is nothing to look up, to keep or to parse. A client that
//! names another hash is asked for its text, as Flume asks, and the text is taken as it is: what
//! counts is that its events are events, and each of them is checked.

use levada_core::avro;

use crate::{MessageError, Meta, message::Reader};

/// The hash that every Flume sends and expects: the MD5 of its protocol with the licence comment in
/// it, the same in all its versions.
pub const HASH: [u8; 16] = [
    0x86, 0xaa, 0xda, 0xe2, 0xc4, 0x54, 0x74, 0xc0, 0xfe, 0x93, 0xff, 0xd0, 0xf2, 0x35, 0x0a, 0x65,
];

/// The same protocol without the comment, which real servers and clients accept.
pub const PROTOCOL: &str = concat!(
    r#"{"protocol":"AvroSourceProtocol","namespace":"org.apache.flume.source.avro","types":["#,
    r#"{"type":"enum","name":"Status","symbols":["OK","FAILED","UNKNOWN"]},"#,
    r#"{"type":"record","name":"AvroFlumeEvent","fields":["#,
    r#"{"name":"headers","type":{"type":"map","values":"string"}},"#,
    r#"{"name":"body","type":"bytes"}]}],"messages":{"#,
    r#""append":{"request":[{"name":"event","type":"AvroFlumeEvent"}],"response":"Status"},"#,
    r#""appendBatch":{"request":[{"name":"events","type":{"type":"array","items":"#,
    r#""AvroFlumeEvent"}}],"response":"Status"}}}"#,
);

/// Most bytes of a protocol text. Flume's own has 1,334.
pub const MAX_PROTOCOL: usize = 64 << 10;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeRequest {
    pub client_hash: [u8; 16],
    /// Whether the client's protocol text came along.
    pub has_protocol: bool,
    pub server_hash: [u8; 16],
    pub meta: Meta,
}

impl HandshakeRequest {
    /// Reads a handshake from the front of a message.
    ///
    /// # Errors
    /// All of [`MessageError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, MessageError> {
        let part = "handshake";
        let client_hash = reader.hash(part)?;
        let has_protocol = reader.choice(part, 2)? == 1;
        if has_protocol {
            reader.text("protocol of the handshake", MAX_PROTOCOL)?;
        }
        let server_hash = reader.hash(part)?;
        let meta = read_meta(reader)?;
        Ok(Self {
            client_hash,
            has_protocol,
            server_hash,
            meta,
        })
    }

    /// How a server answers.
    #[must_use]
    pub fn answer(&self) -> Match {
        if self.client_hash != HASH && !self.has_protocol {
            Match::None
        } else if self.server_hash == HASH {
            Match::Both
        } else {
            Match::Client
        }
    }
}

/// Appends a client's handshake, with the protocol text once the server has asked for it.
pub fn write_request(out: &mut Vec<u8>, protocol: Option<&str>, meta: &Meta) {
    out.extend_from_slice(&HASH);
    write_optional(out, protocol.map(str::as_bytes));
    out.extend_from_slice(&HASH);
    // Java writes an empty map here, never null.
    out.push(2);
    meta.write(out);
}

/// How two protocols fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Each knows the other's.
    Both,
    /// The server knows the client's; the client is told the server's. The call is executed.
    Client,
    /// The server does not know the client's: the call is not executed, the client sends it again
    /// with its text.
    None,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeResponse {
    pub matched: Match,
    pub server_hash: Option<[u8; 16]>,
    pub meta: Meta,
}

impl HandshakeResponse {
    /// Reads a response from the front of a message.
    ///
    /// # Errors
    /// All of [`MessageError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, MessageError> {
        let part = "handshake";
        let matched = match reader.choice(part, 3)? {
            0 => Match::Both,
            1 => Match::Client,
            _ => Match::None,
        };
        if reader.choice(part, 2)? == 1 {
            reader.text("protocol of the handshake", MAX_PROTOCOL)?;
        }
        let has_hash = reader.choice(part, 2)? == 1;
        let server_hash = if has_hash {
            Some(reader.hash(part)?)
        } else {
            None
        };
        let meta = read_meta(reader)?;
        Ok(Self {
            matched,
            server_hash,
            meta,
        })
    }
}

/// Appends a server's handshake: text and hash unless both are known.
pub fn write_response(out: &mut Vec<u8>, matched: Match, meta: &Meta) {
    let known = matched == Match::Both;
    out.push(match matched {
        Match::Both => 0,
        Match::Client => 2,
        Match::None => 4,
    });
    write_optional(out, (!known).then_some(PROTOCOL.as_bytes()));
    if known {
        out.push(0);
    } else {
        out.push(2);
        out.extend_from_slice(&HASH);
    }
    if meta.is_empty() {
        out.push(0);
    } else {
        out.push(2);
        meta.write(out);
    }
}

fn read_meta(reader: &mut Reader<'_>) -> Result<Meta, MessageError> {
    let part = "metadata of the handshake";
    match reader.choice(part, 2)? {
        0 => Ok(Meta::new()),
        _ => reader.meta(part),
    }
}

/// A union of null and a string.
fn write_optional(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(2);
            avro::write_bytes(out, text);
        }
    }
}

#[cfg(test)]
mod tests;
