//! The files of an authority, and what it signs.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use levada_net::{Certificate, Revoked};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// The name of the authority's own files.
pub(super) const FILE: &str = "ca";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A folder with an authority in it.
#[derive(Debug)]
pub(super) struct Authority {
    folder: PathBuf,
    ends_ms: u64,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is wanted for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) hosts: &'a [String],
    pub(super) days: u32,
}

impl Authority {
    /// Makes an authority that is good for some days, in a folder that has none.
    pub(super) fn make(folder: &Path, now_ms: u64, days: u32) -> Result<Self> {
        let (certificate, key_file) = files(folder, FILE);
        for file in [&certificate, &key_file] {
            let is_free = !file.exists();
            ensure!(
                is_free,
                "`{}` is there already; without it, nothing that it signed is believed any more",
                file.display()
            );
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Two authorities of one name could not be told apart by those who refuse one of them.
        params.distinguished_name = named(&format!("levada {}", unique(&key)));
        set_time(&mut params, now_ms, days);
        let signed = params.self_signed(&key).context("cannot sign")?;
        write(&key_file, &key.serialize_pem())?;
        write(&certificate, &signed.pem())?;
        Self::open(folder)
    }

    /// Reads the authority in a folder.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let (certificate, key) = files(folder, FILE);
        if !certificate.exists() {
            bail!(
                "there is no authority in `{}`; make one with `levada pki init --dir {}`",
                folder.display(),
                folder.display()
            );
        }
        let facts = Certificate::read(&certificate)?;
        let private = read(&key)?;
        let private = KeyPair::from_pem(&private)
            .with_context(|| format!("`{}` is not what was made", key.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&facts.name);
        Ok(Self {
            folder: folder.to_owned(),
            ends_ms: facts.not_after_ms,
            issuer: Issuer::new(params, private),
        })
    }

    /// The path of its certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        files(&self.folder, FILE).0
    }

    /// The path of its key.
    pub(super) fn key(&self) -> PathBuf {
        files(&self.folder, FILE).1
    }

    /// Makes a certificate and its key; the paths of both. What was there under this name is
    /// replaced, each file at once.
    pub(super) fn issue(&self, wanted: &Wanted<'_>, now_ms: u64) -> Result<(PathBuf, PathBuf)> {
        let left = self.ends_ms.saturating_sub(now_ms) / super::DAY_MS;
        ensure!(
            left > 0,
            "the authority in `{}` has expired; make another in another folder",
            self.folder.display()
        );
        let mut params = CertificateParams::default();
        params.distinguished_name = named(wanted.name);
        // The agent's own name first: it is who the agent is to its peers.
        let hosts = wanted.hosts.iter().map(String::as_str);
        let names = [wanted.name].into_iter().chain(hosts).map(alternative);
        params.subject_alt_names = names.collect::<Result<_>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        set_time(&mut params, now_ms, wanted.days.min(u32::try_from(left)?));
        let key = KeyPair::generate().context("cannot make a key")?;
        let signed = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign")?;
        let (certificate, key_file) = files(&self.folder, wanted.name);
        write(&key_file, &key.serialize_pem())?;
        write(&certificate, &signed.pem())?;
        Ok((certificate, key_file))
    }

    /// The path of its list of revoked certificates; there is none before the first.
    pub(super) fn list(&self) -> PathBuf {
        list(&self.folder)
    }

    /// Puts a certificate of the folder on the list; false if it was there.
    pub(super) fn revoke(&self, name: &str, now_ms: u64) -> Result<bool> {
        let (certificate, _) = files(&self.folder, name);
        ensure!(
            certificate.exists(),
            "there is no `{}`; `levada pki list` shows what there is",
            certificate.display()
        );
        let serial = Certificate::read(&certificate)?.serial;
        let mut revoked = revoked(&self.folder)?;
        if revoked.iter().any(|line| line.serial == serial) {
            return Ok(false);
        }
        revoked.push(Revoked {
            serial,
            since_ms: now_ms,
        });
        let time = |ms| date_time_ymd(1970, 1, 1) + Duration::from_millis(ms);
        let line = |line: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&line.serial),
            revocation_time: time(line.since_ms),
            reason_code: None,
            invalidity_date: None,
        };
        // A list is as good as the authority: who gets no newer one goes on with it.
        let params = CertificateRevocationListParams {
            this_update: time(now_ms),
            next_update: time(self.ends_ms.max(now_ms + super::DAY_MS)),
            crl_number: SerialNumber::from(u64::try_from(revoked.len())?),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(line).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = params.signed_by(&self.issuer).context("cannot sign")?;
        write(&self.list(), &signed.pem().context("cannot sign")?)?;
        Ok(true)
    }
}

/// What the authority in a folder has revoked.
pub(super) fn revoked(folder: &Path) -> Result<Vec<Revoked>> {
    let list = list(folder);
    if !list.exists() {
        return Ok(Vec::new());
    }
    Ok(Revoked::read(&list)?)
}

fn list(folder: &Path) -> PathBuf {
    folder.join(format!("{FILE}.crl"))
}

/// Every certificate in the folder with its key: the authority first, then by name.
pub(super) fn all(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let unreadable = || format!("cannot read the folder `{}`", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (Some(name), true) = (name, path.extension().is_some_and(|end| end == "pem")) {
            names.push(name.to_owned());
        }
    }
    names.sort_by_key(|name| (name != FILE, name.clone()));
    Ok(names.iter().map(|name| files(folder, name)).collect())
}

fn files(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = |end| folder.join(format!("{name}.{end}"));
    (file("pem"), file("key"))
}

fn alternative(host: &str) -> Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let name = host.try_into();
    Ok(SanType::DnsName(name.with_context(|| {
        format!("`{host}` cannot stand in a certificate")
    })?))
}

/// A subject that is a common name. What an authority signs names it by the same bytes.
fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// From yesterday, for clocks that differ, until so many days from now.
fn set_time(params: &mut CertificateParams, now_ms: u64, days: u32) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms);
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

/// Four bytes of the public key, in hexadecimal.
fn unique(key: &KeyPair) -> String {
    let public = key.public_key_raw().iter().rev().take(4);
    public.map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Writes a file that its owner alone can read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("cannot write `{}`", path.display()))
}
