//! TLS done once, for every listener and every client: rustls, 1.3 and 1.2.
//!
//! Certificates are read when a part opens, and again before a handshake when their files have
//! changed; files that do not fit leave the certificates before them in use, and a log line says
//! so. What goes wrong in a handshake is said with its cause and its remedy.

mod certificate;
mod client;
mod failure;
mod files;
mod identity;
mod params;
mod revoked;
mod server;

pub use certificate::Certificate;
pub use client::{Authorities, TlsConnector, client_config};
pub use failure::HandshakeError;
pub use identity::Identity;
pub use params::{ClientAuth, ClientTls, ListenerTls, TlsVersion};
pub use revoked::Revoked;
pub use server::TlsAcceptor;

pub(crate) use failure::Failures;

use std::{sync::Arc, time::Duration};

use levada_core::Clock;
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::UnixTime,
    time_provider::TimeProvider,
};

/// The one implementation of ciphers in the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The agent's clock, as rustls asks for it.
#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(
            self.0.wall_ms(),
        )))
    }
}

#[cfg(test)]
pub(crate) mod tests;
