//! Calls and replies, between the handshake and the events.

use levada_core::avro;

use crate::{MessageError, Meta, frame, handshake, message::Reader};

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Take one event.
    Append,
    /// Take a run of events.
    AppendBatch,
    /// Nothing; the empty name.
    Ping,
}

impl Method {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::AppendBatch => "appendBatch",
            Self::Ping => "",
        }
    }
}

/// Most bytes of a method's name.
pub const MAX_NAME: usize = 256;

/// Most bytes of an error's text that are kept.
pub const MAX_ERROR: usize = 64 << 10;

/// The front of a call; its parameters follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallHead<'a> {
    pub meta: Meta,
    /// What is called, or a name that nobody here has.
    pub method: Result<Method, &'a str>,
    /// Where the parameters begin.
    pub params_at: usize,
}

impl<'a> CallHead<'a> {
    /// Reads metadata and name.
    ///
    /// # Errors
    /// All of [`MessageError`].
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, MessageError> {
        let meta = reader.meta("metadata of the call")?;
        let method = match reader.text("name of the call", MAX_NAME)? {
            "append" => Ok(Method::Append),
            "appendBatch" => Ok(Method::AppendBatch),
            "" => Ok(Method::Ping),
            unknown => Err(unknown),
        };
        Ok(Self {
            meta,
            method,
            params_at: reader.at(),
        })
    }

    /// Appends metadata and name.
    pub fn write(out: &mut Vec<u8>, meta: &Meta, method: Method) {
        meta.write(out);
        avro::write_bytes(out, method.as_str().as_bytes());
    }
}

/// What became of the events of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// They are taken for good.
    Ok,
    /// None is taken; the same call can succeed later.
    Failed,
    /// The receiver does not know; treated as failed.
    Unknown,
}

/// A reply without its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub meta: Meta,
    /// The status, or the text of the error that the receiver had.
    pub result: Result<Status, String>,
}

impl Reply {
    /// Reads metadata, flag, and status or error.
    ///
    /// # Errors
    /// All of [`MessageError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, MessageError> {
        let meta = reader.meta("metadata of the reply")?;
        if reader.boolean("flag of the reply")? {
            reader.choice("error of the reply", 1)?;
            let text = reader.bytes("error of the reply", MAX_ERROR)?;
            return Ok(Self {
                meta,
                result: Err(String::from_utf8_lossy(&text).into_owned()),
            });
        }
        let status = match reader.choice("status of the reply", 3)? {
            0 => Status::Ok,
            1 => Status::Failed,
            _ => Status::Unknown,
        };
        Ok(Self {
            meta,
            result: Ok(status),
        })
    }
}

/// Whether a reply answers a handshake, and how.
#[derive(Debug, Clone, Copy)]
pub struct Greeting<'a> {
    pub matched: handshake::Match,
    pub meta: &'a Meta,
}

/// Appends the frame of a reply, cut into three buffers as Java cuts it.
pub fn write_reply(
    out: &mut Vec<u8>,
    serial: i32,
    greeting: Option<Greeting<'_>>,
    meta: &Meta,
    result: Result<Status, &str>,
) {
    frame::write_head(out, serial, 3);
    frame::write_buffer(out, |out| write_greeting(out, greeting));
    frame::write_buffer(out, |out| meta.write(out));
    frame::write_buffer(out, |out| match result {
        Ok(status) => out.extend_from_slice(match status {
            Status::Ok => &[0, 0],
            Status::Failed => &[0, 2],
            Status::Unknown => &[0, 4],
        }),
        Err(text) => {
            // The flag, and the first branch of the union of errors: a string.
            out.extend_from_slice(&[1, 0]);
            avro::write_bytes(out, text.as_bytes());
        }
    });
}

/// Appends the frame of a reply that is a handshake and nothing else, or nothing at all.
pub fn write_bare_reply(out: &mut Vec<u8>, serial: i32, greeting: Option<Greeting<'_>>) {
    frame::write_head(out, serial, 1);
    frame::write_buffer(out, |out| write_greeting(out, greeting));
}

fn write_greeting(out: &mut Vec<u8>, greeting: Option<Greeting<'_>>) {
    if let Some(greeting) = greeting {
        handshake::write_response(out, greeting.matched, greeting.meta);
    }
}

/// The text of the error for a name that nobody has, as Java writes it.
#[must_use]
pub fn no_such_message(name: &str) -> String {
    format!("org.apache.avro.AvroRuntimeException: No such remote message: {name}")
}
