//! Certificates of a test.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::{Certificate, ClientTls, ListenerTls, TlsVersion};

/// A folder of certificates, all from one authority.
pub(crate) struct World {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of("plant")
    }

    pub(crate) fn of(authority: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, authority);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes `<name>.pem` and `<name>.key`, for the DNS name `name` unless `change` says else.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        self.issue_as(name, name, change);
    }

    pub(crate) fn issue_as(
        &self,
        file: &str,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
    }

    /// Writes `ca.crl`: the certificates in these files are revoked since the start of 2026.
    pub(crate) fn revoke(&self, names: &[&str]) {
        let line = |name: &&str| {
            let certificate = Certificate::read(&self.path(&format!("{name}.pem"))).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&certificate.serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(line).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        fs::write(self.path("ca.crl"), list.pem().unwrap()).unwrap();
    }

    pub(crate) fn listener(&self, name: &str) -> ListenerTls {
        ListenerTls {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ca: None,
            crl: None,
            client_auth: None,
            max_version: TlsVersion::V1_3,
        }
    }

    pub(crate) fn mutual(&self, name: &str) -> ListenerTls {
        ListenerTls {
            ca: Some(self.path("ca.pem")),
            ..self.listener(name)
        }
    }

    pub(crate) fn client(&self, name: Option<&str>) -> ClientTls {
        ClientTls {
            ca: Some(self.path("ca.pem")),
            cert: name.map(|name| self.path(&format!("{name}.pem"))),
            key: name.map(|name| self.path(&format!("{name}.key"))),
            crl: None,
            server_name: None,
            insecure_skip_verify: false,
            max_version: TlsVersion::V1_3,
        }
    }
}
