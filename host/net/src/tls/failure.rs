//! What went wrong in a handshake, and what to do about it.

use std::{io, sync::Arc};

use levada_core::{Clock, context::is_unsynced};
use rustls::{AlertDescription, CertificateError, Error as Tls};
use thiserror::Error;

use super::certificate::date;

/// Why a connection came to nothing before its first byte counted, with the remedy where there is
/// one. Nothing that the peer said was looked at beyond the handshake.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct HandshakeError {
    what: String,
    #[source]
    cause: Option<io::Error>,
}

impl HandshakeError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cause: None,
        }
    }

    /// The handshake took longer than a peer has for it.
    pub(crate) fn too_slow() -> Self {
        Self::new(
            "the handshake was not done in time; for a peer that gets stuck in that of TLS 1.3, as a \
             Flume 1.9 does, set `max-version = \"1.2\"` in `tls`",
        )
    }

    /// Whether an I/O error carries one of these: the peer is there, and one side refuses the other.
    #[must_use]
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Explains the errors of one side of a connection. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    side: Side,
    /// What the authorities are called in messages: the path of `ca`.
    ca: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// The side that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Listener,
    Client,
}

impl Failures {
    pub(crate) fn new(side: Side, ca: Option<&std::path::Path>, clock: Arc<dyn Clock>) -> Self {
        let ca = match ca {
            Some(path) => format!("`{}`", path.display()).into(),
            None => "the authorities of this machine".into(),
        };
        Self { side, ca, clock }
    }

    /// The same error as an explanation, if TLS is what went wrong.
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Tls>());
        match tls.map(|tls| self.of_tls(tls)) {
            Some(what) => HandshakeError {
                what,
                cause: Some(error),
            }
            .into(),
            None => error,
        }
    }

    /// The explanation of an error inside the handshake itself.
    pub(crate) fn in_handshake(&self, error: io::Error) -> HandshakeError {
        let what = match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Tls>())
        {
            Some(tls) => self.of_tls(tls),
            None if self.side == Side::Client => {
                "the server ended the connection instead of a TLS handshake; does it speak TLS on \
                 this port?"
                    .into()
            }
            None => "the peer ended the connection inside the handshake".into(),
        };
        HandshakeError {
            what,
            cause: Some(error),
        }
    }

    fn of_tls(&self, error: &Tls) -> String {
        match error {
            Tls::InvalidCertificate(error) => self.of_certificate(error),
            Tls::NoCertificatesPresented => format!(
                "the peer shows no certificate; give it one that is signed by {}",
                self.ca
            ),
            Tls::AlertReceived(alert) => self.of_alert(*alert),
            Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. } => match self.side {
                Side::Client => "the server does not speak TLS on this port; remove `tls`, or set \
                                 it up there"
                    .into(),
                Side::Listener => "the peer speaks no TLS that can be read".into(),
            },
            Tls::PeerIncompatible(_) => {
                "the peer speaks no version or cipher of TLS that is spoken here (1.2 and 1.3, up to \
                 `max-version`)"
                    .into()
            }
            other => format!("TLS failed: {other}"),
        }
    }

    fn of_certificate(&self, error: &CertificateError) -> String {
        let whose = match self.side {
            Side::Client => "the server's certificate",
            Side::Listener => "the peer's certificate",
        };
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                let at = date(not_after.as_secs().saturating_mul(1000));
                self.with_clock(&format!("{whose} has expired at {at}"))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                let at = date(not_before.as_secs().saturating_mul(1000));
                self.with_clock(&format!("{whose} is not valid before {at}"))
            }
            CertificateError::UnknownIssuer => {
                format!("{whose} is not signed by {}", self.ca)
            }
            // Found by name, and then it was another key.
            CertificateError::BadSignature => format!(
                "{whose} is not signed by {}, but by an authority of the same name",
                self.ca
            ),
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => {
                let presented = match presented.as_slice() {
                    [] => "no name at all".into(),
                    names => names.join(", "),
                };
                format!(
                    "{whose} is not for `{}` but for {presented}; set `server-name`, or give the \
                     server another certificate",
                    expected.to_str()
                )
            }
            CertificateError::InvalidPurposeContext { required, .. } => {
                format!("{whose} is not made for this use ({required} is needed)")
            }
            CertificateError::Revoked => format!("{whose} has been revoked: `crl` lists it"),
            CertificateError::UnknownRevocationStatus => format!(
                "{whose} may be revoked: no list in `crl` is from who signed it; add the list of \
                 that authority"
            ),
            other => format!("{whose} is refused: {other}"),
        }
    }

    /// Times are compared with our clock: it may be the one that is wrong.
    fn with_clock(&self, what: &str) -> String {
        let now = date(self.clock.wall_ms());
        if is_unsynced(&*self.clock) {
            return format!(
                "{what}, but the clock of this machine is not set (clock-unsynced): it says {now}"
            );
        }
        format!("{what}; it is {now} here")
    }

    fn of_alert(&self, alert: AlertDescription) -> String {
        let peer = match self.side {
            Side::Client => "the server",
            Side::Listener => "the peer",
        };
        match alert {
            AlertDescription::CertificateRequired => {
                format!("{peer} wants a certificate; set `cert` and `key`")
            }
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                format!("{peer} does not trust who signed our certificate; compare its `ca`")
            }
            AlertDescription::CertificateExpired => format!(
                "{peer} says that our certificate has expired or that it is not valid yet; issue a \
                 new one, and compare the clocks"
            ),
            AlertDescription::CertificateRevoked => {
                format!("{peer} says that our certificate has been revoked; issue a new one")
            }
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => {
                format!("{peer} refuses our certificate ({alert:?})")
            }
            AlertDescription::ProtocolVersion => {
                format!(
                    "{peer} speaks no version of TLS that is spoken here (1.2 and 1.3, up to \
                     `max-version`)"
                )
            }
            other => format!("{peer} ended the TLS connection: {other:?}"),
        }
    }
}
