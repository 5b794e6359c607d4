//! A certificate authority of one's own, and what it issued: by `levada pki`, as a user would.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tokio::process::Command;

use crate::place;

/// An authority in a folder of its own.
#[derive(Debug)]
pub struct Pki {
    pub folder: PathBuf,
}

impl Pki {
    /// Makes the authority `name` below a folder.
    ///
    /// # Errors
    /// What `levada pki` said.
    pub async fn new(below: &Path, name: &str) -> Result<Self> {
        let pki = Self {
            folder: below.join(name),
        };
        pki.levada(&["init"]).await?;
        Ok(pki)
    }

    /// Issues a certificate for this machine to whoever is called so.
    ///
    /// # Errors
    /// What `levada pki` said.
    pub async fn issue(&self, name: &str) -> Result<()> {
        self.levada(&["issue", name, "--host", "127.0.0.1"]).await
    }

    /// Revokes the certificate of whoever is called so; the list is `ca.crl`.
    ///
    /// # Errors
    /// What `levada pki` said.
    pub async fn revoke(&self, name: &str) -> Result<()> {
        self.levada(&["revoke", name]).await
    }

    async fn levada(&self, line: &[&str]) -> Result<()> {
        let mut command = Command::new(place::levada()?);
        command.arg("pki").args(line).arg("--dir").arg(&self.folder);
        let output = command.output().await?;
        ensure!(output.status.success(), "levada pki {line:?}: {output:?}");
        Ok(())
    }

    /// Where a file of it is.
    #[must_use]
    pub fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// The line that `levada pki issue` says to set.
    #[must_use]
    pub fn tls(&self, name: &str) -> String {
        format!("tls = {{ {} }}", self.files(name))
    }

    /// The same, with the list of what was revoked.
    #[must_use]
    pub fn tls_with_list(&self, name: &str) -> String {
        format!(
            "tls = {{ {}, crl = {:?} }}",
            self.files(name),
            self.path("ca.crl")
        )
    }

    fn files(&self, name: &str) -> String {
        let (cert, key) = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        format!(
            "cert = {cert:?}, key = {key:?}, ca = {:?}",
            self.path("ca.pem")
        )
    }
}
