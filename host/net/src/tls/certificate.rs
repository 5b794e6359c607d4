//! What a certificate says about its owner.

use std::{net::IpAddr, path::Path};

use jiff::Timestamp;
use levada_core::OpenError;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, x509::X509Name,
};

/// The facts of one certificate. They are the owner's words; an authority's signature makes them
/// true, and is checked elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The first DNS name or URI, else the common name, else the whole subject: what stays the same
    /// when the certificate is renewed. At most 255 bytes, never empty.
    pub name: String,
    /// Every name and address it is for.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Hexadecimal.
    pub serial: String,
    /// Milliseconds since 1970, both ends.
    pub not_before_ms: u64,
    pub not_after_ms: u64,
}

/// Most bytes of a name: as many as a DNS name may have.
const LONGEST: usize = 255;

impl Certificate {
    /// Reads a certificate; `None` if it is none, or has no name of 1 to 255 bytes at all.
    #[must_use]
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der.as_ref()).ok()?;
        let names = names(&read);
        let name = names.iter().find(|(_, is_own)| *is_own);
        let name = match name {
            Some((name, _)) => name.clone(),
            None => common_name(read.subject()).unwrap_or_else(|| read.subject().to_string()),
        };
        if name.is_empty() || name.len() > LONGEST {
            return None;
        }
        let validity = read.validity();
        Some(Self {
            name,
            names: names.into_iter().map(|(name, _)| name).collect(),
            is_authority: read.is_ca(),
            serial: read
                .raw_serial()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
            not_before_ms: milliseconds(validity.not_before.timestamp()),
            not_after_ms: milliseconds(validity.not_after.timestamp()),
        })
    }

    /// Reads the first certificate of a PEM file. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or there is none in it.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let failed = || format!("cannot read `{}`", path.display());
        let der = CertificateDer::from_pem_file(path)
            .map_err(|error| OpenError::with(failed(), error))?;
        let what = || format!("`{}` holds a certificate that is none", path.display());
        Self::of(&der).ok_or_else(|| OpenError::new(what()))
    }

    /// Until when it is good, as a date with time.
    #[must_use]
    pub fn until(&self) -> String {
        date(self.not_after_ms)
    }
}

/// A time for people: `2027-01-31T12:00:00Z`.
pub(super) fn date(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    match Timestamp::from_second(seconds) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// Every alternative name, and whether it can stand for its owner: an address cannot.
fn names(read: &X509Certificate<'_>) -> Vec<(String, bool)> {
    let Ok(Some(extension)) = read.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(((*name).to_owned(), true)),
        GeneralName::RFC822Name(name) => Some(((*name).to_owned(), false)),
        GeneralName::IPAddress(octets) => Some((address(octets)?.to_string(), false)),
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn common_name(subject: &X509Name<'_>) -> Option<String> {
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}
