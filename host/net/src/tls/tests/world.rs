//! Certificates of a test.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::{ClientTls, ListenerTls, TlsVersion};

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

    pub(crate) fn listener(&self, name: &str) -> ListenerTls {
        ListenerTls {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ca: None,
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
            server_name: None,
            insecure_skip_verify: false,
            max_version: TlsVersion::V1_3,
        }
    }
}
