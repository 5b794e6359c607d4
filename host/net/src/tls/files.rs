//! Files that are read once, and again when they change.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use levada_core::{OpenError, tasks};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
};
use tracing::{info, warn};

use super::Certificate;

/// What was made of some files, kept up with them.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, OpenError> + Send + Sync>,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    made: Arc<T>,
    stamps: Vec<Option<Stamp>>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the files.
    ///
    /// # Errors
    /// What `load` says.
    pub(super) async fn open(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, OpenError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, OpenError> {
        tasks::blocking(move || {
            // Taken before reading: a file that changes in between is read again.
            let stamps = stamps(&paths);
            let made = Arc::new(load()?);
            Ok(Arc::new(Self {
                paths,
                load: Box::new(load),
                kept: Mutex::new(Kept { made, stamps }),
            }))
        })
        .await
    }

    /// What the files say now; what they said before, if they cannot be used.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<T> {
        let watched = Arc::clone(self);
        tasks::blocking(move || watched.renew()).await
    }

    /// Looks at the files and reads them if they have changed. Blocks.
    fn renew(&self) -> Arc<T> {
        let now = stamps(&self.paths);
        let mut kept = self.lock();
        if now == kept.stamps {
            return Arc::clone(&kept.made);
        }
        let files = self.paths.iter().map(|path| path.display().to_string());
        let files = files.collect::<Vec<_>>().join(", ");
        // Said once for each change: the next look finds the same stamps.
        kept.stamps = now;
        match (self.load)() {
            Ok(made) => {
                info!(%files, "certificates renewed; new connections use them");
                kept.made = Arc::new(made);
            }
            Err(error) => {
                let error = one_line(&error);
                warn!(%files, %error, "new certificates cannot be used; the old ones stay");
            }
        }
        Arc::clone(&kept.made)
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let facts = fs::metadata(path).ok()?;
        Some(Stamp {
            inode: facts.ino(),
            len: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    };
    paths.iter().map(stamp).collect()
}

/// An error and its causes.
fn one_line(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// A certificate with those above it, and its key.
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Pair {
    /// Reads both.
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, OpenError> {
        let chain = certificates(cert)?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| OpenError::with(unreadable(key), error))?;
        Ok(Self {
            chain,
            key: private,
        })
    }

    /// Says whose certificate it is and until when it is good; a log line for every start.
    pub(super) fn announce(&self, path: &Path, now_ms: u64) {
        let Some(facts) = self.chain.first().and_then(Certificate::of) else {
            return;
        };
        let (path, name) = (path.display(), facts.name.as_str());
        let until = facts.until();
        if facts.not_after_ms <= now_ms {
            warn!(%path, name, %until, "this certificate has expired; peers will refuse it");
        } else {
            info!(%path, name, %until, "certificate");
        }
    }
}

/// The error of a certificate and a key that are not a pair, and whatever else a pair can have.
pub(super) fn no_pair(cert: &Path, key: &Path, error: rustls::Error) -> OpenError {
    let what = format!("`{}` and `{}` do not fit", cert.display(), key.display());
    OpenError::with(what, error)
}

/// The authorities in a file.
pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let what = || format!("`{}` holds a certificate that is none", path.display());
        roots
            .add(certificate)
            .map_err(|error| OpenError::with(what(), error))?;
    }
    Ok(roots)
}

/// The authorities of the machine.
pub(super) fn native_roots() -> Result<RootCertStore, OpenError> {
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

/// The lists of revoked certificates in a file; none without a file.
pub(super) fn revoked_of(
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, OpenError> {
    path.map_or_else(
        || Ok(Vec::new()),
        |path| objects(path, "list of revoked certificates"),
    )
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    objects(path, "certificate")
}

/// Everything of one kind in a PEM file; there must be something.
fn objects<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, OpenError> {
    let failed = |error| OpenError::with(unreadable(path), error);
    let objects = T::pem_file_iter(path).map_err(failed)?;
    let objects: Vec<_> = objects.collect::<Result<_, _>>().map_err(failed)?;
    if objects.is_empty() {
        return Err(OpenError::new(format!(
            "`{}` holds no {what}",
            path.display()
        )));
    }
    Ok(objects)
}

fn unreadable(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}
