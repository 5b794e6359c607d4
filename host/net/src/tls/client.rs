//! The connecting side.

use std::{io, sync::Arc};

use levada_core::{Clock, OpenError};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{
    ClientTls, Failures, HandshakeError, WallTime,
    failure::Side,
    files::{Pair, Watched, native_roots, no_pair, revoked_of, roots_of},
    provider,
};
use crate::{Stream, explained::Explained};

/// Makes TLS connections of connections that were made. Clones share their certificates.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    config: Arc<Watched<ClientConfig>>,
    server_name: Option<String>,
    failures: Failures,
}

impl TlsConnector {
    /// Reads the certificates; without `ca` those that the machine trusts.
    ///
    /// # Errors
    /// A file that cannot be read, or does not fit the others; it is named.
    pub async fn open(settings: &ClientTls, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let failures = Failures::new(Side::Client, settings.ca.as_deref(), Arc::clone(&clock));
        let paths = [&settings.cert, &settings.key, &settings.ca, &settings.crl];
        let paths = paths.into_iter().flatten().cloned().collect();
        let server_name = settings.server_name.clone();
        let settings = settings.clone();
        let config = Watched::open(paths, move || load(&settings, &clock)).await?;
        Ok(Self {
            config,
            server_name,
            failures,
        })
    }

    /// Waits for the handshake with the server at `host`, which may be an address, in brackets or
    /// not. Not limited in time.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, HandshakeError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name).map_err(|_| {
            HandshakeError::new(format!("`{host}` is no name that a server can have"))
        })?;
        let config = self.config.current().await;
        let connecting = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        let failed = |error: io::Error| self.failures.in_handshake(error);
        let stream = connecting.await.map_err(failed)?;
        Ok(Box::new(Explained::new(stream, self.failures.clone())))
    }
}

/// Whom a client believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the machine trusts.
    Machine,
    /// None: no handshake succeeds.
    Nobody,
}

/// How a client that makes its own connections speaks TLS: as all here, by the agent's clock. For
/// libraries that take such a set-up.
///
/// # Errors
/// The machine has no authorities.
pub fn client_config(
    authorities: Authorities,
    clock: &Arc<dyn Clock>,
) -> Result<ClientConfig, OpenError> {
    let roots = match authorities {
        Authorities::Machine => native_roots()?,
        Authorities::Nobody => RootCertStore::empty(),
    };
    let time = Arc::new(WallTime(Arc::clone(clock)));
    let builder = ClientConfig::builder_with_details(provider(), time)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::with("cannot set up TLS", error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn load(settings: &ClientTls, clock: &Arc<dyn Clock>) -> Result<ClientConfig, OpenError> {
    let unusable = |error| OpenError::with("cannot set up TLS", error);
    let time = Arc::new(WallTime(Arc::clone(clock)));
    let builder = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(settings.max_version.and_older())
        .map_err(unusable)?;
    let builder = if settings.insecure_skip_verify {
        let anybody = Arc::new(Anybody(provider()));
        builder
            .dangerous()
            .with_custom_certificate_verifier(anybody)
    } else {
        let roots = Arc::new(roots(settings)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(revoked_of(settings.crl.as_deref())?)
            .build()
            .map_err(|error| OpenError::with("cannot set up TLS", error))?;
        builder.with_webpki_verifier(verifier)
    };
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let pair = Pair::read(cert, key)?;
    pair.announce(cert, clock.wall_ms());
    builder
        .with_client_auth_cert(pair.chain, pair.key)
        .map_err(|error| no_pair(cert, key, error))
}

fn roots(settings: &ClientTls) -> Result<RootCertStore, OpenError> {
    match &settings.ca {
        Some(path) => roots_of(path),
        None => native_roots(),
    }
}

/// Believes any server: the meaning of `insecure-skip-verify`. Only that the server holds the key
/// of the certificate that it shows is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
