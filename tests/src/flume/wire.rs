//! How bytes travel between two agents, in the words of each side's configuration.

use std::path::Path;

use crate::flume::{
    Certificates, Version,
    certificates::{KIND, PASSWORD},
};

/// What lies below the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wire {
    Plain,
    Deflate,
    Tls,
    /// Both. Until 1.9 Flume has TLS outside, since 1.10 zlib.
    DeflateTls,
}

type Keys = Vec<(&'static str, String)>;

impl Wire {
    /// Each there is.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Deflate, Self::Tls, Self::DeflateTls];

    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Deflate => "deflate",
            Self::Tls => "tls",
            Self::DeflateTls => "deflate-tls",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::DeflateTls)
    }

    fn deflates(self) -> bool {
        matches!(self, Self::Deflate | Self::DeflateTls)
    }

    /// The keys of a Flume's source.
    pub(super) fn source_keys(self, certificates: &Certificates) -> Keys {
        let store = ["keystore", "keystore-password", "keystore-type"];
        self.keys(store, &certificates.flume_store())
    }

    /// The keys of a Flume's sink or client.
    pub(super) fn sink_keys(self, certificates: &Certificates) -> Keys {
        let store = ["truststore", "truststore-password", "truststore-type"];
        self.keys(store, &certificates.trusted_by_flume())
    }

    fn keys(self, store: [&'static str; 3], file: &Path) -> Keys {
        let mut keys = Keys::new();
        if self.deflates() {
            keys.push(("compression-type", "deflate".into()));
        }
        if self.has_tls() {
            keys.push(("ssl", "true".into()));
            let values = [file.display().to_string(), PASSWORD.into(), KIND.into()];
            keys.extend(store.into_iter().zip(values));
        }
        keys
    }

    /// The lines of a Levada's source that a Flume sends to.
    #[must_use]
    pub fn levada_source(self, from: Version, certificates: &Certificates) -> String {
        let mut lines = String::new();
        if self.deflates() {
            lines += "compression = \"deflate\"\n";
        }
        if self.has_tls() {
            let (cert, key) = (certificates.levada_certificate(), certificates.levada_key());
            // The Netty of 1.9 gets stuck in the handshake of TLS 1.3, which its Java offers.
            let most = match from {
                Version::V1_9 => ", max-version = \"1.2\"",
                Version::V1_11 => "",
            };
            lines += &format!("tls = {{ cert = {cert:?}, key = {key:?}{most} }}\n");
        }
        lines
    }

    /// The lines of a Levada's sink towards a Flume.
    #[must_use]
    pub fn levada_sink(self, to: Version, certificates: &Certificates) -> String {
        let mut lines = String::new();
        if self.deflates() {
            lines += "compression = \"deflate\"\n";
        }
        if self.has_tls() {
            let ca = certificates.trusted_by_levada();
            lines += &format!("tls = {{ ca = {ca:?} }}\n");
        }
        if self == Self::DeflateTls && to == Version::V1_9 {
            lines += "deflate-over-tls = false\n";
        }
        lines
    }
}
