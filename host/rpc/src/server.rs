//! The receiving side of a connection.

use std::{error::Error as _, io, time::Duration};

use levada_core::{Limits, Malformed, batch::Checked};
use levada_net::{Stream, within};
use thiserror::Error;

use crate::{
    MessageError, Meta, Method, Status,
    call::{self, CallHead, Greeting},
    codec,
    frame::{Frame, FrameError},
    handshake::{HandshakeRequest, Match},
    message::Reader,
    wire::{ReadError, Silence, Wire},
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
    wire: Wire,
    params: ServerParams,
    greeted: bool,
    /// How often the peer was asked for its protocol.
    asked: u32,
    /// The handshake that the reply to the current message begins with.
    due: Option<Match>,
    peer_meta: Meta,
    own_meta: Meta,
    out: Vec<u8>,
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

/// The reply buffer is given back to the machine when a reply was larger.
const KEPT: usize = 16 << 10;

impl Server {
    /// Serves one connection.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>, params: ServerParams) -> Self {
        Self {
            wire: Wire::new(stream, params.max_frame),
            params,
            greeted: false,
            asked: 0,
            due: None,
            peer_meta: Meta::new(),
            own_meta: Meta::new(),
            out: Vec::new(),
        }
    }

    /// What to say in the metadata of the handshake. A Flume ignores it.
    #[must_use]
    pub fn with_meta(mut self, meta: Meta) -> Self {
        self.own_meta = meta;
        self
    }

    /// What the peer said in the metadata of its last handshake.
    #[must_use]
    pub fn peer_meta(&self) -> &Meta {
        &self.peer_meta
    }

    /// Waits for the next call; `None` if the peer ended the connection between two.
    ///
    /// Cancelled, it loses no bytes but may leave a reply to a ping half written: a caller that
    /// cancels it because it stops drops the connection.
    ///
    /// # Errors
    /// [`ServerError`]. A message that cannot be read was answered with an error.
    pub async fn next(&mut self) -> Result<Option<Call>, ServerError> {
        loop {
            let inside_frame = if self.greeted {
                self.params.idle
            } else {
                self.params.handshake
            };
            let silence = Silence {
                between_frames: self.params.idle,
                inside_frame,
            };
            let frame = match self.wire.read(silence).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(ReadError::Io(error)) => return Err(ServerError::Io(error)),
                Err(ReadError::Frame(error)) => return Err(ServerError::Frame(error)),
            };
            match self.call_of(&frame) {
                Ok(Some(call)) => return Ok(Some(call)),
                Ok(None) => self.write().await?,
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
            meta: &self.own_meta,
        });
        self.out.clear();
        call::write_reply(&mut self.out, token.serial, greeting, meta, result);
        self.write().await
    }

    /// The call in a message, or nothing if `out` is all there is to say.
    fn call_of(&mut self, frame: &Frame) -> Result<Option<Call>, ServerError> {
        let mut reader = Reader::new(&frame.message, 0);
        self.out.clear();
        self.due = None;
        if !self.greeted {
            let request = HandshakeRequest::read(&mut reader).map_err(ServerError::Message)?;
            let matched = request.answer();
            self.peer_meta = request.meta;
            if matched == Match::None {
                self.asked += 1;
                if self.asked > MAX_ASKED {
                    return Err(ServerError::Handshake);
                }
                let asking = Some(Greeting {
                    matched,
                    meta: &self.own_meta,
                });
                call::write_bare_reply(&mut self.out, frame.serial, asking);
                return Ok(None);
            }
            self.due = Some(matched);
        }
        let head = CallHead::read(&mut reader).map_err(ServerError::Message)?;
        let greeting = self.due.map(|matched| Greeting {
            matched,
            meta: &self.own_meta,
        });
        let method = match head.method {
            Ok(Method::Ping) => {
                call::write_bare_reply(&mut self.out, frame.serial, greeting);
                self.greeted = true;
                return Ok(None);
            }
            Ok(method) => method,
            Err(name) => {
                let (error, meta) = (call::no_such_message(name), Meta::new());
                call::write_reply(&mut self.out, frame.serial, greeting, &meta, Err(&error));
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
        let writing = self.wire.write(&self.out);
        let written = within(
            self.params.idle,
            "the peer does not take its reply",
            writing,
        );
        written.await.map_err(ServerError::Io)?;
        self.out.clear();
        self.out.shrink_to(KEPT);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
