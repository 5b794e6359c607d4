//! Avro RPC as Flume speaks it, both sides of a connection.
//!
//! A message travels in a [`frame`]; the first on a connection begins with a [`handshake`]; then
//! come the [`call`] or its reply, and the events of [`codec`]. These four, [`message`] and
//! [`hop`] do no I/O: they are functions on bytes with a limit on every length, checked before
//! memory is taken.
//! [`Server`] and [`Client`] move the bytes.
//!
//! Events are validated and kept as they came, and are copied when they are sent: nothing here
//! encodes an event. Nothing is remembered beyond a connection.

pub mod call;
pub mod codec;
pub mod frame;
pub mod handshake;
pub mod hop;
pub mod message;

mod client;
mod packing;
mod pipeline;
mod server;
mod wire;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use call::{Method, Reply, Status};
pub use client::{Answer, Client, ClientError};
pub use message::{MessageError, Meta};
pub use packing::PackingError;
pub use pipeline::{Calls, Replies};
pub use server::{Call, Opening, Server, ServerError, ServerParams, Token};
