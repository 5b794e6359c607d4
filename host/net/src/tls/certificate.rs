//! What a certificate says about its owner.

mod der;

use std::{net::IpAddr, path::Path};

use jiff::Timestamp;
use levada_core::OpenError;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use self::der::{Der, GeneralName};

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
    /// Hexadecimal.
    pub serial: String,
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
        let read = Der::read(der.as_ref())?;
        let own = read.names.iter().find_map(GeneralName::own);
        let name = own.or(read.common_name).filter(|name| !name.is_empty())?;
        if name.len() > LONGEST {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            names: read.names.iter().filter_map(shown).collect(),
            is_authority: read.is_authority,
            serial: read.serial.iter().map(|b| format!("{b:02x}")).collect(),
            not_before_ms: read.not_before_ms,
            not_after_ms: read.not_after_ms,
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

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::Dns(name) | GeneralName::Uri(name) | GeneralName::Mail(name) => {
            Some((*name).to_owned())
        }
        GeneralName::Address(octets) => Some(address(octets)?.to_string()),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}
