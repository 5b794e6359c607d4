//! Certificates for both sides, each in the form it reads: Levada PEM, Java its key stores.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio::process::Command;

/// Two servers on loopback: a Levada whose certificate an authority has signed, and a Flume that has
/// signed its own. Each side gets what it needs to trust the other. All of it lies in one folder.
#[derive(Debug, Clone)]
pub struct Certificates(PathBuf);

/// What opens every key store.
pub(super) const PASSWORD: &str = "changeit";

/// The kind of every key store.
pub(super) const KIND: &str = "PKCS12";

impl Certificates {
    /// Those of the agents below a folder.
    pub(super) fn of(below: &Path) -> Self {
        Self(below.join("certificates"))
    }

    /// Makes all of them for the agents below a folder.
    ///
    /// # Errors
    /// The folder cannot be written, or Java's `keytool` failed.
    pub async fn make(below: &Path) -> Result<Self> {
        let made = Self::of(below);
        fs::create_dir_all(&made.0)?;
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut authority = CertificateParams::default();
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "authority of the test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut server = CertificateParams::default();
        server.subject_alt_names.push(SanType::IpAddress(here));
        let key = KeyPair::generate()?;
        let server = server.signed_by(&key, &authority)?;
        fs::write(made.levada_certificate(), server.pem())?;
        fs::write(made.levada_key(), key.serialize_pem())?;
        let authority_file = made.0.join("authority.pem");
        fs::write(&authority_file, authority.pem())?;
        let import = ["-importcert", "-noprompt", "-alias", "authority", "-file"];
        keytool(&made.trusted_by_flume(), &import, Some(&authority_file)).await?;
        let name = format!("san=ip:{here}");
        let own = [
            "-genkeypair",
            "-alias",
            "flume",
            "-keyalg",
            "EC",
            "-dname",
            "CN=flume",
            "-ext",
            &name,
        ];
        keytool(&made.flume_store(), &own, None).await?;
        let export = ["-exportcert", "-rfc", "-alias", "flume", "-file"];
        keytool(
            &made.flume_store(),
            &export,
            Some(&made.trusted_by_levada()),
        )
        .await?;
        Ok(made)
    }

    pub(super) fn levada_certificate(&self) -> PathBuf {
        self.0.join("levada.pem")
    }

    pub(super) fn levada_key(&self) -> PathBuf {
        self.0.join("levada.key")
    }

    /// Flume's certificate, as PEM.
    pub(super) fn trusted_by_levada(&self) -> PathBuf {
        self.0.join("flume.pem")
    }

    /// Flume's certificate and key.
    pub(super) fn flume_store(&self) -> PathBuf {
        self.0.join("flume.p12")
    }

    /// Who signed Levada's certificate.
    pub(super) fn trusted_by_flume(&self) -> PathBuf {
        self.0.join("authority.p12")
    }
}

async fn keytool(store: &Path, arguments: &[&str], file: Option<&Path>) -> Result<()> {
    let mut command = Command::new("keytool");
    command.args(arguments).args(file);
    command.arg("-keystore").arg(store);
    command.args(["-storetype", KIND, "-storepass", PASSWORD]);
    let output = command.output().await.context("cannot start `keytool`")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "`keytool` failed: {said}");
    Ok(())
}
