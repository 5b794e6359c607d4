//! Certificates for a broker.

use std::{path::Path, sync::Arc};

use levada_core::{OpenError, tasks};
use rumqttc_v5::tokio_rustls::TlsConnector;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::TlsParams;

/// Loads what is needed to speak TLS.
pub(crate) async fn connector(params: Option<TlsParams>) -> Result<TlsConnector, OpenError> {
    tasks::blocking(move || load(params.as_ref())).await
}

fn load(params: Option<&TlsParams>) -> Result<TlsConnector, OpenError> {
    let roots = match params.and_then(|params| params.ca.as_deref()) {
        Some(path) => roots_of(path)?,
        None => native_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::with("cannot set up TLS", error))?
        .with_root_certificates(roots);
    let pair = params.and_then(|params| params.cert.as_deref().zip(params.key.as_deref()));
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let certificate = certificates(cert)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| OpenError::with(unreadable(key), error))?;
            builder
                .with_client_auth_cert(certificate, private)
                .map_err(|error| {
                    let what = format!("`{}` and `{}` do not fit", cert.display(), key.display());
                    OpenError::with(what, error)
                })?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots_of(path: &Path) -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let what = || format!("`{}` holds a certificate that is none", path.display());
        roots
            .add(certificate)
            .map_err(|error| OpenError::with(what(), error))?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore, OpenError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let what = "this machine has no certificates to trust; name some with `tls = { ca = ... }`";
        return Err(match loaded.errors.into_iter().next() {
            Some(error) => OpenError::with(what, error),
            None => OpenError::new(what),
        });
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let failed = |error| OpenError::with(unreadable(path), error);
    let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(failed)?;
    if certificates.is_empty() {
        return Err(OpenError::new(format!(
            "`{}` holds no certificate",
            path.display()
        )));
    }
    Ok(certificates)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}
