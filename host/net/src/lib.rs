//! Sockets done once: transports, listeners, limits, back-off.
//!
//! Every part that speaks to a network takes its streams from a [`Transport`], so that a test or a
//! simulation can hand out others: [`Tcp`] is the machine's, [`Memory`] lives inside the process.
//! Listening parts let connections in through [`Connections`] and run them with [`accept_until`].
//!
//! This crate knows no protocol and no configuration beyond the rule for plaintext.

mod accept;
mod back_off;
mod connections;
mod limit;
mod memory;
mod plaintext;
mod tcp;
mod throttle;
mod transport;

pub use accept::{Accepted, accept_until};
pub use back_off::Backoff;
pub use connections::{Admission, ConnectionLimits, Connections, Refusal};
pub use limit::within;
pub use memory::Memory;
pub use plaintext::{Plaintext, plaintext_problem};
pub use tcp::Tcp;
pub use throttle::Throttle;
pub use transport::{Listener, Stream, Transport, host_and_port};
