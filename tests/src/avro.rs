//! Flume's Avro RPC by hand, byte by byte: what a peer may send, right or wrong. Written apart from
//! the product's own code, so that one mistake is not in both.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

/// The hash that every Flume sends for its protocol.
pub const HASH: [u8; 16] = [
    0x86, 0xaa, 0xda, 0xe2, 0xc4, 0x54, 0x74, 0xc0, 0xfe, 0x93, 0xff, 0xd0, 0xf2, 0x35, 0x0a, 0x65,
];

/// An Avro `long`.
#[must_use]
pub fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// An Avro `string` or `bytes`.
#[must_use]
pub fn bytes(value: &[u8]) -> Vec<u8> {
    let mut out = long(i64::try_from(value.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(value);
    out
}

/// An event.
#[must_use]
pub fn event(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !headers.is_empty() {
        out.extend(long(i64::try_from(headers.len()).unwrap_or(i64::MAX)));
        for (name, value) in headers {
            out.extend(bytes(name.as_bytes()));
            out.extend(bytes(value.as_bytes()));
        }
    }
    out.push(0);
    out.extend(bytes(body));
    out
}

/// An array of events in one block.
#[must_use]
pub fn events(events: &[Vec<u8>]) -> Vec<u8> {
    let mut out = long(i64::try_from(events.len()).unwrap_or(i64::MAX));
    out.extend(events.concat());
    out.push(0);
    out
}

/// A handshake with this client hash and, if given, protocol text.
#[must_use]
pub fn handshake(hash: [u8; 16], protocol: Option<&[u8]>) -> Vec<u8> {
    let mut out = hash.to_vec();
    match protocol {
        None => out.push(0),
        Some(text) => {
            out.push(2);
            out.extend(bytes(text));
        }
    }
    out.extend(HASH);
    out.extend([2, 0]);
    out
}

/// A call with these parameters, without a handshake.
#[must_use]
pub fn call(method: &str, parameters: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(bytes(method.as_bytes()));
    out.extend_from_slice(parameters);
    out
}

/// A message in one buffer.
#[must_use]
pub fn frame(serial: u32, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut out = [
        serial.to_be_bytes(),
        1_u32.to_be_bytes(),
        length.to_be_bytes(),
    ]
    .concat();
    out.extend_from_slice(message);
    out
}

/// The first message of a connection: handshake and `appendBatch`.
#[must_use]
pub fn append_batch(serial: u32, batch: &[Vec<u8>]) -> Vec<u8> {
    let parameters = events(batch);
    let message = [handshake(HASH, None), call("appendBatch", &parameters)].concat();
    frame(serial, &message)
}

/// How a peer met what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// It answered with this message.
    Answered(Vec<u8>),
    /// It ended the connection without an answer.
    Ended,
}

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Sends bytes over a connection of their own and waits for the answer or the end.
///
/// # Errors
/// Nobody listens there, or neither comes in time.
pub async fn send(to: SocketAddr, sent: &[u8]) -> Result<Met> {
    let mut stream = TcpStream::connect(to)
        .await
        .with_context(|| format!("cannot reach {to}"))?;
    exchange(&mut stream, sent).await
}

/// Sends bytes and waits for the answer or the end.
///
/// # Errors
/// Neither comes in time.
pub async fn exchange(stream: &mut TcpStream, sent: &[u8]) -> Result<Met> {
    let met = async {
        // The peer may have seen enough before the last byte.
        if stream.write_all(sent).await.is_err() {
            return Met::Ended;
        }
        match read_frame(stream).await {
            Ok(message) => Met::Answered(message),
            Err(_) => Met::Ended,
        }
    };
    time::timeout(ANSWER, met)
        .await
        .context("neither an answer nor the end came")
}

async fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.read_u32().await?;
    let mut message = Vec::new();
    for _ in 0..stream.read_u32().await? {
        let length = usize::try_from(stream.read_u32().await?)?;
        if length > 1 << 20 {
            bail!("a buffer of {length} bytes in an answer");
        }
        let at = message.len();
        message.resize(at + length, 0);
        stream.read_exact(&mut message[at..]).await?;
    }
    Ok(message)
}

/// Whether an answer to [`append_batch`] says `OK`: no error, and the first of the statuses.
#[must_use]
pub fn is_ok(met: &Met) -> bool {
    matches!(met, Met::Answered(message) if message.ends_with(&[0, 0, 0]))
}
