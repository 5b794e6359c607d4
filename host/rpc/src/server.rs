//! The receiving side of a connection.

use std::{error::Error as _, io, time::Duration};

use bytes::Bytes;
use levada_core::{Limits, Malformed, batch::Checked};
use levada_net::{Stream, within};
use thiserror::Error;

use crate::{
    MessageError, Meta, Method, PackingError, Status,
    call::{self, CallHead, Greeting},
    codec,
    frame::{Frame, FrameError},
    handshake::{HandshakeRequest, Match},
    message::Reader,
    wire::{Inbound, Outbound, ReadError, Silence, directions},
};

/// What a server allows its peer.
#[derive(Debug, Clone, Copy)]
pub struct ServerParams {
    /// Bytes of a message.
    pub max_frame: usize,
    /// What one event may be.
    pub events: Limits,
    /// Silence inside the first message.
    pub handshake: Duration,
    /// Silence at any other time, and time for the peer to take a reply.
    pub idle: Duration,
}

impl Default for ServerParams {
    /// 16 MiB, the usual limits of events, 10 s, 60 s (security model 4.6).
    fn default() -> Self {
        Self {
            max_frame: 16 << 20,
            events: Limits::default(),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// One connection, seen from the side that takes events.
///
/// Handshakes, pings and calls that nobody has are answered inside [`next`](Self::next). After an
/// error the connection is of no use: the caller drops it.
#[derive(Debug)]
pub struct Server {
    inbound: Inbound,
    outbound: Outbound,
    params: ServerParams,
    greeted: bool,
    /// How often the peer was asked for its protocol.
    asked: u32,
    /// The handshake that the reply to the current message begins with.
    due: Option<Match>,
    /// A first message that opened nothing and waits to be looked at.
    first: Option<Frame>,
}

/// Events that wait for their reply.
#[derive(Debug)]
pub struct Call {
    pub checked: Checked,
    /// The metadata of the call.
    pub meta: Meta,
    /// What the reply needs.
    pub token: Token,
}

/// A first message that opens something beside Avro RPC.
#[derive(Debug)]
#[must_use = "the peer waits for an answer"]
pub struct Opening {
    /// The value in the metadata of the handshake.
    pub value: Bytes,
    serial: i32,
    matched: Match,
}

/// Ties a reply to its call. A call whose token is dropped is never answered.
#[derive(Debug)]
#[must_use = "the peer waits for a reply"]
pub struct Token {
    serial: i32,
    greeting: Option<Match>,
}

/// Why a connection ends before its peer ended it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("the peer does not keep to the zstd that was agreed")]
    Packing(#[source] PackingError),
    #[error("the peer sent no frame")]
    Frame(#[source] FrameError),
    #[error("the peer sent no call")]
    Message(#[source] MessageError),
    #[error("the peer sent no events")]
    Events(#[source] Malformed),
    #[error("the peer was asked {MAX_ASKED} times for its protocol and did not give it")]
    Handshake,
}

impl ServerError {
    /// Whether the peer broke the protocol or a limit, rather than the network.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        !matches!(self, Self::Io(_))
    }

    /// The error and its causes in one line, for the peer and for a log.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// How often a peer may say a hash that nobody knows. A Flume does so once.
const MAX_ASKED: u32 = 4;

/// What a server says in a handshake that opens nothing: as a Flume.
static NOTHING: Meta = Meta::new();

impl Server {
    /// Serves one connection.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>, params: ServerParams) -> Self {
        let (inbound, outbound) = directions(stream, params.max_frame);
        Self {
            inbound,
            outbound,
            params,
            greeted: false,
            asked: 0,
            due: None,
            first: None,
        }
    }

    /// Waits for the first message of the connection. If it is a ping that opens something under
    /// this name in the metadata of its handshake, gives that value: [`welcome`](Self::welcome)
    /// must follow. Anything else is left to [`next`](Self::next).
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn opening(&mut self, name: &str) -> Result<Option<Opening>, ServerError> {
        let Some(frame) = self.frame().await? else {
            return Ok(None);
        };
        let opening = opening_of(&frame, name);
        if opening.is_none() {
            self.first = Some(frame);
        }
        Ok(opening)
    }

    /// Answers the ping that opened something, with this metadata.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    pub async fn welcome(&mut self, opening: Opening, meta: &Meta) -> Result<(), ServerError> {
        let greeting = Greeting {
            matched: opening.matched,
            meta,
        };
        call::write_bare_reply(self.outbound.message(), opening.serial, Some(greeting));
        self.greeted = true;
        self.write().await
    }

    /// From now on each direction is one stream of zstd, as was agreed in the handshake.
    ///
    /// # Errors
    /// [`ServerError::Io`]: there is no memory for it.
    pub fn begin_zstd(&mut self) -> Result<(), ServerError> {
        let begun = self.inbound.unpack().and_then(|()| self.outbound.pack());
        begun.map_err(ServerError::Io)
    }

    /// Refuses the ping that opened something, and why.
    ///
    /// # Errors
    /// [`ServerError::Io`].
    pub async fn refuse(&mut self, opening: Opening, error: &str) -> Result<(), ServerError> {
        let token = Token {
            serial: opening.serial,
            greeting: Some(opening.matched),
        };
        self.reply_error(token, error).await
    }

    /// Waits for the next call; `None` if the peer ended the connection between two.
    ///
    /// Safe to cancel: no byte is lost in either direction.
    ///
    /// # Errors
    /// [`ServerError`]. A message that cannot be read was answered with an error.
    pub async fn next(&mut self) -> Result<Option<Call>, ServerError> {
        loop {
            self.write().await?;
            let frame = match self.first.take() {
                Some(frame) => frame,
                None => match self.frame().await? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            match self.call_of(&frame) {
                Ok(Some(call)) => return Ok(Some(call)),
                Ok(None) => {}
                Err(error) => {
                    let token = Token {
                        serial: frame.serial,
                        greeting: self.due,
                    };
                    // The peer's fault is worth more than a failure to tell it.
                    let _told = self.reply_error(token, &error.report()).await.is_ok();
                    return Err(error);
                }
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Frame>, ServerError> {
        let inside_frame = if self.greeted {
            self.params.idle
        } else {
            self.params.handshake
        };
        let silence = Silence {
            between_frames: self.params.idle,
            inside_frame,
        };
        let read = self.inbound.read(silence).await;
        read.map_err(|error| match error {
            ReadError::Io(error) => ServerError::Io(error),
            ReadError::Packing(error) => ServerError::Packing(error),
            ReadError::Frame(error) => ServerError::Frame(error),
        })
    }

    /// Answers a call with a status.
    ///
    /// # Errors
    /// [`ServerError::Io`]: the peer may or may not know.
    pub async fn reply(
        &mut self,
        token: Token,
        status: Status,
        meta: &Meta,
    ) -> Result<(), ServerError> {
        self.answer(&token, meta, Ok(status)).await
    }

    /// Answers a call with an error, for what the peer can do nothing about.
    ///
    /// # Errors
    /// [`ServerError::Io`]: the peer may or may not know.
    pub async fn reply_error(&mut self, token: Token, error: &str) -> Result<(), ServerError> {
        self.answer(&token, &Meta::new(), Err(error)).await
    }

    async fn answer(
        &mut self,
        token: &Token,
        meta: &Meta,
        result: Result<Status, &str>,
    ) -> Result<(), ServerError> {
        let greeting = token.greeting.map(|matched| Greeting {
            matched,
            meta: &NOTHING,
        });
        call::write_reply(
            self.outbound.message(),
            token.serial,
            greeting,
            meta,
            result,
        );
        self.write().await
    }

    /// The call in a message, or nothing if what was appended is all there is to say.
    fn call_of(&mut self, frame: &Frame) -> Result<Option<Call>, ServerError> {
        let mut reader = Reader::new(&frame.message, 0);
        self.due = None;
        if !self.greeted {
            let request = HandshakeRequest::read(&mut reader).map_err(ServerError::Message)?;
            let matched = request.answer();
            if matched == Match::None {
                self.asked += 1;
                if self.asked > MAX_ASKED {
                    return Err(ServerError::Handshake);
                }
                let asking = Some(Greeting {
                    matched,
                    meta: &NOTHING,
                });
                call::write_bare_reply(self.outbound.message(), frame.serial, asking);
                return Ok(None);
            }
            self.due = Some(matched);
        }
        let head = CallHead::read(&mut reader).map_err(ServerError::Message)?;
        let greeting = self.due.map(|matched| Greeting {
            matched,
            meta: &NOTHING,
        });
        let method = match head.method {
            Ok(Method::Ping) => {
                call::write_bare_reply(self.outbound.message(), frame.serial, greeting);
                self.greeted = true;
                return Ok(None);
            }
            Ok(method) => method,
            Err(name) => {
                let (error, meta) = (call::no_such_message(name), Meta::new());
                call::write_reply(
                    self.outbound.message(),
                    frame.serial,
                    greeting,
                    &meta,
                    Err(&error),
                );
                self.greeted = true;
                return Ok(None);
            }
        };
        let (message, limits) = (frame.message.clone(), &self.params.events);
        let checked = codec::read_events(message, head.params_at, method, limits)
            .map_err(ServerError::Events)?;
        self.greeted = true;
        let token = Token {
            serial: frame.serial,
            greeting: self.due,
        };
        Ok(Some(Call {
            checked,
            meta: head.meta,
            token,
        }))
    }

    async fn write(&mut self) -> Result<(), ServerError> {
        let written = within(
            self.params.idle,
            "the peer does not take its reply",
            self.outbound.flush(),
        );
        written.await.map_err(ServerError::Io)
    }
}

/// What a first message opens under a name, if it is a ping that needs no further handshake.
fn opening_of(frame: &Frame, name: &str) -> Option<Opening> {
    let mut reader = Reader::new(&frame.message, 0);
    let request = HandshakeRequest::read(&mut reader).ok()?;
    let value = request.meta.get(name)?.clone();
    let head = CallHead::read(&mut reader).ok()?;
    let matched = request.answer();
    let opens = head.method == Ok(Method::Ping) && matched != Match::None;
    opens.then_some(Opening {
        value,
        serial: frame.serial,
        matched,
    })
}

#[cfg(test)]
mod tests;
