//! The sending side of a connection.

use std::io;

use levada_core::Batch;
use levada_net::Stream;
use thiserror::Error;

use crate::{
    MessageError, Meta, Method, PackingError, Reply,
    call::CallHead,
    codec, frame,
    frame::{Frame, FrameError},
    handshake::{self, HandshakeResponse, Match, PROTOCOL},
    message::Reader,
    pipeline::{Calls, Replies},
    wire::{Inbound, Outbound, ReadError, Silence, directions},
};

/// One connection, seen from the side that gives events. One call is in flight at a time, because
/// later Flumes answer and store several out of order.
///
/// Nothing here has a time limit: the caller's limit is on the call as a whole. A call that failed
/// or was cancelled leaves the connection of no use.
#[derive(Debug)]
pub struct Client {
    inbound: Inbound,
    outbound: Outbound,
    serial: i32,
    greeting: Greeting,
    in_flight: InFlight,
    own_meta: Meta,
    peer_meta: Meta,
}

/// How far the handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// The next call carries the hash.
    Hash,
    /// The server asked for the text: the next call carries it.
    Text,
    /// No call carries a handshake any more.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Nothing,
    Call(i32, Method),
    /// A call was begun and not finished: what comes next is anybody's guess.
    Broken,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Reply(Reply),
    /// The server did not execute the call: it must be sent again.
    Again,
    /// The reply to a ping.
    Pong,
}

/// Why a call has no answer. Whether it was executed is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("the connection was used before it failed")]
    Broken,
    #[error("the peer ended the connection")]
    Ended,
    #[error("the peer does not keep to the zstd that was agreed")]
    Packing(#[source] PackingError),
    #[error("the peer sent no frame; does it speak Avro RPC, without TLS and compression?")]
    Frame(#[source] FrameError),
    #[error("the peer sent no reply")]
    Message(#[source] MessageError),
    #[error("the peer answered call {found} instead of {expected}")]
    Serial { found: i32, expected: i32 },
    #[error("the peer does not take the protocol")]
    Refused,
}

/// Most bytes of a reply. The longest that a Flume gives is a handshake or a Java error, some KiB.
const MAX_REPLY: usize = 1 << 20;

/// For calls without a limit of their own: the caller has one.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(u32::MAX as u64);

impl Client {
    /// Speaks over a connection that is fresh.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>) -> Self {
        let (inbound, outbound) = directions(stream, MAX_REPLY);
        Self {
            inbound,
            outbound,
            serial: 0,
            greeting: Greeting::Hash,
            in_flight: InFlight::Nothing,
            own_meta: Meta::new(),
            peer_meta: Meta::new(),
        }
    }

    /// What to say in the metadata of the handshake. A Flume ignores it.
    #[must_use]
    pub fn with_meta(mut self, meta: Meta) -> Self {
        self.own_meta = meta;
        self
    }

    /// What the peer said in the metadata of its handshake; nothing, if it is a Flume.
    #[must_use]
    pub fn peer_meta(&self) -> &Meta {
        &self.peer_meta
    }

    /// Whether a call can be made; finds out that the peer has ended the connection meanwhile,
    /// before a batch is given to it. Waits for nothing.
    pub async fn is_usable(&mut self) -> bool {
        self.in_flight == InFlight::Nothing && !self.inbound.is_disturbed().await
    }

    /// Gives events away and waits for the reply.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn append_batch(&mut self, batch: &Batch, meta: &Meta) -> Result<Reply, ClientError> {
        loop {
            self.send(Method::AppendBatch, batch, meta).await?;
            if let Answer::Reply(reply) = self.receive().await? {
                return Ok(reply);
            }
        }
    }

    /// Asks for nothing: makes the handshake, or shows that the peer is there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        loop {
            self.send(Method::Ping, &Batch::default(), &Meta::new())
                .await?;
            if self.receive().await? == Answer::Pong {
                return Ok(());
            }
        }
    }

    /// Sends a call. [`receive`](Self::receive) must follow.
    ///
    /// # Errors
    /// [`ClientError::Io`], [`ClientError::Broken`].
    pub async fn send(
        &mut self,
        method: Method,
        batch: &Batch,
        meta: &Meta,
    ) -> Result<(), ClientError> {
        if self.in_flight != InFlight::Nothing {
            return Err(ClientError::Broken);
        }
        self.in_flight = InFlight::Broken;
        self.serial = next(self.serial);
        let text = self.greeting == Greeting::Text;
        let greeting = (self.greeting != Greeting::Done).then_some((text, &self.own_meta));
        let call = (method, batch, meta);
        write_call(self.outbound.message(), self.serial, greeting, call);
        self.outbound.flush().await.map_err(ClientError::Io)?;
        self.in_flight = InFlight::Call(self.serial, method);
        Ok(())
    }

    /// Waits for what came of the call that was sent. A connection that is not
    /// [`Broken`](ClientError::Broken) and has no call in flight waits for ever.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receive(&mut self) -> Result<Answer, ClientError> {
        let InFlight::Call(expected, method) = self.in_flight else {
            return Err(ClientError::Broken);
        };
        self.in_flight = InFlight::Broken;
        let frame = read(&mut self.inbound).await?;
        if frame.serial != expected {
            return Err(ClientError::Serial {
                found: frame.serial,
                expected,
            });
        }
        let mut reader = Reader::new(&frame.message, 0);
        let again = self.greeted(&mut reader)?;
        let answer = match method {
            _ if again => Answer::Again,
            // Between Flumes a ping has no body; another Avro may write an empty reply.
            Method::Ping => Answer::Pong,
            Method::Append | Method::AppendBatch => {
                Answer::Reply(Reply::read(&mut reader).map_err(ClientError::Message)?)
            }
        };
        self.in_flight = InFlight::Nothing;
        Ok(answer)
    }

    /// Reads the server's handshake, if one is due; whether the call must be sent again.
    fn greeted(&mut self, reader: &mut Reader<'_>) -> Result<bool, ClientError> {
        if self.greeting == Greeting::Done {
            return Ok(false);
        }
        let response = HandshakeResponse::read(reader).map_err(ClientError::Message)?;
        self.peer_meta = response.meta;
        let next = match (response.matched, self.greeting) {
            // Each Flume's events look the same, so another protocol of the server changes nothing.
            (Match::Both | Match::Client, _) => Greeting::Done,
            (Match::None, Greeting::Hash) => Greeting::Text,
            (Match::None, _) => return Err(ClientError::Refused),
        };
        self.greeting = next;
        Ok(next == Greeting::Text)
    }

    /// From now on each direction is one stream of zstd, as was agreed in the handshake.
    ///
    /// # Errors
    /// [`ClientError::Io`]: there is no memory for it.
    pub fn begin_zstd(&mut self) -> Result<(), ClientError> {
        let begun = self.inbound.unpack().and_then(|()| self.outbound.pack());
        begun.map_err(ClientError::Io)
    }

    /// Both sides of a connection whose handshake is made, for a peer that takes several calls at
    /// once and answers them in order.
    ///
    /// # Errors
    /// [`ClientError::Broken`] if the handshake is not made, or a call is in flight.
    pub fn pipelined(self) -> Result<(Calls, Replies), ClientError> {
        let ready = self.greeting == Greeting::Done && self.in_flight == InFlight::Nothing;
        if !ready {
            return Err(ClientError::Broken);
        }
        let calls = Calls::new(self.outbound, self.serial);
        Ok((calls, Replies::new(self.inbound, self.serial)))
    }
}

/// The serial of the call after this one.
pub(crate) fn next(serial: i32) -> i32 {
    serial.checked_add(1).unwrap_or(1)
}

/// The next message of the peer, however long it takes.
pub(crate) async fn read(inbound: &mut Inbound) -> Result<Frame, ClientError> {
    let silence = Silence {
        between_frames: FOREVER,
        inside_frame: FOREVER,
    };
    match inbound.read(silence).await {
        Ok(frame) => frame.ok_or(ClientError::Ended),
        Err(ReadError::Io(error)) => Err(ClientError::Io(error)),
        Err(ReadError::Packing(error)) => Err(ClientError::Packing(error)),
        Err(ReadError::Frame(error)) => Err(ClientError::Frame(error)),
    }
}

/// Appends a call in two buffers, as Java does: what is in front, and the parameters. A greeting
/// says whether the protocol's text comes along, and has metadata of its own.
pub(crate) fn write_call(
    out: &mut Vec<u8>,
    serial: i32,
    greeting: Option<(bool, &Meta)>,
    (method, batch, meta): (Method, &Batch, &Meta),
) {
    out.reserve(codec::BESIDE + batch.bytes());
    let buffers = if method == Method::Ping { 1 } else { 2 };
    frame::write_head(out, serial, buffers);
    frame::write_buffer(out, |out| {
        if let Some((text, own_meta)) = greeting {
            handshake::write_request(out, text.then_some(PROTOCOL), own_meta);
        }
        CallHead::write(out, meta, method);
    });
    if buffers == 2 {
        frame::write_buffer(out, |out| codec::write_events(out, method, batch));
    }
}

#[cfg(test)]
mod tests;
