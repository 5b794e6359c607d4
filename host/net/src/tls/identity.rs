//! Who a peer is.

use rustls::pki_types::CertificateDer;

use super::Certificate;

/// Who a peer is, as far as it has proved it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Identity {
    /// Nothing is proved: no TLS, or TLS without a certificate of the peer.
    #[default]
    Unknown,
    /// The peer holds the key of a certificate that an authority of ours has signed. The name is
    /// that of [`Certificate::name`]; a renewed certificate has the same.
    Certificate { name: String },
}

impl Identity {
    /// Whether the peer has proved who it is.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.name().is_some()
    }

    /// The peer's name, if it has proved it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Unknown => None,
            Self::Certificate { name } => Some(name),
        }
    }

    /// The identity of a peer whose certificates were checked.
    pub(super) fn of(checked: Option<&[CertificateDer<'_>]>) -> Self {
        let first = checked.and_then(<[_]>::first);
        match first.and_then(Certificate::of) {
            Some(Certificate { name, .. }) => Self::Certificate { name },
            None => Self::Unknown,
        }
    }
}
