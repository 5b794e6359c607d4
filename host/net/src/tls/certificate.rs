//! What a certificate says about its owner.

use std::{net::IpAddr, path::Path};

use jiff::Timestamp;
use levada_core::OpenError;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

/// The facts of one certificate. They are the owner's words; an authority's signature makes them
/// true, and is checked elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The first DNS name or URI, else the common name: what stays the same when the certificate is
    /// renewed. 1 to 255 bytes.
    pub name: String,
    /// Every name and address it is for.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Most significant byte first.
    pub serial: Vec<u8>,
    /// Milliseconds since 1970, both ends.
    pub not_before_ms: u64,
    pub not_after_ms: u64,
}

/// Most bytes of a name: as many as a DNS name may have.
const LONGEST: usize = 255;

impl Certificate {
    /// Reads a certificate; `None` if it is none, or has no name of 1 to 255 bytes.
    #[must_use]
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der.as_ref()).ok()?;
        let names = match read.subject_alternative_name() {
            Ok(Some(extension)) => &extension.value.general_names[..],
            _ => &[],
        };
        let common = read.subject().iter_common_name().next();
        let name = names
            .iter()
            .find_map(own)
            .or_else(|| common?.as_str().ok())
            .filter(|name| !name.is_empty())?;
        if name.len() > LONGEST {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            names: names.iter().filter_map(shown).collect(),
            is_authority: read.is_ca(),
            serial: read.raw_serial().to_vec(),
            not_before_ms: ms(read.validity().not_before),
            not_after_ms: ms(read.validity().not_after),
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
        let what = || format!("`{}` holds no certificate with a name", path.display());
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

pub(super) fn ms(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0) * 1000
}

/// A name that can stand for its owner: an address cannot, nor can a mailbox.
fn own<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(name),
        _ => None,
    }
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(octets) => Some(address(octets)?.to_string()),
        _ => None,
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}
