//! Sockets done once: transports, listeners, limits, back-off.
//!
//! Every part that speaks to a network takes its streams from a [`Transport`], so that a test or a
//! simulation can hand out others: [`Tcp`] is the machine's, [`Memory`] lives inside the process.
//! Listening parts let connections in through [`Connections`] and run them with [`accept_until`].
//!
//! What lies between a socket and a protocol is here, too: TLS and Flume's deflate, for what
//! arrives ([`Inbound`]) and for what is made ([`Outbound`]).
//!
//! This crate knows no protocol, and of configurations only what is set about TLS and plaintext.

mod accept;
mod back_off;
mod connections;
mod deflate;
mod explained;
mod handover;
mod inbound;
mod limit;
mod memory;
mod outbound;
mod plain;
mod plaintext;
mod tcp;
mod throttle;
mod tls;
mod transport;

pub use accept::{Accepted, accept_until};
pub use back_off::Backoff;
pub use connections::{Admission, ConnectionLimits, Connections, Refusal};
pub use handover::Handover;
pub use inbound::Inbound;
pub use limit::within;
pub use memory::Memory;
pub use outbound::{Deflating, Order, Outbound};
pub use plaintext::{Plaintext, plaintext_problem};
pub use tcp::Tcp;
pub use throttle::Throttle;
pub use tls::{
    Authorities, Certificate, ClientAuth, ClientTls, HandshakeError, Identity, ListenerTls,
    Revoked, TlsAcceptor, TlsConnector, TlsVersion, client_config,
};
pub use transport::{Listener, Stream, Transport, host_and_port};
