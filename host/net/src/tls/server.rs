//! The listening side.

use std::{io, sync::Arc};

use levada_core::{Clock, OpenError};
use rustls::{ServerConfig, server::WebPkiClientVerifier};

use super::{
    ClientAuth, Failures, HandshakeError, Identity, ListenerTls, WallTime,
    failure::Side,
    files::{Pair, Watched, no_pair, revoked_of, roots_of},
    provider,
};
use crate::{Stream, explained::Explained};

/// Makes TLS connections of connections that arrive. Clones share their certificates.
#[derive(Debug, Clone)]
pub struct TlsAcceptor {
    config: Arc<Watched<ServerConfig>>,
    failures: Failures,
}

impl TlsAcceptor {
    /// Reads the certificates.
    ///
    /// # Errors
    /// A file that cannot be read, or does not fit the others; it is named.
    pub async fn open(settings: &ListenerTls, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let failures = Failures::new(Side::Listener, settings.ca.as_deref(), Arc::clone(&clock));
        let paths = [
            Some(&settings.cert),
            Some(&settings.key),
            settings.ca.as_ref(),
            settings.crl.as_ref(),
        ];
        let paths = paths.into_iter().flatten().cloned().collect();
        let settings = settings.clone();
        let config = Watched::open(paths, move || load(&settings, &clock)).await?;
        Ok(Self { config, failures })
    }

    /// Waits for the handshake; who the peer is, if it has shown a certificate. Not limited in time.
    pub(crate) async fn accept(
        &self,
        stream: Box<dyn Stream>,
    ) -> Result<(Box<dyn Stream>, Identity), HandshakeError> {
        let config = self.config.current().await;
        let accepting = tokio_rustls::TlsAcceptor::from(config).accept(stream);
        let failed = |error: io::Error| self.failures.in_handshake(error);
        let stream = accepting.await.map_err(failed)?;
        let identity = Identity::of(stream.get_ref().1.peer_certificates());
        let stream = Explained::new(stream, self.failures.clone());
        Ok((Box::new(stream), identity))
    }
}

fn load(settings: &ListenerTls, clock: &Arc<dyn Clock>) -> Result<ServerConfig, OpenError> {
    let unusable = |error| OpenError::with("cannot set up TLS", error);
    let time = Arc::new(WallTime(Arc::clone(clock)));
    let builder = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(settings.max_version.and_older())
        .map_err(unusable)?;
    let builder = match &settings.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots_of(ca)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .with_crls(revoked_of(settings.crl.as_deref())?);
            if settings.client_auth == Some(ClientAuth::Optional) {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| {
                OpenError::with(format!("`{}` cannot be used", ca.display()), error)
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let pair = Pair::read(&settings.cert, &settings.key)?;
    pair.announce(&settings.cert, clock.wall_ms());
    builder
        .with_single_cert(pair.chain, pair.key)
        .map_err(|error| no_pair(&settings.cert, &settings.key, error))
}
