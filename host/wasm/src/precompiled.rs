//! Machine code on disk: kept under keyed names, believed only with a keyed hash.
//!
//! Loading precompiled code is running native code, so nothing is loaded that was not written by
//! an agent that holds this cache's key. A file that fails its check is compiled again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use wasmtime::{Engine, component::Component};

use crate::{OpenError, engine, inspect::hex};

/// Bytes of the keyed hash at the beginning of a file.
const TAG: usize = 32;

/// Files that are kept; the oldest go first.
const MOST_FILES: usize = 64;

/// Machine code that this process may run: made by its own compiler, or proven to be.
pub(crate) struct Trusted(Vec<u8>);

impl Trusted {
    /// Takes what this agent's own compiler gave back.
    pub(crate) fn from_compiler(code: Vec<u8>) -> Self {
        Self(code)
    }

    /// Makes it runnable.
    ///
    /// # Errors
    /// What wasmtime said: code of another version or profile.
    pub(crate) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        #[expect(
            unsafe_code,
            reason = "precompiled code cannot be validated, only trusted"
        )]
        // SAFETY: `deserialize` needs bytes that `Engine::precompile_component` made and nobody
        // changed. A `Trusted` is made in two places only: `from_compiler`, with what our own
        // compiler wrote to a pipe that only it holds, and `Cache::get`, after HMAC-SHA256 over
        // exactly these bytes was checked with a key that only this agent can read.
        unsafe {
            Component::deserialize(engine, &self.0)
        }
    }
}

/// A folder of machine code, owned by the agent.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: hmac::Key,
}

impl Cache {
    /// Opens the folder, and makes it and its key if they are not there. Reads and writes files.
    ///
    /// # Errors
    /// [`OpenError::Cache`]
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path, source| OpenError::Cache {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed(dir, error))?;
        let path = dir.join("key");
        let secret = match read_key(&path) {
            Ok(secret) => secret,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_key(&path).map_err(|error| failed(&path, error))?;
                read_key(&path).map_err(|error| failed(&path, error))?
            }
            Err(error) => return Err(failed(&path, error)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    /// The code of a component, if it is here and whole.
    pub(crate) fn get(&self, digest: &str, engine: &Engine) -> Option<Trusted> {
        let name = self.name(digest, engine);
        let mut bytes = fs::read(self.dir.join(&name)).ok()?;
        if bytes.len() < TAG {
            return None;
        }
        let code = bytes.split_off(TAG);
        if hmac::verify(&self.key, &signed(&name, &code), &bytes).is_err() {
            tracing::warn!(digest, "cached code has a wrong hash and is compiled again");
            return None;
        }
        Some(Trusted(code))
    }

    /// Keeps the code of a component. Nobody ever sees half a file.
    ///
    /// # Errors
    /// What the file system said; the code can be used all the same.
    pub(crate) fn put(&self, digest: &str, engine: &Engine, code: &Trusted) -> io::Result<()> {
        let name = self.name(digest, engine);
        let tag = hmac::sign(&self.key, &signed(&name, &code.0));
        let unfinished = self.dir.join(format!("{name}.{}.new", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(tag.as_ref())?;
        file.write_all(&code.0)?;
        drop(file);
        fs::rename(&unfinished, self.dir.join(&name))?;
        self.prune()
    }

    fn name(&self, digest: &str, engine: &Engine) -> String {
        let text = format!("{digest}\n{}", engine::profile(engine));
        hex(hmac::sign(&self.key, text.as_bytes()).as_ref())
    }

    /// Removes the oldest files beyond the most that are kept.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name() != "key" {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let excess = files.len().saturating_sub(MOST_FILES);
        files[..excess]
            .iter()
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// What a file's hash covers.
fn signed(name: &str, code: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"\n", code].concat()
}

fn read_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    File::open(path)?.read_exact(&mut secret)?;
    Ok(secret)
}

/// Writes a new key, unless another process was faster: then that one counts.
fn make_key(path: &Path) -> io::Result<()> {
    let mut secret = [0; 32];
    SystemRandom::new()
        .fill(&mut secret)
        .map_err(|_| io::Error::other("no random numbers"))?;
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
