//! A list of revoked certificates, as the one who makes it needs it again.

use std::path::Path;

use levada_core::OpenError;
use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::certificate::ms;

/// One line of a list: a certificate that is not believed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// As the certificate has it, most significant byte first.
    pub serial: Vec<u8>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Revoked {
    /// Reads the first list of a PEM file. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or there is no list in it.
    pub fn read(path: &Path) -> Result<Vec<Self>, OpenError> {
        let failed = || format!("cannot read `{}`", path.display());
        let der = CertificateRevocationListDer::from_pem_file(path)
            .map_err(|error| OpenError::with(failed(), error))?;
        let none = |error| {
            let what = format!("`{}` holds no list of revoked certificates", path.display());
            OpenError::with(what, error)
        };
        let (_, list) = CertificateRevocationList::from_der(der.as_ref()).map_err(none)?;
        let line = |line: &x509_parser::revocation_list::RevokedCertificate<'_>| Self {
            serial: line.raw_serial().to_vec(),
            since_ms: ms(line.revocation_date),
        };
        Ok(list.iter_revoked_certificates().map(line).collect())
    }
}
